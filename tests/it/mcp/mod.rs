//! The shipped MCP adapter as a host sees it: a child process on pipes.

mod code;
mod down;
mod framing;
mod inspector;
mod lease;
mod messages;
mod rights;
mod schema;
mod session;
mod start;
mod streams;
mod tools;
mod trace;

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{NOTES, Setup, Stack};

/// Values that the sandbox holds for the role `notes`.
const SECRET: &str = "canary-of-the-secret";
const PASSWORD: &str = "canary-of-the-password";

const ADAPTER: &str = env!("CARGO_BIN_EXE_ravi-broker-mcp");
/// For what takes milliseconds; only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every tool, in the order that hosts show them.
const TOOLS: [&str; 16] = [
    "broker_whoami",
    "ravi_identity_get",
    "ravi_identity_create",
    "passwords_list",
    "passwords_get",
    "passwords_create",
    "secrets_list",
    "secrets_get",
    "secrets_set",
    "ravi_wait_for_code",
    "ravi_read_email",
    "ravi_read_sms",
    "ravi_send_email",
    "ravi_reply_email",
    "ravi_send_sms",
    "ravi_sso_token",
];

/// Who may do everything.
const EVERYTHING: &str = r#"
[role.everything]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read", "secret:list", "secret:write", "password:read", "password:list", "password:create", "email:read", "email:await", "email:send", "sms:read", "sms:await", "sms:send", "identity:read", "identity:create", "sso:mint"]
rate = { read = "60000/min", send = "60000/min" }
"#;

/// An adapter that was started with nothing in its environment.
struct Adapter {
    child: Child,
    /// Taken away to end the adapter.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

impl Adapter {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(ADAPTER);
        command.args(arguments).env_clear().envs(environment.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the adapter starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = child.stderr.take().unwrap();
        Self { child, input, output, errors }
    }

    async fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let line = timeout(PATIENCE, self.output.next_line()).await.expect("an answer").unwrap();
        serde_json::from_str(&line.expect("the adapter has not ended")).expect("JSON on standard output")
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }).to_string())
            .await;
        let answer = self.receive().await;
        assert_eq!(answer["id"], method);
        answer
    }

    async fn open(&mut self) -> Value {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let opened = self.request("initialize", params).await;
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        opened
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await["result"].take()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the adapter runs").cast_signed();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// How it ended, and what it wrote besides answers: rest of the output, and errors.
    async fn ended(mut self) -> (ExitStatus, String, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the adapter ends").unwrap();
        let (mut rest, mut errors) = (String::new(), String::new());
        self.output.into_inner().read_to_string(&mut rest).await.unwrap();
        self.errors.read_to_string(&mut errors).await.unwrap();
        (status, rest, errors)
    }

    async fn ended_quietly(self) {
        let (status, rest, errors) = self.ended().await;
        assert!(status.success(), "{status}");
        assert_eq!((rest.as_str(), errors.as_str()), ("", ""));
    }
}

/// A daemon whose values are known.
async fn daemon(change: impl FnOnce(&mut Setup)) -> Stack {
    let stack = Stack::with(change).await;
    let control = stack.control();
    control.set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(SECRET)).unwrap();
    control.set_password(NOTES, "github.com", "notes-agent", Secret::copy_of(PASSWORD)).unwrap();
    stack
}

/// An adapter for this daemon and role that says all it can on standard error, past the opening.
async fn adapter(stack: &Stack, role: &str) -> Adapter {
    let mut adapter = unopened(stack, &["--role", role]);
    adapter.open().await;
    adapter
}

fn unopened(stack: &Stack, arguments: &[&str]) -> Adapter {
    let socket = stack.setup.agent_socket.to_str().unwrap();
    let arguments = [arguments, &["--socket", socket]].concat();
    Adapter::start_with(&arguments, &[("RAVI_BROKER_LOG", Path::new("trace"))])
}

impl Adapter {
    /// Names of the tools that are listed.
    async fn tools(&mut self) -> Vec<String> {
        let listed = self.request("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The structured content of a call that succeeds.
    async fn succeeding(&mut self, tool: &str, arguments: Value) -> Value {
        let mut result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], false, "{}", result["content"][0]["text"]);
        result["structuredContent"].take()
    }

    /// The text of a call that fails.
    async fn failing(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], true, "it did not fail");
        assert!(result.get("structuredContent").is_none(), "it would not fit the output schema");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Ends the input. Nothing but protocol was written, and no value on standard error.
    async fn ended_silently(mut self) {
        self.input = None;
        let (status, rest, errors) = self.ended().await;
        assert!(status.success(), "{status}");
        assert_eq!(rest, "");
        for secret in [SECRET, PASSWORD, "rbt_", "Bearer"] {
            assert!(!errors.contains(secret), "{secret} is on standard error");
        }
    }
}
