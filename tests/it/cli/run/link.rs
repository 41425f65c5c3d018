//! Programs that `run` starts and a sandbox keeps from sockets: they have the link, and nothing else.

use std::io::Write;

use serde_json::{Value, json};

use super::{CANARY, Launched, Signal, Stdio, fs, stack};
use crate::support::{Confinement, Stack, no_python, until};

/// What sandboxes of agents refuse.
const SOCKETS: Confinement = Confinement {
    memlock: None,
    refused: (
        &[
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
        ],
        libc::EPERM,
    ),
};

/// What the model is told, and a person at a shell.
const AGAIN: &str = "start the program again with `ravi-broker run`";

impl Stack {
    /// Starts a program under the launcher, in which sockets are forbidden.
    fn confined(&self, program: &[&str]) -> Launched {
        let script = SOCKETS.script();
        let mut command = self.launcher(&[], &[&["python3", "-c", &script], program].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Launched { child, output }
    }
}

impl Launched {
    fn tell(&mut self, line: &Value) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.tell(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }));
        serde_json::from_str(&self.hear()).unwrap()
    }

    /// Past the opening of the adapter.
    fn opened(mut self) -> Self {
        let client = json!({ "name": "test", "version": "1" });
        let opening = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        self.ask("initialize", &opening);
        self.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        self
    }

    /// Whether the tool failed, and what it said.
    fn value(&mut self) -> (bool, String) {
        let asked = json!({ "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" } });
        let result = self.ask("tools/call", &asked)["result"].take();
        (result["isError"] == true, result["content"][0]["text"].as_str().unwrap().to_owned())
    }
}

async fn restarted(stack: &mut Stack) {
    stack.restart().await;
    // The launcher comes back with a session of its own, which no link leads to.
    until(async || stack.audited("session.opened").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_serves_a_program_that_may_use_no_sockets() {
    if no_python() {
        return;
    }
    let mut stack = stack().await;
    let mut adapter = stack.confined(&["ravi-broker-mcp"]).opened();
    for _ in 0..3 {
        let (failed, text) = adapter.value();
        assert!(!failed && text.contains(CANARY), "{text}");
    }
    // Without the link the same adapter gets nowhere.
    let mut other = stack.confined(&["env", "-u", "RAVI_BROKER_LINK_FD", "ravi-broker-mcp"]).opened();
    let (failed, text) = other.value();
    assert!(failed && text.starts_with("BROKER_UNREACHABLE") && !text.contains(AGAIN), "{text}");
    drop(other.child.stdin.take());
    assert_eq!(other.ended().code, Some(0));

    stack.restart().await;
    let (failed, text) = adapter.value();
    assert!(failed && text.starts_with("BROKER_UNREACHABLE") && text.contains(AGAIN), "{text}");
    assert!(!text.contains("systemctl"), "{text}");
    drop(adapter.child.stdin.take());
    assert_eq!(adapter.ended().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_program_that_may_use_no_sockets_is_told_to_be_started_again() {
    if no_python() {
        return;
    }
    let mut stack = stack().await;
    let script = r#"
        trap 'ravi-broker get secret/OPENAI_API_KEY 2>&1; echo "left $?"' USR1
        trap 'ravi-broker get secret/OPENAI_API_KEY --session-file /nowhere 2>&1; echo "left $?"' USR2
        trap 'exit 0' TERM
        echo ready
        while :; do sleep 0.05; done"#;
    let mut launched = stack.confined(&["sh", "-uc", script]);
    assert_eq!(launched.hear(), "ready");
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        launched.signal(signal);
        assert_eq!([launched.hear(), launched.hear()], [CANARY, "left 0"]);
    }
    restarted(&mut stack).await;
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        launched.signal(signal);
        let said = [launched.hear(), launched.hear(), launched.hear()];
        assert!(said[0].contains("the link has ended: the daemon was restarted"), "{said:?}");
        assert!(said[1].contains(AGAIN), "{said:?}");
        assert_eq!(said[2], "left 3");
    }
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.ended().code, Some(0));
}

/// The same daemon, no sandbox, and a link that is as dead: the session file and the socket do.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_program_that_may_use_sockets_works_on_without_its_link() {
    let mut stack = stack().await;
    let script = r#"
        test -n "$RAVI_BROKER_LINK_FD"
        trap 'ravi-broker get secret/OPENAI_API_KEY 2>&1; echo "left $?"' USR1
        trap 'exit 0' TERM
        echo "$RAVI_BROKER_SESSION_FILE"
        while :; do sleep 0.05; done"#;
    let mut launched = stack.started(&[], script);
    let file = launched.hear();
    let before = fs::read(&file).unwrap();
    restarted(&mut stack).await;
    until(async || fs::read(&file).unwrap_or_default() != before).await;
    launched.signal(Signal::SIGUSR1);
    assert_eq!([launched.hear(), launched.hear()], [CANARY, "left 0"]);
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.ended().code, Some(0));
}
