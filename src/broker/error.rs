//! Why a request failed: closed, without upstream's or the caller's text. `grpc/status.rs` maps it to the
//! wire.

use std::time::Duration;

use thiserror::Error;

use crate::inbox::store::StoreError;
use crate::lease::LeaseError;
use crate::limit::Limited;
use crate::session::{End, OpenError, TokenError};
use crate::types::{IdentityName, NameError, SendId};
use crate::upstream::UpstreamError;
use crate::vault::VaultError;

/// Every way a request can fail.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokerError {
    /// No token.
    #[error("this call needs a session token: send `authorization: Bearer <token>`")]
    SessionRequired,
    /// Unknown, malformed or foreign token.
    #[error("the session token is not valid for this process; open a session of your own")]
    SessionInvalid,
    /// The caller's session reached its end.
    #[error("the session reached its end; open a new one")]
    SessionExpired,
    /// The caller's session was ended.
    #[error("the session was ended; open a new one")]
    SessionRevoked,
    /// Absent role, or one that does not match.
    #[error("no such role is available to this process")]
    RoleNotAvailable,
    /// A scope beyond the role's.
    #[error("a requested scope goes beyond what the role grants")]
    ScopeNotGranted,
    /// Absent or forbidden.
    #[error("no such resource is available to this session")]
    ResourceNotAvailable,
    /// The value may be used, and not in this way.
    #[error("the role does not let this value be delivered in that way")]
    DeliveryNotAllowed,
    /// The operator said no.
    #[error("the operator refused this request, and keeps to that for a while")]
    ApprovalDenied,
    /// Nobody decided.
    #[error("the operator did not decide in time, so nothing was released")]
    ApprovalExpired,
    /// The call ends before the question does.
    #[error("the operator has not decided yet and is still asked; make the same call again to go on waiting")]
    ApprovalPending,
    /// Absent or foreign lease.
    #[error("no such lease is available to this session")]
    LeaseNotAvailable,
    /// Ran out.
    #[error("the lease ran out; acquire a new one")]
    LeaseExpired,
    /// Revoked or released.
    #[error("the lease was revoked or released")]
    LeaseRevoked,
    /// Absent or foreign watch for a code.
    #[error("no such watch is available to this session")]
    WatchNotAvailable,
    /// It ended before a code came.
    #[error("the watch ended before a code came; open another one, then trigger the message again")]
    WatchExpired,
    /// The identity's day is used up.
    #[error("the identity has sent all that it may send today")]
    Quota {
        /// Name of the budget.
        budget: &'static str,
        /// Until the next day begins.
        retry_after: Duration,
    },
    /// A message was handed over and its answer is lost.
    #[error(
        "the message was handed over and its outcome is unknown; ask what became of {0} before you send it again"
    )]
    SendUnknown(SendId),
    /// A field is wrong.
    #[error("{field}: {problem}")]
    Argument {
        /// Name of the field.
        field: &'static str,
        /// What would be right.
        problem: &'static str,
    },
    /// A name is not in canonical form.
    #[error("{field}: {error}")]
    Name {
        /// Name of the field.
        field: &'static str,
        /// What would be right.
        error: NameError,
    },
    /// Too many requests.
    #[error("too many requests; come back later")]
    RateLimited {
        /// Name of the limit.
        limit: &'static str,
        /// Until the next one fits.
        retry_after: Duration,
    },
    /// Too many at once.
    #[error("the bound {0} is reached")]
    Capacity(&'static str),
    /// Kill switch.
    #[error("the broker is locked by its operator")]
    Locked,
    /// Going down.
    #[error("the broker is shutting down; connect again when it is back")]
    Draining,
    /// The end of a stream whose connection carried a value.
    #[error("this connection carried a value and is closed, so that nothing keeps it; open the stream again")]
    ConnectionRetired,
    /// Nothing is released without a record.
    #[error("the audit record could not be written, so nothing was released")]
    AuditUnavailable,
    /// What has to hold over a restart could not be written, so nothing was done.
    #[error("what the inbox has to remember cannot be written, so nothing was done")]
    StateUnavailable,
    /// Access was ended all the same.
    #[error("it was done, but the audit record of it could not be written")]
    Unrecorded,
    /// No key.
    #[error("the broker holds no key for this; its operator runs `ravi-broker login`")]
    LoginRequired,
    /// A domain with several passwords.
    #[error("the domain has several entries; ask for password/<domain>/<username>")]
    Ambiguous,
    /// The role's identity cannot be found.
    #[error(
        "Ravi has no identity, or more than one, of the name that the role gives; its operator checks the configuration"
    )]
    NoIdentity,
    /// An identity was to be created, and whether it was is not known.
    #[error(
        "identity {0:?} was to be created, and it is not known whether it was; it is looked for with each call"
    )]
    Provisioning(IdentityName),
    /// The same, and it did not appear: only the operator has another one made.
    #[error(
        "identity {0:?} was to be created and did not appear; its operator looks at Ravi's dashboard, then runs `ravi-broker identity create {0:?}`"
    )]
    Unprovisioned(IdentityName),
    /// Ravi did not give it.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// For the operator only: the new configuration was refused.
    #[error("{what}")]
    Configuration {
        /// What happened, in one line.
        what: String,
        /// Every mistake, with its line.
        problems: Vec<String>,
    },
    /// A defect, or the random source failed.
    #[error("internal error")]
    Internal,
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, BrokerError>;

impl From<VaultError> for BrokerError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Absent | VaultError::Upstream(UpstreamError::NotFound) => Self::ResourceNotAvailable,
            VaultError::Ambiguous => Self::Ambiguous,
            VaultError::NoIdentity => Self::NoIdentity,
            VaultError::Locked => Self::Locked,
            VaultError::Full => Self::Capacity("memory for secrets"),
            VaultError::Upstream(UpstreamError::NoKey) => Self::LoginRequired,
            VaultError::Upstream(UpstreamError::BudgetReached { retry_after }) => {
                Self::RateLimited { limit: "upstream.budget", retry_after }
            }
            VaultError::Upstream(error) => Self::Upstream(error),
        }
    }
}

/// What must not be forgotten is written down before it counts, like the audit record.
impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "nothing is sent or made until it can");
        Self::StateUnavailable
    }
}

impl From<UpstreamError> for BrokerError {
    fn from(error: UpstreamError) -> Self {
        VaultError::Upstream(error).into()
    }
}

impl From<LeaseError> for BrokerError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NotAvailable => Self::LeaseNotAvailable,
            LeaseError::Expired => Self::LeaseExpired,
            LeaseError::Revoked => Self::LeaseRevoked,
            LeaseError::Capacity(limit) => Self::Capacity(limit),
            LeaseError::SessionEnded => Self::SessionRevoked,
            LeaseError::NoRandom => Self::Internal,
        }
    }
}

impl From<TokenError> for BrokerError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unknown | TokenError::Foreign { .. } | TokenError::Exec(_) | TokenError::Untold => {
                Self::SessionInvalid
            }
            // While it is locked the gate says so. Afterwards the session is over like any other.
            TokenError::Ended(End::Locked) => Self::SessionRevoked,
            TokenError::Ended(end) => end.into(),
        }
    }
}

impl From<End> for BrokerError {
    fn from(end: End) -> Self {
        match end {
            End::Expired => Self::SessionExpired,
            End::Closed
            | End::Revoked
            | End::ProcessEnded
            | End::ParentEnded
            | End::RoleChanged
            | End::Honeytoken => Self::SessionRevoked,
            End::Locked => Self::Locked,
            End::Stopping => Self::Draining,
        }
    }
}

impl From<OpenError> for BrokerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::ScopeNotGranted => Self::ScopeNotGranted,
            OpenError::Barred => Self::RoleNotAvailable,
            OpenError::NoAnchor => Self::Argument {
                field: "anchor",
                problem: "the process to bind to has ended or is the init process; use the caller itself",
            },
            OpenError::NoCgroup => Self::Argument {
                field: "anchor",
                problem: "the role binds its sessions to a cgroup, and this process is in none of its own",
            },
            OpenError::NoProcess => Self::Argument {
                field: "pid",
                problem: "no living process that may use this session has this id",
            },
            OpenError::ParentEnded => Self::SessionRevoked,
            OpenError::Capacity(limit) => Self::Capacity(limit),
            OpenError::NoRandom => Self::Internal,
        }
    }
}

impl BrokerError {
    /// A limit refused.
    pub(super) fn limited(limit: &'static str, limited: Limited) -> Self {
        Self::RateLimited { limit, retry_after: limited.retry_after }
    }
}
