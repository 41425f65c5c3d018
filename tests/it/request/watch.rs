//! `WatchLeases`: what a session is told about its leases, and when the telling ends.

use std::time::Duration;

use futures_util::StreamExt;
use ravi_broker::client::{ClientError, ErrorReason, Events, Lease, LeaseEvent, LeaseHandle, RevokeTarget};
use ravi_broker::secret::Secret;

use super::{reason, refusal};
use crate::support::{DEPLOY, NOTES, Stack, bounded, until};

const SECOND: Duration = Duration::from_secs(1);

async fn next(events: &mut Events<LeaseEvent>) -> Result<LeaseEvent, ClientError> {
    bounded(events.next()).await.expect("the stream says why it ends")
}

fn of(lease: &Lease) -> LeaseHandle {
    LeaseHandle { lease_id: lease.lease_id, resource: lease.resource.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_warns_before_its_end_and_tells_its_end() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let other = stack.agent("notes").await;
    let mut events = agent.watch_leases().await.unwrap();
    let mut others = other.watch_leases().await.unwrap();
    let (lease, _) = agent.acquire("identity/email", Some(SECOND * 6 / 5), "").await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Expiring(of(&lease)));
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Expired(of(&lease)));
    // The other session of the role has seen nothing of it: this is its first event.
    other.close_session().await.unwrap();
    assert_eq!(reason(next(&mut others).await), ErrorReason::SessionRevoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_lease_does_not_end_at_its_old_end() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let mut events = agent.watch_leases().await.unwrap();
    let (renewed, _) = agent.acquire("identity/email", Some(SECOND), "").await.unwrap();
    agent.renew(renewed.lease_id, Some(60 * SECOND)).await.unwrap();
    let (later, _) = agent.acquire("identity/email", Some(SECOND), "").await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Expired(of(&later)));
    agent.read(renewed.lease_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_broker_replaced_is_announced_to_all_who_lease_it() {
    let stack = Stack::start().await;
    let (writer, reader) = (stack.agent("deploy").await, stack.agent("deploy").await);
    let notes = stack.agent("notes").await;
    let (lease, _) = reader.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    reader.acquire("secret/STRIPE_API_KEY", None, "").await.unwrap();
    notes.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut events = reader.watch_leases().await.unwrap();
    let mut of_notes = notes.watch_leases().await.unwrap();
    writer.set_secret("OPENAI_API_KEY", &Secret::copy_of("second value"), "").await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Rotated(of(&lease)));
    let (lease, credential) = reader.read(lease.lease_id).await.unwrap();
    assert_eq!((lease.uses, credential.value.expose()), (2, "second value"));
    // The same name in another identity is another secret (I8).
    notes.close_session().await.unwrap();
    assert!(matches!(next(&mut of_notes).await.unwrap(), LeaseEvent::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_broker_replaced_is_announced() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let (lease, _) = agent.acquire("password/grafana.net", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    let update = ravi_broker::client::UpdatePassword {
        resource: "password/grafana.net".into(),
        password: Some(Secret::copy_of("second value")),
        length: None,
        reason: String::new(),
    };
    agent.update_password(update).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Rotated(of(&lease)));
    assert_eq!(agent.read(lease.lease_id).await.unwrap().1.value.expose(), "second value");
}

/// Somebody changed it at Ravi: whoever reads it next finds out for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_replaced_behind_the_brokers_back_is_announced_when_it_is_read() {
    let stack = Stack::with(|setup| setup.sections.push_str("[vault]\nfresh_for = \"1s\"\n")).await;
    let (agent, other) = (stack.agent("notes").await, stack.agent("notes").await);
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("second value")).unwrap();
    // It ends after the value has ceased to be fresh.
    let (clock, _) = agent.acquire("identity/email", Some(SECOND * 21 / 20), "").await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Expiring(of(&clock)));
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Expired(of(&clock)));
    let (_, credential) = other.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "second value");
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Rotated(of(&lease)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_operator_revoked_is_announced_and_the_session_goes_on() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    stack.admin().await.revoke(RevokeTarget::Lease(lease.lease_id), "").await.unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Revoked(of(&lease)));
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_with_the_session_after_every_lease_was_told() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    for resource in ["secret/OPENAI_API_KEY", "identity/email", "password/grafana.net"] {
        agent.acquire(resource, None, "").await.unwrap();
    }
    let mut events = agent.watch_leases().await.unwrap();
    agent.close_session().await.unwrap();
    for _ in 0..3 {
        assert!(matches!(next(&mut events).await.unwrap(), LeaseEvent::Revoked(_)));
    }
    assert_eq!(reason(next(&mut events).await), ErrorReason::SessionRevoked);
    assert!(bounded(events.next()).await.is_none());
}

/// I5: a session has eight watchers, and a place is free again when one goes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_ninth_watcher_of_a_session_is_refused() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(agent.watch_leases().await.unwrap());
    }
    let refused = refusal(agent.watch_leases().await.map(drop));
    assert_eq!(refused.reason, ErrorReason::CapacityReached);
    assert!(refused.limit.is_some_and(|limit| limit.contains("watchers")));
    drop(stack.agent("notes").await.watch_leases().await.unwrap());
    watchers.pop();
    until(async || agent.watch_leases().await.is_ok()).await;
}

/// A reader that does not read is told that it missed some, and holds nobody up (I5).
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_misses_events_and_holds_nobody_up() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    for _ in 0..100 {
        agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    }
    let mut events = agent.watch_leases().await.unwrap();
    let value = |round: usize| Secret::new(format!("value {round}"));
    for round in 0..20 {
        agent.set_secret("OPENAI_API_KEY", &value(round), "").await.unwrap();
    }
    stack.control().set_secret(DEPLOY, "OPENAI_API_KEY", value(99)).unwrap();
    agent.close_session().await.unwrap();
    let mut missed = false;
    loop {
        match next(&mut events).await {
            Ok(event) => missed |= event == LeaseEvent::Missed,
            Err(end) => break assert_eq!(end.reason(), Some(ErrorReason::SessionRevoked)),
        }
    }
    assert!(missed);
}

/// Nobody reads it, and the answer is fresh for less than a round of housekeeping.
#[tokio::test(flavor = "multi_thread")]
async fn a_watched_value_that_was_replaced_behind_the_brokers_back_is_announced_by_itself() {
    let stack = Stack::with(|setup| setup.sections.push_str("[vault]\nfresh_for = \"2s\"\n")).await;
    let agent = stack.agent("notes").await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("second value")).unwrap();
    assert_eq!(next(&mut events).await.unwrap(), LeaseEvent::Rotated(of(&lease)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_ravi_refused_is_not_announced() {
    use ravi_broker::sandbox::{Answer, Fault};
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    agent.acquire("password/grafana.net", None, "").await.unwrap();
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    stack.control().add_fault(Fault::new("/api/", Answer::Status(403)).on("PATCH")).unwrap();
    stack.control().add_fault(Fault::new("/api/", Answer::Status(403)).on("DELETE")).unwrap();
    let update = ravi_broker::client::UpdatePassword {
        resource: "password/grafana.net".into(),
        password: Some(Secret::copy_of("second value")),
        length: None,
        reason: String::new(),
    };
    let refused = ErrorReason::UpstreamRefused;
    assert_eq!(reason(agent.update_password(update).await), refused);
    assert_eq!(reason(agent.delete_password("password/grafana.net", "").await), refused);
    let value = Secret::copy_of("second value");
    assert_eq!(reason(agent.set_secret("OPENAI_API_KEY", &value, "").await), refused);
    assert_eq!(reason(agent.delete_secret("OPENAI_API_KEY", "").await), refused);
    agent.close_session().await.unwrap();
    let first = next(&mut events).await.unwrap();
    assert!(matches!(first, LeaseEvent::Revoked(_)), "{first:?}");
}
