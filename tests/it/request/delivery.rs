//! Where a value may go: to the caller, or past it.

use ravi_broker::client::{Delivery, ErrorReason};

use super::reason;
use crate::support::Stack;

const KEY: &str = "secret/OPENAI_API_KEY";
const INJECTED: [Delivery; 5] =
    [Delivery::File, Delivery::Descriptor, Delivery::Stdin, Delivery::Environment, Delivery::Helper];

/// A role that may use one secret and see another, and have values put into files and nowhere else.
async fn stack() -> Stack {
    Stack::with(|setup| {
        setup.roles.push_str(
            "[role.user]\nidentity = \"assistant-notes-agent\"\nmatch = { uid = UID }\nuse_by = \"any\"\n\
             scopes = [\"secret:use:OPENAI_API_KEY\", \"secret:read:OPENAI_ORG_ID\"]\ninject = [\"file\"]\n",
        );
    })
    .await
}

/// I7, I10.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_may_only_be_used_is_never_shown() {
    let stack = stack().await;
    let agent = stack.agent("user").await;
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::ResourceNotAvailable);
    for delivery in INJECTED.into_iter().filter(|delivery| *delivery != Delivery::File) {
        let refused = agent.acquire_for(KEY, None, "", delivery).await;
        assert_eq!(reason(refused), ErrorReason::DeliveryNotAllowed, "{delivery:?}");
        // A name that the session has no right to looks absent, whatever the way.
        let strange = agent.acquire_for("secret/STRIPE_API_KEY", None, "", delivery).await;
        assert_eq!(reason(strange), ErrorReason::ResourceNotAvailable, "{delivery:?}");
    }
    assert_eq!(stack.control().total_requests(), 0);
    let denied = stack.audited("lease.denied");
    let causes: Vec<&str> = denied.iter().filter_map(|record| record["cause"].as_str()).collect();
    assert_eq!(causes[..3], ["scope_missing", "delivery_forbidden", "scope_missing"]);
    assert_eq!(causes.len(), 9);
    agent.acquire_for(KEY, None, "", Delivery::File).await.unwrap();
}

/// The lease remembers its way: reading it again needs no more than it did, and no less.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_read_and_renewed_in_the_way_it_was_granted() {
    let stack = stack().await;
    let agent = stack.agent("user").await;
    let (lease, _) = agent.acquire_for(KEY, None, "", Delivery::File).await.unwrap();
    let (seen, _) = agent.acquire_for("secret/OPENAI_ORG_ID", None, "", Delivery::File).await.unwrap();
    agent.read(lease.lease_id).await.unwrap();
    agent.renew(lease.lease_id, None).await.unwrap();
    agent.read(seen.lease_id).await.unwrap();
    stack.rewrite(|text| text.replace("inject = [\"file\"]", "inject = [\"fd\"]"));
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::DeliveryNotAllowed);
    assert_eq!(reason(agent.renew(lease.lease_id, None).await), ErrorReason::DeliveryNotAllowed);
    assert_eq!(reason(agent.read(seen.lease_id).await), ErrorReason::DeliveryNotAllowed);
    stack.rewrite(|text| text.replace("secret:use:OPENAI_API_KEY", "secret:list"));
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::ResourceNotAvailable);
}
