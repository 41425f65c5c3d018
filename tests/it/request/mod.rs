//! The request path of the shipped daemon: a real process in front of a real sandbox over TLS, called
//! through real sockets. One file per subject.
//!
//! A test that shows one of the invariants I1 to I10 names it. Two are shown elsewhere as well: I6 (what a
//! type that holds a secret may derive) by `tests/architecture.rs`, I1 (where a secret may lie in memory)
//! by the tests of `vault::arena`.

use ravi_broker::client::{BrokerError, ClientError, ErrorReason};

mod approval;
mod binding;
mod cache;
mod delegate;
mod delivery;
mod explain;
mod fault;
mod honeytoken;
mod identity;
mod inbox;
mod lease;
mod limit;
mod link;
mod matching;
mod name;
mod process;
mod renew;
mod revoke;
mod send;
mod session;
mod trail;
mod watch;
mod write;

/// What the broker said no with, but for the id, which is another with each call.
fn refusal<T>(outcome: Result<T, ClientError>) -> BrokerError {
    match outcome {
        Err(ClientError::Broker(error)) => BrokerError { denial: None, ..error },
        Err(error) => panic!("not an error of the broker: {error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn reason<T>(outcome: Result<T, ClientError>) -> ErrorReason {
    refusal(outcome).reason
}
