//! Room for one more: what can be fetched again gives way. The cache is bounded in entries, the arena in
//! bytes.

use super::arena::{ArenaFull, Slot};
use super::{Content, Key, Result, Vault, VaultError};
use crate::secret::Secret;

impl Vault {
    /// Seals a value, if need be in place of cached ones: of the expired first, then of any others until it
    /// fits.
    pub(super) fn seal(&self, value: &Secret) -> Result<Slot> {
        let sealed = match self.arena.seal(value) {
            Err(ArenaFull::Now) => self.seal_in_place_of_others(value),
            sealed => sealed,
        };
        sealed.map_err(|full| {
            tracing::warn!(bytes = value.len(), "{full}: a value was fetched and cannot be kept or served");
            VaultError::Full
        })
    }

    /// Drops what is expired, or else any one entry.
    pub(super) fn make_room_for_entry(&self) {
        self.prune(&[]);
        if self.cache.len() >= self.settings.max_entries {
            let victim = self.cache.iter().next().map(|entry| entry.key().clone());
            victim.map(|key| self.cache.remove(&key));
        }
    }

    fn seal_in_place_of_others(&self, value: &Secret) -> std::result::Result<Slot, ArenaFull> {
        self.prune(&[]);
        let mut sealed = self.arena.seal(value);
        for victim in self.entries_with_slots() {
            if sealed.is_ok() {
                break;
            }
            self.cache.remove(&victim);
            sealed = self.arena.seal(value);
        }
        sealed
    }

    fn entries_with_slots(&self) -> Vec<Key> {
        let with_slots = self.cache.iter().filter(|entry| entry.content.has_slots());
        with_slots.map(|entry| entry.key().clone()).collect()
    }
}

impl Content {
    fn has_slots(&self) -> bool {
        match self {
            Self::Secret(slot) => slot.is_some(),
            Self::Passwords(rows) => !rows.is_empty(),
            Self::SsoToken { .. } => true,
            Self::Directory(_) | Self::Card(_) | Self::SecretNames(_) => false,
        }
    }
}
