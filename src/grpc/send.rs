//! The methods of `InboxService` that send. A message that is handed over goes on to its end in a task of its own.
//!
//! What a message says is taken out of the request into a `Secret`, as it is. A file is taken into one buffer of its
//! declared size, which is wiped; only so many are at once.

use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{Agent, Answer, convert};
use crate::broker::{Admitted, Answered, BrokerError, Dispatched, Result};
use crate::inbox::budget::Standing;
use crate::inbox::letter::html_of;
use crate::inbox::sends::Fate;
use crate::limit::Class;
use crate::pb;
use crate::pb::attach_file_request::Part;
use crate::pb::check_send_response::State;
use crate::secret::Secret;
use crate::types::{Channel, EmailAddress, EntryUuid, MessageRef, Reason, SendId};
use crate::upstream::{Answering, Draft, FileFault, NewAttachment, check_file};

/// Files that are taken in at once.
pub(super) const MAX_UPLOADS: usize = 2;
/// Until a file must be here.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
/// What a mail says, in bytes.
const MAX_CONTENT_BYTES: usize = 48 * 1024;
/// A line of a mail (RFC 5322 §2.1.1).
const MAX_SUBJECT_BYTES: usize = 998;
const MAX_SMS_CHARACTERS: usize = 1600;
const MAX_ATTACHMENTS: usize = 10;

impl Agent {
    pub(super) async fn new_mail(
        &self,
        request: Request<pb::SendEmailRequest>,
    ) -> Answer<pb::SendEmailResponse> {
        let (admitted, (draft, reason)) = self.admit(request, Class::Send, |message| {
            let (to, subject) = (convert::name("to", &message.to)?, subject(message.subject)?);
            let rest = answering(message.content)?;
            Ok((Draft { to, subject, rest }, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        let send = |admitted: Admitted| async move { broker.send_email(&admitted, draft, reason).await };
        let sent = Some(wire_sent(Self::to_the_end(admitted, send).await?));
        Ok(Response::new(pb::SendEmailResponse { sent }))
    }

    pub(super) async fn reply(
        &self,
        request: Request<pb::ReplyEmailRequest>,
    ) -> Answer<pb::ReplyEmailResponse> {
        let parts = |message| {
            let pb::ReplyEmailRequest { message, content, reason } = message;
            (message, content, reason)
        };
        let sent = Some(self.answer(request, Answered::Sender, parts).await?);
        Ok(Response::new(pb::ReplyEmailResponse { sent }))
    }

    pub(super) async fn reply_all(
        &self,
        request: Request<pb::ReplyAllEmailRequest>,
    ) -> Answer<pb::ReplyAllEmailResponse> {
        let parts = |message| {
            let pb::ReplyAllEmailRequest { message, content, reason } = message;
            (message, content, reason)
        };
        let sent = Some(self.answer(request, Answered::All, parts).await?);
        Ok(Response::new(pb::ReplyAllEmailResponse { sent }))
    }

    async fn answer<T>(
        &self,
        request: Request<T>,
        answered: Answered,
        parts: impl FnOnce(T) -> (String, Option<pb::Content>, String),
    ) -> std::result::Result<pb::Sent, Status> {
        let (admitted, (mail, answer, reason)) = self.admit(request, Class::Send, |message| {
            let (message, content, reason) = parts(message);
            Ok((mail(&message)?, answering(content)?, convert::reason(&reason)?))
        })?;
        let broker = self.broker.clone();
        let reply = |admitted: Admitted| async move {
            broker.reply_email(&admitted, mail, answered, answer, reason).await
        };
        Ok(wire_sent(Self::to_the_end(admitted, reply).await?))
    }

    pub(super) async fn forward(
        &self,
        request: Request<pb::ForwardEmailRequest>,
    ) -> Answer<pb::ForwardEmailResponse> {
        type Parsed = (i64, EmailAddress, Answering, Option<Reason>);
        let (admitted, (mail, to, answer, reason)) =
            self.admit(request, Class::Send, |message| -> Result<Parsed> {
                let (mail, to) = (mail(&message.message)?, convert::name("to", &message.to)?);
                Ok((mail, to, answering(message.content)?, convert::reason(&message.reason)?))
            })?;
        let broker = self.broker.clone();
        let forward = |admitted: Admitted| async move {
            broker.forward_email(&admitted, mail, to, answer, reason).await
        };
        let sent = Some(wire_sent(Self::to_the_end(admitted, forward).await?));
        Ok(Response::new(pb::ForwardEmailResponse { sent }))
    }

    pub(super) async fn new_text(&self, request: Request<pb::SendSmsRequest>) -> Answer<pb::SendSmsResponse> {
        let (admitted, (to, text, reason)) = self.admit(request, Class::Send, |message| {
            let text = Secret::new(message.text);
            let characters = text.expose().chars().count();
            if text.expose().trim().is_empty() || characters > MAX_SMS_CHARACTERS {
                return Err(BrokerError::Argument {
                    field: "text",
                    problem: "expected 1 to 1,600 characters",
                });
            }
            Ok((convert::name("to", &message.to)?, plain("text", text)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        let send = |admitted: Admitted| async move { broker.send_sms(&admitted, to, text, reason).await };
        let sent = Some(wire_sent(Self::to_the_end(admitted, send).await?));
        Ok(Response::new(pb::SendSmsResponse { sent }))
    }

    pub(super) async fn what_became(
        &self,
        request: Request<pb::CheckSendRequest>,
    ) -> Answer<pb::CheckSendResponse> {
        let (admitted, id) = self.admit(request, Class::Read, |message| {
            // A malformed one is as absent as an unknown one.
            message.send_id.parse::<SendId>().map_err(|_| BrokerError::ResourceNotAvailable)
        })?;
        let (state, message) = match self.broker.check_send(&admitted, id).await? {
            Fate::Sent(message) => (State::Sent, message.to_string()),
            Fate::NotFound => (State::NotFound, String::new()),
            Fate::Ambiguous => (State::Ambiguous, String::new()),
        };
        Ok(Response::new(pb::CheckSendResponse { state: state.into(), message }))
    }

    pub(super) async fn take_file(
        &self,
        request: Request<Streaming<pb::AttachFileRequest>>,
    ) -> Answer<pb::AttachFileResponse> {
        let (admitted, parts) = self.admit(request, Class::Send, Ok)?;
        self.broker.may_attach(&admitted)?;
        let permit = self.uploads.clone().try_acquire_owned();
        let permit = permit.map_err(|_| BrokerError::Capacity("files that are taken in at once"))?;
        let end = self.clock.now() + UPLOAD_WITHIN;
        let file = tokio::select! {
            file = taken_in(parts) => file?,
            () = self.clock.sleep_until(end) => return Err(wrong("file", "it did not come within 60 s").into()),
        };
        let file = file.inspect_err(|_| self.broker.refuse_form(&admitted))?;
        let broker = self.broker.clone();
        let attach = |admitted: Admitted| async move {
            let _permit = permit;
            broker.attach_file(&admitted, file).await
        };
        let attachment = Self::to_the_end(admitted, attach).await?.to_string();
        Ok(Response::new(pb::AttachFileResponse { attachment }))
    }
}

/// Reads a file to its end: no byte more than it was said to have. The outer error is the connection's.
async fn taken_in(
    mut parts: Streaming<pb::AttachFileRequest>,
) -> std::result::Result<Result<NewAttachment>, Status> {
    let first = parts.message().await?.and_then(|message| message.part);
    let Some(Part::File(pb::NewFile { name, content_type, size })) = first else {
        return Ok(Err(wrong("file", "expected as the first message what the file is")));
    };
    if let Err(fault) = check_file(&name, &content_type, size) {
        return Ok(Err(refused_file(fault)));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    while let Some(message) = parts.message().await? {
        match message.part {
            Some(Part::Bytes(part)) if part.len() <= size - bytes.len() => bytes.extend_from_slice(&part),
            Some(Part::Bytes(_)) => {
                return Ok(Err(wrong("size", "the file is larger than it was said to be")));
            }
            _ => return Ok(Err(wrong("bytes", "expected a further part of the file"))),
        }
    }
    if bytes.len() < size {
        return Ok(Err(wrong("size", "the file is smaller than it was said to be")));
    }
    Ok(Ok(NewAttachment { name, content_type, bytes }))
}

fn refused_file(fault: FileFault) -> BrokerError {
    match fault {
        FileFault::Name => {
            wrong("name", "expected 1 to 255 bytes, without a path and without hidden characters")
        }
        FileFault::Extension => wrong("name", "files with this extension can run, and Ravi refuses them"),
        FileFault::ContentType => wrong("content_type", "expected a type such as application/pdf"),
        FileFault::Size => wrong("size", "larger than 10,485,760 bytes"),
    }
}

fn wrong(field: &'static str, problem: &'static str) -> BrokerError {
    BrokerError::Argument { field, problem }
}

/// Reads the name of a mail.
fn mail(text: &str) -> Result<i64> {
    match convert::name("message", text)? {
        MessageRef { channel: Channel::Email, id } => Ok(id),
        MessageRef { channel: Channel::Sms, .. } => {
            Err(wrong("message", "expected a mail, such as email/42"))
        }
    }
}

fn subject(text: String) -> Result<Secret> {
    let subject = Secret::new(text);
    let line = subject.expose();
    let fits = !line.trim().is_empty() && line.len() <= MAX_SUBJECT_BYTES && !line.contains(char::is_control);
    if fits { Ok(subject) } else { Err(wrong("subject", "expected one line of 1 to 998 bytes")) }
}

/// Reads what a mail says and whom else it goes to. Of text is made HTML that shows the same.
fn answering(content: Option<pb::Content>) -> Result<Answering> {
    let pb::Content { text, html, cc, bcc, attachments } =
        content.ok_or_else(|| wrong("content", "expected text or html"))?;
    let (text, html) = (Secret::new(text), Secret::new(html));
    if text.len() > MAX_CONTENT_BYTES || html.len() > MAX_CONTENT_BYTES {
        return Err(wrong("content", "larger than 48 KiB"));
    }
    let content = match (text.expose().trim().is_empty(), html.expose().trim().is_empty()) {
        (false, true) => html_of(plain("content.text", text)?.expose()),
        (true, false) => html,
        _ => return Err(wrong("content", "expected text or html, and not both")),
    };
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(wrong("content.attachments", "expected at most 10"));
    }
    let attachments = attachments.iter().map(|file| convert::name("content.attachments", file));
    Ok(Answering {
        content,
        cc: addresses("content.cc", &cc)?,
        bcc: addresses("content.bcc", &bcc)?,
        attachments: attachments.collect::<Result<Vec<EntryUuid>>>()?,
    })
}

fn addresses(field: &'static str, texts: &[String]) -> Result<Vec<EmailAddress>> {
    texts.iter().map(|text| convert::name(field, text)).collect()
}

/// Line breaks and tabs are kept; other control characters are no text.
fn plain(field: &'static str, text: Secret) -> Result<Secret> {
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.expose().contains(strange) {
        Err(wrong(field, "expected no control characters"))
    } else {
        Ok(text)
    }
}

fn wire_sent(dispatched: Dispatched) -> pb::Sent {
    pb::Sent { message: dispatched.message.to_string(), budget: Some(wire_budget(dispatched.budget)) }
}

pub(super) fn wire_budget(standing: Standing) -> pb::SendBudget {
    let Standing { limit, used, resets_at } = standing;
    pb::SendBudget { limit, used, resets_at: convert::timestamp(resets_at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str, html: &str) -> Option<pb::Content> {
        Some(pb::Content { text: text.into(), html: html.into(), ..Default::default() })
    }

    #[test]
    fn a_mail_says_something_in_one_form() {
        assert_eq!(answering(content("a<b\n", "")).unwrap().content.expose(), "a&lt;b<br>\n");
        assert_eq!(answering(content("", "<b>a</b>")).unwrap().content.expose(), "<b>a</b>");
        let long = "a".repeat(MAX_CONTENT_BYTES + 1);
        for bad in [
            None,
            content("", ""),
            content(" ", ""),
            content("a", "b"),
            content("a\0", ""),
            content(&long, ""),
        ] {
            assert!(matches!(answering(bad), Err(BrokerError::Argument { .. })));
        }
    }

    #[test]
    fn a_subject_is_one_line() {
        assert!(subject("Plan \u{2013} Thursday".into()).is_ok());
        for bad in ["", "  ", "a\r\nBcc: x@example.org", "a\u{85}", &"a".repeat(999)] {
            assert!(subject(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_copy_goes_to_a_plain_address() {
        let with = |cc: &str| {
            let content = pb::Content { text: "a".into(), cc: vec![cc.into()], ..Default::default() };
            answering(Some(content)).map(|answer| answer.cc)
        };
        assert_eq!(with("Lee@Example.org").unwrap(), ["lee@example.org".parse().unwrap()]);
        for bad in ["", "Lee <lee@example.org>", "a@b.example, c@d.example", "a@b.example\r\n"] {
            assert!(matches!(with(bad), Err(BrokerError::Name { .. })), "{bad:?}");
        }
    }
}
