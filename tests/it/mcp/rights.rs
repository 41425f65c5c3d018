//! What a role may do decides what a model is shown; what it may not do is refused by the broker, listed or not.

use serde_json::{Value, json};

use super::schema::assert_fits;
use super::{Adapter, EVERYTHING, PASSWORD, SECRET, TOOLS, adapter, daemon, unopened};
use crate::support::{Stack, bounded, until};

/// `user` may use values and see none, `mixed` may see one and use all, `nobody` may do nothing.
const ROLES: &str = r#"
[role.user]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:use", "secret:list", "password:use"]
[role.mixed]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read:OPENAI_ORG_ID", "secret:use"]
[role.nobody]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = []
"#;

async fn stack() -> Stack {
    daemon(|setup| setup.roles.push_str(&[ROLES, EVERYTHING].concat())).await
}

/// The scope that a tool is for, and arguments that would do.
fn needs(tool: &str) -> Option<(&'static str, Value)> {
    Some(match tool {
        "broker_whoami" => return None,
        "ravi_identity_get" => ("identity:read", json!({})),
        "ravi_identity_create" => ("identity:create", json!({ "name": "another" })),
        "passwords_list" => ("password:list", json!({})),
        "passwords_get" => ("password:read", json!({ "domain": "github.com", "username": "notes-agent" })),
        "passwords_create" => ("password:create", json!({ "domain": "example.net", "username": "a" })),
        "secrets_list" => ("secret:list", json!({})),
        "secrets_get" => ("secret:read", json!({ "key": "OPENAI_API_KEY" })),
        "secrets_set" => ("secret:write", json!({ "key": "NEW", "value": "x" })),
        "ravi_wait_for_code" => ("sms:await", json!({ "channel": "sms" })),
        "ravi_read_email" => ("email:read", json!({})),
        "ravi_read_sms" => ("sms:read", json!({})),
        "ravi_send_email" => ("email:send", json!({ "to": "a@example.com", "subject": "s", "text": "t" })),
        "ravi_reply_email" => ("email:send", json!({ "message": "email/1", "text": "t" })),
        "ravi_send_sms" => ("sms:send", json!({ "to": "+12025550100", "text": "t" })),
        "ravi_sso_token" => ("sso:mint", json!({})),
        other => panic!("{other} is not known"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_listed_with_its_scope_alone_and_refused_without_it() {
    let stack = stack().await;
    let mut nobody = adapter(&stack, "nobody").await;
    assert_eq!(nobody.tools().await, ["broker_whoami"]);
    for tool in TOOLS {
        let Some((_, arguments)) = needs(tool) else { continue };
        let refused = nobody.failing(tool, arguments).await;
        let reasons = ["SCOPE_NOT_GRANTED: ", "RESOURCE_NOT_AVAILABLE: "];
        assert!(reasons.iter().any(|reason| refused.starts_with(reason)), "{tool}: {refused}");
        assert!(refused.contains("`ravi-broker explain den_"), "{tool}: {refused}");
    }
    nobody.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_shows_its_own_tools() {
    let scopes: std::collections::BTreeSet<_> =
        TOOLS.iter().filter_map(|tool| Some(needs(tool)?.0)).collect();
    let role = |scope: &str| {
        let name = scope.replace(':', "-");
        format!(
            "[role.{name}]\nidentity = \"assistant-notes-agent\"\nmatch = {{ uid = UID }}\nscopes = [\"{scope}\"]\n"
        )
    };
    let stack = daemon(|setup| setup.roles = scopes.iter().map(|scope| role(scope)).collect()).await;
    for scope in scopes {
        let mut adapter = adapter(&stack, &scope.replace(':', "-")).await;
        let expected: Vec<_> =
            TOOLS.into_iter().filter(|tool| needs(tool).is_none_or(|(needed, _)| needed == scope)).collect();
        assert_eq!(adapter.tools().await, expected, "{scope}");
        adapter.ended_silently().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_used_and_not_shown_is_answered_with_a_reference_and_never_a_value() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "user").await;
    let listed = adapter.request("tools/list", json!({})).await["result"]["tools"].take();
    let schema = |name: &str| {
        let tool = listed.as_array().unwrap().iter().find(|tool| tool["name"] == name).unwrap();
        tool["outputSchema"].clone()
    };
    let mut said = listed.to_string();
    let secret = adapter.call("secrets_get", json!({ "key": "openai_api_key" })).await;
    let password = json!({ "domain": "github.com", "username": "notes-agent" });
    let password = adapter.call("passwords_get", password).await;
    for (result, reference, name) in [
        (&secret, "ravi://secret/OPENAI_API_KEY", "secrets_get"),
        (&password, "ravi://password/github.com/notes-agent", "passwords_get"),
    ] {
        let content = &result["structuredContent"];
        assert_fits(&schema(name), content, name);
        for place in ["value", "password", "lease"] {
            assert!(schema(name)["properties"].get(place).is_none(), "{name} has a place for {place}");
        }
        assert_eq!(content["reference"], reference);
        let how = content["how_to_use"].as_str().unwrap();
        let command = format!("ravi-broker run --role user --file VALUE_FILE={reference} -- PROGRAM");
        assert!(how.contains(&command), "{how}");
        said.push_str(&result.to_string());
    }
    for tool in ["broker_whoami", "secrets_list"] {
        said.push_str(&adapter.call(tool, json!({})).await.to_string());
    }
    assert!(!said.contains(SECRET) && !said.contains(PASSWORD), "a value was shown");
    assert!(stack.audited("lease.acquired").is_empty(), "no value was asked for");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_see_one_value_and_use_the_others_gets_each_in_its_way() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "mixed").await;
    let listed = adapter.request("tools/list", json!({})).await["result"]["tools"].take();
    let tool = listed.as_array().unwrap().iter().find(|tool| tool["name"] == "secrets_get").unwrap();
    let seen = adapter.succeeding("secrets_get", json!({ "key": "OPENAI_ORG_ID" })).await;
    assert!(seen["value"].is_string() && seen.get("reference").is_none());
    let used = adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
    assert!(used.get("value").is_none() && used["reference"].is_string());
    assert_fits(&tool["outputSchema"], &seen, "seen");
    assert_fits(&tool["outputSchema"], &used, "used");
    adapter.ended_silently().await;
}

/// Makes a call after which the host is told that the list has changed, before the answer or after it.
/// Returns the result and the notification.
async fn told(adapter: &mut Adapter, mut params: Value) -> (Value, Value) {
    params["arguments"] = params.get("arguments").cloned().unwrap_or(json!({}));
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    adapter.send(&call.to_string()).await;
    let (one, other) = (bounded(adapter.receive()).await, bounded(adapter.receive()).await);
    let (mut answer, notification) = if one["id"] == 1 { (one, other) } else { (other, one) };
    assert_eq!(notification["method"], "notifications/tools/list_changed", "{notification}");
    (answer["result"].take(), notification)
}

/// What a reload takes is noticed by the call that is refused, and what it gives by the next look.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_changes_the_scopes_changes_the_list_and_the_host_is_told() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "notes").await;
    assert_eq!(adapter.tools().await.len(), 6);
    let reading = "\"secret:read:OPENAI_*\"";
    stack.rewrite(|text| text.replacen(reading, "\"secret:use:OPENAI_*\"", 1));
    stack.admin().await.reload().await.unwrap();
    // The right to see it is gone, and the one to use it is there.
    let secret = json!({ "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" } });
    let (used, _) = told(&mut adapter, secret).await;
    assert_eq!(used["structuredContent"]["reference"], "ravi://secret/OPENAI_API_KEY");

    stack.rewrite(|text| text.replacen("\"secret:use:OPENAI_*\"", "\"sso:mint\"", 1));
    stack.admin().await.reload().await.unwrap();
    told(&mut adapter, json!({ "name": "broker_whoami" })).await;
    let tools = adapter.tools().await;
    assert!(tools.contains(&"ravi_sso_token".to_owned()), "{tools:?}");
    assert!(!tools.contains(&"secrets_get".to_owned()), "{tools:?}");
    adapter.ended_silently().await;
}

/// The revision of 2026-07-28: the host asks to be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_stateless_host_that_listens_is_told_as_well() {
    let stack = stack().await;
    let mut adapter = unopened(&stack, &["--role", "notes"]);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let listed = adapter.request("tools/list", json!({ "_meta": meta })).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 6);
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let params = json!({ "_meta": meta, "notifications": wanted });
    let listen = json!({ "jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen", "params": params });
    adapter.send(&listen.to_string()).await;
    let acknowledged = adapter.receive().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    stack.rewrite(|text| text.replacen("\"secret:read:OPENAI_*\", ", "", 1));
    stack.admin().await.reload().await.unwrap();
    let call = json!({ "_meta": meta, "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" } });
    let (_, notification) = told(&mut adapter, call).await;
    assert_eq!(notification["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 9);
    let relisted = adapter.request("tools/list", json!({ "_meta": meta })).await;
    assert_eq!(relisted["result"]["tools"].as_array().unwrap().len(), 5);
    adapter.input = None;
    let (status, rest, _) = adapter.ended().await;
    assert!(status.success() && rest.lines().count() <= 1, "{status}: {rest}");
}

/// A host that asks once, while the daemon is down, learns later what the role may do.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_listed_everything_is_told_once_the_scopes_are_known() {
    let mut stack = stack().await;
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    stack.daemon.ended().await;
    let mut adapter = adapter(&stack, "notes").await;
    assert_eq!(adapter.tools().await, TOOLS);
    stack.daemon = crate::support::Daemon::start(&stack.setup).await;
    told(&mut adapter, json!({ "name": "secrets_list" })).await;
    assert_eq!(adapter.tools().await.len(), 6);
    until(async || stack.admin().await.sessions().await.unwrap().len() == 1).await;
    adapter.ended_silently().await;
}
