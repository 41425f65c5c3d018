//! The request path: one function per verb, each a flat list of guards and one call down.
//!
//! Every verb of an agent demands an [`Admitted`], which only [`Broker::admit`] makes: (1) the gate is
//! open, (2) the token is of a live session of this very process tree, (3) the role's rate has room. Then
//! (4) policy makes a `Grant` or refuses, (5) the vault answers, (6) the audit record is written, and
//! only then a value leaves (I9). May import everything below.

mod admin;
mod alarm;
mod approval;
mod death;
mod dispatch;
mod error;
mod gate;
mod honeytoken;
mod identity;
mod inbox;
mod lease;
mod login;
mod mark;
mod meters;
mod provision;
mod record;
mod refusal;
mod seal;
mod send;
mod session;
#[cfg(test)]
mod tests;
mod upkeep;
mod vault;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::admin::{Revocation, Revoked, SessionView, Snapshot};
pub use self::alarm::Alarm;
use self::alarm::Alarms;
pub use self::approval::Purpose;
use self::death::Unrecorded;
pub use self::error::{BrokerError, Result};
use self::gate::Gate;
pub use self::identity::{CreatedIdentity, IdentityView};
pub use self::inbox::{Came, InboxWatch, LONGEST_WAIT, PAGE, Page, Read, WatchOpening};
pub use self::lease::{Leased, Seen, Watch};
pub use self::login::{LoginDone, LoginEvent, LoginProgress};
use self::mark::Mark;
use self::meters::Meters;
use self::provision::Creations;
use self::refusal::Refusals;
pub use self::refusal::{Asked, Refusal};
pub use self::send::{Answered, Dispatched};
pub use self::session::{Described, Opened};
use crate::approval::Approvals;
use crate::audit::{AuditFile, Cause};
use crate::clock::{BootInstant, Clock};
use crate::config::Config;
use crate::inbox::budget::Budgets;
use crate::inbox::dispatch::Dispatches;
use crate::inbox::poll::Inbox;
use crate::inbox::sends::Sends;
use crate::inbox::store::Store;
use crate::inbox::watch::Watches;
use crate::lease::Leases;
use crate::limit::{Class, Limits, Share};
use crate::peer::{Peer, ProcessId, Runs};
use crate::policy::Policy;
use crate::session::{End, Session, Sessions, TokenError};
use crate::types::{DenialId, SessionId};
use crate::upstream::{Mailbox, Upstream};
use crate::vault::Vault;
use crate::vault::arena::Arena;
use crate::vault::keyfile::KeySource;

/// Everything a request needs. Shared by all connections.
pub struct Broker {
    /// For work that goes on without its caller.
    me: Weak<Self>,
    policy: ArcSwap<Policy>,
    sessions: Sessions,
    leases: Leases,
    approvals: Approvals,
    alarms: Alarms,
    /// Tells contents apart in questions, and tells nothing of them.
    fingerprints: hmac::Key,
    limits: Limits,
    vault: Arc<Vault>,
    upstream: Arc<dyn Upstream>,
    mailbox: Arc<dyn Mailbox>,
    store: Store,
    budgets: Budgets,
    sends: Sends,
    creations: Creations,
    inbox: Arc<Inbox>,
    dispatches: Arc<Dispatches>,
    keys: KeySource,
    programs: OwnPrograms,
    audit: Arc<AuditFile>,
    clock: Arc<dyn Clock>,
    gate: Gate,
    unrecorded: Unrecorded,
    /// Held by a lock or an unlock: gate, vault and keyring change together.
    switch: Mutex<()>,
    mark: Mark,
    refusals: Refusals,
    /// Whether requests are served: the gate is open and the audit trail can be written.
    serving: watch::Sender<bool>,
    /// Told of every lock, when it is done.
    locks: watch::Sender<()>,
    /// Cancelled when the daemon is told to stop: streams end.
    stopping: CancellationToken,
    login: tokio::sync::Mutex<()>,
    /// Until the next login, keys that lie somewhere are not read again.
    logged_out: AtomicBool,
    served: AtomicU64,
    denied: AtomicU64,
    meters: Meters,
}

/// What the composition root hands in.
pub struct Parts {
    /// The compiled roles.
    pub policy: Policy,
    /// The cache and the keys.
    pub vault: Arc<Vault>,
    /// The memory that the cache and the codes of the inbox lie in.
    pub arena: Arc<Arena>,
    /// For logins.
    pub upstream: Arc<dyn Upstream>,
    /// For messages and identities.
    pub mailbox: Arc<dyn Mailbox>,
    /// What the inbox must not forget.
    pub store: Store,
    /// Who is told of messages, and what is still to be told.
    pub dispatches: Arc<Dispatches>,
    /// Where keys are read from and written to.
    pub keys: KeySource,
    /// What may be given a value that is not to be shown.
    pub programs: OwnPrograms,
    /// The audit trail.
    pub audit: Arc<AuditFile>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The broker's own programs, which put a value where they were told to instead of showing it.
#[derive(Clone, Debug, Default)]
pub struct OwnPrograms(pub Vec<PathBuf>);

impl OwnPrograms {
    /// Whether the process runs one of them, as of now.
    fn include(&self, peer: &Peer) -> bool {
        let runs = peer.process.and_then(ProcessId::executable);
        runs.is_some_and(|file| self.0.iter().any(|own| file.is_at(own)))
    }
}

/// Who makes a call: the process that the kernel named, and the token it sent.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// From the connection.
    pub peer: &'a Arc<Peer>,
    /// From the call's metadata.
    pub token: Option<&'a str>,
    /// The session of the link that it came over: it stands for a token.
    pub linked: Option<SessionId>,
    /// Under which the operator can ask why it was refused, if it is.
    pub denial: DenialId,
}

/// Proof that a call comes from a live session within its rate. Only [`Broker::admit`] makes one.
pub struct Admitted {
    session: Arc<Session>,
    peer: Arc<Peer>,
    denial: DenialId,
    /// Until when the caller waits for an answer, if it says so.
    answer_by: Option<BootInstant>,
    /// Cancelled when nobody waits for the answer any more.
    left: CancellationToken,
}

impl Broker {
    /// Nothing is open yet.
    pub fn new(config: &Config, parts: Parts) -> Arc<Self> {
        let Parts {
            policy,
            vault,
            arena,
            upstream,
            mailbox,
            store,
            dispatches,
            keys,
            programs,
            audit,
            clock,
        } = parts;
        let stopping = CancellationToken::new();
        let (watches, told_to_stop) = (Watches::new(arena), stopping.clone());
        let inbox =
            Inbox::new(mailbox.clone(), store.clone(), watches, config.inbox, clock.clone(), told_to_stop);
        inbox.dispatch_by(dispatches.enqueue());
        let broker = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            policy: ArcSwap::from_pointee(policy),
            sessions: Sessions::new(config.limits.sessions, clock.clone()),
            leases: Leases::new(clock.clone()),
            approvals: Approvals::new(clock.clone()),
            alarms: Alarms::default(),
            fingerprints: approval::fingerprint_key(),
            limits: Limits::new(config, clock.clone()),
            vault,
            upstream,
            mailbox,
            budgets: Budgets::new(store.clone(), clock.clone(), config.inbox),
            sends: Sends::default(),
            creations: Creations::new(),
            store,
            inbox,
            dispatches,
            keys,
            programs,
            audit,
            clock,
            gate: Gate::open(),
            unrecorded: Unrecorded::default(),
            switch: Mutex::new(()),
            mark: Mark::beside(&config.audit.file),
            refusals: Refusals::default(),
            serving: watch::Sender::new(true),
            locks: watch::Sender::new(()),
            stopping,
            login: tokio::sync::Mutex::new(()),
            logged_out: AtomicBool::new(false),
            served: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            meters: Meters::default(),
        });
        broker.admit_roles(&broker.policy.load());
        broker
    }

    /// Lets a call in, or says why not. The rate is taken whether or not policy will allow the call.
    pub fn admit(&self, caller: Caller<'_>, class: Class) -> Result<Admitted> {
        let session = self.identify(caller)?;
        let policy = self.policy.load();
        let role = policy.role(&session.role).ok_or(BrokerError::SessionRevoked)?;
        self.limits.take(role, session.root, class).map_err(|(share, limited)| {
            let limit = limit_name(share, class);
            self.refuse_rate(caller, &session, limit);
            BrokerError::limited(limit, limited)
        })?;
        Ok(Admitted::of(caller, session))
    }

    /// Like [`Broker::admit`], for calls that only give something back: they are never limited.
    pub fn admit_return(&self, caller: Caller<'_>) -> Result<Admitted> {
        Ok(Admitted::of(caller, self.identify(caller)?))
    }

    /// The live session of the caller.
    fn identify(&self, caller: Caller<'_>) -> Result<Arc<Session>> {
        self.gate.check()?;
        let session = match (caller.token, caller.linked) {
            (Some(token), _) => self.sessions.authenticate(caller.peer, token),
            (None, Some(linked)) => self.sessions.authenticate_linked(caller.peer, linked),
            (None, None) => {
                self.refuse_tokenless(caller);
                return Err(BrokerError::SessionRequired);
            }
        };
        let session = session.and_then(|session| self.judge_again(session));
        Ok(session.inspect_err(|error| self.refuse_token(caller, error))?)
    }

    /// Where a role asks what its process runs, an exec of the opener ends the whole tree of its session, unless the
    /// new program fits too.
    fn judge_again(&self, session: Arc<Session>) -> std::result::Result<Arc<Session>, TokenError> {
        let policy = self.policy.load();
        let Some(role) = policy.role(&session.role).filter(|role| role.names_program()) else {
            return Ok(session);
        };
        match session.opener.runs() {
            Runs::Same => return Ok(session),
            // The session is not lost: it is served again when that can be told.
            Runs::Untold => return Err(TokenError::Untold),
            Runs::Other => {}
        }
        let verdict = role.judge(&session.opener.as_of_now());
        if verdict.holds {
            return Ok(session);
        }
        self.end_session(session.root, End::RoleChanged);
        Err(TokenError::Exec(verdict.lines))
    }

    /// A request that is not in its form is refused before policy sees it, and recorded like a refusal.
    pub fn refuse_form(&self, admitted: &Admitted) {
        self.refuse_unasked(admitted.caller(), &admitted.session, Cause::ArgumentInvalid);
    }

    /// The last check before a value leaves: nothing was locked or revoked while it was fetched.
    fn still_open(&self, session: &Session) -> Result<()> {
        self.ensure_open(session)?;
        self.count_served();
        Ok(())
    }

    fn count_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn ensure_open(&self, session: &Session) -> Result<()> {
        self.gate.check_release()?;
        if session.is_live(self.clock.now()) {
            return Ok(());
        }
        Err(session.end().map_or(BrokerError::SessionExpired, BrokerError::from))
    }

    /// Waits for something that changes nothing, no longer than the session lasts: what is under way at Ravi goes on
    /// for those who share it, and is of no use to this caller any more.
    async fn while_open<T>(&self, session: &Session, wait: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = session.ended() => {
                self.gate.check_release()?;
                Err(session.end().map_or(BrokerError::SessionRevoked, BrokerError::from))
            }
            done = wait => done,
        }
    }

    /// Whether requests are served, now and whenever that changes.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// Changes at every lock, once sessions, leases and values are gone.
    pub fn locks(&self) -> watch::Receiver<()> {
        self.locks.subscribe()
    }

    fn tell_health(&self) {
        let now = self.gate.check().is_ok() && self.audit.head().1;
        self.serving.send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

impl Admitted {
    fn of(caller: Caller<'_>, session: Arc<Session>) -> Self {
        let left = CancellationToken::new();
        Self { session, peer: caller.peer.clone(), denial: caller.denial, answer_by: None, left }
    }

    fn caller(&self) -> Caller<'_> {
        Caller { peer: &self.peer, token: None, linked: None, denial: self.denial }
    }

    /// What waits for somebody is to be answered by then.
    pub fn answer_by(self, deadline: BootInstant) -> Self {
        Self { answer_by: Some(deadline), ..self }
    }

    /// The same for a stream that goes on after its call was answered.
    fn for_stream(&self) -> Self {
        let (session, peer) = (self.session.clone(), self.peer.clone());
        Self { session, peer, denial: self.denial, answer_by: None, left: CancellationToken::new() }
    }

    /// To be held for as long as somebody waits for the answer: what has not begun yet is then not begun.
    pub fn wanted(&self) -> DropGuard {
        self.left.clone().drop_guard()
    }

    /// The session that calls.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The session's handle, for logs.
    pub fn session_id(&self) -> SessionId {
        self.session.id
    }
}

fn limit_name(share: Share, class: Class) -> &'static str {
    match (share, class) {
        (Share::Role, Class::Read) => "rate.read",
        (Share::Role, Class::Send) => "rate.send",
        (Share::Session, Class::Read) => "rate.session_read",
        (Share::Session, Class::Send) => "rate.session_send",
    }
}
