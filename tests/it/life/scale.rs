//! Much of everything: what sessions, values and leases take in memory, and how long the end of a hundred thousand
//! leases takes and holds up somebody else.
//!
//! The figures are told, and judged nowhere yet: `benches/NOTES.md` says how far they are from where they should be. Of a
//! program that is not optimised fewer leases are taken.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ravi_broker::client::RevokeTarget;
use ravi_broker::clock::{BootInstant, Clock, SystemClock};
use ravi_broker::pb;
use ravi_broker::secret::Secret;

use crate::support::{Answer, Bare, Daemon, NOTES, Setup, Stack, optimised, until};

/// Of each session.
const LEASES: usize = 1000;
const ACQUIRE: &str = "/ravi.broker.v1.LeaseService/AcquireLease";
const KEY: &str = "secret/OPENAI_API_KEY";

const ROLES: &str = r#"
[role.many]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read"]
session = { max_live = 2048 }
lease = { max_live = 4096, max_ttl = "1h" }
rate = { read = "1000000/s" }
[role.other]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read"]
lease = { max_live = 4096 }
rate = { read = "1000000/s" }
"#;

fn sessions() -> usize {
    if optimised() { 100 } else { 2 }
}

fn much(setup: &mut Setup) {
    setup.roles = ROLES.to_owned();
    setup.sections = "[limits]\nsessions = 2048\nopen = \"1000000/s\"\n".to_owned();
    setup.budget = "1000000/min";
}

/// Without a log of every frame.
async fn stack() -> Stack {
    let (setup, sandbox) = Stack::prepared(much).await;
    let daemon = Daemon::start_with(&setup, |command| {
        command.env("RAVI_BROKER_LOG", "warn");
    })
    .await;
    Stack::of(daemon, setup, sandbox)
}

fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// In KiB: all, and what is its own.
fn resident(stack: &Stack) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.daemon.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// Processor time since its start, in ticks of 10 ms.
fn ticks(stack: &Stack) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stack.daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_and_values_are_kept_in_little_memory_and_do_nothing() {
    let stack = stack().await;
    let begun = resident(&stack);
    for number in 0..1000 {
        let value = Secret::copy_of("a-value-of-forty-characters-or-so-it-is-it");
        stack.control().set_secret(NOTES, &format!("KEY_{number}"), value).unwrap();
    }
    let socket = stack.setup.agent_socket.clone();
    tokio::task::block_in_place(|| {
        let token = Bare::connect(&socket).open("many").unwrap();
        acquire_many(&socket, &token, 1000, None, |number| format!("secret/KEY_{number}"));
        for _ in 0..11 {
            let mut line = Bare::connect(&socket);
            (0..93).for_each(|_| drop(line.open("many").unwrap()));
        }
    });
    let admin = stack.admin().await;
    until(async || admin.status().await.unwrap().connections == 0).await;
    assert_eq!(admin.status().await.unwrap().sessions, 1024);
    let (all, own) = resident(&stack);
    let before = ticks(&stack);
    SystemClock.sleep_until(SystemClock.now() + Duration::from_secs(5)).await;
    let busy = ticks(&stack) - before;
    say(&format!(
        "1,024 sessions, 1,000 values, 1,000 leases: {all} KiB, {own} of them its own; at the start {begun:?}; \
         {busy} ticks in 5 s"
    ));
    if optimised() {
        assert!(busy <= 1, "it does something: {busy} ticks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leases_end_at_once_and_all_of_them_do() {
    let stack = stack().await;
    let admin = stack.admin().await;
    let socket = stack.setup.agent_socket.clone();
    tokio::task::block_in_place(|| {
        let token = Bare::connect(&socket).open("other").unwrap();
        acquire_many(&socket, &token, 1, None, |_| KEY.to_owned());
    });
    let (_, before) = resident(&stack);
    let began = SystemClock.now();
    tokio::task::block_in_place(|| Holders::of(&stack, Duration::from_secs(3600)));
    let taking = SystemClock.now().since(began);
    let (_, after) = resident(&stack);
    let leases = sessions() * LEASES;
    let grown = after.saturating_sub(before);
    let each = grown * 1024 / leases as u64;
    say(&format!("{leases} leases of {} sessions: {} MiB, {each} bytes each", sessions(), grown >> 10));

    let prober = Prober::start(&stack);
    let mark = SystemClock.now();
    admin.revoke(RevokeTarget::Role("many".into()), "drill").await.unwrap();
    let took = SystemClock.now().since(mark);
    let slowest = prober.stop();
    assert_eq!(admin.status().await.unwrap().leases, 1, "that of the other");
    say(&format!("revoked in {took:.1?}; meanwhile another waited {slowest:.1?} at most"));

    // Long enough to take them all before.
    let holders = tokio::task::block_in_place(|| Holders::of(&stack, 3 * taking + Duration::from_secs(5)));
    let until_then = holders.end.since(SystemClock.now());
    say(&format!("{leases} leases that end in {until_then:.1?}"));
    let prober = Prober::start(&stack);
    SystemClock.sleep_until(holders.end).await;
    until(async || admin.status().await.unwrap().leases <= 1).await;
    let took = SystemClock.now().since(holders.end);
    let slowest = prober.stop();
    say(&format!("expired {took:.1?} after their time; meanwhile another waited {slowest:.1?} at most"));
}

/// Sessions with a thousand leases each.
struct Holders {
    /// Of every lease.
    end: BootInstant,
}

impl Holders {
    fn of(stack: &Stack, time: Duration) -> Self {
        let end = SystemClock.now() + time;
        for _ in 0..sessions() {
            let token = Bare::connect(&stack.setup.agent_socket).open("many").unwrap();
            acquire_many(&stack.setup.agent_socket, &token, LEASES, Some(end), |_| KEY.to_owned());
        }
        Self { end }
    }
}

/// A connection for a hundred of them: such a client opens its windows no further.
fn acquire_many(
    socket: &Path,
    token: &Secret,
    count: usize,
    end: Option<BootInstant>,
    resource: impl Fn(usize) -> String,
) {
    for begin in (0..count).step_by(100) {
        let mut line = Bare::connect(socket);
        for number in begin..count.min(begin + 100) {
            let ttl = end.map(|end| {
                let left = end.since(SystemClock.now());
                let nanos = i32::try_from(left.subsec_nanos()).unwrap();
                prost_types::Duration { seconds: i64::try_from(left.as_secs()).unwrap(), nanos }
            });
            let message = pb::AcquireLeaseRequest { resource: resource(number), ttl, ..Default::default() };
            let answer = line.ask(ACQUIRE, Some(token), &message);
            assert!(
                matches!(answer, Answer::Accepted(_)),
                "no lease number {number}, of {ttl:?}: {answer:?}"
            );
        }
    }
}

/// Somebody who asks for a value all the time, one call after the other.
struct Prober {
    stop: Arc<AtomicBool>,
    asks: JoinHandle<Duration>,
}

impl Prober {
    fn start(stack: &Stack) -> Self {
        let socket = stack.setup.agent_socket.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let asks = std::thread::spawn(move || {
            let token = Bare::connect(&socket).open("other").unwrap();
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let mut line = Bare::connect(&socket);
                line.present(&token);
                for _ in 0..100 {
                    let began = SystemClock.now();
                    assert!(matches!(line.present(&token), Answer::Accepted(_)));
                    slowest = slowest.max(SystemClock.now().since(began));
                }
                let _ = ready.send(());
            }
            slowest
        });
        is_ready.recv().unwrap();
        Self { stop, asks }
    }

    /// The longest that it had to wait.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.asks.join().unwrap()
    }
}
