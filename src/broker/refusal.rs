//! Refusals: each is recorded with the rule that decided and remembered for `explain`; the caller gets an
//! id and learns nothing from it. Those that no other limit bounds are recorded at a bounded rate for each
//! user, and the others counted in the next record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::error::BrokerError;
use super::{Admitted, Broker, Caller};
use crate::audit::{Actor, Cause, Event, Target, Verb};
use crate::lease::LeaseError;
use crate::peer::{Peer, PeerTier, ProcessId};
use crate::policy::scope::Scope;
use crate::policy::{Action, Denied, Role};
use crate::session::{End, OpenError, Session, TokenError, actor_of};
use crate::types::{DenialId, LeaseId, Resource, RoleName, SessionId, Subject, WatchId};
use crate::upstream::UpstreamError;

/// Of what is refused before there is a call. Nobody is told it.
pub(super) const NO_CALL: DenialId = DenialId([0; 16]);
/// Why a program that a role names was not compared.
const UNTOLD: &str = "what the process runs cannot be told now: the attestor does not answer";
/// Refusals that are remembered.
const REMEMBERED: usize = 1024;

/// What the operator may know of a refused call.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// As the caller was told it.
    pub id: DenialId,
    /// When.
    pub at: Timestamp,
    /// The rule that refused.
    pub rule: Cause,
    /// For what.
    pub asked: Asked,
    /// By whom.
    pub actor: Actor,
    /// How surely the calling process was known.
    pub tier: PeerTier,
    compared: Compared,
}

/// What a refused call was about, as far as it was known.
#[derive(Clone, Debug)]
pub enum Asked {
    /// It did not get as far.
    Nothing,
    /// To assume a role.
    Role(RoleName),
    /// Something with a resource.
    Resource(Resource),
    /// Something with a lease.
    Lease(LeaseId),
    /// Something that is no resource.
    Subject(Subject),
}

/// What the rule held against what. Kept as it is, and put into words only for the operator.
#[derive(Clone, Debug)]
enum Compared {
    Nothing,
    /// A limit that was reached.
    Limit(&'static str),
    Text(Vec<String>),
    Scopes {
        role: Arc<Role>,
        narrowed: Option<Arc<[Scope]>>,
    },
}

/// The last refusals, oldest first. Locked for a push or a look.
#[derive(Default)]
pub(super) struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    fn push(&self, refusal: Refusal) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == REMEMBERED {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    fn find(&self, id: DenialId) -> Option<Refusal> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|refusal| refusal.id == id).cloned()
    }
}

impl Refusal {
    /// One line for each selector of the rule: what was held against what.
    pub fn selectors(&self) -> Vec<String> {
        match &self.compared {
            Compared::Nothing => Vec::new(),
            Compared::Limit(name) => vec![format!("limit that was reached: {name}")],
            Compared::Text(lines) => lines.clone(),
            Compared::Scopes { role, narrowed } => {
                let of_role = role.scopes().iter().map(|scope| format!("scope of the role: {scope}"));
                let own = narrowed.iter().flat_map(|scopes| scopes.iter());
                of_role
                    .chain(own.map(|scope| format!("scope that the session was opened with: {scope}")))
                    .collect()
            }
        }
    }
}

impl Broker {
    /// Why a call was refused, if that is still remembered.
    pub fn explain(&self, id: DenialId) -> Option<Refusal> {
        self.refusals.find(id)
    }

    /// A role that is not there for this process.
    pub(super) fn refuse_role(&self, caller: Caller<'_>, role: &RoleName, denied: Denied) -> BrokerError {
        let refused = Refused::of(caller, Some(role));
        self.refuse(refused.asked(Asked::Role(role.clone())).role_compared(self, role), rule(denied));
        BrokerError::RoleNotAvailable
    }

    /// A session that could not be opened.
    pub(super) fn refuse_open(&self, caller: Caller<'_>, role: &Arc<Role>, error: OpenError) {
        let (cause, compared) = unopened(error, role, None);
        let refused = Refused::of(caller, Some(role.name())).asked(Asked::Role(role.name().clone()));
        self.refuse(Refused { compared, ..refused }, cause);
    }

    /// A session that could not be delegated.
    pub(super) fn refuse_delegation(&self, admitted: &Admitted, role: &Arc<Role>, error: OpenError) {
        let (cause, compared) = unopened(error, role, admitted.session.narrowed.clone());
        let refused = Refused::within(admitted).asked(Asked::Role(role.name().clone()));
        self.refuse(Refused { compared, ..refused }, cause);
    }

    /// Too many sessions opened by one user.
    pub(super) fn refuse_open_rate(&self, caller: Caller<'_>, role: &RoleName, limit: &'static str) {
        let refused = Refused::of(caller, Some(role)).asked(Asked::Role(role.clone())).bounded();
        self.refuse(Refused { compared: Compared::Limit(limit), ..refused }, Cause::RateLimited);
    }

    /// Too many requests of one session, or of its role.
    pub(super) fn refuse_rate(&self, caller: Caller<'_>, session: &Session, limit: &'static str) {
        let refused = Refused::of(caller, None).session(session).bounded();
        self.refuse(Refused { compared: Compared::Limit(limit), ..refused }, Cause::RateLimited);
    }

    /// A call without a token.
    pub(super) fn refuse_tokenless(&self, caller: Caller<'_>) {
        self.refuse(Refused::of(caller, None).bounded(), Cause::TokenMissing);
    }

    /// A call with a token that is not of a live session of the caller's.
    pub(super) fn refuse_token(&self, caller: Caller<'_>, error: &TokenError) {
        let (cause, compared) = match error {
            TokenError::Unknown => (Cause::TokenUnknown, Compared::Nothing),
            TokenError::Foreign { session, bound } => {
                (Cause::TokenForeign, Compared::Text(vec![foreign(*session, bound, caller.peer)]))
            }
            TokenError::Ended(end) => (Cause::SessionOver, Compared::Text(vec![ended(*end).to_owned()])),
            TokenError::Exec(lines) => (Cause::RoleMismatch, Compared::Text(lines.clone())),
            TokenError::Untold => (Cause::RoleMismatch, Compared::Text(vec![UNTOLD.to_owned()])),
        };
        self.refuse(Refused { compared, ..Refused::of(caller, None).bounded() }, cause);
    }

    /// Bytes that another process sent on somebody's connection.
    pub(super) fn refuse_sender(&self, owner: Caller<'_>, stranger: u32) {
        let text =
            format!("the connection is of process {:?}; process {stranger} sent on it", owner.peer.process);
        let compared = Compared::Text(vec![text]);
        self.refuse(Refused { compared, ..Refused::of(owner, None).bounded() }, Cause::SenderForeign);
    }

    /// A call that was refused before it was known, or asked, what it is about.
    pub(super) fn refuse_unasked(&self, caller: Caller<'_>, session: &Session, cause: Cause) {
        self.refuse(Refused::of(caller, None).session(session).bounded(), cause);
    }

    /// A handle that means no live lease of the session. The operator is told what it does mean.
    pub(super) fn refuse_lease_handle(&self, admitted: &Admitted, id: LeaseId, error: LeaseError) {
        let cause = match error {
            LeaseError::NotAvailable if self.leases.is_live(id) => Cause::LeaseForeign,
            LeaseError::NotAvailable => Cause::LeaseUnknown,
            LeaseError::Expired | LeaseError::Revoked => Cause::LeaseOver,
            LeaseError::Capacity(_) => Cause::CapacityReached,
            LeaseError::SessionEnded => Cause::SessionOver,
            LeaseError::NoRandom => Cause::Internal,
        };
        self.refuse(Refused::within(admitted).asked(Asked::Lease(id)).bounded(), cause);
    }

    /// A handle that means no watch of the session.
    pub(super) fn refuse_watch_handle(&self, admitted: &Admitted, id: WatchId, cause: Cause) {
        let asked = Asked::Subject(Subject::Watch(id));
        self.refuse(Refused::within(admitted).asked(asked).bounded(), cause);
    }

    /// What policy does not allow.
    pub(super) fn refuse_action(&self, admitted: &Admitted, action: &Action, denied: Denied) {
        let role = self.policy.load().role(&admitted.session.role).cloned();
        let narrowed = admitted.session.narrowed.clone();
        let compared = role.map_or(Compared::Nothing, |role| Compared::Scopes { role, narrowed });
        let refused = Refused { verb: refused(action), compared, ..Refused::within(admitted) };
        self.refuse(refused.about(action), rule(denied));
    }

    /// A name that no honest agent asks for. One record, as for any other refusal.
    pub(super) fn refuse_trapped(&self, admitted: &Admitted, action: &Action) {
        let refused = Refused { verb: Verb::HoneytokenTouched, ..Refused::within(admitted) };
        self.refuse(refused.about(action), Cause::Honeytoken);
    }

    /// What the operator did not allow, at a bounded rate: an agent can ask again and again.
    pub(super) fn refuse_held(&self, admitted: &Admitted, action: &Action, cause: Cause) {
        let refused = Refused { verb: refused(action), ..Refused::within(admitted) };
        self.refuse(refused.about(action).bounded(), cause);
    }

    /// A value that only the broker's own programs are given.
    pub(super) fn refuse_program(&self, admitted: &Admitted, action: &Action) -> BrokerError {
        let runs = admitted.peer.process.and_then(ProcessId::executable);
        let runs = runs.map_or("cannot be established".to_owned(), |file| file.path.display().to_string());
        let compared = Compared::Text(vec![format!("use_by = \"cli\"; the caller's program: {runs}")]);
        let refused = Refused { verb: refused(action), compared, ..Refused::within(admitted) };
        self.refuse(refused.about(action), Cause::DeliveryForbidden);
        BrokerError::DeliveryNotAllowed
    }

    /// What policy allowed and did not come about.
    pub(super) fn record_failed(&self, admitted: &Admitted, action: &Action, error: &BrokerError) {
        let session = &admitted.session;
        if let BrokerError::Upstream(_) | BrokerError::LoginRequired | BrokerError::NoIdentity = error {
            tracing::warn!(role = %session.role, %error, "Ravi did not give what a role allows");
        }
        let refused = Refused { verb: refused(action), ..Refused::within(admitted) };
        let refused = refused.about(action);
        match error {
            BrokerError::Capacity(limit) => {
                self.refuse(Refused { compared: Compared::Limit(limit), ..refused }, Cause::CapacityReached);
            }
            BrokerError::Quota { budget, .. } => {
                self.refuse(Refused { compared: Compared::Limit(budget), ..refused }, Cause::QuotaReached);
            }
            error => self.refuse(Refused { failed: true, ..refused }, cause(error)),
        }
    }

    fn refuse(&self, refused: Refused<'_>, cause: Cause) {
        let Refused { denial, verb, tier, asked, compared, .. } = refused;
        if !refused.failed {
            self.count_denied();
        }
        self.meters.refused(cause);
        let unrecorded = match refused.bounded {
            true => self.limits.take_refusal(refused.uid),
            false => Some(0),
        };
        if let Some(unrecorded) = unrecorded {
            let event = asked.about(Event::of(verb, &refused.actor));
            let event = if refused.failed { event.failed(cause) } else { event.denied(cause) };
            let event = if denial == NO_CALL { event } else { event.denial(denial) };
            self.try_record(&event.unrecorded(unrecorded));
        }
        let at = self.clock.wall();
        self.refusals.push(Refusal {
            id: denial,
            at,
            rule: cause,
            asked,
            actor: refused.actor,
            tier,
            compared,
        });
    }
}

/// A refusal that is being told.
struct Refused<'a> {
    denial: DenialId,
    verb: Verb,
    peer: &'a Peer,
    /// Whose rate of records.
    uid: u32,
    tier: PeerTier,
    actor: Actor,
    asked: Asked,
    compared: Compared,
    bounded: bool,
    failed: bool,
}

impl<'a> Refused<'a> {
    fn of(caller: Caller<'a>, role: Option<&RoleName>) -> Self {
        let peer = &**caller.peer;
        Self {
            denial: caller.denial,
            verb: Verb::SessionDenied,
            peer,
            uid: peer.uid,
            tier: peer.tier,
            actor: actor_of(peer, role),
            asked: Asked::Nothing,
            compared: Compared::Nothing,
            bounded: false,
            failed: false,
        }
    }

    fn within(admitted: &'a Admitted) -> Self {
        Self::of(admitted.caller(), None).session(&admitted.session)
    }

    fn session(self, session: &Session) -> Self {
        Self { verb: Verb::RequestDenied, uid: session.opener.uid, actor: session.actor.clone(), ..self }
    }

    fn asked(self, asked: Asked) -> Self {
        Self { asked, ..self }
    }

    fn about(self, action: &Action) -> Self {
        let subject = || action.subject().map_or(Asked::Nothing, Asked::Subject);
        Self { asked: action.resource().map_or_else(subject, Asked::Resource), ..self }
    }

    /// Recorded at a bounded rate.
    fn bounded(self) -> Self {
        Self { bounded: true, ..self }
    }

    fn role_compared(self, broker: &Broker, role: &RoleName) -> Self {
        let lines = broker.policy.load().role(role).map(|role| role.judge(self.peer).lines);
        Self { compared: lines.map_or(Compared::Nothing, Compared::Text), ..self }
    }
}

impl Asked {
    fn about<'a>(&'a self, event: Event<'a>) -> Event<'a> {
        match self {
            Self::Nothing | Self::Role(_) => event,
            Self::Resource(resource) => event.resource(resource),
            Self::Lease(id) => event.target(Target::Lease(*id)),
            Self::Subject(subject) => event.target(Target::Subject(subject)),
        }
    }
}

fn unopened(error: OpenError, role: &Arc<Role>, narrowed: Option<Arc<[Scope]>>) -> (Cause, Compared) {
    match error {
        OpenError::ScopeNotGranted => {
            (Cause::ScopeNotGranted, Compared::Scopes { role: role.clone(), narrowed })
        }
        OpenError::NoAnchor | OpenError::NoCgroup | OpenError::NoProcess => {
            (Cause::PeerUnknown, Compared::Nothing)
        }
        OpenError::ParentEnded => (Cause::SessionOver, Compared::Nothing),
        OpenError::Barred => (Cause::Honeytoken, Compared::Nothing),
        OpenError::Capacity(limit) => (Cause::CapacityReached, Compared::Limit(limit)),
        OpenError::NoRandom => (Cause::Internal, Compared::Nothing),
    }
}

fn foreign(session: SessionId, bound: &str, peer: &Peer) -> String {
    let caller = match peer.process {
        Some(process) => format!("the caller is process {} of uid {}", process.pid, peer.uid),
        None => format!("the calling process, of uid {}, is not known", peer.uid),
    };
    format!("session {session} is bound to {bound}; {caller}")
}

fn ended(end: End) -> &'static str {
    match end {
        End::Closed => "the session was closed by its holder",
        End::Expired => "the session reached its end",
        End::Revoked => "the session was revoked by the operator",
        End::Locked => "the session ended when the broker was locked",
        End::ProcessEnded => "the process that the session belonged to has ended",
        End::ParentEnded => "the session that this one was delegated from has ended",
        End::RoleChanged => "after a reload the role was gone or did not match",
        End::Honeytoken => "the session asked for a honeytoken",
        End::Stopping => "the daemon was told to stop",
    }
}

fn rule(denied: Denied) -> Cause {
    match denied {
        Denied::NoRole => Cause::RoleUnknown,
        Denied::NoMatch => Cause::RoleMismatch,
        Denied::NoScope => Cause::ScopeMissing,
        Denied::Narrowed => Cause::ScopeNotGranted,
        Denied::Delivery => Cause::DeliveryForbidden,
    }
}

fn refused(action: &Action) -> Verb {
    match action {
        Action::Acquire(..) => Verb::LeaseDenied,
        action => super::record::verb_of(action),
    }
}

fn cause(error: &BrokerError) -> Cause {
    match error {
        BrokerError::ResourceNotAvailable | BrokerError::NoIdentity => Cause::Absent,
        BrokerError::Ambiguous | BrokerError::Argument { .. } => Cause::ArgumentInvalid,
        BrokerError::SendUnknown(_) | BrokerError::Provisioning(_) | BrokerError::Unprovisioned(_) => {
            Cause::OutcomeUnknown
        }
        BrokerError::Locked => Cause::Locked,
        BrokerError::Draining => Cause::Stopping,
        BrokerError::LoginRequired => Cause::LoginRequired,
        BrokerError::RateLimited { .. } => Cause::UpstreamThrottled,
        BrokerError::SessionExpired | BrokerError::SessionRevoked => Cause::SessionOver,
        BrokerError::Upstream(error) => upstream_cause(error),
        _ => Cause::Internal,
    }
}

fn upstream_cause(error: &UpstreamError) -> Cause {
    match error {
        UpstreamError::NoKey | UpstreamError::KeyRejected => Cause::LoginRequired,
        UpstreamError::Refused | UpstreamError::Invalid => Cause::UpstreamRefused,
        UpstreamError::NotFound => Cause::Absent,
        UpstreamError::PlanRequired => Cause::PlanRequired,
        UpstreamError::Conflict => Cause::Conflict,
        UpstreamError::Throttled { .. } | UpstreamError::BudgetReached { .. } => Cause::UpstreamThrottled,
        UpstreamError::Unavailable => Cause::UpstreamUnavailable,
        UpstreamError::OutcomeUnknown => Cause::OutcomeUnknown,
        UpstreamError::Answer(_) => Cause::UpstreamInvalid,
    }
}
