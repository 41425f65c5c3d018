//! Sends whose outcome is unknown, so that what became of one can be asked; and the files that a session has
//! attached.
//!
//! A handle holds whom it went to, when, and hashes of what it said: never the words. It is of one session, and ends
//! with it. Bounded: [`MAX_UNKNOWN`] handles and [`MAX_FILES`] files for each session, the newest; the names of
//! `MAX_KNOWN` messages that surely went out. Imports `types` and `upstream`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};

use super::letter::addresses_of;
use crate::types::{
    Channel, EmailAddress, EntryUuid, IdentityUuid, MessageRef, PhoneNumber, SendId, SessionId,
};
use crate::upstream::{Direction, Mail, Text};

/// Handles of one session.
pub const MAX_UNKNOWN: usize = 64;
/// Files of one session.
pub const MAX_FILES: usize = 32;
/// Messages that are known to have gone out, of all identities.
const MAX_KNOWN: usize = 1024;
/// By so much Ravi's clock may be behind ours.
const SLACK: SignedDuration = SignedDuration::from_secs(60);
/// What mail programs put before a subject.
const PREFIXES: [&str; 3] = ["re:", "fwd:", "fw:"];

type Hash = [u8; 32];

/// Whom a message went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// A mail: its `To` first.
    Addresses(Vec<EmailAddress>),
    /// A text message.
    Number(PhoneNumber),
}

/// A send whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Who sent it.
    pub identity: IdentityUuid,
    /// Whom to.
    pub recipients: Recipients,
    /// When, by our clock.
    pub at: Timestamp,
    subject: Hash,
    content: Hash,
}

/// A message that can be it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub message: MessageRef,
    /// Subject and content are those of the send, and not one of them alone.
    pub exact: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It went out, as this message.
    Sent(MessageRef),
    /// It is not among what the identity sent.
    NotFound,
    /// Several messages fit, or one that fits several sends.
    Ambiguous,
}

/// What is kept of all sessions. Concurrency: any thread; locked for a look or a push.
#[derive(Default)]
pub struct Sends(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    sessions: HashMap<SessionId, OfSession>,
    known: VecDeque<(IdentityUuid, MessageRef)>,
}

#[derive(Default)]
struct OfSession {
    unknown: VecDeque<(SendId, Unknown)>,
    files: VecDeque<EntryUuid>,
}

impl Recipients {
    /// By which way it goes.
    pub fn channel(&self) -> Channel {
        match self {
            Self::Addresses(_) => Channel::Email,
            Self::Number(_) => Channel::Sms,
        }
    }
}

impl Unknown {
    /// Hashes what was said. The subject of a text message is empty.
    pub fn of(
        identity: IdentityUuid,
        recipients: Recipients,
        at: Timestamp,
        subject: &str,
        content: &str,
    ) -> Self {
        Self { identity, recipients, at, subject: hash(bare(subject)), content: hash(content.trim()) }
    }

    /// By which way it went.
    pub fn channel(&self) -> Channel {
        self.recipients.channel()
    }

    /// What was created before is another message.
    pub fn not_before(&self) -> Timestamp {
        self.at.checked_sub(SLACK).unwrap_or(Timestamp::MIN)
    }

    /// The mails that can be it.
    pub fn among_mail(&self, mails: &[Mail]) -> Vec<Candidate> {
        let Recipients::Addresses(addresses) = &self.recipients else { return Vec::new() };
        let to = addresses.first();
        let fits = |mail: &Mail| {
            let is_ours = mail.direction == Direction::Outgoing && mail.created >= self.not_before();
            let reached = addresses_of(&mail.to).unwrap_or_default();
            let says = [&mail.html, &mail.text].map(|part| hash(part.expose().trim()) == self.content);
            let same = [says.contains(&true), hash(bare(mail.subject.expose())) == self.subject];
            let fits = is_ours && to.is_some_and(|to| reached.contains(to));
            let message = MessageRef { channel: Channel::Email, id: mail.id };
            // Ravi may have changed either.
            (fits && (same.contains(&true) || mail.oversized))
                .then_some(Candidate { message, exact: same == [true; 2] })
        };
        mails.iter().filter_map(fits).collect()
    }

    /// The text messages that can be it.
    pub fn among_texts(&self, texts: &[Text]) -> Vec<Candidate> {
        let Recipients::Number(number) = &self.recipients else { return Vec::new() };
        let fits = |text: &&Text| {
            let is_ours = text.direction == Direction::Outgoing && text.created >= self.not_before();
            is_ours && text.to == number.as_str() && hash(text.body.expose().trim()) == self.content
        };
        let named = |text: &Text| {
            let message = MessageRef { channel: Channel::Sms, id: text.id };
            Candidate { message, exact: true }
        };
        texts.iter().filter(fits).map(named).collect()
    }

    /// Whether what fits one of them may as well be the other.
    fn resembles(&self, other: &Self, exact: bool) -> bool {
        let same = [self.subject == other.subject, self.content == other.content];
        let says = if exact { same == [true; 2] } else { same.contains(&true) };
        self.identity == other.identity && self.recipients == other.recipients && says
    }
}

impl Sends {
    /// Keeps a send whose outcome is unknown. `None`: the system's random source failed.
    pub fn keep(&self, session: SessionId, unknown: Unknown) -> Option<SendId> {
        let mut id = [0; 16];
        rand::fill(&mut id).ok()?;
        let id = SendId(id);
        push(&mut self.lock().sessions.entry(session).or_default().unknown, (id, unknown), MAX_UNKNOWN);
        Some(id)
    }

    /// The send of a session, if it is remembered.
    pub fn find(&self, session: SessionId, id: SendId) -> Option<Unknown> {
        let kept = self.lock();
        let found = kept.sessions.get(&session)?.unknown.iter().find(|(other, _)| *other == id)?;
        Some(found.1.clone())
    }

    /// Notes a message that surely went out, so that no other send is taken for it.
    pub fn know(&self, identity: IdentityUuid, message: MessageRef) {
        push(&mut self.lock().known, (identity, message), MAX_KNOWN);
    }

    /// What became of a send, by the messages that can be it.
    pub fn judge(&self, unknown: &Unknown, candidates: &[Candidate]) -> Fate {
        let kept = self.lock();
        let is_known = |one: &Candidate| kept.known.contains(&(unknown.identity, one.message));
        let mut open: Vec<Candidate> = candidates.iter().filter(|one| !is_known(one)).copied().collect();
        let exact = open.iter().any(|one| one.exact);
        open.retain(|one| one.exact || !exact);
        let sends = kept.sessions.values().flat_map(|session| &session.unknown);
        let alike = sends.filter(|(_, other)| unknown.resembles(other, exact)).count();
        match (open.as_slice(), alike) {
            ([], _) => Fate::NotFound,
            ([one], 0 | 1) => Fate::Sent(one.message),
            _ => Fate::Ambiguous,
        }
    }

    /// Notes a file that a session may attach.
    pub fn add_file(&self, session: SessionId, file: EntryUuid) {
        push(&mut self.lock().sessions.entry(session).or_default().files, file, MAX_FILES);
    }

    /// Whether all of them are files of the session.
    pub fn has_files(&self, session: SessionId, files: &[EntryUuid]) -> bool {
        let kept = self.lock();
        let own = kept.sessions.get(&session).map(|session| &session.files);
        files.iter().all(|file| own.is_some_and(|own| own.contains(file)))
    }

    /// A session is over.
    pub fn forget(&self, session: SessionId) {
        self.lock().sessions.remove(&session);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// A subject without what answers put before it.
fn bare(subject: &str) -> &str {
    let mut rest = subject.trim();
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|prefix| rest.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
    {
        rest = rest[prefix.len()..].trim_start();
    }
    rest
}

fn hash(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const IDENTITY: IdentityUuid = IdentityUuid(uuid::Uuid::nil());
    const SESSION: SessionId = SessionId([1; 16]);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn unknown(subject: &str, content: &str) -> Unknown {
        let to = Recipients::Addresses(vec!["kim@example.org".parse().unwrap()]);
        Unknown::of(IDENTITY, to, at(1000), subject, content)
    }

    fn mail(id: i64, to: &str, subject: &str, created: i64) -> Mail {
        let text = |text: &str| Secret::copy_of(text);
        Mail {
            id,
            created: at(created),
            direction: Direction::Outgoing,
            from: "me@example.com".into(),
            to: to.into(),
            cc: String::new(),
            subject: text(subject),
            text: text("words"),
            html: text("<p>words</p>"),
            thread: String::new(),
            message_id: String::new(),
            is_read: true,
            attachments: Vec::new(),
            oversized: false,
        }
    }

    #[test]
    fn a_send_is_found_by_recipient_time_and_what_it_said() {
        let send = unknown("Plan", "<p>Ok</p>");
        let mails = [
            mail(1, "kim@example.org", "Plan", 900),
            mail(2, "lee@example.org", "Plan", 1001),
            mail(3, "Kim <kim@example.org>", "Re: re: Plan", 941),
            mail(4, "kim@example.org", "Other", 1001),
        ];
        let names: Vec<i64> = send.among_mail(&mails).iter().map(|one| one.message.id).collect();
        assert_eq!(names, [3]);
        let by_content = unknown("Gone", " <p>words</p>\n");
        assert_eq!(by_content.among_mail(&mails[3..]).len(), 1);
    }

    #[test]
    fn what_went_out_for_sure_is_not_taken_for_another_send() {
        let (sends, send) = (Sends::default(), unknown("Plan", "a"));
        let id = sends.keep(SESSION, send.clone()).unwrap();
        let message = |id| MessageRef { channel: Channel::Email, id };
        let loose = |id| Candidate { message: message(id), exact: false };
        let exact = |id| Candidate { exact: true, ..loose(id) };
        assert_eq!(sends.judge(&send, &[loose(4)]), Fate::Sent(message(4)));
        sends.know(IDENTITY, message(4));
        assert_eq!(sends.judge(&send, &[loose(4)]), Fate::NotFound);
        assert_eq!(sends.judge(&send, &[loose(5), loose(6)]), Fate::Ambiguous);
        assert_eq!(sends.judge(&send, &[loose(5), exact(6)]), Fate::Sent(message(6)));
        sends.keep(SESSION, unknown("Plan", "b")).unwrap();
        assert_eq!(sends.judge(&send, &[loose(5)]), Fate::Ambiguous, "it may be the other one");
        assert_eq!(
            sends.judge(&send, &[exact(5)]),
            Fate::Sent(message(5)),
            "the other one said something else"
        );
        assert_eq!(sends.find(SESSION, id), Some(send));
        assert_eq!(sends.find(SessionId([2; 16]), id), None);
        sends.forget(SESSION);
        assert_eq!(sends.find(SESSION, id), None);
    }

    #[test]
    fn a_session_keeps_its_newest_sends_and_files() {
        let sends = Sends::default();
        let first = sends.keep(SESSION, unknown("", "")).unwrap();
        let file = |number: u128| EntryUuid(uuid::Uuid::from_u128(number));
        for number in 0..100 {
            sends.keep(SESSION, unknown("", "")).unwrap();
            sends.add_file(SESSION, file(number));
        }
        assert_eq!(sends.find(SESSION, first), None);
        let kept = sends.lock();
        assert_eq!(kept.sessions[&SESSION].unknown.len(), MAX_UNKNOWN);
        drop(kept);
        assert!(sends.has_files(SESSION, &[file(99), file(68)]));
        assert!(!sends.has_files(SESSION, &[file(99), file(67)]));
        assert!(!sends.has_files(SessionId([2; 16]), &[file(99)]));
        assert!(sends.has_files(SESSION, &[]));
    }
}
