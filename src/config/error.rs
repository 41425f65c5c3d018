//! Why there is no configuration, in words for the operator: what happened, then what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Problem;

/// Why a configuration was not accepted. Nothing of it is in force then.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file where one is looked for. Write one: `ravi-broker config example` prints a start.
    #[error(
        "no configuration file; looked for {}\nwrite one (`ravi-broker config example` prints a start) or name one with --config",
        list(looked_for)
    )]
    NotFound {
        /// The paths, in the order of the search.
        looked_for: Vec<PathBuf>,
    },
    /// The file is there and cannot be opened or read.
    #[error("cannot read {}: {kind}\ngive the user of the daemon the right to read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// `RAVI_BROKER_CONFIG` is not an absolute path.
    #[error(
        "RAVI_BROKER_CONFIG is not an absolute path\nwrite the whole path: the working directory must not decide"
    )]
    RelativePath,
    /// The file could have been written by somebody who may not decide what the broker does.
    #[error("{} is not to be trusted: {fault}\n{}", path.display(), fault.remedy())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What speaks against it.
        fault: FileFault,
    },
    /// The file was read and has mistakes: all of them, in the order of their lines.
    #[error("{}", Listing(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Never empty.
        problems: Vec<Problem>,
    },
}

/// What is wrong with a configuration file before a byte of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FileFault {
    /// A directory, pipe, socket or device.
    #[error("it is not a regular file")]
    NotRegular,
    /// Neither root nor the daemon's user owns it.
    #[error("it belongs to neither root nor the user of the daemon")]
    Owner,
    /// Its group or everyone may write it.
    #[error("its group or everyone may write it")]
    Writable,
    /// Larger than 1 MiB.
    #[error("it is larger than 1 MiB")]
    TooLarge,
}

impl FileFault {
    fn remedy(self) -> &'static str {
        match self {
            Self::NotRegular => "name a regular file",
            Self::Owner => "let root or the user of the daemon own it (chown)",
            Self::Writable => "take the right away (chmod go-w)",
            Self::TooLarge => "a configuration of 1,024 roles fits: look what else is in it",
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

struct Listing<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, problems) = self;
        let noun = if problems.len() == 1 { "mistake" } else { "mistakes" };
        writeln!(f, "{}: {} {noun}, nothing of it is in force", path.display(), problems.len())?;
        for problem in *problems {
            writeln!(f, "  {problem}")?;
        }
        f.write_str("correct the file and try again; `ravi-broker config check` reads it without a daemon")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}
