//! Whether the broker serves at all.

use std::sync::atomic::{AtomicU8, Ordering};

use super::error::{BrokerError, Result};

const OPEN: u8 = 0;
const LOCKED: u8 = 1;
const DRAINING: u8 = 2;

/// Open, locked by the operator, or draining before the end. Read at the start of every call and again
/// before a value leaves.
pub(super) struct Gate(AtomicU8);

impl Gate {
    pub(super) fn open() -> Self {
        Self(AtomicU8::new(OPEN))
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::SeqCst) {
            OPEN => Ok(()),
            LOCKED => Err(BrokerError::Locked),
            _ => Err(BrokerError::Draining),
        }
    }

    /// What was let in before the daemon was told to stop may still have its answer.
    pub(super) fn check_release(&self) -> Result<()> {
        if self.is_locked() { Err(BrokerError::Locked) } else { Ok(()) }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.0.load(Ordering::SeqCst) == LOCKED
    }

    /// A draining broker stays so.
    pub(super) fn lock(&self) {
        let _ = self.0.compare_exchange(OPEN, LOCKED, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn unlock(&self) {
        let _ = self.0.compare_exchange(LOCKED, OPEN, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn drain(&self) {
        self.0.store(DRAINING, Ordering::SeqCst);
    }
}
