//! Where the daemon's sockets and the session files are, for a command line that may name a socket itself.
//! The rule for the rest is the configuration's (`config::paths`): a socket that is named stands alone, so
//! that a mistake does not reach another daemon; otherwise the usual places, never `/tmp`.

use std::path::{Path, PathBuf};

use crate::config::{Environment, Variable, paths};

/// Names the agent socket.
pub const AGENT_SOCKET_VARIABLE: &str = Variable::RaviBrokerSocket.name();
/// Names the admin socket. Without it, it is looked for beside a named agent socket.
pub const ADMIN_SOCKET_VARIABLE: &str = "RAVI_BROKER_ADMIN_SOCKET";
/// Names a session file; a path, never a token.
pub const SESSION_FILE_VARIABLE: &str = Variable::RaviBrokerSessionFile.name();

/// Candidates for the agent socket, best first. `flag` is what the command line named.
pub fn agent_sockets(flag: Option<&Path>) -> Vec<PathBuf> {
    match flag {
        Some(path) => vec![path.to_owned()],
        None => paths::agent_socket_candidates(&Environment::capture()),
    }
}

/// Candidates for the admin socket, best first. `flag` is what the command line named.
pub fn admin_sockets(flag: Option<&Path>) -> Vec<PathBuf> {
    let variable = || std::env::var_os(ADMIN_SOCKET_VARIABLE).filter(|path| !path.is_empty());
    match flag.map(Path::to_owned).or_else(|| variable().map(PathBuf::from)) {
        Some(path) => vec![path],
        None => paths::admin_socket_candidates(&Environment::capture()),
    }
}

/// The user's directory for session files, which is in memory: `$XDG_RUNTIME_DIR/ravi-broker/sessions`,
/// or the same below `/run/user/<uid>` if that exists. `None`: the host offers no such directory.
pub fn session_directory() -> Option<PathBuf> {
    let environment = Environment::capture();
    let usual = || PathBuf::from(format!("/run/user/{}", environment.uid()));
    let runtime = environment.path(Variable::XdgRuntimeDir);
    let runtime = runtime.or_else(|| Some(usual()).filter(|path| path.is_dir()))?;
    Some(runtime.join("ravi-broker").join("sessions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_line_names_is_the_only_candidate() {
        let named = Path::new("/x/named.sock");
        assert_eq!(agent_sockets(Some(named)), [named]);
        assert_eq!(admin_sockets(Some(named)), [named]);
    }

    #[test]
    fn the_variables_have_the_names_that_are_documented() {
        assert_eq!(AGENT_SOCKET_VARIABLE, "RAVI_BROKER_SOCKET");
        assert_eq!(SESSION_FILE_VARIABLE, "RAVI_BROKER_SESSION_FILE");
    }
}
