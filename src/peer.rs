//! Who is at the other end of the socket, as the kernel says.
//!
//! Read once, at accept. What cannot be established is `None` and denies the roles that need it; it
//! never stops the accept. Nothing that a process says about itself is believed. A pid alone names
//! nobody: it is always paired with the start time and, from Linux 6.9, with the kernel's serial number.
//! May import `sys`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use tokio::io::Interest;

use crate::sys;
use crate::sys::Protection;
use crate::sys::attestor::Attestor;
pub use crate::sys::peer::{Credentials, Executable};

/// Longest chain of parents that is followed.
const MAX_DEPTH: usize = 64;
/// Where the end of a process cannot be waited for (descriptor limit), it is asked for this often.
const FALLBACK_POLL: Duration = Duration::from_millis(100);

/// Looks into processes for us. Set once, by `main`, before a thread is started; absent in clients and
/// in tests, which are not confined and look for themselves. One for the whole process, as confinement
/// is: whoever asks, the rule of what may be looked into is the same.
static ATTESTOR: OnceLock<Attestor> = OnceLock::new();

/// From now on, what a process runs is read by the attestor. Only the first one counts.
pub fn look_through(attestor: Attestor) {
    let _ = ATTESTOR.set(attestor);
}

/// Done when the attestor has ended; never where there is none. Must run inside a tokio runtime.
pub async fn attestor_ended() {
    let Some(attestor) = ATTESTOR.get() else { return std::future::pending().await };
    if let Ok(pidfd) = attestor.pidfd().try_clone_to_owned() {
        Pidfd::new(pidfd).ended().await;
    }
}

/// Handed to every request of a connection in its extensions.
#[derive(Clone, Debug)]
pub struct PeerInfo(pub Arc<Peer>);

/// The process that connected.
///
/// These are the facts of the moment of accept. They go on naming that process when the socket is
/// passed to another one, and when the process becomes another program by exec: ask
/// [`ProcessId::executable`] again before trusting an old answer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Effective user id at connect.
    pub uid: u32,
    /// Effective group id at connect.
    pub gid: u32,
    /// From another user or pid namespace: its numbers mean nothing here, so it matches no rule.
    pub foreign: bool,
    /// `None`: it has ended, or cannot be named here.
    pub process: Option<ProcessId>,
    /// `None`: replaced, removed, in another mount namespace, or not ours to read.
    pub executable: Option<Executable>,
    /// How surely `process` is the one that connected.
    pub tier: PeerTier,
    pidfd: Option<Pidfd>,
}

impl Peer {
    /// Reads the facts about the peer of a connected socket.
    ///
    /// The process is pinned first, then read, then checked to be alive still: so what was read is
    /// about the peer and not about a later owner of its pid.
    pub fn attest(socket: impl AsFd, credentials: Credentials) -> Self {
        let pinned = match sys::peer::pidfd_at_connect(&socket) {
            Ok(Some(fd)) => Some((Pidfd::new(fd), PeerTier::PidfdAtConnect)),
            Ok(None) => Pidfd::of(credentials.pid).map(|pidfd| (pidfd, PeerTier::PidAndStartTime)),
            Err(_) => None,
        };
        Self::examine(credentials, pinned)
    }

    fn examine(credentials: Credentials, pinned: Option<(Pidfd, PeerTier)>) -> Self {
        let Credentials { uid, gid, pid } = credentials;
        let foreign = is_foreign(credentials);
        let unknown =
            Self { uid, gid, foreign, process: None, executable: None, tier: PeerTier::None, pidfd: None };
        let Some((pidfd, tier)) = pinned.filter(|_| pid != 0) else { return unknown };
        let Ok(stat) = sys::peer::stat(pid) else { return unknown };
        let executable = pidfd.executable(pid);
        let process = pidfd.process(pid, stat.start_time);
        match process {
            Some(_) => Self { process, executable, tier, pidfd: Some(pidfd), ..unknown },
            None => unknown,
        }
    }

    /// The same peer without an executable that it no longer runs: a socket stays open over an exec, and
    /// what was true at accept would speak for another program.
    pub fn as_of_now(&self) -> Self {
        let now = self.process.and_then(ProcessId::executable);
        let executable = self.executable.clone().filter(|attested| now.as_ref() == Some(attested));
        Self { executable, ..self.clone() }
    }

    /// True if the process is known and has not ended.
    pub fn is_alive(&self) -> bool {
        self.pidfd.as_ref().is_some_and(Pidfd::is_alive)
    }

    /// The parent, as of now.
    pub fn parent(&self) -> Option<ProcessId> {
        let parent = self.process?.parent()?;
        self.is_alive().then_some(parent)
    }

    /// True if the peer is alive and is `ancestor` or one of its descendants, as of now. A process
    /// whose parent has ended was given to another parent and no longer descends from the first.
    pub fn descends_from(&self, ancestor: ProcessId) -> bool {
        let descends = |process: ProcessId| process == ancestor || process.descends_from(ancestor);
        self.process.is_some_and(descends) && self.is_alive()
    }

    /// Done when the process has ended; at once if it is not known.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let pidfd = self.pidfd.clone();
        async move {
            if let Some(pidfd) = pidfd {
                pidfd.ended().await;
            }
        }
    }

    /// A peer that no process need stand behind, for tests of what is decided about peers.
    #[cfg(test)]
    pub(crate) fn imagined(
        uid: u32,
        gid: u32,
        process: Option<ProcessId>,
        executable: Option<Executable>,
    ) -> Self {
        Self { uid, gid, foreign: false, process, executable, tier: PeerTier::None, pidfd: None }
    }
}

/// True if a process comes from a user or pid namespace whose numbers mean nothing here.
pub fn is_foreign(credentials: Credentials) -> bool {
    static OVERFLOW_UID: LazyLock<u32> = LazyLock::new(sys::peer::overflow_uid);
    credentials.pid == 0 || credentials.uid == *OVERFLOW_UID
}

/// How a process was tied to its pid, the surest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerTier {
    /// Not at all.
    None,
    /// By its start time, read at accept: a pid recycled between connect and accept goes unseen.
    PidAndStartTime,
    /// By a pidfd that the kernel took at connect (Linux 6.5): a recycled pid cannot be taken for it.
    PidfdAtConnect,
}

impl PeerTier {
    /// The best that this host offers, tried on a pair of sockets of our own.
    pub fn of_host() -> Self {
        let tried = UnixStream::pair().and_then(|(own, _peer)| sys::peer::pidfd_at_connect(&own));
        match tried {
            Ok(Some(_)) => Self::PidfdAtConnect,
            Ok(None) => Self::PidAndStartTime,
            Err(_) => Self::None,
        }
    }

    /// For `status`.
    pub fn protection(self) -> Protection {
        let tier = match self {
            Self::None => "process unknown",
            Self::PidAndStartTime => "pid and start time, read at accept",
            Self::PidfdAtConnect => "pidfd, taken by the kernel at connect",
        };
        Protection { name: "callers identified by", tier, full: self == Self::PidfdAtConnect }
    }
}

/// Names one process, not only its pid. Stays the same over exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// In our pid namespace; never 0.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
    /// The kernel's number for this process, never used twice (Linux 6.9). It tells two processes
    /// apart that had the same pid within one tick.
    serial: Option<u64>,
}

impl ProcessId {
    /// A name that no real process need have, for tests of what is decided about processes.
    #[cfg(test)]
    pub(crate) fn imagined(pid: u32, start_time: u64) -> Self {
        Self { pid, start_time, serial: None }
    }

    /// The process that has this pid now. `None`: there is none, or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        Pidfd::identify(pid).map(|(_, process)| process)
    }

    /// True if it has not ended.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// The parent, as of now.
    pub fn parent(self) -> Option<Self> {
        let pidfd = Pidfd::open(self)?;
        let parent = Self::of(parent_pid(self.pid)?)?;
        let unchanged = parent_pid(self.pid) == Some(parent.pid);
        (unchanged && pidfd.is_alive()).then_some(parent)
    }

    /// The file that it runs now: another one after an exec. `None` as in [`Peer::executable`].
    pub fn executable(self) -> Option<Executable> {
        let pidfd = Pidfd::open(self)?;
        let executable = pidfd.executable(self.pid)?;
        pidfd.is_alive().then_some(executable)
    }

    /// True if both are alive and this is `ancestor` or one of its descendants, as of now.
    pub fn descends_from(self, ancestor: Self) -> bool {
        let pinned = (Pidfd::open(self), Pidfd::open(ancestor));
        let (Some(own), Some(top)) = pinned else { return false };
        self.leads_to(ancestor.pid) && own.is_alive() && top.is_alive()
    }

    /// Follows the parents up to `top`. Each link is read twice, around the reading of the next one: a
    /// process keeps its parent for as long as that lives, so a link that still holds proves that the
    /// pid in it was not recycled meanwhile.
    fn leads_to(self, top: u32) -> bool {
        let mut child = self.pid;
        let mut parent = parent_pid(child);
        for _ in 0..MAX_DEPTH {
            if child == top {
                return true;
            }
            let Some(next) = parent else { return false };
            let above = parent_pid(next);
            if parent_pid(child) != Some(next) {
                return false;
            }
            (child, parent) = (next, above);
        }
        false
    }
}

fn parent_pid(pid: u32) -> Option<u32> {
    sys::peer::stat(pid).ok().map(|stat| stat.parent).filter(|&parent| parent != 0)
}

/// A pinned process: while this is held, what it names cannot become another process.
#[derive(Clone, Debug)]
pub struct Pidfd(Arc<OwnedFd>);

impl Pidfd {
    /// Pins this very process. `None`: it has ended, or the host gives no pidfd for it.
    pub fn open(process: ProcessId) -> Option<Self> {
        let (pidfd, found) = Self::identify(process.pid)?;
        (found == process).then_some(pidfd)
    }

    /// True if the process has not ended. An error counts as ended.
    pub fn is_alive(&self) -> bool {
        sys::peer::has_ended(&self.0).is_ok_and(|ended| !ended)
    }

    /// Done when the process has ended. Must run inside a tokio runtime.
    pub async fn ended(self) {
        if let Ok(watch) = self.watch() {
            let _ = watch.readable().await;
        }
        while sys::peer::has_ended(&self.0).is_ok_and(|ended| !ended) {
            tokio::time::sleep(FALLBACK_POLL).await;
        }
    }

    fn watch(&self) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
        sys::time::register(self.0.try_clone()?, Interest::READABLE)
    }

    fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    fn of(pid: u32) -> Option<Self> {
        sys::peer::pidfd_open(pid).ok().map(Self::new)
    }

    /// Pins whoever has this pid now, and says who it is.
    fn identify(pid: u32) -> Option<(Self, ProcessId)> {
        let pidfd = Self::of(pid)?;
        let stat = sys::peer::stat(pid).ok()?;
        let process = pidfd.process(pid, stat.start_time)?;
        Some((pidfd, process))
    }

    /// The file that this process runs now; `pid` is its own.
    fn executable(&self, pid: u32) -> Option<Executable> {
        let Some(attestor) = ATTESTOR.get() else { return sys::peer::executable(pid).ok() };
        let found = attestor.executable(pid, &self.0);
        if let Err(error) = &found
            && error.kind() == io::ErrorKind::TimedOut
        {
            // Once for each time it falls silent: until it speaks again, nothing is asked.
            tracing::warn!("the attestor does not answer; roles that match an executable are refused");
        }
        found.ok()
    }

    /// Makes an identity of what was read under `pid` while this was held. `None` if the process has
    /// ended meanwhile, as then it may have been read of another one.
    fn process(&self, pid: u32, start_time: u64) -> Option<ProcessId> {
        let serial = sys::peer::serial(&self.0);
        self.is_alive().then_some(ProcessId { pid, start_time, serial })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn examine(pid: u32) -> Peer {
        let pinned = Pidfd::of(pid).map(|pidfd| (pidfd, PeerTier::PidAndStartTime));
        Peer::examine(Credentials { uid: 1000, gid: 1000, pid }, pinned)
    }

    #[test]
    fn a_kernel_without_pidfds_at_connect_gives_the_lower_tier() {
        let mut child = child();
        let peer = examine(child.id());
        assert_eq!((peer.process, peer.tier), (ProcessId::of(child.id()), PeerTier::PidAndStartTime));
        assert!(peer.tier < PeerTier::PidfdAtConnect && peer.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = examine(child.id());
        assert_eq!((gone.process, gone.tier), (None, PeerTier::None));
    }

    #[test]
    fn an_executable_does_not_speak_for_the_program_after_an_exec() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let peer = examine(child.id());
        assert!(peer.as_of_now().executable.is_some());
        input.write_all(b"go on\necho\n").unwrap();
        output.read_exact(&mut [0; 5]).unwrap();
        assert!(peer.executable.is_some() && peer.as_of_now().executable.is_none());
        drop(input);
        child.wait().unwrap();
        assert!(peer.as_of_now().executable.is_none());
    }

    #[test]
    fn what_was_read_of_a_process_that_has_ended_is_discarded() {
        let mut child = child();
        let pidfd = Pidfd::of(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // As if its pid had been given to us meanwhile.
        let own = std::process::id();
        let recycled = Credentials { uid: 1000, gid: 1000, pid: own };
        let peer = Peer::examine(recycled, Some((pidfd, PeerTier::PidfdAtConnect)));
        assert!(peer.process.is_none() && peer.executable.is_none() && !peer.is_alive());
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let mut child = child();
        let process = ProcessId::of(child.id()).unwrap();
        let earlier = ProcessId { start_time: process.start_time - 1, ..process };
        assert!(!earlier.is_alive() && Pidfd::open(earlier).is_none());
        assert!(!process.descends_from(earlier) && !earlier.descends_from(process));
        let same_tick = ProcessId { serial: process.serial.map(|serial| serial ^ 1), ..process };
        assert_eq!(same_tick.is_alive(), process.serial.is_none());
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(process.descends_from(own));
        let own_earlier = ProcessId { start_time: own.start_time - 1, ..own };
        assert!(!process.descends_from(own_earlier));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let (ready, thread) = std::sync::mpsc::channel();
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            ready.send(nix::unistd::gettid()).unwrap();
            let _ = left.recv();
        });
        let thread = thread.recv().unwrap().as_raw().cast_unsigned();
        assert!(ProcessId::of(thread).is_none());
        drop(leave);
        other.join().unwrap();
    }

    #[test]
    fn a_peer_without_a_pid_or_a_user_here_is_foreign() {
        let here = Credentials { uid: 1000, gid: 1000, pid: 42 };
        assert!(!is_foreign(here));
        assert!(is_foreign(Credentials { pid: 0, ..here }));
        assert!(is_foreign(Credentials { uid: sys::peer::overflow_uid(), ..here }));
        assert!(examine(0).foreign && examine(0).process.is_none());
    }
}
