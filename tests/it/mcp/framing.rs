//! The bytes on the wire: both framings, every revision of the protocol, batches, and what is far too long.

use std::process::Stdio;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{ADAPTER, Adapter, PATIENCE, SECRET, adapter, daemon};

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// A host that announces the length of what it sends, as of a language server.
struct Framed {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Framed {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(ADAPTER);
        command.args(arguments).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the adapter starts");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    async fn send(&mut self, text: &str) {
        let framed = format!("Content-Length: {}\r\n\r\n{text}", text.len());
        self.input.write_all(framed.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let receiving = async {
            let mut header = String::new();
            self.output.read_line(&mut header).await.unwrap();
            let length =
                header.strip_prefix("Content-Length: ").expect("a header").trim_end().parse().unwrap();
            let mut blank = String::new();
            self.output.read_line(&mut blank).await.unwrap();
            assert_eq!(blank, "\r\n");
            let mut text = vec![0; length];
            self.output.read_exact(&mut text).await.unwrap();
            serde_json::from_slice(&text).expect("JSON")
        };
        timeout(PATIENCE, receiving).await.expect("an answer")
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params });
        self.send(&request.to_string()).await;
        let answer = self.receive().await;
        assert_eq!(answer["id"], method);
        answer
    }
}

fn opening(version: &str) -> Value {
    json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_announces_lengths_is_answered_in_kind_in_every_revision() {
    let stack = daemon(|_| {}).await;
    let socket = stack.setup.agent_socket.to_str().unwrap();
    for version in REVISIONS {
        let mut host = Framed::start(&["--role", "notes", "--socket", socket]);
        let opened = host.request("initialize", opening(version)).await;
        assert_eq!(opened["result"]["protocolVersion"], version);
        host.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        let listed = host.request("tools/list", json!({})).await;
        assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 6, "{version}");
        let call = json!({ "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" } });
        let called = host.request("tools/call", call).await;
        assert!(called["result"]["structuredContent"]["value"] == SECRET, "no value");
        host.send("no JSON").await;
        assert_eq!(host.receive().await["error"]["code"], -32700);
        drop(host.input);
        let status = timeout(PATIENCE, host.child.wait()).await.expect("it ends").unwrap();
        let mut rest = String::new();
        host.output.read_to_string(&mut rest).await.unwrap();
        assert!(status.success() && rest.is_empty(), "{status}: {rest}");
    }
}

#[tokio::test]
async fn a_header_without_a_usable_length_is_answered_and_ends_the_adapter() {
    let mut host = Framed::start(&[]);
    host.input.write_all(b"Content-Length: nine\r\n\r\n{}").await.unwrap();
    assert_eq!(host.receive().await["error"]["code"], -32700);
    let status = timeout(PATIENCE, host.child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_message_that_breaks_off_ends_the_adapter_quietly() {
    for part in [
        "Content-Length: 100\r\n\r\n{\"jsonrpc\"",
        "Content-Le",
        "{\"jsonrpc\": \"2.0\", \"id\"",
        "Content-Length: 7\r\n",
    ] {
        let mut adapter = Adapter::start(&[]);
        adapter.input.as_mut().unwrap().write_all(part.as_bytes()).await.unwrap();
        adapter.input = None;
        let (status, rest, errors) = adapter.ended().await;
        assert!(status.success() && errors.is_empty(), "{status}: {errors}");
        assert!(rest.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{rest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_is_served_by_lines() {
    let stack = daemon(|_| {}).await;
    for version in REVISIONS {
        let mut adapter = super::unopened(&stack, &["--role", "notes"]);
        let opened = adapter.request("initialize", opening(version)).await;
        assert_eq!(opened["result"]["protocolVersion"], version);
        adapter.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        let who = adapter.succeeding("broker_whoami", json!({})).await;
        assert_eq!(who["role"], "notes", "{version}");
        let unknown = adapter.request("no/such", json!({})).await;
        assert_eq!(unknown["error"]["code"], -32601);
        adapter.ended_silently().await;
    }
    let mut adapter = super::unopened(&stack, &["--role", "notes"]);
    let meta = |version: &str| {
        json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        })
    };
    let discovered = adapter.request("server/discover", json!({ "_meta": meta("2026-07-28") })).await;
    assert!(discovered["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    assert_eq!(discovered["result"]["capabilities"]["tools"]["listChanged"], true);
    let call = json!({ "_meta": meta("2026-07-28"), "name": "broker_whoami", "arguments": {} });
    let called = adapter.request("tools/call", call).await;
    assert_eq!(called["result"]["structuredContent"]["role"], "notes");
    let future = adapter.request("tools/list", json!({ "_meta": meta("2999-01-01") })).await;
    assert!(future["error"]["code"].is_i64(), "{future}");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_with_one_array_where_the_revision_has_batches() {
    let stack = daemon(|_| {}).await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        { "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "broker_whoami" } },
        { "jsonrpc": "2.0", "id": 3, "method": "no/such" },
        { "id": 4 },
        7,
    ]);
    for version in REVISIONS {
        let mut adapter = super::unopened(&stack, &["--role", "notes"]);
        adapter.request("initialize", opening(version)).await;
        adapter.send(&batch.to_string()).await;
        let mut answered = adapter.receive().await;
        if version > "2025-03-26" {
            assert_eq!(
                (&answered["id"], &answered["error"]["code"]),
                (&Value::Null, &json!(-32600)),
                "{version}"
            );
            adapter.ended_silently().await;
            continue;
        }
        let answers = answered.as_array_mut().expect("an array");
        answers.sort_by_key(|answer| answer["id"].as_u64().unwrap_or(99));
        let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
        assert_eq!(codes, [None, None, Some(-32601), Some(-32600), Some(-32600)], "{version}");
        assert_eq!(answers[1]["result"]["structuredContent"]["role"], "notes");
        for (wrong, code) in [("[]", -32600), ("[", -32700), ("[[]", -32700)] {
            adapter.send(wrong).await;
            assert_eq!(adapter.receive().await["error"]["code"], code, "{wrong}");
        }
        // One in which nothing is asked is not answered.
        adapter.send(r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#).await;
        assert_eq!(adapter.request("ping", json!({})).await["result"], json!({}));
        adapter.ended_silently().await;
    }
}

/// Bytes of memory that the process has.
fn resident(adapter: &Adapter) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", adapter.child.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_64_mib_is_answered_by_its_id_and_takes_no_memory() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
    let before = resident(&adapter);
    let chunk = vec![b'x'; 1 << 20];
    let input = adapter.input.as_mut().unwrap();
    input
        .write_all(br#"{"jsonrpc":"2.0","id":"huge","method":"tools/call","params":{"name":""#)
        .await
        .unwrap();
    for _ in 0..64 {
        input.write_all(&chunk).await.unwrap();
    }
    input.write_all(b"\"}}\n").await.unwrap();
    let refused = adapter.receive().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("huge"), &json!(-32600)));
    let after = resident(&adapter);
    assert!(after < before + (4 << 20), "{before} bytes before, {after} after");
    adapter.succeeding("broker_whoami", json!({})).await;
    adapter.ended_silently().await;
}

/// What a host may send by mistake or on purpose, in pieces and in a row.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(b"\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"Content-Length: 20\r\n\r\n".to_vec()),
        Just(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n".to_vec()),
        Just(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"secrets_get\"}}\n".to_vec()),
        Just(b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"},{}]\n".to_vec()),
        "[\\[\\]{}\":,a-z0-9. ]{0,80}\n".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// With and without an opening before it.
    #[test]
    fn no_input_ends_the_adapter_badly_or_brings_a_stray_byte(bytes in input(), version in 0_usize..6) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, output, errors) = runtime.block_on(async {
            let mut adapter = Adapter::start(&["--socket", "/nonexistent/broker.sock"]);
            if let Some(version) = REVISIONS.get(version) {
                adapter.request("initialize", opening(version)).await;
            }
            let mut input = adapter.input.take().unwrap();
            let writing = tokio::spawn(async move {
                // The adapter may have ended: a header it could not read.
                let _ = input.write_all(&bytes).await;
            });
            let ended = adapter.ended().await;
            writing.await.unwrap();
            ended
        });
        prop_assert!(status.success(), "{status}");
        prop_assert_eq!(errors, "");
        prop_assert!(whole(&output), "{}", output);
    }
}

/// Whether the output is messages and nothing else, in either framing.
fn whole(mut output: &str) -> bool {
    while !output.is_empty() {
        let (message, rest) = if let Some(framed) = output.strip_prefix("Content-Length: ") {
            let Some((length, rest)) = framed.split_once("\r\n\r\n") else { return false };
            let Ok(length) = length.parse::<usize>() else { return false };
            let Some(parts) = rest.split_at_checked(length) else { return false };
            parts
        } else {
            let Some(parts) = output.split_once('\n') else { return false };
            parts
        };
        if serde_json::from_str::<Value>(message).is_err() {
            return false;
        }
        output = rest;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_restarts_during_a_call_is_survived() {
    let mut stack = daemon(|setup| setup.roles.push_str(super::EVERYTHING)).await;
    let mut adapter = adapter(&stack, "everything").await;
    let opened = adapter.succeeding("ravi_wait_for_code", json!({ "channel": "sms" })).await;
    let arguments = json!({ "watch": opened["watch"], "wait_seconds": 50 });
    let meta = json!({ "progressToken": 1 });
    let params = json!({ "name": "ravi_wait_for_code", "arguments": arguments, "_meta": meta });
    adapter
        .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string())
        .await;
    assert_eq!(adapter.receive().await["method"], "notifications/progress");
    stack.daemon.signal(Signal::SIGKILL);
    stack.daemon.ended().await;
    let mut answer = adapter.receive().await;
    while answer["method"] == "notifications/progress" {
        answer = adapter.receive().await;
    }
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    // Whether the socket still took a second attempt is a matter of moments.
    let reasons = ["BROKER_UNREACHABLE: ", "CONNECTION_LOST: "];
    assert!(reasons.iter().any(|reason| text.starts_with(reason)), "{text}");
    stack.daemon = crate::support::Daemon::start(&stack.setup).await;
    adapter.succeeding("broker_whoami", json!({})).await;
    adapter.ended_silently().await;
}
