//! The one fetch of a key: ask upstream, seal, store, announce a change. Runs in a task of its own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{
    Card, Changed, Content, Entry, Fetched, Freshness, Key, Life, Password, Result, Slot, Vault, VaultError,
};
use crate::clock::BootInstant;
use crate::types::{IdentityUuid, PasswordName, Resource, SecretKey};
use crate::upstream::{KeyId, PasswordEntry, SecretEntry, SsoToken, UpstreamError};

/// A sign-in token with less life than this is not served to a new caller.
pub(super) const SSO_MARGIN: Duration = Duration::from_secs(60);
/// Ravi's sign-in tokens live five minutes; a skewed wall clock must not make one look longer.
const SSO_LIFETIME: Duration = Duration::from_secs(300);
/// Under this label minted identity keys can be found in Ravi's dashboard.
const KEY_LABEL: &str = "ravi-broker";
/// Keys minted for one identity without one of them having worked: the first, and one more. Ravi
/// documents no way to take a minted key back, so an agent must not have them made without end.
const MAX_MINTS: u32 = 2;

impl Vault {
    /// Looks at the cache once more first: this flight may have started just after the last one landed.
    pub(super) async fn fetch(self: Arc<Self>, key: Key) -> Fetched {
        let epoch = self.epoch.load(Ordering::SeqCst);
        if epoch & 1 == 1 {
            return Err(VaultError::Locked);
        }
        if let Some((entry, Freshness::Fresh)) = self.cached(&key) {
            return Ok(entry);
        }
        let (content, writes) = self.ask_past_writes(&key).await?;
        let entry = self.store(key.clone(), content, epoch)?;
        if self.writes.load(Ordering::SeqCst) != writes {
            // It may show what was there before the change.
            self.cache.remove(&key);
        }
        Ok(entry)
    }

    /// Asks once more if something was changed meanwhile: a caller who came after the change and joined
    /// this flight must not be served from before it. Also says which changes the answer may show.
    async fn ask_past_writes(&self, key: &Key) -> Result<(Content, u64)> {
        let before = self.writes.load(Ordering::SeqCst);
        let content = self.ask(key).await?;
        let now = self.writes.load(Ordering::SeqCst);
        match key {
            Key::Secret(..) | Key::SecretNames(_) | Key::Passwords(_) if now != before => {
                Ok((self.ask(key).await?, now))
            }
            _ => Ok((content, before)),
        }
    }

    async fn ask(&self, key: &Key) -> Result<Content> {
        Ok(match key {
            Key::Directory => Content::Directory(self.upstream.list_identities().await?),
            Key::Card(identity) => Content::Card(Box::new(self.read_card(*identity).await?)),
            Key::Secret(identity, name) => {
                let found = self.upstream.find_secret(*identity, name).await?;
                Content::Secret(found.map(|entry| self.seal(&entry.value)).transpose()?)
            }
            Key::SecretNames(identity) => {
                Content::SecretNames(names_only(self.upstream.list_secrets(*identity).await?))
            }
            Key::Passwords(identity) => {
                let rows = self.upstream.list_passwords(*identity).await?;
                Content::Passwords(self.seal_passwords(rows)?)
            }
            Key::SsoToken(identity) => {
                let minted = self.mint_sso(*identity).await?;
                let expires_at = self.boot_time_of(&minted);
                Content::SsoToken { slot: self.seal(&minted.token)?, expires_at }
            }
        })
    }

    /// Keeps the answer unless the vault was locked or the account changed meanwhile, and announces values
    /// that changed.
    pub(super) fn store(&self, key: Key, content: Content, epoch: u64) -> Fetched {
        let now = self.clock.now();
        let lifetime = self.lifetime(&content, now);
        let entry = Arc::new(Entry { life: Life::new(now, lifetime), content });
        if self.cache.len() >= self.settings.max_entries && !self.cache.contains_key(&key) {
            self.make_room_for_entry();
        }
        let before = self.cache.insert(key.clone(), entry.clone());
        if self.epoch.load(Ordering::SeqCst) != epoch {
            self.cache.remove(&key);
            return Err(self.discarded());
        }
        if let Some(before) = before {
            self.announce(&key, &before.content, &entry.content);
        }
        Ok(entry)
    }

    fn announce(&self, key: &Key, before: &Content, after: &Content) {
        match (key, before, after) {
            (Key::Secret(identity, name), Content::Secret(Some(old)), Content::Secret(new))
                if new.as_ref().is_none_or(|new| self.differs(old, new)) =>
            {
                self.changed(*identity, Resource::Secret(name.clone()));
            }
            (Key::Passwords(identity), Content::Passwords(old), Content::Passwords(new)) => {
                for old in old {
                    let same = new.iter().find(|new| new.entry == old.entry);
                    if same.is_none_or(|new| self.differs(&old.slot, &new.slot)) {
                        self.changed(*identity, Resource::Password(old.name.clone()));
                    }
                }
            }
            _ => {}
        }
    }

    /// Tells the watchers of leases on this value.
    pub(super) fn changed(&self, identity: IdentityUuid, resource: Resource) {
        // No reader is fine: nobody watches.
        let _ = self.changes.send(Changed { identity, resource });
    }

    fn differs(&self, old: &Slot, new: &Slot) -> bool {
        match (self.arena.open(old), self.arena.open(new)) {
            (Some(old), Some(new)) => old.expose() != new.expose(),
            _ => false,
        }
    }

    async fn read_card(&self, identity: IdentityUuid) -> Result<Card> {
        let persona = self.upstream.read_identity(identity).await?;
        let owner = self.upstream.read_owner(identity).await?;
        Ok(Card { identity: persona, owner })
    }

    fn seal_passwords(&self, rows: Vec<PasswordEntry>) -> Result<Vec<Password>> {
        let named =
            rows.into_iter().filter_map(|row| Some((password_name(&row.domain, &row.username)?, row)));
        let sealed = named.map(|(name, row)| {
            let slot = self.seal(&row.password)?;
            Ok(Password { entry: row.uuid, name, slot })
        });
        let mut sealed: Vec<Password> = sealed.collect::<Result<_>>()?;
        sealed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sealed)
    }

    /// Ravi takes an identity key here and no other. One is minted if none is held, and once more if
    /// Ravi has withdrawn the one that is; a 401 is a clear refusal, so nothing is minted twice unknown.
    async fn mint_sso(&self, identity: IdentityUuid) -> Result<SsoToken> {
        let had_key = self.ensure_identity_key(identity).await?;
        let minted = match self.upstream.mint_sso_token(identity).await {
            Err(UpstreamError::KeyRejected) if had_key && self.keyring.holds(KeyId::Management) => {
                self.ensure_identity_key(identity).await?;
                self.upstream.mint_sso_token(identity).await?
            }
            answer => answer?,
        };
        self.minted.remove(&identity);
        Ok(minted)
    }

    /// True if a key was held already.
    async fn ensure_identity_key(&self, identity: IdentityUuid) -> Result<bool> {
        if self.keyring.holds(KeyId::Identity(identity)) {
            return Ok(true);
        }
        if self.minted.get(&identity).is_some_and(|minted| *minted >= MAX_MINTS) {
            return Err(UpstreamError::KeyRejected.into());
        }
        let minted = self.upstream.mint_identity_key(identity, KEY_LABEL).await;
        if may_have_minted(&minted) {
            *self.minted.entry(identity).or_default() += 1;
            self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).push(identity);
        }
        let key = minted?;
        self.keyring.insert(KeyId::Identity(identity), &key);
        Ok(false)
    }

    fn boot_time_of(&self, minted: &SsoToken) -> BootInstant {
        let left = minted.expires_at.duration_since(self.clock.wall());
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
        self.clock.now() + left.min(SSO_LIFETIME)
    }
}

/// An answer that was lost or discarded may stand for a key that exists all the same.
fn may_have_minted<T>(answer: &crate::upstream::Result<T>) -> bool {
    matches!(answer, Ok(_) | Err(UpstreamError::OutcomeUnknown | UpstreamError::Answer(_)))
}

/// Ravi lists values with the names; they are wiped here, unread.
fn names_only(rows: Vec<SecretEntry>) -> Vec<SecretKey> {
    let mut names: Vec<SecretKey> = rows.into_iter().map(|row| row.key).collect();
    names.sort();
    names.dedup();
    names
}

/// The name of a row. A row whose stored name is not in canonical form cannot be named, hence not
/// leased.
pub(super) fn password_name(domain: &str, username: &str) -> Option<PasswordName> {
    let username = match username {
        "" => None,
        username => Some(username.parse().ok()?),
    };
    Some(PasswordName { domain: domain.parse().ok()?, username })
}
