//! What the daemon and its attestor say to each other.
//!
//! A message is one datagram of bounded size. A question is four numbers and, for one kind, a path; an answer
//! is the number of the exchange, an error or 0, and what belongs to the kind of question (`found`), in one case
//! a descriptor. Both ends are on one machine, so numbers are in its own order. Imports its neighbours.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// The longest path that the kernel gives (`PATH_MAX`).
pub(super) const MAX_PATH: usize = 4096;
/// The longest message: an answer with all facts, two paths among them.
pub(super) const LIMIT: usize = 160 + 2 * MAX_PATH;
/// As many descriptors as a message can carry (`SCM_MAX_FD`, `net/scm.h`).
const MAX_ATTACHED: usize = 253;

/// What can be asked. Numbers are never used for another kind: the ends may be of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Executable = 1,
    Version = 3,
    Open = 4,
    Facts = 5,
    Stat = 6,
    Cgroup = 7,
    Lineage = 8,
    Canonical = 9,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Executable,
        Self::Version,
        Self::Open,
        Self::Facts,
        Self::Stat,
        Self::Cgroup,
        Self::Lineage,
        Self::Canonical,
    ];

    /// `None`: no question of ours.
    pub(super) fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }
}

/// What a question is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct About<'a> {
    pub(super) pid: u32,
    /// Another process: the top of a lineage, or who asks for facts. Else 0.
    pub(super) other: u32,
    /// What is to be made canonical. Else empty.
    pub(super) path: &'a [u8],
}

impl About<'_> {
    pub(super) fn process(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }
}

/// About one process, two, or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// See [`Kind::of`].
    pub(super) kind: u32,
    pub(super) exchange: u32,
    pub(super) about: About<'a>,
}

impl<'a> Question<'a> {
    pub(super) fn send(self, socket: &OwnedFd) -> nix::Result<()> {
        let Self { kind, exchange, about: About { pid, other, path } } = self;
        if path.len() > MAX_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut bytes = Vec::with_capacity(16 + path.len());
        bytes.extend([kind, exchange, pid, other].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(path);
        Message { bytes, attached: None }.send(socket)
    }

    /// `None`: not in this form.
    pub(super) fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut next = || take_u32(&mut bytes);
        let (kind, exchange, pid, other) = (next()?, next()?, next()?, next()?);
        (bytes.len() <= MAX_PATH).then_some(Self { kind, exchange, about: About { pid, other, path: bytes } })
    }
}

/// The answer to the question with the same number, its body not yet read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) exchange: u32,
    errno: i32,
    /// Body first, then what came along. Closed with the answer if nobody takes it.
    body: Message,
}

impl Answer {
    pub(super) fn of<F: Found>(exchange: u32, found: io::Result<F>) -> Self {
        let (errno, body) = match found {
            Ok(found) => (0, found.write()),
            Err(error) => (errno_of(&error), Message::default()),
        };
        Self { exchange, errno, body }
    }

    /// What is said in place of this answer if it cannot be sent.
    pub(super) fn failed(exchange: u32, errno: Errno) -> Self {
        Self { exchange, errno: errno as i32, body: Message::default() }
    }

    pub(super) fn send(self, socket: &OwnedFd) -> nix::Result<()> {
        let mut bytes = Vec::with_capacity(8 + self.body.bytes.len());
        bytes.extend(self.exchange.to_ne_bytes());
        bytes.extend(self.errno.to_ne_bytes());
        bytes.extend(&self.body.bytes);
        Message { bytes, attached: self.body.attached }.send(socket)
    }

    /// `None`: not in this form.
    pub(super) fn read(mut message: Message) -> Option<Self> {
        let mut bytes = message.bytes.as_slice();
        let exchange = take_u32(&mut bytes)?;
        let errno = take_u32(&mut bytes)?.cast_signed();
        message.bytes = bytes.to_vec();
        Some(Self { exchange, errno, body: message })
    }

    /// What was found. An error without a number: not what was asked for.
    pub(super) fn found<F: Found>(self) -> io::Result<F> {
        let body = match self.errno {
            0 => self.body,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        };
        F::read(body).unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()))
    }
}

/// `ETIMEDOUT` is kept for an attestor that does not answer.
fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().filter(|&errno| errno != 0 && errno != libc::ETIMEDOUT).unwrap_or(libc::EIO)
}

/// What answers a question of one kind, with its form on the wire.
pub(super) trait Found: Sized {
    const KIND: Kind;

    fn write(self) -> Message;

    /// `None`: not in this form.
    fn read(body: Message) -> Option<io::Result<Self>>;
}

/// One datagram. What came along is closed with it.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) attached: Option<OwnedFd>,
}

impl Message {
    /// Bytes alone.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, attached: None }
    }

    /// The bytes, if nothing came along.
    pub(super) fn alone(&self) -> Option<&[u8]> {
        self.attached.is_none().then_some(&self.bytes)
    }

    fn send(&self, socket: &OwnedFd) -> nix::Result<()> {
        let attached = self.attached.as_ref().map(AsRawFd::as_raw_fd);
        let rights = attached.as_ref().map(|fd| ControlMessage::ScmRights(std::slice::from_ref(fd)));
        let data = [IoSlice::new(&self.bytes)];
        sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// `None`: the other end is closed. `EBADMSG`: longer than any message, or with more than one descriptor.
    pub(super) fn receive(socket: &OwnedFd, flags: MsgFlags) -> nix::Result<Option<Self>> {
        let mut bytes = [0; LIMIT];
        let mut control = nix::cmsg_space!([i32; MAX_ATTACHED]);
        let mut data = [IoSliceMut::new(&mut bytes)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut data, Some(&mut control), flags)?;
        let (length, cut) = (received.bytes, received.flags.contains(MsgFlags::MSG_TRUNC));
        let mut attached = Vec::new();
        // The room suffices for all, so it fails only where one more cannot be opened. One is all that is
        // ever sent, so none was made then.
        for part in received.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else owns them.
                attached.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        if cut || attached.len() > 1 {
            return Err(Errno::EBADMSG);
        }
        Ok((length > 0).then(|| Self { bytes: bytes[..length].to_vec(), attached: attached.pop() }))
    }
}

pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_ne_bytes(*number))
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::super::facts::Facts;
    use super::super::super::peer::Executable;
    use super::*;

    #[test]
    fn a_head_is_whole_or_refused() {
        let about = About { pid: 7, other: 6, path: b"" };
        let question = Question { kind: 9, exchange: 8, about };
        let bytes: Vec<u8> = [9_u32, 8, 7, 6].into_iter().flat_map(u32::to_ne_bytes).collect();
        assert_eq!(Question::read(&bytes), Some(question));
        for length in 0..bytes.len() {
            assert_eq!(Question::read(&bytes[..length]), None, "{length}");
            assert_eq!(
                Answer::read(Message::of(bytes[..length].to_vec())).is_some(),
                length >= 8,
                "{length}"
            );
        }
        let with_path = [&bytes[..], b"/a"].concat();
        let question = Question { about: About { path: b"/a", ..about }, ..question };
        assert_eq!(Question::read(&with_path), Some(question));
        assert_eq!(Question::read(&[&bytes[..], &[b'/'; MAX_PATH + 1]].concat()), None);
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind as u32), Some(kind));
        }
        assert!([0, 2, 10, u32::MAX].map(Kind::of).iter().all(Option::is_none));
    }

    #[test]
    fn an_error_is_told_apart_from_silence() {
        let error = |errno| Answer::of::<File>(1, Err(io::Error::from_raw_os_error(errno)));
        let told = |answer: Answer| answer.found::<Executable>().unwrap_err().raw_os_error();
        assert_eq!(told(error(libc::EACCES)), Some(libc::EACCES));
        assert_eq!(told(error(libc::ETIMEDOUT)), Some(libc::EIO));
        assert_eq!(told(Answer::of::<File>(1, Err(io::ErrorKind::Other.into()))), Some(libc::EIO));
        assert_eq!(told(Answer::of(1, Ok(Facts::default()))), None);
    }
}
