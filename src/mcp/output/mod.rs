//! The form of the tools' results. Those that carry a value borrow it and have no `Debug` and no
//! `Clone`; they are serialised once, into the result that was asked for.

mod messages;

use schemars::JsonSchema;
use serde::Serialize;

pub(super) use messages::{MessageEntry, MessagesOutput, SentOutput, WaitOutput};

use super::tools::count;
use crate::client::{Identity, Lease, LimitInfo, PasswordName, SecretName, SessionDescription};
use crate::types::Resource;

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

/// A sign-in token.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenOutput<'a> {
    /// The token.
    pub(super) token: &'a str,
    /// When it is worth nothing any more.
    pub(super) expires_at: String,
    /// The lease that it was released under.
    pub(super) lease: LeaseOutput,
}

/// What may be used and not shown. There is no place for a value.
#[derive(Serialize, JsonSchema)]
pub(super) struct ReferenceOutput {
    /// What stands for the value, for example ravi://secret/OPENAI_API_KEY.
    reference: String,
    /// How a program gets the value by it.
    how_to_use: String,
}

impl ReferenceOutput {
    pub(super) fn new(resource: &Resource, role: Option<&str>) -> Self {
        let reference = format!("ravi://{resource}");
        let role = role.unwrap_or("ROLE");
        let how_to_use = format!(
            "You may use this value and not see it. Run the program that needs it with: ravi-broker run --role \
             {role} --file VALUE_FILE={reference} -- PROGRAM. It finds the path of a file that holds the value \
             in $VALUE_FILE. Do not have it print the value."
        );
        Self { reference, how_to_use }
    }
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

/// A password entry that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedPassword {
    /// The site as Ravi keeps it, which may be shorter than what you gave.
    domain: String,
    /// The account name.
    username: String,
}

impl From<PasswordName> for CreatedPassword {
    fn from(name: PasswordName) -> Self {
        Self { domain: name.domain, username: name.username }
    }
}

/// A secret that was kept.
#[derive(Serialize, JsonSchema)]
pub(super) struct SetSecret {
    /// The key, in capital letters.
    pub(super) key: String,
    /// True if there was nothing under the key before.
    pub(super) created: bool,
}

/// An identity that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedIdentity {
    /// Ravi's handle of it.
    uuid: String,
    /// Its name.
    name: String,
    /// Its mail address, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    email: Option<String>,
    /// What has to happen before anybody can act as it.
    next: &'static str,
}

impl From<Identity> for CreatedIdentity {
    fn from(identity: Identity) -> Self {
        let Identity { uuid, name, email, .. } = identity;
        let next = "You are still who you were. The operator gives it a role in the broker's configuration.";
        Self { uuid, name, email, next }
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
