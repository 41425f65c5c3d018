//! What setup has written, for `--undo` and for `doctor`: names and paths, in the state directory of the user.
//!
//! Imports its siblings, and `config` for where the directory is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Found};
use super::error::SetupError;
use super::piece::Piece;
use crate::config::{Environment, paths};

const FILE: &str = "setup.json";
const VERSION: u32 = 1;

/// All that was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Record {
    version: u32,
    /// One for each host and place.
    pub(in crate::cli) hosts: Vec<Entry>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Entry {
    /// As the command line names it.
    pub(in crate::cli) host: String,
    /// The directory of a project; `None` for the user.
    pub(in crate::cli) project: Option<PathBuf>,
    /// What its agents act as.
    pub(in crate::cli) role: String,
    /// What it starts.
    pub(in crate::cli) program: PathBuf,
    /// What was written for it.
    pub(super) pieces: Vec<Piece>,
    /// Roles that were added to the broker's configuration.
    pub(super) roles: Vec<Piece>,
}

impl Entry {
    /// The command that wrote it.
    pub(in crate::cli) fn command(&self) -> String {
        let project = if self.project.is_some() { " --project" } else { "" };
        format!("ravi-broker setup {}{project}", self.host)
    }
}

impl Record {
    /// Reads the record; an empty one where there is none.
    pub(in crate::cli) fn read() -> Result<Self, SetupError> {
        Ok(Self::open()?.1)
    }

    /// The same, with its file.
    pub(super) fn open() -> Result<(Found, Self), SetupError> {
        let found = disk::find(&directory()?.join(FILE), false)?;
        let record = match &found.text {
            None => Self { version: VERSION, hosts: Vec::new() },
            Some(text) => serde_json::from_str(text).map_err(|_| SetupError::Record(found.path.clone()))?,
        };
        if record.version != VERSION { Err(SetupError::Record(found.path)) } else { Ok((found, record)) }
    }

    /// Writes it, for its owner alone; a record of nothing goes.
    pub(super) fn write(&self, file: &Found) -> Result<(), SetupError> {
        if self.hosts.is_empty() {
            return file.replace(None, 0o600);
        }
        let mut text = serde_json::to_string_pretty(self).map_err(|_| SetupError::NotText)?;
        text.push('\n');
        file.replace(Some(&text), 0o600)
    }

    /// The entry of a host and place.
    pub(super) fn entry(&self, host: &str, project: Option<&Path>) -> Option<&Entry> {
        self.hosts.iter().find(|entry| entry.host == host && entry.project.as_deref() == project)
    }

    /// The same with another entry of that host and place, or with none.
    pub(super) fn with(mut self, host: &str, project: Option<&Path>, entry: Option<Entry>) -> Self {
        self.hosts.retain(|entry| entry.host != host || entry.project.as_deref() != project);
        self.hosts.extend(entry);
        self
    }
}

/// Where the record is, and what of ours hosts load.
pub(super) fn directory() -> Result<PathBuf, SetupError> {
    paths::user_state_directory(&Environment::capture()).ok_or(SetupError::NoHome)
}
