//! The Ravi keys, sealed. The only place that holds them; `upstream` borrows one for one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::{Arena, Slot};
use crate::secret::Secret;
use crate::types::IdentityUuid;
use crate::upstream::{KeyId, Keys, OpenKey};

/// Bound on identity keys; one identity has one.
const MAX_KEYS: usize = 1024;

/// Keys by what they open. Concurrency: any thread; the lock is held for a copy at most.
pub struct Keyring {
    arena: Arc<Arena>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    keys: HashMap<KeyId, Key>,
    generation: u64,
    /// Locked: a mint that was under way must not leave its key behind.
    closed: bool,
}

struct Key {
    slot: Slot,
    generation: u64,
    rejected: bool,
}

/// The key that another one took the place of, still sealed.
pub struct Replaced {
    before: Option<Key>,
    /// Of the key that took its place.
    generation: u64,
}

impl Keyring {
    /// Holds nothing yet.
    pub fn new(arena: Arc<Arena>) -> Self {
        Self { arena, held: Mutex::new(Held::default()) }
    }

    /// Takes a key in, in place of an earlier one. False if the keyring or its memory is full, or it is
    /// closed.
    pub fn insert(&self, id: KeyId, key: &Secret) -> bool {
        self.replace(id, key).is_some()
    }

    /// Like [`Keyring::insert`], but hands out what was there, for [`Keyring::restore`].
    pub fn replace(&self, id: KeyId, key: &Secret) -> Option<Replaced> {
        let slot = self.arena.seal_key(key).ok()?;
        let mut held = self.lock();
        if held.closed || (held.keys.len() >= MAX_KEYS && !held.keys.contains_key(&id)) {
            return None;
        }
        held.generation += 1;
        let generation = held.generation;
        let before = held.keys.insert(id, Key { slot, generation, rejected: false });
        Some(Replaced { before, generation })
    }

    /// Puts back what was there before a key that proved to be no good, unless that one is gone already:
    /// replaced by another, or dropped by a lock.
    pub fn restore(&self, id: KeyId, replaced: Replaced) {
        let mut held = self.lock();
        if held.keys.get(&id).is_none_or(|key| key.generation != replaced.generation) {
            return;
        }
        match replaced.before {
            Some(key) => drop(held.keys.insert(id, key)),
            None => drop(held.keys.remove(&id)),
        }
    }

    /// Whether a usable key is held.
    pub fn holds(&self, id: KeyId) -> bool {
        self.lock().keys.get(&id).is_some_and(|key| !key.rejected)
    }

    /// How many usable identity keys are held.
    pub fn identity_keys(&self) -> usize {
        let usable = |(id, key): (&KeyId, &Key)| matches!(id, KeyId::Identity(_)) && !key.rejected;
        self.lock().keys.iter().filter(|entry| usable(*entry)).count()
    }

    /// Drops the keys of identities that `keep` does not know.
    pub fn retain_identities(&self, keep: impl Fn(IdentityUuid) -> bool) {
        let mut held = self.lock();
        held.keys.retain(|id, _| match id {
            KeyId::Management => true,
            KeyId::Identity(identity) => keep(*identity),
        });
    }

    /// Drops every key and takes none in until [`Keyring::reopen`].
    pub fn close(&self) {
        let mut held = self.lock();
        held.keys.clear();
        held.closed = true;
    }

    /// Drops every key.
    pub fn clear(&self) {
        self.lock().keys.clear();
    }

    /// Takes keys in again.
    pub fn reopen(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys for Keyring {
    fn open(&self, id: KeyId) -> Option<OpenKey> {
        let held = self.lock();
        let key = held.keys.get(&id).filter(|key| !key.rejected)?;
        Some(OpenKey { value: self.arena.open(&key.slot)?, generation: key.generation })
    }

    fn reject(&self, id: KeyId, generation: u64) {
        if let Some(key) = self.lock().keys.get_mut(&id)
            && key.generation == generation
        {
            key.rejected = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemoryTier;

    fn keyring() -> Keyring {
        Keyring::new(Arc::new(Arena::new(MemoryTier::Locked).unwrap()))
    }

    #[test]
    fn a_rejected_key_is_not_handed_out_again() {
        let keyring = keyring();
        assert!(keyring.insert(KeyId::Management, &Secret::copy_of("first")));
        let open = keyring.open(KeyId::Management).unwrap();
        keyring.reject(KeyId::Management, open.generation);
        assert!(keyring.open(KeyId::Management).is_none());
        assert!(!keyring.holds(KeyId::Management));
    }

    #[test]
    fn a_late_rejection_does_not_condemn_the_successor() {
        let keyring = keyring();
        keyring.insert(KeyId::Management, &Secret::copy_of("first"));
        let old = keyring.open(KeyId::Management).unwrap();
        keyring.insert(KeyId::Management, &Secret::copy_of("second"));
        keyring.reject(KeyId::Management, old.generation);
        assert_eq!(keyring.open(KeyId::Management).unwrap().value.expose(), "second");
    }

    #[test]
    fn a_key_that_proved_to_be_no_good_gives_way_to_the_one_before() {
        let keyring = keyring();
        keyring.insert(KeyId::Management, &Secret::copy_of("good"));
        let before = keyring.replace(KeyId::Management, &Secret::copy_of("no good")).unwrap();
        keyring.restore(KeyId::Management, before);
        assert_eq!(keyring.open(KeyId::Management).unwrap().value.expose(), "good");
    }

    #[test]
    fn a_key_that_came_meanwhile_is_not_replaced_by_the_one_before() {
        let keyring = keyring();
        keyring.insert(KeyId::Management, &Secret::copy_of("first"));
        let before = keyring.replace(KeyId::Management, &Secret::copy_of("no good")).unwrap();
        keyring.close();
        keyring.reopen();
        keyring.insert(KeyId::Management, &Secret::copy_of("newest"));
        keyring.restore(KeyId::Management, before);
        assert_eq!(keyring.open(KeyId::Management).unwrap().value.expose(), "newest");
    }

    #[test]
    fn a_closed_keyring_holds_nothing_and_takes_nothing_in() {
        let keyring = keyring();
        keyring.insert(KeyId::Management, &Secret::copy_of("first"));
        keyring.close();
        assert!(keyring.open(KeyId::Management).is_none());
        assert!(!keyring.insert(KeyId::Management, &Secret::copy_of("late")));
        keyring.reopen();
        assert!(keyring.insert(KeyId::Management, &Secret::copy_of("again")));
    }
}
