//! The attestor as a service of its own: serves whoever owns the path of its socket, one connection at a time.
//! Imports its neighbours in `sys`.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::socket::{SockFlag, SockType, UnixAddr, accept4, getsockname, getsockopt, setsockopt, sockopt};
use nix::sys::stat::lstat;
use nix::sys::time::{TimeVal, TimeValLike};

use super::super::peer::credentials;
use super::super::{capability, harden};
use super::answer::answer_one;
use super::{NAME, PATIENCE_MS};

/// Serves until it is told to end. The listener is one of sequenced packets, with a path. An error is about the
/// listener; a caller that breaks the form loses its connection and no more.
pub fn serve(listener: &OwnedFd) -> io::Result<Infallible> {
    let owner = owner(listener)?;
    prctl::set_name(NAME)?;
    capability::keep_only(&[capability::SYS_PTRACE, capability::DAC_READ_SEARCH])?;
    if !harden::not_dumpable() {
        return Err(Errno::EPERM.into());
    }
    let mut line: Option<OwnedFd> = None;
    loop {
        let (calls, asks) = wait(listener, line.as_ref())?;
        if let Some(open) = &line
            && asks
            && !answer_one(open).unwrap_or(false)
        {
            line = None;
        }
        if calls {
            // The latest counts: the daemon before it may have been stopped and still hold its own.
            line = accept(listener, owner)?.or(line);
        }
    }
}

/// Who may ask. The path of a listener says it, and its mode: who cannot write to it does not connect.
fn owner(listener: &OwnedFd) -> io::Result<u32> {
    let usable = getsockopt(listener, sockopt::SockType)? == SockType::SeqPacket
        && getsockopt(listener, sockopt::AcceptConn)?;
    let address = getsockname::<UnixAddr>(listener.as_raw_fd())?;
    let path = address.path().filter(|_| usable).ok_or(Errno::EINVAL)?;
    Ok(lstat(path)?.st_uid)
}

/// Whether somebody connects, and whether somebody asks or has gone.
fn wait(listener: &OwnedFd, line: Option<&OwnedFd>) -> io::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    fds.extend(line.map(|line| PollFd::new(line.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok((false, false)),
        other => other?,
    };
    let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| fd.any().unwrap_or(true));
    Ok((is_ready(fds.first()), is_ready(fds.get(1))))
}

/// `None`: a stranger, or one that has gone already.
fn accept(listener: &OwnedFd, owner: u32) -> io::Result<Option<OwnedFd>> {
    let number = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
        Ok(number) => number,
        Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNABORTED) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    let caller = unsafe { OwnedFd::from_raw_fd(number) };
    // Who takes no answers must not keep us from accepting.
    setsockopt(&caller, sockopt::SendTimeout, &TimeVal::milliseconds(PATIENCE_MS))?;
    Ok((credentials(&caller)?.uid == owner).then_some(caller))
}
