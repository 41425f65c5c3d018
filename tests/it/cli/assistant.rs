//! kcosr/assistant: its configuration, the wrapper around an agent, and the plugin, loaded by Node as that host does.

use std::fs;
use std::process::{Command, Stdio};

use ravi_broker::sandbox::NewSms;
use ravi_broker::secret::Secret;
use serde_json::{Value, json};

use super::Run;
use crate::support::{DEPLOY, NOTES, Stack};

const CONFIG: &str = r#"{
  "agents": [
    {
      "agentId": "claude",
      "displayName": "Claude",
      "chat": { "provider": "claude-cli", "config": { "workdir": "/tmp" } }
    },
    { "agentId": "codex", "chat": { "provider": "codex-cli" } },
    { "agentId": "native", "chat": { "provider": "pi", "config": { "apiKey": "canary-of-another" } } }
  ],
  "plugins": {
    "notes": { "enabled": true }
  }
}
"#;

/// What the plugin is asked by the test: lines of an operation and its arguments; it answers each with a line.
const HOST: &str = r#"
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const config = JSON.parse(readFileSync(process.argv[1], "utf8")).plugins.ravi;
const manifest = JSON.parse(readFileSync(`${config.source.path}/manifest.json`, "utf8"));
const imported = await import(pathToFileURL(`${config.source.path}/server.js`).href);
const plugin = await imported.createPlugin({ manifest });
await plugin.initialize("/nowhere", config);
const declared = manifest.operations.map((operation) => operation.id).sort();
console.log(JSON.stringify({ declared, handled: Object.keys(plugin.operations).sort(), id: manifest.id }));
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, args] = JSON.parse(line);
  const signal = new AbortController().signal;
  const answer = await plugin.operations[operation](args, { signal, sessionId: "s" }).then(
    (result) => ({ result }),
    (error) => ({ code: error.code, message: error.message }),
  );
  console.log(JSON.stringify(answer));
}
await plugin.shutdown();
"#;

/// A stack whose configuration has the roles that setup added for the assistant.
async fn set_up(agent: &str) -> Stack {
    let stack = Stack::start().await;
    let directory = stack.setup.directory();
    fs::write(directory.join("assistant.json"), CONFIG).unwrap();
    let line = format!("setup assistant --file assistant.json --role helper --identity {agent} --yes");
    let told = stack.run(&line).good();
    assert!(!told.contains("canary-of-another"), "{told}");
    stack.run("reload").good();
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_a_wrapper_with_its_role_and_all_of_it_comes_out_again() {
    let stack = set_up(NOTES).await;
    let directory = stack.setup.directory();
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let config: Value = serde_json::from_str(&read("assistant.json")).unwrap();
    let wrapper =
        |agent: usize| config["agents"][agent]["chat"]["config"]["wrapper"]["path"].as_str().unwrap();
    assert_eq!(config["agents"][0]["chat"]["config"]["workdir"], "/tmp");
    // As the host starts it: the wrapper, the name of the program, its arguments.
    let mut command = stack.surrounded(wrapper(0));
    let output = command.args(["sh", "-c", "ravi-broker whoami --format json"]).output().unwrap();
    assert_eq!(Run::of(&output).json()["session"]["role"], "helper");
    assert!(
        wrapper(1).ends_with("/codex")
            && config["agents"][2] == serde_json::from_str::<Value>(CONFIG).unwrap()["agents"][2]
    );
    // The adapter has no role of its own there: the session around it is the agent's.
    let server = serde_json::from_str::<Value>(&read(".claude.json")).unwrap()["mcpServers"]["ravi"].clone();
    let socket = stack.setup.agent_socket.to_str().unwrap();
    assert_eq!(server["args"], json!(["--socket", socket]));
    assert!(
        read(".codex/config.toml")
            .contains("env_vars = [\"RAVI_BROKER_SESSION_FILE\", \"RAVI_BROKER_LINK_FD\"]")
    );
    assert!(
        stack.run("setup assistant --file assistant.json --role helper").good().contains("nothing to change")
    );
    // The server of Claude Code has another role, and the wrapper's would not count.
    stack.run("setup claude-code --role notes --yes").failed(1);
    stack.run("setup assistant --undo --yes").good();
    assert_eq!(read("assistant.json"), CONFIG);
    let state = directory.join(".local/state/ravi-broker/assistant");
    for gone in [".claude.json", ".codex/config.toml"] {
        assert!(!directory.join(gone).exists(), "{gone}");
    }
    for folder in ["wrappers", "ravi"] {
        assert!(!state.join(folder).exists(), "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_servers_of_mcp_there_is_warned() {
    let stack = Stack::start().await;
    let path = stack.setup.directory().join("assistant.json");
    fs::write(path, "{\"mcpServers\": [{\"command\": \"x\"}]}").unwrap();
    let told = stack.run("setup assistant --file assistant.json --yes").good();
    assert!(told.contains("hangs every message"), "{told}");
    stack.run("setup assistant --file absent.json --yes").failed(1);
    stack.run("setup assistant --file assistant.json --agent nobody --yes").failed(1);
    stack.run("setup assistant --yes").failed(2);
}

/// Node with the plugin, which answers line by line.
struct Plugin {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Plugin {
    fn start(stack: &Stack) -> Self {
        use std::io::BufRead;
        let mut command: Command = stack.surrounded("node");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--input-type=module", "-e", HOST]).arg(stack.setup.directory().join("assistant.json"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.output.next().expect("it answers").unwrap()).unwrap()
    }

    fn begin(&mut self, operation: &str, args: Value) {
        use std::io::Write;
        writeln!(self.input, "{}", json!([operation, args])).unwrap();
    }

    fn call(&mut self, operation: &str, args: Value) -> Value {
        self.begin(operation, args);
        self.line()
    }

    #[track_caller]
    fn good(&mut self, operation: &str, args: Value) -> Value {
        let answer = self.call(operation, args);
        assert!(answer.get("result").is_some(), "{operation}: {answer}");
        answer["result"].clone()
    }
}

fn has_node() -> bool {
    let found = Command::new("node")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        skipped("node is not installed: the plugin of kcosr/assistant was not run");
    }
    found
}

/// Past the harness, which keeps the output of tests that pass.
fn skipped(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_serves_its_host_by_reference() {
    if !has_node() {
        return;
    }
    let stack = set_up(DEPLOY).await;
    let config = fs::read_to_string(&stack.setup.config_file).unwrap();
    let more = "scopes = [\"secret:write:CI_*\", \"sms:read\", \"email:send:*@example.com\", ";
    let (head, tail) = config.split_at(config.find("[role.helper]").unwrap());
    fs::write(&stack.setup.config_file, format!("{head}{}", tail.replacen("scopes = [", more, 1))).unwrap();
    stack.run("reload").good();
    let canary = "canary-value-of-the-plugin";
    stack.control().set_secret(DEPLOY, "CI_TOKEN", Secret::copy_of(canary)).unwrap();
    let mut plugin = Plugin::start(&stack);
    let loaded = plugin.line();
    assert_eq!((&loaded["declared"], &loaded["id"]), (&loaded["handled"], &json!("ravi")));

    assert_eq!(plugin.good("whoami", json!({}))["session"]["role"], "helper");
    let secrets = plugin.good("secrets-list", json!({}));
    assert!(secrets.to_string().contains("secret/CI_TOKEN") && !secrets.to_string().contains(canary));
    plugin.good("passwords-list", json!({}));
    let named = plugin.good("reference", json!({"resource": "secret/CI_TOKEN"}));
    assert_eq!(named["reference"], "ravi://secret/CI_TOKEN");
    // The command line that it names works in the shell of an agent.
    let mut words: Vec<&str> =
        named["run"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words.pop(), Some("PROGRAM"));
    let mut command = stack.surrounded(words[0]);
    let output = command.args(&words[1..]).args(["sh", "-c", "wc -c < \"$VALUE_FILE\""]).output().unwrap();
    assert_eq!(Run::of(&output).good().trim(), canary.len().to_string());

    plugin.good("secrets-set", json!({"key": "CI_OTHER", "value": "canary-that-is-stored\n"}));
    let made = plugin.good("passwords-create", json!({"domain": "example.com", "username": "ci"}));
    assert_eq!(made["did"], "created");
    let watch = plugin.good("wait-for-code", json!({"channel": "sms"}))["watch"].clone();
    plugin.begin("wait-for-code", json!({"watch": watch, "seconds": 30}));
    deliver(&stack);
    assert_eq!(plugin.line()["result"]["value"], "482913");
    let listed = plugin.good("inbox-list", json!({"channel": "sms"}));
    let message = listed[0]["message"].clone();
    assert!(
        plugin.good("inbox-read", json!({"message": message}))["text"].as_str().unwrap().contains("482913")
    );
    plugin.good("send-email", json!({"to": "a@example.com", "subject": "Hi", "text": "There."}));
    let refused = plugin.call("send-sms", json!({"to": "+15550100001", "text": "no"}));
    assert!(refused["code"].is_string() && refused.get("result").is_none(), "{refused}");
    for (operation, args) in [
        ("reference", json!({"resource": "secret/../x"})),
        ("inbox-read", json!({"message": "--help"})),
        ("secrets-set", json!({"key": "--help", "value": ""})),
    ] {
        assert!(plugin.call(operation, args)["code"].is_string(), "{operation}");
    }
    // A session that is over is followed by another.
    stack.run("revoke --role helper").good();
    assert_eq!(plugin.good("whoami", json!({}))["session"]["role"], "helper");
    let Plugin { mut child, input, output } = plugin;
    drop(input);
    assert_eq!(output.count(), 0);
    assert!(child.wait().unwrap().success());
    assert!(stack.admin().await.sessions().await.unwrap().is_empty(), "its session is closed");
    let trail = fs::read_to_string(&stack.setup.audit_file).unwrap();
    assert!(!trail.contains("canary-"), "no value is on record");
}

/// A text message with a code, to the number of the identity.
fn deliver(stack: &Stack) {
    let body = "Your verification code is 482913".into();
    let message = NewSms { identity: DEPLOY.into(), from: "+15559876543".into(), body, ..NewSms::default() };
    stack.control().deliver_sms(message).unwrap();
}
