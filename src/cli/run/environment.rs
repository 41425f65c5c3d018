//! The environment of the program: the caller's without what would hand over keys, plus what is injected.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::files::Files;
use super::inject::{Injected, Place};
use super::say::Say;
use super::session::LauncherSession;
use crate::cli::args::Run;
use crate::client::locate::{AGENT_SOCKET_VARIABLE, SESSION_FILE_VARIABLE};
use crate::secret::Secret;

/// Which variables of the caller are kept from the program.
enum Which {
    /// Of one of these names.
    Named(&'static [&'static str]),
    /// Of a name that begins so.
    NameBegins(&'static str),
    /// With a value that begins so.
    ValueBegins(&'static [&'static str]),
}

use Which::{NameBegins, Named, ValueBegins};

/// What is removed, and why. One table: `--help` shows it. `RAVI_ACCESS_TOKEN` is named in older documents of
/// Ravi; the prefixes are those of its keys, its sign-in tokens and our session tokens.
const RULES: [(Which, &str); 6] = [
    (
        Named(&["RAVI_API_KEY", "RAVI_MANAGEMENT_KEY", "RAVI_IDENTITY_KEY", "RAVI_ACCESS_TOKEN"]),
        "a key or token of Ravi",
    ),
    (ValueBegins(&["ravi_mgmt_", "ravi_id_", "rvt_", "rbt_"]), "a key or token of Ravi or of the broker"),
    (Named(&["CREDENTIALS_DIRECTORY"]), "leads to keys that systemd gave the caller"),
    (Named(&["NOTIFY_SOCKET"]), "speaks for the caller's service"),
    (NameBegins("LISTEN_"), "names descriptors of the caller's service"),
    (
        Named(&[SESSION_FILE_VARIABLE, crate::client::link::VARIABLE]),
        "the caller's session; CMD gets its own",
    ),
];

/// The table for `--help`.
pub(in crate::cli) fn rules() -> String {
    let line = |(which, why): &(Which, &str)| {
        let what = match which {
            Named(names) => names.join(", "),
            NameBegins(begin) => format!("{begin}*"),
            ValueBegins(begins) => format!("any whose value begins with {}", begins.join(", ")),
        };
        format!("  {what}\n      {why}\n")
    };
    let table: String = RULES.iter().map(line).collect();
    format!("{table}  any whose value is one that is injected\n      would be shown where it should not be\n")
}

/// Each entry as the exec takes it: `NAME=value` and a zero byte.
pub(super) fn of_child(
    args: &Run,
    session: &LauncherSession,
    values: &[Injected],
    files: &Files,
    say: &Say,
) -> io::Result<Vec<Vec<u8>>> {
    let secrets = values.iter().filter(|value| value.is_secret()).map(Injected::read);
    let secrets = secrets.collect::<io::Result<Vec<Secret>>>()?;
    let replaced = |name: &OsStr| {
        values.iter().any(|value| matches!(&value.place, Place::Environment(own) if own == name))
    };
    let own = [(SESSION_FILE_VARIABLE, session.path()), (AGENT_SOCKET_VARIABLE, session.client().socket())];
    let own = own.map(|(name, path)| (OsString::from(name), path.as_os_str().to_owned()));
    let own: Vec<_> = own.into_iter().chain(files.variables.iter().cloned()).collect();
    let mut entries = Vec::new();
    for (name, value) in std::env::vars_os() {
        if args.unset.contains(&name) || replaced(&name) || own.iter().any(|(own, _)| *own == name) {
            continue;
        }
        match removed(&name, &value, &secrets) {
            Some(why) => say.detail(format_args!("{} is kept from the program: {why}", name.display())),
            None => entries.push(entry(&name, value.as_bytes())),
        }
    }
    entries.extend(own.iter().map(|(name, value)| entry(name, value.as_bytes())));
    for value in values {
        if let Place::Environment(name) = &value.place {
            entries.push(entry(name, value.read()?.expose().as_bytes()));
        }
    }
    Ok(entries)
}

/// Why this variable is kept from the program.
fn removed(name: &OsStr, value: &OsStr, secrets: &[Secret]) -> Option<&'static str> {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    if secrets.iter().any(|secret| !secret.is_empty() && secret.expose().as_bytes() == value) {
        return Some("its value is injected");
    }
    let hits = |which: &Which| match which {
        Named(names) => names.iter().any(|known| known.as_bytes() == name),
        NameBegins(begin) => name.starts_with(begin.as_bytes()),
        ValueBegins(begins) => begins.iter().any(|begin| value.starts_with(begin.as_bytes())),
    };
    RULES.iter().find(|(which, _)| hits(which)).map(|(_, why)| *why)
}

/// In one allocation of the right size, so that no part of it is left elsewhere.
fn entry(name: &OsStr, value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'=');
    entry.extend_from_slice(value);
    entry.push(0);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_removed(name: &str, value: &str) -> bool {
        let injected = [Secret::copy_of("injected-value"), Secret::copy_of("")];
        removed(name.as_ref(), value.as_ref(), &injected).is_some()
    }

    #[test]
    fn what_would_hand_over_a_key_is_removed() {
        for (name, value) in [
            ("RAVI_API_KEY", "x"),
            ("RAVI_MANAGEMENT_KEY", ""),
            ("ANYTHING", "ravi_mgmt_1"),
            ("ANYTHING", "ravi_id_1"),
            ("ANYTHING", "rvt_1"),
            ("ANYTHING", "rbt_1"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PIDFDID", "1"),
            ("RAVI_BROKER_SESSION_FILE", "/run/s"),
            ("RAVI_BROKER_LINK_FD", "3"),
            ("OPENAI_API_KEY", "injected-value"),
        ] {
            assert!(is_removed(name, value), "{name}={value}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for (name, value) in [
            ("PATH", "/bin"),
            ("EMPTY", ""),
            ("RAVI_API_URL", "https://api.ravi.id"),
            ("RAVI_BROKER_CONFIG", "/etc/c"),
            ("X", "an injected-value in a text"),
            ("LISTENER", "x"),
        ] {
            assert!(!is_removed(name, value), "{name}={value}");
        }
    }

    #[test]
    fn the_help_shows_every_rule() {
        let help = rules();
        for (which, why) in &RULES {
            let names: &[&str] = match which {
                Named(names) | ValueBegins(names) => names,
                NameBegins(begin) => &[begin],
            };
            assert!(help.contains(why) && names.iter().all(|name| help.contains(name)), "{why}");
        }
    }
}
