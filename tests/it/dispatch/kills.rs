//! The daemon is killed again and again while messages come in: nothing that woke nobody is lost, no code is given
//! twice, nothing is sent twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use ravi_broker::client::{AgentClient, CodeKind, OpenSession, OpenWatch};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::sandbox::{Control, NewSms};
use ravi_broker::secret::Secret;
use ravi_broker::types::Channel;

use super::{callback::Callback, rule, with_rules};
use crate::support::{Daemon, NOTES, Stack, bounded};

/// `RAVI_TEST_KILLS=200` asks for more.
const KILLS: usize = 15;
/// A daemon lives at most so long once it is ready.
const LIFE: Duration = Duration::from_millis(2_500);

const ROLE: &str = r#"
[role.agent]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["sms:await", "sms:send"]
rate = { read = "60000/min", send = "60000/min" }
"#;

/// What the agents of all lives were given.
#[derive(Clone, Default)]
struct Given(Arc<Mutex<Vec<String>>>);

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_no_message_gives_no_code_twice_and_sends_nothing_twice() {
    let kills = std::env::var("RAVI_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut callback = Callback::start().await;
    let (setup, sandbox) = Stack::prepared(|setup| {
        with_rules(setup, &rule("notes", &callback.url(), ""));
        setup.sections = setup.sections.replace("[inbox]\n", "[inbox]\nsms_per_day = 100000\n");
        setup.roles = ROLE.into();
    })
    .await;
    let control = sandbox.control();
    control.set_behaviour(ravi_broker::sandbox::Behaviour { texts_per_day: None, ..control.behaviour() });
    // From the first look on, what comes is new. By the second one, it is noted that there was a first.
    let first = Daemon::start(&setup).await;
    bounded(control.reached("GET", "/api/email-messages/", 1)).await;
    let looked = control.requests("GET", "/api/email-messages/");
    SystemClock.sleep_until(SystemClock.now() + Duration::from_secs(1)).await;
    bounded(control.reached("GET", "/api/email-messages/", looked + 2)).await;
    drop(first);

    let (mut delivered, given) = (BTreeSet::new(), Given::default());
    for round in 0..kills {
        let daemon = Daemon::start(&setup).await;
        let agents = tokio::spawn(live(setup.agent_socket.clone(), round, given.clone()));
        let stream = async {
            for part in 0..4 {
                delivered.insert(super::mail_to(&control, &format!("message {round}.{part}")));
                deliver_code(&control, round, part);
                pause(LIFE / 3).await;
            }
        };
        tokio::select! {
            () = stream => {}
            () = pause(LIFE) => {}
        }
        daemon.signal(Signal::SIGKILL);
        agents.abort();
        drop(daemon);
    }

    let _last = Daemon::start(&setup).await;
    let mut told: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    let all = async {
        while told.len() < delivered.len() {
            let got = callback.next().await;
            let (message, delivery) = named(&got.body);
            told.entry(message).or_default().insert(delivery);
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("every message wakes the callback");
    assert!(told.keys().all(|message| delivered.contains(message)));
    assert!(told.values().all(|ids| ids.len() == 1), "a message was told under two ids");
    let given = given.0.lock().unwrap();
    let codes: HashSet<&String> = given.iter().collect();
    assert_eq!(codes.len(), given.len(), "a code was given twice");
    let sent = control.sent();
    let to: HashSet<&String> = sent.iter().map(|sent| &sent.to).collect();
    assert_eq!(to.len(), sent.len(), "something was sent twice");
    assert!(!given.is_empty() && !sent.is_empty(), "the agents got as far as nothing");
    say(&format!(
        "{kills} kills: {} mails, each told under one id; {} codes given, each once; {} texts sent, each once",
        delivered.len(),
        given.len(),
        sent.len()
    ));
}

/// Two agents: both wait for codes, one sends, until they are cut off.
async fn live(socket: std::path::PathBuf, round: usize, given: Given) {
    let agent = || async {
        let client = AgentClient::connect(std::slice::from_ref(&socket)).await.ok()?;
        let (_, token) = client.open_session(OpenSession::role("agent")).await.ok()?;
        Some(client.with_token(token))
    };
    let (Some(first), Some(second)) = tokio::join!(agent(), agent()) else { return };
    let send = async {
        for part in 0..4 {
            let text = Secret::copy_of("hello");
            let _ = first.send_sms(&format!("+1555{:05}{part:02}", round), &text, "").await;
        }
    };
    tokio::join!(wait(&first, &given), wait(&second, &given), send);
}

async fn wait(agent: &AgentClient, given: &Given) {
    loop {
        let open = OpenWatch {
            channel: Channel::Sms,
            from: "+15559876543".into(),
            kind: CodeKind::Code,
            purpose: String::new(),
            ttl: None,
        };
        let Ok(watch) = agent.open_watch(open).await else { return };
        match agent.await_code(watch.id, None).await {
            Ok(Some(code)) => given.0.lock().unwrap().push(code.value.expose().to_owned()),
            Ok(None) => {}
            Err(_) => return,
        }
        if agent.close_watch(watch.id).await.is_err() {
            return;
        }
    }
}

/// No two messages have the same code.
fn deliver_code(control: &Control, round: usize, part: usize) {
    let body = format!("Your verification code is {}", 100_000 + round * 10 + part);
    let sms = NewSms { identity: NOTES.into(), from: "+15559876543".into(), body, ..NewSms::default() };
    control.deliver_sms(sms).unwrap();
}

/// At random, at most so long.
async fn pause(most: Duration) {
    let share = RandomState::new().build_hasher().finish() % 1_000;
    let until = SystemClock.now() + most.mul_f64(share as f64 / 1_000.0);
    SystemClock.sleep_until(until).await;
}

/// Message and delivery of the first line: `(message email/9013, rule notes, delivery dsp_…)`.
fn named(body: &str) -> (String, String) {
    let after = |mark: &str| body.split_once(mark).unwrap().1.split([',', ')']).next().unwrap().to_owned();
    (after("(message "), after("delivery "))
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
