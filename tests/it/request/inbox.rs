//! The inbox: what is shown of a message, and who is given the code in one.

use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use ravi_broker::client::{AgentClient, Code, CodeKind, CodeWatch, ErrorReason, OpenWatch};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::sandbox::{Answer, Behaviour, Fault, NewMail, NewSms};
use ravi_broker::types::{Channel, MessageRef};

use super::reason;
use crate::support::{NOTES, Stack, bounded, until};

/// `agent` may do everything with messages, `reader` may not wait for codes, `waiter` may do nothing else.
const ROLES: &str = r#"
[role.agent]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:read", "email:await", "sms:read", "sms:await"]
session = { max_live = 200 }
rate = { read = "60000/min" }

[role.reader]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:read", "sms:read"]

[role.waiter]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["sms:await"]

[role.other]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["email:await", "sms:await", "email:read", "sms:read"]

[role.mailed]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:await"]

[role.fresh]
identity = "fresh persona"
provision = true
match = { uid = UID }
scopes = ["email:await", "email:read", "identity:read"]
"#;

const CODE: &str = "739214";

async fn stack() -> Stack {
    Stack::with(|setup| setup.roles = ROLES.into()).await
}

fn open(channel: Channel, from: &str) -> OpenWatch {
    OpenWatch { channel, from: from.into(), kind: CodeKind::Any, purpose: "sign in".into(), ttl: None }
}

fn sms(from: &str, body: &str) -> NewSms {
    NewSms { identity: NOTES.into(), from: from.into(), body: body.into(), ..NewSms::default() }
}

fn mail(from: &str, subject: &str, text: &str) -> NewMail {
    let (from, subject, text) = (from.into(), subject.into(), text.into());
    NewMail { identity: NOTES.into(), from, subject, text, ..NewMail::default() }
}

/// Waits until the watch has its answer.
async fn code(agent: &AgentClient, watch: CodeWatch) -> Code {
    let wait = async {
        loop {
            if let Some(code) =
                agent.await_code(watch.id, None).await.unwrap_or_else(|error| panic!("{error}"))
            {
                return code;
            }
        }
    };
    bounded(wait).await
}

/// What a watch has by now, after the inbox was looked at once more.
async fn code_by_now(agent: &AgentClient, watch: CodeWatch) -> Option<Code> {
    // A watch that is opened now is armed by a look that sees all that was delivered before.
    let other = agent.open_watch(open(Channel::Email, "")).await.unwrap();
    let texts = agent.open_watch(open(Channel::Sms, "")).await.unwrap();
    for more in [other, texts] {
        agent.close_watch(more.id).await.unwrap();
    }
    let soon = Some(Duration::from_millis(1));
    agent.await_code(watch.id, soon).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_a_text_message_reaches_who_waits_for_it_and_no_disk() {
    let stack = stack().await;
    let agent = stack.agent("agent").await;
    let watch = agent.open_watch(open(Channel::Sms, "+15559876543")).await.unwrap();
    let id = stack
        .control()
        .deliver_sms(sms("+15559876543", "Your verification code is 739214. Do not share it."));
    let id = id.unwrap();
    let code = code(&agent, watch).await;
    assert_eq!((code.value.expose(), code.is_link), (CODE, false));
    assert_eq!(code.message, MessageRef { channel: Channel::Sms, id });
    // A retry of the same watch gets the same answer.
    let again = agent.await_code(watch.id, None).await.unwrap().unwrap();
    assert_eq!(again.value.expose(), CODE);
    let records = stack.audited("code.claimed");
    assert_eq!((records.len(), records[0]["target"].as_str().unwrap()), (2, format!("sms/{id}").as_str()));
    assert_eq!(stack.audited("code.watched")[0]["reason"], "sign in");
    for entry in std::fs::read_dir(stack.setup.audit_file.parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(CODE.len()).any(|part| part == CODE.as_bytes()), "the code is on the disk");
    }
    assert!(!stack.daemon.log().contains(CODE));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_mail_is_given_with_its_host() {
    let stack = stack().await;
    let agent = stack.agent("agent").await;
    let watch = agent.open_watch(OpenWatch { kind: CodeKind::Link, ..open(Channel::Email, "example.com") });
    let watch = watch.await.unwrap();
    let link = "https://app.example.com/login/verify?token=Zk3v9QpLx2mN8sTb";
    let text =
        format!("Hi,\n\nclick this link to sign in to Example:\n\n{link}\n\nIt expires in 10 minutes.");
    stack.control().deliver_mail(mail("no-reply@example.com", "Sign in to Example", &text)).unwrap();
    let code = code(&agent, watch).await;
    assert_eq!((code.value.expose(), code.is_link, code.link_host.as_str()), (link, true, "app.example.com"));
}

/// Somebody else's address in its head must neither show it nor keep an inbox shut.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_of_blind_copies_alone_is_an_empty_one_and_takes_codes() {
    let stack = stack().await;
    let (agent, deploy) = (stack.agent("fresh").await, stack.agent("other").await);
    let own = agent.identity().await.unwrap();
    let to_fresh = |mail: NewMail| NewMail { identity: own.uuid.to_string(), ..mail };
    let blind = |subject: &str| {
        let to = Some("deploy-agent@agents.sandbox.example".to_owned());
        let blind = to_fresh(mail("eve@example.net", subject, "Your code is 555111"));
        stack.control().deliver_mail(NewMail { to, ..blind }).unwrap()
    };
    let list = async |agent: &AgentClient| agent.list_messages(Some(Channel::Email), 0, None).await;
    let before = list(&deploy).await.unwrap().messages.len();
    for subject in ["first", "second"] {
        let id = blind(subject);
        let listed = list(&agent).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(listed.messages.is_empty(), "{subject}");
        let named = agent.message(MessageRef { channel: Channel::Email, id }).await;
        assert_eq!(reason(named.map(drop)), ErrorReason::UpstreamInvalid);
    }
    let watch = agent.open_watch(open(Channel::Email, "")).await.unwrap();
    blind("third");
    let code_for_us = to_fresh(mail("noreply@github.com", "Sign in", "Your GitHub code is 739214"));
    let id = stack.control().deliver_mail(code_for_us).unwrap();
    let code = code(&agent, watch).await;
    assert_eq!((code.value.expose(), code.message), (CODE, MessageRef { channel: Channel::Email, id }));
    assert_eq!(list(&agent).await.unwrap().messages.len(), 1);
    assert_eq!(list(&deploy).await.unwrap().messages.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_the_watch_and_what_others_send_is_no_answer() {
    let stack = stack().await;
    let agent = stack.agent("agent").await;
    let body = "Your GitHub code is 111222";
    stack.control().deliver_mail(mail("noreply@github.com", "Old", body)).unwrap();
    let watch = agent.open_watch(open(Channel::Email, "github.com")).await.unwrap();
    for decoy in ["noreply@github.com.evil.io", "GitHub noreply@github.com <a@evil.io>", "a@notgithub.com"] {
        stack.control().deliver_mail(mail(decoy, "Your code", "Your GitHub code is 333444")).unwrap();
    }
    stack.control().deliver_sms(sms("+15559876543", "Your GitHub code is 555666")).unwrap();
    assert!(code_by_now(&agent, watch).await.is_none());
    stack
        .control()
        .deliver_mail(mail("GitHub <noreply@github.com>", "Your code", "Your GitHub code is 739214"))
        .unwrap();
    assert_eq!(code(&agent, watch).await.value.expose(), CODE);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_who_wait_one_is_given_the_code_and_they_share_the_looks() {
    let stack = stack().await;
    let agents = join_all((0..20).map(|_| stack.agent("agent"))).await;
    let looks = || stack.control().requests("GET", "/api/messages/");
    let before = looks();
    let opened =
        agents.iter().flat_map(|agent| (0..5).map(move |_| agent.open_watch(open(Channel::Sms, ""))));
    let watches: Vec<CodeWatch> = join_all(opened).await.into_iter().map(|watch| watch.unwrap()).collect();
    assert!(looks() - before <= 6, "{} looks for a hundred watches", looks() - before);
    let began = SystemClock.now();
    stack.control().deliver_sms(sms("+15559876543", "739214 is your Example code")).unwrap();
    let first = async {
        loop {
            let soon = Some(Duration::from_secs(5));
            let asked = agents.iter().zip(watches.chunks(5));
            let asked =
                asked.flat_map(|(agent, own)| own.iter().map(|watch| agent.await_code(watch.id, soon)));
            let given: Vec<_> = join_all(asked).await.into_iter().flat_map(Result::unwrap).collect();
            if !given.is_empty() {
                return given;
            }
        }
    };
    let given = bounded(first).await;
    assert_eq!(given.iter().map(|code| code.value.expose()).collect::<Vec<_>>(), [CODE]);
    assert!(SystemClock.now().since(began) < Duration::from_secs(15));
    assert_eq!(stack.audited("code.claimed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_there_within_one_interval_of_its_arrival() {
    let stack = stack().await;
    let (agent, control) = (stack.agent("agent").await, stack.control());
    let (mut latest, mut after_the_look) = (Duration::ZERO, Vec::new());
    for round in 0..5 {
        let watch = agent.open_watch(open(Channel::Sms, "")).await.unwrap();
        let looks = control.requests("GET", "/api/messages/");
        let began = SystemClock.now();
        control.deliver_sms(sms("+15559876543", &format!("Your code is 73921{round}"))).unwrap();
        let looked = async {
            control.reached("GET", "/api/messages/", looks + 1).await;
            SystemClock.now()
        };
        let (_, looked) = tokio::join!(code(&agent, watch), looked);
        after_the_look.push(SystemClock.now().since(looked));
        latest = latest.max(SystemClock.now().since(began));
        agent.close_watch(watch.id).await.unwrap();
    }
    after_the_look.sort_unstable();
    let median = after_the_look[2];
    let _ = writeln!(
        std::io::stderr(),
        "from the look to the code: {after_the_look:?}; from the arrival at most {latest:?}"
    );
    // Two seconds, a tenth of jitter, and what a busy machine takes.
    assert!(latest < Duration::from_millis(2_200 + 800), "{latest:?}");
    assert!(median < Duration::from_millis(50), "{after_the_look:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_of_its_session_alone() {
    let stack = stack().await;
    let (agent, stranger) = (stack.agent("agent").await, stack.agent("agent").await);
    let watch = agent.open_watch(open(Channel::Sms, "")).await.unwrap();
    assert_eq!(reason(stranger.await_code(watch.id, None).await), ErrorReason::WatchNotAvailable);
    assert_eq!(reason(stranger.close_watch(watch.id).await), ErrorReason::WatchNotAvailable);
    let unknown = "wat_aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    assert_eq!(reason(agent.await_code(unknown, None).await), ErrorReason::WatchNotAvailable);
    let causes: Vec<_> = stack
        .audited("request.denied")
        .iter()
        .map(|record| record["cause"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(causes, ["watch_foreign", "watch_foreign", "watch_unknown"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_session_its_watch_and_a_lock() {
    let stack = stack().await;
    let (agent, admin) = (stack.agent("agent").await, stack.admin().await);
    let short = OpenWatch { ttl: Some(Duration::from_secs(1)), ..open(Channel::Sms, "") };
    let watch = agent.open_watch(short).await.unwrap();
    assert_eq!(reason(bounded(agent.await_code(watch.id, None)).await), ErrorReason::WatchExpired);
    let watch = agent.open_watch(open(Channel::Sms, "")).await.unwrap();
    let waiting = agent.await_code(watch.id, None);
    let (waited, locked) = tokio::join!(bounded(waiting), async {
        // The call is under way when a second one of the session is answered.
        agent.describe_session().await.unwrap();
        admin.lock("").await
    });
    locked.unwrap();
    assert!([ErrorReason::BrokerLocked, ErrorReason::SessionRevoked].contains(&reason(waited)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_wait_for_codes_is_shown_none() {
    let stack = stack().await;
    let (agent, reader) = (stack.agent("agent").await, stack.agent("reader").await);
    let text = "Your verification code is 739214.";
    let id = stack.control().deliver_mail(mail("a@example.com", "739214 is your code", text)).unwrap();
    stack.control().deliver_sms(sms("+15559876543", text)).unwrap();
    let name = MessageRef { channel: Channel::Email, id };
    let whole = agent.message(name).await.unwrap();
    assert!(whole.text.expose().contains(CODE) && !whole.redacted);
    let left = reader.message(name).await.unwrap();
    assert!(left.redacted && !left.text.expose().contains(CODE) && !left.summary.subject.contains(CODE));
    let listed = reader.list_messages(None, 0, None).await.unwrap();
    let channels: Vec<Channel> = listed.messages.iter().map(|message| message.message.channel).collect();
    assert!(channels.starts_with(&[Channel::Sms, Channel::Email]), "{channels:?}");
    assert!(listed.messages.iter().all(|message| !message.subject.contains(CODE)));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_listed_in_pages_the_newest_first() {
    let stack = stack().await;
    let agent = stack.agent("agent").await;
    let before = agent.list_messages(None, 50, None).await.unwrap().messages.len();
    for number in 0..3 {
        stack.control().deliver_sms(sms("+15559876543", &format!("text {number}"))).unwrap();
        stack.control().deliver_mail(mail("a@example.com", &format!("mail {number}"), "hello")).unwrap();
    }
    let (mut seen, mut page) = (Vec::new(), None);
    loop {
        let listed = agent.list_messages(None, 2, page.as_deref()).await.unwrap();
        seen.extend(listed.messages);
        let Some(next) = listed.next else { break };
        page = Some(next);
    }
    assert_eq!(seen.len(), before + 6);
    assert!(seen.windows(2).all(|pair| pair[0].created_at >= pair[1].created_at));
    let names: std::collections::HashSet<_> = seen.iter().map(|message| message.message).collect();
    assert_eq!(names.len(), seen.len(), "no message came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_messages_are_told_as_they_come_and_only_ones_own() {
    let stack = stack().await;
    let (reader, other) = (stack.agent("reader").await, stack.agent("other").await);
    let watcher = stack.agent("agent").await;
    let mut events = reader.watch_inbox(None).await.unwrap();
    let mut others = other.watch_inbox(None).await.unwrap();
    // With a watch open it is looked often.
    let watch = watcher.open_watch(open(Channel::Sms, "")).await.unwrap();
    stack.control().deliver_sms(sms("+15559876543", "Your code is 739214")).unwrap();
    let told = bounded(events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((told.from.as_str(), told.message.channel), ("+15559876543", Channel::Sms));
    code(&watcher, watch).await;
    other.close_session().await.unwrap();
    assert_eq!(reason(bounded(others.next()).await.unwrap()), ErrorReason::SessionRevoked);
}

/// It would take the code, and the watch that its caller opens next would wait in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_caller_went_away_while_it_was_opened_takes_no_code() {
    const MAILS: &str = "/api/email-messages/";
    let stack = stack().await;
    let (agent, control) = (stack.agent("agent").await, stack.control());
    let before = control.requests("GET", MAILS);
    control.add_fault(Fault::new(MAILS, Answer::Held)).unwrap();
    tokio::select! {
        opened = agent.open_watch(open(Channel::Email, "")) => panic!("it is held: {}", opened.is_ok()),
        () = until(async || control.requests("GET", MAILS) > before) => {}
    }
    control.clear_faults();
    control.release();
    let watch = agent.open_watch(open(Channel::Email, "")).await.unwrap();
    control.deliver_mail(mail("noreply@github.com", "Sign in", "Your GitHub code is 739214")).unwrap();
    assert_eq!(code(&agent, watch).await.value.expose(), CODE);
}

/// What a reload takes is gone from a stream that began before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_by_the_rights_of_now() {
    let stack = stack().await;
    let (agent, mailed) = (stack.agent("agent").await, stack.agent("mailed").await);
    let mut events = agent.watch_inbox(Some(Channel::Email)).await.unwrap();
    // With a watch open it is looked often; this one fits nothing that comes.
    mailed.open_watch(open(Channel::Email, "nobody.example")).await.unwrap();
    let mut told = async || {
        let subject = "Your GitHub code is 739214";
        stack.control().deliver_mail(mail("noreply@github.com", subject, "Do not share it.")).unwrap();
        bounded(events.next()).await.unwrap().map(|told| told.unwrap().subject)
    };
    assert!(told().await.unwrap().contains(CODE));
    let admin = stack.admin().await;
    let take = async |scope: &str| {
        stack.rewrite(|text| text.replacen(scope, "", 1));
        admin.reload().await.unwrap();
    };
    take("\"email:await\", ").await;
    assert!(!told().await.unwrap().contains(CODE));
    take("\"email:read\", ").await;
    assert_eq!(reason(told().await), ErrorReason::ResourceNotAvailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_scope_allows_costs_no_call() {
    let stack = stack().await;
    let (waiter, reader) = (stack.agent("waiter").await, stack.agent("reader").await);
    let calls = stack.control().total_requests();
    let denied = [
        reason(waiter.list_messages(None, 0, None).await.map(drop)),
        reason(waiter.message("sms/1".parse().unwrap()).await.map(drop)),
        reason(waiter.open_watch(open(Channel::Email, "")).await.map(drop)),
        reason(waiter.watch_inbox(Some(Channel::Sms)).await.map(drop)),
        reason(reader.open_watch(open(Channel::Sms, "")).await.map(drop)),
    ];
    assert_eq!(denied, [ErrorReason::ResourceNotAvailable; 5]);
    assert_eq!(stack.control().total_requests(), calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_identity_is_as_absent_as_none() {
    let stack = stack().await;
    let other = stack.agent("other").await;
    let id = stack.control().deliver_mail(mail("a@example.com", "hello", "hello")).unwrap();
    let theirs = other.message(MessageRef { channel: Channel::Email, id }).await;
    let none = other.message("email/987654".parse().unwrap()).await;
    assert_eq!(reason(theirs), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(none), ErrorReason::ResourceNotAvailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_only_so_many_watches() {
    let stack = stack().await;
    let agent = stack.agent("agent").await;
    let opened = join_all((0..16).map(|_| agent.open_watch(open(Channel::Sms, "")))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(reason(agent.open_watch(open(Channel::Sms, "")).await), ErrorReason::CapacityReached);
    agent.close_watch(opened[0].as_ref().unwrap().id).await.unwrap();
    agent.open_watch(open(Channel::Sms, "")).await.unwrap();
}

/// With looks a minute apart, only the event stream can tell in time.
#[tokio::test(flavor = "multi_thread")]
async fn ravis_event_stream_makes_it_look_sooner_where_that_is_switched_on() {
    let stack = Stack::with(|setup| {
        setup.roles = ROLES.into();
        setup.sections = "[inbox]\npoll = \"60s\"\nevents = true\n".into();
    });
    let stack = stack.await;
    let control = stack.control();
    control.set_behaviour(Behaviour { events: true, ..control.behaviour() });
    let agent = stack.agent("agent").await;
    let watch = agent.open_watch(open(Channel::Sms, "")).await.unwrap();
    bounded(control.reached("GET", "/api/events/stream/", 1)).await;
    let began = SystemClock.now();
    control.deliver_sms(sms("+15559876543", "Your code is 739214")).unwrap();
    assert_eq!(code(&agent, watch).await.value.expose(), CODE);
    assert!(SystemClock.now().since(began) < Duration::from_secs(20));
}
