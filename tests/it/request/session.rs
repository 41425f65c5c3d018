//! Sessions: who may assume a role, with how much, for how long.

use std::time::Duration;

use futures_util::StreamExt;
use ravi_broker::client::{AgentClient, ClientError, ErrorReason, OpenSession};
use ravi_broker::secret::Secret;

use super::{reason, refusal};
use crate::support::{Stack, bounded};

const HOUR: Duration = Duration::from_secs(3600);

async fn open(client: &AgentClient, role: &str) -> Result<(), ClientError> {
    client.open_session(OpenSession::role(role)).await.map(drop)
}

/// Absent, for another user, group or program, or no name at all: the caller is not told which, the
/// operator is, and Ravi is not asked (I7, I10).
#[tokio::test(flavor = "multi_thread")]
async fn an_absent_role_and_one_that_does_not_match_look_the_same() {
    let stack = Stack::with(|setup| {
        for (name, matcher) in [
            ("other-user", "uid = 4242"),
            ("other-group", "gid = 4242"),
            ("other-program", "exe = \"/nonexistent/agent\""),
            ("one-of-two", "uid = UID, exe = \"/nonexistent/agent\""),
        ] {
            setup.roles.push_str(&format!(
                "[role.{name}]\nidentity = \"deploy-agent\"\nmatch = {{ {matcher} }}\nscopes = [\"secret:read\"]\n"
            ));
        }
    })
    .await;
    let stranger = stack.stranger().await;
    let absent = refusal(open(&stranger, "absent").await);
    assert_eq!(absent.reason, ErrorReason::RoleNotAvailable);
    for role in ["other-user", "other-group", "other-program", "one-of-two", "NOTES", "no/tes", ""] {
        assert_eq!(refusal(open(&stranger, role).await), absent, "{role:?}");
    }
    let denied = stack.audited("session.denied");
    let causes: Vec<&str> = denied.iter().filter_map(|record| record["cause"].as_str()).collect();
    let mismatch = "role_mismatch";
    assert_eq!(causes, ["role_unknown", mismatch, mismatch, mismatch, mismatch]);
    assert_eq!(denied[1]["role"], "other-user");
    assert_eq!(stack.control().total_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_give_up_scopes_and_they_are_gone() {
    let stack = Stack::start().await;
    let scopes = vec!["secret:read:openai_api_key".to_owned(), "identity:read".to_owned()];
    let (session, agent) = stack.opened(OpenSession { scopes, ..OpenSession::role("notes") }).await;
    assert_eq!(session.scopes, ["secret:read:OPENAI_API_KEY", "identity:read"]);
    assert_eq!(agent.describe_session().await.unwrap().session.scopes, session.scopes);
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let calls = stack.control().total_requests();
    for resource in ["secret/OPENAI_ORG_ID", "password/github.com/notes-agent"] {
        let refused = agent.acquire(resource, None, "").await;
        assert_eq!(reason(refused), ErrorReason::ResourceNotAvailable, "{resource}");
    }
    assert_eq!(reason(agent.list_secrets().await), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().total_requests(), calls);
    let denied = stack.audited("lease.denied");
    assert!(denied.iter().all(|record| record["cause"] == "scope_not_granted"), "{denied:?}");
    // The role has not lost them.
    stack.agent("notes").await.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_take_more_than_its_role_has() {
    let stack = Stack::start().await;
    let stranger = stack.stranger().await;
    let ask = async |scopes: Vec<String>| {
        stranger.open_session(OpenSession { scopes, ..OpenSession::role("notes") }).await
    };
    for wider in [
        "secret:read",
        "secret:read:*",
        "secret:read:OPENAI*",
        "secret:read:STRIPE_API_KEY",
        "secret:use:OPENAI_API_KEY",
        "secret:write:OPENAI_API_KEY",
        "password:read",
        "sso:mint",
    ] {
        let asked = vec!["secret:read:OPENAI_API_KEY".to_owned(), wider.to_owned()];
        assert_eq!(reason(ask(asked).await), ErrorReason::ScopeNotGranted, "{wider}");
    }
    for malformed in
        ["", "secret", "secret:", "secret:read:", "secret:mint", "Secret:read", "secret:read:A\0"]
    {
        let refused = refusal(ask(vec![malformed.to_owned()]).await);
        assert_eq!(refused.reason, ErrorReason::ArgumentInvalid, "{malformed:?}");
    }
    assert_eq!(reason(ask(vec!["identity:read".into(); 257]).await), ErrorReason::ArgumentInvalid);
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_session_is_cut_to_its_roles() {
    let stack = Stack::with(|setup| setup.roles.push_str("[role.notes.session]\nttl = \"1h\"\n")).await;
    let life = async |ttl| stack.opened(OpenSession { ttl, ..OpenSession::role("notes") }).await.0.expires_in;
    let near = |life: Duration, wanted: Duration| life <= wanted && life + Duration::from_secs(60) > wanted;
    assert!(near(life(Some(24 * HOUR)).await, HOUR));
    assert!(near(life(None).await, HOUR));
    assert!(near(life(Some(HOUR / 2)).await, HOUR / 2));
    let zero = OpenSession { ttl: Some(Duration::ZERO), ..OpenSession::role("notes") };
    assert_eq!(reason(stack.stranger().await.open_session(zero).await), ErrorReason::ArgumentInvalid);
}

/// I3: the leases go with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_time_is_up_and_says_so() {
    let stack = Stack::start().await;
    // Warm, so that the second is long.
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let agent = stack.agent_for("notes", Some(Duration::from_secs(1))).await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", Some(HOUR), "").await.unwrap();
    assert!(lease.expires_in <= Duration::from_secs(1));
    let seen: Vec<_> = bounded(agent.watch_leases().await.unwrap().collect()).await;
    let end = seen.into_iter().next_back().expect("the end of the stream");
    assert_eq!(reason(end), ErrorReason::SessionExpired);
    assert_eq!(reason(agent.describe_session().await), ErrorReason::SessionExpired);
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::SessionExpired);
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (1, 1), "the other one goes on");
    assert_eq!(stack.audited("session.expired").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_session_is_dead_and_its_leases_with_it() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let other = stack.agent("notes").await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    agent.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
    other.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
    assert_eq!(agent.close_session().await.unwrap(), 2);
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::SessionRevoked);
    assert_eq!(reason(agent.describe_session().await), ErrorReason::SessionRevoked);
    assert_eq!(reason(agent.close_session().await), ErrorReason::SessionRevoked);
    assert_eq!(other.list_leases().await.unwrap().len(), 1);
    assert_eq!(stack.audited("session.closed")[0]["ended_leases"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_of_a_session_is_refused() {
    let stack = Stack::start().await;
    let (_, token) = stack.stranger().await.open_session(OpenSession::role("notes")).await.unwrap();
    let stranger = stack.stranger().await;
    assert_eq!(
        reason(stranger.acquire("secret/OPENAI_API_KEY", None, "").await),
        ErrorReason::SessionRequired
    );
    assert_eq!(reason(stranger.close_session().await), ErrorReason::SessionRequired);
    let last = token.expose().chars().next_back().expect("a character");
    let other = if last == 'A' { 'Q' } else { 'A' };
    let known = token.expose().strip_suffix(last).expect("its end");
    let mut answers = Vec::new();
    for wrong in ["", "rbt_", "x", known, &format!("{known}{other}"), &format!("{}A", token.expose())] {
        let agent = stack.holder(&Secret::copy_of(wrong)).await;
        answers.push(refusal(agent.acquire("secret/OPENAI_API_KEY", None, "").await));
    }
    assert_eq!(answers[0].reason, ErrorReason::SessionInvalid);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    stack.holder(&token).await.describe_session().await.unwrap();
    assert_eq!(stack.control().total_requests(), 0);
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_sessions_in_all_and_of_one_role() {
    let stack = Stack::with(|setup| {
        setup.sections.push_str("[limits]\nsessions = 2\n");
        setup.roles.push_str("[role.deploy.session]\nmax_live = 1\n");
    })
    .await;
    let stranger = stack.stranger().await;
    let first = stack.agent("deploy").await;
    let of_role = refusal(open(&stranger, "deploy").await);
    assert_eq!(
        (of_role.reason, of_role.limit.as_deref()),
        (ErrorReason::CapacityReached, Some("session.max_live"))
    );
    open(&stranger, "notes").await.unwrap();
    let of_all = refusal(open(&stranger, "notes").await);
    assert_eq!(
        (of_all.reason, of_all.limit.as_deref()),
        (ErrorReason::CapacityReached, Some("limits.sessions"))
    );
    first.close_session().await.unwrap();
    open(&stranger, "deploy").await.unwrap();
}

/// The time was up while Ravi was still asked: nothing is released (I3).
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_comes_after_the_end_of_the_session_is_not_released() {
    use ravi_broker::sandbox::{Answer, Fault};
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = stack.agent_for("notes", Some(Duration::from_secs(1))).await;
    let mut events = agent.watch_leases().await.unwrap();
    control.add_fault(Fault::new("/api/secrets/", Answer::Held)).unwrap();
    let ending = async {
        control.reached("GET", "/api/secrets/", 1).await;
        let end = bounded(events.next()).await.expect("the end of the stream");
        assert_eq!(reason(end), ErrorReason::SessionExpired);
        control.release();
    };
    let (acquired, ()) = tokio::join!(agent.acquire("secret/OPENAI_API_KEY", None, ""), ending);
    assert_eq!(reason(acquired), ErrorReason::SessionExpired);
}
