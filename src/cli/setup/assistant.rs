//! kcosr/assistant: a wrapper for each of its agents that is a command line, and a plugin for the others.
//!
//! By its source in 2026 (`packages/agent-server/src`: `config.ts`, `plugins/registry.ts`, `ws/claudeCliChat.ts`): an agent of
//! `claude-cli`, `codex-cli` or `pi-cli` with `chat.config.wrapper.path` is started as `WRAPPER claude ARGUMENTS…`; a plugin is
//! the directory of `plugins.ID.source.path`, with `manifest.json` and `server.js`. Its own `mcpServers` must stay without us:
//! `tools/mcpToolHost.ts` looks for the length of an answer by a pattern that no answer fits. Imports its siblings.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::SetupError;
use super::host::{self, Places, Server, way};
use super::piece::{Step, Want, Wish};
use super::{record, toml};
use crate::cli::args::HostName;

const MANIFEST: &str = include_str!("../../../integrations/assistant/manifest.json");
const PLUGIN: &str = include_str!("../../../integrations/assistant/server.js");
/// Providers of agents that are command lines.
const CLI_PROVIDERS: [&str; 3] = ["claude-cli", "codex-cli", "pi-cli"];

/// What is known of the host.
pub(super) struct Assistant {
    file: PathBuf,
    agents: Vec<Agent>,
    /// Whether it has the plugin.
    has_plugin: bool,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

struct Agent {
    id: String,
    provider: String,
}

/// What its agents start, and as whom.
pub(super) struct Part<'a> {
    pub(super) program: &'a Path,
    pub(super) adapter: &'a Path,
    pub(super) role: &'a str,
    pub(super) socket: Option<&'a Path>,
    pub(super) home: Option<&'a Path>,
}

/// Where its configuration is.
pub(super) fn file(named: Option<&Path>) -> Result<PathBuf, SetupError> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let named = match named {
        Some(named) => {
            Some(std::path::absolute(named).map_err(|error| SetupError::Io(named.to_owned(), error))?)
        }
        None => variable("APP_CONFIG_PATH").or_else(|| Some(variable("DATA_DIR")?.join("config.json"))),
    };
    named.ok_or(SetupError::NoAssistant)
}

impl Assistant {
    /// Reads what it has: `text` is its configuration, `names` the agents that are meant, all if none.
    pub(super) fn read(file: PathBuf, text: Option<&str>, names: &[String]) -> Result<Self, SetupError> {
        let text = text.ok_or_else(|| SetupError::Absent(file.clone()))?;
        let config: Value = serde_json::from_str(text).map_err(|_| SetupError::Syntax(file.clone()))?;
        let mut notes = Vec::new();
        if config["mcpServers"].as_array().is_some_and(|servers| !servers.is_empty()) {
            notes.push(
                "Its `mcpServers` is in use. This host reads no server's answer there and then hangs every message: \
                 leave the list empty, and above all put ravi-broker-mcp nowhere into it."
                    .to_owned(),
            );
        }
        let all = config["agents"].as_array().map(Vec::as_slice).unwrap_or_default();
        let agents: Vec<Agent> = all.iter().filter_map(|agent| chosen(agent, names, &mut notes)).collect();
        if agents.is_empty() && !names.is_empty() {
            return Err(SetupError::NoAgent(file));
        }
        let has_plugin = config["plugins"][host::SERVER].is_object();
        Ok(Self { file, agents, has_plugin, notes })
    }

    /// All that is to be written. The plugin acts as the role it was given first, whatever single agents are.
    pub(super) fn wishes(&self, part: &Part, names: &[String]) -> Result<Vec<Wish>, SetupError> {
        let directory = record::directory()?.join("assistant");
        let mut wishes = Vec::new();
        for agent in &self.agents {
            let wrapper = directory.join("wrappers").join(&agent.id);
            let item = Step::Item { key: "agentId".to_owned(), is: agent.id.clone() };
            let at = [way(&["agents"]), vec![item], way(&["chat", "config", "wrapper", "path"])].concat();
            let value = Value::from(wrapper.to_str().ok_or(SetupError::NotText)?);
            wishes.push(Wish {
                file: wrapper.clone(),
                want: Want::Whole { text: part.wrapper()?, program: true },
            });
            wishes.push(Wish { file: self.file.clone(), want: Want::Json { at, value } });
        }
        wishes.extend(self.servers(part)?);
        if names.is_empty() || !self.has_plugin {
            wishes.extend(self.plugin(part, &directory.join(host::SERVER))?);
        }
        Ok(wishes)
    }

    /// The adapter, in the hosts' own configuration: without a role, since the wrapper has one.
    fn servers(&self, part: &Part) -> Result<Vec<Wish>, SetupError> {
        let places = Places { home: part.home.map(Path::to_owned), project: None, file: None };
        let server = Server::new(part.adapter, None, part.socket)?;
        let hosts = [("claude-cli", HostName::ClaudeCode), ("codex-cli", HostName::Codex)];
        let used =
            hosts.into_iter().filter(|(name, _)| self.agents.iter().any(|agent| agent.provider == *name));
        used.map(|(_, host)| host::server(host, &places, &server)).collect()
    }

    fn plugin(&self, part: &Part, directory: &Path) -> Result<Vec<Wish>, SetupError> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(SetupError::NotText);
        let file = |name: &str, text: &str| Wish {
            file: directory.join(name),
            want: Want::Whole { text: text.to_owned(), program: false },
        };
        let mut value = json!({
            "enabled": true,
            "source": {"path": text(directory)?},
            "role": part.role,
            "program": text(part.program)?,
        });
        if let Some(socket) = part.socket {
            value["socket"] = text(socket)?.into();
        }
        let entry = Want::Json { at: way(&["plugins", host::SERVER]), value };
        Ok(vec![
            file("manifest.json", MANIFEST),
            file("server.js", PLUGIN),
            Wish { file: self.file.clone(), want: entry },
        ])
    }
}

/// An agent that is a command line, is meant, and has no wrapper of somebody else.
fn chosen(agent: &Value, names: &[String], notes: &mut Vec<String>) -> Option<Agent> {
    let id = agent["agentId"].as_str()?;
    let provider = agent["chat"]["provider"].as_str()?;
    let meant = names.is_empty() || names.iter().any(|name| name == id);
    if !meant || !CLI_PROVIDERS.contains(&provider) {
        return None;
    }
    // It becomes the name of a file.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.starts_with('.') || id.len() > 64 || !id.chars().all(plain) {
        notes.push("An agent whose id is no plain name was left out.".to_owned());
        return None;
    }
    let wrapper = agent["chat"]["config"]["wrapper"]["path"].as_str();
    if wrapper.is_some_and(|path| !path.ends_with(&format!("/ravi-broker/assistant/wrappers/{id}"))) {
        notes.push(format!(
            "The agent {id} has a wrapper already: let that start it with `ravi-broker run --role ROLE -- \"$@\"`."
        ));
        return None;
    }
    Some(Agent { id: id.to_owned(), provider: provider.to_owned() })
}

impl Part<'_> {
    /// A script that starts what it is given under a session of the role.
    fn wrapper(&self) -> Result<String, SetupError> {
        let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let path = |path: &Path| path.to_str().map(word).ok_or(SetupError::NotText);
        let socket = match self.socket {
            Some(socket) => format!(" --socket {}", path(socket)?),
            None => String::new(),
        };
        let role = toml::quoted(self.role);
        Ok(format!(
            "#!/bin/sh\n# Written by `ravi-broker setup assistant`: what is started through it acts as the role {role}.\n\
             exec {} run --role {}{socket} -- \"$@\"\n",
            path(self.program)?,
            self.role,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"agents": [
        {"agentId": "claude", "chat": {"provider": "claude-cli", "config": {"workdir": "/w"}}},
        {"agentId": "codex", "chat": {"provider": "codex-cli"}},
        {"agentId": "boxed", "chat": {"provider": "claude-cli", "config": {"wrapper": {"path": "/x/box"}}}},
        {"agentId": "../up", "chat": {"provider": "pi-cli"}},
        {"agentId": "native", "chat": {"provider": "pi"}}
    ], "mcpServers": [{"command": "x"}]}"#;

    fn read(names: &[&str]) -> Result<Assistant, SetupError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Assistant::read("/c.json".into(), Some(CONFIG), &names)
    }

    #[test]
    fn agents_that_are_command_lines_are_set_up_and_wrappers_of_others_stay() {
        let assistant = read(&[]).unwrap();
        let ids: Vec<&str> = assistant.agents.iter().map(|agent| agent.id.as_str()).collect();
        assert_eq!(ids, ["claude", "codex"]);
        let notes = assistant.notes.join("\n");
        assert!(notes.contains("`mcpServers`") && notes.contains("agent boxed"), "{notes}");
        assert_eq!(read(&["codex"]).unwrap().agents.len(), 1);
        assert!(matches!(read(&["native"]), Err(SetupError::NoAgent(_))));
        let broken = Assistant::read("/c.json".into(), Some("{"), &[]);
        assert!(matches!(broken, Err(SetupError::Syntax(_))));
    }

    #[test]
    fn the_wrapper_quotes_what_it_names() {
        let program = Path::new("/opt/it's here/ravi-broker");
        let part = Part { program, adapter: program, role: "a", socket: Some(program), home: None };
        let wrapper = part.wrapper().unwrap();
        let quoted = r"'/opt/it'\''s here/ravi-broker'";
        assert!(
            wrapper.ends_with(&format!("exec {quoted} run --role a --socket {quoted} -- \"$@\"\n")),
            "{wrapper}"
        );
    }
}
