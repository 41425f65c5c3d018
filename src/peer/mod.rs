//! Who is at the other end of the socket, as the kernel says.
//!
//! Read once, at accept. What cannot be established is `None` and denies the roles that need it; it
//! never stops the accept. Nothing that a process says about itself is believed. A pid alone names
//! nobody: it is always paired with the start time and, from Linux 6.9, with the kernel's serial number.
//! What costs more (the hash of the executable, the parent) is read when a role asks for it. May import
//! layer 0.

mod attestor;
mod cgroup;
mod hash;
mod namespace;
mod process;
mod tier;
mod unit;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use self::attestor::Silence;
pub use self::attestor::{attestor_ended, look_through};
pub use self::cgroup::Cgroup;
pub use self::hash::Hashed;
pub use self::namespace::Namespace;
pub use self::process::{Pidfd, ProcessId};
pub use self::tier::PeerTier;
pub use self::unit::Units;
use crate::sys;
pub use crate::sys::peer::{Credentials, Executable};
use crate::sys::socket::Pin;
use crate::types::CgroupPath;

/// Handed to every request of a connection in its extensions.
#[derive(Clone, Debug)]
pub struct PeerInfo(pub Arc<Peer>);

/// The process that a connection belongs to.
///
/// These are the facts of the moment at which it connected or, on a socket that it was given, sent its first byte. They
/// go on naming that process when it becomes another program by exec: ask [`Peer::as_of_now`] again before
/// trusting an old answer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Effective user id at connect.
    pub uid: u32,
    /// Effective group id at connect.
    pub gid: u32,
    /// It has no pid or no user here at all: its numbers mean nothing, so it matches no rule whatever.
    pub foreign: bool,
    /// Whether it is in our user and PID namespace.
    pub namespace: Namespace,
    /// `None`: it has ended, or cannot be named here.
    pub process: Option<ProcessId>,
    /// `None`: replaced, removed, in another mount namespace, or not ours to read.
    pub executable: Option<Executable>,
    /// What `executable` held. `None`: not asked for by [`Peer::established`], too large, or not ours to read.
    pub hashed: Option<Hashed>,
    /// What the parent runs. `None`: not asked for by [`Peer::established`], or as for `executable`.
    pub parent_executable: Option<Executable>,
    /// In the unified hierarchy (v2). `None`: outside of our cgroup namespace, or there is none.
    pub cgroup: Option<CgroupPath>,
    /// How surely `process` is the one that connected.
    pub tier: PeerTier,
    pidfd: Option<Pidfd>,
}

/// What a process runs, compared with what it was attested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The same program.
    Same,
    /// Another one.
    Other,
    /// The attestor is silent: it cannot be told now.
    Untold,
}

/// Which of the costly facts somebody wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// [`Peer::hashed`].
    pub hash: bool,
    /// [`Peer::parent_executable`].
    pub parent: bool,
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

    /// Reads the facts about who sent something. On a kernel that pins no senders, about whoever has its pid now.
    pub fn of_sender(credentials: Credentials, pin: Pin) -> Self {
        let pinned = match pin {
            Pin::Held(fd) => Some((Pidfd::new(fd), PeerTier::PidfdAtConnect)),
            Pin::Absent => Pidfd::of(credentials.pid).map(|pidfd| (pidfd, PeerTier::PidAndStartTime)),
            Pin::Lost => None,
        };
        Self::examine(credentials, pinned)
    }

    fn examine(credentials: Credentials, pinned: Option<(Pidfd, PeerTier)>) -> Self {
        let Credentials { uid, gid, pid } = credentials;
        let unknown = Self { foreign: is_foreign(credentials), ..Self::unknown(uid, gid) };
        let Some((pidfd, tier)) = pinned.filter(|_| pid != 0) else { return unknown };
        let facts = attestor::look(pid);
        let Some(stat) = facts.stat else { return unknown };
        let (namespace, cgroup) = (Namespace::of(&facts), facts.cgroup.as_deref().and_then(cgroup_path));
        let executable = facts.executable;
        let process = pidfd.process(pid, stat.start_time);
        match process {
            Some(_) => Self { process, executable, namespace, cgroup, tier, pidfd: Some(pidfd), ..unknown },
            None => unknown,
        }
    }

    fn unknown(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            foreign: false,
            namespace: Namespace::Unknown,
            process: None,
            executable: None,
            hashed: None,
            parent_executable: None,
            cgroup: None,
            tier: PeerTier::None,
            pidfd: None,
        }
    }

    /// The same peer with what is true of it now: its cgroup and namespaces as they are, and its programs
    /// only if it still runs them. A socket stays open over an exec, and what was true at accept would speak
    /// for another program.
    pub fn as_of_now(&self) -> Self {
        let Some((process, pidfd)) = self.process.zip(self.pidfd.as_ref()) else { return self.clone() };
        let now = attestor::look(process.pid);
        let executable = self.executable.clone().filter(|attested| now.executable.as_ref() == Some(attested));
        let hashed = self.hashed.filter(|hashed| executable.is_some() && hashed.is_of(process) == Ok(true));
        let parent_executable = self.parent_executable.clone();
        let parent_executable =
            parent_executable.filter(|_| parent_executable_of(process) == self.parent_executable);
        let (namespace, cgroup) = (Namespace::of(&now), now.cgroup.as_deref().and_then(cgroup_path));
        let known = Self { executable, hashed, parent_executable, ..self.clone() };
        if pidfd.is_alive() {
            Self { namespace, cgroup, ..known }
        } else {
            Self { namespace: Namespace::Unknown, cgroup: None, ..known }
        }
    }

    /// Whether the process still is the program that it was attested with. What it runs cannot be told of one that
    /// has ended, or where it never could: that counts as the same.
    pub fn runs(&self) -> Runs {
        let attested = (self.process, self.pidfd.as_ref(), &self.executable);
        let (Some(process), Some(pidfd), Some(attested)) = attested else { return Runs::Same };
        let compared = || {
            let same = pidfd.executable(process.pid)?.as_ref() == Some(attested);
            Ok(same && self.hashed.map_or(Ok(true), |hashed| hashed.is_of(process))?)
        };
        match compared() {
            Ok(true) => Runs::Same,
            _ if !self.is_alive() => Runs::Same,
            Ok(false) => Runs::Other,
            Err(Silence) => Runs::Untold,
        }
    }

    /// The same peer, with the costly facts that are needed read as well. Takes 5 s at most; what could not
    /// be established in that time stays unknown.
    pub async fn established(self: &Arc<Self>, needs: Needs) -> Arc<Self> {
        let missing = Needs {
            hash: needs.hash && self.hashed.is_none(),
            parent: needs.parent && self.parent_executable.is_none(),
        };
        let Some(process) = self.process.filter(|_| missing != Needs::default()) else { return self.clone() };
        let mut peer = Self::clone(self);
        if let (true, Some(executable)) = (missing.hash, &self.executable) {
            peer.hashed = hash::hash(process, executable).await;
        }
        if missing.parent {
            peer.parent_executable = parent_executable_of(process);
        }
        Arc::new(peer)
    }

    /// The systemd units that it is in.
    pub fn units(&self) -> Option<Units> {
        self.cgroup.as_ref().and_then(Units::of)
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
        Self { namespace: Namespace::Ours, process, executable, ..Self::unknown(uid, gid) }
    }
}

impl Executable {
    /// True if this is the file at that path. The kernel names it without symbolic links; a person may write
    /// one.
    pub fn is_at(&self, path: &Path) -> bool {
        path == self.path || attestor::canonical(path).is_some_and(|real| real == self.path)
    }
}

/// What the parent runs, as of now.
fn parent_executable_of(process: ProcessId) -> Option<Executable> {
    let (pidfd, parent) = process.pinned_parent()?;
    let executable = pidfd.executable(parent.pid).ok()??;
    (process.parent() == Some(parent)).then_some(executable)
}

fn cgroup(pid: u32) -> Option<CgroupPath> {
    cgroup_path(&attestor::cgroup(pid)?)
}

fn cgroup_path(path: &[u8]) -> Option<CgroupPath> {
    std::str::from_utf8(path).ok()?.parse().ok()
}

/// True if a process comes from a user or pid namespace whose numbers mean nothing here.
pub fn is_foreign(credentials: Credentials) -> bool {
    static OVERFLOW_UID: LazyLock<u32> = LazyLock::new(sys::peer::overflow_uid);
    credentials.pid == 0 || credentials.uid == *OVERFLOW_UID
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

    /// A sender that was reaped: its pid may be of anybody, here of this process.
    #[test]
    fn a_sender_that_the_kernel_could_not_pin_is_not_whoever_has_its_pid() {
        let recycled = Credentials { uid: 1000, gid: 1000, pid: std::process::id() };
        let lost = Peer::of_sender(recycled, Pin::Lost);
        assert_eq!((lost.process, lost.tier), (None, PeerTier::None));
        assert!(Peer::of_sender(recycled, Pin::Absent).process.is_some(), "where no sender is pinned");
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
        // Had its pid earlier: known by its number, or where there are none by its start time.
        let earlier = |serial| ProcessId { start_time: process.start_time - 1, serial, ..process };
        for earlier in [earlier(None), earlier(process.serial.map(|serial| serial - 1))] {
            assert!(!earlier.is_alive() && Pidfd::open(earlier).is_none());
            assert!(!process.descends_from(earlier) && !earlier.descends_from(process));
        }
        let same_tick = ProcessId { serial: process.serial.map(|serial| serial ^ 1), ..process };
        assert_eq!(same_tick.is_alive(), process.serial.is_none());
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(process.descends_from(own) && !own.descends_from(process));
        // The chain has to begin and end with processes that began when these did.
        let own_earlier = ProcessId { start_time: own.start_time - 1, ..own };
        assert!(!process.descends_from(own_earlier));
        let itself_earlier = ProcessId { start_time: process.start_time - 1, ..process };
        assert!(!itself_earlier.descends_from(own));
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
