//! The walk at the beginning of README: its five commands, run as they stand there.
//!
//! Two programs are stand-ins: `cargo` puts the programs that are tested where the real one would, and `claude` starts the
//! server of its configuration as it is written there and calls one tool. Ravi is the sandbox; where it is, and its
//! certificates, are written into the configuration between two commands.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ravi_broker::client::AgentClient;
use ravi_broker::sandbox::{Behaviour, Sandbox, SandboxConfig};
use serde_json::Value;
use tempfile::TempDir;

use super::{PROGRAM, Run, on_terminal};
use crate::support::until;

const README: &str = include_str!("../../../README.md");
const HEADING: &str = "## An identity for Claude Code, in five commands";

const CARGO: &str = r#"#!/bin/sh
[ "$*" = "install --path ." ] || { echo "cargo: $*" >&2; exit 1; }
mkdir -p "$HOME/.cargo/bin"
for name in $(sed -n 's/^name = "\(ravi-[a-z-]*\)"$/\1/p' Cargo.toml | sort -u); do
    ln -sf "$BUILT/$name" "$HOME/.cargo/bin/$name"
done
"#;

const CLAUDE: &str = r#"#!/usr/bin/env python3
import json, os, subprocess, sys

assert sys.argv[1] == "-p" and len(sys.argv) == 3, sys.argv
with open(os.path.expanduser("~/.claude.json")) as file:
    server = json.load(file)["mcpServers"]["ravi"]
assert server["type"] == "stdio" and os.path.isabs(server["command"]), server
environment = {**os.environ, **server.get("env", {})}
adapter = subprocess.Popen([server["command"], *server["args"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)

def ask(number, method, params):
    adapter.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
    adapter.stdin.flush()
    while True:
        answer = json.loads(adapter.stdout.readline())
        if answer.get("id") == number:
            return answer["result"]

client = {"name": "claude-code", "version": "0"}
ask(1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
adapter.stdin.write(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}) + "\n")
tools = [tool["name"] for tool in ask(2, "tools/list", {})["tools"]]
result = ask(3, "tools/call", {"name": "ravi_identity_get", "arguments": {}})
print(json.dumps({"tools": tools, "result": result}))
adapter.stdin.close()
sys.exit(adapter.wait())
"#;

/// The lines of the first block under a heading, without their comments.
fn commands() -> Vec<String> {
    let (_, section) = README.split_once(HEADING).expect("README has the section");
    let (_, block) = section.split_once("```sh\n").expect("with a block");
    let (block, _) = block.split_once("```").expect("that ends");
    let bare = |line: &str| line.split_once(" #").map_or(line, |(command, _)| command).trim().to_owned();
    block.lines().map(bare).collect()
}

/// A user who has nothing yet.
struct Newcomer {
    home: TempDir,
}

impl Newcomer {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let newcomer = Self { home };
        fs::create_dir_all(newcomer.path("bin")).unwrap();
        fs::create_dir_all(newcomer.path("run")).unwrap();
        fs::set_permissions(newcomer.home.path(), Permissions::from_mode(0o700)).unwrap();
        for (name, text) in [("cargo", CARGO), ("claude", CLAUDE)] {
            fs::write(newcomer.path("bin").join(name), text).unwrap();
            fs::set_permissions(newcomer.path("bin").join(name), Permissions::from_mode(0o755)).unwrap();
        }
        newcomer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("config/ravi-broker/config.toml")
    }

    fn socket(&self) -> PathBuf {
        self.path("run/ravi-broker/broker.sock")
    }

    /// A line in the user's shell. The directories are named, since those of root would be the system's.
    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        let path =
            format!("{}:{}:/usr/bin:/bin", self.path(".cargo/bin").display(), self.path("bin").display());
        shell.env_clear().env("HOME", self.home.path()).env("PATH", path).args(["-euc", line]);
        shell.env("BUILT", Path::new(PROGRAM).parent().unwrap()).stdin(Stdio::null());
        shell.env("XDG_RUNTIME_DIR", self.path("run")).env("RUNTIME_DIRECTORY", self.path("run/ravi-broker"));
        shell.env("STATE_DIRECTORY", self.path(".local/state/ravi-broker"));
        shell.env("RAVI_BROKER_CONFIG", self.config()).current_dir(env!("CARGO_MANIFEST_DIR"));
        shell
    }

    fn run(&self, line: &str) -> Run {
        Run::of(&self.shell(line).output().unwrap())
    }
}

/// A process of the walk that goes on; it is ended with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Follows `ravi-broker login` to its end, and approves it as a person would on the page.
fn log_in(newcomer: &Newcomer, line: &str, sandbox: &Sandbox) {
    let mut login = newcomer.shell(line).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(login.stdout.take().unwrap()).lines();
    let mut told = String::new();
    for line in lines {
        let line = line.unwrap();
        if let Some((_, code)) = line.split_once("Code   ") {
            assert_eq!(sandbox.control().approve_login(Some(code.trim())), 1);
        }
        told.push_str(&line);
        told.push('\n');
    }
    assert!(login.wait().unwrap().success() && told.contains("The broker holds the key."), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_commands_lead_from_nothing_to_an_identity_of_its_own() {
    if !Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        use std::io::Write;
        let _ =
            writeln!(std::io::stderr(), "skipped: python3, which plays Claude Code in the walk of README");
        return;
    }
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let behaviour = Behaviour { device_interval: 1, ..sandbox.control().behaviour() };
    sandbox.control().set_behaviour(behaviour);
    let newcomer = Newcomer::new();
    let commands = commands();
    let [install, setup, daemon, login, claude] = &commands[..] else { panic!("not five: {commands:?}") };

    newcomer.run(install).good();
    let (shown, code) = on_terminal(newcomer.shell(setup), "[y/N] ", "y\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("[role.claude-code]") && shown.contains("mcpServers"), "{shown}");
    let ca = newcomer.path("ca.pem");
    fs::write(&ca, sandbox.ca_pem().unwrap()).unwrap();
    let upstream = format!("[upstream]\nbase_url = {:?}\nca_file = {ca:?}", sandbox.base_url());
    let config = fs::read_to_string(newcomer.config()).unwrap();
    fs::write(newcomer.config(), config.replacen("[upstream]", &upstream, 1)).unwrap();

    let daemon = daemon.strip_suffix('&').expect("it stays in the background").trim();
    let log = fs::File::create(newcomer.path("log")).unwrap();
    let mut started = newcomer.shell(&format!("exec {daemon}"));
    let _daemon = Background(started.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let socket = [newcomer.socket()];
    until(async || AgentClient::connect(&socket).await.is_ok()).await;
    log_in(&newcomer, login, &sandbox);

    let told: Value = newcomer.run(claude).json();
    assert!(told["tools"].as_array().unwrap().contains(&"secrets_list".into()), "{told}");
    let identity = &told["result"]["structuredContent"];
    assert_ne!(told["result"]["isError"], true, "{told}");
    assert_eq!(identity["name"], "claude-laptop", "{told}");
    assert!(identity["email"].as_str().unwrap().contains('@'));
    // It is one of the account now, made for this role, with the key in a file of the user alone.
    let listed = newcomer.run("ravi-broker identity list --format json").json();
    let ours = listed.as_array().unwrap().iter().find(|listed| listed["name"] == "claude-laptop").unwrap();
    assert_eq!(ours["roles"], serde_json::json!(["claude-code"]));
    let key = newcomer.path(".local/state/ravi-broker/management-key");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    // What was set up can be taken out again.
    newcomer.run("ravi-broker setup claude-code --undo --yes").good();
    assert!(!newcomer.path(".claude.json").exists());
}
