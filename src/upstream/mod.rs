//! Ravi's HTTP API, as the rest of the broker sees it: the only outbound network.
//!
//! Every call is made for one identity and every answer is checked to be about that identity.
//! Text from upstream never leaves this layer: errors are the closed enum [`UpstreamError`].
//! May import layer 0.
//!
//! A call is read in this order: `api` (which endpoint, whose key, whose answer) → `call` → `http` (budget,
//! deadline, attempts, status) → `exchange` (one connection) → `wire` (JSON) → `pins` (is it ours).
//! `messages` is to [`Mailbox`] what `api` is to [`Upstream`]; `storage` takes attachments, and has no keys.

mod api;
mod call;
mod device;
mod elide;
mod exchange;
mod http;
mod mailbox;
mod messages;
mod meters;
mod paths;
mod pins;
mod resolve;
mod retry;
mod storage;
#[cfg(test)]
pub(crate) mod stub;
mod tls;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use thiserror::Error;

use crate::secret::Secret;
use crate::types::{EntryUuid, IdentityUuid, SecretKey};

pub use api::HttpUpstream;
pub use http::Settings;
pub use mailbox::{
    Answering, Attachment, Contact, ContactAddress, Direction, Draft, Mail, Mailbox, NewAttachment, Sent,
    Text,
};
pub use messages::{FileFault, MAX_FILE_BYTES, check_file};
pub use meters::Meters;
#[cfg(feature = "otlp")]
pub use tls::collector_tls;
pub use tls::{SettingsError, public_tls};

/// Result of an upstream call.
pub type Result<T> = std::result::Result<T, UpstreamError>;

/// The operations of Ravi that the broker uses. One method per endpoint; the endpoint is named.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Scheme, host and port that calls go to.
    fn origin(&self) -> &str;

    /// HTTP requests sent since the start, retries included.
    fn calls(&self) -> u64;

    /// `POST /api/auth/device/`, without a key.
    async fn start_device_login(&self) -> Result<DeviceLogin>;

    /// `POST /api/auth/device/token/`, without a key.
    async fn poll_device_login(&self, device_code: &Secret) -> Result<DevicePoll>;

    /// `GET /api/identities/`, with the management key.
    async fn list_identities(&self) -> Result<Vec<Identity>>;

    /// `GET /api/identities/{uuid}/`.
    async fn read_identity(&self, identity: IdentityUuid) -> Result<Identity>;

    /// `GET /api/phone/`: numbers in E.164 form.
    async fn list_phones(&self, identity: IdentityUuid) -> Result<Vec<String>>;

    /// `GET /api/email/`: mail addresses.
    async fn list_emails(&self, identity: IdentityUuid) -> Result<Vec<String>>;

    /// `GET /api/master/`: the account's owner.
    async fn read_owner(&self, identity: IdentityUuid) -> Result<Owner>;

    /// `GET /api/passwords/`, values included: Ravi offers no other list.
    async fn list_passwords(&self, identity: IdentityUuid) -> Result<Vec<PasswordEntry>>;

    /// `GET /api/passwords/{uuid}/`.
    async fn read_password(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<PasswordEntry>;

    /// `POST /api/passwords/`. Never retried.
    async fn create_password(&self, identity: IdentityUuid, entry: NewPassword) -> Result<PasswordEntry>;

    /// `PATCH /api/passwords/{uuid}/`, the password alone. Never retried.
    async fn update_password(
        &self,
        identity: IdentityUuid,
        entry: EntryUuid,
        password: &Secret,
    ) -> Result<PasswordEntry>;

    /// `DELETE /api/passwords/{uuid}/`. Never retried.
    async fn delete_password(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<()>;

    /// `GET /api/passwords/generate-password/`. `length` is 16 to 64.
    async fn generate_password(&self, identity: IdentityUuid, length: u8) -> Result<Secret>;

    /// `GET /api/secrets/`, values included: Ravi offers no other list.
    async fn list_secrets(&self, identity: IdentityUuid) -> Result<Vec<SecretEntry>>;

    /// `GET /api/secrets/?key=KEY`. `None`: there is none.
    async fn find_secret(&self, identity: IdentityUuid, key: &SecretKey) -> Result<Option<SecretEntry>>;

    /// `GET /api/secrets/{uuid}/`.
    async fn read_secret(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<SecretEntry>;

    /// `POST /api/secrets/`. Never retried.
    async fn create_secret(
        &self,
        identity: IdentityUuid,
        key: &SecretKey,
        value: &Secret,
    ) -> Result<SecretEntry>;

    /// `PATCH /api/secrets/{uuid}/`, the value alone. Never retried.
    async fn update_secret(
        &self,
        identity: IdentityUuid,
        entry: EntryUuid,
        value: &Secret,
    ) -> Result<SecretEntry>;

    /// `DELETE /api/secrets/{uuid}/`. Never retried.
    async fn delete_secret(&self, identity: IdentityUuid, entry: EntryUuid) -> Result<()>;

    /// `POST /api/auth/keys/identity/`, with the management key. Never retried: Ravi documents no
    /// way to take a minted key back.
    async fn mint_identity_key(&self, identity: IdentityUuid, label: &str) -> Result<Secret>;

    /// `POST /api/sso/token/`, with the identity key alone. Never retried.
    async fn mint_sso_token(&self, identity: IdentityUuid) -> Result<SsoToken>;
}

/// A device-code login under way (RFC 8628).
pub struct DeviceLogin {
    /// Proves that the poller is the one who started; secret.
    pub device_code: Secret,
    /// For the person to compare, for example `ABCD-1234`.
    pub user_code: String,
    /// Page for the person to open, the code included.
    pub verification_url: String,
    /// From now until the codes are worthless.
    pub expires_in: Duration,
    /// Least time between two polls.
    pub interval: Duration,
}

/// What a poll of a device-code login said.
pub enum DevicePoll {
    /// Not approved yet.
    Pending,
    /// Not approved yet, and polled too fast: add five seconds to the interval.
    SlowDown,
    /// The person said no.
    Denied,
    /// The codes ran out.
    Expired,
    /// Approved.
    Approved {
        /// `ravi_mgmt_…`.
        management_key: Secret,
        /// The identities of the account.
        identities: Vec<Identity>,
    },
}

/// A Ravi persona.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `Identity.uuid`.
    pub uuid: IdentityUuid,
    /// `Identity.name`, as the server gave it, control characters removed.
    pub name: String,
    /// `Identity.inbox`.
    pub email: Option<String>,
    /// `Identity.phone`, E.164.
    pub phone: Option<String>,
}

/// The person who owns the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// May be empty.
    pub first_name: String,
    /// May be empty.
    pub last_name: String,
}

/// A row of the password vault.
pub struct PasswordEntry {
    /// `PasswordEntry.uuid`.
    pub uuid: EntryUuid,
    /// As the server normalised it.
    pub domain: String,
    /// May be empty.
    pub username: String,
    /// The value.
    pub password: Secret,
}

/// A password to be stored.
pub struct NewPassword {
    /// Host name.
    pub domain: String,
    /// May be empty.
    pub username: String,
    /// The value.
    pub password: Secret,
}

/// A row of the secret vault.
pub struct SecretEntry {
    /// `SecretEntry.uuid`.
    pub uuid: EntryUuid,
    /// Canonical key.
    pub key: SecretKey,
    /// The value.
    pub value: Secret,
}

/// A sign-in token (`rvt_…`), reusable until it expires.
pub struct SsoToken {
    /// The value.
    pub token: Secret,
    /// `expires_at` of the answer.
    pub expires_at: Timestamp,
}

/// Why an upstream call failed. Says what to do, quotes nothing of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpstreamError {
    /// No key of the needed kind is held: log in.
    #[error("no key is held for this call")]
    NoKey,
    /// 401: the key is no longer good and is not used any more: log in again.
    #[error("Ravi does not accept the key")]
    KeyRejected,
    /// 403: the key may not do this.
    #[error("Ravi refused the call")]
    Refused,
    /// 404: no such object for this identity.
    #[error("no such object")]
    NotFound,
    /// 402: the account's plan does not cover this.
    #[error("Ravi asks for a paid plan for this")]
    PlanRequired,
    /// 409: it exists already.
    #[error("it exists already")]
    Conflict,
    /// 400 and other 4xx: the server did not accept the values.
    #[error("Ravi did not accept the values")]
    Invalid,
    /// 429: wait.
    #[error("Ravi throttles the account")]
    Throttled {
        /// `retry_after_seconds`, else `Retry-After`, else a guess.
        retry_after: Duration,
    },
    /// Our own budget of upstream calls is used up: wait.
    #[error("the budget of upstream calls is used up")]
    BudgetReached {
        /// Until the next call fits.
        retry_after: Duration,
    },
    /// Not reached, no answer in time, or 5xx; nothing was changed. May be tried again later.
    #[error("Ravi cannot be reached or does not answer")]
    Unavailable,
    /// A write was sent and its answer is lost or 5xx: it may have taken effect.
    #[error("a write was sent and its outcome is unknown")]
    OutcomeUnknown,
    /// The answer was discarded.
    #[error("Ravi's answer was discarded: {0}")]
    Answer(AnswerFault),
}

/// What was wrong with a discarded answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnswerFault {
    /// Not the JSON that the endpoint is documented to return (HTML, empty, truncated, wrong type).
    #[error("not the documented form")]
    Malformed,
    /// Larger than 1 MiB, or 4 MiB where messages are asked for.
    #[error("too large")]
    TooLarge,
    /// About another identity or another object than asked for.
    #[error("about another identity or object")]
    Foreign,
    /// A redirect; the key is not carried anywhere.
    #[error("a redirect")]
    Redirect,
    /// A value of Ravi's retired end-to-end encryption (`e2e::…`).
    #[error("encrypted in a retired form")]
    LegacyEncrypted,
}

/// Which key a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyId {
    /// `ravi_mgmt_…`: the whole account. Never used where an agent steers beyond its identity.
    Management,
    /// `ravi_id_…`: fenced to one identity.
    Identity(IdentityUuid),
}

/// A key taken out for one request.
pub struct OpenKey {
    /// The key.
    pub value: Secret,
    /// Counts replacements, so that a late 401 does not condemn the successor.
    pub generation: u64,
}

/// Where the client gets its keys from, for the moment of one request.
pub trait Keys: Send + Sync + 'static {
    /// The key, or `None` if it is not held or was rejected.
    fn open(&self, id: KeyId) -> Option<OpenKey>;

    /// Ravi answered 401: stops the use of that key.
    fn reject(&self, id: KeyId, generation: u64);
}

/// Bounds the calls that leave the machine.
pub trait Budget: Send + Sync + 'static {
    /// Takes one call out of the budget, or says how long until one fits. `identity` is `None` for
    /// calls of the operator.
    fn take(&self, identity: Option<IdentityUuid>) -> std::result::Result<(), Duration>;
}
