//! Where each host keeps its configuration and how it names a server of MCP.
//!
//! By their documentation and sources in 2026: Claude Code reads `.mcp.json` of a project and `mcpServers` of
//! `~/.claude.json` (in `$CLAUDE_CONFIG_DIR` if that is set); Codex `[mcp_servers.NAME]` of `config.toml` in `$CODEX_HOME`,
//! `~/.codex`, or `.codex` of a project that is trusted, and hands on no variables but those in `env_vars`; Cursor
//! `mcpServers` of `.cursor/mcp.json` in the project or at home; Pi has no MCP and reads skills in `~/.pi/agent/skills` and
//! in `.pi/skills`. Imports its siblings.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::SetupError;
use super::piece::{Step, Want, Wish};
use super::toml::{list, quoted};
use crate::cli::args::HostName;

/// Our name among the servers of a host.
pub(super) const SERVER: &str = "ravi";
/// What a session of `run` is found by, where a host starts the adapter without its own variables.
const SESSION_VARIABLES: [&str; 2] = ["RAVI_BROKER_SESSION_FILE", "RAVI_BROKER_LINK_FD"];

/// Where a user's files are.
pub(super) struct Places {
    pub(super) home: Option<PathBuf>,
    /// The project, if that is what is to be set up.
    pub(super) project: Option<PathBuf>,
    /// `--file`.
    pub(super) file: Option<PathBuf>,
}

/// The adapter as a host is to start it.
pub(super) struct Server {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    /// Whether its session is that of a wrapper around the host.
    pub(super) wrapped: bool,
}

impl Places {
    /// `--file`, else the project's, else the user's, whose last name is in the directory of `variable` if that is set.
    fn of(&self, variable: Option<&str>, user: &[&str], project: &[&str]) -> Result<PathBuf, SetupError> {
        let below = |root: PathBuf, names: &[&str]| names.iter().fold(root, |path, name| path.join(name));
        if let Some(file) = &self.file {
            return std::path::absolute(file).map_err(|error| SetupError::Io(file.clone(), error));
        }
        if let Some(root) = &self.project {
            return Ok(below(root.clone(), project));
        }
        let named = variable.and_then(std::env::var_os).map(PathBuf::from).filter(|path| path.is_absolute());
        match (named, user) {
            (Some(root), [.., last]) => Ok(root.join(last)),
            _ => Ok(below(self.home.clone().ok_or(SetupError::NoHome)?, user)),
        }
    }
}

/// The entry of the adapter in the configuration of a host that speaks MCP.
pub(super) fn server(host: HostName, places: &Places, server: &Server) -> Result<Wish, SetupError> {
    let in_json =
        |file| Wish { file, want: Want::Json { at: way(&["mcpServers", SERVER]), value: server.json(host) } };
    Ok(match host {
        HostName::Codex => {
            let file =
                places.of(Some("CODEX_HOME"), &[".codex", "config.toml"], &[".codex", "config.toml"])?;
            let table = ["mcp_servers", SERVER].map(str::to_owned);
            Wish { file, want: Want::Toml { table, block: server.toml(), head: String::new() } }
        }
        HostName::Cursor => in_json(places.of(None, &[".cursor", "mcp.json"], &[".cursor", "mcp.json"])?),
        _ => in_json(places.of(Some("CLAUDE_CONFIG_DIR"), &[".claude.json"], &[".mcp.json"])?),
    })
}

/// The skill for Pi, which has a shell and is told its role there.
pub(super) fn skill(places: &Places, skill: &str, role: &str) -> Result<Wish, SetupError> {
    let user = [".pi", "agent", "skills", "ravi-broker", "SKILL.md"];
    let file = places.of(None, &user, &[".pi", "skills", "ravi-broker", "SKILL.md"])?;
    let text = format!(
        "{skill}\n## Your role\n\nYour role is `{role}`: add `--role {role}` to each command that takes one.\n"
    );
    Ok(Wish { file, want: Want::Whole { text, program: false } })
}

/// The way to a member, by names alone.
pub(super) fn way(names: &[&str]) -> Vec<Step> {
    names.iter().map(|name| Step::Key((*name).to_owned())).collect()
}

impl Server {
    /// The adapter of this path under this role.
    pub(super) fn new(program: &Path, role: Option<&str>, socket: Option<&Path>) -> Result<Self, SetupError> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(SetupError::NotText);
        let mut args: Vec<String> =
            role.into_iter().flat_map(|role| ["--role".to_owned(), role.to_owned()]).collect();
        if let Some(socket) = socket {
            args.extend(["--socket".to_owned(), text(socket)?]);
        }
        Ok(Self { command: text(program)?, args, wrapped: role.is_none() })
    }

    /// As an item of `mcpServers`.
    pub(super) fn json(&self, host: HostName) -> Value {
        let mut value = json!({"command": self.command, "args": self.args});
        if matches!(host, HostName::ClaudeCode | HostName::Assistant) {
            value["type"] = "stdio".into();
        }
        value
    }

    fn toml(&self) -> String {
        let args = list(self.args.iter().map(String::as_str));
        let variables =
            if self.wrapped { format!("env_vars = {}\n", list(SESSION_VARIABLES)) } else { String::new() };
        format!("[mcp_servers.{SERVER}]\ncommand = {}\nargs = {args}\n{variables}", quoted(&self.command))
    }
}
