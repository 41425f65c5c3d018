//! What the client takes and returns of messages that are sent, of contacts and of the account's identities.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::model::Identity;
use crate::secret::Secret;

/// What a mail says. Has no `Debug` and no `Clone`: it can hold a secret.
pub enum Body {
    /// Plain text; line breaks are kept.
    Text(Secret),
    /// HTML, sent as it is.
    Html(Secret),
}

/// What a mail says, and to whom besides.
pub struct MailContent {
    /// What it says, at most 48 KiB.
    pub body: Body,
    /// Addresses.
    pub cc: Vec<String>,
    /// Addresses.
    pub bcc: Vec<String>,
    /// Of [`attach`](super::AgentClient::attach) in this session, at most 10.
    pub attachments: Vec<String>,
}

/// A mail to be sent.
pub struct NewMail {
    /// One address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The rest.
    pub content: MailContent,
    /// For the audit trail, at most 256 characters.
    pub reason: String,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The sender.
    Sender,
    /// Everybody whom the mail names.
    All,
}

/// A file to be attached. Has no `Debug` and no `Clone`.
pub struct NewFile {
    /// Without a path.
    pub name: String,
    /// For example `application/pdf`.
    pub content_type: String,
    /// At most 10 MiB.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// A message that went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its name, for example `email/43`.
    pub message: String,
    /// What is left of the identity's day.
    pub budget: SendBudget,
}

/// How much an identity may send in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendBudget {
    /// In all.
    pub limit: u32,
    /// Of that, used.
    pub used: u32,
    /// When it begins anew.
    pub resets_at: Timestamp,
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendState {
    /// It went out, as the message of this name.
    Sent(String),
    /// It is not among what the identity sent.
    NotFound,
    /// Several messages fit.
    Ambiguous,
}

/// Whom the identity knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// May be empty; proven by nothing.
    pub name: String,
    /// May be empty.
    pub email: String,
    /// May be empty.
    pub phone: String,
    /// The owner of the account trusts it.
    pub trusted: bool,
}

/// An identity as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityInfo {
    /// Without the owner.
    pub identity: Identity,
    /// Roles that act as it.
    pub roles: Vec<String>,
    /// The daemon holds a key of this identity alone.
    pub key_held: bool,
}

/// An identity that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedIdentity {
    /// Without the owner.
    pub identity: Identity,
    /// Why it has no number although one was asked for, as a reason of the broker.
    pub phone_failure: Option<String>,
}
