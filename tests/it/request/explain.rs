//! Why a call was refused: the caller gets an id, the operator the rule and what it looked at.

use std::time::Duration;

use ravi_broker::client::{
    BrokerError, ClientError, DelegateSession, ErrorReason, Explanation, OpenSession, SessionFile,
};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;
use ravi_broker::types::{DenialId, LeaseId};

use super::reason;
use crate::support::{Shell, Stack};

const KEY: &str = "secret/OPENAI_API_KEY";

/// The refusal as the caller got it.
fn denied<T>(outcome: Result<T, ClientError>) -> BrokerError {
    match outcome {
        Err(ClientError::Broker(error)) => error,
        Err(error) => panic!("not an error of the broker: {error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn id<T>(outcome: Result<T, ClientError>) -> DenialId {
    denied(outcome).denial.expect("a refused call has an id")
}

/// What the operator is told of it. Its record in the trail says the same.
async fn explained<T>(stack: &Stack, outcome: Result<T, ClientError>) -> Explanation {
    let id = id(outcome);
    let explanation = stack.admin().await.explain(id).await.expect("it is remembered");
    assert_eq!(explanation.denial_id, id);
    assert_eq!(explanation.uid, nix::unistd::geteuid().as_raw());
    let trail = stack.audit();
    let records: Vec<_> = trail.iter().filter(|record| record["denial"] == id.to_string()).collect();
    assert_eq!(records.len(), 1, "one record with this id");
    assert_eq!(records[0]["cause"], explanation.rule);
    explanation
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_learns_why_a_session_was_not_opened() {
    let stack = Stack::with(|setup| {
        setup.roles.push_str(
            "[role.other]\nidentity = \"deploy-agent\"\nmatch = { uid = 4242 }\nscopes = [\"secret:read\"]\n\
             [role.single]\nidentity = \"deploy-agent\"\nmatch = { uid = UID }\nscopes = [\"secret:read\"]\n\
             session = { max_live = 1 }\n",
        );
        setup.sections.push_str("[limits]\nopen = \"6/h\"\n");
    })
    .await;
    let stranger = stack.stranger().await;
    let open = async |role: &str| stranger.open_session(OpenSession::role(role)).await;

    let absent = explained(&stack, open("absent").await).await;
    assert_eq!((absent.rule.as_str(), absent.asked.as_str()), ("role_unknown", "role absent"));
    assert_eq!((absent.role.as_str(), absent.session_id), ("absent", None));
    assert_eq!(absent.pid.cast_unsigned(), std::process::id());
    let own = std::env::current_exe().unwrap();
    assert_eq!(absent.executable, own.to_str().unwrap());
    assert!(!absent.tier.is_empty());
    let age = SystemClock.wall().duration_since(absent.denied_at);
    assert!(age.as_secs().abs() < 60, "{age:?}");

    let mismatch = explained(&stack, open("other").await).await;
    assert_eq!((mismatch.rule.as_str(), mismatch.asked.as_str()), ("role_mismatch", "role other"));

    let wider = OpenSession { scopes: vec!["sso:mint".into()], ..OpenSession::role("notes") };
    let wider = explained(&stack, stranger.open_session(wider).await).await;
    assert_eq!(wider.rule, "scope_not_granted");
    assert!(wider.selectors.contains(&"scope of the role: secret:read:OPENAI_*".to_owned()), "{wider:?}");

    open("single").await.unwrap();
    let full = explained(&stack, open("single").await).await;
    assert_eq!(full.rule, "capacity_reached");
    assert_eq!(full.selectors, ["limit that was reached: session.max_live"]);
    open("notes").await.unwrap();
    let limited = explained(&stack, open("notes").await).await;
    assert_eq!(limited.rule, "rate_limited");
    assert_eq!(limited.selectors, ["limit that was reached: limits.open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_learns_which_scopes_did_not_suffice() {
    let stack = Stack::start().await;
    let (session, agent) = stack.opened(OpenSession::role("notes")).await;
    let missing = explained(&stack, agent.acquire("secret/STRIPE_API_KEY", None, "").await).await;
    assert_eq!((missing.rule.as_str(), missing.asked.as_str()), ("scope_missing", "secret/STRIPE_API_KEY"));
    assert_eq!((missing.session_id, missing.role.as_str()), (Some(session.session_id), "notes"));
    let of_role: Vec<String> =
        session.scopes.iter().map(|scope| format!("scope of the role: {scope}")).collect();
    assert_eq!(missing.selectors, of_role);

    let scopes = vec!["secret:read:OPENAI_ORG_ID".to_owned()];
    let (_, narrow) =
        stack.opened(OpenSession { scopes: scopes.clone(), ..OpenSession::role("notes") }).await;
    let narrowed = explained(&stack, narrow.acquire(KEY, None, "").await).await;
    assert_eq!((narrowed.rule.as_str(), narrowed.asked.as_str()), ("scope_not_granted", KEY));
    let own = "scope that the session was opened with: secret:read:OPENAI_ORG_ID".to_owned();
    assert_eq!(narrowed.selectors.last(), Some(&own));
    assert_eq!(narrowed.selectors.len(), of_role.len() + 1);

    let wider = DelegateSession { scopes: vec!["secret:read:OPENAI_*".into()], ..DelegateSession::default() };
    let wider = explained(&stack, narrow.delegate_session(wider).await).await;
    assert_eq!((wider.rule.as_str(), wider.selectors.last()), ("scope_not_granted", Some(&own)));
    assert!(wider.session_id.is_some());
    let outside = DelegateSession { pid: Some(1), ..DelegateSession::default() };
    assert_eq!(explained(&stack, narrow.delegate_session(outside).await).await.rule, "peer_unknown");

    let absent = explained(&stack, agent.acquire("secret/OPENAI_ABSENT", None, "").await).await;
    assert_eq!((absent.rule.as_str(), absent.asked.as_str()), ("absent", "secret/OPENAI_ABSENT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_learns_what_a_token_is_worth() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    shell.succeed("ravi-broker session open --role notes --file ./session").await;
    let file = SessionFile::read(&stack.setup.directory().join("session")).unwrap();
    let foreign = stack.holder(&file.token).await;
    let foreign = explained(&stack, foreign.acquire(KEY, None, "").await).await;
    assert_eq!(foreign.rule, "token_foreign");
    let (bound, own) = (shell.pid(), std::process::id());
    let [said] = &foreign.selectors[..] else { panic!("{foreign:?}") };
    let expected =
        format!("session {} is bound to subtree of {bound}; the caller is process {own}", file.session_id);
    assert!(said.starts_with(&expected), "{said}");

    let unknown = stack.holder(&Secret::new(format!("rbt_{}", "A".repeat(64)))).await;
    let unknown = explained(&stack, unknown.acquire(KEY, None, "").await).await;
    assert_eq!((unknown.rule.as_str(), unknown.selectors.len()), ("token_unknown", 0));
    let none = explained(&stack, stack.stranger().await.list_leases().await).await;
    assert_eq!((none.rule.as_str(), none.asked.as_str()), ("token_missing", ""));

    let parent = stack.agent("notes").await;
    let (_, token) = parent.delegate_session(DelegateSession::default()).await.unwrap();
    let child = stack.holder(&token).await;
    parent.close_session().await.unwrap();
    let over = explained(&stack, child.describe_session().await).await;
    assert_eq!(over.rule, "session_over");
    assert_eq!(over.selectors, ["the session that this one was delegated from has ended"]);
    let over = explained(&stack, parent.describe_session().await).await;
    assert_eq!(over.selectors, ["the session was closed by its holder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_learns_of_leases_limits_and_ravi() {
    let stack = Stack::with(|setup| {
        setup.roles = setup.roles.replace("lease = { max_live = 2000 }", "lease = { max_live = 1 }");
        setup.roles.push_str(
            "[role.slow]\nidentity = \"deploy-agent\"\nmatch = { uid = UID }\nscopes = [\"secret:read\"]\n\
             rate = { read = \"1/h\", send = \"1/h\" }\n",
        );
    })
    .await;
    let (notes, deploy) = (stack.agent("notes").await, stack.agent("deploy").await);
    let (lease, _) = deploy.acquire(KEY, None, "").await.unwrap();
    let asked = format!("lease {}", lease.lease_id);
    let foreign = explained(&stack, notes.read(lease.lease_id).await).await;
    assert_eq!((foreign.rule.as_str(), &foreign.asked), ("lease_foreign", &asked));
    let unknown = explained(&stack, notes.read(LeaseId([7; 16])).await).await;
    assert_eq!(unknown.rule, "lease_unknown");
    let full = explained(&stack, deploy.acquire(KEY, None, "").await).await;
    assert_eq!((full.rule.as_str(), full.asked.as_str(), full.selectors.len()), ("capacity_reached", KEY, 1));
    deploy.release(lease.lease_id).await.unwrap();
    let over = explained(&stack, deploy.renew(lease.lease_id, None).await).await;
    assert_eq!((over.rule.as_str(), &over.asked), ("lease_over", &asked));
    let form = explained(&stack, deploy.acquire("no name", None, "").await).await;
    assert_eq!((form.rule.as_str(), form.asked.as_str()), ("argument_invalid", ""));

    let slow = stack.agent("slow").await;
    slow.list_leases().await.unwrap();
    let limited = explained(&stack, slow.list_leases().await).await;
    assert_eq!((limited.rule.as_str(), limited.role.as_str()), ("rate_limited", "slow"));
    assert_eq!(limited.selectors, ["limit that was reached: rate.read"]);

    stack.control().add_fault(Fault::new("/api/", Answer::Status(500))).unwrap();
    let upstream = explained(&stack, deploy.acquire("secret/A", None, "").await).await;
    assert_eq!(upstream.rule, "upstream_unavailable");
}

/// I10: two ids tell nothing, and nothing else differs.
#[tokio::test(flavor = "multi_thread")]
async fn absent_and_forbidden_differ_by_the_id_alone() {
    let stack = Stack::start().await;
    let (agent, stranger) = (stack.agent("notes").await, stack.stranger().await);
    let absent = denied(agent.acquire("secret/OPENAI_ABSENT", None, "").await);
    let forbidden = denied(agent.acquire("secret/STRIPE_API_KEY", None, "").await);
    assert_ne!(absent.denial, forbidden.denial);
    assert_eq!(BrokerError { denial: None, ..absent }, BrokerError { denial: None, ..forbidden });
    let first = denied(stranger.open_session(OpenSession::role("absent")).await);
    let second = denied(stranger.open_session(OpenSession::role("absent")).await);
    assert_ne!(first.denial, second.denial, "an id names one call");
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_1024_refusals_are_remembered() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let stranger = stack.stranger().await;
    let mut ids = Vec::new();
    for _ in 0..1025 {
        ids.push(id(stranger.list_leases().await));
    }
    assert_eq!(reason(admin.explain(ids[0]).await), ErrorReason::ArgumentInvalid);
    for id in [ids[1], ids[512], ids[1024]] {
        assert_eq!(admin.explain(id).await.unwrap().rule, "token_missing");
    }
    assert_eq!(reason(admin.explain(DenialId([7; 16])).await), ErrorReason::ArgumentInvalid);
}

/// A restart forgets them; the trail does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_forgotten_is_still_in_the_trail() {
    let mut stack = Stack::start().await;
    let refused = id(stack.agent("notes").await.acquire("secret/STRIPE_API_KEY", None, "").await);
    stack.restart().await;
    assert_eq!(reason(stack.admin().await.explain(refused).await), ErrorReason::ArgumentInvalid);
    let record = stack.audit().into_iter().find(|record| record["denial"] == refused.to_string());
    assert_eq!(record.expect("it is there")["cause"], "scope_missing");
}

/// An allowed call leaves neither an id in its record nor anything to explain.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_has_no_id() {
    let stack = Stack::start().await;
    let agent = stack.agent_for("notes", Some(Duration::from_secs(60))).await;
    agent.acquire(KEY, None, "").await.unwrap();
    agent.renew_session(None).await.unwrap();
    agent.delegate_session(DelegateSession::default()).await.unwrap();
    agent.close_session().await.unwrap();
    assert!(stack.audit().iter().all(|record| record.get("denial").is_none()));
}
