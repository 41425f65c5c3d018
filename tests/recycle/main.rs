//! Recycled pids: processes that have the pid of one that held a session, and what they get for its token.
//!
//! In a PID namespace of their own, agents and thieves live one after the other under one and the same pid, most of
//! them within the same tick of the clock that start times are counted in. Each thief presents what the
//! agent left: its token over a connection of its own, or over the agent's, which was spoken on or not yet. The daemon in there is the shipped one. A harness in which nobody succeeds says something only if
//! it can succeed: the same turns are played against models of brokers that know a process by its pid.
//!
//! Needs root, for the namespace and to choose a pid. Prints what it counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod lane;
mod model;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest of it")]
mod support;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::clock::{Clock, SystemClock};

use self::lane::{Broker, Shipped, Tally, play};
use self::model::{Key, Model};
use self::support::{Stack, fork, wait};

/// Reuses of a pid against the daemon; `RAVI_TEST_REUSES` asks for another number. Fewer against a daemon that is
/// not optimised, which takes four times as long.
const REUSES: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
/// Against a model, where one would do.
const AGAINST_MODEL: u64 = 5_000;
/// Pids at a time, each with a row of processes.
const LANES: u64 = 3;
const FIRST_PID: i32 = 20_000;

/// Names a daemon that was built in another way, to be attacked in place of the one of the tests.
const OTHER: &str = "RAVI_TEST_DAEMON";
const PLAYS: &str = "RAVI_TEST_RECYCLES";
const COUNT: &str = "RAVI_TEST_REUSES";
const CONFIG: &str = "RAVI_TEST_CONFIG";
const CREDENTIALS: &str = "RAVI_TEST_CREDENTIALS";
const SOCKET: &str = "RAVI_TEST_SOCKET";

const LIMITS: &str =
    "[limits]\nconnections = 4096\nconnections_per_uid = 4096\nsessions = 4096\nopen = \"1000000/s\"\n";
const ROLE: &str = r#"
[role.recycled]
identity = "assistant-notes-agent"
match = { uid = UID }
bind = "process"
scopes = ["secret:read:OPENAI_*"]
session = { max_live = 4096 }
rate = { read = "1000000/s" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_recycled_pid_gets_nothing_for_the_token_of_the_process_that_had_it() {
    let Some(namespace) = namespace() else { return };
    let count = std::env::var(COUNT).map_or(REUSES, |count| count.parse().unwrap());
    let change = |setup: &mut support::Setup| {
        setup.sections = LIMITS.into();
        setup.roles = ROLE.into();
    };
    let (setup, _sandbox) = Stack::prepared(change).await;
    let tally = played(namespace, "daemon", count, |command| {
        command.env(CONFIG, &setup.config_file).env(CREDENTIALS, setup.credentials());
        command.env(SOCKET, &setup.agent_socket);
    });
    assert_eq!((tally.reuses, tally.accepted, tally.failed), (count, 0, 0));
    assert_eq!(tally.refused + tally.closed, count);
    assert!(tally.controls > 0 && tally.controls == tally.controls_accepted, "a live holder was refused");
    assert!(tally.same_tick * 10 > count, "too few of them started in the tick of their predecessor");
}

#[test]
fn the_same_thieves_succeed_where_a_process_is_known_by_its_pid() {
    let Some(namespace) = namespace() else { return };
    let tally = against_model(namespace, "pid");
    assert_eq!((tally.reuses, tally.accepted), (AGAINST_MODEL, AGAINST_MODEL));
}

/// What is left over when the start time is compared as well, and why the daemon asks for a pidfd.
#[test]
fn those_of_the_same_tick_succeed_where_the_start_time_is_known_as_well() {
    let Some(namespace) = namespace() else { return };
    let tally = against_model(namespace, "pid and start time");
    assert_eq!(tally.reuses, AGAINST_MODEL);
    assert!(tally.same_tick > 0 && tally.accepted >= tally.same_tick, "{tally:?}");
}

fn against_model(namespace: Namespace, key: &'static str) -> Tally {
    let directory = tempfile::TempDir::new().unwrap();
    played(namespace, key, AGAINST_MODEL, |command| {
        command.env(SOCKET, directory.path().join("model.sock"));
    })
}

/// The program that makes the namespace.
#[derive(Clone, Copy)]
struct Namespace;

/// `None`, and says so, where there can be none.
fn namespace() -> Option<Namespace> {
    let tried = Namespace.command().arg("true").stderr(Stdio::null()).status();
    let made = nix::unistd::geteuid().is_root() && tried.is_ok_and(|status| status.success());
    if !made {
        // Not `eprintln!`, which the test harness would keep to itself.
        let _ = writeln!(std::io::stderr(), "skipped: it takes root and a PID namespace to choose a pid");
    }
    made.then_some(Namespace)
}

impl Namespace {
    fn command(self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    }
}

/// One namespace at a time: beside another one, too few processes start within the tick of their predecessor.
static TURN: Mutex<()> = Mutex::new(());

/// Plays all turns in a namespace of their own, by this test binary as its first process.
fn played(namespace: Namespace, subject: &str, count: u64, change: impl FnOnce(&mut Command)) -> Tally {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let began = SystemClock.now();
    let mut command = namespace.command();
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "plays_in_a_namespace", "--nocapture"]);
    command.env(PLAYS, subject).env(COUNT, count.to_string());
    change(&mut command);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let tally: Tally = said.lines().filter_map(Tally::read).sum();
    let took = SystemClock.now().since(began);
    let _ = writeln!(std::io::stderr(), "against {subject}: {tally} in {:.1} s", took.as_secs_f64());
    tally
}

#[test]
fn plays_in_a_namespace() {
    let Ok(subject) = std::env::var(PLAYS) else { return };
    let count: u64 = std::env::var(COUNT).unwrap().parse().unwrap();
    let socket = PathBuf::from(std::env::var_os(SOCKET).unwrap());
    match subject.as_str() {
        "daemon" => {
            let mut daemon = command().spawn().unwrap();
            await_daemon(&socket);
            lanes(&Shipped, &socket, count);
            kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM).unwrap();
            assert!(daemon.wait().unwrap().success());
        }
        _ => {
            let key = if subject == "pid" { Key::Pid } else { Key::PidAndStartTime };
            let listener = UnixListener::bind(&socket).unwrap();
            fork(|| model::serve(&listener, key));
            lanes(&Model, &socket, count);
        }
    }
}

fn lanes(broker: &impl Broker, socket: &Path, count: u64) {
    let share = |lane: u64| count / LANES + u64::from(lane < count % LANES);
    let lane = |lane: u64| {
        let pid = Pid::from_raw(FIRST_PID + i32::try_from(lane).unwrap());
        fork(|| {
            say_out(&play(broker, socket, pid, share(lane)).write());
            0
        })
    };
    let lanes: Vec<Pid> = (0..LANES).map(lane).collect();
    assert!(lanes.into_iter().all(|lane| wait(lane) == 0), "a lane broke off");
}

/// The daemon of the namespace.
fn command() -> Command {
    let other = std::env::var_os(OTHER);
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_ravi-brokerd").into()));
    command.arg("--config").arg(std::env::var_os(CONFIG).unwrap());
    command.env("CREDENTIALS_DIRECTORY", std::env::var_os(CREDENTIALS).unwrap());
    command.env("RAVI_BROKER_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns when it accepts.
fn await_daemon(socket: &Path) {
    let began = SystemClock.now();
    while UnixStream::connect(socket).is_err() {
        assert!(SystemClock.now().since(began).as_secs() < 30, "the daemon does not accept");
        std::thread::yield_now();
    }
}

#[expect(clippy::print_stdout, reason = "what the process in the namespace is asked for")]
fn say_out(line: &str) {
    println!("{line}");
}
