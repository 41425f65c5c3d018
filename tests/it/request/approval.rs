//! Requests that wait for the operator: bound to the letter, decided in the time stated, and spent once.

use std::sync::Arc;
use std::time::Duration;

use ravi_broker::client::{
    AgentClient, ApprovalDecision, ClientError, Credential, Delivery, ErrorReason, Lease, OpenSession,
    OpenWatch, PendingApproval, RevokeTarget,
};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::secret::Secret;
use ravi_broker::types::Channel;
use tokio::task::JoinHandle;

use super::reason;
use crate::support::{Stack, bounded, until};

const KEY: &str = "secret/OPENAI_API_KEY";
const ORG: &str = "secret/OPENAI_ORG_ID";

/// `asking` has to ask for one secret, for writing, sending, minting and codes; `hasty` asks and waits a second.
const ROLES: &str = r#"
[role.asking]
identity = "assistant-notes-agent"
match = { uid = UID }
use_by = "any"
scopes = ["secret:read", "secret:list", "secret:write", "email:send", "email:read", "sms:send", "sms:await", "sso:mint", "identity:create"]
approve = ["secret:read:OPENAI_API_*", "secret:write", "email:send:boss@corp.test", "sms:await", "sso:mint", "identity:create"]
rate = { read = "60000/min", send = "60000/min" }
[role.hasty]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read"]
approve = ["secret:read"]
approval = { wait = "1s", max_pending = 3, session_pending = 2 }
rate = { read = "60000/min" }
"#;

async fn stack() -> Stack {
    Stack::with(|setup| setup.roles = ROLES.to_owned()).await
}

type Acquired = Result<(Lease, Credential), ClientError>;

fn acquiring(agent: &Arc<AgentClient>, resource: &'static str, reason: &'static str) -> JoinHandle<Acquired> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.acquire(resource, None, reason).await })
}

/// What waits, once so many questions do.
async fn waiting(stack: &Stack, count: usize) -> Vec<PendingApproval> {
    let admin = stack.admin().await;
    let mut told = admin.watch_approvals().await.unwrap();
    loop {
        let now = bounded(futures_util::StreamExt::next(&mut told)).await.unwrap().unwrap();
        if now.approvals.len() == count {
            return now.approvals;
        }
    }
}

async fn decide(stack: &Stack, question: &PendingApproval, said: ApprovalDecision) {
    stack.admin().await.decide_approval(question.approval_id, said).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_value_waits_for_the_operator_and_the_trail_names_who_decided() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    // What is not marked is not asked about.
    agent.acquire(ORG, None, "").await.unwrap();
    let calls = stack.control().total_requests();
    let asked = acquiring(&agent, KEY, "to summarise\u{2003}notes");
    let [question] = &waiting(&stack, 1).await[..] else { panic!("one question") };
    assert_eq!((question.action.as_str(), question.about.as_str()), ("secret:read", KEY));
    assert_eq!((question.role.as_str(), question.delivery), ("asking", Some(Delivery::Shown)));
    assert_eq!(question.pid.unsigned_abs(), std::process::id());
    assert_eq!(question.executable, std::env::current_exe().unwrap().display().to_string());
    assert_eq!(question.claimed_reason, "to summarise\u{2003}notes");
    assert_eq!(stack.admin().await.status().await.unwrap().approvals, 1);
    assert_eq!(stack.control().total_requests(), calls, "nothing is fetched for a question");
    assert!(stack.audited("lease.acquired").len() == 1);
    decide(&stack, question, ApprovalDecision::Once).await;
    let (lease, credential) = bounded(asked).await.unwrap().unwrap();
    assert!(!credential.value.expose().is_empty());

    let (asked, allowed) = (&stack.audited("approval.asked")[0], &stack.audited("approval.allowed")[0]);
    assert_eq!((&asked["approval"], &asked["action"]), (&allowed["approval"], &"secret:read".into()));
    assert_eq!((&asked["about"], &asked["role"]), (&KEY.into(), &"asking".into()));
    assert_eq!(allowed["operator_uid"], nix::unistd::geteuid().as_raw());
    assert_eq!(allowed["operator_pid"], std::process::id());
    // What is done under the lease is not asked about again; another lease is.
    agent.read(lease.lease_id).await.unwrap();
    agent.renew(lease.lease_id, None).await.unwrap();
    let _again = acquiring(&agent, KEY, "to summarise\u{2003}notes");
    waiting(&stack, 1).await;
}

/// Not before its time, and not much after it: the bound that is promised is a second.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_it_is_decided_in_the_time_stated() {
    let stack = stack().await;
    let agent = stack.agent("hasty").await;
    let calls = stack.control().total_requests();
    let begun = SystemClock.now();
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::ApprovalTimeout);
    let took = SystemClock.now().since(begun);
    println!("a wait of 1 s took {took:?}");
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&took), "{took:?}");
    assert_eq!(stack.control().total_requests(), calls);
    until(async || !stack.audited("approval.expired").is_empty()).await;
    assert_eq!(stack.audited("approval.expired")[0]["cause"], "approval_expired");
    assert_eq!(stack.audited("lease.denied")[0]["cause"], "approval_expired");
    assert!(stack.admin().await.approvals().await.unwrap().approvals.is_empty());
}

/// The agent's own deadline is shorter than the role's: it is told, and the question waits for its return.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_before_its_own_deadline_and_the_question_goes_on() {
    let stack = stack().await;
    let (_, token) = stack.stranger().await.open_session(OpenSession::role("asking")).await.unwrap();
    let channel = raw(&stack).await;
    let mut leases = ravi_broker::pb::lease_service_client::LeaseServiceClient::new(channel);
    let message = ravi_broker::pb::AcquireLeaseRequest { resource: KEY.into(), ..Default::default() };
    let mut request = tonic::Request::new(message);
    let bearer = format!("Bearer {}", token.expose()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request.set_timeout(Duration::from_secs(2));
    let begun = SystemClock.now();
    let refused = leases.acquire_lease(request).await.unwrap_err();
    assert!(SystemClock.now().since(begun) < Duration::from_secs(2), "{:?}", SystemClock.now().since(begun));
    assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
    assert!(refused.message().contains("make the same call again"), "{}", refused.message());
    let [question] = &waiting(&stack, 1).await[..] else { panic!("it goes on") };
    assert_eq!(question.calls, 0);
    decide(&stack, question, ApprovalDecision::Once).await;
    // The same call, made again, goes through; it is spent then.
    let agent = stack.holder(&token).await;
    agent.acquire(KEY, None, "").await.unwrap();
    let agent = Arc::new(agent);
    let _again = acquiring(&agent, KEY, "");
    waiting(&stack, 1).await;
}

async fn raw(stack: &Stack) -> tonic::transport::Channel {
    let path = stack.setup.agent_socket.clone();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_are_one_question_and_one_use_is_for_one_of_them() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let mut asked: Vec<_> = (0..5).map(|_| acquiring(&agent, KEY, "deploy")).collect();
    until(async || waiting(&stack, 1).await[0].calls == 5).await;
    decide(&stack, &waiting(&stack, 1).await[0], ApprovalDecision::Once).await;
    let (first, _, others) = futures_util::future::select_all(asked.drain(..)).await;
    first.unwrap().unwrap();
    let [question] = &waiting(&stack, 1).await[..] else { panic!("the others wait on") };
    assert_eq!(question.calls, 4);
    assert_eq!(stack.audited("lease.acquired").len(), 1);
    decide(&stack, question, ApprovalDecision::For(Duration::from_secs(60))).await;
    for other in others {
        bounded(other).await.unwrap().unwrap();
    }
    agent.acquire(KEY, None, "deploy").await.unwrap();
    assert_eq!(stack.audited("approval.asked").len(), 1);
    assert_eq!(stack.audited("approval.allowed")[1]["ttl"], 60);
    // Another reason is another question, and so is another session.
    let _other = acquiring(&agent, KEY, "something else");
    let stranger = Arc::new(stack.agent("asking").await);
    let _another = acquiring(&stranger, KEY, "deploy");
    waiting(&stack, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_stays_one_and_a_thousand_requests_do_not_bury_the_operator() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let asked = acquiring(&agent, KEY, "please");
    decide(&stack, &waiting(&stack, 1).await[0], ApprovalDecision::Deny).await;
    assert_eq!(reason(bounded(asked).await.unwrap()), ErrorReason::ApprovalDenied);
    for pretext in ["please", "urgent", ""] {
        assert_eq!(reason(agent.acquire(KEY, None, pretext).await), ErrorReason::ApprovalDenied, "{pretext}");
    }
    assert!(stack.admin().await.approvals().await.unwrap().approvals.is_empty());
    assert_eq!(stack.audited("approval.denied").len(), 1);

    let hasty = stack.agent("hasty").await;
    let (names, hasty) = ((0..1000).map(|name| format!("secret/A{name}")), &hasty);
    let outcomes = futures_util::future::join_all(
        names.map(|name| async move { reason(hasty.acquire(&name, None, "").await) }),
    )
    .await;
    let full = outcomes.iter().filter(|outcome| **outcome == ErrorReason::CapacityReached).count();
    let timed_out = outcomes.iter().filter(|outcome| **outcome == ErrorReason::ApprovalTimeout).count();
    assert_eq!(full + timed_out, 1000, "{outcomes:?}");
    let asked = stack.audited("approval.asked").len() - 1;
    // Two at once for a second each; the calls of one connection come in turns.
    assert!((2..=2 * 16).contains(&asked) && timed_out == asked, "{asked}, {timed_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_it_waits_gets_nothing_and_its_question_is_gone() {
    let stack = stack().await;
    let (session, agent) = stack.opened(OpenSession::role("asking")).await;
    let asked = acquiring(&Arc::new(agent), KEY, "");
    let question = waiting(&stack, 1).await.remove(0);
    let admin = stack.admin().await;
    admin.revoke(RevokeTarget::Session(session.session_id), "").await.unwrap();
    assert_eq!(reason(bounded(asked).await.unwrap()), ErrorReason::SessionRevoked);
    let late = admin.decide_approval(question.approval_id, ApprovalDecision::Once).await;
    assert_eq!(reason(late), ErrorReason::ArgumentInvalid);
    let expired = &stack.audited("approval.expired")[0];
    assert_eq!(
        (&expired["cause"], &expired["approval"]),
        (&"session_ended".into(), &question.approval_id.to_string().into())
    );
    assert!(stack.audited("lease.acquired").is_empty());

    let agent = Arc::new(stack.agent("asking").await);
    let asked = acquiring(&agent, KEY, "");
    waiting(&stack, 1).await;
    admin.lock("").await.unwrap();
    assert_eq!(reason(bounded(asked).await.unwrap()), ErrorReason::BrokerLocked);
}

/// A right that a reload takes away while the operator is asked is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_allowed_is_judged_by_the_role_of_now() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let asked = acquiring(&agent, KEY, "");
    let question = waiting(&stack, 1).await.remove(0);
    stack.rewrite(|text| {
        text.replacen("\"secret:read\", ", "", 1).replacen("\"secret:read:OPENAI_API_*\", ", "", 1)
    });
    stack.admin().await.reload().await.unwrap();
    decide(&stack, &question, ApprovalDecision::Once).await;
    assert_eq!(reason(bounded(asked).await.unwrap()), ErrorReason::ResourceNotAvailable);
    assert!(stack.audited("lease.acquired").is_empty());
}

/// Writes, sends, sign-in tokens, codes and new identities wait before anything of them is done.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_act_that_is_marked_waits_before_it_begins() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let calls = stack.control().total_requests();
    let set = tokio::spawn({
        let agent = agent.clone();
        async move { agent.set_secret("NEW", &Secret::copy_of("value"), "").await.map(drop) }
    });
    let mail = tokio::spawn({
        let agent = agent.clone();
        async move {
            let body = ravi_broker::client::Body::Text(Secret::copy_of("hello"));
            let (cc, bcc, attachments) = (vec!["boss@corp.test".to_owned()], Vec::new(), Vec::new());
            let content = ravi_broker::client::MailContent { body, cc, bcc, attachments };
            let (to, subject) = ("a@example.org".to_owned(), "subject".to_owned());
            let mail = ravi_broker::client::NewMail { to, subject, content, reason: String::new() };
            agent.send_email(mail).await.map(drop)
        }
    });
    let code = tokio::spawn({
        let agent = agent.clone();
        async move {
            let open = OpenWatch {
                channel: Channel::Sms,
                from: String::new(),
                kind: ravi_broker::client::CodeKind::Any,
                purpose: "sign in".into(),
                ttl: None,
            };
            let watch = agent.open_watch(open).await?;
            agent.await_code(watch.id, Some(Duration::from_millis(1))).await.map(drop)
        }
    });
    let created = tokio::spawn({
        let agent = agent.clone();
        async move { agent.create_identity("another-agent", "").await.map(drop) }
    });
    let questions = waiting(&stack, 4).await;
    assert_eq!(stack.control().total_requests(), calls, "nothing was begun");
    let mut asked: Vec<_> = questions.iter().map(|q| (q.action.as_str(), q.about.as_str())).collect();
    asked.sort_unstable();
    assert_eq!(
        asked,
        [
            ("email:send", "a@example.org, boss@corp.test"),
            ("identity:create", "identity/another-agent"),
            ("secret:write", "secret/NEW"),
            ("sms:await", "sms"),
        ]
    );
    for question in &questions {
        decide(&stack, question, ApprovalDecision::Once).await;
    }
    for done in [set, mail, code, created] {
        bounded(done).await.unwrap().unwrap();
    }
    let token = acquiring(&agent, "sso/token", "");
    decide(&stack, &waiting(&stack, 1).await[0], ApprovalDecision::Once).await;
    bounded(token).await.unwrap().unwrap();
}

/// What has not begun when its caller goes is not begun: the caller may have asked somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_caller_went_away_while_it_waited_is_not_made_by_itself() {
    let stack = stack().await;
    let agent = Arc::new(stack.agent("asking").await);
    let set = tokio::spawn({
        let agent = agent.clone();
        async move { agent.set_secret("NEW", &Secret::copy_of("value"), "").await.map(drop) }
    });
    waiting(&stack, 1).await;
    set.abort();
    until(async || waiting(&stack, 1).await[0].calls == 0).await;
    let calls = stack.control().total_requests();
    decide(&stack, &waiting(&stack, 1).await[0], ApprovalDecision::Once).await;
    assert_eq!(stack.control().total_requests(), calls);
    // Another value under the same name is another request; the very same goes through.
    let other = tokio::spawn({
        let agent = agent.clone();
        async move { agent.set_secret("NEW", &Secret::copy_of("another"), "").await.map(drop) }
    });
    waiting(&stack, 1).await;
    other.abort();
    agent.set_secret("NEW", &Secret::copy_of("value"), "").await.unwrap();
}
