//! The life of the shipped daemon: start, reload, stop, crash, and what it leaves behind.
//!
//! Everything here is the real program in a process of its own. Nothing sleeps: a test waits for a
//! notification, for the end of a process, for a call that reached the sandbox, or for an error.

mod attestor;
mod crash;
mod custody;
mod death;
mod harden;
mod kill;
mod limits;
mod memory;
#[cfg(feature = "otlp")]
mod otlp;
mod reload;
mod restart;
mod scale;
mod scrape;
mod start;
mod stop;
mod traces;
mod users;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use ravi_broker::client::{ClientError, ErrorReason};

use crate::support::{Daemon, Setup, Stack};

/// Asserts that an error of the daemon has the form that people are promised: what happened, what to do.
fn assert_two_lines(said: &str) {
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{said}");
}

/// Starts a daemon that must not start. Returns what it said.
async fn refused(setup: &Setup) -> String {
    let mut daemon = Daemon::spawn(setup);
    let (code, said) = daemon.outcome().await;
    assert_eq!(code, Some(1), "{said}");
    said
}

/// The broker's reason.
fn reason<T>(outcome: Result<T, ClientError>) -> ErrorReason {
    match outcome {
        Err(ClientError::Broker(error)) => error.reason,
        Err(error) => panic!("not an error of the broker: {error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// What the operator is shown.
fn metrics(stack: &Stack) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ravi-broker"));
    command.args(["metrics", "--admin-socket"]).arg(&stack.setup.admin_socket);
    let done = command.env_clear().stdin(Stdio::null()).output().expect("it runs");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("it is text")
}

/// The samples of a page of metrics, but for those that its own making changes, and those that change by themselves.
fn steady(page: &str) -> BTreeMap<String, f64> {
    const UNSTEADY: [&str; 4] = [
        "AdminService/GetMetrics",
        "ravi_broker_otlp",
        "ravi_broker_upstream_budget_left",
        "ravi_broker_connections",
    ];
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let steady = samples.filter(|line| !UNSTEADY.iter().any(|name| line.contains(name)));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    steady.map(read).collect()
}
