//! What reaches the account: deliveries on demand, one or many, and how an incoming message is filed. Imports
//! `attachments`, `contacts`, `control`, `events`, `state`.

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

use super::attachments;
use super::contacts;
use super::control::{Control, ControlError, find};
use super::events::EventKind;
use super::random;
use super::seed::MAIL_DOMAIN;
use super::state::{Api, Attachment, Direction, MAX_MESSAGES, Mail, Text, World, to_micros};

/// Mail to be delivered.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMail {
    /// Uuid or name.
    pub identity: String,
    /// Sender's address.
    pub from: String,
    /// Subject.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// HTML; empty: made from the text, unescaped.
    #[serde(default)]
    pub html: String,
    /// Thread to append to; `None`: a new one.
    #[serde(default)]
    pub thread_id: Option<String>,
    /// What the header says; `None`: the identity's address.
    #[serde(default)]
    pub to: Option<String>,
    /// Addresses.
    #[serde(default)]
    pub cc: Vec<String>,
    /// RFC 5322 `Message-ID`; `None`: made up.
    #[serde(default)]
    pub message_id: Option<String>,
    /// RFC 3339; `None`: now. The `id` is a new one all the same.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_dt: Option<Timestamp>,
    /// Attachments.
    #[serde(default)]
    pub attachments: Vec<NewAttachment>,
}

/// An attachment of mail to be delivered.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAttachment {
    /// With its extension, whichever.
    pub filename: String,
    /// Media type.
    pub content_type: String,
    /// In JSON: base64.
    #[serde(deserialize_with = "base64")]
    pub content: Vec<u8>,
    /// Part of the HTML.
    #[serde(default)]
    pub is_inline: bool,
}

/// An SMS to be delivered.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSms {
    /// Uuid or name.
    pub identity: String,
    /// Sender's number, E.164.
    pub from: String,
    /// Text.
    pub body: String,
    /// RFC 3339; `None`: now. The `id` is a new one all the same.
    #[serde(default, deserialize_with = "timestamp")]
    pub created_dt: Option<Timestamp>,
}

/// Several at once: all are delivered before anybody sees one of them, or none.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Delivered in this order.
    #[serde(default)]
    pub mail: Vec<NewMail>,
    /// Delivered in this order, after the mail.
    #[serde(default)]
    pub sms: Vec<NewSms>,
}

/// The `id`s of a batch, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// Of the mails.
    pub mail: Vec<i64>,
    /// Of the SMS.
    pub sms: Vec<i64>,
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse()).transpose().map_err(|_| de::Error::custom("not a time"))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(|_| de::Error::custom("not base64"))
}

impl Control {
    /// Delivers mail; returns its `id`.
    pub fn deliver_mail(&self, mail: NewMail) -> Result<i64, ControlError> {
        let delivered = self.deliver(Batch { mail: vec![mail], sms: Vec::new() })?;
        delivered.mail.first().copied().ok_or(ControlError::NoSuchEntry)
    }

    /// Delivers an SMS; returns its `id`.
    pub fn deliver_sms(&self, sms: NewSms) -> Result<i64, ControlError> {
        let delivered = self.deliver(Batch { mail: Vec::new(), sms: vec![sms] })?;
        delivered.sms.first().copied().ok_or(ControlError::NoSuchEntry)
    }

    /// Delivers all of them or none.
    pub fn deliver(&self, batch: Batch) -> Result<Delivered, ControlError> {
        let api = &self.api;
        let mut world = api.world();
        check_room(&world, &batch)?;
        let owners = batch.mail.iter().map(|mail| inbox_of(&world, &mail.identity));
        let owners = owners.collect::<Result<Vec<_>, _>>()?;
        let lines = batch.sms.iter().map(|sms| line_of(&world, &sms.identity));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let (mut mail, mut sms) = (Vec::new(), Vec::new());
        for (new, (identity, address)) in batch.mail.into_iter().zip(owners) {
            mail.push(deliver_mail(api, &mut world, identity, address, new)?);
        }
        for (new, identity) in batch.sms.into_iter().zip(lines) {
            let id = world.fresh_id();
            let created = new.created_dt.map_or_else(|| api.wall(), to_micros);
            let (remote, body, direction) = (new.from, new.body, Direction::Incoming);
            let text = Text { id, identity, remote, body, direction, is_read: false, created };
            receive_text(api, &mut world, text);
            sms.push(id);
        }
        Ok(Delivered { mail, sms })
    }
}

fn check_room(world: &World, batch: &Batch) -> Result<(), ControlError> {
    let attached: Vec<usize> =
        batch.mail.iter().flat_map(|mail| &mail.attachments).map(|new| new.content.len()).collect();
    let fits = world.mails.len() + batch.mail.len() <= MAX_MESSAGES
        && world.texts.len() + batch.sms.len() <= MAX_MESSAGES
        && attachments::has_room(world, attached.len(), attached.iter().sum());
    if fits { Ok(()) } else { Err(ControlError::Full) }
}

fn inbox_of(world: &World, identity: &str) -> Result<(i64, String), ControlError> {
    let owner = find(world, identity)?;
    let inbox = owner.inbox.as_ref().ok_or(ControlError::NoAddress)?;
    Ok((owner.id, inbox.address.clone()))
}

fn line_of(world: &World, identity: &str) -> Result<i64, ControlError> {
    let owner = find(world, identity)?;
    owner.phone.as_ref().map(|_| owner.id).ok_or(ControlError::NoAddress)
}

fn deliver_mail(
    api: &Api,
    world: &mut World,
    identity: i64,
    address: String,
    new: NewMail,
) -> Result<i64, ControlError> {
    let created = new.created_dt.map_or_else(|| api.wall(), to_micros);
    let rows = new.attachments.into_iter().map(|row| attached(identity, row, created));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let attachments: Vec<Uuid> = rows.iter().map(|row| row.uuid).collect();
    world.attachments.extend(rows);
    let id = world.fresh_id();
    let message_id = new.message_id.unwrap_or_else(|| format!("<sandbox-{id}@{MAIL_DOMAIN}>"));
    let html = if new.html.is_empty() { format!("<p>{}</p>", new.text) } else { new.html };
    let mail = Mail {
        id,
        identity,
        thread_id: new.thread_id.unwrap_or_else(|| message_id.clone()),
        message_id,
        from: new.from,
        to: new.to.unwrap_or(address),
        cc: new.cc,
        subject: new.subject,
        text: new.text,
        html,
        direction: Direction::Incoming,
        is_read: false,
        attachments,
        created,
    };
    receive_mail(api, world, mail);
    Ok(id)
}

fn attached(identity: i64, new: NewAttachment, created: Timestamp) -> Result<Attachment, ControlError> {
    Ok(Attachment {
        uuid: random::uuid()?,
        identity: Some(identity),
        filename: new.filename,
        content_type: new.content_type,
        size: new.content.len(),
        is_inline: new.is_inline,
        signature: random::key("")?,
        content: Some(new.content.into()),
        is_used: true,
        created,
    })
}

/// Files an incoming mail, for which there is room.
pub(super) fn receive_mail(api: &Api, world: &mut World, mail: Mail) {
    let identity = mail.identity;
    contacts::note(world, identity, &mail.from, mail.created);
    world.file_mail(mail);
    api.events.emit(identity, EventKind::Email);
}

/// Files an incoming SMS, for which there is room.
pub(super) fn receive_text(api: &Api, world: &mut World, text: Text) {
    let identity = text.identity;
    contacts::note(world, identity, &text.remote, text.created);
    world.file_text(text);
    api.events.emit(identity, EventKind::Sms);
}
