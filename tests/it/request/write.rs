//! Changes: sent once, whatever happens on the way; and what cannot be known is said to be unknown.

use std::sync::Arc;

use ravi_broker::client::{AgentClient, ClientError, CreatePassword, ErrorReason, UpdatePassword};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::reason;
use crate::support::{Stack, until};

const SECRETS: &str = "/api/secrets/";

async fn set(agent: &AgentClient, key: &str, value: &str) -> Result<(), ClientError> {
    agent.set_secret(key, &Secret::copy_of(value), "").await.map(drop)
}

async fn create(agent: &AgentClient, domain: &str) -> Result<String, ClientError> {
    let (domain, username) = (domain.to_owned(), "agent".to_owned());
    let entry = CreatePassword { domain, username, length: Some(40), reason: String::new() };
    agent.create_password(entry).await.map(|name| name.resource)
}

async fn update(agent: &AgentClient, resource: &str) -> Result<String, ClientError> {
    let resource = resource.to_owned();
    let change = UpdatePassword { resource, password: None, length: Some(40), reason: String::new() };
    agent.update_password(change).await.map(|name| name.resource)
}

/// Requests of one method below a path.
fn sent(stack: &Stack, method: &str, prefix: &str) -> u64 {
    let counts = stack.control().request_counts();
    let those = counts.iter().filter(|row| row.method == method && row.path.starts_with(prefix));
    those.map(|row| row.count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_sent_once_and_its_outcome_unknown() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let lost = [
        Answer::Reset,
        Answer::Status(500),
        Answer::Status(503),
        Answer::Truncated,
        Answer::Html(200),
        Answer::Empty(201),
        Answer::Oversized(2 << 20),
        Answer::WrongIdentity,
    ];
    for (number, answer) in lost.into_iter().enumerate() {
        stack.control().add_fault(Fault::new(SECRETS, answer.clone()).on("POST").taking_effect()).unwrap();
        let key = format!("LOST_{number}");
        let before = sent(&stack, "POST", SECRETS);
        assert_eq!(
            reason(set(&agent, &key, "value").await),
            ErrorReason::UpstreamOutcomeUnknown,
            "{answer:?}"
        );
        assert_eq!(sent(&stack, "POST", SECRETS) - before, 1, "{answer:?}");
        stack.control().clear_faults();
        // It did take effect, and the broker does not claim to know better.
        let (_, credential) = agent.acquire(&format!("secret/{key}"), None, "").await.unwrap();
        assert_eq!(credential.value.expose(), "value");
    }
    let failed = stack.audited("vault.set");
    let unknown = failed.iter().filter(|record| record["cause"] == "outcome_unknown");
    assert_eq!(unknown.count(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_write_is_sent_once() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let unknown = ErrorReason::UpstreamOutcomeUnknown;
    for method in ["POST", "PATCH", "DELETE"] {
        stack.control().add_fault(Fault::new("/api/", Answer::Reset).on(method)).unwrap();
    }
    assert_eq!(reason(set(&agent, "FRESH", "value").await), unknown);
    assert_eq!(reason(set(&agent, "OPENAI_API_KEY", "value").await), unknown);
    assert_eq!(reason(agent.delete_secret("OPENAI_API_KEY", "").await), unknown);
    assert_eq!(reason(create(&agent, "a.example").await), unknown);
    assert_eq!(reason(update(&agent, "password/grafana.net").await), unknown);
    assert_eq!(reason(agent.delete_password("password/grafana.net", "").await), unknown);
    assert_eq!(reason(agent.acquire("sso/token", None, "").await), unknown, "a key was to be minted");
    for (method, prefix, count) in [
        ("POST", SECRETS, 1),
        ("PATCH", SECRETS, 1),
        ("DELETE", SECRETS, 1),
        ("POST", "/api/passwords/", 1),
        ("PATCH", "/api/passwords/", 1),
        ("DELETE", "/api/passwords/", 1),
        ("POST", "/api/auth/keys/identity/", 1),
        ("POST", "/api/sso/token/", 0),
    ] {
        assert_eq!(sent(&stack, method, prefix), count, "{method} {prefix}");
    }
    // Nothing was changed, and what was cached did not survive the doubt.
    stack.control().clear_faults();
    let (_, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "sandbox-openai-deploy-e2a6c9");
    assert_eq!(agent.list_passwords().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_ravi_refused_clearly_says_so() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    for (status, expected) in [
        (402, ErrorReason::UpstreamPlanRequired),
        (403, ErrorReason::UpstreamRefused),
        (404, ErrorReason::UpstreamUnavailable),
    ] {
        stack.control().add_fault(Fault::new(SECRETS, Answer::Status(status)).on("POST")).unwrap();
        assert_eq!(reason(set(&agent, "FRESH", "value").await), expected, "{status}");
        stack.control().clear_faults();
    }
    let throttled = Answer::Throttled { retry_after_seconds: Some(1), retry_after: None };
    stack.control().add_fault(Fault::new(SECRETS, throttled).on("POST")).unwrap();
    let refused = super::refusal(set(&agent, "FRESH", "value").await);
    assert_eq!(refused.reason, ErrorReason::UpstreamThrottled);
    assert_eq!(refused.retry_after, Some(std::time::Duration::from_secs(1)));
    assert_eq!(sent(&stack, "POST", SECRETS), 4, "not one of them was repeated");
}

/// Ravi's own rules on values, before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_kept_is_not_sent() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    assert_eq!(reason(set(&agent, "FRESH", "").await), ErrorReason::ArgumentInvalid);
    assert_eq!(reason(set(&agent, "FRESH", &"x".repeat(49 * 1024)).await), ErrorReason::ArgumentInvalid);
    assert_eq!(reason(set(&agent, "FRESH", "e2e::AAAA").await), ErrorReason::ArgumentInvalid);
    assert_eq!(stack.control().total_requests(), 0);
    set(&agent, "FRESH", &"x".repeat(48 * 1024)).await.unwrap();
}

/// Two writers of one new key: Ravi refuses the second `POST`, who then changes the row of the first.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_writers_of_a_new_key_changes_what_the_first_made() {
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = stack.agent("deploy").await;
    control.add_fault(Fault::new(SECRETS, Answer::Held).on("POST").times(1)).unwrap();
    let second = async {
        control.reached("POST", SECRETS, 1).await;
        control.set_secret("deploy-agent", "FRESH", Secret::copy_of("of the first")).unwrap();
        control.release();
    };
    let value = Secret::copy_of("of the second");
    let (set, ()) = tokio::join!(agent.set_secret("FRESH", &value, ""), second);
    assert!(!set.unwrap().1, "it was there already");
    let (_, credential) = agent.acquire("secret/FRESH", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "of the second");
}

/// Half of a change may be done when its caller goes away: it is done to the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_to_its_end_though_the_caller_goes_away() {
    let stack = Stack::start().await;
    let (control, admin) = (stack.control(), stack.admin().await);
    let leaving = Arc::new(stack.agent("deploy").await);
    control.add_fault(Fault::new(SECRETS, Answer::Held).on("GET").times(1)).unwrap();
    let change = tokio::spawn({
        let leaving = leaving.clone();
        async move { set(&leaving, "FRESH", "value").await }
    });
    drop(leaving);
    control.reached("GET", SECRETS, 1).await;
    change.abort();
    until(async || admin.status().await.unwrap().connections == 0).await;
    control.release();
    control.reached("POST", SECRETS, 1).await;
    let other = stack.agent("deploy").await;
    until(async || {
        let names = other.list_secrets().await.unwrap();
        names.iter().any(|name| name.key == "FRESH")
    })
    .await;
}

/// A generated password is made by Ravi and goes to Ravi: it is not part of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_generated_stored_and_leased_afterwards() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    assert_eq!(create(&agent, "login.mail.example").await.unwrap(), "password/mail.example/agent");
    let (_, first) = agent.acquire("password/mail.example/agent", None, "").await.unwrap();
    assert_eq!(first.value.len(), 40);
    assert_eq!(update(&agent, "password/mail.example").await.unwrap(), "password/mail.example/agent");
    let (_, second) = agent.acquire("password/mail.example", None, "").await.unwrap();
    assert!(second.value.len() == 40 && second.value.expose() != first.value.expose());
    agent.delete_password("password/mail.example/agent", "").await.unwrap();
    let gone = agent.acquire("password/mail.example", None, "").await;
    assert_eq!(reason(gone), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().requests("GET", "/api/passwords/generate-password/"), 2);
    for length in [1, 15, 65, 1_000_000] {
        let (domain, username) = ("a.example".to_owned(), String::new());
        let entry = CreatePassword { domain, username, length: Some(length), reason: String::new() };
        assert_eq!(reason(agent.create_password(entry).await), ErrorReason::ArgumentInvalid, "{length}");
    }
}

/// Ravi would keep both rows, and then neither could be named.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_password_of_the_same_name_is_not_made() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let create = || CreatePassword {
        domain: "new.example".into(),
        username: "x".into(),
        length: None,
        reason: String::new(),
    };
    agent.create_password(create()).await.unwrap();
    assert_eq!(reason(agent.create_password(create()).await), ErrorReason::UpstreamRefused);
    assert_eq!(sent(&stack, "POST", "/api/passwords/"), 1);
    agent.acquire("password/new.example/x", None, "").await.unwrap();
}
