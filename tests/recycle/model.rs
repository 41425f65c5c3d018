//! Models of brokers that know a process by its pid, or by its pid and start time: they remember who opened a
//! session, as `SO_PEERCRED` names it, and compare. A line of text for each call.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use ravi_broker::secret::Secret;

use super::lane::{Broker, start_time};

/// What a model knows a process by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Pid,
    PidAndStartTime,
}

/// A process as a model knows it.
type Known = (i32, Option<u64>);

/// Serves until it is killed.
pub(crate) fn serve(listener: &UnixListener, key: Key) -> i32 {
    let mut sessions: HashMap<String, Known> = HashMap::new();
    let mut connections: Vec<(UnixStream, Known)> = Vec::new();
    loop {
        let sockets = std::iter::once(listener.as_fd()).chain(connections.iter().map(|(one, _)| one.as_fd()));
        let mut sockets: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        poll(&mut sockets, PollTimeout::NONE).expect("sockets");
        let mut ready: Vec<bool> = sockets.iter().map(|socket| socket.any() == Some(true)).collect();
        let accepts = ready.remove(0);
        let mut ready = ready.into_iter();
        connections.retain_mut(|(socket, peer)| {
            !ready.next().unwrap_or_default() || answered(socket, *peer, &mut sessions)
        });
        if accepts {
            let (socket, _) = listener.accept().expect("a connection");
            let peer = key.of(&socket);
            connections.push((socket, peer));
        }
    }
}

impl Key {
    fn of(self, socket: &UnixStream) -> Known {
        let pid = getsockopt(socket, sockopt::PeerCredentials).expect("credentials").pid();
        let start_time = || start_time(&pid.to_string());
        (pid, (self == Self::PidAndStartTime).then(start_time).flatten())
    }
}

/// Answers one call. False: the connection is over.
fn answered(socket: &mut UnixStream, peer: Known, sessions: &mut HashMap<String, Known>) -> bool {
    let mut bytes = [0; 64];
    let Ok(read @ 1..) = socket.read(&mut bytes) else { return false };
    let call = String::from_utf8_lossy(&bytes[..read]);
    let answer = match call.trim().split_once(' ') {
        None => {
            let token = sessions.len().to_string();
            sessions.insert(token.clone(), peer);
            token
        }
        Some((_, token)) if sessions.get(token) == Some(&peer) => "yes".to_owned(),
        Some(_) => "no".to_owned(),
    };
    socket.write_all(format!("{answer}\n").as_bytes()).is_ok()
}

/// A model as its clients see it.
pub(crate) struct Model;

impl Model {
    fn ask(socket: OwnedFd, call: &str) -> Option<String> {
        let mut socket = UnixStream::from(socket);
        socket.write_all(call.as_bytes()).ok()?;
        BufReader::new(socket).lines().next()?.ok()
    }
}

impl Broker for Model {
    fn open(&self, socket: OwnedFd, _: u32) -> (Option<Secret>, u32) {
        (Self::ask(socket, "open\n").map(Secret::new), 1)
    }

    fn present(&self, socket: OwnedFd, _: u32, token: &Secret) -> (&'static str, u32) {
        let answer = match Self::ask(socket, &format!("use {}\n", token.expose())).as_deref() {
            Some("yes") => "accepted",
            Some(_) => "refused",
            None => "closed",
        };
        (answer, 1)
    }
}
