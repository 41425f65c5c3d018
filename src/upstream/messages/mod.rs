//! The endpoints of messages, contacts and new identities: one short function each, as in `api`.
//!
//! Whatever was sent or made and then answered in a form that cannot be read is in doubt, not refused: it has taken effect.

mod list;
mod own;
mod texts;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use http::header::HeaderValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use self::own::{Owner, addresses};
use self::wire::{
    ContactRow, CountryBody, InboxRow, MailBody, MailRow, NameBody, NewKey, PresignBody, Presigned, SentRow,
    TextBody, TextRow,
};
use super::api::{HttpUpstream, IDENTITIES};
use super::call::Call;
use super::exchange::Room;
use super::http::parse;
use super::pins::{Address, FOREIGN};
use super::storage::Upload;
use super::wire::{IdentityRow, checked_key, clean};
use super::{
    AnswerFault, Answering, Contact, ContactAddress, Draft, Identity, Mail, Mailbox, NewAttachment, Result,
    Sent, Text, UpstreamError,
};
use crate::clock::BootInstant;
use crate::secret::Secret;
use crate::types::{Channel, EmailAddress, EntryUuid, IdentityUuid, MessageRef, PhoneNumber};

const MAILS: &str = "/api/email-messages/";
const MAIL: &str = "/api/email-messages/{id}/";
const TEXTS: &str = "/api/messages/";
const TEXT: &str = "/api/messages/{id}/";

/// For messages: a mail can have 10 MB, of which a text above 1 MiB is left out.
const ROOM: Room = Room { answer: 4 * 1024 * 1024, text: Some(1024 * 1024) };
/// For the answer to what was sent, which quotes it.
const SENT_ROOM: Room = Room { answer: 1024 * 1024, text: Some(4096) };
/// A telephone takes Ravi seconds.
const PROVISIONING: Duration = Duration::from_secs(60);
/// Largest file that Ravi takes, in bytes, and longest name and type of one (docs/ravi-api.md §3.6).
pub const MAX_FILE_BYTES: u64 = 10_485_760;
const MAX_FILE_NAME: usize = 255;

/// Extensions that Ravi refuses (docs/ravi-api.md §3.6).
#[rustfmt::skip]
const BLOCKED: &[&str] = &[
    "exe", "dll", "scr", "com", "pif", "cpl", "sys", "bat", "cmd", "ps1", "vbs", "vbe", "wsf", "wsh", "wsc", "sct", "shb",
    "msi", "msp", "mst", "cab", "msc", "inf", "reg", "rgs", "ins", "isp", "chm", "hta", "lnk", "url", "scf", "iso", "img",
    "vhd", "vhdx", "dmg", "apk", "app", "action", "jar", "ade", "adp", "mde",
];

#[async_trait]
impl Mailbox for HttpUpstream {
    async fn listen(
        &self,
        identity: IdentityUuid,
        told: &(dyn Fn(Option<Channel>) + Send + Sync),
    ) -> Result<()> {
        self.http.listen(&Call::get("/api/events/stream/").of(identity), told).await
    }

    async fn list_mail(
        &self,
        identity: IdentityUuid,
        after: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Mail>> {
        self.oldest_mail(identity, after, limit).await
    }

    async fn newest_mail(&self, identity: IdentityUuid, offset: usize, limit: usize) -> Result<Vec<Mail>> {
        self.latest_mail(identity, offset, limit).await
    }

    async fn read_mail(&self, identity: IdentityUuid, id: i64) -> Result<Mail> {
        let end = self.http.deadline();
        let call = Call::get(MAIL).object(&id.to_string())?.of(identity).with_room(ROOM);
        let row: MailRow = self.http.fetch_until(&call, end).await?;
        let own = self.own_address(identity, Address::Email, end).await?;
        match self.owner(identity, &own, &row)? {
            Owner::Us | Owner::Unsaid if row.id == id => Ok(row.into()),
            _ => Err(FOREIGN),
        }
    }

    async fn list_texts(&self, identity: IdentityUuid, after: Option<i64>) -> Result<Vec<Text>> {
        self.texts_after(identity, after).await
    }

    async fn read_text(&self, identity: IdentityUuid, id: i64) -> Result<Text> {
        let end = self.http.deadline();
        let call = Call::get(TEXT).object(&id.to_string())?.of(identity).with_room(ROOM);
        let row: TextRow = self.http.fetch_until(&call, end).await?;
        self.check_texts(identity, std::slice::from_ref(&row), end).await?;
        if row.id == id { Ok(row.into()) } else { Err(FOREIGN) }
    }

    async fn attach(&self, identity: IdentityUuid, file: NewAttachment) -> Result<EntryUuid> {
        let content_type = checked_file(&file)?;
        let (filename, size) = (file.name.as_str(), file.bytes.len());
        let body = PresignBody { filename, content_type: &file.content_type, size };
        let call = Call::post("/api/email-attachments/presign/").of(identity).json(&body);
        let made: Presigned = self.http.fetch(call).await?;
        let upload = Upload { identity, content_type, bytes: file.bytes };
        self.storage.put(made.upload_url.expose(), upload).await?;
        Ok(made.uuid)
    }

    async fn compose(&self, identity: IdentityUuid, draft: &Draft) -> Result<Sent> {
        if draft.subject.expose().contains(char::is_control) {
            return Err(UpstreamError::Invalid);
        }
        let end = self.http.deadline();
        let inbox = self.inbox(identity, end).await?;
        let body = mail_body(Some(&draft.to), Some(&draft.subject), &draft.rest);
        let call = Call::post("/api/email-messages/compose/").of(identity).query("inbox", inbox).json(&body);
        self.sent(identity, Channel::Email, call, end).await
    }

    async fn reply(&self, identity: IdentityUuid, id: i64, draft: &Answering) -> Result<Sent> {
        self.answer(identity, "/api/email-messages/{id}/reply/", id, None, draft).await
    }

    async fn reply_all(&self, identity: IdentityUuid, id: i64, draft: &Answering) -> Result<Sent> {
        self.answer(identity, "/api/email-messages/{id}/reply-all/", id, None, draft).await
    }

    async fn forward(
        &self,
        identity: IdentityUuid,
        id: i64,
        to: &EmailAddress,
        draft: &Answering,
    ) -> Result<Sent> {
        self.answer(identity, "/api/email-messages/{id}/forward/", id, Some(to), draft).await
    }

    async fn send_text(&self, identity: IdentityUuid, to: &PhoneNumber, body: &Secret) -> Result<Sent> {
        let body = TextBody { to_number: to.as_str(), body: body.expose() };
        let call = Call::post("/api/messages/send/").of(identity).json(&body);
        self.sent(identity, Channel::Sms, call, self.http.deadline()).await
    }

    async fn create_identity(&self, name: &str) -> Result<(Identity, Option<Secret>)> {
        let call = Call::post(IDENTITIES).with_management_key(None).json(&NameBody { name });
        let reply = self.http.run(&call, self.http.deadline()).await.map_err(in_doubt)?;
        let created: Identity = read::<IdentityRow>(&reply)?.into();
        // A key in another form than Ravi's is no reason to lose the identity: another can be minted.
        let key = parse::<NewKey>(&reply).ok().and_then(|new| new.api_key);
        self.pins.learn(&created);
        Ok((created, key.and_then(|key| checked_key(key, "ravi_id_").ok())))
    }

    async fn provision_phone(&self, identity: IdentityUuid, country: Option<&str>) -> Result<Identity> {
        let is_code = |code: &str| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !country.is_none_or(is_code) {
            return Err(UpstreamError::Invalid);
        }
        let call = Call::post("/api/identities/{id}/provision-phone/")
            .object(&identity.to_string())?
            .with_management_key(Some(identity))
            .json(&CountryBody { country_code: country });
        let reply = self.http.run(&call, self.http.deadline_in(PROVISIONING)).await.map_err(in_doubt)?;
        let provisioned: Identity = read::<IdentityRow>(&reply)?.into();
        if provisioned.uuid != identity {
            return Err(UpstreamError::OutcomeUnknown);
        }
        self.pins.learn(&provisioned);
        Ok(provisioned)
    }

    async fn find_contact(
        &self,
        identity: IdentityUuid,
        address: &ContactAddress,
    ) -> Result<Option<Contact>> {
        let call = Call::get("/api/contacts/find/").of(identity).may_be_absent();
        let call = match address {
            ContactAddress::Email(email) => call.query("email", email),
            ContactAddress::Phone(number) => call.query("phone_number", number),
        };
        let row: ContactRow = match self.http.fetch(call).await {
            Err(UpstreamError::NotFound) => return Ok(None),
            row => row?,
        };
        let is_it = match address {
            ContactAddress::Email(email) => row.email.eq_ignore_ascii_case(email.as_str()),
            ContactAddress::Phone(number) => row.phone_number == number.as_str(),
        };
        if is_it && self.is_own_contact(identity, &row) { Ok(Some(row.into())) } else { Err(FOREIGN) }
    }

    async fn search_contacts(&self, identity: IdentityUuid, query: &str) -> Result<Vec<Contact>> {
        let call = Call::get("/api/contacts/search/").of(identity).query("q", query);
        let rows: Vec<ContactRow> = self.http.list(call, self.http.deadline()).await?;
        let own = rows.iter().all(|row| self.is_own_contact(identity, row));
        if own { Ok(rows.into_iter().map(Into::into).collect()) } else { Err(FOREIGN) }
    }
}

impl HttpUpstream {
    /// The number of the identity's inbox: mail goes out from no address but its own.
    async fn inbox(&self, identity: IdentityUuid, end: BootInstant) -> Result<i64> {
        let rows: Vec<InboxRow> = self.http.list(Call::get("/api/email/").of(identity), end).await?;
        let listed = rows.iter().map(|row| row.email.clone()).collect();
        self.own_addresses(identity, Address::Email, listed, end).await?;
        rows.first().map(|row| row.id).ok_or(UpstreamError::NotFound)
    }

    async fn answer(
        &self,
        identity: IdentityUuid,
        template: &'static str,
        id: i64,
        to: Option<&EmailAddress>,
        draft: &Answering,
    ) -> Result<Sent> {
        let body = mail_body(to, None, draft);
        let call = Call::post(template).object(&id.to_string())?.of(identity).json(&body);
        self.sent(identity, Channel::Email, call, self.http.deadline()).await
    }

    /// Sends, once, and reads nothing of the answer but what it is about.
    async fn sent(
        &self,
        identity: IdentityUuid,
        channel: Channel,
        call: Call,
        end: BootInstant,
    ) -> Result<Sent> {
        let call = call.with_room(SENT_ROOM);
        let row: SentRow = read(&self.http.run(&call, end).await.map_err(in_doubt)?)?;
        let senders = addresses(&row.from_email.0);
        let foreign = senders.iter().any(|sender| self.pins.is_anothers(identity, sender));
        if row.id <= 0 || foreign {
            return Err(UpstreamError::OutcomeUnknown);
        }
        Ok(Sent { message: MessageRef { channel, id: row.id } })
    }

    fn is_own_contact(&self, identity: IdentityUuid, row: &ContactRow) -> bool {
        row.identity.is_none_or(|number| self.pins.agrees(identity, number))
    }
}

/// The answer to what has taken effect.
fn read<T: DeserializeOwned>(reply: &super::exchange::Reply) -> Result<T> {
    parse(reply).map_err(in_doubt)
}

/// An answer in which nothing can be read said yes all the same.
fn in_doubt(error: UpstreamError) -> UpstreamError {
    match error {
        UpstreamError::Answer(AnswerFault::Malformed | AnswerFault::TooLarge) => {
            UpstreamError::OutcomeUnknown
        }
        other => other,
    }
}

fn mail_body<'a>(
    to: Option<&'a EmailAddress>,
    subject: Option<&'a Secret>,
    rest: &'a Answering,
) -> MailBody<'a> {
    MailBody {
        to_email: to.map(EmailAddress::as_str),
        subject: subject.map(Secret::expose),
        content: rest.content.expose(),
        cc: rest.cc.iter().map(EmailAddress::as_str).collect(),
        bcc: rest.bcc.iter().map(EmailAddress::as_str).collect(),
        attachment_uuids: &rest.attachments,
    }
}

/// Why a file is not offered to Ravi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// The name is empty, too long, has a path or says something else than it seems to.
    Name,
    /// The extension is one that Ravi refuses: the file could run.
    Extension,
    /// The type is none.
    ContentType,
    /// It is larger than Ravi takes.
    Size,
}

/// Refuses before anything is sent what Ravi would refuse, and names that say something else than they seem to.
pub fn check_file(name: &str, content_type: &str, size: u64) -> std::result::Result<(), FileFault> {
    // Windows drops dots and spaces at the end.
    let stem = name.trim_end_matches(['.', ' ']);
    let extension = stem.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let is_name = !stem.is_empty() && !name.contains(['/', '\\']) && clean(name) == name;
    if !is_name || name.len() > MAX_FILE_NAME {
        return Err(FileFault::Name);
    }
    if extension.is_some_and(|extension| BLOCKED.contains(&extension.as_str())) {
        return Err(FileFault::Extension);
    }
    let is_kind =
        content_type.contains('/') && content_type.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if !is_kind || content_type.len() > MAX_FILE_NAME {
        return Err(FileFault::ContentType);
    }
    if size > MAX_FILE_BYTES { Err(FileFault::Size) } else { Ok(()) }
}

fn checked_file(file: &NewAttachment) -> Result<HeaderValue> {
    let size = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
    check_file(&file.name, &file.content_type, size).map_err(|_| UpstreamError::Invalid)?;
    HeaderValue::from_str(file.content_type.trim()).map_err(|_| UpstreamError::Invalid)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn file(name: &str, content_type: &str, size: usize) -> NewAttachment {
        let (name, content_type) = (name.into(), content_type.into());
        NewAttachment { name, content_type, bytes: Zeroizing::new(vec![0; size]) }
    }

    #[test]
    fn a_file_that_ravi_would_refuse_is_not_offered() {
        let pdf = |name: &str| checked_file(&file(name, "application/pdf", 1)).is_ok();
        for name in ["a.pdf", "Report 2026 (final).tar.gz", "README", ".profile", "exe", "é.txt", "a.exe.txt"]
        {
            assert!(pdf(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../a.pdf",
            "a/b.pdf",
            "a\\b.pdf",
            "a\0.pdf",
            "a\n.pdf",
            "invoice\u{202e}fdp.txt",
            "a.exe",
            "A.EXE",
            "a.pdf.JaR",
            "a.exe.",
            "a.exe ",
            "a.lnk. .",
        ] {
            assert!(!pdf(name), "{name:?}");
        }
        assert!(!pdf(&format!("{}.pdf", "a".repeat(MAX_FILE_NAME))));
        assert!(checked_file(&file("a", "a/b", MAX_FILE_BYTES as usize)).is_ok());
        assert!(checked_file(&file("a", "a/b", MAX_FILE_BYTES as usize + 1)).is_err());
        for kind in ["", "pdf", "a/b\r\nX: y", "a/\u{e9}"] {
            assert!(checked_file(&file("a", kind, 1)).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn the_blocked_extensions_are_those_of_the_contract() {
        assert_eq!(BLOCKED.len(), 44);
        assert!(
            BLOCKED
                .iter()
                .all(|extension| extension.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        );
    }
}
