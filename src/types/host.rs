//! Names of facts about a process of this host, as the configuration writes them: a cgroup, a systemd
//! unit, the hash of an executable.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest path that the kernel prints (`PATH_MAX`).
const MAX_CGROUP: usize = 4095;
/// Longest unit name (`UNIT_NAME_MAX` of systemd, `systemd.unit(5)`).
const MAX_UNIT: usize = 255;
const HASH_BYTES: usize = 32;

/// Path of a group of the unified hierarchy (cgroup v2), as `/proc/<pid>/cgroup` prints it: absolute,
/// counted from the root of our cgroup namespace. `/` is the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CgroupPath(Box<str>);

/// Name of a systemd service or scope, `agents.service`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitName(Box<str>);

/// SHA-256 of a file's content. Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHash(pub [u8; HASH_BYTES]);

/// Why such a name was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostNameError {
    /// No absolute, plain path.
    #[error("expected the absolute path of a cgroup (v2), without `.`, `..` or doubled slashes")]
    Cgroup,
    /// No service or scope.
    #[error("expected the full name of a systemd unit that ends in .service or .scope")]
    Unit,
    /// Not 64 digits.
    #[error("expected a SHA-256: 64 hexadecimal digits, as sha256sum prints them")]
    Hash,
}

impl CgroupPath {
    /// Whether this is the root, in which every process is.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether this is `top` or a group below it.
    pub fn is_within(&self, top: &Self) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        top.is_root() || self.0.strip_prefix(&*top.0).is_some_and(below)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names on the way down, the root left out.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|step| !step.is_empty())
    }
}

impl FromStr for CgroupPath {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let plain = |step: &str| !matches!(step, "" | "." | "..") && !step.contains('\0');
        let steps = text.strip_prefix('/').ok_or(HostNameError::Cgroup)?;
        let fits = text.len() <= MAX_CGROUP && (steps.is_empty() || steps.split('/').all(plain));
        fits.then(|| Self(text.into())).ok_or(HostNameError::Cgroup)
    }
}

impl UnitName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UnitName {
    type Err = HostNameError;

    /// A template (`agents@.service`) is no unit that a process can run in.
    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let stem = text.strip_suffix(".service").or_else(|| text.strip_suffix(".scope"));
        let stem = stem.filter(|_| text.len() <= MAX_UNIT).ok_or(HostNameError::Unit)?;
        let (prefix, instance) = stem.split_once('@').map_or((stem, None), |(p, i)| (p, Some(i)));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
        let fits = !prefix.is_empty()
            && prefix.bytes().all(known)
            && instance.is_none_or(|i| !i.is_empty() && i.bytes().all(|byte| known(byte) || byte == b'@'));
        fits.then(|| Self(text.into())).ok_or(HostNameError::Unit)
    }
}

impl FromStr for FileHash {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let right = text.len() == 2 * HASH_BYTES;
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(pair).collect();
        let hash = bytes.filter(|_| right).and_then(|bytes| bytes.try_into().ok());
        hash.map(Self).ok_or(HostNameError::Hash)
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(text: &str) -> CgroupPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_cgroup_holds_what_is_below_it_and_not_what_begins_alike() {
        let agents = cgroup("/system.slice/agents.service");
        assert!(agents.is_within(&agents));
        assert!(cgroup("/system.slice/agents.service/run-1").is_within(&agents));
        for other in ["/", "/system.slice", "/system.slice/agents.service2", "/agents.service"] {
            assert!(!cgroup(other).is_within(&agents), "{other}");
        }
        assert!(agents.is_within(&cgroup("/")));
    }

    #[test]
    fn only_plain_absolute_cgroup_paths_are_taken() {
        for text in ["/", "/a", "/a/b c", "/user.slice/user@1000.service"] {
            assert_eq!(cgroup(text).as_str(), text);
        }
        let long = format!("/{}", "a".repeat(4095));
        for text in ["", "a", "a/b", "//", "/a/", "/a//b", "/./a", "/../a", "/a/..", "/a\0", &long] {
            assert!(text.parse::<CgroupPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_services_and_scopes_are_units_of_processes() {
        for text in ["a.service", "a-b_c:d.e\\x2d.scope", "user@1000.service", "x@a@b.service"] {
            assert_eq!(text.parse::<UnitName>().unwrap().as_str(), text);
        }
        let long = format!("{}.service", "a".repeat(248));
        for text in [
            "",
            ".service",
            "a",
            "a.slice",
            "a.Service",
            "@.service",
            "a@.service",
            "a b.service",
            "ä.scope",
            "a/b.service",
            "*.service",
            "a\n.service",
            &long,
        ] {
            assert!(text.parse::<UnitName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_hash_is_64_digits_in_either_case_and_printed_in_one() {
        let lower = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [lower, &lower.to_uppercase()] {
            assert_eq!(text.parse::<FileHash>().unwrap().to_string(), lower);
        }
        let signed = format!("+{}", &lower[1..]);
        for text in ["", &lower[..62], &lower[..63], &format!("{lower}00"), &signed, &"é".repeat(32)] {
            assert!(text.parse::<FileHash>().is_err(), "{text:?}");
        }
    }
}
