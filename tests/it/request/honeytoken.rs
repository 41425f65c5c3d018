//! Names that no honest agent asks for: to the agent they are absent, to the operator an alarm.

use std::path::Path;
use std::time::Duration;

use ravi_broker::client::{AgentClient, ClientError, Delivery, ErrorReason, OpenSession};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::pb::AcquireLeaseRequest;
use ravi_broker::secret::Secret;
use ravi_broker::types::SessionId;

use super::{reason, refusal};
use crate::support::{Answer as Answered, Bare, DEPLOY, Shell, Stack, bounded, fork, until, wait};

const TRAPS: &str = "honeytokens = [\"secret/AWS_ROOT_*\", \"password/bank.example\", \"password/grafana.net/deploy-agent\"]\n";
const TRAP: &str = "secret/AWS_ROOT_KEY";
const KEY: &str = "secret/OPENAI_API_KEY";

/// `notes` may read little, `deploy` nearly all. The traps are laid by a reload, as an operator would.
async fn stack() -> Stack {
    let stack = Stack::start().await;
    stack.rewrite(|text| text.replacen("version = 1\n", &format!("version = 1\n{TRAPS}"), 1));
    stack.admin().await.reload().await.unwrap();
    stack
}

async fn opened(stack: &Stack, role: &str) -> (SessionId, AgentClient) {
    let (session, agent) = stack.opened(OpenSession::role(role)).await;
    (session.session_id, agent)
}

/// A process of its own opens a session, asks, and goes on: the test's process would be barred.
async fn touched_by(stack: &Stack, role: &str, command: &str) -> (Shell, String) {
    let mut shell = Shell::start(stack);
    shell.succeed(&format!("eval \"$(ravi-broker session open --role {role} 2>/dev/null)\"")).await;
    let said = shell.run(command).await;
    assert_eq!(said.status, 4, "{}", said.text);
    (shell, said.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_direct_use_of_the_name_ends_the_session_and_a_list_does_not() {
    let stack = stack().await;
    stack.control().set_secret(DEPLOY, "AWS_ROOT_KEY", Secret::copy_of("canary-of-the-bait")).unwrap();
    // Bait is listed like anything else, and nobody is harmed by looking.
    let mut honest = Shell::start(&stack);
    honest.succeed("eval \"$(ravi-broker session open --role deploy 2>/dev/null)\"").await;
    assert!(honest.succeed("ravi-broker list secrets").await.contains("AWS_ROOT_KEY"));
    honest.succeed("ravi-broker get secret/OPENAI_API_KEY >/dev/null").await;

    let touches = [
        "ravi-broker get secret/AWS_ROOT_KEY",
        "ravi-broker lease acquire secret/AWS_ROOT_KEY",
        "echo x | ravi-broker set secret/AWS_ROOT_KEY",
        "ravi-broker delete secret/AWS_ROOT_KEY",
        "ravi-broker password create bank.example --username me",
        "ravi-broker get password/bank.example/me",
    ];
    let mut alarms = 0;
    for touch in touches {
        let touch_as_told =
            if touch.contains("run --env") { format!("{touch} --role deploy") } else { touch.to_owned() };
        let _ = touch_as_told;
        let mut shell = Shell::start(&stack);
        shell.succeed("eval \"$(ravi-broker session open --role deploy 2>/dev/null)\"").await;
        let said = shell.run(touch).await;
        assert_ne!(said.status, 0, "{touch}: {}", said.text);
        assert!(!said.text.contains("canary-of-the-bait"), "{touch}");
        alarms += 1;
        assert_eq!(
            stack.admin().await.approvals().await.unwrap().alarms.len(),
            alarms,
            "{touch}: {}",
            said.text
        );
        let after = shell.run("ravi-broker get secret/OPENAI_API_KEY").await;
        assert_eq!(after.status, 6, "{touch}: {}", after.text);
        let again = shell.run("ravi-broker session open --role deploy").await;
        assert_eq!(again.status, 4, "{touch}: {}", again.text);
    }
    honest.succeed("ravi-broker get secret/OPENAI_API_KEY >/dev/null").await;
    assert_eq!(stack.audited("honeytoken.touched").len(), alarms);
}

/// The scopes of the role do not matter, and what the agent is told is word for word what it is told of any name.
#[tokio::test(flavor = "multi_thread")]
async fn to_the_agent_the_name_is_absent_whether_or_not_its_role_reaches_it() {
    let stack = stack().await;
    let absent = "secret/ABSENT_KEY";
    // Also where the name is there: bait.
    for (role, bait) in [("notes", None), ("deploy", None), ("deploy", Some(DEPLOY))] {
        if let Some(identity) = bait {
            stack
                .control()
                .set_secret(identity, "AWS_ROOT_KEY", Secret::copy_of("canary-of-the-bait"))
                .unwrap();
        }
        let plain = |text: &str| crate::support::without_ids(text);
        let (_shell, of_absent) = touched_by(&stack, role, &format!("ravi-broker get {absent}")).await;
        let (_other, of_trap) = touched_by(&stack, role, &format!("ravi-broker get {TRAP}")).await;
        assert_eq!(plain(&of_absent), plain(&of_trap), "{role}");
    }
    let touched = stack.audited("honeytoken.touched");
    assert_eq!(touched.len(), 3);
    assert_eq!((&touched[0]["outcome"], &touched[0]["cause"]), (&"denied".into(), &"honeytoken".into()));
    assert_eq!(touched[0]["resource"], TRAP);
    assert!(stack.daemon.log().contains("a honeytoken was touched"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_by_alarm_and_explanation_and_the_whole_tree_is_over() {
    let stack = stack().await;
    let (session, agent) = opened(&stack, "notes").await;
    let (child, token) =
        agent.delegate_session(ravi_broker::client::DelegateSession::default()).await.unwrap();
    let child_agent = stack.holder(&token).await;
    agent.acquire(KEY, None, "").await.unwrap();
    let admin = stack.admin().await;
    let mut told = admin.watch_approvals().await.unwrap();
    let refused = match child_agent.acquire_for(TRAP, None, "just looking", Delivery::File).await {
        Err(ClientError::Broker(error)) => error,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(refused.reason, ErrorReason::ResourceNotAvailable);
    let alarm = loop {
        let now = bounded(futures_util::StreamExt::next(&mut told)).await.unwrap().unwrap();
        if let Some(alarm) = now.alarms.into_iter().next() {
            break alarm;
        }
    };
    assert_eq!((alarm.session_id, alarm.resource.as_str()), (child.session_id, TRAP));
    assert_eq!((alarm.role.as_str(), alarm.pid.unsigned_abs()), ("notes", std::process::id()));
    assert_eq!(admin.explain(refused.denial.unwrap()).await.unwrap().rule, "honeytoken");
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
    assert_eq!(reason(child_agent.describe_session().await), ErrorReason::SessionRevoked);
    until(async || stack.audited("session.revoked").len() == 2).await;
    for ended in stack.audited("session.revoked") {
        assert_eq!(ended["cause"], "honeytoken");
    }
    assert_eq!(stack.audited("lease.revoked")[0]["session"], session.to_string());
    // This process opens no other, and is told what any stranger to a role is told.
    let stranger = stack.stranger().await;
    let barred = refusal(stranger.open_session(OpenSession::role("notes")).await);
    let absent = refusal(stranger.open_session(OpenSession::role("absent")).await);
    assert_eq!(barred, absent);
}

/// An entry that is only found by its domain is a trap all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_name_turns_out_to_mean_counts_too() {
    let stack = stack().await;
    let (_, agent) = opened(&stack, "deploy").await;
    let absent = refusal(agent.acquire("password/nowhere.example", None, "").await);
    assert_eq!(refusal(agent.acquire("password/grafana.net", None, "").await), absent);
    assert_eq!(stack.audited("honeytoken.touched").len(), 1);
    assert!(stack.audited("lease.acquired").is_empty());
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
}

/// The time tells nothing either: medians of many processes, with Ravi asked and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_honeytoken_takes_as_long_as_an_absent_name() {
    const ROUNDS: u32 = 15;
    let stack = Stack::with(|setup| {
        setup.sections.push_str("[limits]\nopen = \"60000/min\"\n");
    })
    .await;
    stack.rewrite(|text| text.replacen("version = 1\n", &format!("version = 1\n{TRAPS}"), 1));
    stack.admin().await.reload().await.unwrap();
    for role in ["notes", "deploy"] {
        let (mut absent, mut trapped) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let socket = stack.setup.agent_socket.clone();
            absent.push(asked_by_a_child(&socket, role, &format!("secret/ABSENT_{round}")));
            trapped.push(asked_by_a_child(&socket, role, &format!("secret/AWS_ROOT_{round}")));
        }
        let medians = [&mut absent, &mut trapped].map(|times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        println!("{role}: absent {:?}, honeytoken {:?}", medians[0], medians[1]);
        let [absent, trapped] = medians.map(|time| time.as_secs_f64() + 0.002);
        assert!(trapped / absent < 2.0 && absent / trapped < 2.0, "{role}: {medians:?}");
    }
    assert_eq!(stack.audited("honeytoken.touched").len(), 2 * ROUNDS as usize);
}

/// A process of its own asks once: the one that asked for a honeytoken opens no other session. Its exit code is the
/// time, in steps.
fn asked_by_a_child(socket: &Path, role: &str, resource: &str) -> Duration {
    const STEP: Duration = Duration::from_micros(200);
    let child = fork(|| {
        let mut bare = Bare::connect(socket);
        let Some(token) = bare.open(role) else { return 255 };
        let message = AcquireLeaseRequest { resource: resource.to_owned(), ..Default::default() };
        let begun = SystemClock.now();
        let answer = bare.ask("/ravi.broker.v1.LeaseService/AcquireLease", Some(&token), &message);
        let took = SystemClock.now().since(begun);
        if answer != Answered::Failed {
            return 255;
        }
        i32::try_from(took.as_micros() / STEP.as_micros()).unwrap_or(250).min(250)
    });
    let steps = wait(child);
    assert!(steps < 255, "the child was not refused as it should be");
    STEP * u32::try_from(steps).unwrap()
}
