//! A stand-in for Ravi in unit tests: every answer is at hand, and can be held back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    DeviceLogin, DevicePoll, Identity, KeyId, Keys, NewPassword, Owner, PasswordEntry, Result, SecretEntry,
    SsoToken, Upstream, UpstreamError,
};
use crate::secret::Secret;
use crate::types::{EntryUuid, IdentityUuid, SecretKey};

/// Answers every call about secrets with one value, whatever the identity and the key.
pub(crate) struct Stub {
    /// The account's identities.
    pub(crate) identities: Mutex<Vec<Identity>>,
    /// The value of every secret.
    pub(crate) value: Mutex<String>,
    /// Whether a minted identity key is accepted afterwards.
    pub(crate) accepts_identity_keys: Mutex<bool>,
    /// Whether the management key is accepted, by its text.
    pub(crate) good_key: Mutex<String>,
    /// Where a 401 is told.
    pub(crate) keys: OnceLock<Arc<dyn Keys>>,
    /// When sign-in tokens end.
    pub(crate) sso_ends_at: Mutex<jiff::Timestamp>,
    mints: AtomicUsize,
    reads: AtomicUsize,
    to_hold: AtomicUsize,
    held: watch::Sender<bool>,
    waiting: watch::Sender<bool>,
}

impl Stub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            identities: Mutex::default(),
            value: Mutex::new("one".into()),
            accepts_identity_keys: Mutex::new(true),
            good_key: Mutex::new("ravi_mgmt_good".into()),
            keys: OnceLock::new(),
            sso_ends_at: Mutex::new(jiff::Timestamp::MAX),
            mints: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            to_hold: AtomicUsize::new(0),
            held: watch::Sender::new(false),
            waiting: watch::Sender::new(false),
        })
    }

    /// Identity keys minted.
    pub(crate) fn mints(&self) -> usize {
        self.mints.load(Ordering::SeqCst)
    }

    /// Secrets read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// The next answer is made, and kept back until [`Stub::let_go`].
    pub(crate) fn hold_next(&self) {
        self.held.send_replace(true);
        self.to_hold.store(1, Ordering::SeqCst);
    }

    /// What was kept back arrives.
    pub(crate) fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Until an answer is kept back.
    pub(crate) async fn kept_back(&self) {
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting).await;
    }

    async fn arrive(&self) {
        if self.to_hold.swap(0, Ordering::SeqCst) == 1 {
            self.waiting.send_replace(true);
            let _ = self.held.subscribe().wait_for(|held| !held).await;
            self.waiting.send_replace(false);
        }
    }

    fn reject(&self, id: KeyId) -> UpstreamError {
        if let Some(keys) = self.keys.get()
            && let Some(key) = keys.open(id)
        {
            keys.reject(id, key.generation);
        }
        UpstreamError::KeyRejected
    }
}

fn row(key: &SecretKey, value: &str) -> SecretEntry {
    SecretEntry { uuid: EntryUuid(uuid::Uuid::nil()), key: key.clone(), value: Secret::copy_of(value) }
}

#[async_trait]
impl Upstream for Stub {
    fn origin(&self) -> &str {
        "https://ravi.invalid"
    }

    fn calls(&self) -> u64 {
        0
    }

    async fn start_device_login(&self) -> Result<DeviceLogin> {
        Ok(DeviceLogin {
            device_code: Secret::copy_of("device"),
            user_code: "ABCD-1234".into(),
            verification_url: "https://ravi.invalid/device".into(),
            expires_in: Duration::from_secs(900),
            interval: Duration::from_secs(5),
        })
    }

    async fn poll_device_login(&self, _: &Secret) -> Result<DevicePoll> {
        Ok(DevicePoll::Pending)
    }

    async fn list_identities(&self) -> Result<Vec<Identity>> {
        let identities = self.identities.lock().unwrap().clone();
        let good = self.good_key.lock().unwrap().clone();
        let key = self.keys.get().and_then(|keys| keys.open(KeyId::Management));
        let accepted = key.is_none_or(|key| key.value.expose() == good);
        self.arrive().await;
        if accepted { Ok(identities) } else { Err(self.reject(KeyId::Management)) }
    }

    async fn read_identity(&self, _: IdentityUuid) -> Result<Identity> {
        Err(UpstreamError::NotFound)
    }

    async fn list_phones(&self, _: IdentityUuid) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn list_emails(&self, _: IdentityUuid) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn read_owner(&self, _: IdentityUuid) -> Result<Owner> {
        Err(UpstreamError::NotFound)
    }

    async fn list_passwords(&self, _: IdentityUuid) -> Result<Vec<PasswordEntry>> {
        Ok(Vec::new())
    }

    async fn read_password(&self, _: IdentityUuid, _: EntryUuid) -> Result<PasswordEntry> {
        Err(UpstreamError::NotFound)
    }

    async fn create_password(&self, _: IdentityUuid, _: NewPassword) -> Result<PasswordEntry> {
        Err(UpstreamError::Refused)
    }

    async fn update_password(&self, _: IdentityUuid, _: EntryUuid, _: &Secret) -> Result<PasswordEntry> {
        Err(UpstreamError::Refused)
    }

    async fn delete_password(&self, _: IdentityUuid, _: EntryUuid) -> Result<()> {
        Ok(())
    }

    async fn generate_password(&self, _: IdentityUuid, _: u8) -> Result<Secret> {
        Err(UpstreamError::Refused)
    }

    async fn list_secrets(&self, _: IdentityUuid) -> Result<Vec<SecretEntry>> {
        Ok(Vec::new())
    }

    async fn find_secret(&self, _: IdentityUuid, key: &SecretKey) -> Result<Option<SecretEntry>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let value = self.value.lock().unwrap().clone();
        self.arrive().await;
        Ok(Some(row(key, &value)))
    }

    async fn read_secret(&self, _: IdentityUuid, _: EntryUuid) -> Result<SecretEntry> {
        Err(UpstreamError::NotFound)
    }

    async fn create_secret(&self, _: IdentityUuid, _: &SecretKey, _: &Secret) -> Result<SecretEntry> {
        Err(UpstreamError::Conflict)
    }

    async fn update_secret(&self, _: IdentityUuid, _: EntryUuid, value: &Secret) -> Result<SecretEntry> {
        *self.value.lock().unwrap() = value.expose().to_owned();
        Ok(row(&"KEY".parse().unwrap(), value.expose()))
    }

    async fn delete_secret(&self, _: IdentityUuid, _: EntryUuid) -> Result<()> {
        Ok(())
    }

    async fn mint_identity_key(&self, _: IdentityUuid, _: &str) -> Result<Secret> {
        let number = self.mints.fetch_add(1, Ordering::SeqCst);
        Ok(Secret::new(format!("ravi_id_{number}")))
    }

    async fn mint_sso_token(&self, identity: IdentityUuid) -> Result<SsoToken> {
        if !*self.accepts_identity_keys.lock().unwrap() {
            return Err(self.reject(KeyId::Identity(identity)));
        }
        let expires_at = *self.sso_ends_at.lock().unwrap();
        Ok(SsoToken { token: Secret::copy_of("rvt_token"), expires_at })
    }
}
