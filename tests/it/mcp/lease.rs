//! No lease stays behind: a model never comes back to one.

use serde_json::json;

use super::{PASSWORD, SECRET, adapter, daemon};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_readings_fit_into_four_leases() {
    let few = |setup: &mut crate::support::Setup| {
        setup.roles = setup.roles.replace("max_live = 32", "max_live = 4");
    };
    let stack = daemon(few).await;
    let mut adapter = adapter(&stack, "notes").await;
    for _ in 0..50 {
        let secret = adapter.succeeding("secrets_get", json!({ "key": "OPENAI_API_KEY" })).await;
        assert!(secret["value"] == SECRET, "another value");
        let wanted = json!({ "domain": "github.com", "username": "notes-agent" });
        let password = adapter.succeeding("passwords_get", wanted).await;
        assert!(password["password"] == PASSWORD, "another value");
    }
    let who = adapter.succeeding("broker_whoami", json!({})).await;
    assert_eq!((&who["live_leases"], &who["max_live_leases"]), (&json!(0), &json!(4)));
    assert_eq!(stack.admin().await.status().await.unwrap().leases, 0);
    assert_eq!(stack.audited("lease.acquired").len(), 100);
    assert_eq!(stack.audited("lease.released").len(), 100);
    adapter.ended_silently().await;
}
