//! The endpoints: one short function each, and the check that its answer is about what was asked.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;

use super::call::Call;
use super::device::{Approved, NotApproved, PollBody, Started};
use super::http::{Http, Settings, parse};
use super::pins::{Address, FOREIGN, Pins};
use super::storage::Storage;
use super::tls::SettingsError;
use super::wire::{self, MALFORMED, PasswordRow, SecretRow};
use super::{
    Budget, DeviceLogin, DevicePoll, Identity, Keys, Meters, NewPassword, Owner, PasswordEntry, Result,
    SecretEntry, SsoToken, Upstream, UpstreamError,
};
use crate::clock::{BootInstant, Clock};
use crate::secret::Secret;
use crate::types::{EntryUuid, IdentityUuid, SecretKey};

/// Largest value that is sent to be stored, in bytes (docs/ravi-api.md §8.23).
const MAX_VALUE: usize = 64 * 1024;
/// Lengths that are surely within the server's own bounds, in characters (docs/ravi-api.md §8.20).
const PASSWORD_LENGTHS: RangeInclusive<u8> = 16..=64;

pub(super) const IDENTITIES: &str = "/api/identities/";
const IDENTITY: &str = "/api/identities/{id}/";
const PASSWORDS: &str = "/api/passwords/";
const PASSWORD: &str = "/api/passwords/{id}/";
const SECRETS: &str = "/api/secrets/";
const SECRET: &str = "/api/secrets/{id}/";

/// Ravi over HTTPS.
pub struct HttpUpstream {
    pub(super) http: Http,
    pub(super) storage: Storage,
    pub(super) pins: Pins,
}

impl HttpUpstream {
    /// Builds the client. Connects to nothing yet.
    pub fn new(
        settings: Settings,
        keys: Arc<dyn Keys>,
        budget: Arc<dyn Budget>,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, SettingsError> {
        let storage = Storage::new(&settings, budget.clone(), clock.clone())?;
        Ok(Self { http: Http::new(settings, keys, budget, clock)?, storage, pins: Pins::default() })
    }

    /// How its calls end and how long they take.
    pub fn meters(&self) -> Arc<Meters> {
        self.http.meters().clone()
    }
}

#[async_trait]
impl Upstream for HttpUpstream {
    fn origin(&self) -> &str {
        self.http.origin()
    }

    fn calls(&self) -> u64 {
        self.http.sent() + self.storage.sent()
    }

    async fn start_device_login(&self) -> Result<DeviceLogin> {
        let nothing = serde_json::Map::new();
        let started: Started = self.http.fetch(Call::post("/api/auth/device/").json(&nothing)).await?;
        started.try_into()
    }

    async fn poll_device_login(&self, device_code: &Secret) -> Result<DevicePoll> {
        let body = PollBody { device_code: device_code.expose(), wait: false };
        let call = Call::post("/api/auth/device/token/").json(&body).refusal_is_answer();
        let reply = self.http.run(&call, self.http.deadline()).await?;
        match reply.status {
            StatusCode::BAD_REQUEST => parse::<NotApproved>(&reply)?.try_into(),
            _ => parse::<Approved>(&reply)?.try_into(),
        }
    }

    async fn list_identities(&self) -> Result<Vec<Identity>> {
        let call = Call::get(IDENTITIES).with_management_key(None);
        let rows: Vec<wire::IdentityRow> = self.http.list(call, self.http.deadline()).await?;
        let identities: Vec<Identity> = rows.into_iter().map(Into::into).collect();
        identities.iter().for_each(|identity| self.pins.learn(identity));
        Ok(identities)
    }

    async fn read_identity(&self, identity: IdentityUuid) -> Result<Identity> {
        self.read_identity_until(identity, self.http.deadline()).await
    }

    async fn list_phones(&self, identity: IdentityUuid) -> Result<Vec<String>> {
        let end = self.http.deadline();
        let rows = self.http.list(Call::get("/api/phone/").of(identity), end).await?;
        let listed = rows.into_iter().map(|row: wire::PhoneRow| row.phone_number).collect();
        self.own_addresses(identity, Address::Phone, listed, end).await
    }

    async fn list_emails(&self, identity: IdentityUuid) -> Result<Vec<String>> {
        let end = self.http.deadline();
        let rows = self.http.list(Call::get("/api/email/").of(identity), end).await?;
        let listed = rows.into_iter().map(|row: wire::EmailRow| row.email).collect();
        self.own_addresses(identity, Address::Email, listed, end).await
    }

    async fn read_owner(&self, identity: IdentityUuid) -> Result<Owner> {
        let call = Call::get("/api/master/").with_either_key(identity);
        Ok(self.http.fetch::<wire::OwnerBody>(call).await?.into())
    }

    async fn list_passwords(&self, identity: IdentityUuid) -> Result<Vec<PasswordEntry>> {
        let call = Call::get(PASSWORDS).of(identity);
        let rows: Vec<PasswordRow> = self.http.list(call, self.http.deadline()).await?;
        self.pins.check(identity, rows.iter().map(|row| row.identity))?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn read_password(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<PasswordEntry> {
        let call = Call::get(PASSWORD).object(&entry.to_string())?.of(identity);
        self.own_password(identity, Some(entry), self.http.fetch(call).await?)
    }

    async fn create_password(&self, identity: IdentityUuid, entry: NewPassword) -> Result<PasswordEntry> {
        refuse_unstorable(&entry.password)?;
        let NewPassword { domain, username, password } = entry;
        let (domain, username) = (domain.as_str(), username.as_str());
        let body = wire::NewPasswordBody { domain, username, password: password.expose() };
        let call = Call::post(PASSWORDS).of(identity).json(&body);
        let created = self.own_password(identity, None, self.http.fetch(call).await?)?;
        if normalises_to(domain, &created.domain) { Ok(created) } else { Err(FOREIGN) }
    }

    async fn update_password(
        &self,
        identity: IdentityUuid,
        entry: EntryUuid,
        password: &Secret,
    ) -> Result<PasswordEntry> {
        refuse_unstorable(password)?;
        let body = wire::PasswordChange { password: password.expose() };
        let call = Call::patch(PASSWORD).object(&entry.to_string())?.of(identity).json(&body);
        self.own_password(identity, Some(entry), self.http.fetch(call).await?)
    }

    async fn delete_password(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<()> {
        let call = Call::delete(PASSWORD).object(&entry.to_string())?.of(identity);
        self.http.run(&call, self.http.deadline()).await.map(drop)
    }

    async fn generate_password(&self, identity: IdentityUuid, length: u8) -> Result<Secret> {
        if !PASSWORD_LENGTHS.contains(&length) {
            return Err(UpstreamError::Invalid);
        }
        let call = Call::get("/api/passwords/generate-password/").of(identity).query("length", length);
        let generated: wire::GeneratedPassword = self.http.fetch(call).await?;
        let fits = generated.password.expose().chars().count() == usize::from(length);
        if fits { Ok(generated.password) } else { Err(MALFORMED) }
    }

    async fn list_secrets(&self, identity: IdentityUuid) -> Result<Vec<SecretEntry>> {
        let rows: Vec<SecretRow> =
            self.http.list(Call::get(SECRETS).of(identity), self.http.deadline()).await?;
        self.pins.check(identity, rows.iter().map(|row| row.identity))?;
        // A row whose key no resource name can mean is left out: nobody can ask for it.
        rows.into_iter().filter_map(|row| row.key().map(|key| row.entry(key))).collect()
    }

    async fn find_secret(&self, identity: IdentityUuid, key: &SecretKey) -> Result<Option<SecretEntry>> {
        let call = Call::get(SECRETS).of(identity).query("key", key);
        let rows: Vec<SecretRow> = self.http.list(call, self.http.deadline()).await?;
        let mut rows = rows.into_iter();
        match (rows.next(), rows.next()) {
            (None, _) => Ok(None),
            (Some(row), None) => self.own_secret(identity, None, Some(key), row).map(Some),
            (Some(_), Some(_)) => Err(FOREIGN),
        }
    }

    async fn read_secret(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<SecretEntry> {
        let call = Call::get(SECRET).object(&entry.to_string())?.of(identity);
        self.own_secret(identity, Some(entry), None, self.http.fetch(call).await?)
    }

    async fn create_secret(
        &self,
        identity: IdentityUuid,
        key: &SecretKey,
        value: &Secret,
    ) -> Result<SecretEntry> {
        refuse_unstorable(value)?;
        let body = wire::NewSecretBody { key: key.as_str(), value: value.expose() };
        let call = Call::post(SECRETS).of(identity).json(&body);
        self.own_secret(identity, None, Some(key), self.http.fetch(call).await?)
    }

    async fn update_secret(
        &self,
        identity: IdentityUuid,
        entry: EntryUuid,
        value: &Secret,
    ) -> Result<SecretEntry> {
        refuse_unstorable(value)?;
        let body = wire::SecretChange { value: value.expose() };
        let call = Call::patch(SECRET).object(&entry.to_string())?.of(identity).json(&body);
        self.own_secret(identity, Some(entry), None, self.http.fetch(call).await?)
    }

    async fn delete_secret(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<()> {
        let call = Call::delete(SECRET).object(&entry.to_string())?.of(identity);
        self.http.run(&call, self.http.deadline()).await.map(drop)
    }

    async fn mint_identity_key(&self, identity: IdentityUuid, label: &str) -> Result<Secret> {
        let body = wire::MintBody { identity_uuid: identity, label };
        let call = Call::post("/api/auth/keys/identity/").with_management_key(Some(identity)).json(&body);
        let minted: wire::MintedKey = self.http.fetch(call).await?;
        if minted.identity_uuid != identity {
            return Err(FOREIGN);
        }
        wire::checked_key(minted.key, "ravi_id_")
    }

    async fn mint_sso_token(&self, identity: IdentityUuid) -> Result<SsoToken> {
        let call = Call::post("/api/sso/token/").with_identity_key(identity);
        self.http.fetch::<wire::SsoBody>(call).await?.try_into()
    }
}

impl HttpUpstream {
    pub(super) async fn read_identity_until(
        &self,
        identity: IdentityUuid,
        end: BootInstant,
    ) -> Result<Identity> {
        let call = Call::get(IDENTITY).object(&identity.to_string())?.with_management_key(Some(identity));
        let read: Identity = self.http.fetch_until::<wire::IdentityRow>(&call, end).await?.into();
        if read.uuid != identity {
            return Err(FOREIGN);
        }
        self.pins.learn(&read);
        Ok(read)
    }

    /// An address list names no identity. It is compared with the identity itself, which is read again
    /// where it is not known or may have got an address since.
    pub(super) async fn own_addresses(
        &self,
        identity: IdentityUuid,
        kind: Address,
        listed: Vec<String>,
        end: BootInstant,
    ) -> Result<Vec<String>> {
        if !self.pins.owns(identity, kind, &listed) {
            self.read_identity_until(identity, end).await?;
        }
        if self.pins.owns(identity, kind, &listed) { Ok(listed) } else { Err(FOREIGN) }
    }

    fn own_password(
        &self,
        identity: IdentityUuid,
        entry: Option<EntryUuid>,
        row: PasswordRow,
    ) -> Result<PasswordEntry> {
        if entry.is_some_and(|entry| entry != row.uuid) {
            return Err(FOREIGN);
        }
        self.pins.check(identity, [row.identity])?;
        row.try_into()
    }

    fn own_secret(
        &self,
        identity: IdentityUuid,
        entry: Option<EntryUuid>,
        key: Option<&SecretKey>,
        row: SecretRow,
    ) -> Result<SecretEntry> {
        let found = row.key().ok_or(MALFORMED)?;
        if entry.is_some_and(|entry| entry != row.uuid) || key.is_some_and(|key| *key != found) {
            return Err(FOREIGN);
        }
        self.pins.check(identity, [row.identity])?;
        row.entry(found)
    }
}

/// Refused before it is sent: too large, or of the form that is refused when it comes back.
fn refuse_unstorable(value: &Secret) -> Result<()> {
    let storable = value.len() <= MAX_VALUE && !wire::is_legacy(value.expose());
    storable.then_some(()).ok_or(UpstreamError::Invalid)
}

/// Ravi strips subdomains from the domain of a password.
fn normalises_to(asked: &str, answered: &str) -> bool {
    let (asked, answered) = (asked.to_ascii_lowercase(), answered.to_ascii_lowercase());
    let parent = asked.strip_suffix(&answered).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    parent && !answered.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_may_lose_its_subdomains_and_nothing_else() {
        assert!(normalises_to("mail.google.com", "google.com"));
        assert!(normalises_to("Google.com", "google.com"));
        for (asked, answered) in [
            ("google.com", "mail.google.com"),
            ("notgoogle.com", "google.com"),
            ("google.com", ""),
            ("a.b", "c.d"),
        ] {
            assert!(!normalises_to(asked, answered), "{asked} {answered}");
        }
    }

    #[test]
    fn a_value_that_would_not_come_back_is_not_sent() {
        assert!(refuse_unstorable(&Secret::copy_of("x")).is_ok());
        assert!(refuse_unstorable(&Secret::copy_of("e2e::x")).is_err());
        assert!(refuse_unstorable(&Secret::new("x".repeat(MAX_VALUE + 1))).is_err());
    }

    #[test]
    fn every_path_ends_in_a_slash() {
        for path in [IDENTITIES, IDENTITY, PASSWORDS, PASSWORD, SECRETS, SECRET] {
            assert!(path.starts_with("/api/") && path.ends_with('/'));
        }
    }
}
