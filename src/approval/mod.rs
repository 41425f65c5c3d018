//! Approvals: requests that wait until the operator has decided, or their time is up.
//!
//! `book` is the rule: equal requests are one question, questions are bounded for a session, a role and in all, an
//! allowance is spent once or holds for a while, a refusal stays one. It is pure: time comes in as a parameter, and
//! who waits is whatever the caller says. This file lets tasks wait on it. Only an [`Approval`], which only a decision
//! makes, turns what `policy` holds back into a `Grant`. May import layers 0 and 1.

mod book;
mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use tokio::sync::{oneshot, watch};

use self::book::Book;
pub use self::book::{Asking, Bounds, Decision, Full, LONGEST_ALLOWANCE, Lapsed, Pending, Verdict};
pub use self::request::{Approval, Fingerprint, Request, Wish};
use crate::clock::{BootInstant, Clock, Deadlines};
use crate::types::{ApprovalId, SessionId};

/// The questions and what was decided. Concurrency: any thread; one task waits on [`Approvals::due`]. The lock is held
/// for a look or a change.
pub struct Approvals {
    book: Mutex<Book<oneshot::Sender<Verdict>>>,
    deadlines: Deadlines<ApprovalId>,
    /// Counts changes: whoever watches looks again.
    changes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

/// What became of a request that was put to the operator.
pub enum Asked<'a> {
    /// It was decided before.
    Settled(Verdict),
    /// A person has to decide it.
    Waits(Waiter<'a>),
}

/// One call that waits. Dropped, it waits no longer; the question stays until its end.
pub struct Waiter<'a> {
    approvals: &'a Approvals,
    told: Option<oneshot::Receiver<Verdict>>,
    ticket: u64,
    /// The question that it waits for.
    pub id: ApprovalId,
    /// The question began with this call.
    pub is_new: bool,
    /// When the question ends.
    pub ends_at: BootInstant,
}

/// The system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandom;

/// Why a request was not put to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Too many wait.
    Full(Full),
    /// No id could be made.
    NoRandom,
}

impl Approvals {
    /// Nothing waits.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { book: Mutex::default(), deadlines: Deadlines::new(), changes: watch::Sender::new(0), clock }
    }

    /// Asks, joins an equal question, or answers by what was decided.
    pub fn ask(&self, request: Request, bounds: Bounds) -> Result<Asked<'_>, AskError> {
        let (now, id) = (self.clock.now(), new_id().map_err(|NoRandom| AskError::NoRandom)?);
        let (tell, told) = oneshot::channel();
        let asking = self.book().ask(now, id, request, bounds, tell).map_err(AskError::Full)?;
        Ok(match asking {
            Asking::Settled(verdict) => Asked::Settled(verdict),
            Asking::Waits { id, ticket, is_new, ends_at } => {
                if is_new {
                    self.deadlines.insert(ends_at, id);
                }
                self.changed();
                Asked::Waits(Waiter { approvals: self, told: Some(told), ticket, id, is_new, ends_at })
            }
        })
    }

    /// What the operator decides about a question that waits. Returns what was asked; `None`: it waits no longer.
    pub fn decide(&self, id: ApprovalId, decision: Decision) -> Result<Option<Arc<Request>>, NoRandom> {
        let (now, next) = (self.clock.now(), new_id()?);
        let Some(decided) = self.book().decide(now, id, decision, next) else { return Ok(None) };
        for (tell, verdict) in decided.told {
            // One that has just gone gives back what it was allowed, see `Waiter`.
            let _ = tell.send(verdict);
        }
        self.deadlines.remove(decided.ends_at, id);
        if decided.goes_on {
            self.deadlines.insert(decided.ends_at, next);
        }
        self.changed();
        Ok(Some(decided.request))
    }

    /// A question that waits, if it does.
    pub fn find(&self, id: ApprovalId) -> Option<Pending> {
        self.list().into_iter().find(|pending| pending.id == id)
    }

    /// The questions that wait, oldest first.
    pub fn list(&self) -> Vec<Pending> {
        self.book().list(self.clock.now())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.book().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Told whenever [`Approvals::list`] has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Has those look again who watch.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits for questions whose time is up, and ends them. Whoever still waits is told.
    pub async fn due(&self) -> Vec<Lapsed> {
        self.deadlines.due(&*self.clock).await;
        let lapsed = self.book().expire(self.clock.now());
        self.told_over(lapsed)
    }

    /// Takes a question back that could not be recorded.
    pub fn withdraw(&self, id: ApprovalId) {
        let taken = self.book().withdraw(id);
        self.told_over(taken.into_iter().collect());
    }

    /// Ends what a session has asked, and all that it was allowed.
    pub fn end_session(&self, session: SessionId) -> Vec<Lapsed> {
        let ended = self.book().end_session(session);
        self.told_over(ended)
    }

    /// Forgets decisions whose time is up.
    pub fn prune(&self) {
        self.book().prune(self.clock.now());
    }

    fn told_over(&self, over: Vec<book::Over<oneshot::Sender<Verdict>>>) -> Vec<Lapsed> {
        if over.is_empty() {
            return Vec::new();
        }
        let lapsed = over.into_iter().map(|over| {
            self.deadlines.remove(over.lapsed.ends_at, over.lapsed.id);
            over.waiting.into_iter().for_each(|tell| drop(tell.send(Verdict::Expired)));
            over.lapsed
        });
        let lapsed = lapsed.collect();
        self.changed();
        lapsed
    }

    fn book(&self) -> MutexGuard<'_, Book<oneshot::Sender<Verdict>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// What was decided. `None`: nothing until `until`, and the question waits on.
    pub async fn decided(&mut self, until: BootInstant) -> Option<Verdict> {
        let clock = self.approvals.clock.clone();
        let told = self.told.as_mut()?;
        let verdict = tokio::select! {
            biased;
            told = told => told.unwrap_or(Verdict::Expired),
            () = clock.sleep_until(self.ends_at) => Verdict::Expired,
            () = clock.sleep_until(until) => return None,
        };
        self.told = None;
        Some(verdict)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(mut told) = self.told.take() else { return };
        let mut book = self.approvals.book();
        book.leave(self.ticket);
        // Allowed in the moment in which it went.
        if let Ok(Verdict::Allowed(approval)) = told.try_recv() {
            book.give_back(self.approvals.clock.now(), approval);
        }
        drop(book);
        self.approvals.changed();
    }
}

fn new_id() -> Result<ApprovalId, NoRandom> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(ApprovalId(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::manual::ManualClock;

    const WAIT: Duration = Duration::from_secs(120);
    const BOUNDS: Bounds = Bounds { role: 8, session: 4, wait: WAIT };

    fn approvals() -> (ManualClock, Approvals) {
        let clock = ManualClock::new();
        (clock.clone(), Approvals::new(Arc::new(clock)))
    }

    fn waiter(approvals: &Approvals) -> Waiter<'_> {
        match approvals.ask(Request::imagined(1, "secret/A", None), BOUNDS) {
            Ok(Asked::Waits(waiter)) => waiter,
            _ => panic!("it does not wait"),
        }
    }

    #[tokio::test]
    async fn a_call_waits_until_it_is_allowed() {
        let (clock, approvals) = approvals();
        let mut first = waiter(&approvals);
        assert!(first.is_new && first.decided(clock.now()).await.is_none());
        assert!(approvals.decide(first.id, Decision::Once).unwrap().is_some());
        assert!(matches!(first.decided(clock.now() + WAIT).await, Some(Verdict::Allowed(_))));
        assert!(approvals.is_empty());
        assert!(approvals.decide(first.id, Decision::Once).unwrap().is_none(), "decided twice");
    }

    #[tokio::test]
    async fn without_a_decision_every_wait_ends_in_the_time_of_the_question() {
        let (clock, approvals) = approvals();
        let mut first = waiter(&approvals);
        clock.advance(WAIT / 2);
        let mut late = waiter(&approvals);
        assert_eq!((late.id, late.is_new, late.ends_at), (first.id, false, first.ends_at));
        clock.advance(WAIT / 2);
        for waiter in [&mut first, &mut late] {
            assert!(matches!(waiter.decided(clock.now() + WAIT).await, Some(Verdict::Expired)));
        }
        let lapsed = approvals.due().await;
        assert_eq!(lapsed.len(), 1);
        assert!(approvals.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_goes_in_the_moment_it_is_allowed_spends_nothing() {
        let (clock, approvals) = approvals();
        let gone = waiter(&approvals);
        approvals.decide(gone.id, Decision::Once).unwrap();
        drop(gone);
        let again = approvals.ask(Request::imagined(1, "secret/A", None), BOUNDS);
        assert!(matches!(again, Ok(Asked::Settled(Verdict::Allowed(_)))));
        // Spent now.
        drop(again);
        let mut third = waiter(&approvals);
        assert!(third.decided(clock.now()).await.is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_its_questions_and_what_it_was_allowed() {
        let (clock, approvals) = approvals();
        let mut first = waiter(&approvals);
        assert_eq!(approvals.end_session(SessionId([1; 16])).len(), 1);
        assert!(matches!(first.decided(clock.now() + WAIT).await, Some(Verdict::Expired)));
        let mut second = waiter(&approvals);
        approvals.decide(second.id, Decision::For(WAIT)).unwrap();
        assert!(matches!(second.decided(clock.now()).await, Some(Verdict::Allowed(_))));
        approvals.end_session(SessionId([1; 16]));
        assert!(waiter(&approvals).is_new);
    }
}
