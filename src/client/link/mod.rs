//! The client's end of a link (`crate::link`): a descriptor that a launcher left open, for sandboxes that
//! forbid sockets. Only `read(2)`, `write(2)`, `poll` or `epoll`, and `fcntl` locks are used on it; keys come from
//! `getrandom(2)`.
//!
//! The processes of a session take turns: a record lock on the descriptor (`fcntl(2)`) is held for the time
//! of a conversation, and the kernel gives it back when its holder dies.

mod conversation;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

pub(super) use self::conversation::Conversation;
use super::error::ClientError;
use crate::config::Variable;
pub use crate::link::VARIABLE;
use crate::link::{self, HEAD, Head, Kind, PREFACE};
use crate::secret::Secret;
use crate::sys::inherited::take_socket;

/// For one's turn, while others of the session have theirs.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether the turn has come.
const LOOK: Duration = Duration::from_millis(5);
/// For the broker's answer to a conversation. It gives none to a process outside of the session.
const OPENED_WITHIN: Duration = Duration::from_secs(3);

/// The descriptor, and whose turn it is within this process: record locks are of the whole of it.
struct Inherited {
    socket: Arc<OwnedFd>,
    turn: Arc<Mutex<()>>,
}

/// Whether a launcher left a link open.
pub fn is_there() -> bool {
    inherited().is_some()
}

/// Whether the launcher's daemon is the one at this socket, as far as the environment says.
pub(super) fn leads_to(socket: &Path) -> bool {
    let named = std::env::var_os(Variable::RaviBrokerSocket.name());
    named.is_some_and(|named| Path::new(&named) == socket) && is_there()
}

/// Makes a link for a session, to be left open for a child: the descriptor survives no exec of our own yet.
///
/// # Errors
/// What connecting can fail with; [`ClientError::Protocol`] where the broker refuses it, knows no links, or
/// speaks another version of them.
pub async fn make(socket: &Path, token: &Secret) -> Result<OwnedFd, ClientError> {
    let stream = super::channel::dial(socket)
        .await
        .map_err(|attempt| ClientError::Unreachable { tried: vec![attempt] })?;
    let mut begin = Zeroizing::new(Vec::with_capacity(PREFACE.len() + HEAD + token.len()));
    begin.extend_from_slice(PREFACE);
    link::write(Kind::Bind, 0, token.expose().as_bytes(), &mut begin);
    let mut answer = [0; HEAD];
    let bound = async {
        let mut stream = stream;
        stream.write_all(&begin).await?;
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(stream)
    };
    let bound = tokio::time::timeout(OPENED_WITHIN, bound).await.map_err(|_| ClientError::TimedOut)?;
    let stream = bound.map_err(|_| ClientError::Lost)?;
    match Head::read(&answer) {
        Ok(Head { kind: Kind::Bound, .. }) => {}
        _ => return Err(ClientError::Protocol),
    }
    Ok(OwnedFd::from(stream.into_std().map_err(|_| ClientError::Lost)?))
}

fn inherited() -> Option<&'static Inherited> {
    static LINK: OnceLock<Option<Inherited>> = OnceLock::new();
    let found = || {
        let number = std::env::var(VARIABLE).ok()?.parse().ok()?;
        let socket = Arc::new(take_socket(number)?);
        Some(Inherited { socket, turn: Arc::default() })
    };
    LINK.get_or_init(found).as_ref()
}

/// Takes the record lock. False: another process has it.
fn lock(socket: &OwnedFd) -> io::Result<bool> {
    match fcntl(socket, FcntlArg::F_SETLK(&record(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The whole of it.
fn record(kind: libc::c_int) -> libc::flock {
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}
