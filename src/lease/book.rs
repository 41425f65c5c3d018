//! The book of one session: its leases, and why the last ones ended. Imports this folder and `clock`.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::sync::broadcast;

use super::{Event, EventKind, Lease, LeaseError};
use crate::clock::BootInstant;
use crate::types::{LeaseId, Resource};

/// Events that a slow watcher may be behind before it is told that it missed some.
const EVENTS_KEPT: usize = 64;
/// Ended leases of a session that are still told why.
const REMEMBERED: usize = 64;
/// Static values of a session that are remembered as seen; the audit trail knows all of them.
const MAX_SEEN: usize = 1024;

/// Leases by handle, the ends of the last ones, and who listens.
pub(super) struct Book {
    pub(super) live: HashMap<LeaseId, Kept>,
    ended: VecDeque<(LeaseId, LeaseError)>,
    /// What the session was given a lease on and keeps knowing, whatever became of the lease.
    seen: BTreeSet<Resource>,
    pub(super) events: broadcast::Sender<Event>,
}

/// A live lease and when its holder is warned.
pub(super) struct Kept {
    pub(super) lease: Lease,
    pub(super) warn_at: Option<BootInstant>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            live: HashMap::new(),
            ended: VecDeque::new(),
            seen: BTreeSet::new(),
            events: broadcast::Sender::new(EVENTS_KEPT),
        }
    }

    pub(super) fn open(&mut self, kept: Kept) {
        if !kept.lease.revocable && self.seen.len() < MAX_SEEN {
            self.seen.insert(kept.lease.resource.clone());
        }
        self.live.insert(kept.lease.id, kept);
    }

    pub(super) fn seen(&self) -> Vec<Resource> {
        self.seen.iter().cloned().collect()
    }

    /// Takes a lease out and remembers why it ended.
    pub(super) fn close(&mut self, id: LeaseId, why: LeaseError) -> Option<Kept> {
        let kept = self.live.remove(&id)?;
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, why));
        Some(kept)
    }

    pub(super) fn check_room(&self, max_live: usize) -> Result<(), LeaseError> {
        if self.live.len() >= max_live { Err(LeaseError::Capacity("lease.max_live")) } else { Ok(()) }
    }

    pub(super) fn find(&self, id: LeaseId, now: BootInstant) -> Result<&Kept, LeaseError> {
        match self.live.get(&id) {
            Some(kept) if kept.lease.terms.hold(now) => Ok(kept),
            Some(_) => Err(LeaseError::Expired),
            None => Err(self.why_ended(id)),
        }
    }

    pub(super) fn find_mut(&mut self, id: LeaseId, now: BootInstant) -> Result<&mut Kept, LeaseError> {
        self.find(id, now)?;
        self.live.get_mut(&id).ok_or(LeaseError::NotAvailable)
    }

    fn why_ended(&self, id: LeaseId) -> LeaseError {
        let ended = self.ended.iter().find(|(ended, _)| *ended == id);
        ended.map_or(LeaseError::NotAvailable, |(_, why)| *why)
    }

    pub(super) fn tell(&self, lease: &Lease, kind: EventKind) {
        // Nobody watching is fine.
        let _ = self.events.send(Event { lease: lease.id, resource: lease.resource.clone(), kind });
    }
}
