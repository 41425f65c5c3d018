//! Where the configuration comes from, so that a reload can read it again in the same way.

use std::path::PathBuf;

use super::error::StartError;
use crate::config::{self, Config, Environment, Overrides, Source};
use crate::inbox::dispatch::Rules;
use crate::policy::Policy;

/// What the daemon was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The environment, read once.
    pub environment: Environment,
    /// Flags.
    pub overrides: Overrides,
    /// The file.
    pub file: ConfigFile,
    /// Certificates to trust for upstream, in PEM, in place of `upstream.ca_file`: an embedded sandbox's.
    pub upstream_ca: Option<Vec<u8>>,
}

/// Which configuration file.
#[derive(Clone, Debug)]
pub enum ConfigFile {
    /// The one that `--config` names.
    Named(PathBuf),
    /// The first of the usual places.
    Usual,
    /// A text that is at hand: the sandbox's own.
    Text(String),
}

/// A configuration that was judged and found good.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) policy: Policy,
    pub(super) rules: Rules,
    pub(super) path: PathBuf,
}

impl Settings {
    /// Reads and judges the configuration: all problems of the file, its roles and its dispatches in one report.
    pub(super) fn load(&self) -> Result<Loaded, StartError> {
        let source = match &self.file {
            ConfigFile::Named(path) => Source::find(Some(path), &self.environment)?,
            ConfigFile::Usual => Source::find(None, &self.environment)?,
            ConfigFile::Text(text) => Source::of("<built-in>", text),
        };
        let path = source.path().to_owned();
        let draft = config::read(&source, &self.environment, &self.overrides)?;
        let mut problems = Vec::new();
        let policy = Policy::compile(&draft.config).map_err(|more| problems.extend(more)).unwrap_or_default();
        let rules = Rules::compile(&draft.config).map_err(|more| problems.extend(more)).unwrap_or_default();
        Ok(Loaded { config: draft.finish(problems)?, policy, rules, path })
    }
}
