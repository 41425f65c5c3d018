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
mod reload;
mod restart;
mod start;
mod stop;
mod traces;
mod users;

use ravi_broker::client::{ClientError, ErrorReason};

use crate::support::{Daemon, Setup};

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
