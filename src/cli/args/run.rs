//! Arguments of `run`.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

use clap::Args;

use super::Purpose;
use super::parse::{ArgumentError, duration, scope};
use crate::cli::run::environment_rules;
use crate::types::{Reference, RoleName};

/// Highest descriptor that `--fd` takes: below every usual limit of open files.
pub(crate) const MAX_DESCRIPTOR: RawFd = 255;

const ABOUT: &str = "\
A reference names a credential: ravi://secret/KEY, ravi://password/DOMAIN[/USERNAME] (with #username \
for its account name) or ravi://sso/token. Prefer --file: the path can be read as often as needed, by \
CMD and by what it starts with the descriptor left open, and the value is in no environment and on no \
disk.

What CMD prints is searched for the values, which are masked; what it writes elsewhere is not (files, \
sockets, /dev/tty). CMD finds its session by RAVI_BROKER_SESSION_FILE, a path and never a token. The \
exit code is that of CMD, or 128 and the number of the signal that ended it; 127 if CMD is not found, \
126 if it cannot be run.

These variables of the caller do not reach CMD:
";

const EXAMPLE: &str = "\
Example:
  ravi-broker run --role notes-agent -- claude
  ravi-broker run --role deploy --file NPM_TOKEN_FILE=ravi://secret/NPM_TOKEN -- ./publish.sh";

#[derive(Args, Debug)]
#[command(after_help = help())]
pub(crate) struct Run {
    /// A role of the daemon's configuration
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: RoleName,
    /// How long the session lasts if it is not renewed; it is renewed while CMD runs
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Fewer rights than the role has, separated by commas
    #[arg(long, alias = "scope", value_delimiter = ',', value_parser = scope, value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    /// Set NAME to the path of a sealed file in memory that holds the value
    #[arg(long, value_name = "NAME=REF", value_parser = named)]
    pub(crate) file: Vec<Named>,
    /// Open a sealed file with the value as descriptor N, 3 to 255
    #[arg(long, value_name = "N=REF", value_parser = numbered)]
    pub(crate) fd: Vec<Numbered>,
    /// Give the value to CMD as its standard input
    #[arg(long, value_name = "REF")]
    pub(crate) stdin: Option<Reference>,
    /// Set NAME to the value itself: for programs that read nothing else, as it shows it to many
    #[arg(long, value_name = "NAME=REF", value_parser = named)]
    pub(crate) env: Vec<Named>,
    /// Keep a variable of the caller from CMD
    #[arg(long, value_name = "NAME", value_parser = variable)]
    pub(crate) unset: Vec<OsString>,
    /// Let CMD print values as they are
    #[arg(long)]
    pub(crate) no_mask: bool,
    /// Do not say what --env exposes
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Say which protections were not to be had
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The program to run, and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// A value for a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: OsString,
    pub(crate) reference: Reference,
}

/// A value for a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: RawFd,
    pub(crate) reference: Reference,
}

fn help() -> String {
    format!("{ABOUT}{}\n{EXAMPLE}", environment_rules())
}

fn named(text: &str) -> Result<Named, ArgumentError> {
    let (name, reference) = text.split_once('=').ok_or(ArgumentError::Injection)?;
    Ok(Named { name: variable(name)?, reference: reference.parse()? })
}

fn numbered(text: &str) -> Result<Numbered, ArgumentError> {
    let (number, reference) = text.split_once('=').ok_or(ArgumentError::Injection)?;
    let number = number.parse().ok().filter(|number| (3..=MAX_DESCRIPTOR).contains(number));
    Ok(Numbered { number: number.ok_or(ArgumentError::Descriptor)?, reference: reference.parse()? })
}

/// As a shell can use it.
fn variable(name: &str) -> Result<OsString, ArgumentError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if first && name.len() <= 256 && name.bytes().all(plain) {
        Ok(name.into())
    } else {
        Err(ArgumentError::Variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_has_a_place_and_a_reference() {
        let parsed = named("KEY_FILE=ravi://secret/KEY").unwrap();
        assert_eq!(
            (parsed.name.to_str(), parsed.reference.to_string()),
            (Some("KEY_FILE"), "ravi://secret/KEY".into())
        );
        assert_eq!(numbered("255=ravi://secret/KEY").unwrap().number, 255);
        for text in
            ["KEY", "=ravi://secret/KEY", "1A=ravi://secret/KEY", "A B=ravi://secret/KEY", "A=secret/KEY"]
        {
            assert!(named(text).is_err(), "{text}");
        }
        for text in [
            "2=ravi://secret/KEY",
            "256=ravi://secret/KEY",
            "-1=ravi://secret/KEY",
            "x=ravi://secret/KEY",
            "3",
        ] {
            assert!(numbered(text).is_err(), "{text}");
        }
    }
}
