//! What the process was started with: the user and the variables that say where things are. The daemon
//! reads them once and passes them down, so that tests can put their own in their place.
//!
//! Imports nothing of this crate.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variables that decide where things are. None of them ever holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// The user's own directory.
    Home,
    /// Where the user keeps configuration; `~/.config` if unset.
    XdgConfigHome,
    /// Where the user's sockets live.
    XdgRuntimeDir,
    /// Where the user's programs keep what must survive; `~/.local/state` if unset.
    XdgStateHome,
    /// Set by systemd for `RuntimeDirectory=`.
    RuntimeDirectory,
    /// Set by systemd for `StateDirectory=`.
    StateDirectory,
    /// Set by systemd for `LoadCredential=`.
    CredentialsDirectory,
    /// The configuration file.
    RaviBrokerConfig,
    /// The agent socket, for clients.
    RaviBrokerSocket,
    /// A file that holds the session: a path, never a token.
    RaviBrokerSessionFile,
    /// What the daemon logs.
    RaviBrokerLog,
    /// Where Ravi is, for the daemon.
    RaviApiUrl,
}

impl Variable {
    const ALL: [Self; 12] = [
        Self::Home,
        Self::XdgConfigHome,
        Self::XdgRuntimeDir,
        Self::XdgStateHome,
        Self::RuntimeDirectory,
        Self::StateDirectory,
        Self::CredentialsDirectory,
        Self::RaviBrokerConfig,
        Self::RaviBrokerSocket,
        Self::RaviBrokerSessionFile,
        Self::RaviBrokerLog,
        Self::RaviApiUrl,
    ];

    /// As the environment spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Home => "HOME",
            Self::XdgConfigHome => "XDG_CONFIG_HOME",
            Self::XdgRuntimeDir => "XDG_RUNTIME_DIR",
            Self::XdgStateHome => "XDG_STATE_HOME",
            Self::RuntimeDirectory => "RUNTIME_DIRECTORY",
            Self::StateDirectory => "STATE_DIRECTORY",
            Self::CredentialsDirectory => "CREDENTIALS_DIRECTORY",
            Self::RaviBrokerConfig => "RAVI_BROKER_CONFIG",
            Self::RaviBrokerSocket => "RAVI_BROKER_SOCKET",
            Self::RaviBrokerSessionFile => "RAVI_BROKER_SESSION_FILE",
            Self::RaviBrokerLog => "RAVI_BROKER_LOG",
            Self::RaviApiUrl => "RAVI_API_URL",
        }
    }
}

/// The user and the variables of a process, as they were when they were read.
#[derive(Clone, Debug)]
pub struct Environment {
    uid: u32,
    variables: BTreeMap<Variable, OsString>,
}

impl Environment {
    /// Reads the process's own. The daemon does so once, in `main`.
    pub fn capture() -> Self {
        let set = Variable::ALL.into_iter().filter_map(|variable| {
            let value = std::env::var_os(variable.name())?;
            Some((variable, value))
        });
        Self::of(nix::unistd::geteuid().as_raw(), set)
    }

    /// An environment put together by hand. Empty values count as unset.
    pub fn of<V: Into<OsString>>(uid: u32, variables: impl IntoIterator<Item = (Variable, V)>) -> Self {
        let variables = variables.into_iter().map(|(variable, value)| (variable, value.into()));
        Self { uid, variables: variables.filter(|(_, value)| !value.is_empty()).collect() }
    }

    /// The effective user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A variable as text. `None` if unset or not UTF-8.
    pub fn text(&self, variable: Variable) -> Option<&str> {
        self.variables.get(&variable)?.to_str()
    }

    /// A variable as it is. `None` if unset.
    pub fn raw(&self, variable: Variable) -> Option<&OsString> {
        self.variables.get(&variable)
    }

    /// A variable as an absolute path. A relative one counts as unset: where a program was started
    /// must not decide what it reads (the XDG base directory specification says the same).
    pub fn path(&self, variable: Variable) -> Option<PathBuf> {
        let path = PathBuf::from(self.variables.get(&variable)?);
        path.is_absolute().then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_relative_directory_counts_as_unset() {
        let environment = Environment::of(
            1000,
            [(Variable::Home, ""), (Variable::XdgConfigHome, "here"), (Variable::XdgStateHome, "/s")],
        );
        assert_eq!(environment.path(Variable::Home), None);
        assert_eq!(environment.path(Variable::XdgConfigHome), None);
        assert_eq!(environment.path(Variable::XdgStateHome), Some("/s".into()));
    }
}
