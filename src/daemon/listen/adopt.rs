//! Takes over sockets that systemd holds (`FileDescriptorName=agent` or `admin` in the `.socket` unit).
//!
//! Such a socket outlives the daemon, so it is never removed here and needs no lock: its unit decides
//! its path, owner and mode.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{SockType, getsockopt, sockopt};
use thiserror::Error;

use super::Bound;
use crate::sys;

const AGENT: &str = "agent";
const ADMIN: &str = "admin";

/// The sockets that were inherited; what is `None` is to be bound.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The agents' socket.
    pub agent: Option<Bound>,
    /// The operator's socket.
    pub admin: Option<Bound>,
}

/// Takes the inherited sockets over, if there are any. To be called once, at start.
pub fn adopt() -> Result<Adopted, AdoptError> {
    let mut adopted = Adopted::default();
    for (name, fd) in sys::inherited::take().map_err(AdoptError::Variables)? {
        let (slot, name) = match name.as_str() {
            AGENT => (&mut adopted.agent, AGENT),
            ADMIN => (&mut adopted.admin, ADMIN),
            _ => return Err(AdoptError::Name),
        };
        let bound = listening(fd).ok_or(AdoptError::NotListening { name })?;
        if slot.replace(bound).is_some() {
            return Err(AdoptError::Twice { name });
        }
    }
    Ok(adopted)
}

/// An abstract name has no mode: everybody could connect. So only a socket with a path will do.
fn listening(fd: OwnedFd) -> Option<Bound> {
    let is_stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
    let is_listening = getsockopt(&fd, sockopt::AcceptConn) == Ok(true);
    let listener = UnixListener::from(fd);
    let has_path = listener.local_addr().is_ok_and(|address| address.as_pathname().is_some());
    let usable = is_stream && is_listening && has_path && listener.set_nonblocking(true).is_ok();
    usable.then_some(Bound { listener, file: None, lock: None })
}

/// Why the inherited sockets cannot be used: what happened, then what to do.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// `LISTEN_FDS` and its companions contradict each other or the open descriptors.
    #[error(
        "the sockets from the service manager cannot be taken over: {0}\nstart the daemon through its systemd units, or unset LISTEN_FDS"
    )]
    Variables(io::Error),
    /// A name other than `agent` and `admin`.
    #[error(
        "the service manager passed a socket whose name is not known\nset FileDescriptorName=agent or FileDescriptorName=admin in the socket unit"
    )]
    Name,
    /// Two sockets of one name.
    #[error(
        "the service manager passed two sockets named {name}\nkeep one ListenStream= for each FileDescriptorName="
    )]
    Twice {
        /// The name.
        name: &'static str,
    },
    /// Not a listening stream socket with a path.
    #[error(
        "the inherited socket {name} is not a listening Unix stream socket with a path\nset ListenStream= to an absolute path in the socket unit"
    )]
    NotListening {
        /// Its name.
        name: &'static str,
    },
}
