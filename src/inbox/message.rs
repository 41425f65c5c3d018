//! One message, whichever way it came, and what of it is shown.
//!
//! What it says is a stranger's text that may hold a code: it is dropped, and wiped, as soon as it was looked at.

use jiff::Timestamp;

use super::code::{Found, Wanted, extract};
use super::redact::redact;
use super::sender::Sender;
use super::text::{self, Seen};
use crate::secret::Secret;
use crate::types::{Channel, MessageRef};
use crate::upstream::{Attachment, Direction, Mail, Text};

/// Of a text that is shown, in bytes.
const MAX_SHOWN: usize = 32 * 1024;
/// Of a subject that is shown, in characters.
const MAX_SUBJECT: usize = 300;

/// A mail or a text message as Ravi has it.
pub struct Message {
    /// Its name.
    pub name: MessageRef,
    /// When Ravi got it, by Ravi's clock.
    pub created: Timestamp,
    /// The identity sent it itself.
    pub outgoing: bool,
    /// As it was given: not parsed.
    pub from: String,
    /// As it was given.
    pub to: String,
    /// As it was given; empty for a text message.
    pub cc: String,
    /// Empty for a text message.
    pub thread: String,
    /// None for a text message.
    pub attachments: Vec<Attachment>,
    subject: Secret,
    text: Secret,
    html: Secret,
}

/// What is shown of a message.
pub struct Shown {
    /// Empty for a text message.
    pub subject: Secret,
    /// As a person would see it, at most 32 KiB.
    pub text: Secret,
    /// There is more.
    pub truncated: bool,
    /// A code or a link was left out.
    pub redacted: bool,
}

impl From<Mail> for Message {
    fn from(mail: Mail) -> Self {
        Self {
            name: MessageRef { channel: Channel::Email, id: mail.id },
            created: mail.created,
            outgoing: mail.direction == Direction::Outgoing,
            from: mail.from,
            to: mail.to,
            cc: mail.cc,
            thread: mail.thread,
            attachments: mail.attachments,
            subject: mail.subject,
            text: mail.text,
            html: mail.html,
        }
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        let nothing = || Secret::new(String::new());
        Self {
            name: MessageRef { channel: Channel::Sms, id: text.id },
            created: text.created,
            outgoing: text.direction == Direction::Outgoing,
            from: text.from,
            to: text.to,
            cc: String::new(),
            thread: String::new(),
            attachments: Vec::new(),
            subject: nothing(),
            text: text.body,
            html: nothing(),
        }
    }
}

impl Message {
    /// Who sent it. `None`: not plainly one sender, so it matches nobody.
    pub fn sender(&self) -> Option<Sender> {
        match self.name.channel {
            Channel::Email => Sender::mail(&self.from).ok(),
            Channel::Sms => Sender::sms(&self.from).ok(),
        }
    }

    /// The one code or link in it.
    pub fn find(&self, wanted: Wanted) -> Option<Found> {
        extract(&self.parts(), wanted)
    }

    /// The message as it may be shown: whole to whoever may be given codes, without them to others.
    pub fn shown(&self, with_codes: bool) -> Shown {
        if with_codes { self.whole() } else { self.redacted() }
    }

    fn whole(&self) -> Shown {
        let subject: String = self.subject.expose().chars().take(MAX_SUBJECT).collect();
        let (text, cut) = match self.text.expose() {
            text if text.trim().is_empty() && !self.html.is_empty() => {
                let seen = Seen::html("", self.html.expose());
                (seen.text(), seen.is_cut())
            }
            text => (bounded(text).to_owned(), text.len() > MAX_SHOWN),
        };
        let truncated = cut || text.len() > MAX_SHOWN;
        let text = Secret::copy_of(bounded(&text));
        Shown { subject: Secret::new(subject), text, truncated, redacted: false }
    }

    fn redacted(&self) -> Shown {
        let left = redact(&self.parts());
        let text = if left.text.trim().is_empty() { left.html } else { left.text };
        let whole = self.whole();
        let (subject, shown) = (Secret::copy_of(prefix(&left.subject, MAX_SUBJECT)), bounded(&text));
        let redacted = subject.expose() != whole.subject.expose() || *shown != *bounded(whole.text.expose());
        let truncated = whole.truncated || shown.len() < text.len();
        Shown { subject, text: Secret::copy_of(shown), truncated, redacted }
    }

    fn parts(&self) -> text::Message<'_> {
        let channel = match self.name.channel {
            Channel::Email => text::Channel::Mail,
            Channel::Sms => text::Channel::Sms,
        };
        let (subject, text, html) = (self.subject.expose(), self.text.expose(), self.html.expose());
        text::Message { channel, subject, text, html }
    }
}

/// At most as many bytes as are shown, cut between two characters.
fn bounded(text: &str) -> &str {
    let end = (0..=MAX_SHOWN.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

fn prefix(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str, text: &str, html: &str) -> Message {
        Message::from(Mail {
            id: 1,
            created: Timestamp::UNIX_EPOCH,
            direction: Direction::Incoming,
            from: "GitHub <noreply@github.com>".into(),
            to: "notes@example.com".into(),
            cc: String::new(),
            subject: Secret::copy_of(subject),
            text: Secret::copy_of(text),
            html: Secret::copy_of(html),
            thread: String::new(),
            message_id: String::new(),
            is_read: false,
            attachments: Vec::new(),
            oversized: false,
        })
    }

    #[test]
    fn who_may_not_be_given_codes_is_shown_none() {
        let mail = mail("Your code is 482913", "Your verification code is 482913.", "");
        let (whole, left) = (mail.shown(true), mail.shown(false));
        assert!(whole.text.expose().contains("482913") && !whole.redacted);
        assert!(left.redacted && !left.text.expose().contains("482913"), "the code was left in");
        assert!(!left.subject.expose().contains("482913"));
    }

    #[test]
    fn what_holds_no_code_is_shown_as_it_is() {
        let left = mail("Lunch", "See you at noon.\nBring cake.", "").shown(false);
        assert_eq!(
            (left.text.expose(), left.redacted, left.truncated),
            ("See you at noon.\nBring cake.", false, false)
        );
    }

    #[test]
    fn a_mail_of_html_alone_is_shown_as_text() {
        let shown = mail("Hello", "", "<p>Good <b>day</b></p><script>x()</script>").shown(true);
        assert_eq!(shown.text.expose().trim(), "Good day");
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let shown = mail("", &"\u{fc}".repeat(40_000), "").shown(true);
        assert!(shown.truncated && shown.text.len() <= MAX_SHOWN);
    }
}
