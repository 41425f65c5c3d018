//! The daemon's end of one connection. Imports its neighbours.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{About, Answer, Message, Question};

/// Signals that may cut a wait short before it counts as failed.
const INTERRUPTIONS: usize = 8;

/// One exchange after the other: an answer that comes too late is recognised by its number.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: OwnedFd,
    exchange: u32,
    /// The last question has not been answered yet.
    behind: bool,
}

impl Line {
    pub(super) fn new(socket: OwnedFd, patience_ms: i64) -> io::Result<Self> {
        let line = Self { socket, exchange: 0, behind: false };
        line.be_patient(patience_ms)?;
        Ok(line)
    }

    /// How long an answer is waited for from now on.
    pub(super) fn be_patient(&self, patience_ms: i64) -> io::Result<()> {
        let patience = TimeVal::milliseconds(patience_ms);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(setsockopt(&self.socket, sockopt::SendTimeout, &patience)?)
    }

    /// `TimedOut`: no answer; `WouldBlock`: none yet to an earlier question, so this one was not asked; another
    /// error: the line is of no use any more.
    pub(super) fn ask(&mut self, kind: u32, about: About<'_>) -> io::Result<Answer> {
        if self.behind {
            // Dropped with the descriptor that it may carry.
            let _too_late = self.hear(MsgFlags::MSG_DONTWAIT)?;
        }
        self.exchange = self.exchange.wrapping_add(1);
        Question { kind, exchange: self.exchange, about }.send(&self.socket).map_err(silence)?;
        self.behind = true;
        self.hear(MsgFlags::empty()).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }

    /// The answer to the last question.
    pub(super) fn hear(&mut self, flags: MsgFlags) -> io::Result<Answer> {
        for _ in 0..INTERRUPTIONS {
            match Message::receive(&self.socket, flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(silence(errno)),
                Ok(None) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(Some(message)) => {
                    let answer = Answer::read(message).filter(|it| it.exchange == self.exchange);
                    let answer = answer.ok_or_else(|| silence(Errno::EBADMSG))?;
                    self.behind = false;
                    return Ok(answer);
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// An error of the line, which is never taken for one that the attestor has met: it has no number.
fn silence(errno: Errno) -> io::Error {
    match errno {
        Errno::EAGAIN => ErrorKind::WouldBlock.into(),
        Errno::EBADMSG => ErrorKind::InvalidData.into(),
        _ => ErrorKind::ConnectionAborted.into(),
    }
}
