//! Where sockets and state live, for the daemon and for its clients alike. Never `/tmp`, never the
//! working directory.
//!
//! Imports nothing of this crate but `environment`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Environment, Variable};

/// Folder of ours in every shared directory.
const FOLDER: &str = "ravi-broker";
/// The agent socket's file name.
const AGENT_SOCKET: &str = "broker.sock";
/// The admin socket's file name.
const ADMIN_SOCKET: &str = "admin.sock";
/// Runtime directory of the system instance.
const SYSTEM_RUNTIME: &str = "/run/ravi-broker";
/// State directory of the system instance.
const SYSTEM_STATE: &str = "/var/lib/ravi-broker";

/// A directory that the environment does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// Neither systemd nor the login session offers a runtime directory.
    #[error(
        "there is no runtime directory for the sockets\nset XDG_RUNTIME_DIR (a login session does), or name both sockets under [listen]"
    )]
    NoRuntimeDirectory,
    /// No state directory and no home.
    #[error(
        "there is no state directory for the audit trail\nset HOME or XDG_STATE_HOME, or name audit.file"
    )]
    NoStateDirectory,
}

/// Where the daemon puts its sockets: `$RUNTIME_DIRECTORY` (systemd), else `/run/ravi-broker` for
/// root, else `$XDG_RUNTIME_DIR/ravi-broker`.
///
/// # Errors
/// [`PathError::NoRuntimeDirectory`]; there is no further fallback.
pub fn runtime_directory(environment: &Environment) -> Result<PathBuf, PathError> {
    first_of(environment, Variable::RuntimeDirectory)
        .or_else(|| (environment.uid() == 0).then(|| SYSTEM_RUNTIME.into()))
        .or_else(|| environment.path(Variable::XdgRuntimeDir).map(|path| path.join(FOLDER)))
        .ok_or(PathError::NoRuntimeDirectory)
}

/// Where the daemon keeps what must survive: `$STATE_DIRECTORY` (systemd), else `/var/lib/ravi-broker`
/// for root, else `$XDG_STATE_HOME/ravi-broker`, else `~/.local/state/ravi-broker`.
///
/// # Errors
/// [`PathError::NoStateDirectory`].
pub fn state_directory(environment: &Environment) -> Result<PathBuf, PathError> {
    first_of(environment, Variable::StateDirectory)
        .or_else(|| (environment.uid() == 0).then(|| SYSTEM_STATE.into()))
        .or_else(|| user_state_directory(environment))
        .ok_or(PathError::NoStateDirectory)
}

/// Where programs of this user note what must survive, also for root and under systemd:
/// `$XDG_STATE_HOME/ravi-broker`, else `~/.local/state/ravi-broker`.
pub fn user_state_directory(environment: &Environment) -> Option<PathBuf> {
    let own = || environment.path(Variable::Home).map(|home| home.join(".local/state"));
    environment.path(Variable::XdgStateHome).or_else(own).map(|state| state.join(FOLDER))
}

/// The configuration files that apply when none is named, best first.
pub fn config_candidates(environment: &Environment) -> Vec<PathBuf> {
    let own = environment
        .path(Variable::XdgConfigHome)
        .or_else(|| environment.path(Variable::Home).map(|home| home.join(".config")))
        .filter(|_| environment.uid() != 0);
    let system = PathBuf::from("/etc").join(FOLDER).join("config.toml");
    own.map(|path| path.join(FOLDER).join("config.toml")).into_iter().chain([system]).collect()
}

/// The agent socket in `directory`.
pub fn agent_socket(directory: &Path) -> PathBuf {
    directory.join(AGENT_SOCKET)
}

/// The admin socket in `directory`.
pub fn admin_socket(directory: &Path) -> PathBuf {
    directory.join(ADMIN_SOCKET)
}

/// Where a client looks for the agent socket, best first; a flag goes before all of them.
///
/// `RAVI_BROKER_SOCKET` stands alone: who names a socket must not silently reach another daemon.
/// Otherwise `$XDG_RUNTIME_DIR`, `/run/user/<uid>` (hosts often start adapters without the variable)
/// and the system instance.
pub fn agent_socket_candidates(environment: &Environment) -> Vec<PathBuf> {
    match environment.raw(Variable::RaviBrokerSocket) {
        Some(socket) => vec![PathBuf::from(socket)],
        None => runtime_candidates(environment).iter().map(|path| agent_socket(path)).collect(),
    }
}

/// The same for the admin socket. With `RAVI_BROKER_SOCKET` set it is looked for beside that one.
pub fn admin_socket_candidates(environment: &Environment) -> Vec<PathBuf> {
    match environment.raw(Variable::RaviBrokerSocket) {
        Some(socket) => vec![PathBuf::from(socket).with_file_name(ADMIN_SOCKET)],
        None => runtime_candidates(environment).iter().map(|path| admin_socket(path)).collect(),
    }
}

fn runtime_candidates(environment: &Environment) -> Vec<PathBuf> {
    let own = environment.path(Variable::XdgRuntimeDir).map(|path| path.join(FOLDER));
    let usual = PathBuf::from(format!("/run/user/{}", environment.uid())).join(FOLDER);
    let mut candidates: Vec<PathBuf> = own.into_iter().chain([usual, SYSTEM_RUNTIME.into()]).collect();
    candidates.dedup();
    candidates
}

/// systemd separates several directories with a colon; ours is the first.
fn first_of(environment: &Environment, variable: Variable) -> Option<PathBuf> {
    let list = environment.raw(variable)?.as_bytes();
    let first = list.split(|&byte| byte == b':').next()?;
    let path = PathBuf::from(OsStr::from_bytes(first));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(variables: &[(Variable, &str)]) -> Environment {
        Environment::of(1000, variables.iter().copied())
    }

    #[test]
    fn systemd_names_the_directories_before_anyone_else() {
        let environment = user(&[
            (Variable::RuntimeDirectory, "/run/a:/run/b"),
            (Variable::StateDirectory, "/var/lib/a"),
            (Variable::XdgRuntimeDir, "/run/user/1000"),
            (Variable::Home, "/home/u"),
        ]);
        assert_eq!(runtime_directory(&environment), Ok("/run/a".into()));
        assert_eq!(state_directory(&environment), Ok("/var/lib/a".into()));
    }

    #[test]
    fn an_ordinary_user_has_directories_of_their_own() {
        let environment = user(&[(Variable::XdgRuntimeDir, "/run/user/1000"), (Variable::Home, "/home/u")]);
        assert_eq!(runtime_directory(&environment), Ok("/run/user/1000/ravi-broker".into()));
        assert_eq!(state_directory(&environment), Ok("/home/u/.local/state/ravi-broker".into()));
        let environment = user(&[(Variable::XdgStateHome, "/s"), (Variable::Home, "/home/u")]);
        assert_eq!(state_directory(&environment), Ok("/s/ravi-broker".into()));
    }

    #[test]
    fn root_uses_the_directories_of_the_system() {
        let environment =
            Environment::of(0, [(Variable::XdgRuntimeDir, "/run/user/0"), (Variable::Home, "/root")]);
        assert_eq!(runtime_directory(&environment), Ok(SYSTEM_RUNTIME.into()));
        assert_eq!(state_directory(&environment), Ok(SYSTEM_STATE.into()));
        assert_eq!(config_candidates(&environment), [PathBuf::from("/etc/ravi-broker/config.toml")]);
    }

    #[test]
    fn without_a_directory_there_is_an_error_and_no_fallback() {
        assert_eq!(runtime_directory(&user(&[])), Err(PathError::NoRuntimeDirectory));
        assert_eq!(state_directory(&user(&[])), Err(PathError::NoStateDirectory));
        let relative = user(&[(Variable::XdgRuntimeDir, "run"), (Variable::RuntimeDirectory, "run")]);
        assert_eq!(runtime_directory(&relative), Err(PathError::NoRuntimeDirectory));
    }

    #[test]
    fn a_client_without_variables_still_finds_the_usual_places() {
        assert_eq!(
            agent_socket_candidates(&user(&[])),
            ["/run/user/1000/ravi-broker/broker.sock", "/run/ravi-broker/broker.sock"].map(PathBuf::from)
        );
        let session = user(&[(Variable::XdgRuntimeDir, "/run/user/1000")]);
        assert_eq!(
            admin_socket_candidates(&session),
            ["/run/user/1000/ravi-broker/admin.sock", "/run/ravi-broker/admin.sock"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_named_socket_has_no_stand_in() {
        let named =
            user(&[(Variable::RaviBrokerSocket, "/x/agent.sock"), (Variable::XdgRuntimeDir, "/run/u")]);
        assert_eq!(agent_socket_candidates(&named), [PathBuf::from("/x/agent.sock")]);
        assert_eq!(admin_socket_candidates(&named), [PathBuf::from("/x/admin.sock")]);
    }
}
