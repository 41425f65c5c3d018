//! The inbox of the session's identity: messages, and codes. One method per verb of the API.

use std::time::Duration;

use jiff::Timestamp;

use super::channel::{Events, answer, events};
use super::convert;
use super::{AgentClient, ClientError};
use crate::pb;
use crate::secret::Secret;
use crate::types::{Channel, MessageRef, WatchId};

/// What a list shows of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSummary {
    /// Its name.
    pub message: MessageRef,
    /// As it was given: a display name in it is what the sender wrote.
    pub from: String,
    /// As it was given.
    pub to: String,
    /// Codes and links are left out for who may not wait for them.
    pub subject: String,
    /// When Ravi got it.
    pub created_at: Timestamp,
    /// The identity sent it itself.
    pub outgoing: bool,
    /// How many files are attached.
    pub attachments: u32,
}

/// One page of messages.
pub struct MessagePage {
    /// The newest first.
    pub messages: Vec<MessageSummary>,
    /// For the next page; `None` on the last.
    pub next: Option<String>,
}

/// One message. Has no `Debug`, since it may hold a code.
pub struct Message {
    /// Who, when and what about.
    pub summary: MessageSummary,
    /// What it says, at most 32 KiB.
    pub text: Secret,
    /// There is more.
    pub truncated: bool,
    /// A code or a link was left out.
    pub redacted: bool,
    /// As it was given.
    pub cc: String,
    /// Of a mail.
    pub thread: String,
    /// Name, type and bytes of each attachment.
    pub attachments: Vec<(String, String, u64)>,
}

/// What a watch waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodeKind {
    /// Either.
    #[default]
    Any,
    /// A code.
    Code,
    /// A link.
    Link,
}

/// How to open a watch.
#[derive(Clone, Debug)]
pub struct OpenWatch {
    /// By which way the message comes.
    pub channel: Channel,
    /// Whom it has to be from; empty: anybody.
    pub from: String,
    /// A code, a link, or either.
    pub kind: CodeKind,
    /// For the audit trail.
    pub purpose: String,
    /// Absent: five minutes.
    pub ttl: Option<Duration>,
}

/// A watch that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeWatch {
    /// For [`AgentClient::await_code`].
    pub id: WatchId,
    /// Its end.
    pub expires_at: Timestamp,
}

/// A code or a link. Has no `Debug`.
pub struct Code {
    /// What to type, or where to go.
    pub value: Secret,
    /// It is a link.
    pub is_link: bool,
    /// In which message it came.
    pub message: MessageRef,
    /// Who sent it, as it was given.
    pub from: String,
    /// When Ravi got it.
    pub created_at: Timestamp,
    /// Of a link, the host that it leads to.
    pub link_host: String,
}

impl AgentClient {
    /// One page of messages. `channel` absent: of all that the session may read.
    pub async fn list_messages(
        &self,
        channel: Option<Channel>,
        page_size: u32,
        page: Option<&str>,
    ) -> Result<MessagePage, ClientError> {
        let page_token = page.unwrap_or_default().to_owned();
        let message = pb::ListMessagesRequest { channel: wire_channel(channel), page_size, page_token };
        let listed = answer(self.inbox().list_messages(self.request(message))).await?;
        let next = Some(listed.next_page_token).filter(|token| !token.is_empty());
        let messages = listed.messages.into_iter().map(summary).collect::<Result<_, _>>()?;
        Ok(MessagePage { messages, next })
    }

    /// One message.
    pub async fn message(&self, name: MessageRef) -> Result<Message, ClientError> {
        let request = self.request(pb::GetMessageRequest { message: name.to_string() });
        let read = answer(self.inbox().get_message(request)).await?.message.ok_or(ClientError::Protocol)?;
        let attachments = read.attachments.into_iter().map(|file| (file.name, file.content_type, file.size));
        Ok(Message {
            summary: summary(read.summary.ok_or(ClientError::Protocol)?)?,
            text: Secret::new(read.text),
            truncated: read.truncated,
            redacted: read.redacted,
            cc: read.cc,
            thread: read.thread,
            attachments: attachments.collect(),
        })
    }

    /// Begins to wait for a code. To be called before what makes the service send it.
    pub async fn open_watch(&self, open: OpenWatch) -> Result<CodeWatch, ClientError> {
        let OpenWatch { channel, from, kind, purpose, ttl } = open;
        let kind = match kind {
            CodeKind::Any => pb::CodeKind::Unspecified,
            CodeKind::Code => pb::CodeKind::Code,
            CodeKind::Link => pb::CodeKind::Link,
        };
        let (channel, ttl) = (wire_channel(Some(channel)), ttl.map(convert::wire_duration));
        let message = pb::OpenCodeWatchRequest { channel, from, kind: kind.into(), purpose, ttl };
        let opened = answer(self.inbox().open_code_watch(self.request(message))).await?;
        let watch = opened.watch.ok_or(ClientError::Protocol)?;
        let id = watch.watch_id.parse().map_err(|_| ClientError::Protocol)?;
        Ok(CodeWatch { id, expires_at: convert::timestamp(watch.expires_at)? })
    }

    /// Waits for the code of a watch, at most 50 seconds. `None`: it has not come yet; ask again.
    pub async fn await_code(&self, id: WatchId, wait: Option<Duration>) -> Result<Option<Code>, ClientError> {
        let wait = wait.map(convert::wire_duration);
        let request = self.request(pb::AwaitCodeRequest { watch_id: id.to_string(), wait });
        let Some(code) = answer(self.inbox().await_code(request)).await?.code else { return Ok(None) };
        Ok(Some(Code {
            is_link: code.kind == i32::from(pb::CodeKind::Link),
            value: Secret::new(code.value),
            message: code.message.parse().map_err(|_| ClientError::Protocol)?,
            from: code.from,
            created_at: convert::timestamp(code.created_at)?,
            link_host: code.link_host,
        }))
    }

    /// Ends a watch.
    pub async fn close_watch(&self, id: WatchId) -> Result<(), ClientError> {
        let request = self.request(pb::CloseCodeWatchRequest { watch_id: id.to_string() });
        answer(self.inbox().close_code_watch(request)).await.map(drop)
    }

    /// The messages that come in from now on. `None`: some were missed.
    pub async fn watch_inbox(
        &self,
        channel: Option<Channel>,
    ) -> Result<Events<Option<MessageSummary>>, ClientError> {
        let request = self.request(pb::WatchInboxRequest { channel: wire_channel(channel) });
        let mut inbox = self.inbox();
        events(inbox.watch_inbox(request), |event| event.message.map(summary).transpose()).await
    }
}

fn wire_channel(channel: Option<Channel>) -> i32 {
    let channel = match channel {
        None => pb::Channel::Unspecified,
        Some(Channel::Email) => pb::Channel::Email,
        Some(Channel::Sms) => pb::Channel::Sms,
    };
    channel.into()
}

fn summary(wire: pb::MessageSummary) -> Result<MessageSummary, ClientError> {
    Ok(MessageSummary {
        message: wire.message.parse().map_err(|_| ClientError::Protocol)?,
        from: wire.from,
        to: wire.to,
        subject: wire.subject,
        created_at: convert::timestamp(wire.created_at)?,
        outgoing: wire.outgoing,
        attachments: wire.attachments,
    })
}
