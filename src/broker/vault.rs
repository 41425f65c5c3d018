//! The vaults and the identity: names, and changes. No verb here returns a value.

use std::future::Future;
use std::sync::Arc;

use super::error::{BrokerError, Result};
use super::{Admitted, Broker, Purpose};
use crate::policy::{Action, Grant};
use crate::secret::Secret;
use crate::types::{IdentityUuid, PasswordName, Reason, SecretKey};
use crate::vault::{self, Card, Change, Vault};

impl Broker {
    /// Names of the secrets that the session may list.
    pub async fn list_secrets(&self, admitted: &Admitted) -> Result<Vec<SecretKey>> {
        let list = |vault: Arc<Vault>, identity| async move { vault.secret_names(identity).await };
        let (grant, mut names) =
            self.perform(admitted, Action::ListSecrets, Purpose::default(), list).await?;
        names.retain(|name| grant.lists_secret(name));
        Ok(names)
    }

    /// Names of the passwords that the session may list.
    pub async fn list_passwords(&self, admitted: &Admitted) -> Result<Vec<PasswordName>> {
        let list = |vault: Arc<Vault>, identity| async move { vault.password_names(identity).await };
        let (grant, mut names) =
            self.perform(admitted, Action::ListPasswords, Purpose::default(), list).await?;
        names.retain(|name| grant.lists_password(name));
        Ok(names)
    }

    /// Who the session acts as.
    pub async fn read_identity(&self, admitted: &Admitted) -> Result<Card> {
        let read = |vault: Arc<Vault>, identity| async move { vault.card(identity).await };
        Ok(self.perform(admitted, Action::ReadIdentity, Purpose::default(), read).await?.1)
    }

    /// Creates a secret or replaces its value. True if it is new.
    pub async fn set_secret(
        &self,
        admitted: &Admitted,
        key: SecretKey,
        value: Secret,
        reason: Option<Reason>,
    ) -> Result<bool> {
        let action = Action::SetSecret(key.clone());
        let content = Some(self.fingerprint(&[value.expose()]));
        let purpose = Purpose { reason: reason.as_ref(), content };
        let set = |vault: Arc<Vault>, identity| async move { vault.set_secret(identity, &key, &value).await };
        Ok(self.perform(admitted, action, purpose, set).await?.1)
    }

    /// Deletes a secret.
    pub async fn delete_secret(
        &self,
        admitted: &Admitted,
        key: SecretKey,
        reason: Option<Reason>,
    ) -> Result<()> {
        let action = Action::DeleteSecret(key.clone());
        let delete = |vault: Arc<Vault>, identity| async move { vault.delete_secret(identity, &key).await };
        self.perform(admitted, action, Purpose::of(reason.as_ref()), delete).await.map(drop)
    }

    /// Creates a password entry with a generated password. Returns its name as Ravi stored it.
    pub async fn create_password(
        &self,
        admitted: &Admitted,
        name: PasswordName,
        length: u8,
        reason: Option<Reason>,
    ) -> Result<PasswordName> {
        let action = Action::CreatePassword(name.clone());
        let create =
            |vault: Arc<Vault>, identity| async move { vault.create_password(identity, &name, length).await };
        Ok(self.perform(admitted, action, Purpose::of(reason.as_ref()), create).await?.1)
    }

    /// Changes the password of an entry.
    pub async fn update_password(
        &self,
        admitted: &Admitted,
        name: PasswordName,
        change: Change,
        reason: Option<Reason>,
    ) -> Result<PasswordName> {
        let action = Action::UpdatePassword(name.clone());
        let content = match &change {
            Change::To(password) => Some(self.fingerprint(&[password.expose()])),
            Change::Generated(_) => None,
        };
        let purpose = Purpose { reason: reason.as_ref(), content };
        let update =
            |vault: Arc<Vault>, identity| async move { vault.update_password(identity, &name, change).await };
        Ok(self.perform(admitted, action, purpose, update).await?.1)
    }

    /// Deletes a password entry.
    pub async fn delete_password(
        &self,
        admitted: &Admitted,
        name: PasswordName,
        reason: Option<Reason>,
    ) -> Result<()> {
        let action = Action::DeletePassword(name.clone());
        let delete =
            |vault: Arc<Vault>, identity| async move { vault.delete_password(identity, &name).await };
        self.perform(admitted, action, Purpose::of(reason.as_ref()), delete).await.map(drop)
    }

    /// Policy, record, then the vault's work on the identity of the grant.
    pub(super) async fn perform<T, F>(
        &self,
        admitted: &Admitted,
        action: Action,
        purpose: Purpose<'_>,
        work: impl FnOnce(Arc<Vault>, IdentityUuid) -> F + Send,
    ) -> Result<(Grant, T)>
    where
        F: Future<Output = vault::Result<T>> + Send,
    {
        let grant = self.permit(admitted, action, purpose).await?;
        self.perform_granted(admitted, grant, purpose.reason, work).await
    }

    /// The same from where it is permitted.
    pub(super) async fn perform_granted<T, F>(
        &self,
        admitted: &Admitted,
        grant: Grant,
        reason: Option<&Reason>,
        work: impl FnOnce(Arc<Vault>, IdentityUuid) -> F + Send,
    ) -> Result<(Grant, T)>
    where
        F: Future<Output = vault::Result<T>> + Send,
    {
        self.record_performed(&admitted.session, grant.action(), reason)?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let identity = self.identity_of(&admitted.session, grant.role());
        let identity = self.while_open(&admitted.session, identity).await.inspect_err(failed)?;
        // A reload, a revocation or a lock may have come while the identity was looked up.
        let grant = self.again(admitted, &grant)?;
        self.ensure_open(&admitted.session)?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let work = async { work(self.vault.clone(), identity).await.map_err(BrokerError::from) };
        let done = match grant.action().is_change() {
            // What was sent to Ravi is waited for: its outcome has to be told.
            true => work.await,
            false => self.while_open(&admitted.session, work).await,
        };
        let done = done.inspect_err(failed)?;
        // A change that was made is told even to a session that ended meanwhile; what was read is not.
        if grant.action().is_change() {
            return Ok((grant, done));
        }
        let grant = self.again(admitted, &grant)?;
        self.still_open(&admitted.session)?;
        Ok((grant, done))
    }
}
