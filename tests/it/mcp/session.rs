//! The adapter's session with the shipped daemon: opened by the first call, opened again when it ended,
//! gone with the adapter.

use std::time::Duration;

use nix::sys::signal::Signal;
use ravi_broker::client::{OpenSession, RevokeTarget, SessionFile};
use ravi_broker::clock::{Clock, SystemClock};
use serde_json::json;

use super::{SECRET, adapter, daemon, unopened};
use crate::support::{Daemon, Stack, bounded, until};

/// Sessions alive now.
async fn alive(stack: &Stack) -> usize {
    stack.admin().await.sessions().await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_opened_by_the_first_list_or_call_and_closed_at_the_end() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    assert_eq!(alive(&stack).await, 0);
    adapter.request("tools/list", json!({})).await;
    assert_eq!(alive(&stack).await, 1, "what the role may do is known from its session");
    adapter.succeeding("broker_whoami", json!({})).await;
    adapter.succeeding("secrets_list", json!({})).await;
    assert_eq!(alive(&stack).await, 1);
    adapter.ended_silently().await;
    assert_eq!(alive(&stack).await, 0);
    assert_eq!(stack.audited("session.opened").len(), 1);
    assert_eq!(stack.audited("session.closed").len(), 1);
}

/// The buffers of an open connection keep what has gone through them.
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_its_call_and_the_session_outlives_them_all() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let admin = stack.admin().await;
    for _ in 0..3 {
        adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
        let answered = SystemClock.now();
        until(async || admin.status().await.unwrap().connections == 0).await;
        // After 15 s without a call the daemon would have closed it.
        assert!(SystemClock.now().since(answered) < Duration::from_secs(10), "the adapter kept it");
        assert_eq!(alive(&stack).await, 1);
    }
    assert_eq!(stack.audited("session.opened").len(), 1);
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_an_adapter_that_is_killed() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    adapter.succeeding("broker_whoami", json!({})).await;
    adapter.signal(Signal::SIGKILL);
    let (status, _, _) = adapter.ended().await;
    assert!(!status.success());
    bounded(async { while alive(&stack).await > 0 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_daemon_on_the_same_socket_is_not_noticed() {
    let mut stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let key = json!({ "key": "OPENAI_API_KEY" });
    let mut sessions = Vec::new();
    for signal in [Some(Signal::SIGTERM), Some(Signal::SIGKILL), None] {
        let secret = adapter.succeeding("secrets_get", key.clone()).await;
        assert!(secret["value"] == SECRET, "another value");
        let mut who = adapter.succeeding("broker_whoami", json!({})).await;
        sessions.push(who["session_id"].take().to_string());
        if let Some(signal) = signal {
            stack.daemon.signal(signal);
            stack.daemon.ended().await;
            stack.daemon = Daemon::start(&stack.setup).await;
        }
    }
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "each daemon has a session of its own");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_down_is_said_to_be_and_its_return_is_noticed() {
    let mut stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    adapter.succeeding("broker_whoami", json!({})).await;
    stack.daemon.signal(Signal::SIGTERM);
    stack.daemon.ended().await;
    for tool in ["broker_whoami", "secrets_list"] {
        let down = adapter.failing(tool, json!({})).await;
        assert!(down.starts_with("BROKER_UNREACHABLE: "), "{down}");
        assert!(down.contains("systemctl --user start ravi-broker"), "{down}");
    }
    stack.daemon = Daemon::start(&stack.setup).await;
    adapter.succeeding("secrets_list", json!({})).await;
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_the_operator_revoked_is_opened_again_once() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let admin = stack.admin().await;
    for opened in 1..=3 {
        adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
        assert_eq!(stack.audited("session.opened").len(), opened);
        admin.revoke(RevokeTarget::All, "drill").await.unwrap();
    }
    adapter.succeeding("broker_whoami", json!({})).await;
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_role_is_gone_after_a_reload_is_not_opened_again() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    adapter.succeeding("broker_whoami", json!({})).await;
    stack.rewrite(|text| text.replace("[role.notes]", "[role.renamed]"));
    stack.admin().await.reload().await.unwrap();
    let gone = adapter.failing("broker_whoami", json!({})).await;
    assert!(gone.starts_with("ROLE_NOT_AVAILABLE: "), "{gone}");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_a_file_is_used_and_left_open() {
    let stack = daemon(|_| {}).await;
    let client = stack.stranger().await;
    let (session, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    let path = stack.setup.directory().join("session.json");
    SessionFile::new(client.socket(), &session, token).write(&path).unwrap();

    let of_file = async || {
        let mut adapter = unopened(&stack, &["--session-file", path.to_str().unwrap()]);
        adapter.open().await;
        adapter
    };
    let mut adapter = of_file().await;
    let who = adapter.succeeding("broker_whoami", json!({})).await;
    assert_eq!(who["session_id"], session.session_id.to_string());
    let secret = adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
    assert!(secret["value"] == SECRET, "another value");
    adapter.ended_silently().await;
    assert_eq!(alive(&stack).await, 1, "it is not the adapter's to close");

    let mut adapter = of_file().await;
    stack.admin().await.revoke(RevokeTarget::All, "").await.unwrap();
    let ended = adapter.failing("broker_whoami", json!({})).await;
    assert!(ended.starts_with("SESSION_REVOKED: ") && ended.contains("session open"), "{ended}");
    assert_eq!(stack.audited("session.opened").len(), 1);
    adapter.ended_silently().await;
}

/// A host that goes while a call waits long leaves neither the process nor the session behind.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_at_once_with_its_input_or_a_signal_although_a_call_waits() {
    let stack = daemon(|setup| setup.roles.push_str(super::EVERYTHING)).await;
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGTERM)] {
        let mut adapter = adapter(&stack, "everything").await;
        let opened = adapter.succeeding("ravi_wait_for_code", json!({ "channel": "sms" })).await;
        let arguments = json!({ "watch": opened["watch"], "wait_seconds": 50 });
        let params =
            json!({ "name": "ravi_wait_for_code", "arguments": arguments, "_meta": { "progressToken": 1 } });
        adapter
            .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string())
            .await;
        assert_eq!(adapter.receive().await["method"], "notifications/progress", "it waits");
        let began = SystemClock.now();
        match signal {
            Some(signal) => adapter.signal(signal),
            None => adapter.input = None,
        }
        let (status, ..) = adapter.ended().await;
        assert!(status.success(), "{status}");
        let took = SystemClock.now().since(began);
        assert!(took < Duration::from_secs(2), "{signal:?} took {took:?}");
        assert_eq!(alive(&stack).await, 0, "{signal:?}");
    }
}
