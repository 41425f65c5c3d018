//! What is answered, and how: the same by a child and by a service. Imports its neighbours in `sys`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::super::facts::{cgroup, executable_version, look, open_executable};
use super::super::lineage::lineage;
use super::super::peer::{executable, stat};
use super::found::{Canonical, Group};
use super::wire::{About, Answer, Kind, Message, Question};

/// Waits for one question and answers it. False: the other end is closed.
pub(super) fn answer_one(socket: &OwnedFd) -> nix::Result<bool> {
    let message = match Message::receive(socket, MsgFlags::empty()) {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(false),
        Err(Errno::EINTR) => return Ok(true),
        Err(errno) => return Err(errno),
    };
    let question = Question::read(&message.bytes).ok_or(Errno::EBADMSG)?;
    let exchange = question.exchange;
    let answer = answer(question);
    // What came along, if anything, is nothing to us.
    drop(message);
    // A descriptor cannot be sent while too many of its user are under way (`ETOOMANYREFS`, `unix(7)`).
    answer.send(socket).or_else(|errno| Answer::failed(exchange, errno).send(socket))?;
    Ok(true)
}

/// The caller pins the process: what was read of one that has ended since may be about another.
fn answer(Question { kind, exchange, about: About { pid, other, path } }: Question<'_>) -> Answer {
    match Kind::of(kind) {
        Some(Kind::Executable) => Answer::of(exchange, executable(pid)),
        Some(Kind::Version) => Answer::of(exchange, executable_version(pid)),
        Some(Kind::Open) => Answer::of(exchange, open_executable(pid)),
        Some(Kind::Facts) => Answer::of(exchange, Ok(look(pid, other))),
        Some(Kind::Stat) => Answer::of(exchange, stat(pid)),
        Some(Kind::Cgroup) => Answer::of(exchange, cgroup(pid).map(Group)),
        Some(Kind::Lineage) => Answer::of(exchange, lineage(pid, other)),
        Some(Kind::Canonical) => {
            let real = Path::new(OsStr::from_bytes(path)).canonicalize();
            Answer::of(exchange, real.map(Canonical))
        }
        None => Answer::failed(exchange, Errno::EINVAL),
    }
}
