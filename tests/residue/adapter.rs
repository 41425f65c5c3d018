//! The MCP adapter, which stays for as long as its host does.

use std::path::Path;
use std::process::Stdio;

use ravi_broker::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::canary::Kind;
use crate::frozen::Frozen;
use crate::memory::{may_look, read_all};
use crate::scan::strays;
use crate::stage::{Stage, settled};
use crate::support::{NOTES, bounded};

/// A running adapter. Dropping it kills the process.
pub(crate) struct Adapter {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Adapter {
    /// Past the opening.
    pub(crate) async fn start(socket: &Path, role: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ravi-broker-mcp"));
        command.args(["--role", role, "--socket"]).arg(socket).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the adapter starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut adapter = Self { child, input, output };
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        adapter.request("initialize", params).await;
        adapter.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        adapter
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("it runs").cast_signed()
    }

    async fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string())
            .await;
        let line = bounded(self.output.next_line()).await.unwrap().expect("the adapter has not ended");
        serde_json::from_str(&line).expect("JSON on standard output")
    }

    /// The tools that carry values in either direction and those that show names, and what they refuse.
    pub(crate) async fn drive(&mut self, written: &Secret) {
        let password = json!({ "domain": "github.com", "username": "notes-agent" });
        for (tool, arguments, fails) in [
            ("broker_whoami", json!({}), false),
            ("ravi_identity_get", json!({}), false),
            ("passwords_list", json!({}), false),
            ("passwords_get", password, false),
            ("secrets_list", json!({}), false),
            ("secrets_get", json!({ "key": "CANARY" }), false),
            ("secrets_get", json!({ "key": "ABSENT" }), true),
            ("secrets_get", json!({ "key": 7 }), true),
            ("secrets_set", json!({ "key": "WRITTEN", "value": written.expose() }), false),
            ("secrets_set", json!({ "key": 7, "value": written.expose() }), true),
            ("secrets_get", json!({ "key": "WRITTEN" }), false),
        ] {
            let answer = self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await;
            assert_eq!(answer["result"]["isError"], fails, "{tool}");
        }
    }
}

/// Copies of its session's token that a waiting adapter needs: the one it sends.
const TOKENS: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_keeps_no_copy_of_what_it_has_answered() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    stage.plant_password(NOTES, "github.com", "notes-agent");
    let mut adapter = Adapter::start(&stage.stack.setup.agent_socket, "notes").await;
    let written = stage.fresh(Kind::Written);
    adapter.drive(&written).await;
    // Its session is its own; the token is learnt from its memory.
    let mut tokens = Vec::new();
    let frozen = Frozen::new(adapter.pid());
    read_all(adapter.pid(), |_, content| tokens.extend(strays(content)));
    drop(frozen);
    assert!(!tokens.is_empty(), "an open session has a token");
    tokens.iter().for_each(|(kind, token)| stage.saw(*kind, token));
    let waiting = |kind| if kind == Kind::SessionToken { TOKENS } else { 0 };
    let census = settled(adapter.pid(), &stage.canaries, &waiting);
    stage.table.add("adapter", census);
    stage.show();
    let failures = stage.beyond("adapter", &waiting);
    assert!(failures.is_empty(), "copies were left:\n{failures}");
}
