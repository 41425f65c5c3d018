//! The rule of questions and answers. Pure: `W` is whoever waits, and time comes in.
//!
//! Invariants: no two open questions are equal; one use allows one waiter and no second; whoever waits is told once; a
//! session, a role and all of them have a bound on open questions, and each question one on those who wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::request::{Approval, Request, Wish};
use crate::clock::BootInstant;
use crate::types::{ApprovalId, SessionId};

/// Open questions in all.
const MAX_OPEN: usize = 256;
/// Calls that wait for one question.
const MAX_WAITING: usize = 64;
/// Decisions that are remembered; the operator made each of them.
const MAX_DECISIONS: usize = 1024;
/// How long a refusal stays one, whatever reason is then given.
const DENIED_FOR: Duration = Duration::from_secs(600);
/// The longest that an allowance holds; it ends with its session anyway.
pub const LONGEST_ALLOWANCE: Duration = Duration::from_secs(24 * 3600);

/// How many may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open questions of the role.
    pub role: usize,
    /// Open questions of the session.
    pub session: usize,
    /// How long a question waits, and how long one use that nobody waited for keeps.
    pub wait: Duration,
}

/// What the operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// One use.
    Once,
    /// Every equal request of this session, for so long.
    For(Duration),
    /// Not now, and not on another pretext.
    Deny,
}

/// What a request was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead.
    Allowed(Approval),
    /// The operator said no.
    Denied,
    /// Nobody decided in time, or the session is over.
    Expired,
}

/// What became of a request.
#[derive(Debug)]
pub enum Asking {
    /// It was decided before.
    Settled(Verdict),
    /// It waits.
    Waits {
        /// For which question.
        id: ApprovalId,
        /// To be given to `Book::leave`.
        ticket: u64,
        /// The question began with it.
        is_new: bool,
        /// When the question ends.
        ends_at: BootInstant,
    },
}

/// Name of the bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub &'static str);

/// A question that waits, for the operator.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its name.
    pub id: ApprovalId,
    /// What is asked.
    pub request: Arc<Request>,
    /// Since when.
    pub asked_at: BootInstant,
    /// Until when.
    pub ends_at: BootInstant,
    /// Calls that wait for it now.
    pub waiting: usize,
}

/// A question that ended without a decision.
#[derive(Clone, Debug)]
pub struct Lapsed {
    /// Its name.
    pub id: ApprovalId,
    /// What was asked.
    pub request: Arc<Request>,
    /// When it was to end.
    pub ends_at: BootInstant,
}

/// The same, with whoever is still to be told.
pub(super) struct Over<W> {
    pub(super) lapsed: Lapsed,
    pub(super) waiting: Vec<W>,
}

/// A question that was decided.
pub(super) struct Decided<W> {
    pub(super) request: Arc<Request>,
    pub(super) told: Vec<(W, Verdict)>,
    /// Others still wait, for an equal question of the new name.
    pub(super) goes_on: bool,
    pub(super) ends_at: BootInstant,
}

/// The questions and the decisions.
pub(super) struct Book<W> {
    open: Vec<Question<W>>,
    decisions: VecDeque<Remembered>,
    tickets: u64,
}

struct Question<W> {
    id: ApprovalId,
    request: Arc<Request>,
    wait: Duration,
    asked_at: BootInstant,
    ends_at: BootInstant,
    waiting: VecDeque<(u64, W)>,
}

struct Remembered {
    id: ApprovalId,
    request: Arc<Request>,
    until: BootInstant,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One use; given back, it keeps for so long.
    Once(Duration),
    Standing,
    Denied,
}

impl<W> Default for Book<W> {
    fn default() -> Self {
        Self { open: Vec::new(), decisions: VecDeque::new(), tickets: 0 }
    }
}

impl<W> Book<W> {
    /// Answers by what was decided, joins an equal question, or opens one under `id`.
    pub(super) fn ask(
        &mut self,
        now: BootInstant,
        id: ApprovalId,
        request: Request,
        bounds: Bounds,
        waiter: W,
    ) -> Result<Asking, Full> {
        self.prune(now);
        if let Some(verdict) = self.recall(&request) {
            return Ok(Asking::Settled(verdict));
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let equal = self.open.iter_mut().find(|open| now < open.ends_at && open.request.is(&request));
        if let Some(question) = equal {
            if question.waiting.len() >= MAX_WAITING {
                return Err(Full("calls that wait for one approval"));
            }
            question.waiting.push_back((ticket, waiter));
            let (id, ends_at) = (question.id, question.ends_at);
            return Ok(Asking::Waits { id, ticket, is_new: false, ends_at });
        }
        self.check_room(&request, bounds)?;
        let ends_at = now + bounds.wait;
        let (request, waiting) = (Arc::new(request), VecDeque::from([(ticket, waiter)]));
        self.open.push(Question { id, request, wait: bounds.wait, asked_at: now, ends_at, waiting });
        Ok(Asking::Waits { id, ticket, is_new: true, ends_at })
    }

    fn check_room(&self, request: &Request, bounds: Bounds) -> Result<(), Full> {
        let of_session = self.open.iter().filter(|open| open.request.session == request.session).count();
        if of_session >= bounds.session {
            return Err(Full("approval.session_pending"));
        }
        let of_role = self.open.iter().filter(|open| open.request.role == request.role).count();
        if of_role >= bounds.role {
            return Err(Full("approval.max_pending"));
        }
        if self.open.len() >= MAX_OPEN { Err(Full("approvals that wait")) } else { Ok(()) }
    }

    /// A refusal first: it holds whatever else was said. One use is spent by this.
    fn recall(&mut self, request: &Request) -> Option<Verdict> {
        if self.decisions.iter().any(|known| known.kind == Kind::Denied && known.refuses(request)) {
            return Some(Verdict::Denied);
        }
        let allows = |known: &Remembered| known.kind != Kind::Denied && known.request.is(request);
        let at = self.decisions.iter().position(allows)?;
        let approval = self.decisions.get(at)?.approval();
        if approval.once.is_some() {
            self.decisions.remove(at);
        }
        Some(Verdict::Allowed(approval))
    }

    /// What the operator decides. One use goes to the call that waits longest; where others wait too, they go on to do
    /// so for an equal question, which is called `next`. `None`: no such question waits.
    pub(super) fn decide(
        &mut self,
        now: BootInstant,
        id: ApprovalId,
        decision: Decision,
        next: ApprovalId,
    ) -> Option<Decided<W>> {
        let at = self.open.iter().position(|open| open.id == id && now < open.ends_at)?;
        let mut question = self.open.swap_remove(at);
        let (request, ends_at) = (question.request.clone(), question.ends_at);
        let (kind, until) = match decision {
            Decision::Once => (Kind::Once(question.wait), now + question.wait),
            Decision::For(time) => (Kind::Standing, now + time.min(LONGEST_ALLOWANCE)),
            Decision::Deny => (Kind::Denied, now + DENIED_FOR),
        };
        let remembered = Remembered { id, request: request.clone(), until, kind };
        let verdict = match kind {
            Kind::Denied => Verdict::Denied,
            Kind::Once(_) | Kind::Standing => Verdict::Allowed(remembered.approval()),
        };
        let mut told = Vec::new();
        if let Kind::Once(_) = kind {
            match question.waiting.pop_front() {
                Some((_, waiter)) => told.push((waiter, verdict)),
                None => self.remember(remembered),
            }
        } else {
            told.extend(question.waiting.drain(..).map(|(_, waiter)| (waiter, verdict.clone())));
            self.remember(remembered);
        }
        let goes_on = !question.waiting.is_empty();
        if goes_on {
            question.id = next;
            self.open.push(question);
        }
        Some(Decided { request, told, goes_on, ends_at })
    }

    /// A call that waits no longer. Its question does, until its end: the agent may come back.
    pub(super) fn leave(&mut self, ticket: u64) {
        for question in &mut self.open {
            question.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    /// One use that was not made.
    pub(super) fn give_back(&mut self, now: BootInstant, approval: Approval) {
        let Approval { id, request, once: Some(keeps) } = approval else { return };
        self.remember(Remembered { id, request, until: now + keeps, kind: Kind::Once(keeps) });
    }

    /// Ends the questions whose time is up.
    pub(super) fn expire(&mut self, now: BootInstant) -> Vec<Over<W>> {
        self.end(|question| now >= question.ends_at)
    }

    /// Takes one question back.
    pub(super) fn withdraw(&mut self, id: ApprovalId) -> Option<Over<W>> {
        self.end(|question| question.id == id).pop()
    }

    /// Ends what a session has asked, and forgets what it was told.
    pub(super) fn end_session(&mut self, session: SessionId) -> Vec<Over<W>> {
        self.decisions.retain(|known| known.request.session != session);
        self.end(|question| question.request.session == session)
    }

    /// Forgets decisions whose time is up.
    pub(super) fn prune(&mut self, now: BootInstant) {
        self.decisions.retain(|known| now < known.until);
    }

    /// The questions that wait, oldest first.
    pub(super) fn list(&self, now: BootInstant) -> Vec<Pending> {
        let waiting = self.open.iter().filter(|open| now < open.ends_at);
        let mut listed: Vec<Pending> = waiting.map(Question::pending).collect();
        listed.sort_by_key(|pending| (pending.asked_at, pending.id));
        listed
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn end(&mut self, is_over: impl Fn(&Question<W>) -> bool) -> Vec<Over<W>> {
        let over = self.open.extract_if(.., |question| is_over(question));
        over.map(Question::over).collect()
    }

    fn remember(&mut self, decision: Remembered) {
        if self.decisions.len() >= MAX_DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }
}

impl<W> Question<W> {
    fn pending(&self) -> Pending {
        let Self { id, request, asked_at, ends_at, waiting, .. } = self;
        let (request, waiting) = (request.clone(), waiting.len());
        Pending { id: *id, request, asked_at: *asked_at, ends_at: *ends_at, waiting }
    }

    fn over(self) -> Over<W> {
        let lapsed = Lapsed { id: self.id, request: self.request, ends_at: self.ends_at };
        Over { lapsed, waiting: self.waiting.into_iter().map(|(_, waiter)| waiter).collect() }
    }
}

impl Remembered {
    fn approval(&self) -> Approval {
        let once = match self.kind {
            Kind::Once(keeps) => Some(keeps),
            Kind::Standing | Kind::Denied => None,
        };
        Approval { id: self.id, request: self.request.clone(), once }
    }

    /// Whatever the caller says that it is for, and whichever of its programs asks.
    fn refuses(&self, request: &Request) -> bool {
        let Wish { verb, about, .. } = &self.request.wish;
        self.request.session == request.session && *verb == request.wish.verb && *about == request.wish.about
    }
}

#[cfg(test)]
mod tests;
