//! Messages and who they go to, as the rest of the broker sees Ravi's API for them.
//!
//! What a message says can hold a code or a link that signs in: its texts are `Secret`s, which nobody prints.

use async_trait::async_trait;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Identity, Result};
use crate::secret::Secret;
use crate::types::{Channel, EmailAddress, EntryUuid, IdentityUuid, MessageRef, PhoneNumber};

/// The operations on messages and identities. One method per endpoint; the endpoint is named.
#[async_trait]
pub trait Mailbox: Send + Sync + 'static {
    /// `GET /api/events/stream/`: calls `told` with each event, by its channel or `None` for one of another name,
    /// until the stream ends. What an event carries is not documented and not read.
    async fn listen(
        &self,
        identity: IdentityUuid,
        told: &(dyn Fn(Option<Channel>) + Send + Sync),
    ) -> Result<()>;

    /// `GET /api/email-messages/`: mail that came in or went out strictly after `after`, oldest first, at most
    /// `limit` (1 to 200), and fewer where they are large: there are no more only where none comes. A mail with a text
    /// above 1 MiB is there with [`Mail::oversized`]; one that is too large without its texts is passed over.
    async fn list_mail(
        &self,
        identity: IdentityUuid,
        after: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Mail>>;

    /// `GET /api/email-messages/`: the newest first, `offset` of them left out, at most `limit` (1 to 200).
    async fn newest_mail(&self, identity: IdentityUuid, offset: usize, limit: usize) -> Result<Vec<Mail>>;

    /// `GET /api/email-messages/{id}/`.
    async fn read_mail(&self, identity: IdentityUuid, id: i64) -> Result<Mail>;

    /// `GET /api/messages/`: newest first. Those up to the number `after` may be left out.
    async fn list_texts(&self, identity: IdentityUuid, after: Option<i64>) -> Result<Vec<Text>>;

    /// `GET /api/messages/{id}/`.
    async fn read_text(&self, identity: IdentityUuid, id: i64) -> Result<Text>;

    /// `POST /api/email-attachments/presign/`, then a `PUT` without a key to where that says. Never retried.
    async fn attach(&self, identity: IdentityUuid, file: NewAttachment) -> Result<EntryUuid>;

    /// `POST /api/email-messages/compose/?inbox=<int>`, after `GET /api/email/` for the number of the inbox. Never
    /// retried.
    async fn compose(&self, identity: IdentityUuid, draft: &Draft) -> Result<Sent>;

    /// `POST /api/email-messages/{id}/reply/`. Never retried.
    async fn reply(&self, identity: IdentityUuid, id: i64, draft: &Answering) -> Result<Sent>;

    /// `POST /api/email-messages/{id}/reply-all/`. Never retried.
    async fn reply_all(&self, identity: IdentityUuid, id: i64, draft: &Answering) -> Result<Sent>;

    /// `POST /api/email-messages/{id}/forward/`. Never retried.
    async fn forward(
        &self,
        identity: IdentityUuid,
        id: i64,
        to: &EmailAddress,
        draft: &Answering,
    ) -> Result<Sent>;

    /// `POST /api/messages/send/`. Never retried.
    async fn send_text(&self, identity: IdentityUuid, to: &PhoneNumber, body: &Secret) -> Result<Sent>;

    /// `POST /api/identities/` with the management key and this name alone. Never retried. The key that Ravi
    /// gives with it, if any.
    async fn create_identity(&self, name: &str) -> Result<(Identity, Option<Secret>)>;

    /// `POST /api/identities/{uuid}/provision-phone/` with the management key. Takes seconds. Never retried: after
    /// [`OutcomeUnknown`](super::UpstreamError::OutcomeUnknown), read the identity.
    async fn provision_phone(&self, identity: IdentityUuid, country: Option<&str>) -> Result<Identity>;

    /// `GET /api/contacts/find/?email=`. `None`: there is none.
    async fn find_contact(&self, identity: IdentityUuid, address: &ContactAddress)
    -> Result<Option<Contact>>;

    /// `GET /api/contacts/search/?q=`.
    async fn search_contacts(&self, identity: IdentityUuid, query: &str) -> Result<Vec<Contact>>;
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came to the identity.
    Incoming,
    /// The identity sent it.
    Outgoing,
}

/// A mail.
pub struct Mail {
    /// `id`: counts up.
    pub id: i64,
    /// `created_dt`.
    pub created: Timestamp,
    /// `direction`; what is not known counts as outgoing, which nobody acts on.
    pub direction: Direction,
    /// `from_email`, as it was given, control characters removed. Not parsed: it may hold a display name.
    pub from: String,
    /// `to_email`, likewise.
    pub to: String,
    /// `cc`, likewise.
    pub cc: String,
    /// `subject`.
    pub subject: Secret,
    /// `text_content`; empty if there is none.
    pub text: Secret,
    /// `html_content`; empty if there is none.
    pub html: Secret,
    /// `thread_id`.
    pub thread: String,
    /// `message_id` of RFC 5322; empty if there is none.
    pub message_id: String,
    /// `is_read`.
    pub is_read: bool,
    /// `attachments`.
    pub attachments: Vec<Attachment>,
    /// A text of it was too large to be fetched, and is empty.
    pub oversized: bool,
}

/// What is attached to a mail; its bytes are not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `filename`.
    pub name: String,
    /// `content_type`.
    pub content_type: String,
    /// `size`, in bytes.
    pub size: u64,
}

/// A text message.
pub struct Text {
    /// `id`: counts up.
    pub id: i64,
    /// `created_dt`.
    pub created: Timestamp,
    /// `direction`; what is not known counts as outgoing.
    pub direction: Direction,
    /// `from_number`: a number, a short code or a sender's name.
    pub from: String,
    /// `to_number`.
    pub to: String,
    /// `body`.
    pub body: Secret,
    /// `is_read`.
    pub is_read: bool,
}

/// A mail to be sent.
pub struct Draft {
    /// `to_email`.
    pub to: EmailAddress,
    /// `subject`.
    pub subject: Secret,
    /// What it says, and to whom else.
    pub rest: Answering,
}

/// What a reply or a forwarded mail adds.
pub struct Answering {
    /// `content`: HTML.
    pub content: Secret,
    /// `cc`.
    pub cc: Vec<EmailAddress>,
    /// `bcc`.
    pub bcc: Vec<EmailAddress>,
    /// What [`Mailbox::attach`] made.
    pub attachments: Vec<EntryUuid>,
}

/// A file to be attached.
pub struct NewAttachment {
    /// `filename`.
    pub name: String,
    /// `content_type`.
    pub content_type: String,
    /// At most 10,485,760 bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its name.
    pub message: MessageRef,
}

/// By what a contact is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactAddress {
    /// `email`.
    Email(EmailAddress),
    /// `phone_number`.
    Phone(PhoneNumber),
}

/// A person or service that the identity knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// `display_name`, else `nickname`; may be empty.
    pub name: String,
    /// `email`; may be empty.
    pub email: String,
    /// `phone_number`; may be empty.
    pub phone: String,
    /// `is_trusted`.
    pub is_trusted: bool,
}
