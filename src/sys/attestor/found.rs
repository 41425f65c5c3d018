//! The form of each answer on the wire. Imports its neighbours.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::errno::Errno;

use super::super::facts::{Facts, FileVersion, Namespaces};
use super::super::lineage::{Lineage, Link, MAX_DEPTH};
use super::super::peer::{Executable, Stat};
#[cfg(test)]
use super::wire::LIMIT;
use super::wire::{Found, Kind, MAX_PATH, Message, take_u32, take_u64};

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

/// Which are there, then each of those: parent and start time; namespaces, user before PID, device and inode of
/// each; nesting; comparison of ids; length of the cgroup's path and the path; the executable to the end.
impl Found for Facts {
    const KIND: Kind = Kind::Facts;

    fn write(self) -> Message {
        let Self { stat, cgroup, nested, same_ids, namespaces, executable } = self;
        // A path longer than any that can be asked about is as good as none.
        let cgroup = cgroup.filter(|path| path.len() <= MAX_PATH);
        let there = [
            stat.is_some(),
            namespaces.is_some(),
            nested.is_some(),
            same_ids.is_some(),
            cgroup.is_some(),
            executable.is_some(),
        ];
        let present = there.iter().enumerate().fold(0_u32, |word, (at, &it)| word | u32::from(it) << at);
        let mut bytes = present.to_ne_bytes().to_vec();
        bytes.extend(stat.map(|stat| stat.write().bytes).unwrap_or_default());
        if let Some(Namespaces { user, pid }) = namespaces {
            bytes.extend([user.0, user.1, pid.0, pid.1].into_iter().flat_map(u64::to_ne_bytes));
        }
        for number in [nested, same_ids.map(u32::from)].into_iter().flatten() {
            bytes.extend(number.to_ne_bytes());
        }
        if let Some(path) = cgroup {
            bytes.extend(u32::try_from(path.len()).unwrap_or(0).to_ne_bytes());
            bytes.extend(path);
        }
        bytes.extend(executable.map(Found::write).unwrap_or_default().bytes);
        Message::of(bytes)
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let present = take_u32(&mut bytes).filter(|&present| present <= 0b11_1111)?;
        let there = |at: u32| present >> at & 1 != 0;
        let mut found = Self::default();
        if there(0) {
            found.stat = Some(Stat { parent: take_u32(&mut bytes)?, start_time: take_u64(&mut bytes)? });
        }
        if there(1) {
            let mut next = || take_u64(&mut bytes);
            found.namespaces = Some(Namespaces { user: (next()?, next()?), pid: (next()?, next()?) });
        }
        if there(2) {
            found.nested = Some(take_u32(&mut bytes)?);
        }
        if there(3) {
            found.same_ids = Some(take_u32(&mut bytes).filter(|&same| same <= 1)? == 1);
        }
        if there(4) {
            let length = usize::try_from(take_u32(&mut bytes)?).ok().filter(|&length| length <= MAX_PATH)?;
            let (path, rest) = bytes.split_at_checked(length)?;
            (found.cgroup, bytes) = (Some(path.to_vec()), rest);
        }
        if there(5) {
            let rest = std::mem::take(&mut bytes).to_vec();
            found.executable = Executable::read(Message::of(rest))?.ok();
        }
        bytes.is_empty().then_some(Ok(found))
    }
}

/// Parent and start time.
impl Found for Stat {
    const KIND: Kind = Kind::Stat;

    fn write(self) -> Message {
        let mut bytes = self.parent.to_ne_bytes().to_vec();
        bytes.extend(self.start_time.to_ne_bytes());
        Message::of(bytes)
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let found = Self { parent: take_u32(&mut bytes)?, start_time: take_u64(&mut bytes)? };
        bytes.is_empty().then_some(Ok(found))
    }
}

/// The path of a group, as [`super::super::facts::cgroup`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group(pub(super) Vec<u8>);

impl Found for Group {
    const KIND: Kind = Kind::Cgroup;

    fn write(self) -> Message {
        Message::of(self.0)
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let bytes = body.alone().filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_PATH)?;
        Some(Ok(Self(bytes.to_vec())))
    }
}

/// Each link's id and start time.
impl Found for Lineage {
    const KIND: Kind = Kind::Lineage;

    fn write(self) -> Message {
        let mut bytes = Vec::new();
        for Link { pid, start_time } in self.0 {
            bytes.extend(pid.to_ne_bytes());
            bytes.extend(start_time.to_ne_bytes());
        }
        Message::of(bytes)
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let mut bytes = body.alone()?;
        let mut chain = Vec::new();
        while !bytes.is_empty() && chain.len() < MAX_DEPTH {
            chain.push(Link { pid: take_u32(&mut bytes)?, start_time: take_u64(&mut bytes)? });
        }
        (bytes.is_empty() && !chain.is_empty()).then_some(Ok(Self(chain)))
    }
}

/// A path without links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canonical(pub(super) PathBuf);

impl Found for Canonical {
    const KIND: Kind = Kind::Canonical;

    fn write(self) -> Message {
        Message::of(self.0.into_os_string().into_vec())
    }

    fn read(body: Message) -> Option<io::Result<Self>> {
        let bytes = body.alone().filter(|bytes| bytes.starts_with(b"/") && bytes.len() <= MAX_PATH)?;
        Some(Ok(Self(OsStr::from_bytes(bytes).into())))
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn executable() -> Executable {
        Executable { device: 7, inode: u64::MAX, path: "/bin/\u{e9} x".into() }
    }

    fn facts() -> Facts {
        Facts {
            stat: Some(Stat { parent: 3, start_time: u64::MAX - 1 }),
            cgroup: Some(b"/a/b".to_vec()),
            nested: Some(1),
            same_ids: Some(true),
            namespaces: Some(Namespaces { user: (4, u64::MAX), pid: (5, 6) }),
            executable: Some(executable()),
        }
    }

    /// As it arrives; every part of it, and it with more, is refused unless `open_ended`.
    fn survives<F: Found + Clone + PartialEq + Debug>(found: &F, open_ended: bool) {
        let body = found.clone().write();
        let read = |bytes: &[u8]| F::read(Message::of(bytes.to_vec()));
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
        survives(&facts(), true);
        survives(&Facts { executable: None, ..facts() }, false);
        survives(&Facts { namespaces: None, same_ids: Some(false), ..facts() }, true);
        survives(&Facts { cgroup: None, stat: None, executable: None, ..facts() }, false);
        survives(&Facts::default(), false);
        survives(&Stat { parent: 1, start_time: 2 }, false);
        survives(&Group(b"/a".to_vec()), true);
        survives(&Canonical("/a".into()), true);
        let version =
            FileVersion { device: 1, inode: 2, size: -3, modified: (4, -5), changed: (i64::MIN, 7) };
        survives(&version, false);
        let unknown = Message::of(64_u32.to_ne_bytes().to_vec());
        assert!(Facts::read(unknown).is_none());
        assert!(Canonical::read(Message::of(b"a".to_vec())).is_none(), "a relative path");
        let file = || File::open("/dev/null").unwrap();
        assert!(File::read(file().write()).unwrap().is_ok());
        assert!(File::read(Message { bytes: vec![0], attached: Some(file().into()) }).is_none());
        let none = File::read(Message::default()).unwrap();
        assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    }

    #[test]
    fn a_chain_is_as_long_as_it_may_be_and_no_longer() {
        let link = |pid| Link { pid, start_time: 9 };
        let chain = |length: usize| Lineage((1..).map(link).take(length).collect());
        for length in [1, 2, MAX_DEPTH] {
            assert_eq!(Lineage::read(chain(length).write()).unwrap().unwrap(), chain(length));
        }
        for length in [0, MAX_DEPTH + 1] {
            assert!(Lineage::read(chain(length).write()).is_none(), "{length}");
        }
        let part = Message::of(chain(2).write().bytes[..13].to_vec());
        assert!(Lineage::read(part).is_none());
    }

    #[test]
    fn the_longest_paths_are_said_and_longer_ones_are_not() {
        let longest = Executable { path: "/".repeat(MAX_PATH).into(), ..executable() };
        let whole =
            Facts { executable: Some(longest.clone()), cgroup: Some(vec![b'/'; MAX_PATH]), ..facts() };
        let body = whole.clone().write();
        assert!(8 + body.bytes.len() <= LIMIT);
        assert_eq!(Facts::read(body).unwrap().unwrap(), whole);
        let longer = Executable { path: "/".repeat(MAX_PATH + 1).into(), ..longest };
        assert!(Executable::read(longer.write()).is_none());
        let beyond = Facts { cgroup: Some(vec![b'/'; MAX_PATH + 1]), ..facts() };
        assert_eq!(Facts::read(beyond.write()).unwrap().unwrap().cgroup, None);
        assert!(Group::read(Group(vec![b'/'; MAX_PATH + 1]).write()).is_none());
    }
}
