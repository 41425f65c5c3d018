//! What the daemon and its attestor say to each other.
//!
//! A message is one datagram of bounded size. A question is three numbers; an answer is the number of the
//! exchange, an error or 0, and what belongs to the kind of question, in one case a descriptor. Both ends
//! are the same program, so numbers are in the machine's own order. Imports its neighbours.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use super::super::facts::{FileVersion, Namespaces, Traced};
use super::super::peer::Executable;

/// The longest path that the kernel gives (`PATH_MAX`).
const MAX_PATH: usize = 4096;
/// The longest message: an answer about [`Traced`].
const LIMIT: usize = 64 + MAX_PATH;
/// As many descriptors as a message can carry (`SCM_MAX_FD`, `net/scm.h`).
const MAX_ATTACHED: usize = 253;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Executable = 1,
    Traced = 2,
    Version = 3,
    Open = 4,
}

impl Kind {
    /// `None`: no question of ours.
    pub(super) fn of(number: u32) -> Option<Self> {
        [Self::Executable, Self::Traced, Self::Version, Self::Open]
            .into_iter()
            .find(|&kind| kind as u32 == number)
    }
}

/// About one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// See [`Kind::of`].
    pub(super) kind: u32,
    pub(super) exchange: u32,
    pub(super) pid: u32,
}

impl Question {
    pub(super) fn send(self, socket: &OwnedFd) -> nix::Result<()> {
        let Self { kind, exchange, pid } = self;
        let bytes: Vec<u8> = [kind, exchange, pid].into_iter().flat_map(u32::to_ne_bytes).collect();
        Message { bytes, attached: None }.send(socket)
    }

    /// `None`: not in this form.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut next = || take_u32(&mut bytes);
        let read = Self { kind: next()?, exchange: next()?, pid: next()? };
        bytes.is_empty().then_some(read)
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

    /// What was found. `EBADMSG`: not what was asked for.
    pub(super) fn found<F: Found>(self) -> io::Result<F> {
        let body = match self.errno {
            0 => self.body,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        };
        F::read(body).unwrap_or_else(|| Err(Errno::EBADMSG.into()))
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

/// Device, inode, and the path to the end.
impl Found for Executable {
    const KIND: Kind = Kind::Executable;

    fn write(self) -> Message {
        let mut bytes: Vec<u8> = [self.device, self.inode].into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.extend(self.path.as_os_str().as_bytes());
        Message { bytes, attached: None }
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let (device, inode) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?);
        let path = OsStr::from_bytes(bytes).into();
        (!bytes.is_empty() && bytes.len() <= MAX_PATH).then_some(Ok(Self { device, inode, path }))
    }
}

/// Which of the two are there; user and PID namespace, device and inode of each; the executable to the end.
/// What is not there takes no place.
impl Found for Traced {
    const KIND: Kind = Kind::Traced;

    fn write(self) -> Message {
        let present = u32::from(self.namespaces.is_some()) | u32::from(self.executable.is_some()) << 1;
        let mut bytes = present.to_ne_bytes().to_vec();
        if let Some(Namespaces { user, pid }) = self.namespaces {
            bytes.extend([user.0, user.1, pid.0, pid.1].into_iter().flat_map(u64::to_ne_bytes));
        }
        bytes.extend(self.executable.map(Found::write).unwrap_or_default().bytes);
        Message { bytes, attached: None }
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let present = take_u32(&mut bytes).filter(|&present| present <= 0b11)?;
        let mut found = Self::default();
        if present & 0b01 != 0 {
            let mut next = || take_u64(&mut bytes);
            found.namespaces = Some(Namespaces { user: (next()?, next()?), pid: (next()?, next()?) });
        }
        if present & 0b10 != 0 {
            let rest = Message { bytes: std::mem::take(&mut bytes).to_vec(), attached: None };
            found.executable = Executable::read(rest)?.ok();
        }
        bytes.is_empty().then_some(Ok(found))
    }
}

/// Device, inode, size; then seconds and nanoseconds of both times.
impl Found for FileVersion {
    const KIND: Kind = Kind::Version;

    fn write(self) -> Message {
        let Self { device, inode, size, modified, changed } = self;
        let signed = [size, modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
        let bytes = [device, inode].into_iter().chain(signed).flat_map(u64::to_ne_bytes).collect();
        Message { bytes, attached: None }
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let (device, inode) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?);
        let mut next = || take_u64(&mut bytes).map(u64::cast_signed);
        let (size, modified, changed) = (next()?, (next()?, next()?), (next()?, next()?));
        bytes.is_empty().then_some(Ok(Self { device, inode, size, modified, changed }))
    }
}

/// The descriptor alone. The kernel leaves it out where we may open no more.
impl Found for File {
    const KIND: Kind = Kind::Open;

    fn write(self) -> Message {
        Message { bytes: Vec::new(), attached: Some(self.into()) }
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let file = body.attached.map(Self::from).ok_or_else(|| Errno::EMFILE.into());
        body.bytes.is_empty().then_some(file)
    }
}

/// One datagram. What came along is closed with it.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) attached: Option<OwnedFd>,
}

impl Message {
    /// The bytes, if nothing came along.
    fn alone(&self) -> Option<&[u8]> {
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

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_ne_bytes(*number))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn executable() -> Executable {
        Executable { device: 7, inode: u64::MAX, path: "/bin/\u{e9} x".into() }
    }

    fn namespaces() -> Namespaces {
        Namespaces { user: (4, u64::MAX), pid: (5, 6) }
    }

    /// As it arrives; every part of it, and it with more, is refused unless `open_ended`.
    fn survives<F: Found + Clone + PartialEq + Debug>(found: &F, open_ended: bool) {
        let body = found.clone().write();
        assert!(8 + body.bytes.len() <= LIMIT);
        let read = |bytes: &[u8]| F::read(Message { bytes: bytes.to_vec(), attached: None });
        assert_eq!(&read(&body.bytes).unwrap().unwrap(), found);
        for length in 0..body.bytes.len() {
            let other = read(&body.bytes[..length]);
            assert!(other.is_none_or(|it| open_ended && it.unwrap() != *found), "{length}");
        }
        let more = read(&[&body.bytes, &b"x"[..]].concat());
        assert_eq!(more.is_some(), open_ended);
        let attached = Some(File::open("/dev/null").unwrap().into());
        assert!(F::read(Message { attached, ..body }).is_none(), "with a descriptor");
    }

    #[test]
    fn what_was_found_survives_the_wire_and_other_forms_are_refused() {
        survives(&executable(), true);
        let longest = Executable { path: "/".repeat(MAX_PATH).into(), ..executable() };
        let whole = Traced { executable: Some(longest.clone()), namespaces: Some(namespaces()) };
        assert_eq!(Traced::read(whole.clone().write()).unwrap().unwrap(), whole);
        let longer = Executable { path: "/".repeat(MAX_PATH + 1).into(), ..longest };
        assert!(Executable::read(longer.write()).is_none());
        survives(&Traced { executable: Some(executable()), namespaces: Some(namespaces()) }, true);
        survives(&Traced { executable: Some(executable()), namespaces: None }, true);
        survives(&Traced { executable: None, namespaces: Some(namespaces()) }, false);
        survives(&Traced::default(), false);
        let version =
            FileVersion { device: 1, inode: 2, size: -3, modified: (4, -5), changed: (i64::MIN, 7) };
        survives(&version, false);
        let unknown = Message { bytes: 4_u32.to_ne_bytes().to_vec(), attached: None };
        assert!(Traced::read(unknown).is_none());
        let file = || File::open("/dev/null").unwrap();
        assert!(File::read(file().write()).unwrap().is_ok());
        assert!(File::read(Message { bytes: vec![0], attached: Some(file().into()) }).is_none());
        let none = File::read(Message::default()).unwrap();
        assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    }

    #[test]
    fn a_head_is_whole_or_refused() {
        let question = Question { kind: 9, exchange: 8, pid: 7 };
        let bytes: Vec<u8> = [9_u32, 8, 7].into_iter().flat_map(u32::to_ne_bytes).collect();
        let message = |bytes: &[u8]| Message { bytes: bytes.to_vec(), attached: None };
        assert_eq!(Question::read(&bytes), Some(question));
        for length in 0..bytes.len() {
            assert_eq!(Question::read(&bytes[..length]), None, "{length}");
            assert_eq!(Answer::read(message(&bytes[..length])).is_some(), length >= 8, "{length}");
        }
        assert_eq!(Question::read(&[&bytes, &b"x"[..]].concat()), None);
        for kind in [Kind::Executable, Kind::Traced, Kind::Version, Kind::Open] {
            assert_eq!(Kind::of(kind as u32), Some(kind));
        }
        assert!([0, 5, 9, u32::MAX].map(Kind::of).iter().all(Option::is_none));
    }

    #[test]
    fn an_error_is_told_apart_from_silence() {
        let error = |errno| Answer::of::<File>(1, Err(io::Error::from_raw_os_error(errno)));
        let told = |answer: Answer| answer.found::<Executable>().unwrap_err().raw_os_error();
        assert_eq!(told(error(libc::EACCES)), Some(libc::EACCES));
        assert_eq!(told(error(libc::ETIMEDOUT)), Some(libc::EIO));
        assert_eq!(told(Answer::of::<File>(1, Err(io::ErrorKind::Other.into()))), Some(libc::EIO));
        assert_eq!(told(Answer::of(1, Ok(Traced::default()))), Some(libc::EBADMSG));
    }
}
