//! The adapter's command line.

use std::path::PathBuf;

use clap::Parser;

use super::access::{Access, Named};
use crate::client::locate;
use crate::types::{NameError, RoleName};

/// Names the role, where no flag does.
const ROLE_VARIABLE: &str = "RAVI_BROKER_ROLE";

const EXAMPLES: &str = "\
Examples:
  claude mcp add ravi -- ravi-broker-mcp --role notes-agent     Claude Code
  codex mcp add ravi -- ravi-broker-mcp --role notes-agent      Codex

Any other host, in its list of MCP servers:
  {\"mcpServers\": {\"ravi\": {\"command\": \"ravi-broker-mcp\", \"args\": [\"--role\", \"notes-agent\"]}}}

The daemon has to run (`systemctl --user start ravi-broker`, or `ravi-brokerd` in a terminal), and its \
configuration has to let this program assume the role. What a tool returns is sent to the model and is \
often written to the host's own log: give a role no more scopes than it needs.

Environment:
  RAVI_BROKER_ROLE          the role, if --role is not given
  RAVI_BROKER_SESSION_FILE  the session file, if neither is given
  RAVI_BROKER_SOCKET        the daemon's socket, if --socket is not given
  RAVI_BROKER_LOG           off, error, warn (the default), info or debug; logs go to standard error";

/// Gives an MCP host (Claude Code, Codex and others) the credentials of one Ravi identity.
///
/// Speaks MCP on standard input and output; a host starts it. Answers before the daemon runs and says
/// then how to start it.
#[derive(Debug, Parser)]
#[command(name = "ravi-broker-mcp", version = crate::types::VERSION, after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub struct Args {
    /// Role of the daemon's configuration to assume
    #[arg(long, value_name = "ROLE")]
    role: Option<RoleName>,
    /// Use the session that `ravi-broker session open` wrote to this file, instead of one of its own
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    session_file: Option<PathBuf>,
    /// The daemon's agent socket; without it the usual places are tried
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Args {
    /// Candidates for the daemon's socket, best first.
    pub fn sockets(&self) -> Vec<PathBuf> {
        locate::agent_sockets(self.socket.as_deref())
    }

    /// Where the session comes from, by flags and environment.
    pub fn access(self) -> Result<Access, NameError> {
        let variable = std::env::var_os;
        let variables =
            Named::of_variables(variable(ROLE_VARIABLE), variable(locate::SESSION_FILE_VARIABLE))?;
        Ok(Named { role: self.role, session_file: self.session_file }.access(variables))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_shows_the_one_line_of_configuration() {
        Args::command().debug_assert();
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("claude mcp add ravi -- ravi-broker-mcp --role notes-agent"));
    }

    #[test]
    fn a_role_and_a_session_file_are_not_given_together() {
        assert!(Args::try_parse_from(["x", "--role", "a", "--session-file", "/f"]).is_err());
        assert!(Args::try_parse_from(["x", "--role", "Not A Role"]).is_err());
    }
}
