//! What the operator should look at: the last of it, as names and numbers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::Broker;
use crate::audit::Actor;
use crate::types::Resource;

/// Alarms that are remembered; the audit trail has all of them.
const REMEMBERED: usize = 64;

/// A honeytoken was asked for, and the session ended.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Counts from 1 at the start.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// For what.
    pub resource: Resource,
}

/// The last alarms, oldest first. Locked for a push or a copy.
#[derive(Default)]
pub(super) struct Alarms(Mutex<VecDeque<Alarm>>);

impl Alarms {
    /// How many there were since the start.
    pub(super) fn raised(&self) -> u64 {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.back().map_or(0, |last| last.number)
    }

    pub(super) fn raise(&self, at: Timestamp, actor: Actor, resource: Resource) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(1, |last| last.number + 1);
        if kept.len() == REMEMBERED {
            kept.pop_front();
        }
        kept.push_back(Alarm { number, at, actor, resource });
    }
}

impl Broker {
    /// The last alarms, oldest first.
    pub fn list_alarms(&self) -> Vec<Alarm> {
        self.alarms.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
