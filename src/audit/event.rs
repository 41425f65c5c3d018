//! What happened, in a form that cannot express a secret: closed words, names and numbers. The one
//! free text is the caller's own [`Reason`], which nobody believes.
//!
//! An event borrows what it tells about and is written down at once. Imports `types` and `approval`'s words.

use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::words::{Cause, Outcome, Verb};
use crate::approval::Wish;
use crate::types::{
    ApprovalId, DenialId, DispatchId, IdentityUuid, LeaseId, MessageRef, Reason, Resource, RoleName,
    SessionId, Subject,
};

/// Who did it, as far as it is known. Held by the session, so that an event costs no copy.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// The session.
    pub session: Option<SessionId>,
    /// The role, or the one that was asked for.
    pub role: Option<RoleName>,
    /// The Ravi identity behind the role.
    pub identity: Option<IdentityUuid>,
    /// User of the calling process, from the kernel.
    pub uid: Option<u32>,
    /// Process id of the caller, from the kernel.
    pub pid: Option<i32>,
    /// Executable of the caller, from the kernel.
    pub exe: Option<Box<Path>>,
}

/// What an act of the operator, or a refused call of an agent, was aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One session: `ses_…`.
    Session(SessionId),
    /// One lease: `lea_…`.
    Lease(LeaseId),
    /// All sessions of a role: `role/NAME`.
    Role(&'a RoleName),
    /// What is no resource: a message, recipients.
    Subject(&'a Subject),
    /// One delivery to a callback: `dsp_…`.
    Dispatch(DispatchId),
    /// Everything: `all`.
    All,
}

/// One thing that happened: `audit.record(&Event::of(Verb::LeaseRead, &actor).lease(id))`.
///
/// [`Outcome::Allowed`] unless it is [`denied`](Self::denied) or has [`failed`](Self::failed).
#[derive(Clone, Debug)]
pub struct Event<'a> {
    verb: Verb,
    outcome: Outcome,
    cause: Option<Cause>,
    actor: &'a Actor,
    identity: Option<IdentityUuid>,
    lease: Option<LeaseId>,
    resource: Option<&'a Resource>,
    target: Option<Target<'a>>,
    ttl: Option<Duration>,
    exposed: Option<bool>,
    ended_sessions: Option<u32>,
    ended_leases: Option<u32>,
    reason: Option<&'a Reason>,
    version: Option<&'static str>,
    cut_bytes: Option<u64>,
    unrecorded: Option<u64>,
    denial: Option<DenialId>,
    previous: Option<&'a str>,
    message: Option<MessageRef>,
    attempts: Option<u32>,
    approval: Option<ApprovalId>,
    wish: Option<&'a Wish>,
    operator: Option<(u32, Option<u32>)>,
}

impl<'a> Event<'a> {
    /// `actor` did `verb`, and it was allowed.
    pub const fn of(verb: Verb, actor: &'a Actor) -> Self {
        Self {
            verb,
            outcome: Outcome::Allowed,
            cause: None,
            actor,
            identity: None,
            lease: None,
            resource: None,
            target: None,
            ttl: None,
            exposed: None,
            ended_sessions: None,
            ended_leases: None,
            reason: None,
            version: None,
            cut_bytes: None,
            unrecorded: None,
            denial: None,
            previous: None,
            message: None,
            attempts: None,
            approval: None,
            wish: None,
            operator: None,
        }
    }

    /// Something about `lease` of `resource`.
    pub const fn lease(verb: Verb, actor: &'a Actor, lease: LeaseId, resource: &'a Resource) -> Self {
        Self { lease: Some(lease), ..Self::of(verb, actor).resource(resource) }
    }

    /// The daemon itself did `verb`; the record names its version.
    pub const fn daemon(verb: Verb) -> Event<'static> {
        Event { version: Some(env!("CARGO_PKG_VERSION")), ..Event::of(verb, &NOBODY) }
    }

    /// A rule refused it.
    pub const fn denied(self, rule: Cause) -> Self {
        Self { outcome: Outcome::Denied, cause: Some(rule), ..self }
    }

    /// The rules let it through and it did not work.
    pub const fn failed(self, cause: Cause) -> Self {
        Self { outcome: Outcome::Failed, cause: Some(cause), ..self }
    }

    /// Why something ended that was neither denied nor failed.
    pub const fn because(self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// Whose credential it was about, where the actor does not say: a role's identity is looked up late.
    pub const fn identity(self, identity: IdentityUuid) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// What it was about, where there is no lease.
    pub const fn resource(self, resource: &'a Resource) -> Self {
        Self { resource: Some(resource), ..self }
    }

    /// How long it is granted for. Whole seconds are written.
    pub const fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// What the caller said about its purpose.
    pub const fn reason(self, reason: Option<&'a Reason>) -> Self {
        Self { reason, ..self }
    }

    /// At the end of a lease: whether the caller has seen a value that stays good, so that only a
    /// rotation ends its access.
    pub const fn exposed(self, exposed: bool) -> Self {
        Self { exposed: Some(exposed), ..self }
    }

    /// What an act of the operator, or a refused call of an agent, was aimed at.
    pub const fn target(self, target: Target<'a>) -> Self {
        Self { target: Some(target), ..self }
    }

    /// How many sessions and leases ended by it.
    pub const fn ended(self, sessions: u32, leases: u32) -> Self {
        Self { ended_sessions: Some(sessions), ended_leases: Some(leases), ..self }
    }

    /// How many refusals before this one were counted and not written, because there were too many.
    pub const fn unrecorded(self, refusals: u64) -> Self {
        Self { unrecorded: if refusals > 0 { Some(refusals) } else { None }, ..self }
    }

    /// Under which id the caller was refused, for `explain`.
    pub const fn denial(self, id: DenialId) -> Self {
        Self { denial: Some(id), ..self }
    }

    /// The message that a callback is told of, and how many attempts were made, if any.
    pub const fn delivery(self, id: DispatchId, message: MessageRef, attempts: u32) -> Self {
        let attempts = if attempts > 0 { Some(attempts) } else { None };
        Self { target: Some(Target::Dispatch(id)), message: Some(message), attempts, ..self }
    }

    /// Which question to the operator it is about.
    pub const fn approval(self, id: ApprovalId) -> Self {
        Self { approval: Some(id), ..self }
    }

    /// What the operator is asked about: verb, and resource or recipients.
    pub const fn wish(self, wish: Option<&'a Wish>) -> Self {
        Self { wish, ..self }
    }

    /// Who decided, by the kernel: user and process.
    pub const fn operator(self, uid: u32, pid: Option<u32>) -> Self {
        Self { operator: Some((uid, pid)), ..self }
    }

    /// `audit.recovered`: so many bytes of an unfinished record were cut off.
    pub(super) const fn recovered(cut_bytes: u64) -> Event<'static> {
        Event { cut_bytes: Some(cut_bytes), ..Event::of(Verb::AuditRecovered, &NOBODY) }
    }

    /// `audit.rotated`: the records before this one are in the file `previous`.
    pub(super) const fn rotated(previous: &'a str) -> Self {
        Self { previous: Some(previous), ..Self::of(Verb::AuditRotated, &NOBODY) }
    }

    /// What metrics may tell of it.
    pub(super) const fn counted(&self) -> (Verb, Outcome, Option<&RoleName>) {
        (self.verb, self.outcome, self.actor.role.as_ref())
    }

    /// The record's own fields as one JSON object. `time` is RFC 3339 with microseconds. Written by hand and not by a
    /// serializer: it is done under the one lock of the trail, before every value that leaves.
    pub(super) fn to_json(&self, stamp: &mut Stamp, time: Timestamp) -> String {
        let Event { actor, .. } = self;
        let mut fields = Fields(String::with_capacity(USUAL));
        fields.quoted("time", |text| stamp.push(text, time));
        fields.word("event", Some(self.verb));
        fields.word("outcome", Some(self.outcome));
        fields.word("cause", self.cause);
        fields.id("session", actor.session, SessionId::push_to);
        fields.text("role", actor.role.as_ref().map(RoleName::as_str));
        fields.id("identity", self.identity.or(actor.identity), |uuid, text| {
            text.push_str(uuid.0.as_hyphenated().encode_lower(&mut [0; 36]));
        });
        fields.number("uid", actor.uid);
        fields.number("pid", actor.pid);
        fields.text("exe", actor.exe.as_deref().map(ascii).as_deref());
        fields.id("lease", self.lease, LeaseId::push_to);
        fields.printed("resource", self.resource);
        fields.printed("target", self.target);
        fields.printed("approval", self.approval);
        fields.text("action", self.wish.map(|wish| wish.verb));
        let about = self.wish.map(|wish| bounded(&wish.about)).filter(|about| !about.is_empty());
        fields.text("about", about.as_deref());
        fields.number("operator_uid", self.operator.map(|(uid, _)| uid));
        fields.number("operator_pid", self.operator.and_then(|(_, pid)| pid));
        fields.printed("message", self.message);
        fields.number("attempts", self.attempts);
        fields.number("ttl", self.ttl.map(|ttl| ttl.as_secs()));
        fields.flag("exposed", self.exposed);
        fields.number("ended_sessions", self.ended_sessions);
        fields.number("ended_leases", self.ended_leases);
        fields.text("version", self.version);
        fields.number("cut_bytes", self.cut_bytes);
        fields.number("unrecorded", self.unrecorded);
        fields.printed("denial", self.denial);
        fields.text("previous", self.previous);
        fields.printed("reason", self.reason);
        fields.0.push('}');
        fields.0
    }
}

/// Bytes of most records.
const USUAL: usize = 512;

/// The actor of what the daemon does by itself.
pub static NOBODY: Actor =
    Actor { session: None, role: None, identity: None, uid: None, pid: None, exe: None };

/// Prints times, of which many have the same second.
#[derive(Default)]
pub(super) struct Stamp {
    second: Option<i64>,
    /// That second, without its zone.
    text: String,
}

impl Stamp {
    fn push(&mut self, text: &mut String, time: Timestamp) {
        if time < Timestamp::UNIX_EPOCH {
            return text.push_str(&format!("{time:.6}"));
        }
        let (second, micros) = (time.as_second(), time.subsec_microsecond());
        if self.second != Some(second) {
            self.text = format!("{time:.0}");
            self.text.pop();
            self.second = Some(second);
        }
        text.push_str(&self.text);
        let mut digits = *b".000000Z";
        let mut rest = micros.unsigned_abs();
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

/// Prints a closed word by the name that its type gives it.
struct Word<T>(T);

impl<T: Serialize> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}

/// A JSON object without its closing brace. Absent values are left out.
struct Fields(String);

impl Fields {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// A text that has nothing in it to escape.
    fn quoted(&mut self, name: &str, push: impl FnOnce(&mut String)) {
        self.name(name);
        self.0.push('"');
        push(&mut self.0);
        self.0.push('"');
    }

    fn id<T>(&mut self, name: &str, id: Option<T>, push: fn(&T, &mut String)) {
        if let Some(id) = id {
            self.quoted(name, |text| push(&id, text));
        }
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            return self.quoted(name, |text| text.push_str(value));
        }
        self.name(name);
        self.0.push_str(&serde_json::Value::from(value).to_string());
    }

    fn printed(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.text(name, Some(&value.to_string()));
        }
    }

    fn word(&mut self, name: &str, word: Option<impl Serialize>) {
        if let Some(word) = word {
            self.quoted(name, |text| {
                // Writing to a text does not fail.
                let _ = write!(text, "{}", Word(word));
            });
        }
    }

    fn number(&mut self, name: &str, value: Option<impl itoa::Integer>) {
        if let Some(value) = value {
            self.name(name);
            self.0.push_str(itoa::Buffer::new().format(value));
        }
    }

    fn flag(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.name(name);
            self.0.push_str(if value { "true" } else { "false" });
        }
    }
}

/// A path as printable ASCII: agents choose the names of their programs, and the trail is read on
/// terminals. Bounded, because it is part of every record; the end of the path tells most.
fn ascii(path: &Path) -> String {
    const LONGEST: usize = 1024;
    let bytes = path.as_os_str().as_bytes();
    if let Some(plain) = path.to_str().filter(|path| bytes.len() <= LONGEST && path.bytes().all(is_plain)) {
        return plain.to_owned();
    }
    match bytes.len().checked_sub(LONGEST) {
        None | Some(0) => bytes.escape_ascii().to_string(),
        Some(cut) => format!("...{}", bytes[cut..].escape_ascii()),
    }
}

/// Whether `escape_ascii` leaves it as it is.
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\'' | b'\\')
}

/// Names that are all of one record: many recipients do not make a long one.
fn bounded(about: &str) -> String {
    const LONGEST: usize = 512;
    match about.char_indices().nth(LONGEST) {
        None => about.to_owned(),
        Some((cut, _)) => format!("{}...", &about[..cut]),
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => id.fmt(f),
            Self::Lease(id) => id.fmt(f),
            Self::Role(name) => write!(f, "role/{name}"),
            Self::Subject(subject) => subject.fmt(f),
            Self::Dispatch(id) => id.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actor() -> Actor {
        Actor {
            session: Some(SessionId([1; 16])),
            role: Some("notes".parse().unwrap()),
            identity: Some(IdentityUuid(uuid::Uuid::nil())),
            uid: Some(1000),
            pid: Some(77),
            exe: Some(Path::new("/usr/bin/claude").into()),
        }
    }

    fn json(event: &Event<'_>) -> String {
        event.to_json(&mut Stamp::default(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_grant_says_who_got_what_for_how_long_and_why() {
        let (resource, reason) = ("secret/A".parse().unwrap(), "deploy \"x\"".parse().unwrap());
        let actor = actor();
        let event = Event::lease(Verb::LeaseAcquired, &actor, LeaseId([2; 16]), &resource)
            .ttl(Duration::from_secs(300))
            .reason(Some(&reason));
        assert_eq!(
            json(&event),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000000Z","event":"lease.acquired","outcome":"allowed","#,
                r#""session":"ses_aeaqcaibaeaqcaibaeaqcaibae","role":"notes","#,
                r#""identity":"00000000-0000-0000-0000-000000000000","uid":1000,"pid":77,"exe":"/usr/bin/claude","#,
                r#""lease":"lea_aibaeaqcaibaeaqcaibaeaqcai","resource":"secret/A","ttl":300,"reason":"deploy \"x\""}"#,
            )
        );
    }

    #[test]
    fn a_time_is_printed_to_the_microsecond() {
        let mut stamp = Stamp::default();
        for (nanos, expected) in [
            (1_790_000_000_000_001_999, "2026-09-21T14:13:20.000001Z"),
            (1_790_000_000_999_999_999, "2026-09-21T14:13:20.999999Z"),
            (1_790_000_001_012_345_678, "2026-09-21T14:13:21.012345Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            let mut text = String::new();
            stamp.push(&mut text, Timestamp::from_nanosecond(nanos).unwrap());
            assert_eq!(text, expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was_written(text in any::<String>()) {
            let mut fields = Fields(String::new());
            fields.text("text", Some(&text));
            fields.0.push('}');
            let read: serde_json::Value = serde_json::from_str(&fields.0).unwrap();
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
        }
    }

    #[test]
    fn a_denial_names_the_rule() {
        let event = Event::of(Verb::SessionDenied, &NOBODY).denied(Cause::RoleMismatch);
        let expected = r#""event":"session.denied","outcome":"denied","cause":"role_mismatch"}"#;
        assert!(json(&event).ends_with(expected), "{}", json(&event));
    }

    #[test]
    fn the_name_of_a_program_cannot_forge_a_line_or_fill_the_disk() {
        let short = "/tmp/\u{202e}\n\x1b[2J\"}},{\u{fffd}".to_owned();
        let long = format!("{short}{}", "\u{fffd}".repeat(1300));
        for hostile in [short, long] {
            let actor = Actor { exe: Some(Path::new(&hostile).into()), ..actor() };
            let line = json(&Event::of(Verb::SessionOpened, &actor));
            assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
            assert!(line.len() < 8192);
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }

    #[test]
    fn an_act_of_the_operator_names_its_target_and_its_effect() {
        let role = "notes".parse().unwrap();
        let event = Event::of(Verb::AdminRevoke, &NOBODY).target(Target::Role(&role)).ended(2, 5);
        let expected = r#""target":"role/notes","ended_sessions":2,"ended_leases":5}"#;
        assert!(json(&event).ends_with(expected), "{}", json(&event));
    }
}
