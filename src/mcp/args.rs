//! The adapter's command line: three options, read without clap, which would be a tenth of the program and is a
//! part of its start.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser};
use thiserror::Error;

use super::access::{Access, Named};
use crate::client::locate;
use crate::types::{NameError, RoleName, VERSION};

/// Names the role, where no flag does.
const ROLE_VARIABLE: &str = "RAVI_BROKER_ROLE";

const HELP: &str = "\
Gives an MCP host (Claude Code, Codex and others) the credentials of one Ravi identity.

Speaks MCP on standard input and output; a host starts it. Answers before the daemon runs and says
then how to start it.

Usage: ravi-broker-mcp [OPTIONS]

Options:
      --role <ROLE>          Role of the daemon's configuration to assume
      --session-file <PATH>  Use the session that `ravi-broker session open` wrote to this file,
                             instead of one of its own
      --socket <PATH>        The daemon's agent socket; without it the usual places are tried
  -h, --help                 Print help
  -V, --version              Print version

Examples:
  claude mcp add ravi -- ravi-broker-mcp --role notes-agent     Claude Code
  codex mcp add ravi -- ravi-broker-mcp --role notes-agent      Codex

Any other host, in its list of MCP servers:
  {\"mcpServers\": {\"ravi\": {\"command\": \"ravi-broker-mcp\", \"args\": [\"--role\", \"notes-agent\"]}}}

The daemon has to run (`systemctl --user start ravi-broker`, or `ravi-brokerd` in a terminal), and
its configuration has to let this program assume the role. What a tool returns is sent to the model
and is often written to the host's own log: give a role no more scopes than it needs.

Environment:
  RAVI_BROKER_ROLE          the role, if --role is not given
  RAVI_BROKER_SESSION_FILE  the session file, if neither is given
  RAVI_BROKER_SOCKET        the daemon's socket, if --socket is not given
  RAVI_BROKER_LOG           off, error, warn (the default), info or debug; logs go to standard error
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To serve.
    Serve(Args),
    /// To say this and end.
    Say(String),
}

/// Options of the adapter.
#[derive(Debug, Default)]
pub struct Args {
    role: Option<RoleName>,
    session_file: Option<PathBuf>,
    socket: Option<PathBuf>,
}

/// Why the command line was refused: correct it, `--help` has the options.
#[derive(Debug, Error)]
pub enum ArgsError {
    /// Not an option, an option without its value, or something else.
    #[error(transparent)]
    Unknown(#[from] lexopt::Error),
    /// The role is none.
    #[error("--role: {0}")]
    Role(NameError),
    /// Both name a session.
    #[error("--role cannot be used with --session-file")]
    Both,
}

impl Args {
    /// Reads what follows the program's name.
    ///
    /// # Errors
    /// [`ArgsError`].
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, ArgsError> {
        let (mut args, mut parser) = (Self::default(), Parser::from_args(arguments));
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("role") => args.role = Some(role(&parser.value()?)?),
                Arg::Long("session-file") => args.session_file = Some(parser.value()?.into()),
                Arg::Long("socket") => args.socket = Some(parser.value()?.into()),
                Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Say(HELP.to_owned())),
                Arg::Short('V') | Arg::Long("version") => {
                    return Ok(Asked::Say(format!("ravi-broker-mcp {VERSION}\n")));
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if args.role.is_some() && args.session_file.is_some() {
            return Err(ArgsError::Both);
        }
        Ok(Asked::Serve(args))
    }

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

fn role(value: &OsString) -> Result<RoleName, ArgsError> {
    value.to_str().ok_or(NameError::Role).and_then(str::parse).map_err(ArgsError::Role)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Asked, ArgsError> {
        Args::read(arguments.iter().map(OsString::from))
    }

    #[test]
    fn help_shows_the_one_line_of_configuration_and_every_option() {
        let Ok(Asked::Say(help)) = read(&["--help"]) else { panic!("no help") };
        assert!(help.contains("claude mcp add ravi -- ravi-broker-mcp --role notes-agent"));
        for option in ["--role", "--session-file", "--socket", "--help", "--version"] {
            assert!(help.contains(option), "{option}");
        }
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let Ok(Asked::Serve(args)) = read(&["--role=a", "--socket", "/s"]) else { panic!("refused") };
        assert_eq!(args.role, Some("a".parse().unwrap()));
        assert_eq!(args.sockets(), [PathBuf::from("/s")]);
        let Ok(Asked::Serve(args)) = read(&["--session-file", "/f"]) else { panic!("refused") };
        assert_eq!(args.session_file, Some("/f".into()));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for wrong in [
            &["--nope"][..],
            &["extra"],
            &["--role"],
            &["--role", "Not A Role"],
            &["--role=a", "--session-file=/f"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
