//! What holds without a daemon: the protocol, the ways to end, and what a model is told.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Adapter, PATIENCE};

#[tokio::test]
async fn it_introduces_itself_and_lists_its_tools_while_the_daemon_is_down() {
    let mut adapter = Adapter::start(&["--role", "notes-agent"]);
    let opened = adapter.open().await;
    assert_eq!(opened["result"]["serverInfo"]["name"], "ravi-broker-mcp");
    let listed = adapter.request("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, super::TOOLS, "while the role's scopes are unknown, all are listed");
}

#[tokio::test]
async fn a_call_while_the_daemon_is_down_says_what_was_tried_and_how_to_start_it() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = [("XDG_RUNTIME_DIR", directory.path())];
    let mut adapter = Adapter::start_with(&["--role", "notes-agent"], &runtime);
    adapter.open().await;
    let result = adapter.call("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
    assert_eq!(result["isError"], true);
    let text = result["content"][0]["text"].as_str().unwrap();
    let first = directory.path().join("ravi-broker/broker.sock");
    let usual = format!("/run/user/{}/ravi-broker/broker.sock", nix::unistd::geteuid());
    assert!(text.starts_with("BROKER_UNREACHABLE: "), "{text}");
    for part in [first.to_str().unwrap(), &usual, "/run/ravi-broker/broker.sock"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(text.contains("systemctl --user start ravi-broker") && text.contains("ravi-brokerd"), "{text}");
}

/// Codex hands a server HOME and PATH and no more.
#[tokio::test]
async fn with_little_more_than_a_path_in_its_environment_it_looks_in_the_usual_places() {
    let environment = [("HOME", Path::new("/nonexistent")), ("PATH", Path::new("/usr/bin"))];
    let mut adapter = Adapter::start_with(&["--role", "notes-agent"], &environment);
    adapter.open().await;
    let result = adapter.call("broker_whoami", json!({})).await;
    let text = result["content"][0]["text"].as_str().unwrap();
    let usual = format!("/run/user/{}/ravi-broker/broker.sock", nix::unistd::geteuid());
    let places = [usual.as_str(), "/run/ravi-broker/broker.sock"].map(|place| text.find(place).unwrap());
    assert!(places[0] < places[1] && !text.contains("/nonexistent"), "{text}");
}

#[tokio::test]
async fn a_socket_that_is_named_is_the_only_one_tried() {
    let directory = tempfile::tempdir().unwrap();
    let occupied = directory.path().join("occupied");
    std::fs::write(&occupied, "").unwrap();
    let mut adapter = Adapter::start(&["--role", "notes-agent", "--socket", occupied.to_str().unwrap()]);
    adapter.open().await;
    let result = adapter.call("broker_whoami", json!({})).await;
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("occupied (nobody listens)") && !text.contains("/run/"), "{text}");
    assert_eq!(std::fs::metadata(&occupied).unwrap().len(), 0);
}

#[tokio::test]
async fn without_a_role_a_call_says_how_to_name_one() {
    let mut adapter = Adapter::start(&[]);
    adapter.open().await;
    let result = adapter.call("broker_whoami", json!({})).await;
    assert!(result["content"][0]["text"].as_str().unwrap().contains("--role ROLE"), "{result}");
}

#[tokio::test]
async fn bad_lines_are_answered_and_do_no_harm() {
    let mut adapter = Adapter::start(&["--role", "notes-agent"]);
    adapter.send("this is not JSON").await;
    assert_eq!(adapter.receive().await["error"]["code"], -32700);
    adapter.open().await;
    adapter.send(&"x".repeat((1 << 20) + 1)).await;
    assert_eq!(adapter.receive().await["error"]["code"], -32600);
    adapter.send("\u{0}\u{feff}{").await;
    assert_eq!(adapter.receive().await["error"]["code"], -32700);
    assert_eq!(adapter.request("ping", json!({})).await["result"], json!({}));
    adapter.input = None;
    adapter.ended_quietly().await;
}

#[tokio::test]
async fn it_ends_with_its_input() {
    let mut unopened = Adapter::start(&["--role", "notes-agent"]);
    unopened.input = None;
    unopened.ended_quietly().await;

    let mut adapter = Adapter::start(&["--role", "notes-agent"]);
    adapter.open().await;
    adapter.input = None;
    adapter.ended_quietly().await;
}

#[tokio::test]
async fn it_ends_with_sigint_and_with_sigterm() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut adapter = Adapter::start(&["--role", "notes-agent"]);
        adapter.open().await;
        adapter.signal(signal);
        adapter.ended_quietly().await;
    }
}

#[tokio::test]
async fn a_host_that_closes_the_output_midway_ends_it() {
    let mut adapter = Adapter::start(&["--role", "notes-agent"]);
    adapter.open().await;
    let Adapter { mut child, mut input, output, errors } = adapter;
    drop((output, errors));
    let ping = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
    let flood = async { while input.as_mut().unwrap().write_all(ping).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the adapter closes its input");
    let status = timeout(PATIENCE, child.wait()).await.expect("the adapter ends").unwrap();
    assert!(status.code().is_some(), "it was not killed by a signal: {status}");
}

#[tokio::test]
async fn wrong_usage_is_told_apart_from_a_failure() {
    for arguments in
        [&["--role", "Not A Role"][..], &["--no-such-flag"], &["--role", "a", "--session-file", "b"]]
    {
        let (status, rest, errors) = Adapter::start(arguments).ended().await;
        assert_eq!((status.code(), rest.as_str()), (Some(2), ""));
        assert!(!errors.is_empty());
    }
    let variable = [("RAVI_BROKER_ROLE", Path::new("Not A Role"))];
    let (status, rest, errors) = Adapter::start_with(&[], &variable).ended().await;
    assert_eq!((status.code(), rest.as_str()), (Some(2), ""));
    assert!(errors.starts_with("error: RAVI_BROKER_ROLE: a role name is"), "{errors}");
}
