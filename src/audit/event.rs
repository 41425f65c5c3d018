//! What happened, in a form that cannot express a secret: closed words, names and numbers. The one
//! free text is the caller's own [`Reason`], which nobody believes.
//!
//! An event borrows what it tells about and is written down at once. Imports `types` and `approval`'s words.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

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

    /// The record's own fields as one JSON object. `time` is RFC 3339 with microseconds.
    pub(super) fn to_json(&self, time: Timestamp) -> serde_json::Result<String> {
        serde_json::to_string(&Stamped { time, event: self })
    }
}

/// The actor of what the daemon does by itself.
pub static NOBODY: Actor =
    Actor { session: None, role: None, identity: None, uid: None, pid: None, exe: None };

struct Stamped<'a> {
    time: Timestamp,
    event: &'a Event<'a>,
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Event { actor, .. } = self.event;
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put("time", Some(Text(format_args!("{:.6}", self.time))))?;
        fields.put("event", Some(self.event.verb))?;
        fields.put("outcome", Some(self.event.outcome))?;
        fields.put("cause", self.event.cause)?;
        fields.put("session", actor.session.map(Text))?;
        fields.put("role", actor.role.as_ref().map(Text))?;
        fields.put("identity", self.event.identity.or(actor.identity).map(Text))?;
        fields.put("uid", actor.uid)?;
        fields.put("pid", actor.pid)?;
        fields.put("exe", actor.exe.as_deref().map(ascii).map(Text))?;
        fields.put("lease", self.event.lease.map(Text))?;
        fields.put("resource", self.event.resource.map(Text))?;
        fields.put("target", self.event.target.map(Text))?;
        fields.put("approval", self.event.approval.map(Text))?;
        fields.put("action", self.event.wish.map(|wish| wish.verb))?;
        fields.put(
            "about",
            self.event.wish.map(|wish| bounded(&wish.about)).filter(|about| !about.is_empty()),
        )?;
        fields.put("operator_uid", self.event.operator.map(|(uid, _)| uid))?;
        fields.put("operator_pid", self.event.operator.and_then(|(_, pid)| pid))?;
        fields.put("message", self.event.message.map(Text))?;
        fields.put("attempts", self.event.attempts)?;
        fields.put("ttl", self.event.ttl.map(|ttl| ttl.as_secs()))?;
        fields.put("exposed", self.event.exposed)?;
        fields.put("ended_sessions", self.event.ended_sessions)?;
        fields.put("ended_leases", self.event.ended_leases)?;
        fields.put("version", self.event.version)?;
        fields.put("cut_bytes", self.event.cut_bytes)?;
        fields.put("unrecorded", self.event.unrecorded)?;
        fields.put("denial", self.event.denial.map(Text))?;
        fields.put("previous", self.event.previous)?;
        fields.put("reason", self.event.reason.map(Text))?;
        fields.0.end()
    }
}

struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn put(&mut self, name: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(name, &value))
    }
}

/// Serializes a value by the text it prints as.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A path as printable ASCII: agents choose the names of their programs, and the trail is read on
/// terminals. Bounded, because it is part of every record; the end of the path tells most.
fn ascii(path: &Path) -> String {
    const LONGEST: usize = 1024;
    let bytes = path.as_os_str().as_bytes();
    match bytes.len().checked_sub(LONGEST) {
        None | Some(0) => bytes.escape_ascii().to_string(),
        Some(cut) => format!("...{}", bytes[cut..].escape_ascii()),
    }
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
        event.to_json(Timestamp::UNIX_EPOCH).unwrap()
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
