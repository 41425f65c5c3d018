//! The read-through cache: how often Ravi is asked, and for whom.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, future};
use ravi_broker::client::{
    AgentClient, CreatePassword, ErrorReason, LeaseEvent, OpenSession, UpdatePassword,
};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::reason;
use crate::support::{DEPLOY, NOTES, Stack, bounded, until};

const SECRETS: &str = "/api/secrets/";
const KEY: &str = "secret/OPENAI_API_KEY";

/// A daily rate hardly refills: what is left of it tells how many calls were let in.
fn with_daily_rate(setup: &mut crate::support::Setup) {
    setup.roles = setup.roles.replace("60000/min", "10000/d");
}

/// Requests of the role that were let in so far, this question included.
async fn taken(agent: &AgentClient) -> u32 {
    let limits = agent.describe_session().await.unwrap().limits;
    10_000 - limits.iter().find(|limit| limit.name == "read").expect("a limit on reads").remaining
}

/// Waits until so many more requests of the role were let in than at `before`.
async fn let_in(agent: &AgentClient, before: u32, calls: u32) {
    let mut questions = 0;
    until(async || {
        questions += 1;
        taken(agent).await >= before + calls + questions
    })
    .await;
}

/// I4.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_of_one_cold_value_cost_one_call() {
    const CONNECTIONS: usize = 10;
    const EACH: usize = 100;
    let stack = Stack::with(with_daily_rate).await;
    let control = stack.control();
    let (_, token) = stack.stranger().await.open_session(OpenSession::role("deploy")).await.unwrap();
    let agent = stack.holder(&token).await;
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let before = taken(&agent).await;
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = Arc::new(stack.holder(&token).await);
        for _ in 0..EACH {
            let client = client.clone();
            callers.push(tokio::spawn(async move { client.acquire(KEY, None, "").await }));
        }
    }
    let_in(&agent, before, 1000).await;
    control.reached("GET", SECRETS, 1).await;
    control.release();
    for caller in future::join_all(callers).await {
        let (_, credential) = caller.unwrap().unwrap();
        assert_eq!(credential.value.expose(), "sandbox-openai-deploy-e2a6c9");
    }
    assert_eq!(control.requests("GET", SECRETS), 1);
    assert_eq!(control.requests("GET", "/api/identities/"), 1);
    assert_eq!(stack.audited("lease.acquired").len(), 1000);
}

/// I4: whoever came first may go.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_takes_the_value_from_nobody() {
    let stack = Stack::with(with_daily_rate).await;
    let control = stack.control();
    let admin = stack.admin().await;
    let (_, token) = stack.stranger().await.open_session(OpenSession::role("deploy")).await.unwrap();
    let agent = Arc::new(stack.holder(&token).await);
    let leaving = stack.holder(&token).await;
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let first = tokio::spawn(async move { leaving.acquire(KEY, None, "").await.map(drop) });
    control.reached("GET", SECRETS, 1).await;
    let before = taken(&agent).await;
    let second = tokio::spawn({
        let agent = agent.clone();
        async move { agent.acquire(KEY, None, "").await }
    });
    let_in(&agent, before, 1).await;
    let connections = admin.status().await.unwrap().connections;
    first.abort();
    until(async || admin.status().await.unwrap().connections < connections).await;
    control.release();
    let (_, credential) = second.await.unwrap().unwrap();
    assert_eq!(credential.value.expose(), "sandbox-openai-deploy-e2a6c9");
    assert_eq!(control.requests("GET", SECRETS), 1);
    assert_eq!(admin.status().await.unwrap().leases, 1, "the one who left has none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_served_to_all_while_it_is_fresh() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    agent.read(lease.lease_id).await.unwrap();
    assert_eq!(stack.control().requests("GET", SECRETS), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_asked_for_again() {
    let stack = Stack::with(|setup| setup.sections.push_str("[vault]\nfresh_for = \"1s\"\n")).await;
    let agent = stack.agent("notes").await;
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("second value")).unwrap();
    // A lease that is over tells that the time is.
    let mut events = agent.watch_leases().await.unwrap();
    agent.acquire("identity/phone", Some(Duration::from_millis(1050)), "").await.unwrap();
    while !matches!(bounded(events.next()).await.unwrap().unwrap(), LeaseEvent::Expired(_)) {}
    assert_eq!(agent.read(lease.lease_id).await.unwrap().1.value.expose(), "second value");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_no_such_secret_is_believed_for_a_while() {
    for (absent_for, calls) in [("10m", 1), ("0s", 3)] {
        let section = format!("[vault]\nabsent_for = {absent_for:?}\n");
        let stack = Stack::with(|setup| setup.sections = section).await;
        let agent = stack.agent("notes").await;
        for _ in 0..3 {
            let absent = agent.acquire("secret/OPENAI_ABSENT", None, "").await;
            assert_eq!(reason(absent), ErrorReason::ResourceNotAvailable);
        }
        assert_eq!(stack.control().requests("GET", SECRETS), calls, "{absent_for}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_set_is_there_at_once_and_one_that_is_deleted_gone() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let absent = async || reason(agent.acquire("secret/FRESH", None, "").await);
    assert_eq!(absent().await, ErrorReason::ResourceNotAvailable);
    let (name, created) = agent.set_secret("fresh", &Secret::copy_of("first value"), "").await.unwrap();
    assert_eq!((name.key.as_str(), created), ("FRESH", true));
    assert_eq!(agent.acquire("secret/FRESH", None, "").await.unwrap().1.value.expose(), "first value");
    let (_, created) = agent.set_secret("FRESH", &Secret::copy_of("second value"), "").await.unwrap();
    assert!(!created);
    assert_eq!(agent.acquire("secret/FRESH", None, "").await.unwrap().1.value.expose(), "second value");
    agent.delete_secret("FRESH", "").await.unwrap();
    assert_eq!(absent().await, ErrorReason::ResourceNotAvailable);
}

/// I7: what policy refuses never leaves the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_costs_no_call() {
    let stack = Stack::with(|setup| {
        setup.roles.push_str(
            "[role.none]\nidentity = \"deploy-agent\"\nmatch = { uid = UID }\nscopes = [\"email:read\"]\n",
        );
    })
    .await;
    let agent = stack.agent("none").await;
    let denied = ErrorReason::ResourceNotAvailable;
    for resource in
        [KEY, "password/grafana.net", "password/a.b/c", "sso/token", "identity/email", "identity/phone"]
    {
        assert_eq!(reason(agent.acquire(resource, None, "").await), denied, "{resource}");
    }
    let value = Secret::copy_of("value");
    let create =
        CreatePassword { domain: "a.b".into(), username: "c".into(), length: None, reason: String::new() };
    let resource = "password/grafana.net".to_owned();
    let update = UpdatePassword { resource, password: None, length: None, reason: String::new() };
    assert_eq!(reason(agent.list_secrets().await), denied);
    assert_eq!(reason(agent.list_passwords().await), denied);
    assert_eq!(reason(agent.identity().await), denied);
    assert_eq!(reason(agent.set_secret("A", &value, "").await), denied);
    assert_eq!(reason(agent.delete_secret("A", "").await), denied);
    assert_eq!(reason(agent.create_password(create).await), denied);
    assert_eq!(reason(agent.update_password(update).await), denied);
    assert_eq!(reason(agent.delete_password("password/grafana.net", "").await), denied);
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((stack.control().total_requests(), status.upstream_calls), (0, 0));
    assert_eq!((status.requests_served, status.requests_denied), (0, 14));
}

/// I8: the management key sees the whole account, an agent its own identity.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_never_sees_or_touches_what_belongs_to_another_identity() {
    let stack = Stack::with(|setup| {
        let wide = "\"secret:read\", \"secret:list\", \"secret:write\", \"password:read\", \"password:list\", \"password:write\", ";
        setup.roles = setup.roles.replace("\"secret:read:OPENAI_*\", ", wide);
    })
    .await;
    let (notes, deploy) = (stack.agent("notes").await, stack.agent("deploy").await);
    let value =
        async |agent: &AgentClient| agent.acquire(KEY, None, "").await.unwrap().1.value.expose().to_owned();
    assert_eq!(value(&notes).await, "sandbox-openai-notes-7c1f20");
    assert_eq!(value(&deploy).await, "sandbox-openai-deploy-e2a6c9");
    let keys = |names: Vec<ravi_broker::client::SecretName>| names.into_iter().map(|name| name.key);
    let of_notes: Vec<_> = keys(notes.list_secrets().await.unwrap()).collect();
    assert_eq!(of_notes, ["OPENAI_API_KEY", "OPENAI_ORG_ID", "STRIPE_API_KEY"]);
    let of_deploy: Vec<_> = keys(deploy.list_secrets().await.unwrap()).collect();
    assert_eq!(of_deploy, ["OPENAI_API_KEY", "REGISTRY_TOKEN", "STRIPE_API_KEY"]);
    assert_eq!(notes.list_passwords().await.unwrap().len(), 3);
    assert_eq!(deploy.list_passwords().await.unwrap().len(), 3);
    let absent = ErrorReason::ResourceNotAvailable;
    for resource in ["secret/REGISTRY_TOKEN", "password/grafana.net", "password/github.com/deploy-agent"] {
        assert_eq!(reason(notes.acquire(resource, None, "").await), absent, "{resource}");
    }
    assert_eq!(reason(notes.delete_secret("REGISTRY_TOKEN", "").await), absent);
    assert_eq!(reason(notes.delete_password("password/grafana.net", "").await), absent);
    // The same name is another row: what one changes stays as it was for the other.
    notes.set_secret("OPENAI_API_KEY", &Secret::copy_of("of notes"), "").await.unwrap();
    notes.set_secret("REGISTRY_TOKEN", &Secret::copy_of("of notes"), "").await.unwrap();
    notes.delete_secret("STRIPE_API_KEY", "").await.unwrap();
    assert_eq!(value(&deploy).await, "sandbox-openai-deploy-e2a6c9");
    for (key, kept) in [
        ("REGISTRY_TOKEN", "sandbox-registry-deploy-3b7e64"),
        ("STRIPE_API_KEY", "sandbox-stripe-deploy-58f0d1"),
    ] {
        let (_, credential) = deploy.acquire(&format!("secret/{key}"), None, "").await.unwrap();
        assert_eq!(credential.value.expose(), kept);
    }
    let (own, other) = (notes.identity().await.unwrap(), deploy.identity().await.unwrap());
    assert_eq!((own.name.as_str(), other.name.as_str()), (NOTES, DEPLOY));
    assert_eq!(own.email.as_deref(), Some("assistant-notes-agent@agents.sandbox.example"));
}

/// A list is of names, and of those that the scope covers.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_holds_the_names_that_the_session_may_list_and_no_value() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let secrets = agent.list_secrets().await.unwrap();
    let keys: Vec<_> = secrets.iter().map(|name| name.key.as_str()).collect();
    assert_eq!(keys, ["OPENAI_API_KEY", "OPENAI_ORG_ID"]);
    let passwords = agent.list_passwords().await.unwrap();
    let names: Vec<_> = passwords.iter().map(|name| name.resource.as_str()).collect();
    assert_eq!(names, ["password/github.com/notes-agent", "password/github.com/notes-agent-ci"]);
    let shown = format!("{secrets:?}{passwords:?}");
    assert!(!shown.contains("sandbox-"), "a value is in the list");
}

/// I5: at its bound the cache lets go of one answer for another.
#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_only_so_many_answers() {
    let stack = Stack::with(|setup| setup.sections.push_str("[vault]\nmax_entries = 1\n")).await;
    let agent = stack.agent("deploy").await;
    for (round, (key, value)) in [
        ("OPENAI_API_KEY", "sandbox-openai-deploy-e2a6c9"),
        ("STRIPE_API_KEY", "sandbox-stripe-deploy-58f0d1"),
        ("OPENAI_API_KEY", "sandbox-openai-deploy-e2a6c9"),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, credential) = agent.acquire(&format!("secret/{key}"), None, "").await.unwrap();
        assert_eq!(credential.value.expose(), value);
        assert_eq!(stack.control().requests("GET", SECRETS), round as u64 + 1);
    }
}

/// A fetch that began before a change must not serve what was there before it to those who ask after it,
/// nor put it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_was_overtaken_by_a_change_does_not_bring_the_old_value_back() {
    let stack = Stack::with(with_daily_rate).await;
    let control = stack.control();
    let (reader, writer) = (Arc::new(stack.agent("deploy").await), stack.agent("deploy").await);
    writer.acquire("identity/email", None, "").await.unwrap();
    let read = |key: &'static str| {
        let reader = reader.clone();
        tokio::spawn(
            async move { reader.acquire(key, None, "").await.map(|(_, credential)| credential.value) },
        )
    };
    // The answer with the old value is made, and then on its way for long.
    let old_answer = || Fault::new(SECRETS, Answer::Held).on("GET").times(1).taking_effect();
    control.add_fault(old_answer()).unwrap();
    let early = read(KEY);
    control.reached("GET", SECRETS, 1).await;
    writer.set_secret("OPENAI_API_KEY", &Secret::copy_of("second value"), "").await.unwrap();
    let before = taken(&reader).await;
    let late = read(KEY);
    let_in(&reader, before, 1).await;
    control.release();
    early.await.unwrap().unwrap();
    assert_eq!(late.await.unwrap().unwrap().expose(), "second value");
    assert_eq!(read(KEY).await.unwrap().unwrap().expose(), "second value");

    // Of a deleted one nothing is kept, so that whoever asks joins the fetch that is under way.
    let asked = control.requests("GET", SECRETS);
    control.add_fault(old_answer()).unwrap();
    let early = read("secret/STRIPE_API_KEY");
    control.reached("GET", SECRETS, asked + 1).await;
    writer.delete_secret("STRIPE_API_KEY", "").await.unwrap();
    let before = taken(&reader).await;
    let late = read("secret/STRIPE_API_KEY");
    let_in(&reader, before, 1).await;
    control.release();
    assert_eq!(reason(late.await.unwrap()), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(read("secret/STRIPE_API_KEY").await.unwrap()), ErrorReason::ResourceNotAvailable);
    early.await.unwrap().ok();
}
