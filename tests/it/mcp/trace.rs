//! The trace of a host's call goes on to the daemon.

use serde_json::json;

use super::{adapter, daemon};
use crate::support::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_that_a_host_names_in_meta_is_in_the_daemons_log() {
    let stack = daemon(|_| {}).await;
    let mut adapter = adapter(&stack, "notes").await;
    let mut call = async |trace: serde_json::Value| {
        let params =
            json!({ "name": "ravi_identity_get", "arguments": {}, "_meta": { "traceparent": trace } });
        let answer = adapter.request("tools/call", params).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    };
    let read = "method=\"IdentityService/GetIdentity\"";
    for odd in [json!("00-short"), json!(7), json!(format!("00-{TRACE}-00f067aa0ba902b7-01 "))] {
        call(odd).await;
    }
    until(async || stack.daemon.log().matches(read).count() == 3).await;
    assert!(!stack.daemon.log().contains(TRACE));
    call(json!(format!("00-{TRACE}-00f067aa0ba902b7-01"))).await;
    let traced = format!("{read} trace_id=\"{TRACE}\"");
    until(async || stack.daemon.log().contains(&traced)).await;
}
