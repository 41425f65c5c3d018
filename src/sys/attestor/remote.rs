//! The daemon's end where the attestor is a service of its own: connects, and connects again when that was
//! started anew. Imports its neighbours in `sys`.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Uid;

use super::super::facts::{Facts, look_from_afar};
use super::super::peer::credentials;
use super::PATIENCE_MS;
use super::line::Line;
use super::wire::{About, Answer, Kind};

/// At the daemon's start. The service manager may have to start the attestor first.
const START_PATIENCE_MS: i64 = 10_000;

/// A service behind a path.
#[derive(Debug)]
pub(super) struct Remote {
    path: PathBuf,
    /// `None`: it is gone, and is looked for when there is a question.
    line: Option<Line>,
    /// It has shown that it speaks of the same processes as we do.
    introduced: bool,
}

impl Remote {
    /// Connects, and judges who is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let line = dial(path, START_PATIENCE_MS)?;
        let mut remote = Self { path: path.to_owned(), line: Some(line), introduced: false };
        remote.introduce()?;
        Ok(remote)
    }

    /// As [`Line::ask`]. If the line is dead, one that answers now is looked for once.
    pub(super) fn ask(&mut self, kind: u32, about: About<'_>) -> io::Result<Answer> {
        if self.line.is_some() {
            let asked = self.exchange(kind, about);
            if self.line.is_some() {
                return asked;
            }
        }
        self.introduced = false;
        self.line = Some(dial(&self.path, PATIENCE_MS)?);
        self.exchange(kind, about)
    }

    /// A line that fails in another way than by silence is given up.
    fn exchange(&mut self, kind: u32, about: About<'_>) -> io::Result<Answer> {
        let asked = self.introduce().and_then(|line| line.ask(kind, about));
        let waits = |error: &io::Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
        if asked.as_ref().is_err_and(|error| !waits(error)) {
            self.line = None;
        }
        asked
    }

    /// What it says of us has to be what we see ourselves: in another PID namespace the same number is of
    /// another process, and in another cgroup namespace the same group has another path.
    fn introduce(&mut self) -> io::Result<&mut Line> {
        let line = self.line.as_mut().ok_or(ErrorKind::NotConnected)?;
        if !self.introduced {
            let own = std::process::id();
            let about = About { pid: own, other: own, path: b"" };
            let told: Facts = line.ask(Kind::Facts as u32, about)?.found()?;
            let seen = look_from_afar(own, own);
            let alike = (told.stat, &told.cgroup) == (seen.stat, &seen.cgroup) && told.nested == Some(1);
            if !alike || told.stat.is_none() {
                return Err(io::Error::new(ErrorKind::InvalidData, "it is in other namespaces"));
            }
            line.be_patient(PATIENCE_MS)?;
            self.introduced = true;
        }
        Ok(line)
    }
}

/// Only root or our own user may be listening there. Does not wait longer than it would for an answer.
fn dial(path: &Path, patience_ms: i64) -> io::Result<Line> {
    let unreachable = |errno: nix::errno::Errno| io::Error::new(ErrorKind::NotConnected, errno.desc());
    let address = UnixAddr::new(path).map_err(unreachable)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let line = Line::new(socket, patience_ms)?;
    connect(line.socket.as_raw_fd(), &address).map_err(unreachable)?;
    let uid = credentials(&line.socket)?.uid;
    if uid == 0 || uid == Uid::effective().as_raw() {
        Ok(line)
    } else {
        Err(io::Error::new(ErrorKind::NotConnected, "another user listens there"))
    }
}
