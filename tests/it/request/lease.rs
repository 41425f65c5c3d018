//! Leases: acquired, read, renewed, released, listed; how they end, and what is said then.

use std::time::Duration;

use futures_util::StreamExt;
use ravi_broker::client::{AgentClient, ErrorReason, LeaseEvent, OpenSession};
use ravi_broker::secret::Secret;
use ravi_broker::types::LeaseId;

use super::{reason, refusal};
use crate::support::{NOTES, Stack, bounded};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leases_a_secret_of_its_own_identity() {
    let stack = Stack::start().await;
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("first value")).unwrap();
    let agent = stack.agent("notes").await;
    let (lease, credential) = agent.acquire("secret/openai_api_key", None, "to take notes").await.unwrap();
    assert_eq!(credential.value.expose(), "first value");
    assert_eq!(lease.resource, "secret/OPENAI_API_KEY");
    assert!(!lease.revocable, "a value that was shown stays known");
    let granted = &stack.audited("lease.acquired")[0];
    assert_eq!((&granted["ttl"], &granted["reason"]), (&300.into(), &"to take notes".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_resource_can_be_leased() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let (lease, credential) = agent.acquire("password/grafana.net", None, "").await.unwrap();
    assert_eq!(lease.resource, "password/grafana.net/deploy-agent", "the name is completed");
    assert_eq!(credential.value.expose(), "sandbox-grafana-deploy-2a70");
    assert_eq!(credential.username.as_deref(), Some("deploy-agent"));
    let (_, credential) = agent.acquire("identity/email", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "deploy-agent@agents.sandbox.example");
    let (_, credential) = agent.acquire("identity/phone", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "+12025550122");
    let (lease, credential) = agent.acquire("sso/token", None, "").await.unwrap();
    assert!(credential.value.expose().starts_with("rvt_") && lease.revocable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_with_several_passwords_has_to_be_named_with_the_user() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let ambiguous = agent.acquire("password/github.com", None, "").await;
    assert_eq!(reason(ambiguous), ErrorReason::ArgumentInvalid);
    let (_, credential) = agent.acquire("password/github.com/notes-agent-ci", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "sandbox-github-notes-ci-52d7");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_and_a_forbidden_secret_look_the_same() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let absent = refusal(agent.acquire("secret/OPENAI_ABSENT", None, "").await);
    assert_eq!(absent.reason, ErrorReason::ResourceNotAvailable);
    for forbidden in ["secret/STRIPE_API_KEY", "secret/NONE_SUCH", "password/example.com", "sso/token"] {
        assert_eq!(refusal(agent.acquire(forbidden, None, "").await), absent, "{forbidden}");
    }
    let absent_too = refusal(agent.acquire("password/github.com/nobody", None, "").await);
    assert_eq!(absent_too, absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_read_counted_listed_and_given_back() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let (first, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let (second, _) = agent.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
    assert_eq!((first.uses, second.uses), (1, 1));
    for uses in 2..5 {
        let (lease, credential) = agent.read(first.lease_id).await.unwrap();
        assert_eq!((lease.uses, credential.value.expose()), (uses, "sandbox-openai-notes-7c1f20"));
    }
    agent.renew(first.lease_id, None).await.unwrap();
    let listed = agent.list_leases().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|lease| (lease.lease_id, lease.uses)).collect();
    assert_eq!(listed, [(first.lease_id, 4), (second.lease_id, 1)]);
    agent.release(first.lease_id).await.unwrap();
    assert_eq!(reason(agent.read(first.lease_id).await), ErrorReason::LeaseRevoked);
    assert_eq!(reason(agent.renew(first.lease_id, None).await), ErrorReason::LeaseRevoked);
    assert_eq!(reason(agent.release(first.lease_id).await), ErrorReason::LeaseRevoked);
    assert_eq!(agent.list_leases().await.unwrap().len(), 1);
}

fn with_leases(lease: &str) -> impl FnOnce(&mut crate::support::Setup) {
    let own = format!("lease = {{ {lease} }}");
    move |setup| setup.roles = setup.roles.replace("lease = { max_live = 2000 }", &own)
}

/// I3.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_never_passes_the_maximum_of_the_role() {
    let stack = Stack::with(with_leases("default_ttl = \"10s\", max_ttl = \"30s\"")).await;
    let agent = stack.agent("deploy").await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", Some(HOUR), "").await.unwrap();
    assert!(lease.expires_in <= 30 * SECOND && lease.expires_in > 20 * SECOND);
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert!(lease.expires_in <= 10 * SECOND && lease.renewable_for <= 30 * SECOND);
    let renewed = agent.renew(lease.lease_id, Some(20 * SECOND)).await.unwrap();
    assert!(renewed.expires_in <= 20 * SECOND && renewed.expires_in > 10 * SECOND);
    for ttl in [HOUR, Duration::MAX] {
        let renewed = agent.renew(lease.lease_id, Some(ttl)).await.unwrap();
        assert!(renewed.expires_in <= lease.renewable_for, "the maximum counts from the start");
        assert!(renewed.renewable_for <= lease.renewable_for);
    }
    let renewed = agent.renew(lease.lease_id, None).await.unwrap();
    assert!(renewed.expires_in <= 10 * SECOND, "the role's own life, from now");
    let zero = agent.renew(lease.lease_id, Some(Duration::ZERO)).await;
    assert_eq!(reason(zero), ErrorReason::ArgumentInvalid);
}

/// I3.
#[tokio::test(flavor = "multi_thread")]
async fn no_lease_outlives_its_session() {
    let stack = Stack::start().await;
    let ttl = Some(20 * SECOND);
    let (session, agent) = stack.opened(OpenSession { ttl, ..OpenSession::role("notes") }).await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", Some(HOUR), "").await.unwrap();
    assert!(lease.expires_in <= session.expires_in && lease.renewable_for <= session.expires_in);
    // For people: each answer reads both clocks anew, a moment apart.
    assert!(lease.expires_at <= session.expires_at + SECOND);
    let renewed = agent.renew(lease.lease_id, Some(HOUR)).await.unwrap();
    assert!(renewed.expires_in <= session.expires_in);
}

/// I3, and a key that cannot be withdrawn is minted once.
#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_sign_in_token_never_outlives_the_token() {
    const LIFE: Duration = Duration::from_secs(300);
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = stack.agent("deploy").await;
    let (lease, first) = agent.acquire("sso/token", Some(HOUR), "").await.unwrap();
    assert!(lease.revocable);
    assert!(lease.expires_in <= LIFE && lease.expires_in > LIFE - 30 * SECOND);
    let renewed = agent.renew(lease.lease_id, Some(HOUR)).await.unwrap();
    assert!(renewed.expires_in <= LIFE && renewed.renewable_for <= LIFE);
    let (_, second) = agent.acquire("sso/token", None, "").await.unwrap();
    assert_eq!(first.value.expose(), second.value.expose(), "it may be used again within its life");
    assert_eq!(control.requests("POST", "/api/auth/keys/identity/"), 1);
    assert_eq!(control.requests("POST", "/api/sso/token/"), 1);
    assert_eq!(stack.admin().await.status().await.unwrap().identity_keys_held, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_says_so_and_cannot_be_had_back() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let mut events = agent.watch_leases().await.unwrap();
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", Some(SECOND / 5), "").await.unwrap();
    let event = bounded(events.next()).await.expect("an event").unwrap();
    assert!(matches!(event, LeaseEvent::Expired(handle) if handle.lease_id == lease.lease_id));
    let calls = stack.control().total_requests();
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::LeaseExpired);
    assert_eq!(reason(agent.renew(lease.lease_id, Some(HOUR)).await), ErrorReason::LeaseExpired);
    assert_eq!(reason(agent.release(lease.lease_id).await), ErrorReason::LeaseExpired);
    assert!(agent.list_leases().await.unwrap().is_empty());
    assert_eq!(stack.control().total_requests(), calls);
    let expired = &stack.audited("lease.expired")[0];
    assert_eq!((&expired["resource"], &expired["exposed"]), (&"secret/OPENAI_API_KEY".into(), &true.into()));
}

/// What each verb that takes a handle says to it.
async fn answers(agent: &AgentClient, id: LeaseId) -> [ravi_broker::client::BrokerError; 3] {
    let read = refusal(agent.read(id).await);
    let renewed = refusal(agent.renew(id, Some(HOUR)).await);
    [read, renewed, refusal(agent.release(id).await)]
}

/// A handle is no right: not of another session, of the same role or another, of the same process even.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_another_session_and_none_at_all_look_the_same() {
    let stack = Stack::start().await;
    let owner = stack.agent("notes").await;
    let (lease, _) = owner.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let calls = stack.control().total_requests();
    for role in ["notes", "deploy"] {
        let other = stack.agent(role).await;
        let foreign = answers(&other, lease.lease_id).await;
        let unknown = answers(&other, LeaseId([7; 16])).await;
        assert_eq!(foreign, unknown, "{role}");
        assert!(foreign.iter().all(|answer| answer.reason == ErrorReason::LeaseNotAvailable));
        assert!(other.list_leases().await.unwrap().is_empty());
    }
    assert_eq!(stack.control().total_requests(), calls);
    let listed = owner.list_leases().await.unwrap();
    assert_eq!((listed[0].lease_id, listed[0].uses), (lease.lease_id, 1), "and it is untouched");
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_only_so_many_leases_at_once() {
    let stack = Stack::with(with_leases("max_live = 2")).await;
    let agent = stack.agent("deploy").await;
    let acquire = async |agent: &AgentClient| agent.acquire("secret/OPENAI_API_KEY", None, "").await;
    let (first, _) = acquire(&agent).await.unwrap();
    acquire(&agent).await.unwrap();
    let refused = refusal(acquire(&agent).await);
    assert_eq!(
        (refused.reason, refused.limit.as_deref()),
        (ErrorReason::CapacityReached, Some("lease.max_live"))
    );
    let described = agent.describe_session().await.unwrap();
    assert_eq!((described.live_leases, described.max_live_leases), (2, 2));
    acquire(&stack.agent("deploy").await).await.unwrap();
    agent.release(first.lease_id).await.unwrap();
    acquire(&agent).await.unwrap();
}

/// What a role lost by a reload is lost to the leases that are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_read_and_renewed_under_the_policy_of_today() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let (lost, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let (kept, _) = agent.acquire("password/github.com/notes-agent", None, "").await.unwrap();
    stack.rewrite(|text| text.replace("\"secret:read:OPENAI_*\"", "\"secret:read:OPENAI_ORG_ID\""));
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(agent.read(lost.lease_id).await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(agent.renew(lost.lease_id, None).await), ErrorReason::ResourceNotAvailable);
    agent.read(kept.lease_id).await.unwrap();
    agent.release(lost.lease_id).await.unwrap();
}
