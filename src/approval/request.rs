//! What is asked, exactly, and the proof that it was allowed.

use std::sync::Arc;
use std::time::Duration;

use crate::peer::Executable;
use crate::types::{ApprovalId, Delivery, Reason, RoleName, SessionId};

/// A request, to the letter: what differs in any of this is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose.
    pub session: SessionId,
    /// The session's role.
    pub role: RoleName,
    /// User of the calling process, from the kernel.
    pub uid: u32,
    /// The calling process, from the kernel.
    pub pid: Option<u32>,
    /// What the calling process runs; `None`: that could not be established.
    pub executable: Option<Executable>,
    /// What for.
    pub wish: Wish,
    /// Of what is written or sent.
    pub content: Option<Fingerprint>,
    /// What the caller says that it is for. Nobody believes it.
    pub reason: Option<Reason>,
}

/// What a session wants to do, in the words of scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Kind and verb: `secret:use`.
    pub verb: &'static str,
    /// The resource, or whom it goes to; empty where the verb says it all.
    pub about: String,
    /// Where a value goes.
    pub delivery: Option<Delivery>,
}

/// Tells one content from another, by a key of this process, and tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Proof that the operator allowed a request. Only a decision makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub(super) id: ApprovalId,
    pub(super) request: Arc<Request>,
    /// Good for one use, which can be given back and then keeps for so long. `None`: for a while.
    pub(super) once: Option<Duration>,
}

impl Approval {
    /// Of which question.
    pub fn id(&self) -> ApprovalId {
        self.id
    }

    /// What was allowed.
    pub fn wish(&self) -> &Wish {
        &self.request.wish
    }
}

impl Request {
    /// Whether the two are one question. The process is not part of it: an agent that asks again through another
    /// process of its session, which runs the same program, asks the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.session == other.session
            && self.wish == other.wish
            && self.executable == other.executable
            && self.content == other.content
            && self.reason == other.reason
    }

    #[cfg(test)]
    pub(super) fn imagined(session: u8, about: &str, reason: Option<&str>) -> Self {
        Self {
            session: SessionId([session; 16]),
            role: "notes".parse().unwrap(),
            uid: 1000,
            pid: Some(77),
            executable: None,
            wish: Wish { verb: "secret:use", about: about.to_owned(), delivery: None },
            content: None,
            reason: reason.map(|reason| reason.parse().unwrap()),
        }
    }
}
