//! Messages: wire to domain, parsed or refused; domain to wire.

use super::convert::{count, timestamp};
use super::retire::padding;
use crate::broker::{BrokerError, PAGE, Read, Result};
use crate::inbox::code::{Kind, Wanted};
use crate::inbox::message::{Message, Shown};
use crate::inbox::sender::SenderPattern;
use crate::inbox::watch::Given;
use crate::pb;
use crate::types::{Channel, WatchId};

/// Messages of a page, if nothing is said.
const USUAL_PAGE: usize = 20;
/// Further back than this nobody pages.
const FARTHEST: usize = 100_000;

/// Reads a channel; unspecified means every one.
pub(super) fn channel(wire: i32) -> Result<Option<Channel>> {
    match pb::Channel::try_from(wire) {
        Ok(pb::Channel::Unspecified) => Ok(None),
        Ok(pb::Channel::Email) => Ok(Some(Channel::Email)),
        Ok(pb::Channel::Sms) => Ok(Some(Channel::Sms)),
        Err(_) => Err(BrokerError::Argument { field: "channel", problem: "expected email or sms" }),
    }
}

pub(super) fn page_size(wire: u32) -> usize {
    match usize::try_from(wire).unwrap_or(PAGE) {
        0 => USUAL_PAGE,
        size => size.min(PAGE),
    }
}

/// How many of each channel come before: `<mails>.<texts>`.
pub(super) fn page_token([mails, texts]: [usize; 2]) -> String {
    format!("{mails}.{texts}")
}

pub(super) fn place(token: &str) -> Result<[usize; 2]> {
    if token.is_empty() {
        return Ok([0, 0]);
    }
    let number = |text: &str| text.parse().ok().filter(|place| *place <= FARTHEST);
    let places = token.split_once('.').and_then(|(mails, texts)| Some([number(mails)?, number(texts)?]));
    let problem = "expected next_page_token of the page before";
    places.ok_or(BrokerError::Argument { field: "page_token", problem })
}

/// Reads whom a message has to be from; empty means anybody.
pub(super) fn pattern(text: &str) -> Result<Option<SenderPattern>> {
    let problem =
        "expected an address, a domain of your own choice, a number, a short code or a sender's name";
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| BrokerError::Argument { field: "from", problem }),
    }
}

pub(super) fn wanted(wire: i32) -> Result<Wanted> {
    match pb::CodeKind::try_from(wire) {
        Ok(pb::CodeKind::Unspecified) => Ok(Wanted::Either),
        Ok(pb::CodeKind::Code) => Ok(Wanted::Code),
        Ok(pb::CodeKind::Link) => Ok(Wanted::Link),
        Err(_) => Err(BrokerError::Argument { field: "kind", problem: "expected a code or a link" }),
    }
}

/// Reads the handle of a watch. A malformed one is as absent as an unknown one.
pub(super) fn watch_id(text: &str) -> Result<WatchId> {
    text.parse().map_err(|_| BrokerError::WatchNotAvailable)
}

pub(super) fn summary(message: &Message, shown: &Shown) -> pb::MessageSummary {
    pb::MessageSummary {
        message: message.name.to_string(),
        channel: wire_channel(message.name.channel).into(),
        from: message.from.clone(),
        to: message.to.clone(),
        subject: shown.subject.expose().to_owned(),
        created_at: timestamp(message.created),
        outgoing: message.outgoing,
        attachments: count(message.attachments.len()),
    }
}

pub(super) fn message(read: Read) -> pb::Message {
    let Read { message, shown } = read;
    let summary = Some(summary(&message, &shown));
    let attachments = message.attachments.into_iter().map(|attachment| pb::Attachment {
        name: attachment.name,
        content_type: attachment.content_type,
        size: attachment.size,
    });
    let text = shown.text.expose().to_owned();
    pb::Message {
        padding: padding(&text),
        summary,
        text,
        truncated: shown.truncated,
        redacted: shown.redacted,
        cc: message.cc,
        thread: message.thread,
        attachments: attachments.collect(),
    }
}

pub(super) fn code(given: Given) -> pb::Code {
    let value = given.value.expose().to_owned();
    let kind = match given.kind {
        Kind::Code => pb::CodeKind::Code,
        Kind::Link => pb::CodeKind::Link,
    };
    pb::Code {
        padding: padding(&value),
        value,
        kind: kind.into(),
        message: given.message.to_string(),
        from: given.from,
        created_at: timestamp(given.created),
        link_host: given.host.unwrap_or_default(),
    }
}

fn wire_channel(channel: Channel) -> pb::Channel {
    match channel {
        Channel::Email => pb::Channel::Email,
        Channel::Sms => pb::Channel::Sms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_as_it_was_printed_and_nothing_else_does() {
        assert_eq!(place(&page_token([20, 3])), Ok([20, 3]));
        assert_eq!(place(""), Ok([0, 0]));
        for token in ["1", "1.", ".1", "-1.0", "1.0.0", "a.b", "99999999999999999999.0", "100001.0"] {
            assert!(place(token).is_err(), "{token}");
        }
    }
}
