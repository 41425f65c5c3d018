//! What the client takes and returns: plain types, without the wire's optional fields. Text that comes
//! from the daemon is for people; handles are parsed.

use std::time::Duration;

use jiff::Timestamp;

use super::dispatch::DispatchBacklog;
use super::model_messages::SendBudget;
use crate::secret::Secret;
pub use crate::types::Delivery;
use crate::types::{DenialId, IdentityUuid, LeaseId, SessionId};

/// A session of the calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Public handle; safe to log.
    pub session_id: SessionId,
    /// The role that was assumed.
    pub role: String,
    /// The Ravi identity behind the role, as the configuration names it.
    pub identity: String,
    /// The effective scopes.
    pub scopes: Vec<String>,
    /// Wall-clock end, for people.
    pub expires_at: Timestamp,
    /// What the broker enforces, counted from the answer.
    pub expires_in: Duration,
    /// Which processes may use it.
    pub binding: Binding,
    /// The session that it was delegated from.
    pub parent_session_id: Option<SessionId>,
}

/// Which processes may present a session's token. The anchor is the process that it lives and dies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The anchor alone.
    Process,
    /// The anchor and its descendants.
    Subtree,
    /// The processes of the anchor's cgroup and of those below it.
    Cgroup,
}

/// How to open a session. `OpenSession::role` fills in the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Name of a role of the daemon's configuration.
    pub role: String,
    /// Fewer rights than the role has; empty: all of the role's.
    pub scopes: Vec<String>,
    /// Absent: the role's; longer ones are cut.
    pub ttl: Option<Duration>,
    /// For the audit trail, at most 256 characters.
    pub reason: String,
    /// Which process the session is bound to.
    pub anchor: Anchor,
}

impl OpenSession {
    /// All of a role's rights for as long as the role allows, bound to the caller.
    pub fn role(role: impl Into<String>) -> Self {
        let role = role.into();
        Self { role, scopes: Vec::new(), ttl: None, reason: String::new(), anchor: Anchor::Caller }
    }
}

/// Which process a session lives and dies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The calling process and what it starts.
    Caller,
    /// The caller's parent and what that starts: for a command that ends while its shell goes on.
    Parent,
}

/// How to open a session below one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelegateSession {
    /// At most the session's own; empty: all of them.
    pub scopes: Vec<String>,
    /// Absent: as long as the session itself.
    pub ttl: Option<Duration>,
    /// For the audit trail, at most 256 characters.
    pub reason: String,
    /// The process that the child is bound to. Absent: bound as the session itself is.
    pub pid: Option<u32>,
}

/// A session, and what is left of its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    /// The session.
    pub session: Session,
    /// Rate limits of its role, and its own where the role sets them.
    pub limits: Vec<LimitInfo>,
    /// Leases alive now.
    pub live_leases: u32,
    /// How many may be alive at once.
    pub max_live_leases: u32,
}

/// One rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitInfo {
    /// "read" or "send" of the role, "session_read" or "session_send" of the session.
    pub name: String,
    /// As configured, for example "60/min".
    pub rate: String,
    /// Requests that would be let through at once.
    pub remaining: u32,
    /// Until the limit is whole again.
    pub resets_in: Duration,
}

/// Time-bounded access to one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Public handle; safe to log.
    pub lease_id: LeaseId,
    /// Canonical form of the resource name.
    pub resource: String,
    /// Wall-clock end, for people.
    pub expires_at: Timestamp,
    /// What the broker enforces, counted from the answer.
    pub expires_in: Duration,
    /// How far a renewal can reach from now.
    pub renewable_for: Duration,
    /// True where the end of the lease really ends access.
    pub revocable: bool,
    /// How often the value was handed out under this lease.
    pub uses: u64,
    /// How the value is delivered.
    pub delivery: Delivery,
}

/// The value of a credential. Has no `Debug` and no `Clone` (invariant I6).
pub struct Credential {
    /// The secret, password, token, address or number.
    pub value: Secret,
    /// The account name, for passwords that have one.
    pub username: Option<String>,
}

/// What happened to a lease of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The value changed upstream; reading the lease returns the new one.
    Rotated(LeaseHandle),
    /// A tenth of the lease's life, at least a second, is left.
    Expiring(LeaseHandle),
    /// It ran out.
    Expired(LeaseHandle),
    /// Ended by the operator or with the session.
    Revoked(LeaseHandle),
    /// Events were dropped because the reader was slow: list the leases.
    Missed,
}

/// Names a lease in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHandle {
    /// The lease.
    pub lease_id: LeaseId,
    /// What it is for.
    pub resource: String,
}

/// Name of a password entry; holds no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordName {
    /// For `acquire`, for example `password/github.com/alice`.
    pub resource: String,
    /// The site.
    pub domain: String,
    /// The account name; may be empty.
    pub username: String,
}

/// Name of a secret; holds no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// For `acquire`, for example `secret/OPENAI_API_KEY`.
    pub resource: String,
    /// The key.
    pub key: String,
}

/// A password entry to be made, with a generated password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePassword {
    /// The site.
    pub domain: String,
    /// The account name.
    pub username: String,
    /// Length of the password, 16 to 64. Absent: 24.
    pub length: Option<u32>,
    /// For the audit trail, at most 256 characters.
    pub reason: String,
}

/// A change of a password entry.
pub struct UpdatePassword {
    /// Which entry, for example `password/github.com/alice`.
    pub resource: String,
    /// The new password. Absent: one is generated.
    pub password: Option<Secret>,
    /// Length of a generated password, 16 to 64. Absent: 24.
    pub length: Option<u32>,
    /// For the audit trail, at most 256 characters.
    pub reason: String,
}

/// The Ravi identity behind the session's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As Ravi gave it.
    pub uuid: String,
    /// As Ravi gave it.
    pub name: String,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number in E.164 form.
    pub phone: Option<String>,
    /// The account's owner; may be empty.
    pub owner_first_name: String,
    /// The account's owner; may be empty.
    pub owner_last_name: String,
    /// What it may still send by mail today; absent where it was not asked for.
    pub email_budget: Option<SendBudget>,
    /// The same for text messages.
    pub sms_budget: Option<SendBudget>,
}

/// The daemon as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// True while the operator has locked it.
    pub locked: bool,
    /// Where upstream calls go.
    pub upstream_url: String,
    /// Whether the management key is held.
    pub management_key_held: bool,
    /// How many identity keys are held.
    pub identity_keys_held: u32,
    /// Live sessions.
    pub sessions: u32,
    /// Live leases.
    pub leases: u32,
    /// Open connections.
    pub connections: u32,
    /// Since the start.
    pub requests_served: u64,
    /// Since the start.
    pub requests_denied: u64,
    /// HTTP requests to Ravi since the start.
    pub upstream_calls: u64,
    /// The newest audit record.
    pub audit_head: AuditHead,
    /// The configuration that is in force.
    pub config_path: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// How far each protection reached on this host.
    pub protections: Vec<Protection>,
    /// What callbacks are still to be told.
    pub dispatches: DispatchBacklog,
    /// Requests that wait for the operator.
    pub approvals: u32,
    /// What may be sent to Ravi.
    pub upstream_budget: UpstreamBudget,
}

/// The bound on HTTP requests to Ravi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamBudget {
    /// So many.
    pub calls: u32,
    /// In so long.
    pub per: Duration,
    /// Would be let through now.
    pub left: u32,
}

/// The newest audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Its number; 0: none.
    pub sequence: u64,
    /// SHA-256 in hexadecimal.
    pub hash: String,
    /// False after a failed write: nothing is released.
    pub healthy: bool,
}

/// How far one protection reached on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// For example "secrets at rest".
    pub name: String,
    /// What was reached, for example "on" or "off".
    pub tier: String,
    /// False where the host did not offer the best tier.
    pub full: bool,
}

/// A session as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Public handle.
    pub session_id: SessionId,
    /// Its role.
    pub role: String,
    /// The identity behind the role.
    pub identity: String,
    /// User of the process that opened it, by the kernel's word.
    pub uid: u32,
    /// The process that it is bound to, by the kernel's word.
    pub pid: i32,
    /// What the opener ran, by the kernel's word; may be empty.
    pub executable: String,
    /// Live leases.
    pub leases: u32,
    /// Since it was opened.
    pub age: Duration,
    /// Until it ends.
    pub expires_in: Duration,
    /// The caller's word.
    pub reason: String,
    /// The session that it was delegated from.
    pub parent_session_id: Option<SessionId>,
    /// Whose token works, in words: "subtree of 4242".
    pub binding: String,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// As the caller was told it.
    pub denial_id: DenialId,
    /// When.
    pub denied_at: Timestamp,
    /// The rule that refused, as in the audit trail: `scope_missing`.
    pub rule: String,
    /// What was asked for; empty if it was not known.
    pub asked: String,
    /// The caller's session, if it had one.
    pub session_id: Option<SessionId>,
    /// Its role, or the one that it asked for; may be empty.
    pub role: String,
    /// User of the caller, by the kernel's word.
    pub uid: u32,
    /// Process of the caller, by the kernel's word; 0 if it is not known.
    pub pid: i32,
    /// What the caller ran, by the kernel's word; may be empty.
    pub executable: String,
    /// How surely the process was known.
    pub tier: String,
    /// What was held against what, a line for each selector.
    pub selectors: Vec<String>,
}

/// A lease as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Public handle.
    pub lease_id: LeaseId,
    /// Whose it is.
    pub session_id: SessionId,
    /// Its session's role.
    pub role: String,
    /// What it is for.
    pub resource: String,
    /// Until it ends.
    pub expires_in: Duration,
    /// True where the end of the lease really ends access.
    pub revocable: bool,
    /// How often the value was handed out.
    pub uses: u64,
}

/// Whose access ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeTarget {
    /// One lease.
    Lease(LeaseId),
    /// One session and its leases.
    Session(SessionId),
    /// All sessions of a role.
    Role(String),
    /// Everything.
    All,
}

/// What a revocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Sessions that ended.
    pub sessions: u32,
    /// Leases that ended.
    pub leases: u32,
    /// Static values that those leases had shown: rotate these.
    pub exposed_resources: Vec<String>,
}

/// What a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Sessions that ended.
    pub sessions: u32,
    /// Leases that ended.
    pub leases: u32,
}

/// The daemon serves again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// False: log in, the daemon has no key that it could read again.
    pub management_key_held: bool,
}

/// The configuration was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Roles in force now.
    pub roles: Vec<String>,
    /// Sessions whose role is gone or no longer matches.
    pub sessions_ended: u32,
}

/// Progress of a device-code login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginEvent {
    /// Show both to a person.
    Prompt {
        /// Page to open.
        verification_url: String,
        /// Code to compare.
        user_code: String,
        /// Until the code is worthless.
        expires_in: Duration,
    },
    /// The daemon holds the key.
    Done(KeysHeld),
}

/// The daemon took over keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysHeld {
    /// Names of the account's identities.
    pub identities: Vec<String>,
    /// True if the management key was also written to the configured key file.
    pub persisted: bool,
}

/// Keys that the operator holds.
#[derive(Default)]
pub struct ImportKeys {
    /// `ravi_mgmt_…`.
    pub management_key: Option<Secret>,
    /// `ravi_id_…`, and the identity that it belongs to.
    pub identity_key: Option<(IdentityUuid, Secret)>,
}
