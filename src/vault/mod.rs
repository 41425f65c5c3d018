//! Values and keys at rest, and the read-through cache in front of upstream.
//!
//! A value is fetched when somebody who may have it asks, kept sealed, served while fresh, and fetched
//! once however many ask at the same time (I4). The vault does not decide who may have what: layer 3
//! calls it with a grant in hand. May import layer 0 and `upstream`.

pub mod arena;
mod entry;
mod extents;
mod fetch;
pub(crate) mod flight;
pub mod keyfile;
pub mod keyring;
mod room;
mod tier;
mod write;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use thiserror::Error;
use tokio::sync::broadcast;

use self::arena::{Arena, NoRandom, Slot};
use self::entry::{Freshness, Life};
use self::flight::Flights;
use self::keyring::Keyring;
pub use self::write::Change;
use crate::clock::{BootInstant, Clock};
use crate::config::{IdentityRef, VaultConfig};
use crate::secret::Secret;
use crate::types::{EntryUuid, IdentityName, IdentityUuid, PasswordName, Resource, SecretKey};
use crate::upstream::{Identity, Owner, Upstream, UpstreamError};

/// Announcements that a slow reader may be behind.
const CHANGES_KEPT: usize = 256;
/// Bound on names of identities that were looked up: there is one for each role.
const MAX_RESOLVED: usize = 4096;

/// What the vault returns.
pub type Result<T> = std::result::Result<T, VaultError>;

/// Why the vault has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VaultError {
    /// Ravi has no such thing for this identity.
    #[error("there is no such thing")]
    Absent,
    /// The domain has several passwords: name the user.
    #[error("the domain has several entries; name one as password/<domain>/<username>")]
    Ambiguous,
    /// No identity, or more than one, has the name that the role gives.
    #[error("no identity, or more than one, has the configured name")]
    NoIdentity,
    /// The vault was wiped while the call was under way.
    #[error("the vault was locked")]
    Locked,
    /// The memory for secrets has no room, although every cached value was dropped for it.
    #[error("the memory for secrets is full")]
    Full,
    /// Ravi did not give it.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// A credential in the clear, for one response.
pub struct Credential {
    /// The value.
    pub value: Secret,
    /// The account name of a password.
    pub username: Option<String>,
    /// The canonical name of what was found: a password's user name is filled in.
    pub resource: Resource,
    /// When the value itself ends, if upstream said so.
    pub expires_at: Option<BootInstant>,
}

/// The session's identity and who owns the account.
#[derive(Clone, Debug)]
pub struct Card {
    /// The persona.
    pub identity: Identity,
    /// The person.
    pub owner: Owner,
}

/// A value was seen to differ from the one served before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whose.
    pub identity: IdentityUuid,
    /// Which.
    pub resource: Resource,
}

/// What one upstream answer is cached under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Directory,
    Card(IdentityUuid),
    Secret(IdentityUuid, SecretKey),
    SecretNames(IdentityUuid),
    Passwords(IdentityUuid),
    SsoToken(IdentityUuid),
}

/// One cached answer, values sealed.
struct Entry {
    life: Life,
    content: Content,
}

enum Content {
    Directory(Vec<Identity>),
    Card(Box<Card>),
    Secret(Option<Slot>),
    SecretNames(Vec<SecretKey>),
    Passwords(Vec<Password>),
    SsoToken { slot: Slot, expires_at: BootInstant },
}

struct Password {
    entry: EntryUuid,
    name: PasswordName,
    slot: Slot,
}

type Fetched = Result<Arc<Entry>>;

/// The cache. Concurrency: any thread; guards are held for a look-up at most.
pub struct Vault {
    upstream: Arc<dyn Upstream>,
    arena: Arc<Arena>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    settings: VaultConfig,
    cache: DashMap<Key, Arc<Entry>>,
    flights: Flights<Key, Fetched>,
    resolved: DashMap<IdentityName, IdentityUuid>,
    /// Identity keys minted since one last worked. Bounded by the identities that roles name.
    minted: DashMap<IdentityUuid, u32>,
    /// Mints that are not in the audit trail yet. Bounded by them.
    unrecorded: Mutex<Vec<IdentityUuid>>,
    /// Odd while locked, and another number after each login; a fetch that began under another number is
    /// thrown away.
    epoch: AtomicU64,
    /// Counts changes sent: an answer from before one is not kept.
    writes: AtomicU64,
    changes: broadcast::Sender<Changed>,
}

impl Vault {
    /// An empty vault.
    pub fn new(
        upstream: Arc<dyn Upstream>,
        arena: Arc<Arena>,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        settings: VaultConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            arena,
            keyring,
            clock,
            settings,
            cache: DashMap::new(),
            flights: Flights::new(),
            resolved: DashMap::new(),
            minted: DashMap::new(),
            unrecorded: Mutex::new(Vec::new()),
            epoch: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            changes: broadcast::Sender::new(CHANGES_KEPT),
        })
    }

    /// The keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The identity that a role names. Looked up once and then remembered until a lock: a UUID does
    /// not change its persona.
    pub async fn resolve(self: &Arc<Self>, identity: &IdentityRef) -> Result<IdentityUuid> {
        let name = match identity {
            IdentityRef::Uuid(uuid) => return Ok(*uuid),
            IdentityRef::Name(name) => name,
        };
        if let Some(uuid) = self.resolved.get(name) {
            return Ok(*uuid);
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        let directory = self.entry(Key::Directory).await?;
        let Content::Directory(identities) = &directory.content else { return Err(VaultError::Absent) };
        let mut named = identities.iter().filter(|identity| identity.name == name.as_str());
        match (named.next(), named.next()) {
            (Some(found), None) => {
                if self.resolved.len() < MAX_RESOLVED {
                    self.resolved.insert(name.clone(), found.uuid);
                }
                if self.epoch.load(Ordering::SeqCst) != epoch {
                    self.resolved.remove(name);
                    return Err(self.discarded());
                }
                Ok(found.uuid)
            }
            _ => Err(VaultError::NoIdentity),
        }
    }

    /// The value of a resource.
    pub async fn credential(
        self: &Arc<Self>,
        identity: IdentityUuid,
        resource: &Resource,
    ) -> Result<Credential> {
        let entry = self.entry(key_of(identity, resource)).await?;
        // Ravi writes "absent" as an empty text.
        let given = |value: Secret| if value.is_empty() { Err(VaultError::Absent) } else { Ok(value) };
        let found = |slot: &Slot| self.arena.open(slot).ok_or(VaultError::Locked).and_then(given);
        let plain =
            |value| Credential { value, username: None, resource: resource.clone(), expires_at: None };
        match (&entry.content, resource) {
            (Content::Secret(slot), Resource::Secret(_)) => {
                found(slot.as_ref().ok_or(VaultError::Absent)?).map(plain)
            }
            (Content::Passwords(rows), Resource::Password(name)) => {
                let row = pick(rows, name)?;
                let username = row.name.username.as_ref().map(|name| name.as_str().to_owned());
                let resource = Resource::Password(row.name.clone());
                Ok(Credential { username, resource, ..plain(found(&row.slot)?) })
            }
            (Content::SsoToken { slot, expires_at }, Resource::SsoToken) => {
                Ok(Credential { expires_at: Some(*expires_at), ..plain(found(slot)?) })
            }
            (Content::Card(card), Resource::IdentityEmail) => {
                address(card.identity.email.as_deref()).map(plain)
            }
            (Content::Card(card), Resource::IdentityPhone) => {
                address(card.identity.phone.as_deref()).map(plain)
            }
            _ => Err(VaultError::Absent),
        }
    }

    /// Names of the identity's secrets, in order.
    pub async fn secret_names(self: &Arc<Self>, identity: IdentityUuid) -> Result<Vec<SecretKey>> {
        match &self.entry(Key::SecretNames(identity)).await?.content {
            Content::SecretNames(names) => Ok(names.clone()),
            _ => Err(VaultError::Absent),
        }
    }

    /// Names of the identity's passwords, in order.
    pub async fn password_names(self: &Arc<Self>, identity: IdentityUuid) -> Result<Vec<PasswordName>> {
        match &self.entry(Key::Passwords(identity)).await?.content {
            Content::Passwords(rows) => Ok(rows.iter().map(|row| row.name.clone()).collect()),
            _ => Err(VaultError::Absent),
        }
    }

    /// The identity itself.
    pub async fn card(self: &Arc<Self>, identity: IdentityUuid) -> Result<Card> {
        match &self.entry(Key::Card(identity)).await?.content {
            Content::Card(card) => Ok((**card).clone()),
            _ => Err(VaultError::Absent),
        }
    }

    /// Fetches a value again if it is near the end of its life, so that whoever watches a lease on it
    /// learns of a rotation. Does not wait.
    pub fn refresh_ahead(self: &Arc<Self>, identity: IdentityUuid, resource: &Resource) {
        // A sign-in token is minted for a request, never ahead of one.
        if *resource == Resource::SsoToken {
            return;
        }
        let key = key_of(identity, resource);
        let stale = self.cached(&key).is_none_or(|(_, freshness)| freshness != Freshness::Fresh);
        if stale {
            self.flights.launch(key.clone(), || self.clone().fetch(key));
        }
    }

    /// The identities for which keys were minted since the last call, for the audit trail.
    pub fn take_minted(&self) -> Vec<IdentityUuid> {
        std::mem::take(&mut *self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes of values, as they are noticed.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Drops what is expired, but for what is `watched`: it is what the next answer is compared with, or a
    /// rotation would go unnoticed. Called by the housekeeping task.
    pub fn prune(&self, watched: &[(IdentityUuid, Resource)]) {
        let kept: HashSet<Key> = watched.iter().map(|(identity, name)| key_of(*identity, name)).collect();
        let now = self.clock.now();
        self.cache.retain(|key, entry| entry.life.freshness(now) != Freshness::Expired || kept.contains(key));
    }

    /// Kill switch: forgets every value and key, and the key they were sealed under. Fetches under way
    /// are thrown away when they land.
    pub fn wipe(&self) -> std::result::Result<(), NoRandom> {
        self.epoch.fetch_or(1, Ordering::SeqCst);
        self.forget();
        self.keyring.close();
        self.arena.rekey()
    }

    /// Serves again after [`Vault::wipe`].
    pub fn reopen(&self) {
        if self.epoch.load(Ordering::SeqCst) & 1 == 1 {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.keyring.reopen();
        }
    }

    /// Drops every cached answer; the keys stay. After a login, answers of the old account must go, and
    /// those that are still under way with them.
    pub fn forget(&self) {
        self.epoch.fetch_add(2, Ordering::SeqCst);
        self.cache.clear();
        self.resolved.clear();
        self.minted.clear();
    }

    /// A fresh answer from the cache, or the one fetch of its key.
    async fn entry(self: &Arc<Self>, key: Key) -> Fetched {
        match self.cached(&key) {
            Some((entry, Freshness::Fresh)) => return Ok(entry),
            Some((entry, Freshness::RefreshAhead)) => {
                if !matches!(key, Key::SsoToken(_)) {
                    self.flights.launch(key.clone(), || self.clone().fetch(key));
                }
                return Ok(entry);
            }
            Some((_, Freshness::Expired)) | None => {}
        }
        let flight = self.flights.join(key.clone(), || self.clone().fetch(key));
        flight.await.unwrap_or(Err(VaultError::Upstream(UpstreamError::Unavailable)))
    }

    /// What a caller is told whose answer came too late.
    fn discarded(&self) -> VaultError {
        match self.epoch.load(Ordering::SeqCst) & 1 {
            1 => VaultError::Locked,
            _ => VaultError::Upstream(UpstreamError::Unavailable),
        }
    }

    fn cached(&self, key: &Key) -> Option<(Arc<Entry>, Freshness)> {
        let entry = self.cache.get(key)?.clone();
        let freshness = entry.life.freshness(self.clock.now());
        Some((entry, freshness))
    }

    /// How long an answer of this kind is served.
    fn lifetime(&self, content: &Content, now: BootInstant) -> Duration {
        match content {
            Content::Secret(None) => self.settings.absent_for,
            Content::SsoToken { expires_at, .. } => expires_at.since(now).saturating_sub(fetch::SSO_MARGIN),
            _ => self.settings.fresh_for,
        }
    }
}

fn key_of(identity: IdentityUuid, resource: &Resource) -> Key {
    match resource {
        Resource::Secret(key) => Key::Secret(identity, key.clone()),
        Resource::Password(_) => Key::Passwords(identity),
        Resource::SsoToken => Key::SsoToken(identity),
        Resource::IdentityEmail | Resource::IdentityPhone => Key::Card(identity),
    }
}

/// The row that a name means: the exact one, or the domain's only one.
fn pick<'a>(rows: &'a [Password], name: &PasswordName) -> Result<&'a Password> {
    let mut exact = rows.iter().filter(|row| row.name == *name);
    match (exact.next(), exact.next()) {
        (Some(row), None) => return Ok(row),
        (Some(_), Some(_)) => return Err(VaultError::Ambiguous),
        (None, _) if name.username.is_some() => return Err(VaultError::Absent),
        (None, _) => {}
    }
    let mut of_domain = rows.iter().filter(|row| row.name.domain == name.domain);
    match (of_domain.next(), of_domain.next()) {
        (None, _) => Err(VaultError::Absent),
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => Err(VaultError::Ambiguous),
    }
}

fn address(text: Option<&str>) -> Result<Secret> {
    text.filter(|text| !text.is_empty()).map(Secret::copy_of).ok_or(VaultError::Absent)
}
