//! Standard input and output, of which nothing is kept.
//!
//! The handles of `tokio` and of the standard library have buffers that live as long as the process and
//! hold what last went through them. Here every read and every write has a buffer of its own, which is
//! wiped when it is done. Each runs on a thread that may block, so that pipes, sockets, terminals and
//! files are all the same. A descriptor that does not block, as some hosts hand over, is waited for.
//! Imports nothing of this crate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};
use zeroize::Zeroizing;

/// Most that one read takes, as `PIPE_BUF` twice over; a request is far shorter.
const CHUNK_BYTES: usize = 8 * 1024;

/// Standard input. A read that was begun goes on when the one who waited for it is gone, and the next one
/// gets what it brought.
#[derive(Default)]
pub(super) struct Input {
    /// What was read, and how much of it has been handed on.
    chunk: Zeroizing<Vec<u8>>,
    taken: usize,
    reading: Option<JoinHandle<io::Result<Zeroizing<Vec<u8>>>>>,
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.chunk.len() {
            let reading = self.reading.get_or_insert_with(|| spawn_blocking(read_chunk));
            let chunk = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            self.chunk = chunk.map_err(io::Error::other)??;
            self.taken = 0;
        }
        let unread = &self.chunk[self.taken..];
        let count = unread.len().min(into.remaining());
        into.put_slice(&unread[..count]);
        self.taken += count;
        if self.taken == self.chunk.len() {
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }
}

/// Standard output. What was written has arrived once it was flushed.
#[derive(Default)]
pub(super) struct Output {
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let copy = Zeroizing::new(bytes.to_vec());
        self.writing = Some(spawn_blocking(move || write_all(&copy)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let written = ready!(Pin::new(writing).poll(cx));
        self.writing = None;
        Poll::Ready(written.map_err(io::Error::other)?)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// The next bytes; none at the end.
fn read_chunk() -> io::Result<Zeroizing<Vec<u8>>> {
    let stdin = io::stdin();
    let mut chunk = Zeroizing::new(vec![0; CHUNK_BYTES]);
    let count = waiting(stdin.as_fd(), PollFlags::POLLIN, || unistd::read(stdin.as_fd(), &mut chunk))?;
    chunk.truncate(count);
    Ok(chunk)
}

fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match waiting(stdout.as_fd(), PollFlags::POLLOUT, || unistd::write(stdout.as_fd(), bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Makes a call until it is neither interrupted nor would have to wait.
fn waiting(
    descriptor: BorrowedFd<'_>,
    until: PollFlags,
    mut call: impl FnMut() -> nix::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // An error of the wait is one of the descriptor: the next call reports it.
                let _ = poll(&mut [PollFd::new(descriptor, until)], PollTimeout::NONE);
            }
            result => return Ok(result?),
        }
    }
}
