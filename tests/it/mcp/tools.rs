//! The tools of a role that reads, with the shipped daemon: what they return, and what a model is told when they refuse.

use serde_json::json;

use super::schema::assert_fits;
use super::{PASSWORD, SECRET, adapter, daemon};
use crate::support::{NOTES, bounded, without_ids};

#[tokio::test(flavor = "multi_thread")]
async fn each_tool_returns_what_its_schema_promises() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let listed = adapter.request("tools/list", json!({})).await["result"]["tools"].take();
    assert_eq!(listed.as_array().unwrap().len(), 6, "the role may do no more");
    for tool in listed.as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let arguments = match name {
            "passwords_get" => {
                json!({ "domain": "github.com", "username": "notes-agent", "reason": "sign in" })
            }
            "secrets_get" => json!({ "key": "OPENAI_API_KEY" }),
            _ => json!({}),
        };
        assert_fits(&tool["inputSchema"], &arguments, name);
        let result = adapter.call(name, arguments).await;
        assert_eq!(result["isError"], false, "{name}");
        assert_fits(&tool["outputSchema"], &result["structuredContent"], name);
        let text = result["content"][0]["text"].as_str().unwrap();
        let text: serde_json::Value = serde_json::from_str(text).unwrap();
        assert!(text == result["structuredContent"], "{name}: text and structure differ");
    }
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_are_those_of_the_role_s_identity() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let who = adapter.succeeding("broker_whoami", json!({})).await;
    assert_eq!((&who["role"], &who["identity"]), (&json!("notes"), &json!(NOTES)));
    let identity = adapter.succeeding("ravi_identity_get", json!({})).await;
    assert_eq!(identity["name"], NOTES);
    let secrets = adapter.succeeding("secrets_list", json!({})).await;
    assert_eq!(secrets, json!({ "secrets": [{ "key": "OPENAI_API_KEY" }, { "key": "OPENAI_ORG_ID" }] }));
    let passwords = adapter.succeeding("passwords_list", json!({})).await;
    let entry = |username: &str| json!({ "domain": "github.com", "username": username });
    assert_eq!(passwords, json!({ "passwords": [entry("notes-agent"), entry("notes-agent-ci")] }));

    let secret = adapter.succeeding("secrets_get", json!({ "key": "openai_api_key" })).await;
    assert!(secret["value"] == SECRET, "another value");
    assert_eq!(secret["lease"]["resource"], "secret/OPENAI_API_KEY");
    let wanted = json!({ "domain": "GitHub.com", "username": "notes-agent" });
    let password = adapter.succeeding("passwords_get", wanted).await;
    assert!(password["password"] == PASSWORD, "another value");
    assert_eq!(password["username"], "notes-agent");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_why_and_what_to_do_next() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let forbidden = adapter.failing("secrets_get", json!({ "key": "STRIPE_API_KEY" })).await;
    assert!(forbidden.starts_with("RESOURCE_NOT_AVAILABLE: "), "{forbidden}");
    assert!(forbidden.contains("\nDo not try other spellings."), "{forbidden}");
    assert!(forbidden.contains("secrets_list"), "{forbidden}");
    assert!(
        forbidden.contains("`ravi-broker explain den_"),
        "the operator has to be told the id: {forbidden}"
    );
    let forbidden = without_ids(&forbidden);
    // What is absent looks the same, whether or not the role could read it.
    for absent in ["OPENAI_ABSENT", "ABSENT"] {
        let absent = adapter.failing("secrets_get", json!({ "key": absent })).await;
        assert_eq!(without_ids(&absent), forbidden);
    }
    let site = adapter.failing("passwords_get", json!({ "domain": "example.com" })).await;
    assert_eq!(without_ids(&site), forbidden);

    let several = adapter.failing("passwords_get", json!({ "domain": "github.com" })).await;
    assert!(several.starts_with("ARGUMENT_INVALID: "), "{several}");
    assert!(several.contains("user"), "{several}");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_be_assumed_is_explained() {
    let another = "\n[role.another]\nidentity = \"deploy-agent\"\nmatch = { uid = 4242 }\nscopes = []\n";
    let stack = daemon(|setup| setup.roles.push_str(another)).await;
    let mut texts = Vec::new();
    for role in ["nobody", "another"] {
        let mut adapter = adapter(&stack, role).await;
        let text = adapter.failing("broker_whoami", json!({})).await;
        assert!(text.starts_with("ROLE_NOT_AVAILABLE: ") && text.contains("`match`"), "{text}");
        texts.push(without_ids(&text));
        adapter.ended_silently().await;
    }
    assert_eq!(texts[0], texts[1], "a role that is not there looks like one that does not match");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_broker_says_so_and_serves_again_once_it_is_unlocked() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let key = json!({ "key": "OPENAI_API_KEY" });
    adapter.succeeding("secrets_get", key.clone()).await;
    let admin = stack.admin().await;
    admin.lock("drill").await.unwrap();
    for tool in ["secrets_get", "secrets_get"] {
        let locked = adapter.failing(tool, key.clone()).await;
        assert!(locked.starts_with("BROKER_LOCKED: ") && locked.contains("on purpose"), "{locked}");
    }
    admin.unlock().await.unwrap();
    let again = adapter.succeeding("secrets_get", key).await;
    assert!(again["value"] == SECRET, "another value");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_says_how_long_to_wait() {
    let slow = |setup: &mut crate::support::Setup| {
        setup.roles = setup.roles.replace("read = \"6000/min\"", "read = \"2/h\"");
    };
    let stack = daemon(slow).await;
    let mut adapter = adapter(&stack, "notes").await;
    for _ in 0..2 {
        adapter.succeeding("broker_whoami", json!({})).await;
    }
    let limited = adapter.failing("broker_whoami", json!({})).await;
    assert!(limited.starts_with("RATE_LIMITED: "), "{limited}");
    assert!(limited.contains("\nWait ") && limited.contains(" seconds"), "{limited}");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_calls_at_once_are_all_answered() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let params = json!({ "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" } });
    for id in 0..20 {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        adapter.send(&call.to_string()).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = bounded(adapter.receive()).await;
        assert!(answer["result"]["structuredContent"]["value"] == SECRET, "no value");
        answered.insert(answer["id"].as_u64().unwrap());
    }
    assert_eq!(answered.len(), 20);
    assert_eq!(stack.audited("session.opened").len(), 1, "one session for a burst of first calls");
    adapter.ended_silently().await;
}

/// A person takes longer than a host likes to hear nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_told_that_a_call_waits_for_the_operator() {
    let stack = daemon(|setup| {
        setup.roles.push_str(
            "[role.asking]\nidentity = \"assistant-notes-agent\"\nmatch = { uid = UID }\n\
             scopes = [\"secret:read\"]\napprove = [\"secret:read\"]\n",
        );
    })
    .await;
    let mut adapter = adapter(&stack, "asking").await;
    let meta = json!({ "progressToken": "how far" });
    let params = json!({ "name": "secrets_get", "arguments": { "key": "OPENAI_API_KEY" }, "_meta": meta });
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    adapter.send(&call.to_string()).await;
    let told = adapter.receive().await;
    assert_eq!(told["method"], "notifications/progress", "{told}");
    assert!(told["params"]["message"].as_str().unwrap().contains("operator"), "{told}");
    let admin = stack.admin().await;
    let waiting = admin.approvals().await.unwrap().approvals;
    admin.decide_approval(waiting[0].approval_id, ravi_broker::client::ApprovalDecision::Once).await.unwrap();
    let answer = adapter.receive().await;
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(7), &json!(false)), "{answer}");
}
