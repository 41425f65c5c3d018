//! What the buffers of a connection would keep of a value, and how that is avoided.
//!
//! A connection reads into one buffer and writes out of another, and what was in them stays until it is
//! overwritten or the connection ends. So a connection that carried a value in is retired, and an answer
//! with a value is formed so that none of it is copied into the buffer. A session that is taken away takes the
//! connections with it that it was answered on. May import `broker`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::select_all;
use http::Extensions;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::Admitted;
use crate::secret::Secret;
use crate::session::{End, Session};

/// Methods whose request can hold a value.
const CARRY_A_VALUE: [&str; 9] = [
    "/ravi.broker.v1.InboxService/AttachFile",
    "/ravi.broker.v1.InboxService/ForwardEmail",
    "/ravi.broker.v1.InboxService/ReplyAllEmail",
    "/ravi.broker.v1.InboxService/ReplyEmail",
    "/ravi.broker.v1.InboxService/SendEmail",
    "/ravi.broker.v1.InboxService/SendSms",
    "/ravi.broker.v1.VaultService/SetSecret",
    "/ravi.broker.v1.VaultService/UpdatePassword",
    "/ravi.broker.v1.AdminService/ImportKeys",
];

/// Methods that answer with a stream, which may last. None carries a value out.
const STREAM: [&str; 6] = [
    "/grpc.health.v1.Health/Watch",
    "/ravi.broker.v1.AdminService/Login",
    "/ravi.broker.v1.AdminService/TailAudit",
    "/ravi.broker.v1.AdminService/WatchApprovals",
    "/ravi.broker.v1.InboxService/WatchInbox",
    "/ravi.broker.v1.LeaseService/WatchLeases",
];

/// The write buffer takes less than this of a frame's payload; the rest is written from the message's own
/// memory (`CHAIN_THRESHOLD` of the crate `h2`, 0.4).
const COPIED: usize = 256;
/// Lengths are shown in steps of this.
const STEP: usize = 256;
static ZEROS: [u8; COPIED + STEP] = [0; COPIED + STEP];
/// What surely fits into one frame, with all that stands around it. The least that a peer can ask for is
/// 16,384 bytes (RFC 9113 §6.5.2). The head of every further frame is copied.
const ONE_FRAME: usize = 12 * 1024;

/// Asks for the end of the connection that a request came on. Clones ask for the same.
#[derive(Clone, Default)]
pub struct Retire(Arc<State>);

#[derive(Default)]
struct State {
    asked: Notify,
    ending: CancellationToken,
    /// The sessions that were answered with a value. Bounded: the oldest give way.
    answered: Mutex<VecDeque<Arc<Session>>>,
    one_more: Notify,
}

/// Sessions of one connection that are watched over.
const MAX_ANSWERED: usize = 64;

impl Retire {
    /// Once no call is open on it.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }

    /// Returns when it was asked for, also if that was before. For one waiter.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Tells the streams to end: they would keep the connection.
    pub fn end_streams(&self) {
        self.0.ending.cancel();
    }

    /// Returns when the streams are to end.
    pub(super) async fn ending(&self) {
        self.0.ending.cancelled().await;
    }

    /// Of the connection that a request came on.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Asks, if the request of this path can hold a value. Whether it does is not looked at: one that
    /// cannot be read, or is refused, was in the buffer all the same.
    pub(super) fn after_request(path: &str, extensions: &Extensions) {
        if CARRY_A_VALUE.contains(&path) {
            Self::of(extensions).ask();
        }
    }

    /// Whether the method of this path answers with a stream.
    pub fn streams_answer(path: &str) -> bool {
        STREAM.contains(&path)
    }

    /// Returns when a session was taken away that was answered with a value here. One that ended otherwise is
    /// forgotten.
    pub async fn taken_away(&self) {
        loop {
            let more = self.0.one_more.notified();
            let ends: Vec<_> = {
                let mut answered = self.answered();
                if answered.iter().any(|session| session.end().is_some_and(End::takes_away)) {
                    return;
                }
                answered.retain(|session| session.end().is_none());
                answered.iter().map(|session| Box::pin(session.end_token().cancelled_owned())).collect()
            };
            if ends.is_empty() {
                more.await;
                continue;
            }
            tokio::select! {
                _ = select_all(ends) => {}
                () = more => {}
            }
        }
    }

    fn answered(&self) -> MutexGuard<'_, VecDeque<Arc<Session>>> {
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, session: &Arc<Session>) {
        let mut answered = self.answered();
        if answered.iter().any(|noted| noted.id == session.id) {
            return;
        }
        if answered.len() == MAX_ANSWERED {
            answered.pop_front();
        }
        answered.push_back(session.clone());
        drop(answered);
        self.0.one_more.notify_one();
    }

    /// An answer with a value is not left to be taken when its session is taken away. Asks, if it needs more than one
    /// frame.
    pub(super) fn after_answer(&self, admitted: &Admitted, value: &Secret) {
        self.note(admitted.session());
        if value.len() > ONE_FRAME {
            self.ask();
        }
    }
}

/// What stands before a value in its message. It fills what the write buffer takes, and hides the exact
/// length of the value.
pub(super) fn padding(value: &str) -> Bytes {
    let to_step = value.len().next_multiple_of(STEP) - value.len();
    Bytes::from_static(&ZEROS[..COPIED + to_step])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: [(&str, &str); 7] = [
        ("AdminService", include_str!("../../proto/ravi/broker/v1/admin.proto")),
        ("IdentityService", include_str!("../../proto/ravi/broker/v1/identity.proto")),
        ("InboxService", include_str!("../../proto/ravi/broker/v1/inbox.proto")),
        ("LeaseService", include_str!("../../proto/ravi/broker/v1/lease.proto")),
        ("SessionService", include_str!("../../proto/ravi/broker/v1/session.proto")),
        ("VaultService", include_str!("../../proto/ravi/broker/v1/vault.proto")),
        ("", include_str!("../../proto/ravi/broker/v1/error.proto")),
    ];

    /// What stands between `message <name> {` and its brace, in whichever file.
    fn body(message: &str) -> &'static str {
        let begin = format!("\nmessage {message} {{");
        let found = PROTO.iter().find_map(|(_, text)| text.split_once(&begin));
        found.expect(message).1.split_once("\n}").unwrap().0
    }

    #[test]
    fn every_method_whose_request_has_a_redacted_field_is_known() {
        let mut carriers = Vec::new();
        for (service, text) in PROTO {
            for line in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                let (method, rest) = line.split_once('(').unwrap();
                let (request, _) = rest.split_once(')').unwrap();
                let fields = body(request.trim_start_matches("stream "));
                if ["debug_redact", "Content content", "bytes bytes"].iter().any(|held| fields.contains(held))
                {
                    carriers.push(format!("/ravi.broker.v1.{service}/{method}"));
                }
            }
        }
        let mut known = CARRY_A_VALUE.map(str::to_owned).to_vec();
        carriers.sort();
        known.sort();
        assert_eq!(carriers, known);
    }

    #[test]
    fn every_method_that_streams_is_known() {
        let mut streams = vec![STREAM[0].to_owned()];
        for (service, text) in PROTO {
            let methods = text.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
            for line in methods.filter(|line| line.contains("returns (stream ")) {
                let (method, _) = line.split_once('(').unwrap();
                streams.push(format!("/ravi.broker.v1.{service}/{method}"));
            }
        }
        streams.sort();
        assert_eq!(streams, STREAM);
    }

    /// What the first field of a message is, and its number.
    fn first_field(message: &str) -> (&'static str, &'static str) {
        let fields = body(message).lines().map(str::trim);
        let field = fields.clone().find(|line| line.ends_with(" = 1;")).expect("a first field");
        field.split_once(' ').unwrap()
    }

    #[test]
    fn every_redacted_field_of_an_answer_stands_behind_padding() {
        for (_, text) in PROTO {
            for message in text.split("\nmessage ").skip(1) {
                let (name, rest) = message.split_once(" {").unwrap();
                let fields = rest.split("\n}").next().unwrap();
                let carries = fields.contains("debug_redact") || fields.contains("Credential credential");
                let sent_to_us = name.ends_with("Request") || name == "Content";
                if sent_to_us || name == "Credential" || !carries {
                    continue;
                }
                // prost writes fields in the order of their numbers, so that of the first one comes first.
                let (first, field) = first_field(name);
                let padded =
                    (first, field) == ("bytes", "padding = 1;") || body(first).contains("bytes padding");
                assert!(padded, "{name} begins with {first}");
            }
        }
    }

    #[test]
    fn padding_is_never_less_than_what_is_copied_and_fills_up_to_a_step() {
        for length in 0..2 * STEP {
            let padding = padding(&"x".repeat(length));
            assert!((COPIED..COPIED + STEP).contains(&padding.len()));
            assert_eq!((padding.len() + length) % STEP, 0);
        }
    }
}
