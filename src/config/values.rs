//! Values of the configuration that need more than their TOML type: addresses, paths, users.
//!
//! Each reads a text into a form that cannot be wrong, or says what was expected. Never quotes it.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::{Group, User};

use super::reader::Value;
use super::units::{UnitError, duration_text, parse_duration};
use super::{Bind, CallerTier, IdentityRef, MemoryTier, Rate, UseBy};
use crate::types::{BaseUrl, BaseUrlError, CgroupPath, Delivery, HostNameError};

/// `sun_path` of `unix(7)`, without its terminating NUL.
const MAX_SOCKET_PATH: usize = 107;
/// Stands for every user or group that the kernel cannot express in this namespace.
const OVERFLOW_ID: u32 = 65_534;

/// Where Ravi is.
pub(super) fn base_url(text: &str) -> Result<BaseUrl, String> {
    text.parse().map_err(|error: BaseUrlError| error.to_string())
}

/// An absolute path in its plain form.
pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, String> {
    plain_path(Path::new(value.text()?))
}

/// The same for a path that came by a flag.
pub(super) fn plain_path(path: &Path) -> Result<PathBuf, String> {
    let text = path.to_str().ok_or("expected a path in UTF-8")?;
    if !path.is_absolute() {
        return Err("expected an absolute path: the working directory must not decide".into());
    }
    let steps = path.components().any(|part| matches!(part, Component::ParentDir));
    let plain: PathBuf = path.components().collect();
    if steps || plain.to_str() != Some(text) || text.chars().any(char::is_control) {
        return Err("expected a plain path, without `.`, `..`, doubled slashes or control characters".into());
    }
    Ok(plain)
}

/// A path that fits into a socket address.
pub(super) fn socket_path(path: PathBuf) -> Result<PathBuf, String> {
    let fits = path.as_os_str().len() <= MAX_SOCKET_PATH && path.file_name().is_some();
    fits.then_some(path).ok_or_else(|| format!("a socket's path has at most {MAX_SOCKET_PATH} bytes"))
}

/// A duration within bounds.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value<'_>) -> Result<Duration, String> {
    move |value| {
        let duration = parse_duration(value.text()?).map_err(|error| error.to_string())?;
        let (least, most) = (duration_text(*bounds.start()), duration_text(*bounds.end()));
        if bounds.contains(&duration) { Ok(duration) } else { Err(format!("expected {least} to {most}")) }
    }
}

/// A whole number within bounds.
pub(super) fn count(bounds: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Result<usize, String> {
    move |value| {
        let number = value.integer(bounds.clone())?;
        usize::try_from(number).map_err(|_| "too large for this machine".to_owned())
    }
}

/// A rate of at most a million in its time.
pub(super) fn rate(value: &Value<'_>) -> Result<Rate, String> {
    let rate: Rate = value.text()?.parse().map_err(|error: UnitError| error.to_string())?;
    (rate.count <= 1_000_000).then_some(rate).ok_or_else(|| "expected at most 1000000".into())
}

/// How far memory is to be protected.
pub(super) fn memory_tier(value: &Value<'_>) -> Result<MemoryTier, String> {
    match value.text()? {
        "locked" => Ok(MemoryTier::Locked),
        "secret" => Ok(MemoryTier::Secret),
        _ => Err("expected \"locked\" or \"secret\"".into()),
    }
}

/// A UUID if it reads as one, else a name.
pub(super) fn identity(value: &Value<'_>) -> Result<IdentityRef, String> {
    let text = value.text()?;
    match text.parse() {
        Ok(uuid) => Ok(IdentityRef::Uuid(uuid)),
        Err(_) => text.parse().map(IdentityRef::Name).map_err(|error| error.to_string()),
    }
}

/// A user id, or the name of a user of this machine.
pub(super) fn user(value: &Value<'_>) -> Result<u32, String> {
    let named = |name: &str| User::from_name(name).map(|user| user.map(|user| user.uid.as_raw()));
    id(value, "user", named)
}

/// A group id, or the name of a group of this machine.
pub(super) fn group(value: &Value<'_>) -> Result<u32, String> {
    let named = |name: &str| Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw()));
    id(value, "group", named)
}

/// The name of a fact of this host.
pub(super) fn host_name<T: FromStr<Err = HostNameError>>(value: &Value<'_>) -> Result<T, String> {
    value.text()?.parse().map_err(|error: HostNameError| error.to_string())
}

/// A group that not every process is in.
pub(super) fn cgroup(value: &Value<'_>) -> Result<CgroupPath, String> {
    let path: CgroupPath = host_name(value)?;
    match path.is_root() {
        true => Err("every process is in the root group or below it; name a group below".into()),
        false if path.as_str().chars().any(char::is_control) => Err(HostNameError::Cgroup.to_string()),
        false => Ok(path),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)], value: &Value<'_>) -> Result<T, String> {
    let text = value.text()?;
    let known = words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
    known.ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("expected one of {}", words.join(", "))
    })
}

/// Words of `listen.require`.
pub(super) const CALLERS: [(&str, CallerTier); 2] = [("pid", CallerTier::Pid), ("pidfd", CallerTier::Pidfd)];

/// Words of `bind`.
pub(super) const BINDS: [(&str, Bind); 3] =
    [("process", Bind::Process), ("subtree", Bind::Subtree), ("cgroup", Bind::Cgroup)];

/// Words of `use_by`.
pub(super) const USERS: [(&str, UseBy); 2] = [("cli", UseBy::Cli), ("any", UseBy::Any)];

/// Ways of delivery, each once.
pub(super) fn deliveries(value: &Value<'_>) -> Result<Vec<Delivery>, String> {
    let words = Delivery::INJECTED.map(|delivery| (delivery.as_str(), delivery));
    let mut listed = Vec::new();
    for item in value.items(words.len())? {
        let delivery = one_of(&words, &item)?;
        if listed.contains(&delivery) {
            return Err("expected each way once".into());
        }
        listed.push(delivery);
    }
    Ok(listed)
}

fn id(
    value: &Value<'_>,
    noun: &str,
    named: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, String> {
    let id = if value.is_integer() {
        let number = value.integer(0..=u64::from(u32::MAX - 1))?;
        u32::try_from(number).map_err(|_| "too large for an id".to_owned())?
    } else {
        let name = value.text().map_err(|_| format!("expected the number or the name of a {noun}"))?;
        let known = !name.is_empty() && name.len() <= 256 && !name.contains('\0');
        let found = if known { named(name) } else { Ok(None) };
        let found = found.map_err(|_| format!("the {noun} database of this machine does not answer"))?;
        found.ok_or_else(|| format!("there is no such {noun} on this machine"))?
    };
    if id == OVERFLOW_ID {
        return Err(format!("{OVERFLOW_ID} stands for every {noun} that the kernel cannot name"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        assert_eq!(plain_path(Path::new("/usr/bin/claude")), Ok("/usr/bin/claude".into()));
        for text in [
            "",
            "claude",
            "./claude",
            "/usr/../bin/sh",
            "/usr//bin",
            "/usr/./bin",
            "/usr/bin/",
            "/a\0b",
            "/a\nb",
        ] {
            assert!(plain_path(Path::new(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_socket_path_fits_into_its_address() {
        assert!(socket_path(format!("/{}", "a".repeat(106)).into()).is_ok());
        assert!(socket_path(format!("/{}", "a".repeat(107)).into()).is_err());
        assert!(socket_path("/".into()).is_err());
    }
}
