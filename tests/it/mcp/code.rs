//! Waiting for a code as a model does it: the watch first, then the trigger, then the code.

use ravi_broker::sandbox::{NewMail, NewSms};
use serde_json::{Value, json};

use super::schema::assert_fits;
use super::{Adapter, EVERYTHING, adapter, daemon};
use crate::support::{NOTES, Stack, bounded};

const CODE: &str = "739214";

async fn stack() -> Stack {
    daemon(|setup| setup.roles.push_str(EVERYTHING)).await
}

fn sms(body: &str) -> NewSms {
    NewSms { identity: NOTES.into(), from: "+15559876543".into(), body: body.into(), ..NewSms::default() }
}

/// Calls until the code is there, as the answers say.
async fn waited(adapter: &mut Adapter, mut answer: Value) -> Value {
    let waiting = async {
        while answer["state"] != "arrived" {
            assert!(["watching", "waiting"].contains(&answer["state"].as_str().unwrap()), "{answer}");
            let arguments = json!({ "watch": answer["watch"], "wait_seconds": 20 });
            answer = adapter.succeeding("ravi_wait_for_code", arguments).await;
        }
        answer
    };
    bounded(waiting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_opens_a_watch_triggers_the_message_and_is_given_the_code() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "everything").await;
    let listed = adapter.request("tools/list", json!({})).await["result"]["tools"].take();
    let tool = listed.as_array().unwrap().iter().find(|tool| tool["name"] == "ravi_wait_for_code").unwrap();
    stack.control().deliver_sms(sms("Your verification code is 111222.")).unwrap();
    let first = json!({ "channel": "sms", "from": "+15559876543", "kind": "code", "reason": "sign in" });
    assert_fits(&tool["inputSchema"], &first, "first");
    let opened = adapter.succeeding("ravi_wait_for_code", first).await;
    assert_fits(&tool["outputSchema"], &opened, "opened");
    assert!(opened["next"].as_str().unwrap().starts_with("Now trigger the message"), "{opened}");
    stack.control().deliver_sms(sms("Your verification code is 739214.")).unwrap();
    let arrived = waited(&mut adapter, opened).await;
    assert_fits(&tool["outputSchema"], &arrived, "arrived");
    assert_eq!((&arrived["code"], &arrived["kind"]), (&json!(CODE), &json!("code")));
    assert!(arrived["message"].as_str().unwrap().starts_with("sms/"));
    assert_eq!(stack.audited("code.watched")[0]["reason"], "sign in");
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_link_comes_with_the_host_it_leads_to() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "everything").await;
    let first = json!({ "channel": "email", "from": "example.com", "kind": "link" });
    let opened = adapter.succeeding("ravi_wait_for_code", first).await;
    let link = "https://app.example.com/login/verify?token=Zk3v9QpLx2mN8sTb";
    let mail = NewMail {
        identity: NOTES.into(),
        from: "no-reply@example.com".into(),
        subject: "Sign in to Example".into(),
        text: format!("Hi,\n\nclick this link to sign in to Example:\n\n{link}\n\nIt expires in 10 minutes."),
        ..NewMail::default()
    };
    stack.control().deliver_mail(mail).unwrap();
    let arrived = waited(&mut adapter, opened).await;
    assert_eq!((&arrived["code"], &arrived["link_host"]), (&json!(link), &json!("app.example.com")));
    assert!(arrived["untrusted"].as_str().unwrap().contains("no-reply@example.com"));
    adapter.ended_silently().await;
}

/// Begins to wait and returns once it does.
async fn waiting(adapter: &mut Adapter, id: u32, watch: &Value) {
    let arguments = json!({ "watch": watch, "wait_seconds": 50 });
    let meta = json!({ "progressToken": "how far" });
    let params = json!({ "name": "ravi_wait_for_code", "arguments": arguments, "_meta": meta });
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    adapter.send(&call.to_string()).await;
    let told = adapter.receive().await;
    assert_eq!(told["method"], "notifications/progress");
    assert_eq!(
        (&told["params"]["progressToken"], &told["params"]["total"]),
        (&json!("how far"), &json!(50.0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_told_that_a_wait_goes_on() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "everything").await;
    let opened = adapter.succeeding("ravi_wait_for_code", json!({ "channel": "sms" })).await;
    assert!(opened["next"].as_str().unwrap().contains("anybody could send it"), "{opened}");
    waiting(&mut adapter, 1, &opened["watch"]).await;
    let told = adapter.receive().await;
    assert_eq!(told["params"]["progress"], json!(5.0));
    stack.control().deliver_sms(sms("Your verification code is 739214.")).unwrap();
    let mut answer = adapter.receive().await;
    while answer["method"] == "notifications/progress" {
        answer = adapter.receive().await;
    }
    assert_eq!(answer["result"]["structuredContent"]["code"], CODE);
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_cancelled_ends_at_once_and_closes_its_watch() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "everything").await;
    let opened = adapter.succeeding("ravi_wait_for_code", json!({ "channel": "sms" })).await;
    waiting(&mut adapter, 7, &opened["watch"]).await;
    let cancelled = json!({ "requestId": 7, "reason": "the user pressed escape" });
    let method = "notifications/cancelled";
    adapter.send(&json!({ "jsonrpc": "2.0", "method": method, "params": cancelled }).to_string()).await;
    bounded(async {
        loop {
            let result = adapter
                .call("ravi_wait_for_code", json!({ "watch": opened["watch"], "wait_seconds": 1 }))
                .await;
            let text = result["content"][0]["text"].as_str().unwrap();
            if text.starts_with("WATCH_NOT_AVAILABLE: ") || text.starts_with("WATCH_EXPIRED: ") {
                assert!(text.contains("without one"), "{text}");
                break;
            }
        }
    })
    .await;
    adapter.ended_silently().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fits_neither_step_says_what_each_takes() {
    let stack = stack().await;
    let mut adapter = adapter(&stack, "everything").await;
    for wrong in [
        json!({}),
        json!({ "channel": "fax" }),
        json!({ "channel": "sms", "kind": "canary" }),
        json!({ "watch": "canary" }),
        json!({ "channel": "sms", "from": "canary ".repeat(100) }),
        json!({ "watch": "wat_aaaaaaaaaaaaaaaaaaaaaaaaaa", "wait_seconds": -1 }),
    ] {
        let refused = adapter.failing("ravi_wait_for_code", wrong).await;
        assert!(refused.starts_with("ARGUMENT_INVALID: ") && !refused.contains("canary"), "{refused}");
    }
    adapter.ended_silently().await;
}
