//! The form of the tools' results. The two that carry a value borrow it and have no `Debug` and no
//! `Clone`; they are serialised once, into the result that was asked for.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::client::{Identity, Lease, LimitInfo, PasswordName, SecretName, SessionDescription};

/// A password.
#[derive(Serialize, JsonSchema)]
pub(super) struct PasswordOutput<'a> {
    /// The account name, if the entry has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(super) username: Option<&'a str>,
    /// The password.
    pub(super) password: &'a str,
    /// The lease that it was released under.
    pub(super) lease: LeaseOutput,
}

/// A secret.
#[derive(Serialize, JsonSchema)]
pub(super) struct SecretOutput<'a> {
    /// The value.
    pub(super) value: &'a str,
    /// The lease that it was released under.
    pub(super) lease: LeaseOutput,
}

/// What stands in the operator's records; the lease itself is over once the value has been read.
#[derive(Serialize, JsonSchema)]
pub(super) struct LeaseOutput {
    /// Handle, for the operator.
    lease_id: String,
    /// What it was for.
    resource: String,
}

impl From<Lease> for LeaseOutput {
    fn from(lease: Lease) -> Self {
        Self { lease_id: lease.lease_id.to_string(), resource: lease.resource }
    }
}

/// Names of passwords.
#[derive(Serialize, JsonSchema)]
pub(super) struct PasswordList {
    /// One for each entry; a site may have several.
    passwords: Vec<PasswordEntry>,
}

#[derive(Serialize, JsonSchema)]
struct PasswordEntry {
    /// The site, for passwords_get.
    domain: String,
    /// The account name; may be empty.
    username: String,
}

impl From<Vec<PasswordName>> for PasswordList {
    fn from(names: Vec<PasswordName>) -> Self {
        let entry = |name: PasswordName| PasswordEntry { domain: name.domain, username: name.username };
        Self { passwords: names.into_iter().map(entry).collect() }
    }
}

/// Keys of secrets.
#[derive(Serialize, JsonSchema)]
pub(super) struct SecretList {
    /// One for each secret.
    secrets: Vec<SecretEntry>,
}

#[derive(Serialize, JsonSchema)]
struct SecretEntry {
    /// The key, for secrets_get.
    key: String,
}

impl From<Vec<SecretName>> for SecretList {
    fn from(names: Vec<SecretName>) -> Self {
        Self { secrets: names.into_iter().map(|name| SecretEntry { key: name.key }).collect() }
    }
}

/// The identity.
#[derive(Serialize, JsonSchema)]
pub(super) struct IdentityOutput {
    /// Ravi's handle of the identity.
    uuid: String,
    /// Your name as Ravi knows it.
    name: String,
    /// Your mail address, if you have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    email: Option<String>,
    /// Your phone number, if you have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    phone: Option<String>,
    /// First name of the person who owns the account; not you.
    owner_first_name: String,
    /// Last name of the same person.
    owner_last_name: String,
}

impl From<Identity> for IdentityOutput {
    fn from(identity: Identity) -> Self {
        let Identity { uuid, name, email, phone, owner_first_name, owner_last_name, .. } = identity;
        Self { uuid, name, email, phone, owner_first_name, owner_last_name }
    }
}

/// The session and its limits.
#[derive(Serialize, JsonSchema)]
pub(super) struct Whoami {
    /// Your entry in the operator's configuration.
    role: String,
    /// The Ravi identity that you act as.
    identity: String,
    /// What you may do, for example secret:read:OPENAI_*.
    scopes: Vec<String>,
    /// Handle of this session, for the operator.
    session_id: String,
    /// When this session ends; another is opened by itself.
    expires_at: String,
    /// How often you may call.
    limits: Vec<LimitOutput>,
    /// Leases alive now.
    #[schemars(schema_with = "count")]
    live_leases: u32,
    /// How many may be alive at once.
    #[schemars(schema_with = "count")]
    max_live_leases: u32,
}

#[derive(Serialize, JsonSchema)]
struct LimitOutput {
    /// "read" or "send" of your role, "session_read" or "session_send" of this session alone.
    name: String,
    /// For example 60/min.
    rate: String,
    /// Calls that would be let through at once.
    #[schemars(schema_with = "count")]
    remaining: u32,
    /// Until the limit is whole again.
    #[schemars(schema_with = "count")]
    resets_in_seconds: u64,
}

impl From<SessionDescription> for Whoami {
    fn from(description: SessionDescription) -> Self {
        let limit = |limit: LimitInfo| LimitOutput {
            name: limit.name,
            rate: limit.rate,
            remaining: limit.remaining,
            resets_in_seconds: limit.resets_in.as_secs(),
        };
        let session = description.session;
        Self {
            role: session.role,
            identity: session.identity,
            scopes: session.scopes,
            session_id: session.session_id.to_string(),
            expires_at: session.expires_at.to_string(),
            limits: description.limits.into_iter().map(limit).collect(),
            live_leases: description.live_leases,
            max_live_leases: description.max_live_leases,
        }
    }
}

/// Without the `format` that the derived schema adds: JSON Schema knows none for integers, and hosts
/// complain about it.
fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0 })
}
