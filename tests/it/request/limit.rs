//! Rates and budgets: shared by the sessions of a role, taken by denied requests too.

use std::time::Duration;

use ravi_broker::client::{AgentClient, ErrorReason, OpenSession};
use ravi_broker::secret::Secret;

use super::{reason, refusal};
use crate::support::{Setup, Stack};

const HOUR: Duration = Duration::from_secs(3600);
const KEY: &str = "secret/OPENAI_API_KEY";

fn with_rate(read: &str, send: &str) -> impl FnOnce(&mut Setup) {
    let rate = format!("rate = {{ read = {read:?}, send = {send:?} }}");
    move |setup| {
        setup.roles = setup.roles.replace("rate = { read = \"60000/min\", send = \"600/min\" }", &rate)
    }
}

async fn left(agent: &AgentClient, name: &str) -> u32 {
    let limits = agent.describe_session().await.unwrap().limits;
    limits.iter().find(|limit| limit.name == name).expect("a limit of that name").remaining
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_role_share_its_rate_and_a_new_one_does_not_refill_it() {
    let stack = Stack::with(with_rate("3/h", "600/min")).await;
    let (first, second) = (stack.agent("deploy").await, stack.agent("deploy").await);
    let (lease, _) = first.acquire(KEY, None, "").await.unwrap();
    second.acquire(KEY, None, "").await.unwrap();
    first.read(lease.lease_id).await.unwrap();
    let calls = stack.control().total_requests();
    for agent in [&first, &second, &stack.agent("deploy").await] {
        let refused = refusal(agent.acquire(KEY, None, "").await);
        assert_eq!((refused.reason, refused.limit.as_deref()), (ErrorReason::RateLimited, Some("rate.read")));
        let wait = refused.retry_after.expect("it says when to come back");
        assert!(wait > Duration::from_secs(60) && wait <= HOUR / 3, "{wait:?}");
    }
    assert_eq!(reason(first.list_leases().await), ErrorReason::RateLimited);
    assert_eq!(reason(first.watch_leases().await.map(drop)), ErrorReason::RateLimited);
    assert_eq!(stack.control().total_requests(), calls);
    // Another role has its own, changes have theirs, and what gives something back is never limited.
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    first.set_secret("FRESH", &Secret::copy_of("value"), "").await.unwrap();
    first.release(lease.lease_id).await.unwrap();
    first.close_session().await.unwrap();
    let limited = stack.audit().into_iter().filter(|record| record["cause"] == "rate_limited").count();
    assert_eq!(limited, 5);
}

/// Guessing costs the guesser.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_takes_from_the_rate() {
    let stack = Stack::with(with_rate("4/h", "2/h")).await;
    let agent = stack.agent("deploy").await;
    assert_eq!(reason(agent.acquire("secret/ABSENT", None, "").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(agent.acquire("no name", None, "").await), ErrorReason::ResourceNameInvalid);
    let unknown = ravi_broker::types::LeaseId([7; 16]);
    assert_eq!(reason(agent.read(unknown).await), ErrorReason::LeaseNotAvailable);
    assert_eq!(reason(agent.renew(unknown, None).await), ErrorReason::LeaseNotAvailable);
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::RateLimited);
    assert_eq!(reason(agent.delete_secret("ABSENT", "").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(agent.delete_secret("no name", "").await), ErrorReason::ResourceNameInvalid);
    assert_eq!(reason(agent.delete_secret("ABSENT", "").await), ErrorReason::RateLimited);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_have_a_rate_of_their_own() {
    let stack = Stack::with(with_rate("600/min", "1/h")).await;
    let agent = stack.agent("deploy").await;
    let set = async || agent.set_secret("FRESH", &Secret::copy_of("value"), "").await;
    set().await.unwrap();
    let posts = stack.control().requests("POST", "/api/secrets/");
    let refused = refusal(set().await);
    assert_eq!((refused.reason, refused.limit.as_deref()), (ErrorReason::RateLimited, Some("rate.send")));
    assert!(refused.retry_after.is_some_and(|wait| wait > HOUR / 2 && wait <= HOUR));
    assert_eq!(stack.control().requests("POST", "/api/secrets/"), posts);
    agent.acquire("secret/FRESH", None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_what_is_left_of_its_rates() {
    let stack = Stack::with(with_rate("10/h", "5/h")).await;
    let agent = stack.agent("deploy").await;
    assert_eq!(left(&agent, "read").await, 9, "the question itself is a read");
    agent.acquire(KEY, None, "").await.unwrap();
    stack.agent("deploy").await.acquire(KEY, None, "").await.unwrap();
    assert_eq!(left(&agent, "read").await, 6);
    assert_eq!(left(&agent, "send").await, 5);
    agent.set_secret("FRESH", &Secret::copy_of("value"), "").await.unwrap();
    assert_eq!(left(&agent, "send").await, 4);
    let limits = agent.describe_session().await.unwrap().limits;
    let rates: Vec<_> = limits.iter().map(|limit| (limit.name.as_str(), limit.rate.as_str())).collect();
    assert_eq!(rates, [("read", "10/h"), ("send", "5/h")]);
    assert!(limits[0].resets_in > HOUR / 2 && limits[0].resets_in <= HOUR);
}

/// The one socket call without a session: by user, whether or not a role matches.
#[tokio::test(flavor = "multi_thread")]
async fn opening_sessions_is_limited_for_each_user() {
    let stack = Stack::with(|setup| setup.sections.push_str("[limits]\nopen = \"3/h\"\n")).await;
    let stranger = stack.stranger().await;
    let agent = stack.agent("notes").await;
    assert_eq!(
        reason(stranger.open_session(OpenSession::role("absent")).await),
        ErrorReason::RoleNotAvailable
    );
    stack.agent("deploy").await;
    for role in ["notes", "absent"] {
        let refused = refusal(stranger.open_session(OpenSession::role(role)).await);
        assert_eq!(
            (refused.reason, refused.limit.as_deref()),
            (ErrorReason::RateLimited, Some("limits.open"))
        );
        assert!(refused.retry_after.is_some_and(|wait| wait > Duration::from_secs(60) && wait <= HOUR / 3));
    }
    agent.acquire(KEY, None, "").await.unwrap();
}

/// What Ravi is asked in all; what is cached is served on.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_calls_to_ravi_is_kept() {
    let stack = Stack::with(|setup| setup.budget = "3/h").await;
    let agent = stack.agent("deploy").await;
    agent.acquire(KEY, None, "").await.unwrap();
    agent.acquire("secret/STRIPE_API_KEY", None, "").await.unwrap();
    assert_eq!(stack.control().total_requests(), 3, "who the identity is, and two values");
    let refused = refusal(agent.acquire("secret/REGISTRY_TOKEN", None, "").await);
    assert_eq!(
        (refused.reason, refused.limit.as_deref()),
        (ErrorReason::RateLimited, Some("upstream.budget"))
    );
    assert!(refused.retry_after.is_some_and(|wait| wait > Duration::from_secs(60) && wait <= HOUR / 3));
    let set = agent.set_secret("FRESH", &Secret::copy_of("value"), "").await;
    assert_eq!(reason(set), ErrorReason::RateLimited);
    assert_eq!(stack.control().total_requests(), 3);
    agent.acquire(KEY, None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_cannot_use_up_the_budget_of_another() {
    let stack = Stack::with(|setup| setup.identity_budget = "1/h").await;
    let agent = stack.agent("deploy").await;
    agent.acquire(KEY, None, "").await.unwrap();
    assert_eq!(reason(agent.acquire("secret/STRIPE_API_KEY", None, "").await), ErrorReason::RateLimited);
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
}

/// A new rate is in force with the reload, and whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_puts_a_new_rate_in_force() {
    let stack = Stack::with(with_rate("1/h", "600/min")).await;
    let agent = stack.agent("deploy").await;
    agent.acquire(KEY, None, "").await.unwrap();
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::RateLimited);
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::RateLimited, "the same rate goes on");
    stack.rewrite(|text| text.replace("\"1/h\"", "\"2/h\""));
    stack.admin().await.reload().await.unwrap();
    agent.acquire(KEY, None, "").await.unwrap();
}

/// One session must not take all that its role may.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_a_rate_of_its_own_where_its_role_sets_one() {
    let rate = "rate = { read = \"60000/min\", send = \"600/min\" }";
    let own = "rate = { read = \"100/h\", session_read = \"2/h\" }";
    let stack = Stack::with(|setup| setup.roles = setup.roles.replace(rate, own)).await;
    let (first, second) = (stack.agent("deploy").await, stack.agent("deploy").await);
    assert_eq!(left(&first, "session_read").await, 1);
    first.acquire(KEY, None, "").await.unwrap();
    let refused = refusal(first.acquire(KEY, None, "").await);
    assert_eq!(refused.limit.as_deref(), Some("rate.session_read"));
    second.acquire(KEY, None, "").await.unwrap();
    // The role's own limit is taken from only by what passed.
    assert_eq!(left(&second, "read").await, 96);
}
