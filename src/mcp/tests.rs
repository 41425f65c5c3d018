//! The adapter in this process, between a host on pipes in memory and a small daemon on a real socket.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines as ReadLines};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::wire::{MAX_CALLS, MAX_MESSAGE_BYTES};
use super::*;
use crate::client::fake::{FakeDaemon, LEASE, SESSION, VALUE};
use crate::client::{AgentClient, OpenSession, SessionFile};

struct Host {
    input: DuplexStream,
    output: ReadLines<BufReader<DuplexStream>>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServiceFailed>>,
    next_id: u64,
}

impl Host {
    /// Starts the adapter and goes through the opening of the protocol.
    async fn start(access: Access, sockets: Vec<PathBuf>) -> Self {
        let mut host = Self::unopened(access, sockets);
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let opened = host.request("initialize", params).await;
        assert_eq!(opened["result"]["protocolVersion"], "2025-11-25");
        host.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        host
    }

    fn unopened(access: Access, sockets: Vec<PathBuf>) -> Self {
        let (input, adapter_input) = tokio::io::duplex(4096);
        let (adapter_output, output) = tokio::io::duplex(4096);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let served = tokio::spawn(serve(access, sockets, adapter_input, adapter_output, stopped));
        let output = BufReader::new(output).lines();
        Self { input, output, stop: Some(stop), served, next_id: 0 }
    }

    async fn for_role(daemon: &FakeDaemon) -> Self {
        Self::start(Access::Role("notes-agent".parse().unwrap()), vec![daemon.path()]).await
    }

    async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    async fn send_text(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap().expect("the adapter has not ended");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        let answer = self.receive().await;
        assert_eq!(answer["id"], id);
        answer
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        self.request("tools/call", params).await["result"].take()
    }

    /// The text of a call that fails.
    async fn failing(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], true, "{result}");
        assert!(result.get("structuredContent").is_none(), "it would not fit the output schema");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Ends the input, as a host that goes away does.
    async fn end(mut self) {
        self.input.shutdown().await.unwrap();
        drop(self.input);
        assert!(self.output.next_line().await.unwrap().is_none(), "no answer is left");
        self.served.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_tools_return_what_their_schemas_promise() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    let listed = host.request("tools/list", json!({})).await["result"]["tools"].take();
    let arguments = |name: &str| match name {
        "passwords_get" => json!({ "domain": "GitHub.com", "username": null, "reason": "sign in" }),
        "secrets_get" => json!({ "key": "api_key" }),
        _ => json!({}),
    };
    for tool in listed.as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{name}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{name}");
        assert!(tool["inputSchema"]["properties"].is_object(), "{name}");
        let result = host.call(name, arguments(name)).await;
        assert_eq!(result["isError"], false, "{result}");
        let content = result["structuredContent"].as_object().unwrap();
        for required in tool["outputSchema"]["required"].as_array().unwrap() {
            assert!(content.contains_key(required.as_str().unwrap()), "{name}: {required}");
        }
        for key in content.keys() {
            assert!(tool["outputSchema"]["properties"].get(key).is_some(), "{name}: {key}");
        }
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "{name}");
    }
    assert_eq!(listed.as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn a_password_comes_with_its_user_name_and_its_lease() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    let result = host.call("passwords_get", json!({ "domain": "github.com" })).await;
    let content = &result["structuredContent"];
    assert_eq!((&content["password"], &content["username"]), (&json!(VALUE), &json!("alice")));
    assert_eq!(content["lease"]["lease_id"], LEASE.to_string());
    let secret = host.call("secrets_get", json!({ "key": "API_KEY" })).await;
    assert_eq!(secret["structuredContent"]["value"], VALUE);
    assert_eq!((daemon.acquired(), daemon.released()), (2, 2), "no lease stays behind");
}

#[tokio::test]
async fn lists_show_names_and_no_value() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    let secrets = host.call("secrets_list", json!({})).await;
    assert_eq!(secrets["structuredContent"], json!({ "secrets": [{ "key": "API_KEY" }] }));
    let passwords = host.call("passwords_list", json!({ "surplus": 1 })).await;
    assert_eq!(passwords["structuredContent"]["passwords"].as_array().unwrap().len(), 3);
    assert_eq!(daemon.acquired(), 0);
}

#[tokio::test]
async fn one_session_is_opened_by_the_first_call_and_closed_at_the_end() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    assert_eq!(daemon.opened(), 0);
    host.request("tools/list", json!({})).await;
    assert_eq!(daemon.opened(), 1, "what the role may do is known from its session");
    for id in 100..110 {
        let params = json!({ "name": "broker_whoami" });
        host.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })).await;
    }
    for _ in 100..110 {
        let session = host.receive().await["result"]["structuredContent"]["session_id"].take();
        assert_eq!(session, SESSION.to_string());
    }
    assert_eq!((daemon.opened(), daemon.closed()), (1, 0));
    host.end().await;
    assert_eq!((daemon.opened(), daemon.closed()), (1, 1));
}

#[tokio::test]
async fn a_session_that_ended_is_opened_again_without_the_model_noticing() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    for (opened, reason) in (1..).zip(["SESSION_EXPIRED", "SESSION_REVOKED", "SESSION_INVALID"]) {
        assert_eq!(host.call("broker_whoami", json!({})).await["isError"], false);
        assert_eq!(daemon.opened(), opened);
        daemon.end_session(reason);
    }
    assert_eq!(host.call("broker_whoami", json!({})).await["isError"], false);
}

#[tokio::test]
async fn a_restart_of_the_daemon_is_survived() {
    let daemon = FakeDaemon::new();
    let mut host = Host::for_role(&daemon).await;
    let down = host.failing("ravi_identity_get", json!({})).await;
    assert!(down.starts_with("BROKER_UNREACHABLE: "), "{down}");
    assert!(down.contains(daemon.path().to_str().unwrap()) && down.contains("systemctl --user start"));
    for opened in 1..3 {
        daemon.serve();
        let identity = host.call("ravi_identity_get", json!({})).await;
        assert_eq!(identity["structuredContent"]["email"], "notes@example.com");
        assert_eq!(daemon.opened(), opened);
        daemon.stop().await;
        let down = host.failing("ravi_identity_get", json!({})).await;
        assert!(down.starts_with("BROKER_UNREACHABLE: "), "{down}");
    }
}

#[tokio::test]
async fn a_refusal_carries_its_reason_and_what_to_do_next() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    let denied = host.failing("secrets_get", json!({ "key": "OTHER" })).await;
    assert!(denied.starts_with("RESOURCE_NOT_AVAILABLE: refused\n"), "{denied}");
    assert!(denied.contains("Do not try other spellings"));
    let limited = host.failing("secrets_get", json!({ "key": "LIMITED" })).await;
    assert!(limited.starts_with("RATE_LIMITED: ") && limited.contains("Wait 8 seconds"), "{limited}");
    assert_eq!(daemon.opened(), 1);
}

#[tokio::test]
async fn a_role_that_is_not_available_or_not_named_is_explained() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::start(Access::Role("other".parse().unwrap()), vec![daemon.path()]).await;
    let refused = host.failing("broker_whoami", json!({})).await;
    assert!(refused.starts_with("ROLE_NOT_AVAILABLE: "), "{refused}");
    let mut host = Host::start(Access::Unset, vec![daemon.path()]).await;
    assert!(host.failing("broker_whoami", json!({})).await.contains("--role ROLE"));
}

#[tokio::test]
async fn hostile_names_cost_no_call_and_are_not_repeated() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    for key in ["../canary", "canary\0", "canary%41", "\u{441}anary", "a/canary", ""] {
        let refused = host.failing("secrets_get", json!({ "key": key })).await;
        assert!(refused.starts_with("ARGUMENT_INVALID: ") && !refused.contains("canary"), "{refused}");
    }
    for arguments in [
        json!({ "domain": "https://canary.com" }),
        json!({ "domain": "a.com/canary" }),
        json!({ "domain": "a.com", "username": "canary\u{202e}" }),
        json!({ "domain": "a.com", "reason": "canary\nforged" }),
        json!({ "domain": "a.com", "canary": 1 }),
        json!({ "domain": ["canary"] }),
        json!({}),
    ] {
        let refused = host.failing("passwords_get", arguments).await;
        assert!(refused.starts_with("ARGUMENT_INVALID: ") && !refused.contains("canary"), "{refused}");
    }
    assert_eq!(daemon.acquired(), 0);
}

#[tokio::test]
async fn a_session_file_is_used_and_its_session_left_open() {
    let daemon = FakeDaemon::serving();
    let client = AgentClient::connect(&[daemon.path()]).await.ok().unwrap();
    let (session, token) = client.open_session(OpenSession::role("notes-agent")).await.ok().unwrap();
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("session.json");
    SessionFile::new(client.socket(), &session, token).write(&path).unwrap();

    let mut host = Host::start(Access::SessionFile(path.clone()), vec![]).await;
    assert_eq!(host.call("broker_whoami", json!({})).await["isError"], false);
    daemon.end_session("SESSION_EXPIRED");
    let ended = host.failing("broker_whoami", json!({})).await;
    assert!(ended.starts_with("SESSION_EXPIRED: ") && ended.contains("session open"), "{ended}");
    SessionFile::remove(&path).unwrap();
    let absent = host.failing("broker_whoami", json!({})).await;
    assert!(absent.contains("there is no session file"), "{absent}");
    host.end().await;
    assert_eq!((daemon.opened(), daemon.closed()), (1, 0));
}

#[tokio::test]
async fn calls_under_way_are_bounded_and_a_cancelled_one_makes_room() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    let params = json!({ "name": "secrets_get", "arguments": { "key": "HANGS" } });
    for id in 0..=MAX_CALLS {
        let id = format!("call {id}");
        host.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })).await;
    }
    let busy = host.receive().await;
    assert_eq!(busy["id"], format!("call {MAX_CALLS}"));
    assert_eq!(busy["error"]["code"], -32000);
    let cancelled = json!({ "requestId": "call 0", "reason": "not needed" });
    let method = "notifications/cancelled";
    host.send(&json!({ "jsonrpc": "2.0", "method": method, "params": cancelled })).await;
    // The room is there once the cancelled call has been dropped, which is not reported.
    let mut ping = host.request("ping", json!({})).await;
    while ping["error"]["code"] == -32000 {
        tokio::task::yield_now().await;
        ping = host.request("ping", json!({})).await;
    }
    assert_eq!(ping["result"], json!({}));
    host.served.abort();
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_one_served() {
    let mut host = Host::start(Access::Unset, vec![]).await;
    for length in [MAX_MESSAGE_BYTES + 1, 10 * MAX_MESSAGE_BYTES] {
        host.send_text(&"x".repeat(length)).await;
        let refused = host.receive().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32600)));
    }
    let ping = r#"{"jsonrpc":"2.0","id":"edge","method":"ping"}"#;
    host.send_text(&format!("{ping}{}", " ".repeat(MAX_MESSAGE_BYTES - ping.len()))).await;
    assert_eq!(host.receive().await["id"], "edge");
}

#[tokio::test]
async fn malformed_lines_are_answered_by_the_rules_of_json_rpc() {
    let mut host = Host::start(Access::Unset, vec![]).await;
    let deep = "[".repeat(10_000);
    for (line, id, code) in [
        ("{\"jsonrpc\":\"2.0\",", Value::Null, -32700),
        (&deep, Value::Null, -32700),
        ("[]", Value::Null, -32600),
        ("7", Value::Null, -32600),
        (r#"{"id":5}"#, json!(5), -32600),
        (r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#, json!("a"), -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Value::Null, -32600),
        (r#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"name":7}}"#, json!(6), -32602),
        (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"none"}}"#, json!(7), -32602),
        (r#"{"jsonrpc":"2.0","id":8,"method":"no/such"}"#, json!(8), -32601),
    ] {
        host.send_text(line).await;
        let refused = host.receive().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&id, &json!(code)), "{line:.60}");
    }
}

#[tokio::test]
async fn what_expects_no_answer_gets_none() {
    let mut host = Host::start(Access::Unset, vec![]).await;
    for line in [
        "",
        "  \r",
        r#"{"jsonrpc":"2.0","method":"notifications/unheard-of","params":{"a":1}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}"#,
        r#"{"jsonrpc":"2.0","method":7}"#,
        r#"{"jsonrpc":"2.0","id":9,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"echo"}}"#,
    ] {
        host.send_text(line).await;
    }
    assert_eq!(host.request("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn notifications_before_the_opening_do_not_end_the_adapter() {
    let mut host = Host::unopened(Access::Unset, vec![]);
    host.send_text(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    host.send_text(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
    host.send_text(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    assert_eq!(host.request("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn both_eras_of_the_protocol_are_served() {
    let client = json!({ "name": "test", "version": "1" });
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut host = Host::unopened(Access::Unset, vec![]);
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
        let opened = host.request("initialize", params).await;
        assert_eq!(opened["result"]["protocolVersion"], version);
        assert_eq!(opened["result"]["serverInfo"]["name"], "ravi-broker-mcp");
    }
    let mut host = Host::unopened(Access::Unset, vec![]);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": client,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let discovered = host.request("server/discover", json!({ "_meta": meta })).await;
    let versions = discovered["result"]["supportedVersions"].as_array().unwrap();
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2024-11-05")));
    let listed = host.request("tools/list", json!({ "_meta": meta })).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 16);
    let called = host.request("tools/call", json!({ "_meta": meta, "name": "broker_whoami" })).await;
    assert_eq!(called["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_last_line_without_its_newline_is_served() {
    let mut host = Host::start(Access::Unset, vec![]).await;
    host.input.write_all(br#"{"jsonrpc":"2.0","id":"last","method":"ping"}"#).await.unwrap();
    host.input.shutdown().await.unwrap();
    assert_eq!(host.receive().await["id"], "last");
    host.end().await;
}

#[tokio::test]
async fn a_stop_ends_the_adapter_and_closes_the_session() {
    let daemon = FakeDaemon::serving();
    let mut host = Host::for_role(&daemon).await;
    host.call("broker_whoami", json!({})).await;
    host.stop.take().unwrap().send(()).unwrap();
    host.served.await.unwrap().unwrap();
    assert_eq!(daemon.closed(), 1);
}

#[tokio::test]
async fn a_host_that_reads_nothing_is_not_read_from() {
    let mut host = Host::start(Access::Unset, vec![]).await;
    let ping = format!("{}\n", json!({ "jsonrpc": "2.0", "id": "x".repeat(2048), "method": "ping" }));
    // Far more than all buffers together hold; the adapter stops reading before it has taken them all.
    let mut taken = 0;
    let flood = async {
        loop {
            host.input.write_all(ping.as_bytes()).await.unwrap();
            taken += 1;
        }
    };
    let chances = async {
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = chances => {}
    }
    assert!(taken < 1_000, "{taken} requests were taken");
    host.served.abort();
}
