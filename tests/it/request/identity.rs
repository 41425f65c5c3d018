//! Identities: made once for a role that asks for it, by an agent that may, and by the operator.

use futures_util::future;
use ravi_broker::client::{AgentClient, ErrorReason};
use ravi_broker::sandbox::{Answer, Fault, NewMail};

use super::{reason, refusal};
use crate::support::{NOTES, Stack, until};

const IDENTITIES: &str = "/api/identities/";
const NEW: &str = "fresh persona";

const ROLES: &str = r#"
[role.fresh]
identity = "fresh persona"
provision = true
match = { uid = UID }
scopes = ["secret:read", "secret:list", "identity:read"]
session = { max_live = 1000 }
rate = { read = "60000/min", send = "60000/min" }
[role.phoned]
identity = "phoned persona"
provision = true
provision_phone = true
match = { uid = UID }
scopes = ["identity:read"]
rate = { read = "60000/min", send = "60000/min" }
[role.absent]
identity = "nobody"
match = { uid = UID }
scopes = ["identity:read"]
rate = { read = "60000/min", send = "60000/min" }
[role.maker]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["identity:create", "identity:read", "sso:mint", "email:read"]
rate = { read = "60000/min", send = "60000/min" }
[role.few]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["identity:read"]
rate = { read = "60000/min", send = "60000/min" }
"#;

async fn start() -> Stack {
    Stack::with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.sections = "[limits]\nopen = \"60000/min\"\n".to_owned();
    })
    .await
}

fn made(stack: &Stack) -> u64 {
    stack.control().requests("POST", IDENTITIES)
}

async fn names(stack: &Stack) -> Vec<String> {
    let listed = stack.admin().await.identities().await.unwrap();
    listed.into_iter().map(|info| info.identity.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sessions_at_once_make_one_identity() {
    let stack = start().await;
    // "There is none" is known already, and must not hide the new one.
    let agents: Vec<AgentClient> = future::join_all((0..100).map(|_| stack.agent("fresh"))).await;
    let found = future::join_all(agents.iter().map(|agent| agent.identity())).await;
    let uuids: Vec<String> = found.into_iter().map(|found| found.unwrap().uuid).collect();
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0]));
    assert_eq!(made(&stack), 1);
    let records = stack.audited("identity.created");
    assert_eq!((records.len(), &records[0]["target"]), (1, &"identity/fresh persona".into()));
    // Its key came with it.
    let info = stack.admin().await.identity(NEW).await.unwrap();
    assert!(info.key_held && info.roles == ["fresh"]);
    assert!(agents[0].list_secrets().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_role_that_says_so_has_its_identity_made() {
    let stack = start().await;
    let agent = stack.agent("absent").await;
    assert_eq!(reason(agent.identity().await), ErrorReason::UpstreamRefused);
    assert_eq!(made(&stack), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_in_doubt_is_looked_for_and_never_made_twice() {
    let mut stack = start().await;
    stack.control().add_fault(Fault::new(IDENTITIES, Answer::Reset).on("POST").times(1)).unwrap();
    let agent = stack.agent("fresh").await;
    let doubt = refusal(agent.identity().await);
    assert_eq!(doubt.reason, ErrorReason::UpstreamOutcomeUnknown);
    for _ in 0..3 {
        assert_eq!(reason(agent.identity().await), ErrorReason::UpstreamOutcomeUnknown);
    }
    assert_eq!(made(&stack), 1, "it was not made, and is not asked for again");
    stack.restart().await;
    let agent = stack.agent("fresh").await;
    assert_eq!(reason(agent.identity().await), ErrorReason::UpstreamOutcomeUnknown, "over a restart");
    assert_eq!(made(&stack), 1);
    // The operator looks, and has it made.
    let created = stack.admin().await.create_identity(NEW, false, "").await.unwrap();
    assert_eq!(agent.identity().await.unwrap().uuid, created.identity.uuid);
    assert_eq!(made(&stack), 2);
    assert_eq!(names(&stack).await.iter().filter(|name| *name == NEW).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_made_although_its_answer_was_lost_is_found() {
    for answer in [Answer::Reset, Answer::Status(500), Answer::Html(201)] {
        let stack = start().await;
        stack
            .control()
            .add_fault(Fault::new(IDENTITIES, answer).on("POST").times(1).taking_effect())
            .unwrap();
        stack.agent("fresh").await.identity().await.unwrap();
        assert_eq!(made(&stack), 1);
        assert_eq!(names(&stack).await.iter().filter(|name| *name == NEW).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_refusal_is_believed_for_a_while() {
    let stack = start().await;
    let behaviour = stack.control().behaviour();
    stack.control().set_behaviour(ravi_broker::sandbox::Behaviour { paid_plan: false, ..behaviour });
    let agent = stack.agent("fresh").await;
    for _ in 0..5 {
        assert_eq!(reason(agent.identity().await), ErrorReason::UpstreamPlanRequired);
    }
    assert_eq!(made(&stack), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_may_have_its_identity_made_with_a_telephone() {
    let stack = start().await;
    let agent = stack.agent("phoned").await;
    let identity = agent.identity().await.unwrap();
    assert!(identity.phone.is_some_and(|phone| phone.starts_with('+')));
    assert_eq!(stack.audited("identity.provisioned").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_makes_an_identity_if_it_may_and_its_name_is_free() {
    let stack = start().await;
    let (maker, few) = (stack.agent("maker").await, stack.agent("few").await);
    let before = stack.control().total_requests();
    assert_eq!(reason(few.create_identity("second", "").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(few.provision_phone("", "").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(few.search_contacts("kim").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(few.mint_sso_token("").await.map(drop)), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().total_requests(), before);
    let second = maker.create_identity("second", "for a test").await.unwrap();
    assert_eq!((second.name.as_str(), second.phone), ("second", None));
    assert_eq!(reason(maker.create_identity("second", "").await), ErrorReason::UpstreamRefused);
    assert_eq!(reason(maker.create_identity(NOTES, "").await), ErrorReason::UpstreamRefused);
    assert_eq!(made(&stack), 1);
    let both = future::join(maker.create_identity("third", ""), maker.create_identity("third", "")).await;
    assert_eq!([both.0, both.1].iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(made(&stack), 2);
    assert_eq!(stack.audited("identity.created")[0]["target"], "identity/second");
    assert_eq!(maker.identity().await.unwrap().name, NOTES, "the session stays who it is");
    for name in ["", " x", "a\nb"] {
        assert_eq!(reason(maker.create_identity(name, "").await), ErrorReason::ArgumentInvalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_in_doubt_is_not_made_again_for_an_agent() {
    let stack = start().await;
    let maker = stack.agent("maker").await;
    stack.control().add_fault(Fault::new(IDENTITIES, Answer::Reset).on("POST").times(1)).unwrap();
    for _ in 0..3 {
        let outcome = maker.create_identity("second", "").await;
        assert_eq!(reason(outcome), ErrorReason::UpstreamOutcomeUnknown);
    }
    assert_eq!(made(&stack), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_asked_for_once_and_kept() {
    let stack = start().await;
    let maker = stack.agent("maker").await;
    let own = maker.identity().await.unwrap();
    let path = format!("{IDENTITIES}{}/provision-phone/", own.uuid);
    assert_eq!(maker.provision_phone("CA", "").await.unwrap().phone, own.phone, "it has one");
    assert_eq!(stack.control().requests("POST", &path), 0);
    assert_eq!(reason(maker.provision_phone("Canada", "").await), ErrorReason::ArgumentInvalid);
    // One whose answer is lost is read back.
    let created = stack.admin().await.create_identity("second", false, "").await.unwrap();
    let path = format!("{IDENTITIES}{}/provision-phone/", created.identity.uuid);
    stack.rewrite(|text| {
        text.replace("\"nobody\"", "\"second\"")
            .replace("[\"identity:read\"]", "[\"identity:read\", \"identity:create\"]")
    });
    stack.admin().await.reload().await.unwrap();
    let agent = stack.agent("absent").await;
    stack.control().add_fault(Fault::new(&path, Answer::Reset).on("POST").taking_effect()).unwrap();
    let phone = agent.provision_phone("", "").await.unwrap().phone;
    assert!(phone.is_some());
    assert_eq!(stack.control().requests("POST", &path), 1);
    assert_eq!(agent.identity().await.unwrap().phone, phone, "what was cached is from before");
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_and_sign_in_tokens_are_had_by_who_may() {
    let stack = start().await;
    let maker = stack.agent("maker").await;
    let (lease, credential) = maker.mint_sso_token("to sign in").await.unwrap();
    assert_eq!(lease.resource, "sso/token");
    assert!(credential.value.expose().starts_with("rvt_"));
    for from in ["kim@example.org", "lee@example.org"] {
        let mail = NewMail { identity: NOTES.into(), from: from.into(), ..NewMail::default() };
        stack.control().deliver_mail(mail).unwrap();
    }
    let found = maker.search_contacts("kim").await.unwrap();
    assert_eq!(found.iter().map(|contact| contact.email.as_str()).collect::<Vec<_>>(), ["kim@example.org"]);
    for query in ["", " ", "a\nb", &"a".repeat(257)] {
        assert_eq!(reason(maker.search_contacts(query).await), ErrorReason::ArgumentInvalid);
    }
    until(async || stack.audited("contacts.searched").len() == 1).await;
    let few = stack.agent("few").await;
    assert_eq!(reason(few.search_contacts("kim").await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(few.mint_sso_token("").await), ErrorReason::ResourceNotAvailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_and_makes_identities() {
    let stack = start().await;
    let admin = stack.admin().await;
    assert_eq!(names(&stack).await, ["assistant-notes-agent", "deploy-agent"]);
    let notes = admin.identity(NOTES).await.unwrap();
    assert_eq!(notes.roles, ["few", "maker"]);
    assert_eq!(notes.identity.email_budget.map(|budget| (budget.limit, budget.used)), Some((100, 0)));
    assert_eq!(admin.identity(&notes.identity.uuid).await.unwrap(), notes);
    assert_eq!(reason(admin.identity("nobody").await), ErrorReason::ArgumentInvalid);
    let created = admin.create_identity("second", true, "CA").await.unwrap();
    assert!(created.identity.phone.is_some() && created.phone_failure.is_none());
    assert_eq!(reason(admin.create_identity("second", false, "").await), ErrorReason::UpstreamRefused);
    let behaviour = stack.control().behaviour();
    stack.control().set_behaviour(ravi_broker::sandbox::Behaviour { phones_available: false, ..behaviour });
    let created = admin.create_identity("third", true, "").await.unwrap();
    assert!(created.identity.phone.is_none() && created.phone_failure.is_some(), "{created:?}");
    assert_eq!(stack.audited("identity.created").len(), 2);
}
