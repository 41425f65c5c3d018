//! The end of a session, moved.

use std::time::Duration;

use futures_util::StreamExt;
use ravi_broker::client::{AgentClient, DelegateSession, ErrorReason, OpenSession};

use super::reason;
use crate::support::{Stack, bounded};

const KEY: &str = "secret/OPENAI_API_KEY";
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn near(life: Duration, wanted: Duration) -> bool {
    life <= wanted && life + Duration::from_secs(60) > wanted
}

/// Waits until the session of this client is over, and returns why.
async fn end(agent: &AgentClient) -> ErrorReason {
    let events = agent.watch_leases().await.unwrap();
    let seen: Vec<_> = bounded(events.collect()).await;
    reason(seen.into_iter().next_back().expect("the end of the stream"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_moves_both_ways_and_never_beyond_the_role() {
    let stack = Stack::with(|setup| setup.roles.push_str("[role.notes.session]\nttl = \"2h\"\n")).await;
    let (session, agent) = stack.opened(OpenSession { ttl: Some(HOUR), ..OpenSession::role("notes") }).await;
    for (asked, given) in
        [(Some(HOUR / 2), HOUR / 2), (Some(HOUR), HOUR), (None, 2 * HOUR), (Some(24 * HOUR), 2 * HOUR)]
    {
        let renewed = agent.renew_session(asked).await.unwrap();
        assert_eq!((renewed.session_id, &renewed.scopes), (session.session_id, &session.scopes));
        assert!(near(renewed.expires_in, given), "{asked:?}: {:?}", renewed.expires_in);
        let described = agent.describe_session().await.unwrap().session;
        assert_eq!(described.expires_at.as_second(), renewed.expires_at.as_second());
    }
    assert_eq!(reason(agent.renew_session(Some(Duration::ZERO)).await), ErrorReason::ArgumentInvalid);
    let renewals = stack.audited("session.renewed");
    let ttls: Vec<_> = renewals.iter().map(|record| record["ttl"].as_u64().unwrap()).collect();
    assert_eq!(ttls, [1800, 3600, 7200, 7200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_child_moves_no_further_than_its_parents() {
    let stack = Stack::start().await;
    let parent = stack.agent_for("notes", Some(HOUR)).await;
    let how = DelegateSession { ttl: Some(HOUR / 4), ..DelegateSession::default() };
    let (_, token) = parent.delegate_session(how).await.unwrap();
    let child = stack.holder(&token).await;
    let (_, token) = child.delegate_session(DelegateSession::default()).await.unwrap();
    let grandchild = stack.holder(&token).await;
    let left = async |agent: &AgentClient| agent.describe_session().await.unwrap().session.expires_in;
    assert!(near(child.renew_session(Some(HOUR / 2)).await.unwrap().expires_in, HOUR / 2));
    for wish in [Some(2 * HOUR), None] {
        assert!(near(child.renew_session(wish).await.unwrap().expires_in, HOUR));
    }
    let ttls: Vec<_> =
        stack.audited("session.renewed").into_iter().map(|record| record["ttl"].as_u64().unwrap()).collect();
    assert!(
        ttls.iter().all(|ttl| *ttl <= 3600),
        "what was granted is recorded, not what was asked: {ttls:?}"
    );
    // The parent goes on longer, and then it may.
    parent.renew_session(Some(2 * HOUR)).await.unwrap();
    assert!(near(left(&child).await, HOUR));
    assert!(near(child.renew_session(Some(2 * HOUR)).await.unwrap().expires_in, 2 * HOUR));
    grandchild.renew_session(None).await.unwrap();
    // What is cut above is cut below, all the way down.
    parent.renew_session(Some(HOUR / 8)).await.unwrap();
    assert!(near(left(&child).await, HOUR / 8) && near(left(&grandchild).await, HOUR / 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_session_outlives_its_old_deadline() {
    let stack = Stack::start().await;
    let renewed = stack.agent_for("notes", Some(SECOND)).await;
    let how = DelegateSession { ttl: Some(SECOND), ..DelegateSession::default() };
    renewed.renew_session(Some(HOUR)).await.unwrap();
    let (_, token) = renewed.delegate_session(how).await.unwrap();
    let child = stack.holder(&token).await;
    child.renew_session(Some(HOUR)).await.unwrap();
    let (lease, _) = renewed.acquire(KEY, Some(HOUR), "").await.unwrap();
    assert!(lease.expires_in > 10 * SECOND, "leases reach as far as the new end");
    // A session of the same length, opened later, ends later than they would have.
    let clock = stack.agent_for("notes", Some(SECOND)).await;
    assert_eq!(end(&clock).await, ErrorReason::SessionExpired);
    renewed.read(lease.lease_id).await.unwrap();
    child.describe_session().await.unwrap();
    assert_eq!(stack.audited("session.expired").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_session_ends_at_its_new_end_with_all_below_it() {
    let stack = Stack::start().await;
    let agent = stack.agent_for("notes", Some(HOUR)).await;
    let (_, token) = agent.delegate_session(DelegateSession::default()).await.unwrap();
    let child = stack.holder(&token).await;
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    agent.renew_session(Some(SECOND)).await.unwrap();
    assert_eq!(end(&child).await, ErrorReason::SessionExpired);
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::SessionExpired);
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_not_renewed() {
    let stack = Stack::start().await;
    let expired = stack.agent_for("notes", Some(SECOND)).await;
    assert_eq!(end(&expired).await, ErrorReason::SessionExpired);
    assert_eq!(reason(expired.renew_session(Some(HOUR)).await), ErrorReason::SessionExpired);
    let closed = stack.agent("notes").await;
    closed.close_session().await.unwrap();
    assert_eq!(reason(closed.renew_session(Some(HOUR)).await), ErrorReason::SessionRevoked);
    assert_eq!(
        reason(closed.delegate_session(DelegateSession::default()).await),
        ErrorReason::SessionRevoked
    );
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 0);
    assert!(stack.audited("session.renewed").is_empty());
}
