//! Descriptors that whoever started us has left open: a service manager (`sd_listen_fds(3)`), or a launcher.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

static TAKEN: AtomicBool = AtomicBool::new(false);
static SOCKET_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over the descriptors meant for this process (`LISTEN_PID`), each with its name from
/// `LISTEN_FDNAMES`. They do not survive an exec. Empty if there are none.
///
/// The variables stay, since the environment may not be changed once threads run; a child ignores
/// them because `LISTEN_PID` is not its own. Only the first call gets the descriptors; a later one is
/// an error of kind `AlreadyExists`.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let inherited = sd_notify::listen_fds_with_names()?;
    let own = |(number, name)| {
        // SAFETY: the protocol makes these descriptors ours, `listen_fds` has found each of them open,
        // and the latch above lets no second owner be made. No safe call takes a number over.
        (name, unsafe { OwnedFd::from_raw_fd(number) })
    };
    Ok(inherited.map(own).collect())
}

/// Takes over a socket that a launcher left open under this number; it does not survive an exec of ours. `None`:
/// there is none, or it was taken before.
///
/// Only the first call gets one: whoever names the number must not make two owners of it.
pub fn take_socket(number: i32) -> Option<OwnedFd> {
    const STANDARD: i32 = 2;
    if number <= STANDARD || SOCKET_TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: the call takes integers and looks at an open descriptor, if there is one.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if !open {
        return None;
    }
    // SAFETY: it is open, nothing of ours has been opened under a number that was given from outside before we
    // began, and the latch lets no second owner be made.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let is_socket =
        fstat(&socket).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFSOCK));
    if !is_socket {
        // Not ours after all: it is left as it was.
        let _ = socket.into_raw_fd();
        return None;
    }
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_that_was_taken_over_does_not_survive_an_exec() {
        let (near, _far) = UnixStream::pair().unwrap();
        fcntl(&near, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let taken = take_socket(near.into_raw_fd()).unwrap();
        let flags = FdFlag::from_bits_retain(fcntl(&taken, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert!(take_socket(taken.as_raw_fd()).is_none(), "two owners");
    }
}
