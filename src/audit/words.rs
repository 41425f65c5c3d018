//! The closed words of the trail: what was done, how it ended, and why. A new one is a line here, and in
//! `cli/explain.rs` if an agent can be refused by it. Imports nothing of ours.

use std::fmt;

use serde::Serialize;

/// What was done or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Verb {
    /// An agent process assumed a role.
    #[serde(rename = "session.opened")]
    SessionOpened,
    /// An agent process was not let into a role, or came with a token that is not its own.
    #[serde(rename = "session.denied")]
    SessionDenied,
    /// A session was opened below another one.
    #[serde(rename = "session.delegated")]
    SessionDelegated,
    /// The end of a session was moved.
    #[serde(rename = "session.renewed")]
    SessionRenewed,
    /// The agent gave its session back.
    #[serde(rename = "session.closed")]
    SessionClosed,
    /// A session reached its end.
    #[serde(rename = "session.expired")]
    SessionExpired,
    /// A session was ended by the operator, by a reload, or by the end of its process.
    #[serde(rename = "session.revoked")]
    SessionRevoked,
    /// A lease was granted; its value is about to leave.
    #[serde(rename = "lease.acquired")]
    LeaseAcquired,
    /// The value of a live lease is about to leave again.
    #[serde(rename = "lease.read")]
    LeaseRead,
    /// The end of a lease was moved.
    #[serde(rename = "lease.renewed")]
    LeaseRenewed,
    /// The agent gave a lease back.
    #[serde(rename = "lease.released")]
    LeaseReleased,
    /// A lease reached its end.
    #[serde(rename = "lease.expired")]
    LeaseExpired,
    /// A lease was ended by the operator or with its session.
    #[serde(rename = "lease.revoked")]
    LeaseRevoked,
    /// A request about a lease was refused.
    #[serde(rename = "lease.denied")]
    LeaseDenied,
    /// A request of a session was refused before it was known, or asked, what it is about.
    #[serde(rename = "request.denied")]
    RequestDenied,
    /// A session asked for a name that no honest agent asks for, and was ended.
    #[serde(rename = "honeytoken.touched")]
    HoneytokenTouched,
    /// A request waits for the operator.
    #[serde(rename = "approval.asked")]
    ApprovalAsked,
    /// The operator allowed a request that waits.
    #[serde(rename = "approval.allowed")]
    ApprovalAllowed,
    /// The operator refused a request that waits.
    #[serde(rename = "approval.denied")]
    ApprovalDenied,
    /// A request waited in vain, or its session ended.
    #[serde(rename = "approval.expired")]
    ApprovalExpired,
    /// Names were listed.
    #[serde(rename = "vault.list")]
    VaultList,
    /// A password was generated and stored.
    #[serde(rename = "vault.create")]
    VaultCreate,
    /// A password was replaced.
    #[serde(rename = "vault.update")]
    VaultUpdate,
    /// An entry was deleted.
    #[serde(rename = "vault.delete")]
    VaultDelete,
    /// A secret was created or replaced.
    #[serde(rename = "vault.set")]
    VaultSet,
    /// An agent read about its own identity.
    #[serde(rename = "identity.read")]
    IdentityRead,
    /// Messages were listed.
    #[serde(rename = "inbox.list")]
    InboxList,
    /// A message is about to be shown.
    #[serde(rename = "inbox.read")]
    InboxRead,
    /// An agent waits for a code.
    #[serde(rename = "code.watched")]
    CodeWatched,
    /// A code is about to leave; nobody else is given it.
    #[serde(rename = "code.claimed")]
    CodeClaimed,
    /// A message is about to be sent.
    #[serde(rename = "message.sent")]
    MessageSent,
    /// A file is about to be kept at Ravi, to be attached to a mail.
    #[serde(rename = "message.attached")]
    MessageAttached,
    /// Contacts were searched.
    #[serde(rename = "contacts.searched")]
    ContactsSearched,
    /// An identity is about to be created.
    #[serde(rename = "identity.created")]
    IdentityCreated,
    /// An identity is about to get a telephone number.
    #[serde(rename = "identity.provisioned")]
    IdentityProvisioned,
    /// A callback is about to be told of a message.
    #[serde(rename = "dispatch.attempted")]
    DispatchAttempted,
    /// A callback was told of a message.
    #[serde(rename = "dispatch.delivered")]
    DispatchDelivered,
    /// A callback could not be told of a message, and is not tried any more.
    #[serde(rename = "dispatch.dead")]
    DispatchDead,
    /// The operator has a dead delivery tried again, or dropped.
    #[serde(rename = "admin.dispatch")]
    AdminDispatch,
    /// An identity key was minted with the management key; Ravi documents no way to take it back.
    #[serde(rename = "key.minted")]
    KeyMinted,
    /// The operator pulled the kill switch.
    #[serde(rename = "admin.lock")]
    AdminLock,
    /// The operator let the broker serve again.
    #[serde(rename = "admin.unlock")]
    AdminUnlock,
    /// The configuration was read again.
    #[serde(rename = "admin.reload")]
    AdminReload,
    /// The operator logged the machine in.
    #[serde(rename = "admin.login")]
    AdminLogin,
    /// The operator had every key forgotten.
    #[serde(rename = "admin.logout")]
    AdminLogout,
    /// Root had the management key sealed, for which it left the daemon through a pipe.
    #[serde(rename = "admin.seal")]
    AdminSeal,
    /// The operator handed keys over.
    #[serde(rename = "admin.import")]
    AdminImport,
    /// The operator ended access.
    #[serde(rename = "admin.revoke")]
    AdminRevoke,
    /// The daemon began to serve.
    #[serde(rename = "daemon.started")]
    DaemonStarted,
    /// The daemon stopped serving.
    #[serde(rename = "daemon.stopping")]
    DaemonStopping,
    /// What a crash had left unfinished at the end of the trail was cut off.
    #[serde(rename = "audit.recovered")]
    AuditRecovered,
    /// The file was set aside; this record is the first of the next one.
    #[serde(rename = "audit.rotated")]
    AuditRotated,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, or about to be done.
    Allowed,
    /// Refused by a rule; nothing was done.
    Denied,
    /// Let through by the rules and failed.
    Failed,
}

/// Why it was denied, failed or ended: the operator's truth, where the agent is told less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Denied: no such role.
    RoleUnknown,
    /// Denied: the role's `match` does not fit the calling process.
    RoleMismatch,
    /// Denied: the caller asked for more than the role grants.
    ScopeNotGranted,
    /// Denied: no scope of the session allows it.
    ScopeMissing,
    /// Denied: the session may use the value, and the role forbids this way of delivery.
    DeliveryForbidden,
    /// Denied, or ended: the name is one that no honest agent asks for.
    Honeytoken,
    /// Denied: the operator was to be asked first, which this call cannot wait for.
    ApprovalRequired,
    /// Denied: the operator said no.
    ApprovalDenied,
    /// Denied, or ended: the operator did not decide in time.
    ApprovalExpired,
    /// Denied: no token was sent.
    TokenMissing,
    /// Denied: the token is of no session.
    TokenUnknown,
    /// Denied: the token is of a session that belongs to another process.
    TokenForeign,
    /// Denied: another process sent on a connection that is not its own. The record names the connection's.
    SenderForeign,
    /// Denied: the caller could not be established.
    PeerUnknown,
    /// Denied: the session is over.
    SessionOver,
    /// Denied: no such lease.
    LeaseUnknown,
    /// Denied: the lease belongs to another session.
    LeaseForeign,
    /// Denied: the lease is over.
    LeaseOver,
    /// Denied: no such watch for a code.
    WatchUnknown,
    /// Denied: the watch belongs to another session.
    WatchForeign,
    /// Denied: the identity has sent all that it may send today.
    QuotaReached,
    /// Denied: no rule has a callback told of this sender, or the owner does not trust it.
    SenderUntrusted,
    /// Failed: the callback did not take it.
    CallbackFailed,
    /// Denied: a name or field is not in its form.
    ArgumentInvalid,
    /// Denied: a rate limit.
    RateLimited,
    /// Denied: a limit on how many may be alive at once.
    CapacityReached,
    /// Denied, or ended: the operator locked the broker.
    Locked,
    /// Denied, or ended: the daemon is stopping.
    Stopping,
    /// Failed: no such object for this identity.
    Absent,
    /// Failed: it exists already.
    Conflict,
    /// Failed: no key is held, or Ravi no longer accepts it.
    LoginRequired,
    /// Failed: Ravi was not reached or did not answer.
    UpstreamUnavailable,
    /// Failed: Ravi, or our own budget of calls, throttles.
    UpstreamThrottled,
    /// Failed: Ravi refused.
    UpstreamRefused,
    /// Failed: Ravi's answer was discarded.
    UpstreamInvalid,
    /// Failed: a write was sent and its answer was lost.
    OutcomeUnknown,
    /// Failed: Ravi asks for a paid plan.
    PlanRequired,
    /// Failed: the configuration has mistakes.
    ConfigurationInvalid,
    /// Failed: a defect of the broker.
    Internal,
    /// Ended by the operator.
    Operator,
    /// Ended by a change of the configuration.
    Reload,
    /// Ended with the session it belongs to.
    SessionEnded,
    /// Ended with the process it belongs to.
    PeerExited,
}

impl fmt::Display for Verb {
    /// As the trail has it: `lease.acquired`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Outcome {
    /// As the trail has it: `allowed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Cause {
    /// As the trail has it: `scope_missing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
