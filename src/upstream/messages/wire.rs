//! The JSON of messages and contacts (docs/ravi-api.md §3.2 to §3.6, §3.10), and the way from it to the domain's types.
//!
//! As in the wire of the vaults: `null` and `""` mean absent, unknown fields are ignored, doubled ones refused. What a
//! message says goes into a `Secret` as it is parsed. `false` in the place of a text: it was left out as too long.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::wire::{clean_up_to, text};
use super::super::{Attachment, Contact, Direction, Mail, Text};
use crate::secret::Secret;
use crate::types::EntryUuid;

/// Longest header that is kept, in characters.
const MAX_LINE: usize = 1024;
/// Longest subject that is kept, in characters.
const MAX_SUBJECT: usize = 1000;
/// Attachments of one mail that are listed.
const MAX_ATTACHMENTS: usize = 100;

#[derive(Deserialize)]
pub(super) struct MailRow {
    pub(super) id: i64,
    #[serde(deserialize_with = "time")]
    pub(super) created_dt: Timestamp,
    #[serde(default)]
    pub(super) direction: Way,
    #[serde(default)]
    pub(super) from_email: Line,
    #[serde(default)]
    pub(super) to_email: Line,
    #[serde(default)]
    pub(super) cc: Line,
    #[serde(default)]
    subject: Long,
    #[serde(default)]
    text_content: Long,
    #[serde(default)]
    html_content: Long,
    #[serde(default)]
    thread_id: Line,
    #[serde(default)]
    message_id: Line,
    #[serde(default)]
    is_read: Option<bool>,
    #[serde(default)]
    attachments: Option<Vec<AttachmentRow>>,
}

#[derive(Deserialize)]
struct AttachmentRow {
    #[serde(default)]
    filename: Line,
    #[serde(default)]
    content_type: Line,
    #[serde(default)]
    size: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct TextRow {
    pub(super) id: i64,
    #[serde(deserialize_with = "time")]
    pub(super) created_dt: Timestamp,
    #[serde(default)]
    pub(super) direction: Way,
    #[serde(default)]
    pub(super) from_number: Line,
    #[serde(default)]
    pub(super) to_number: Line,
    #[serde(default)]
    body: Long,
    #[serde(default)]
    is_read: Option<bool>,
}

/// A row of `GET /api/sms-inbox/`.
#[derive(Deserialize)]
pub(super) struct TalkRow {
    #[serde(deserialize_with = "text")]
    pub(super) conversation_id: String,
    #[serde(default)]
    pub(super) from_number: Line,
    #[serde(default)]
    pub(super) phone_number: Line,
    #[serde(deserialize_with = "time")]
    pub(super) latest_message_dt: Timestamp,
}

#[derive(Deserialize)]
pub(super) struct Talk {
    #[serde(deserialize_with = "text")]
    pub(super) conversation_id: String,
    pub(super) messages: Vec<TextRow>,
}

/// A row of `GET /api/email/`.
#[derive(Deserialize)]
pub(super) struct InboxRow {
    pub(super) id: i64,
    #[serde(deserialize_with = "text")]
    pub(super) email: String,
}

/// What is looked at of the answer to something sent.
#[derive(Deserialize)]
pub(super) struct SentRow {
    pub(super) id: i64,
    #[serde(default)]
    pub(super) from_email: Line,
}

#[derive(Deserialize)]
pub(super) struct Presigned {
    pub(super) uuid: EntryUuid,
    /// Whoever has it may upload.
    pub(super) upload_url: Secret,
}

/// The key of a new identity, beside the identity itself.
#[derive(Deserialize)]
pub(super) struct NewKey {
    #[serde(default)]
    pub(super) api_key: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct ContactRow {
    #[serde(default)]
    pub(super) identity: Option<i64>,
    #[serde(default, deserialize_with = "text")]
    display_name: String,
    #[serde(default, deserialize_with = "text")]
    nickname: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) email: String,
    #[serde(default, deserialize_with = "text")]
    pub(super) phone_number: String,
    #[serde(default)]
    is_trusted: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct PresignBody<'a> {
    pub(super) filename: &'a str,
    pub(super) content_type: &'a str,
    pub(super) size: usize,
}

/// Compose, reply and forward, each without the fields that it does not have.
#[derive(Serialize)]
pub(super) struct MailBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<&'a str>,
    pub(super) content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cc: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) bcc: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) attachment_uuids: &'a [EntryUuid],
}

#[derive(Serialize)]
pub(super) struct TextBody<'a> {
    pub(super) to_number: &'a str,
    pub(super) body: &'a str,
}

#[derive(Serialize)]
pub(super) struct NameBody<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct CountryBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) country_code: Option<&'a str>,
}

impl From<MailRow> for Mail {
    fn from(row: MailRow) -> Self {
        let oversized = row.text_content.is_left_out || row.html_content.is_left_out;
        let subject = Secret::new(clean_up_to(row.subject.text.expose(), MAX_SUBJECT));
        let attachments = row.attachments.unwrap_or_default();
        Self {
            id: row.id,
            created: row.created_dt,
            direction: row.direction.0.unwrap_or(Direction::Outgoing),
            from: row.from_email.shown(),
            to: row.to_email.shown(),
            cc: row.cc.shown(),
            subject,
            text: row.text_content.text,
            html: row.html_content.text,
            thread: row.thread_id.shown(),
            message_id: row.message_id.shown(),
            is_read: row.is_read.unwrap_or(false),
            attachments: attachments.into_iter().take(MAX_ATTACHMENTS).map(Into::into).collect(),
            oversized,
        }
    }
}

impl From<AttachmentRow> for Attachment {
    fn from(row: AttachmentRow) -> Self {
        let size = row.size.unwrap_or(0);
        Self { name: row.filename.shown(), content_type: row.content_type.shown(), size }
    }
}

impl From<TextRow> for Text {
    fn from(row: TextRow) -> Self {
        Self {
            id: row.id,
            created: row.created_dt,
            direction: row.direction.0.unwrap_or(Direction::Outgoing),
            from: row.from_number.shown(),
            to: row.to_number.shown(),
            body: row.body.text,
            is_read: row.is_read.unwrap_or(false),
        }
    }
}

impl From<ContactRow> for Contact {
    fn from(row: ContactRow) -> Self {
        let name = if row.display_name.is_empty() { row.nickname } else { row.display_name };
        let is_trusted = row.is_trusted.unwrap_or(false);
        Self { name, email: row.email, phone: row.phone_number, is_trusted }
    }
}

impl MailRow {
    /// Bytes that its texts take.
    pub(super) fn weight(&self) -> usize {
        self.text_content.text.len() + self.html_content.text.len()
    }
}

impl TextRow {
    /// Bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        self.body.text.len()
    }
}

/// `direction`; `None`: another word than the two.
#[derive(Clone, Copy, Default)]
pub(super) struct Way(pub(super) Option<Direction>);

impl<'de> Deserialize<'de> for Way {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Line::deserialize(deserializer)?.0.as_str() {
            "incoming" => Some(Direction::Incoming),
            "outgoing" => Some(Direction::Outgoing),
            _ => None,
        }))
    }
}

/// A header as it was given, in full: a text, or an array of texts.
#[derive(Default)]
pub(super) struct Line(pub(super) String);

impl Line {
    /// For people: bounded and plain.
    pub(super) fn shown(&self) -> String {
        clean_up_to(&self.0, MAX_LINE)
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or an array of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Line, E> {
        Ok(Line(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Line, E> {
        Ok(Line::default())
    }

    fn visit_bool<E: Error>(self, is_there: bool) -> Result<Line, E> {
        left_out(is_there).map(|()| Line::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Line, A::Error> {
        let mut joined = String::new();
        while let Some(Line(text)) = array.next_element()? {
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(&text);
        }
        Ok(Line(joined))
    }
}

/// What a message says.
struct Long {
    text: Secret,
    is_left_out: bool,
}

impl Default for Long {
    fn default() -> Self {
        Self { text: Secret::copy_of(""), is_left_out: false }
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LongVisitor)
    }
}

struct LongVisitor;

impl Visitor<'_> for LongVisitor {
    type Value = Long;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Long, E> {
        Ok(Long { text: Secret::copy_of(text), is_left_out: false })
    }

    fn visit_unit<E>(self) -> Result<Long, E> {
        Ok(Long::default())
    }

    fn visit_bool<E: Error>(self, is_there: bool) -> Result<Long, E> {
        left_out(is_there).map(|()| Long { is_left_out: true, ..Long::default() })
    }
}

fn left_out<E: Error>(is_there: bool) -> Result<(), E> {
    if is_there { Err(E::custom("not a text")) } else { Ok(()) }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom("not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(fields: &str) -> Option<Mail> {
        let row = format!(r#"{{"id":7,"created_dt":"2026-11-23T12:00:00.123456Z","new":[1],{fields}}}"#);
        serde_json::from_str::<MailRow>(&row).ok().map(Into::into)
    }

    #[test]
    fn null_the_empty_text_and_nothing_mean_absent() {
        let names = ["direction", "from_email", "to_email", "cc", "subject", "text_content", "html_content"];
        for value in ["null", "\"\""] {
            let pairs: Vec<String> = names.iter().map(|name| format!(r#""{name}":{value}"#)).collect();
            let others = r#""is_read":null,"attachments":null,"thread_id":null,"message_id":null"#;
            let mail = mail(&format!("{},{others}", pairs.join(","))).unwrap();
            let texts = [&mail.subject, &mail.text, &mail.html].map(|text| text.is_empty());
            assert_eq!((texts, mail.oversized, mail.is_read), ([true; 3], false, false));
            assert_eq!((mail.from + &mail.to + &mail.cc).as_str(), "");
        }
        assert!(mail(r#""cc":"""#).is_some());
    }

    #[test]
    fn a_header_is_a_text_or_an_array_of_them() {
        let shown = |cc: &str| mail(&format!(r#""cc":{cc}"#)).map(|mail| mail.cc);
        assert_eq!(shown(r#""a@b.c, d@e.f""#).as_deref(), Some("a@b.c, d@e.f"));
        assert_eq!(shown(r#"["a@b.c","d@e.f"]"#).as_deref(), Some("a@b.c, d@e.f"));
        assert_eq!(shown("[]").as_deref(), Some(""));
        assert_eq!(shown(r#""a\u0000\n\u202eb""#).as_deref(), Some("ab"));
        assert_eq!(shown(&format!("\"{}\"", "x".repeat(5000))).map(|cc| cc.len()), Some(MAX_LINE));
        assert_eq!((shown("7"), shown("true"), shown(r#"{"a":1}"#)), (None, None, None));
    }

    #[test]
    fn a_direction_that_is_not_known_is_outgoing() {
        let direction = |word: &str| mail(&format!(r#""direction":{word}"#)).map(|mail| mail.direction);
        assert_eq!(direction(r#""incoming""#), Some(Direction::Incoming));
        for word in [r#""outgoing""#, r#""Incoming""#, r#""draft""#, "null"] {
            assert_eq!(direction(word), Some(Direction::Outgoing), "{word}");
        }
    }

    #[test]
    fn what_was_left_out_makes_a_mail_oversized_and_leaves_the_rest() {
        let mail =
            mail(r#""subject":false,"text_content":"code 1","html_content":false,"cc":false"#).unwrap();
        assert_eq!((mail.oversized, mail.text.expose(), mail.html.expose()), (true, "code 1", ""));
        assert!(mail.subject.is_empty() && mail.cc.is_empty());
    }

    #[test]
    fn a_message_has_a_number_and_a_time() {
        let read = |row: &str| serde_json::from_str::<TextRow>(row).is_ok();
        assert!(read(r#"{"id":1,"created_dt":"2026-11-23T12:00:00Z"}"#));
        assert!(read(r#"{"id":1,"created_dt":"2026-11-23T12:00:00.5+02:00"}"#));
        for row in [
            r#"{"created_dt":"2026-11-23T12:00:00Z"}"#,
            r#"{"id":"1","created_dt":"2026-11-23T12:00:00Z"}"#,
            r#"{"id":1}"#,
            r#"{"id":1,"created_dt":"2026-11-23T12:00:00"}"#,
            r#"{"id":1,"created_dt":null}"#,
            r#"{"id":1,"id":2,"created_dt":"2026-11-23T12:00:00Z"}"#,
        ] {
            assert!(!read(row), "{row}");
        }
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let to = vec!["a@b.c"];
        let body = MailBody {
            to_email: None,
            subject: None,
            content: "<p>\"</p>",
            cc: to,
            bcc: Vec::new(),
            attachment_uuids: &[],
        };
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"content":"<p>\"</p>","cc":["a@b.c"]}"#);
        assert_eq!(serde_json::to_string(&CountryBody { country_code: None }).unwrap(), "{}");
    }
}
