//! The end of agents: their access goes at once, the records follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Broker;
use super::error::Result;
use super::session::Ended;
use crate::peer::Pidfd;
use crate::session::{End, OpenError, Session};

/// Sessions that ended with their process and are not yet recorded. Locked while one of them is recorded: who
/// finds it empty knows that all are. Bounded by the sessions that end while one record is written.
#[derive(Default)]
pub(super) struct Unrecorded(Mutex<VecDeque<Ended>>);

impl Unrecorded {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// The session ends when the kernel says that its process has. A child with the anchor of its parent
    /// ends with that.
    pub(super) fn end_with_process(self: &Arc<Self>, session: &Arc<Session>) -> Result<()> {
        let anchor = session.anchor();
        let parent = session.parent.and_then(|parent| self.sessions.find(parent));
        if parent.is_some_and(|parent| parent.anchor() == anchor) {
            return Ok(());
        }
        let gone = if session.parent.is_some() { OpenError::NoProcess } else { OpenError::NoAnchor };
        let process = Pidfd::open(anchor).ok_or(gone)?;
        let (broker, session) = (Arc::downgrade(self), session.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = process.ended() => {}
                () = session.ended() => return,
            }
            let Some(broker) = broker.upgrade() else { return };
            let ended = broker.forget_all(broker.sessions.end(session.id, End::ProcessEnded));
            let count = ended.len();
            broker.unrecorded.lock().extend(ended);
            // Where many processes end at once, all of them lose access before the first record is written.
            tokio::task::yield_now().await;
            for _ in 0..count {
                broker.record_death();
            }
        });
        Ok(())
    }

    /// Has the ends of sessions recorded that have lost their access already.
    pub(super) fn record_later(&self, ended: Vec<Ended>) {
        let count = ended.len();
        self.unrecorded.lock().extend(ended);
        let broker = self.me.clone();
        tokio::spawn(async move {
            let Some(broker) = broker.upgrade() else { return };
            for _ in 0..count {
                broker.record_death();
            }
        });
    }

    /// Writes what is left to be written of sessions whose process has ended: a runtime that stops does not
    /// come to it any more.
    pub(super) fn record_deaths(&self) {
        while self.record_death() {}
    }

    /// Writes the records of the session that ended first. False: there was none.
    fn record_death(&self) -> bool {
        let mut unrecorded = self.unrecorded.lock();
        let ended = unrecorded.pop_front();
        ended.inspect(|ended| self.record_ended(ended)).is_some()
    }
}
