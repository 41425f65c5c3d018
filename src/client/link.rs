//! The client's end of a link (`crate::link`): a descriptor that a launcher left open, for sandboxes that
//! forbid sockets. Only `read(2)`, `write(2)`, `poll` or `epoll`, and `fcntl` locks are used on it.
//!
//! The processes of a session take turns: a record lock on the descriptor (`fcntl(2)`) is held for the time
//! of a conversation, and the kernel gives it back when its holder dies.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Mutex, OwnedMutexGuard};
use zeroize::Zeroizing;

use super::error::ClientError;
use crate::config::Variable;
pub use crate::link::VARIABLE;
use crate::link::{self, HEAD, Head, Kind, MAX_PAYLOAD, PREFACE};
use crate::secret::Secret;
use crate::sys::inherited::take_socket;
use crate::sys::time::register_shared;

/// For one's turn, while others of the session have theirs.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether the turn has come.
const LOOK: Duration = Duration::from_millis(5);
/// For the broker's answer to a conversation. It gives none to a process outside of the session.
const OPENED_WITHIN: Duration = Duration::from_secs(3);
/// Longest piece that is taken out of the descriptor at once.
const READ: usize = HEAD + MAX_PAYLOAD;

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
/// What connecting can fail with; [`ClientError::Protocol`] where the broker refuses it or knows no links.
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
        Some(Head { kind: Kind::Bound, .. }) => {}
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

/// One connection over the link.
pub(super) struct Conversation {
    socket: AsyncFd<Arc<OwnedFd>>,
    number: u64,
    /// Read and not yet taken apart.
    buffer: Zeroizing<Vec<u8>>,
    /// Of the current frame, still to be handed out, and whether it is ours.
    left: usize,
    ours: bool,
    over: bool,
    /// A frame that is being written, and what it carries.
    frame: Zeroizing<Vec<u8>>,
    _turn: OwnedMutexGuard<()>,
}

impl Conversation {
    /// Waits for the turn and begins. `None`: there is no link, or the broker does not answer on it.
    pub(super) async fn open() -> Option<Self> {
        let Inherited { socket, turn } = inherited()?;
        let waiting = async {
            let turn = turn.clone().lock_owned().await;
            while !lock(socket).ok()? {
                tokio::time::sleep(LOOK).await;
            }
            Some(turn)
        };
        let turn = tokio::time::timeout(TURN_WITHIN, waiting).await.ok()??;
        let mut conversation = Self::begin(socket, turn).ok()?;
        let opened = tokio::time::timeout(OPENED_WITHIN, conversation.opened()).await;
        matches!(opened, Ok(Ok(()))).then_some(conversation)
    }

    fn begin(socket: &Arc<OwnedFd>, turn: OwnedMutexGuard<()>) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let mut number = [0; 8];
        getrandom(&mut number)?;
        Ok(Self {
            socket: register_shared(socket.clone(), Interest::READABLE | Interest::WRITABLE)?,
            number: u64::from_ne_bytes(number),
            buffer: Zeroizing::new(Vec::with_capacity(2 * READ)),
            left: 0,
            ours: false,
            over: false,
            frame: Zeroizing::new(Vec::with_capacity(READ)),
            _turn: turn,
        })
    }

    /// Says that it begins, and reads past what an earlier conversation has left.
    async fn opened(&mut self) -> io::Result<()> {
        self.put(Kind::Open, &[]);
        std::future::poll_fn(|cx| self.poll_put(cx)).await?;
        let mut sign = Vec::new();
        link::write(Kind::Opened, self.number, &[], &mut sign);
        loop {
            std::future::poll_fn(|cx| self.poll_fill(cx)).await?;
            if let Some(at) = self.buffer.windows(HEAD).position(|window| window == sign) {
                self.buffer.drain(..at + HEAD);
                return Ok(());
            }
            // The sign may be cut in two.
            let kept = self.buffer.len().min(HEAD - 1);
            let passed = self.buffer.len() - kept;
            self.buffer.drain(..passed);
        }
    }

    /// Reads more; an error at the end of the link.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let mut chunk = Zeroizing::new([0; READ]);
            let length = ready.try_io(|socket| Ok(read(socket.get_ref(), &mut *chunk)?));
            match length {
                Ok(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(length)) => {
                    self.buffer.extend_from_slice(&chunk[..length]);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Prepares a frame; returns how much of the payload it carries.
    fn put(&mut self, kind: Kind, payload: &[u8]) -> usize {
        self.frame.clear();
        link::write(kind, self.number, payload, &mut self.frame)
    }

    /// Writes the prepared frame, whole: a socket takes it at once or not at all.
    fn poll_put(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frame.is_empty() {
            let mut ready = ready!(self.socket.poll_write_ready(cx))?;
            match ready.try_io(|socket| Ok(write(socket.get_ref(), &self.frame)?)) {
                Ok(Ok(written)) if written == self.frame.len() => self.frame.clear(),
                Ok(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Enters the next frame, if the buffer has its head.
    fn next_head(&mut self) -> io::Result<bool> {
        let Some(head) = self.buffer.first_chunk() else { return Ok(false) };
        let head = Head::read(head).ok_or(io::ErrorKind::InvalidData)?;
        self.buffer.drain(..HEAD);
        (self.left, self.ours) = (head.length, head.conversation == self.number && head.kind == Kind::Data);
        self.over |= head.conversation == self.number && head.kind == Kind::Close;
        Ok(true)
    }
}

impl AsyncRead for Conversation {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.over || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let there = this.left.min(this.buffer.len());
            if there > 0 {
                let taken = if this.ours { there.min(buf.remaining()) } else { there };
                if this.ours {
                    buf.put_slice(&this.buffer[..taken]);
                }
                this.buffer.drain(..taken);
                this.left -= taken;
                if this.ours {
                    return Poll::Ready(Ok(()));
                }
            } else if this.left > 0 || !this.next_head()? {
                ready!(this.poll_fill(cx))?;
            }
        }
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What was prepared before is written before.
        ready!(this.poll_put(cx))?;
        let taken = this.put(Kind::Data, bytes);
        // Taken over: if it does not fit now, the next write or flush goes on with it.
        let _ = this.poll_put(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_put(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_put(cx)
    }
}

impl Drop for Conversation {
    /// Gives the turn to the next. The broker also ends this conversation when that one begins.
    fn drop(&mut self) {
        if self.frame.is_empty() {
            self.put(Kind::Close, &[]);
            let _ = write(self.socket.get_ref(), &self.frame);
        }
        let _ = fcntl(self.socket.get_ref(), FcntlArg::F_SETLK(&record(libc::F_UNLCK)));
    }
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

/// Another number than that of any conversation before.
fn getrandom(bytes: &mut [u8; 8]) -> io::Result<()> {
    use std::hash::{BuildHasher, RandomState};
    *bytes = RandomState::new().hash_one(std::process::id()).to_ne_bytes();
    Ok(())
}
