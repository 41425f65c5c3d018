//! Arguments of `setup`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::types::{IdentityName, RoleName};

/// What runs agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostName {
    // Anthropic's; MCP.
    ClaudeCode,
    // OpenAI's; MCP.
    Codex,
    // MCP.
    Cursor,
    // A shell and skills, no MCP.
    Pi,
    // kcosr/assistant: starts others, and has agents of its own.
    Assistant,
    // Any other: what to write by hand.
    Print,
}

impl HostName {
    /// As the command line has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Cursor => "cursor",
            Self::Pi => "pi",
            Self::Assistant => "assistant",
            Self::Print => "print",
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
It shows the change, asks, writes it, and notes what it wrote, for --undo. A role that the broker's
configuration does not have is added to it, with scopes to use values and none to read them. Nothing
secret is written. `assistant` is kcosr/assistant; `print` writes nothing and shows what to write.

Example:
  ravi-broker setup claude-code --identity claude-laptop
  ravi-broker setup codex --role notes-agent --project
  ravi-broker setup claude-code --undo")]
pub(crate) struct Setup {
    /// What runs the agent
    #[arg(value_enum)]
    pub(crate) host: HostName,
    /// The role that its agents act as [default: the name of the host]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<RoleName>,
    /// The identity of a role that is added [default: the name of the role]
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<IdentityName>,
    /// Set it up for the project in this directory, and not for all of this user's
    #[arg(long, conflicts_with = "file")]
    pub(crate) project: bool,
    /// The host's configuration file, where it is not in its usual place
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// An agent of kcosr/assistant (may be repeated) [default: all that are command lines]
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Vec<String>,
    /// Take out what was written, if nobody has changed it since
    #[arg(long, conflicts_with_all = ["role", "identity", "file", "agent"])]
    pub(crate) undo: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
