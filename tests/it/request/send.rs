//! Sending as itself: to whom the session may, once, within the identity's day, on the record and without its words.

use std::fs;
use std::time::Duration;

use futures_util::future;
use ravi_broker::client::{
    AgentClient, Answered, Body, ClientError, ErrorReason, MailContent, NewFile, NewMail, SendState, Sent,
};
use ravi_broker::sandbox::{Answer, Fault, NewMail as Delivered, SentKind, StorageHost};
use ravi_broker::secret::Secret;
use ravi_broker::types::SendId;
use zeroize::Zeroizing;

use super::{reason, refusal};
use crate::support::{NOTES, Stack, until};

const COMPOSE: &str = "/api/email-messages/compose/";
const SMS: &str = "/api/messages/send/";
const INBOX: &str = "/api/email/";
/// What is said in these tests, and must be found nowhere.
const CANARY: &str = "canary-7f3a91";

/// `sender` may write to a domain and one person, `reader` may also read, `waiter` may also wait for codes, `mute` may
/// read alone.
const ROLES: &str = r#"
[role.sender]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:send:*@example.org", "email:send:boss@corp.test", "sms:send:+1202*", "identity:read"]
rate = { read = "60000/min", send = "60000/min" }
[role.reader]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:send", "email:read"]
rate = { read = "60000/min", send = "60000/min" }
[role.waiter]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:send", "email:read", "email:await"]
rate = { read = "60000/min", send = "60000/min" }
[role.mute]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:read", "sms:read"]
rate = { read = "60000/min", send = "60000/min" }
"#;

async fn start() -> Stack {
    within("").await
}

async fn within(inbox: &str) -> Stack {
    Stack::with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.sections = format!("[inbox]\n{inbox}\n");
    })
    .await
}

fn content(text: &str) -> MailContent {
    let body = Body::Text(Secret::copy_of(text));
    MailContent { body, cc: Vec::new(), bcc: Vec::new(), attachments: Vec::new() }
}

fn copied(cc: &[&str], bcc: &[&str]) -> MailContent {
    let texts = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect();
    MailContent { cc: texts(cc), bcc: texts(bcc), ..content(CANARY) }
}

async fn send_with(agent: &AgentClient, to: &str, content: MailContent) -> Result<Sent, ClientError> {
    let (to, subject) = (to.to_owned(), format!("About {CANARY}"));
    agent.send_email(NewMail { to, subject, content, reason: "a test".into() }).await
}

async fn send(agent: &AgentClient, to: &str) -> Result<Sent, ClientError> {
    send_with(agent, to, content(CANARY)).await
}

async fn sms(agent: &AgentClient, to: &str) -> Result<Sent, ClientError> {
    agent.send_sms(to, &Secret::copy_of(CANARY), "").await
}

/// Says where the words were seen, if they were.
fn assert_unseen(stack: &Stack) {
    let trail = fs::read_to_string(&stack.setup.audit_file).unwrap();
    let log = stack.daemon.log();
    assert!(!trail.contains(CANARY), "in the trail");
    assert!(!log.contains(CANARY), "in the log");
    assert!(!log.is_empty() && !trail.is_empty());
    for entry in fs::read_dir(stack.setup.audit_file.parent().unwrap()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "in a file");
    }
}

fn send_id<T>(outcome: Result<T, ClientError>) -> SendId {
    let error = refusal(outcome);
    assert_eq!(error.reason, ErrorReason::UpstreamOutcomeUnknown);
    error.send.expect("a handle")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sends_as_its_identity_and_the_record_names_the_recipients_alone() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let mail = send_with(&agent, "Kim@example.org", copied(&["lee@example.org"], &["boss@corp.test"])).await;
    let mail = mail.unwrap();
    assert!(mail.message.starts_with("email/"));
    assert_eq!((mail.budget.limit, mail.budget.used), (100, 1));
    let text = sms(&agent, "+12025550177").await.unwrap();
    assert!(text.message.starts_with("sms/"));
    assert_eq!((text.budget.limit, text.budget.used), (50, 1));
    let sent = stack.control().sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(
        (sent[0].to.as_str(), sent[0].cc.as_slice()),
        ("kim@example.org", &["lee@example.org".to_owned()][..])
    );
    assert_eq!(sent[0].bcc, ["boss@corp.test"]);
    let records = stack.audited("message.sent");
    let targets: Vec<_> = records.iter().map(|record| record["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["kim@example.org, lee@example.org, boss@corp.test", "+12025550177"]);
    assert!(records.iter().all(|record| record["outcome"] == "allowed"));
    assert_eq!(records[0]["reason"], "a test");
    let identity = agent.identity().await.unwrap();
    assert_eq!(identity.email_budget, Some(mail.budget));
    assert_eq!(identity.sms_budget.map(|budget| budget.used), Some(1));
    assert_unseen(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_becomes_html_that_shows_the_same() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let text = "  Tom & Jerry's \"1 < 2\" <b>\r\n\r\nhttps://example.org/?a=1&b=2  end\n\tx\ty";
    let html = "&nbsp;&nbsp;Tom &amp; Jerry&#39;s &quot;1 &lt; 2&quot; &lt;b&gt;<br>\n<br>\n\
        https://example.org/?a=1&amp;b=2 &nbsp;end<br>\n\
        &nbsp;&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;x&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;y";
    send_with(&agent, "kim@example.org", content(text)).await.unwrap();
    // What is HTML already goes out as it is.
    let markup = MailContent { body: Body::Html(Secret::copy_of("<b>1 &amp; 2</b>")), ..content("") };
    send_with(&agent, "kim@example.org", markup).await.unwrap();
    let control = stack.control();
    let arrived: Vec<_> = control.sent().iter().filter_map(|sent| control.html_of(sent.id)).collect();
    assert_eq!(arrived, [html, "<b>1 &amp; 2</b>"]);
}

/// I7.
#[tokio::test(flavor = "multi_thread")]
async fn one_recipient_without_a_scope_is_enough_to_be_refused_and_costs_no_call() {
    let stack = start().await;
    let (agent, mute) = (stack.agent("sender").await, stack.agent("mute").await);
    let stranger = "x@evil.test";
    let before = stack.control().total_requests();
    let outcomes = [
        send(&agent, stranger).await,
        send_with(&agent, "kim@example.org", copied(&["lee@example.org", stranger], &[])).await,
        send_with(&agent, "kim@example.org", copied(&[], &[stranger])).await,
        send(&agent, "kim@example.org.evil.test").await,
        agent.forward("email/502", stranger, content(CANARY), "").await,
        // Without the right to read, nothing is sent on.
        agent.forward("email/502", "kim@example.org", content(CANARY), "").await,
        sms(&agent, "+15550100001").await,
        send(&mute, "kim@example.org").await,
        mute.reply("email/502", Answered::Sender, content(CANARY), "").await,
        mute.reply("email/502", Answered::All, content(CANARY), "").await,
        sms(&mute, "+12025550177").await,
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(reason(outcome), ErrorReason::ResourceNotAvailable, "{number}");
    }
    let file =
        NewFile { name: "a.txt".into(), content_type: "text/plain".into(), bytes: Zeroizing::new(vec![1]) };
    assert_eq!(reason(mute.attach(file).await), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().total_requests(), before);
    let denied = stack.audited("message.sent");
    assert!(denied.iter().all(|record| record["outcome"] == "denied" && record["cause"] == "scope_missing"));
    assert_eq!(denied[1]["target"], "kim@example.org, lee@example.org, x@evil.test");
    assert_unseen(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_only_to_whom_the_session_may_write() {
    let stack = start().await;
    let control = stack.control();
    let deliver = |from: &str, cc: &[&str]| {
        let cc = cc.iter().map(|address| (*address).to_owned()).collect();
        let mail = Delivered {
            identity: NOTES.into(),
            from: from.into(),
            subject: "Lunch".into(),
            text: "Where?".into(),
            cc,
            ..Delivered::default()
        };
        format!("email/{}", control.deliver_mail(mail).unwrap())
    };
    let good = deliver("Kim <kim@example.org>", &["lee@example.org"]);
    let mixed = deliver("kim@example.org", &["lee@example.org", "x@evil.test"]);
    let foreign = deliver("x@evil.test", &[]);
    let unclear = deliver("kim@example.org, x@evil.test", &[]);
    let agent = stack.agent("sender").await;
    let reply = async |message: &str, answered| agent.reply(message, answered, content(CANARY), "").await;
    reply(&good, Answered::Sender).await.unwrap();
    reply(&good, Answered::All).await.unwrap();
    reply(&mixed, Answered::Sender).await.unwrap();
    let none = ErrorReason::ResourceNotAvailable;
    assert_eq!(reason(reply(&mixed, Answered::All).await), none);
    assert_eq!(reason(reply(&foreign, Answered::Sender).await), none);
    assert_eq!(reason(reply(&unclear, Answered::Sender).await), ErrorReason::ArgumentInvalid);
    assert_eq!(reason(reply("email/503", Answered::Sender).await), ErrorReason::ArgumentInvalid, "its own");
    assert_eq!(reason(reply("email/505", Answered::Sender).await), none, "of another identity");
    // Whom the agent adds could be shown what the mail said.
    let added = agent.reply(&good, Answered::Sender, copied(&[], &["boss@corp.test"]), "").await;
    assert_eq!(reason(added), none);
    let sent = control.sent();
    let to: Vec<_> = sent.iter().map(|sent| (sent.to.as_str(), sent.cc.len())).collect();
    assert_eq!(to, [("Kim <kim@example.org>", 0), ("Kim <kim@example.org>", 1), ("kim@example.org", 0)]);
    let allowed = stack.audited("message.sent");
    let allowed: Vec<_> = allowed.iter().filter(|record| record["outcome"] == "allowed").collect();
    assert_eq!(allowed[1]["target"], "kim@example.org, lee@example.org");
    assert_unseen(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_sent_on_only_for_who_may_wait_for_codes() {
    let stack = start().await;
    let (reader, waiter) = (stack.agent("reader").await, stack.agent("waiter").await);
    let forward = async |agent: &AgentClient, message: &str| {
        agent.forward(message, "kim@example.org", content("See"), "").await
    };
    assert_eq!(reason(forward(&reader, "email/504").await), ErrorReason::ResourceNotAvailable);
    let added = reader.reply("email/504", Answered::Sender, copied(&["kim@example.org"], &[]), "").await;
    assert_eq!(reason(added), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().sent(), []);
    forward(&reader, "email/502").await.unwrap();
    forward(&waiter, "email/504").await.unwrap();
    assert_eq!(stack.control().sent().len(), 2);
    let denied = stack.audited("code.watched");
    assert_eq!((denied.len(), &denied[0]["cause"]), (2, &"scope_missing".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_is_counted_before_the_call_and_over_a_restart() {
    let mut stack = within("email_per_day = 3\nsms_per_day = 0").await;
    let agent = stack.agent("sender").await;
    send(&agent, "kim@example.org").await.unwrap();
    send(&stack.agent("reader").await, "x@y.example").await.unwrap();
    stack.restart().await;
    let agent = stack.agent("sender").await;
    assert_eq!(send(&agent, "kim@example.org").await.unwrap().budget.used, 3);
    let posts = stack.control().requests("POST", COMPOSE);
    let refused = refusal(send(&agent, "kim@example.org").await);
    assert_eq!(
        (refused.reason, refused.limit.as_deref()),
        (ErrorReason::QuotaReached, Some("inbox.email_per_day"))
    );
    assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_secs(86_400)));
    assert_eq!(reason(sms(&agent, "+12025550177").await), ErrorReason::QuotaReached);
    assert_eq!(stack.control().requests("POST", COMPOSE), posts);
    assert_eq!(stack.control().requests("POST", SMS), 0);
    let causes: Vec<_> =
        stack.audited("message.sent").into_iter().map(|record| record["cause"].clone()).collect();
    assert_eq!(causes[3..], ["quota_reached", "quota_reached"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_do_not_pass_the_day() {
    let stack = within("email_per_day = 5").await;
    let agent = stack.agent("sender").await;
    let outcomes = future::join_all((0..20).map(|_| send(&agent, "kim@example.org"))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    assert_eq!(stack.control().sent().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_surely_did_not_go_out_is_given_back() {
    let stack = within("email_per_day = 2").await;
    let agent = stack.agent("sender").await;
    for (status, expected) in [
        (400, ErrorReason::UpstreamRefused),
        (402, ErrorReason::UpstreamPlanRequired),
        (403, ErrorReason::UpstreamRefused),
    ] {
        stack.control().add_fault(Fault::new(COMPOSE, Answer::Status(status)).times(1)).unwrap();
        assert_eq!(reason(send(&agent, "kim@example.org").await), expected, "{status}");
    }
    // The number of the inbox is asked for first: that it cannot be had is no send in doubt.
    stack.control().add_fault(Fault::new("/api/email/", Answer::Html(200)).times(1)).unwrap();
    assert_eq!(reason(send(&agent, "kim@example.org").await), ErrorReason::UpstreamInvalid);
    assert_eq!(agent.identity().await.unwrap().email_budget.unwrap().used, 0);
    assert_eq!(send(&agent, "kim@example.org").await.unwrap().budget.used, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_one_send_and_the_check_finds_it() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let lost = [Answer::Reset, Answer::Status(502), Answer::Truncated, Answer::Html(201), Answer::Empty(201)];
    for (number, answer) in lost.into_iter().enumerate() {
        let told = format!("{answer:?}");
        stack
            .control()
            .add_fault(Fault::new(COMPOSE, answer.clone()).on("POST").times(1).taking_effect())
            .unwrap();
        stack.control().add_fault(Fault::new(SMS, answer).on("POST").times(1).taking_effect()).unwrap();
        let (posts, texts) =
            (stack.control().requests("POST", COMPOSE), stack.control().requests("POST", SMS));
        let to = format!("kim{number}@example.org");
        let mail = send_id(send(&agent, &to).await);
        let text = send_id(sms(&agent, &format!("+1202555010{number}")).await);
        assert_eq!(stack.control().requests("POST", COMPOSE), posts + 1, "{told}");
        assert_eq!(stack.control().requests("POST", SMS), texts + 1, "{told}");
        let sent = stack.control().sent();
        let [.., last_mail, last_text] = sent.as_slice() else { panic!("nothing was sent") };
        assert_eq!((last_mail.kind, last_text.kind), (SentKind::Mail, SentKind::Sms));
        let (mail_name, text_name) = (format!("email/{}", last_mail.id), format!("sms/{}", last_text.id));
        assert_eq!(agent.check_send(mail).await.unwrap(), SendState::Sent(mail_name), "{told}");
        assert_eq!(agent.check_send(text).await.unwrap(), SendState::Sent(text_name), "{told}");
    }
    assert_eq!(agent.identity().await.unwrap().email_budget.unwrap().used, 5, "it may have gone out");
    let unknown = stack.audited("message.sent");
    assert_eq!(unknown.iter().filter(|record| record["cause"] == "outcome_unknown").count(), 10);
    assert_unseen(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_go_out_is_not_found_and_another_send_is_not_taken_for_it() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    send(&agent, "kim@example.org").await.unwrap();
    stack.control().add_fault(Fault::new(COMPOSE, Answer::Reset).on("POST").times(1)).unwrap();
    let lost = send_id(send(&agent, "kim@example.org").await);
    assert_eq!(agent.check_send(lost).await.unwrap(), SendState::NotFound, "the first is another one");
    // A second one that is lost as well: which of both went out cannot be told.
    stack
        .control()
        .add_fault(Fault::new(COMPOSE, Answer::Reset).on("POST").times(1).taking_effect())
        .unwrap();
    let second = send_id(send(&agent, "kim@example.org").await);
    assert_eq!(agent.check_send(lost).await.unwrap(), SendState::Ambiguous);
    assert_eq!(agent.check_send(second).await.unwrap(), SendState::Ambiguous);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_of_the_session_that_sent() {
    let stack = start().await;
    let (agent, other) = (stack.agent("sender").await, stack.agent("sender").await);
    stack
        .control()
        .add_fault(Fault::new(COMPOSE, Answer::Reset).on("POST").times(1).taking_effect())
        .unwrap();
    let lost = send_id(send(&agent, "kim@example.org").await);
    let before = stack.control().total_requests();
    assert_eq!(reason(other.check_send(lost).await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(agent.check_send(SendId([9; 16])).await), ErrorReason::ResourceNotAvailable);
    assert_eq!(stack.control().total_requests(), before);
    agent.check_send(lost).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_stop_its_send() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let admin = stack.admin().await;
    // The number of the inbox is asked for before it is sent.
    stack.control().add_fault(Fault::new(INBOX, Answer::Held).on("GET").times(1)).unwrap();
    let asked = stack.control().requests("GET", INBOX);
    let call = tokio::spawn(async move { send(&agent, "kim@example.org").await.map(drop) });
    stack.control().reached("GET", INBOX, asked + 1).await;
    call.abort();
    let _ = call.await;
    until(async || admin.status().await.unwrap().connections == 0).await;
    assert_eq!(stack.control().sent(), []);
    stack.control().release();
    until(async || stack.control().sent().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ravis_own_limit_is_passed_on_and_a_long_one_closes_the_day() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let throttled = |seconds| Answer::Throttled { retry_after_seconds: Some(seconds), retry_after: None };
    stack.control().add_fault(Fault::new(COMPOSE, throttled(30)).times(1)).unwrap();
    let refused = refusal(send(&agent, "kim@example.org").await);
    assert_eq!(refused.reason, ErrorReason::UpstreamThrottled);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
    send(&agent, "kim@example.org").await.unwrap();
    stack.control().add_fault(Fault::new(COMPOSE, throttled(7200)).times(1)).unwrap();
    assert_eq!(reason(send(&agent, "kim@example.org").await), ErrorReason::UpstreamThrottled);
    let posts = stack.control().requests("POST", COMPOSE);
    let refused = refusal(send(&agent, "kim@example.org").await);
    assert_eq!(refused.reason, ErrorReason::QuotaReached);
    assert!(refused.retry_after.is_some_and(|wait| wait > Duration::from_secs(7000)));
    assert_eq!(stack.control().requests("POST", COMPOSE), posts);
    sms(&agent, "+12025550177").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandboxs_own_day_is_a_throttle() {
    let stack = start().await;
    let behaviour = stack.control().behaviour();
    stack.control().set_behaviour(ravi_broker::sandbox::Behaviour { mails_per_day: Some(1), ..behaviour });
    let agent = stack.agent("sender").await;
    send(&agent, "kim@example.org").await.unwrap();
    assert_eq!(reason(send(&agent, "kim@example.org").await), ErrorReason::UpstreamThrottled);
    assert_eq!(stack.control().sent().len(), 1);
}

fn file(name: &str, size: usize) -> NewFile {
    let bytes = Zeroizing::new(CANARY.as_bytes().iter().copied().cycle().take(size).collect());
    NewFile { name: name.into(), content_type: "text/plain".into(), bytes }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_kept_at_ravi_without_a_key_and_sent() {
    let stack = start().await;
    let (agent, other) = (stack.agent("sender").await, stack.agent("sender").await);
    let usual = stack.control().behaviour();
    let elsewhere = ravi_broker::sandbox::Behaviour { storage: StorageHost::Other, ..usual.clone() };
    stack.control().set_behaviour(elsewhere);
    // Where the host confines the daemon, it cannot get to a port of which it knew nothing at its start.
    let _ = agent.attach(file("notes.txt", 1000)).await;
    stack.control().set_behaviour(usual);
    let name = agent.attach(file("notes.txt", 3 << 20)).await.unwrap();
    assert_eq!(stack.control().keys_at_storage(), 0);
    let attached = || MailContent { attachments: vec![name.clone()], ..content("Attached") };
    let posts = stack.control().requests("POST", COMPOSE);
    assert_eq!(reason(send_with(&other, "kim@example.org", attached()).await), ErrorReason::ArgumentInvalid);
    assert_eq!(stack.control().requests("POST", COMPOSE), posts);
    send_with(&agent, "kim@example.org", attached()).await.unwrap();
    assert_eq!(stack.control().sent()[0].attachments[0].to_string(), name);
    assert_eq!(stack.control().keys_at_storage(), 0);
    assert!(stack.audited("message.attached").iter().any(|record| record["outcome"] == "allowed"));
    assert_unseen(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ravi_would_refuse_is_refused_with_its_rule_before_a_call() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    let before = stack.control().total_requests();
    for (name, size, told) in [
        ("run.exe", 1, "extension"),
        ("../a.txt", 1, "path"),
        ("", 1, "1 to 255 bytes"),
        ("a.txt", (10 << 20) + 1, "10,485,760"),
    ] {
        let refused = refusal(agent.attach(file(name, size)).await);
        assert_eq!(refused.reason, ErrorReason::ArgumentInvalid, "{name}");
        assert!(refused.message.contains(told), "{}", refused.message);
    }
    assert_eq!(stack.control().total_requests(), before);
    agent.attach(file("largest.bin.txt", 10 << 20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_trail_is_disturbed_nothing_is_sent() {
    let stack = start().await;
    let agent = stack.agent("sender").await;
    fs::write(&stack.setup.audit_file, b"somebody else's\n").unwrap();
    assert_eq!(reason(send(&agent, "kim@example.org").await), ErrorReason::AuditUnavailable);
    assert_eq!(reason(sms(&agent, "+12025550177").await), ErrorReason::AuditUnavailable);
    assert_eq!(stack.control().sent(), []);
}
