//! Login: how the management key comes in. The daemon runs the device-code flow itself, so the key
//! passes through no other program.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Broker;
use super::error::{BrokerError, Result};
use crate::audit::Verb;
use crate::clock::BootInstant;
use crate::secret::Secret;
use crate::types::IdentityUuid;
use crate::upstream::{DeviceLogin, DevicePoll, Identity, KeyId, UpstreamError};
use crate::vault::keyfile;

/// A login is given up after this, whatever the server says.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// The interval lies between two polls; before the first there is none to keep.
const FIRST_POLL: Duration = Duration::from_secs(1);
/// RFC 8628 §3.5: what `slow_down` adds to the interval.
const SLOWER: Duration = Duration::from_secs(5);

/// Progress of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginEvent {
    /// Show these to a person.
    Prompt {
        /// Page to open.
        verification_url: String,
        /// Code to compare.
        user_code: String,
        /// Until it is worthless.
        expires_in: Duration,
    },
    /// The key is held.
    Done(LoginDone),
}

/// The end of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginDone {
    /// Names of the account's identities.
    pub identities: Vec<String>,
    /// Whether the key was also written to the configured file.
    pub persisted: bool,
}

/// Where a login tells its progress. A receiver that is dropped ends the login.
pub type LoginProgress = mpsc::Sender<LoginEvent>;

impl Broker {
    /// Runs one device-code login; a second one at the same time is refused.
    pub async fn login(self: Arc<Self>, progress: LoginProgress) -> Result<()> {
        let _alone = self.login.try_lock().map_err(|_| BrokerError::Capacity("logins at once"))?;
        self.gate.check()?;
        tokio::select! {
            outcome = self.sign_in(&progress) => outcome,
            () = self.stopping.cancelled() => Err(BrokerError::Draining),
        }
    }

    async fn sign_in(&self, progress: &LoginProgress) -> Result<()> {
        let login = self.upstream.start_device_login().await?;
        let prompt = LoginEvent::Prompt {
            verification_url: login.verification_url.clone(),
            user_code: login.user_code.clone(),
            expires_in: login.expires_in,
        };
        if progress.send(prompt).await.is_err() {
            return Ok(());
        }
        let done = tokio::select! {
            approved = self.await_approval(&login) => {
                let (key, identities) = approved?;
                self.take_management_key(&key, &identities)?
            }
            () = progress.closed() => return Ok(()),
            () = self.stopping.cancelled() => return Err(BrokerError::Draining),
        };
        let _ = progress.send(LoginEvent::Done(done)).await;
        Ok(())
    }

    /// Takes over keys that the operator holds. The management key is tried before it is kept. Not while a
    /// login or another import is under way: of two keys on trial, one would be put back over the other.
    pub async fn import_keys(
        &self,
        management: Option<Secret>,
        identity: Option<(IdentityUuid, Secret)>,
    ) -> Result<LoginDone> {
        let _alone = self.login.try_lock().map_err(|_| BrokerError::Capacity("logins at once"))?;
        self.gate.check()?;
        let wrong = |field, problem| BrokerError::Argument { field, problem };
        if management.as_ref().is_some_and(|key| !keyfile::is_management_key(key)) {
            return Err(wrong("management_key", "a management key begins with ravi_mgmt_"));
        }
        if identity.as_ref().is_some_and(|(_, key)| !keyfile::is_identity_key(key)) {
            return Err(wrong("identity_key", "an identity key begins with ravi_id_"));
        }
        if management.is_none() && identity.is_none() {
            return Err(wrong("management_key", "no key was given"));
        }
        self.record_admin(Verb::AdminImport, None)?;
        let done = match management {
            Some(key) => self.try_management_key(&key).await?,
            None => LoginDone { identities: Vec::new(), persisted: false },
        };
        match identity {
            Some((uuid, key)) if !self.vault.keyring().insert(KeyId::Identity(uuid), &key) => {
                Err(BrokerError::Locked)
            }
            _ => Ok(done),
        }
    }

    async fn try_management_key(&self, key: &Secret) -> Result<LoginDone> {
        let keyring = self.vault.keyring();
        let before = keyring.replace(KeyId::Management, key).ok_or(BrokerError::Locked)?;
        match self.upstream.list_identities().await {
            Ok(identities) => self.take_management_key(key, &identities),
            Err(error) => {
                keyring.restore(KeyId::Management, before);
                Err(error.into())
            }
        }
    }

    async fn await_approval(&self, login: &DeviceLogin) -> Result<(Secret, Vec<Identity>)> {
        let deadline = self.clock.now() + login.expires_in.min(LONGEST);
        let mut interval = login.interval;
        self.pause(interval.min(FIRST_POLL), deadline).await?;
        loop {
            match self.upstream.poll_device_login(&login.device_code).await {
                Ok(DevicePoll::Approved { management_key, identities }) => {
                    return Ok((management_key, identities));
                }
                // A poll whose answer was lost changes nothing: ask again.
                Ok(DevicePoll::Pending) | Err(UpstreamError::Unavailable | UpstreamError::OutcomeUnknown) => {
                }
                Ok(DevicePoll::SlowDown) => interval += SLOWER,
                Ok(DevicePoll::Denied) => return Err(BrokerError::Upstream(UpstreamError::Refused)),
                Ok(DevicePoll::Expired) => return Err(expired()),
                Err(error) => return Err(error.into()),
            }
            self.pause(interval, deadline).await?;
        }
    }

    async fn pause(&self, interval: Duration, deadline: BootInstant) -> Result<()> {
        let next = self.clock.now() + interval;
        if next >= deadline {
            return Err(expired());
        }
        self.clock.sleep_until(next).await;
        Ok(())
    }

    fn take_management_key(&self, key: &Secret, identities: &[Identity]) -> Result<LoginDone> {
        self.gate.check()?;
        self.record_admin(Verb::AdminLogin, None)?;
        if !self.vault.keyring().insert(KeyId::Management, key) {
            return Err(BrokerError::Locked);
        }
        self.logged_out.store(false, Ordering::Relaxed);
        // Answers and keys of another account must not outlive it.
        self.vault.keyring().retain_identities(|held| identities.iter().any(|own| own.uuid == held));
        self.vault.forget();
        let persisted = self.keys.store(key).map_err(|_| BrokerError::Argument {
            field: "upstream.management_key_file",
            problem: "the key is held, but the file cannot be written: check its directory and rights",
        })?;
        let identities = identities.iter().map(|identity| identity.name.clone()).collect();
        Ok(LoginDone { identities, persisted })
    }
}

/// Nobody approved in time.
fn expired() -> BrokerError {
    BrokerError::Argument { field: "login", problem: "nobody approved it in time; start again" }
}
