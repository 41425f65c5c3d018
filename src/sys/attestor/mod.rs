//! The attestor: a process that looks into other processes for a daemon that may not.
//!
//! A process that landlock confines can trace none outside of its domain, and reading what a process
//! runs or which namespaces it is in counts as that (`hook_ptrace_access_check` in the kernel's
//! `security/landlock/task.c`). And where `/proc` hides processes of other users, nothing of theirs can be read at
//! all. So somebody else reads for the daemon, who holds no secret, answers a few kinds of questions, one at a time,
//! over a pair of sockets, and keeps of the rights of a superuser the two that it needs. It has one of two forms:
//!
//! - a *child*, which the daemon forks first, before a secret is read. It sees what the daemon's user would see. It
//!   ends when the daemon's end is closed, and the daemon when it ends.
//! - a *service* that the service manager runs, and starts anew. The daemon is given the path of its socket, and
//!   connects again when the connection has ended. Each end judges the user of the other.
//!
//! A file that it opens for the daemon can be read there whatever landlock says: that judges who opens.
//!
//! Each question is about a pid. The caller pins the process and, after the answer, looks whether it still
//! lives: so what was read is not about a later owner of the pid. May import its neighbours in `sys`.

mod answer;
mod child;
mod found;
mod line;
mod remote;
mod service;
mod wire;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork, getpid};

use self::found::{Canonical, Group};
use self::line::Line;
use self::remote::Remote;
pub use self::service::serve;
use self::wire::{About, Answer, Found, MAX_PATH};
use super::facts::{Facts, FileVersion};
use super::lineage::Lineage;
use super::peer::{Executable, Stat, pidfd_open};

/// What `ps` and `/proc/<pid>/comm` call it; the kernel keeps 15 bytes.
const NAME: &std::ffi::CStr = c"ravi-attestor";
/// The daemon waits this long for an answer. Usual is well below a millisecond.
const PATIENCE_MS: i64 = 300;

/// The daemon's end.
///
/// Every question blocks for one exchange, tens of microseconds. Besides what the attestor itself met, an
/// error is [silence](is_silence). `TimedOut`: no answer; `WouldBlock`: none yet to an earlier question, so this
/// one was not asked; another: the attestor is gone.
#[derive(Debug)]
pub struct Attestor {
    /// Held for one exchange; where a service has to be connected to again, for one more. Neither waits
    /// longer than [`PATIENCE_MS`] to be heard or to hear.
    far: Mutex<Far>,
    /// `None`: a service.
    child: Option<Child>,
}

#[derive(Debug)]
enum Far {
    Child(Line),
    Service(Remote),
}

/// The child, pinned.
#[derive(Debug)]
struct Child {
    pid: u32,
    pidfd: OwnedFd,
}

/// True if the attestor has not said anything, rather than that it could not find something out.
pub fn is_silence(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

impl Attestor {
    /// Forks the child. To be called before any thread is started and before any secret is read: it
    /// keeps a copy of the memory as it is now. Of several threads, only the calling one would go on in
    /// it; when that ends in the parent, so does the child.
    pub fn start() -> io::Result<Self> {
        let (socket, far) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let line = Line::new(socket, PATIENCE_MS)?;
        let parent = getpid();
        // SAFETY: no other thread runs, so no lock that the child might want is held by one that it
        // lacks. The child never returns into the parent's code.
        match unsafe { fork() }? {
            ForkResult::Child => child::live(&far, parent),
            ForkResult::Parent { child } => {
                let pid = child.as_raw().cast_unsigned();
                let child = Some(Child { pid, pidfd: pidfd_open(pid)? });
                Ok(Self { far: Mutex::new(Far::Child(line)), child })
            }
        }
    }

    /// Connects to the service that listens at the path. Waits 10 s at most: it may have to be started first.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { far: Mutex::new(Far::Service(Remote::open(path)?)), child: None })
    }

    /// True if it is not a child of ours: it may see other files at a path than we do.
    pub fn is_service(&self) -> bool {
        self.child.is_none()
    }

    /// The process id of a child.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Readable when a child has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|child| child.pidfd.as_fd())
    }

    /// As [`super::peer::executable`].
    pub fn executable(&self, pid: u32) -> io::Result<Executable> {
        self.ask(About::process(pid))
    }

    /// As [`super::facts::look`], asked by us.
    pub fn facts(&self, pid: u32) -> io::Result<Facts> {
        self.ask(About { other: std::process::id(), ..About::process(pid) })
    }

    /// As [`super::facts::executable_version`].
    pub fn executable_version(&self, pid: u32) -> io::Result<FileVersion> {
        self.ask(About::process(pid))
    }

    /// As [`super::facts::open_executable`]. `EMFILE`: we may open no more.
    pub fn open_executable(&self, pid: u32) -> io::Result<File> {
        self.ask(About::process(pid))
    }

    /// As [`super::peer::stat`].
    pub fn stat(&self, pid: u32) -> io::Result<Stat> {
        self.ask(About::process(pid))
    }

    /// As [`super::facts::cgroup`].
    pub fn cgroup(&self, pid: u32) -> io::Result<Vec<u8>> {
        self.ask::<Group>(About::process(pid)).map(|group| group.0)
    }

    /// As [`super::lineage::lineage`].
    pub fn lineage(&self, pid: u32, top: u32) -> io::Result<Lineage> {
        self.ask(About { other: top, ..About::process(pid) })
    }

    /// The path without links, as the attestor sees it.
    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let path = path.as_os_str().as_bytes();
        if path.len() > MAX_PATH {
            return Err(Errno::ENAMETOOLONG.into());
        }
        self.ask::<Canonical>(About { path, ..About::default() }).map(|path| path.0)
    }

    fn ask<F: Found>(&self, about: About<'_>) -> io::Result<F> {
        self.exchange(F::KIND as u32, about)?.found()
    }

    fn exchange(&self, kind: u32, about: About<'_>) -> io::Result<Answer> {
        match &mut *self.far.lock().unwrap_or_else(PoisonError::into_inner) {
            Far::Child(line) => line.ask(kind, about),
            Far::Service(remote) => remote.ask(kind, about),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::socket::{
        Backlog, ControlMessage, MsgFlags, UnixAddr, accept, bind, listen, sendmsg, socket,
    };
    use nix::unistd::Pid;

    use super::super::facts::{executable_version, look, namespaces};
    use super::super::lineage::{Link, lineage};
    use super::super::peer::{executable, has_ended, stat};
    use super::wire::Message;
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
        kill(Pid::from_raw(attestor.pid().unwrap().cast_signed()), signal).unwrap();
    }

    /// How many descriptors of ours lead to the file.
    fn open_here(file: &Path) -> usize {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        descriptors.filter(|it| std::fs::read_link(it.path()).is_ok_and(|path| path == file)).count()
    }

    /// A service that a thread of ours plays, and its path.
    struct Service {
        path: PathBuf,
        _place: tempfile::TempDir,
    }

    impl Service {
        /// What the service does after that, the thread does for as long as the test runs.
        fn with(serve: impl FnOnce(OwnedFd) + Send + 'static) -> Self {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("attestor");
            let listener = listening(&path);
            std::thread::spawn(move || serve(listener));
            Self { path, _place: place }
        }

        fn new() -> Self {
            Self::with(|listener| {
                // Without the rest of `serve`, which would change this very process.
                while let Ok(number) = accept(listener.as_raw_fd()) {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
                    let caller = unsafe { OwnedFd::from_raw_fd(number) };
                    while answer::answer_one(&caller).unwrap_or(false) {}
                }
            })
        }
    }

    fn listening(path: &Path) -> OwnedFd {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        socket
    }

    #[test]
    fn the_attestor_says_what_the_process_itself_would_read() {
        let service = Service::new();
        says_what_we_would_read(&Attestor::start().unwrap());
        says_what_we_would_read(&Attestor::connect(&service.path).unwrap());
    }

    fn says_what_we_would_read(attestor: &Attestor) {
        let running = Running::new();
        let (pid, own) = (running.pid(), std::process::id());
        assert_eq!(attestor.executable(pid).unwrap(), executable(pid).unwrap());
        assert_eq!(attestor.executable(pid).unwrap().path, running.program);
        let seen = attestor.facts(pid).unwrap();
        assert!(seen.executable.is_some() && seen.stat.is_some() && seen.nested == Some(1));
        assert_eq!(seen, look(pid, own));
        assert_eq!(seen.namespaces, namespaces(own).ok());
        assert_eq!(attestor.stat(pid).unwrap(), stat(pid).unwrap());
        assert_eq!(attestor.cgroup(pid).ok(), super::super::facts::cgroup(pid).ok());
        let chain = attestor.lineage(pid, own).unwrap();
        assert_eq!(chain, lineage(pid, own).unwrap());
        assert_eq!(chain.0.iter().map(|link: &Link| link.pid).collect::<Vec<_>>(), [pid, own]);
        let link = running.program.with_file_name("link");
        std::os::unix::fs::symlink(&running.program, &link).unwrap();
        assert_eq!(attestor.canonical(&link).unwrap(), running.program);
        assert_eq!(attestor.executable_version(pid).unwrap(), executable_version(pid).unwrap());
        let mut file = attestor.open_executable(pid).unwrap();
        assert_ne!(fcntl(&file, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, 0);
        assert!((&file).write(b"x").is_err(), "it is there to be read");
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == std::fs::read(&running.program).unwrap());
        drop(file);
        // A thread that plays the service closes its own after it has sent it.
        let mut looks = std::iter::repeat_with(|| open_here(&running.program)).take(100_000);
        assert!(looks.any(|open| open == 0));
    }

    #[test]
    fn one_that_is_not_there_is_an_error_of_its_own_kind() {
        let attestor = Attestor::start().unwrap();
        let none = u32::MAX;
        let missing = |error: io::Error| {
            assert!(!is_silence(&error));
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        };
        missing(attestor.executable(none).unwrap_err());
        missing(attestor.executable_version(none).unwrap_err());
        missing(attestor.open_executable(none).unwrap_err());
        missing(attestor.stat(none).unwrap_err());
        missing(attestor.lineage(none, 1).unwrap_err());
        missing(attestor.canonical(Path::new("/nonexistent")).unwrap_err());
        let long = PathBuf::from("/".repeat(MAX_PATH + 1));
        assert_eq!(attestor.canonical(&long).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        assert_eq!(attestor.facts(none).unwrap(), Facts::default());
        let unknown = attestor.exchange(99, About::process(std::process::id())).unwrap();
        assert_eq!(unknown.found::<File>().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    /// Answers a number of questions, then closes the connection and waits for another, for ever.
    fn of_few_words(questions: usize) -> Service {
        Service::with(move |listener| {
            while let Ok(number) = accept(listener.as_raw_fd()) {
                // SAFETY: as above.
                let caller = unsafe { OwnedFd::from_raw_fd(number) };
                for _ in 0..questions {
                    let _ = answer::answer_one(&caller);
                }
            }
        })
    }

    #[test]
    fn a_service_that_was_started_anew_is_connected_to_again_and_judged_again() {
        // An introduction and a question.
        let service = of_few_words(2);
        let attestor = Attestor::connect(&service.path).unwrap();
        let own = std::process::id();
        for _ in 0..8 {
            assert_eq!(attestor.stat(own).unwrap(), stat(own).unwrap());
        }
        // Never more than an introduction: one more is tried, and then it is said to be silent.
        let service = of_few_words(1);
        let attestor = Attestor::connect(&service.path).unwrap();
        assert!(is_silence(&attestor.stat(own).unwrap_err()));
        std::fs::remove_file(&service.path).unwrap();
        assert!(is_silence(&attestor.stat(own).unwrap_err()), "nobody listens");
        let _listener = listening(&service.path);
        assert_eq!(attestor.stat(own).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(attestor.stat(own).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn one_that_speaks_of_other_processes_is_refused() {
        let service = Service::with(|listener| {
            // SAFETY: as above.
            let caller = unsafe { OwnedFd::from_raw_fd(accept(listener.as_raw_fd()).unwrap()) };
            let message = Message::receive(&caller, MsgFlags::empty()).unwrap().unwrap();
            let question = wire::Question::read(&message.bytes).unwrap();
            let of_another = look(1, std::process::id());
            Answer::of(question.exchange, Ok(of_another)).send(&caller).unwrap();
        });
        let refused = Attestor::connect(&service.path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData, "{refused}");
        assert!(Attestor::connect(Path::new("/nonexistent/attestor")).is_err());
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
        while !has_ended(attestor.pidfd().unwrap()).unwrap() {}
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
        let mut far = attestor.far.lock().unwrap();
        let Far::Child(line) = &mut *far else { panic!("it is a child") };
        let question = numbers(&[wire::Kind::Stat as u32, 0, std::process::id(), 0]);
        let sent = send_along(&line.socket, &question, 1);
        line.hear(MsgFlags::empty()).unwrap().found::<Stat>().unwrap();
        assert!(is_closed(sent), "by the attestor, which goes on");
        line.ask(wire::Kind::Stat as u32, About::process(std::process::id())).unwrap();

        let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        for copies in [1, 2, 253] {
            let (near, far) = pair().unwrap();
            let mut line = Line::new(near, PATIENCE_MS).unwrap();
            let body = [&numbers(&[1, 0])[..], &[7; 16], b"/bin/cat"].concat();
            let sent = send_along(&far, &body, copies);
            let found = line
                .ask(wire::Kind::Executable as u32, About::process(1))
                .and_then(Answer::found::<Executable>);
            assert_eq!(found.unwrap_err().kind(), ErrorKind::InvalidData, "{copies}");
            assert!(is_closed(sent), "{copies}");
        }
    }
}
