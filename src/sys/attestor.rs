//! The attestor: a child process that looks into other processes for a daemon that may not.
//!
//! A process that landlock confines can trace none outside of its domain, and reading what a process
//! runs counts as that (`hook_ptrace_access_check` in the kernel's `security/landlock/task.c`). So the
//! daemon forks this child first. It holds no secret, as none is read before; it answers one kind of
//! question, one at a time, over a pair of sockets, and ends when the daemon's end is closed. Of the
//! rights of a superuser it keeps the two that it needs.
//!
//! A message is one datagram of bounded size: its kind, the number of the exchange, and what belongs to
//! the kind. Both ends are the same program, so numbers are in the machine's own order. May import
//! `peer` and its neighbours.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recv,
    recvmsg, send, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, getppid};

use super::peer::{Executable, executable, has_ended, pidfd_open};
use super::{capability, descriptors, harden};

/// What `ps` and `/proc/<pid>/comm` call it; the kernel keeps 15 bytes.
const NAME: &std::ffi::CStr = c"ravi-attestor";
/// The daemon waits this long for an answer. Usual is well below a millisecond.
const PATIENCE_MS: i64 = 300;
/// Signals that may cut a wait short before it counts as failed.
const INTERRUPTIONS: usize = 8;
/// What is sent to a whole terminal or control group. The daemon decides when the attestor ends.
const NOT_FOR_IT: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// The daemon's end.
#[derive(Debug)]
pub struct Attestor {
    /// Held for one exchange, and never for longer than two waits.
    line: Mutex<Line>,
    pid: u32,
    pidfd: OwnedFd,
}

/// One exchange after the other: an answer that comes too late is recognised by its number.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    exchange: u32,
    /// The last question has not been answered yet.
    behind: bool,
}

impl Attestor {
    /// Forks the child. To be called before any thread is started and before any secret is read: it
    /// keeps a copy of the memory as it is now. Of several threads, only the calling one would go on in
    /// it; when that ends in the parent, so does the child.
    pub fn start() -> io::Result<Self> {
        let (socket, far) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let patience = TimeVal::milliseconds(PATIENCE_MS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        let parent = getpid();
        // SAFETY: no other thread runs, so no lock that the child might want is held by one that it
        // lacks. The child never returns into the parent's code.
        match unsafe { fork() }? {
            ForkResult::Child => live(&far, parent),
            ForkResult::Parent { child } => {
                let pid = child.as_raw().cast_unsigned();
                let line = Line { socket, exchange: 0, behind: false };
                Ok(Self { line: Mutex::new(line), pid, pidfd: pidfd_open(pid)? })
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The file that a process runs now, as [`executable`] reads it. `pidfd` pins the process that has
    /// this `pid`; `ESRCH` if it has ended. Blocks for one exchange, tens of microseconds.
    ///
    /// # Errors
    /// `TimedOut`: no answer. `WouldBlock`: none yet to an earlier question, so this one was not asked.
    /// Others: the attestor is gone, or what it met.
    pub fn executable(&self, pid: u32, pidfd: impl AsFd) -> io::Result<Executable> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.ask(Kind::Executable, pid, pidfd.as_fd())
    }
}

impl Line {
    fn ask(&mut self, kind: Kind, pid: u32, pidfd: BorrowedFd<'_>) -> io::Result<Executable> {
        if self.behind {
            let _too_late = self.hear(MsgFlags::MSG_DONTWAIT)?;
        }
        self.exchange = self.exchange.wrapping_add(1);
        Question { kind: kind as u32, exchange: self.exchange, pid }.send(&self.socket, pidfd)?;
        self.behind = true;
        self.hear(MsgFlags::empty()).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })?
    }

    /// The answer to the last question. The outer error: there is none.
    fn hear(&mut self, flags: MsgFlags) -> io::Result<io::Result<Executable>> {
        let mut bytes = [0; Answer::LIMIT];
        for _ in 0..INTERRUPTIONS {
            match recv(self.socket.as_raw_fd(), &mut bytes, flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(length) => {
                    let answer = Answer::read(&bytes[..length]).filter(|it| it.exchange == self.exchange);
                    let answer = answer.ok_or(Errno::EBADMSG)?;
                    self.behind = false;
                    return Ok(answer.found);
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// What can be asked.
#[derive(Clone, Copy)]
enum Kind {
    Executable = 1,
}

/// Three numbers, with the pidfd of the process attached.
struct Question {
    kind: u32,
    exchange: u32,
    pid: u32,
}

impl Question {
    const LENGTH: usize = 12;

    fn send(&self, socket: &OwnedFd, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        let mut bytes = [0; Self::LENGTH];
        for (place, number) in bytes.chunks_exact_mut(4).zip([self.kind, self.exchange, self.pid]) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        let attached = [pidfd.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&attached)];
        let data = [IoSlice::new(&bytes)];
        sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, &control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// `None`: the daemon's end is closed.
    fn receive(socket: &OwnedFd) -> nix::Result<Option<(Self, Option<OwnedFd>)>> {
        let mut bytes = [0; Self::LENGTH];
        let mut control = nix::cmsg_space!([i32; 1]);
        let mut data = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut data, Some(&mut control), flags)?;
        let mut attached = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else owns them.
                attached = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).next();
            }
        }
        match message.bytes {
            0 => Ok(None),
            Self::LENGTH => {
                let mut bytes = bytes.as_slice();
                let mut next = || take_u32(&mut bytes).ok_or(Errno::EBADMSG);
                Ok(Some((Self { kind: next()?, exchange: next()?, pid: next()? }, attached)))
            }
            _ => Err(Errno::EBADMSG),
        }
    }

    /// Pinned from before the reading to after it: so what was read is not about a later owner of the pid.
    fn answer(&self, pidfd: Option<OwnedFd>) -> io::Result<Executable> {
        let pidfd = pidfd.filter(|_| self.kind == Kind::Executable as u32).ok_or(Errno::EINVAL)?;
        let found = executable(self.pid)?;
        if has_ended(&pidfd)? { Err(Errno::ESRCH.into()) } else { Ok(found) }
    }
}

/// The number of the exchange, an error or 0, device, inode, and the path to the end.
struct Answer {
    exchange: u32,
    found: io::Result<Executable>,
}

impl Answer {
    const HEAD: usize = 24;
    /// With the longest path that the kernel gives (`PATH_MAX`).
    const LIMIT: usize = Self::HEAD + 4096;

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LIMIT);
        bytes.extend(self.exchange.to_ne_bytes());
        match &self.found {
            Ok(Executable { device, inode, path }) => {
                bytes.extend(0_u32.to_ne_bytes());
                bytes.extend(device.to_ne_bytes());
                bytes.extend(inode.to_ne_bytes());
                bytes.extend(path.as_os_str().as_bytes());
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                bytes.extend(errno.cast_unsigned().to_ne_bytes());
            }
        }
        bytes
    }

    /// `None`: not in this form.
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let exchange = take_u32(&mut bytes)?;
        let errno = take_u32(&mut bytes)?.cast_signed();
        if errno != 0 {
            return Some(Self { exchange, found: Err(io::Error::from_raw_os_error(errno)) });
        }
        let (device, inode) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?);
        let path = OsStr::from_bytes(bytes).into();
        Some(Self { exchange, found: Ok(Executable { device, inode, path }) })
    }
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_ne_bytes(*number))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_ne_bytes(*number))
}

/// The child's whole life. A panic must not unwind into the parent's code, of which this is a copy.
fn live(socket: &OwnedFd, parent: Pid) -> ! {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        settle(socket, parent)?;
        serve(socket)
    }));
    let code = i32::from(!matches!(lived, Ok(Ok(()))));
    // SAFETY: ends the process without running what the parent has registered for its own end.
    unsafe { libc::_exit(code) }
}

/// Leaves nothing of the daemon in the child that it does not need.
fn settle(socket: &OwnedFd, parent: Pid) -> io::Result<()> {
    prctl::set_name(NAME)?;
    for ignored in NOT_FOR_IT {
        // SAFETY: ignoring a signal installs no handler, so nothing can run in its context.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // Besides the end of the socket: it holds even while a question keeps us in the kernel.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    // Closed below with all others.
    std::mem::forget(null);
    // SAFETY: `_exit` ends this copy of the program, so no owner of a closed descriptor is dropped, and
    // what is opened from here on has owners of its own.
    unsafe { descriptors::close_all_but(socket.as_raw_fd()) }?;
    capability::keep_only(&[capability::SYS_PTRACE, capability::DAC_READ_SEARCH])?;
    if harden::not_dumpable() { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// Answers until the daemon's end is closed.
fn serve(socket: &OwnedFd) -> io::Result<()> {
    loop {
        let (question, pidfd) = match Question::receive(socket) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let answer = Answer { exchange: question.exchange, found: question.answer(pidfd) };
        send(socket.as_raw_fd(), &answer.write(), MsgFlags::MSG_NOSIGNAL)?;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_attestor_says_what_the_process_itself_would_read() {
        let attestor = Attestor::start().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        // Until it has become the other program.
        while executable(child.id()).unwrap() == executable(std::process::id()).unwrap() {}
        assert_eq!(attestor.executable(child.id(), &pidfd).unwrap(), executable(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        // Its pid might be another's by now; here it is made to be.
        let recycled = attestor.executable(std::process::id(), &pidfd);
        assert_eq!(recycled.unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn an_attestor_that_does_not_answer_costs_one_wait_and_not_one_each() {
        let attestor = Attestor::start().unwrap();
        let child = Pid::from_raw(attestor.pid().cast_signed());
        let own = pidfd_open(std::process::id()).unwrap();
        let ask = || attestor.executable(std::process::id(), &own).map_err(|error| error.kind());
        ask().unwrap();
        nix::sys::signal::kill(child, Signal::SIGSTOP).unwrap();
        assert_eq!(ask(), Err(ErrorKind::TimedOut));
        assert_eq!(ask(), Err(ErrorKind::WouldBlock));
        nix::sys::signal::kill(child, Signal::SIGCONT).unwrap();
        while ask() == Err(ErrorKind::WouldBlock) {}
        ask().unwrap();
        nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
        while !has_ended(attestor.pidfd()).unwrap() {}
        assert!(ask().is_err());
    }

    #[test]
    fn answers_survive_the_wire_and_others_are_refused() {
        let found = Executable { device: 7, inode: u64::MAX, path: "/bin/\u{e9} x".into() };
        let bytes = Answer { exchange: 9, found: Ok(found.clone()) }.write();
        let read = Answer::read(&bytes).unwrap();
        assert_eq!((read.exchange, read.found.unwrap()), (9, found));
        for length in 0..Answer::HEAD {
            assert!(Answer::read(&bytes[..length]).is_none(), "{length}");
        }
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let read = Answer::read(&Answer { exchange: 9, found: Err(error) }.write()).unwrap();
        assert_eq!(read.found.unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
