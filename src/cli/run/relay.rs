//! Copies output of the program through the mask, one thread for each stream.
//!
//! One buffer each way: what cannot be written is not read, so a slow reader slows the program down as if
//! nothing stood between. A reader that goes away takes the pipe with it, so that the program gets SIGPIPE.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use crate::cli::mask::Stream;

/// Read at once.
const PIECE: usize = 64 * 1024;
/// Output that pauses so long is shown as far as it can be, in milliseconds.
const PAUSE: u8 = 30;
/// How long the program's end waits for output of what it left running, in milliseconds.
const GRACE: u8 = 100;

/// One stream: where it comes from and where it goes.
pub(super) struct Relay {
    pub(super) source: OwnedFd,
    pub(super) sink: OwnedFd,
    /// It is our side of a terminal.
    pub(super) terminal: bool,
}

/// What there is to do.
enum Next {
    Output(usize),
    Pause,
    End,
}

impl Relay {
    /// Starts copying. `ended` closes when the program has ended. The receiver is told when all is copied.
    pub(super) fn start(self, mask: Stream, ended: PipeReader) -> io::Result<oneshot::Receiver<()>> {
        let (done, finished) = oneshot::channel();
        let capacity =
            fcntl(&self.source, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
        let left = capacity.unwrap_or_default().max(PIECE);
        let copy = Copy {
            source: self.source.into(),
            sink: self.sink.into(),
            mask,
            ended: Some(ended),
            left,
            shown: true,
        };
        let run = move || {
            copy.run(self.terminal);
            let _ = done.send(());
        };
        std::thread::Builder::new().name("relay".into()).spawn(run)?;
        Ok(finished)
    }
}

struct Copy {
    source: File,
    sink: File,
    mask: Stream,
    /// `None`: the program has ended.
    ended: Option<PipeReader>,
    /// Bytes to be read after that: what the program itself wrote is no more than a pipe holds.
    left: usize,
    /// All that could be shown since the last output has been.
    shown: bool,
}

impl Copy {
    fn run(mut self, terminal: bool) {
        let mut buffer = vec![0; PIECE];
        let mut out = Vec::with_capacity(2 * PIECE);
        let mut open = true;
        // Of a terminal we are not the only holder: it is emptied on even if nobody sees it any more.
        while open || terminal {
            match self.next(&mut buffer) {
                Next::Output(count) => self.mask.feed(&buffer[..count], &mut out),
                Next::Pause => self.mask.idle(&mut out),
                Next::End => break,
            }
            open = open && self.sink.write_all(&out).is_ok();
            out.clear();
        }
        self.mask.finish(&mut out);
        if open {
            let _ = self.sink.write_all(&out);
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Next {
        loop {
            let timeout = match &self.ended {
                None => PollTimeout::from(GRACE),
                Some(_) if self.mask.held() > 0 && !self.shown => PollTimeout::from(PAUSE),
                Some(_) => PollTimeout::NONE,
            };
            match self.wait(timeout) {
                Err(Errno::EINTR) => {}
                Err(_) => return Next::End,
                Ok([false, false]) if self.ended.is_none() => return Next::End,
                Ok([false, false]) => {
                    self.shown = true;
                    return Next::Pause;
                }
                Ok([true, _]) => return self.read(buffer),
                Ok([false, true]) => self.ended = None,
            }
        }
    }

    /// Whether there is output, and whether the program has ended.
    fn wait(&self, timeout: PollTimeout) -> nix::Result<[bool; 2]> {
        let descriptors = [Some(self.source.as_fd()), self.ended.as_ref().map(AsFd::as_fd)];
        let watched = descriptors.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let mut watched: Vec<PollFd<'_>> = watched.collect();
        poll(&mut watched, timeout)?;
        let ready = |at: usize| watched.get(at).and_then(PollFd::any).unwrap_or_default();
        Ok([ready(0), ready(1)])
    }

    fn read(&mut self, buffer: &mut [u8]) -> Next {
        let most = if self.ended.is_none() { self.left.min(buffer.len()) } else { buffer.len() };
        let count = loop {
            match self.source.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal that the last process has closed says EIO.
                result => break result.unwrap_or_default(),
            }
        };
        if self.ended.is_none() {
            self.left -= count;
        }
        self.shown = false;
        if count == 0 { Next::End } else { Next::Output(count) }
    }
}
