//! The attestor: a child process that looks into other processes for a daemon that may not.
//!
//! A process that landlock confines can trace none outside of its domain, and reading what a process
//! runs or which namespaces it is in counts as that (`hook_ptrace_access_check` in the kernel's
//! `security/landlock/task.c`). So the daemon forks this child first. It holds no secret, as none is read
//! before; it answers a few kinds of questions, one at a time, over a pair of sockets, and ends when the
//! daemon's end is closed. Of the rights of a superuser it keeps the two that it needs. A file that it
//! opens for the daemon can be read there whatever landlock says: that judges who opens.
//!
//! Each question is about a pid. The caller pins the process and, after the answer, looks whether it still
//! lives: so what was read is not about a later owner of the pid. May import its neighbours in `sys`.

mod child;
mod wire;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{ForkResult, fork, getpid};

use self::wire::{Answer, Found, Message, Question};
use super::facts::{FileVersion, Traced};
use super::peer::{Executable, pidfd_open};

/// The daemon waits this long for an answer. Usual is well below a millisecond.
const PATIENCE_MS: i64 = 300;
/// Signals that may cut a wait short before it counts as failed.
const INTERRUPTIONS: usize = 8;

/// The daemon's end.
///
/// Every question blocks for one exchange, tens of microseconds. Besides what the attestor itself met, an
/// error is `TimedOut`: no answer; `WouldBlock`: none yet to an earlier question, so this one was not
/// asked; or another: the attestor is gone.
#[derive(Debug)]
pub struct Attestor {
    /// Held for one exchange, and never for longer than two waits.
    line: Mutex<Line>,
    pid: u32,
    pidfd: OwnedFd,
}

impl Attestor {
    /// Forks the child. To be called before any thread is started and before any secret is read: it
    /// keeps a copy of the memory as it is now. Of several threads, only the calling one would go on in
    /// it; when that ends in the parent, so does the child.
    pub fn start() -> io::Result<Self> {
        let (socket, far) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let line = Line::new(socket)?;
        let parent = getpid();
        // SAFETY: no other thread runs, so no lock that the child might want is held by one that it
        // lacks. The child never returns into the parent's code.
        match unsafe { fork() }? {
            ForkResult::Child => child::live(&far, parent),
            ForkResult::Parent { child } => {
                let pid = child.as_raw().cast_unsigned();
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

    /// As [`super::peer::executable`].
    pub fn executable(&self, pid: u32) -> io::Result<Executable> {
        self.ask(pid)
    }

    /// As [`super::facts::traced`].
    pub fn traced(&self, pid: u32) -> io::Result<Traced> {
        self.ask(pid)
    }

    /// As [`super::facts::executable_version`].
    pub fn executable_version(&self, pid: u32) -> io::Result<FileVersion> {
        self.ask(pid)
    }

    /// As [`super::facts::open_executable`]. `EMFILE`: we may open no more.
    pub fn open_executable(&self, pid: u32) -> io::Result<File> {
        self.ask(pid)
    }

    fn ask<F: Found>(&self, pid: u32) -> io::Result<F> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.ask(F::KIND as u32, pid)?.found()
    }
}

/// One exchange after the other: an answer that comes too late is recognised by its number.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    exchange: u32,
    /// The last question has not been answered yet.
    behind: bool,
}

impl Line {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let patience = TimeVal::milliseconds(PATIENCE_MS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        Ok(Self { socket, exchange: 0, behind: false })
    }

    fn ask(&mut self, kind: u32, pid: u32) -> io::Result<Answer> {
        if self.behind {
            // Dropped with the descriptor that it may carry.
            let _too_late = self.hear(MsgFlags::MSG_DONTWAIT)?;
        }
        self.exchange = self.exchange.wrapping_add(1);
        Question { kind, exchange: self.exchange, pid }.send(&self.socket)?;
        self.behind = true;
        self.hear(MsgFlags::empty()).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }

    /// The answer to the last question.
    fn hear(&mut self, flags: MsgFlags) -> io::Result<Answer> {
        for _ in 0..INTERRUPTIONS {
            match Message::receive(&self.socket, flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(None) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(Some(message)) => {
                    let answer = Answer::read(message).filter(|it| it.exchange == self.exchange);
                    let answer = answer.ok_or(Errno::EBADMSG)?;
                    self.behind = false;
                    return Ok(answer);
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};
    use nix::unistd::Pid;

    use super::super::facts::{self, executable_version, traced};
    use super::super::peer::{executable, has_ended};
    use super::*;

    /// A process that runs a file of its own, and where that lies.
    struct Running {
        child: Child,
        program: PathBuf,
        _place: tempfile::TempDir,
    }

    impl Running {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let program = place.path().canonicalize().unwrap().join("program");
            // Not copied here: a child that another test forks meanwhile would have it open, and it could not be run.
            assert!(Command::new("cp").arg("/bin/cat").arg(&program).status().unwrap().success());
            let mut command = Command::new(&program);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // It speaks once it has become the other program.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            Self { child, program, _place: place }
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn signal(attestor: &Attestor, signal: Signal) {
        kill(Pid::from_raw(attestor.pid().cast_signed()), signal).unwrap();
    }

    /// How many descriptors of ours lead to the file.
    fn open_here(file: &Path) -> usize {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        descriptors.filter(|it| std::fs::read_link(it.path()).is_ok_and(|path| path == file)).count()
    }

    #[test]
    fn the_attestor_says_what_the_process_itself_would_read() {
        let attestor = Attestor::start().unwrap();
        let running = Running::new();
        let pid = running.pid();
        assert_eq!(attestor.executable(pid).unwrap(), executable(pid).unwrap());
        assert_eq!(attestor.executable(pid).unwrap().path, running.program);
        let seen = attestor.traced(pid).unwrap();
        assert!(seen.executable.is_some() && seen.namespaces.is_some());
        assert_eq!(seen, traced(pid));
        assert_eq!(seen.namespaces, facts::namespaces(std::process::id()).ok());
        assert_eq!(attestor.executable_version(pid).unwrap(), executable_version(pid).unwrap());
        let mut file = attestor.open_executable(pid).unwrap();
        assert_ne!(fcntl(&file, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, 0);
        assert!((&file).write(b"x").is_err(), "it is there to be read");
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == std::fs::read(&running.program).unwrap());
        drop(file);
        assert_eq!(open_here(&running.program), 0);
    }

    #[test]
    fn one_that_is_not_there_is_an_error_of_its_own_kind() {
        let attestor = Attestor::start().unwrap();
        let none = u32::MAX;
        assert_eq!(attestor.executable(none).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(attestor.executable_version(none).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(attestor.open_executable(none).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(attestor.traced(none).unwrap(), Traced::default());
        let unknown = attestor.line.lock().unwrap().ask(99, std::process::id()).unwrap();
        assert_eq!(unknown.found::<File>().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn an_attestor_that_does_not_answer_costs_one_wait_and_not_one_each() {
        let attestor = Attestor::start().unwrap();
        let ask = || attestor.executable(std::process::id()).map_err(|error| error.kind());
        ask().unwrap();
        signal(&attestor, Signal::SIGSTOP);
        assert_eq!(ask(), Err(ErrorKind::TimedOut));
        assert_eq!(ask(), Err(ErrorKind::WouldBlock));
        signal(&attestor, Signal::SIGCONT);
        while ask() == Err(ErrorKind::WouldBlock) {}
        ask().unwrap();
        signal(&attestor, Signal::SIGKILL);
        while !has_ended(attestor.pidfd()).unwrap() {}
        assert!(ask().is_err());
    }

    #[test]
    fn a_file_that_comes_too_late_is_closed_and_answers_nothing_else() {
        let attestor = Attestor::start().unwrap();
        let running = Running::new();
        signal(&attestor, Signal::SIGSTOP);
        let late = attestor.open_executable(running.pid());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        signal(&attestor, Signal::SIGCONT);
        let own = executable(std::process::id()).unwrap();
        let ask = || attestor.executable(std::process::id()).map_err(|error| error.kind());
        let answered = std::iter::repeat_with(ask).find(|it| *it != Err(ErrorKind::WouldBlock));
        assert_eq!(answered, Some(Ok(own)));
        assert_eq!(open_here(&running.program), 0);
    }

    /// A descriptor whose only copy is the one that is sent, and how to see that it is closed.
    fn send_along(socket: &OwnedFd, bytes: &[u8], copies: usize) -> std::os::unix::net::UnixStream {
        let (ours, sent) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let numbers = vec![std::os::fd::AsRawFd::as_raw_fd(&sent); copies];
        let (data, control) = ([io::IoSlice::new(bytes)], [ControlMessage::ScmRights(&numbers)]);
        let socket = std::os::fd::AsRawFd::as_raw_fd(socket);
        sendmsg::<UnixAddr>(socket, &data, &control, MsgFlags::empty(), None).unwrap();
        ours
    }

    /// It ends once the other side is closed everywhere.
    fn is_closed(mut stream: std::os::unix::net::UnixStream) -> bool {
        stream.read(&mut [0]).is_ok_and(|length| length == 0)
    }

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_closed() {
        let attestor = Attestor::start().unwrap();
        let mut line = attestor.line.lock().unwrap();
        let question = numbers(&[wire::Kind::Traced as u32, 0, std::process::id()]);
        let sent = send_along(&line.socket, &question, 1);
        line.hear(MsgFlags::empty()).unwrap().found::<Traced>().unwrap();
        assert!(is_closed(sent), "by the attestor, which goes on");
        line.ask(wire::Kind::Traced as u32, std::process::id()).unwrap();

        let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        for copies in [1, 2, 253] {
            let (near, far) = pair().unwrap();
            let mut line = Line::new(near).unwrap();
            let body = [&numbers(&[1, 0])[..], &[7; 16], b"/bin/cat"].concat();
            let sent = send_along(&far, &body, copies);
            let found = line.ask(wire::Kind::Executable as u32, 1).and_then(Answer::found::<Executable>);
            assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::EBADMSG), "{copies}");
            assert!(is_closed(sent), "{copies}");
        }
    }
}
