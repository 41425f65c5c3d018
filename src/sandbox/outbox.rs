//! What leaves the account: posting a mail or an SMS, the copy for recipients who are identities of the same
//! account, and the record that tests count. Everything that can be refused is refused before anything is
//! written. Imports `arrival`, `contacts`, `reply`, `state`.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::arrival;
use super::behaviour::WithoutPhoneStatus;
use super::contacts;
use super::control::Control;
use super::reply::Refusal;
use super::seed::MAIL_DOMAIN;
use super::state::{Api, Direction, Identity, MAX_MESSAGES, Mail, Text, World};

/// One message that was sent, without what it says: that is read by its `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Mail or SMS.
    pub kind: SentKind,
    /// That of the message.
    pub id: i64,
    /// Uuid of the sender.
    pub identity: Uuid,
    /// Address or number.
    pub to: String,
    /// Addresses.
    pub cc: Vec<String>,
    /// Addresses; shown nowhere else.
    pub bcc: Vec<String>,
    /// Uuids.
    pub attachments: Vec<Uuid>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SentKind {
    /// `POST /api/email-messages/…`.
    Mail,
    /// `POST /api/messages/send/`.
    Sms,
}

/// A mail before it is posted.
pub(super) struct Letter {
    pub(super) to: String,
    pub(super) cc: Vec<String>,
    pub(super) bcc: Vec<String>,
    pub(super) subject: String,
    pub(super) html: String,
    pub(super) text: String,
    /// `None`: begins a thread.
    pub(super) thread_id: Option<String>,
    pub(super) attachments: Vec<Uuid>,
}

/// Posts a mail from the identity's inbox; returns its `id`.
pub(super) fn post_mail(api: &Api, world: &mut World, identity: i64, letter: Letter) -> Result<i64, Refusal> {
    let sender = world.identity(identity).ok_or_else(Refusal::not_found)?;
    let uuid = sender.uuid;
    let inbox = sender.inbox.as_ref().ok_or_else(|| Refusal::bad_request("This identity has no inbox."))?;
    let (inbox_id, from) = (inbox.id, inbox.address.clone());
    let local = local_inboxes(world, &letter);
    if world.mails.len() + local.len() >= MAX_MESSAGES || world.sent.len() >= MAX_MESSAGES {
        return Err(Refusal::bad_request("The mailbox is full."));
    }
    let now = api.wall();
    world.budgets.mail(inbox_id, world.behaviour.mails_per_day, now)?;
    let id = world.fresh_id();
    let message_id = format!("<sandbox-{id}@{MAIL_DOMAIN}>");
    let thread_id = letter.thread_id.clone().unwrap_or_else(|| message_id.clone());
    let mail = |id, identity, direction| Mail {
        id,
        identity,
        thread_id: thread_id.clone(),
        message_id: message_id.clone(),
        from: from.clone(),
        to: letter.to.clone(),
        cc: letter.cc.clone(),
        subject: letter.subject.clone(),
        text: letter.text.clone(),
        html: letter.html.clone(),
        direction,
        is_read: direction == Direction::Outgoing,
        attachments: letter.attachments.clone(),
        created: now,
    };
    world.file_mail(mail(id, identity, Direction::Outgoing));
    for recipient in local {
        let copy = world.fresh_id();
        arrival::receive_mail(api, world, mail(copy, recipient, Direction::Incoming));
    }
    for reached in [&letter.to].into_iter().chain(&letter.cc) {
        contacts::note(world, identity, reached, now);
    }
    for row in &mut world.attachments {
        row.is_used |= letter.attachments.contains(&row.uuid);
    }
    let Letter { to, cc, bcc, attachments, .. } = letter;
    world.sent.push(Sent { kind: SentKind::Mail, id, identity: uuid, to, cc, bcc, attachments });
    Ok(id)
}

/// Identities of the account that the letter goes to, each once.
fn local_inboxes(world: &World, letter: &Letter) -> Vec<i64> {
    let recipients = || [&letter.to].into_iter().chain(&letter.cc).chain(&letter.bcc);
    let is_named = |identity: &&Identity| {
        let inbox = identity.inbox.as_ref();
        inbox.is_some_and(|inbox| recipients().any(|to| to.eq_ignore_ascii_case(&inbox.address)))
    };
    world.identities.iter().filter(is_named).map(|identity| identity.id).collect()
}

/// Posts an SMS from the identity's phone; returns its `id`.
pub(super) fn post_text(
    api: &Api,
    world: &mut World,
    identity: i64,
    to: String,
    body: String,
) -> Result<i64, Refusal> {
    let sender = world.identity(identity).ok_or_else(Refusal::not_found)?;
    let uuid = sender.uuid;
    let phone = sender.phone.as_ref().ok_or_else(|| without_phone(world.behaviour.without_phone))?;
    let from = phone.number.clone();
    if world.texts.len() + 1 >= MAX_MESSAGES || world.sent.len() >= MAX_MESSAGES {
        return Err(Refusal::bad_request("The mailbox is full."));
    }
    let now = api.wall();
    world.budgets.text(identity, world.behaviour.texts_per_day, now)?;
    let id = world.fresh_id();
    let has_number = |other: &&Identity| other.phone.as_ref().is_some_and(|phone| phone.number == to);
    let local = world.identities.iter().find(has_number).map(|other| other.id);
    world.file_text(text(id, identity, (&to, &body), Direction::Outgoing, now));
    if let Some(recipient) = local {
        let copy = world.fresh_id();
        arrival::receive_text(api, world, text(copy, recipient, (&from, &body), Direction::Incoming, now));
    }
    contacts::note(world, identity, &to, now);
    let (cc, bcc, attachments) = Default::default();
    world.sent.push(Sent { kind: SentKind::Sms, id, identity: uuid, to, cc, bcc, attachments });
    Ok(id)
}

/// `remote` is the number at the other end.
fn text(
    id: i64,
    identity: i64,
    (remote, body): (&str, &str),
    direction: Direction,
    created: Timestamp,
) -> Text {
    let (remote, body) = (remote.to_owned(), body.to_owned());
    Text { id, identity, remote, body, direction, is_read: direction == Direction::Outgoing, created }
}

fn without_phone(status: WithoutPhoneStatus) -> Refusal {
    let text = "This identity has no phone number.";
    match status {
        WithoutPhoneStatus::BadRequest => Refusal::bad_request(text),
        WithoutPhoneStatus::NotFound => Refusal::not_found(),
        WithoutPhoneStatus::Conflict => Refusal::detail(http::StatusCode::CONFLICT, text),
    }
}

impl Control {
    /// What was sent through the API since the start or the last reset, oldest first.
    pub fn sent(&self) -> Vec<Sent> {
        self.api.world().sent.clone()
    }

    /// The HTML of a mail, of whichever identity, as it is kept.
    pub fn html_of(&self, id: i64) -> Option<String> {
        self.api.world().mails.iter().find(|mail| mail.id == id).map(|mail| mail.html.clone())
    }

    /// Begins the day and the hour of every budget anew.
    pub fn reset_budgets(&self) {
        self.api.world().budgets = Default::default();
    }

    /// Requests at the storage that brought an `Authorization` header; there must be none.
    pub fn keys_at_storage(&self) -> u64 {
        self.api.world().keys_at_storage
    }
}
