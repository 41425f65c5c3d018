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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::manual::ManualClock;
    use crate::config::{MemoryTier, VaultConfig};
    use crate::types::{IdentityUuid, Resource};
    use crate::upstream::stub::Stub;
    use crate::vault::arena::Arena;
    use crate::vault::keyring::Keyring;

    const BUSY: usize = 1 << 20;

    fn vault(ravi: &Arc<Stub>) -> Arc<Vault> {
        let arena = Arc::new(Arena::new(MemoryTier::Locked).unwrap());
        let keyring = Arc::new(Keyring::new(arena.clone()));
        let second = std::time::Duration::from_secs(1);
        let settings = VaultConfig { fresh_for: second, absent_for: second, max_entries: 64 };
        Vault::new(ravi.clone(), arena, keyring, Arc::new(ManualClock::new()), settings)
    }

    fn value(length: usize) -> Secret {
        Secret::new("x".repeat(length))
    }

    /// Slots that no cached entry holds, so that nobody can drop them.
    fn fill(vault: &Vault) -> Vec<Slot> {
        std::iter::from_fn(|| vault.arena.seal(&value(BUSY)).ok()).collect()
    }

    #[tokio::test]
    async fn where_nothing_can_give_way_a_value_is_refused() {
        let vault = vault(&Stub::new());
        let mut slots = fill(&vault);
        assert!(matches!(vault.seal(&value(BUSY)), Err(VaultError::Full)));
        slots.pop();
        assert!(vault.seal(&value(BUSY)).is_ok());
    }

    #[tokio::test]
    async fn cached_values_give_way_and_no_more_of_them_than_needed() {
        let ravi = Stub::new();
        let vault = vault(&ravi);
        *ravi.value.lock().unwrap() = "x".repeat(BUSY);
        let identity = IdentityUuid(uuid::Uuid::nil());
        for number in 0..4 {
            let resource: Resource = format!("secret/KEY_{number}").parse().unwrap();
            vault.credential(identity, &resource).await.unwrap_or_else(|error| panic!("{error}"));
        }
        let _slots = fill(&vault);
        let before = vault.cache.len();
        assert!(vault.seal(&value(BUSY)).is_ok());
        assert_eq!(vault.cache.len(), before - 1);
    }

    #[tokio::test]
    async fn a_change_whose_value_cannot_be_kept_was_made_all_the_same() {
        let ravi = Stub::new();
        let vault = vault(&ravi);
        let _slots = fill(&vault);
        *ravi.value.lock().unwrap() = "x".repeat(BUSY);
        let mut changes = vault.changes();
        let identity = IdentityUuid(uuid::Uuid::nil());
        let set = vault.set_secret(identity, &"KEY".parse().unwrap(), &value(BUSY)).await;
        assert!(set.is_ok(), "{set:?}");
        assert!(changes.try_recv().is_ok_and(|changed| changed.identity == identity));
    }
}
