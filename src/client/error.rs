//! Why a call failed, and the only place that reads a gRPC status. The reason comes from the
//! `google.rpc.ErrorInfo` of the broker's domain; a status without one did not come from the broker.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::types::{DenialId, SendId};

/// `ErrorInfo.domain` of the broker's errors.
const DOMAIN: &str = "broker.ravi.id";
/// Metadata of a refused call.
const DENIAL: &str = "denial-id";
/// In `ErrorInfo.metadata`.
const SEND: &str = "send";
/// A message is one or two lines; what is longer is cut.
const MAX_MESSAGE_CHARS: usize = 1024;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// No candidate accepted a connection, so that nothing was asked: start the daemon, or name the
    /// right socket.
    #[error("the broker cannot be reached: {}", list(tried))]
    Unreachable {
        /// What was tried, in order.
        tried: Vec<Attempt>,
    },
    /// The broker said no.
    #[error("{0}")]
    Broker(BrokerError),
    /// The connection ended during the call. What was asked for may or may not have happened.
    #[error("the connection to the broker ended during the call")]
    Lost,
    /// No answer before the deadline. What was asked for may or may not have happened.
    #[error("the broker did not answer in time")]
    TimedOut,
    /// The other side does not speak as this version of the broker does.
    #[error("the other side of the socket does not answer as this version of the broker does")]
    Protocol,
}

/// A candidate that did not accept a connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} ({failure})", path.display())]
pub struct Attempt {
    /// The socket's path.
    pub path: PathBuf,
    /// What the kernel said.
    pub failure: ConnectFailure,
}

/// Why a connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectFailure {
    /// There is nothing at the path.
    #[error("no such socket")]
    Absent,
    /// Nobody listens: a socket that an ended daemon left, or no socket at all.
    #[error("nobody listens")]
    Refused,
    /// The socket or a directory on the way is closed to this user.
    #[error("permission denied")]
    Permission,
    /// The link that a launcher left open leads nowhere any more.
    #[error("the link has ended: the daemon was restarted, or the session is over")]
    LinkEnded,
    /// The broker answers to nothing that this process sends on the link.
    #[error("no answer over the link: this process is not of its session, or another one reads its answers")]
    LinkSilent,
    /// Another process of the session has its turn on the link.
    #[error("the link is in use")]
    LinkBusy,
    /// Something else, for example a path that is too long.
    #[error("{0}")]
    Other(io::ErrorKind),
}

impl From<&io::Error> for ConnectFailure {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::PermissionDenied => Self::Permission,
            other => Self::Other(other),
        }
    }
}

fn list(tried: &[Attempt]) -> String {
    tried.iter().map(Attempt::to_string).collect::<Vec<_>>().join(", ")
}

/// An error of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerError {
    /// What to branch on.
    pub reason: ErrorReason,
    /// For people; without control characters.
    pub message: String,
    /// When waiting helps.
    pub retry_after: Option<Duration>,
    /// Name of the limit that was reached.
    pub limit: Option<Box<str>>,
    /// What is wrong with a configuration, each with its line.
    pub problems: Vec<String>,
    /// `snd_…`, to ask what became of a send whose outcome is unknown.
    pub send: Option<SendId>,
    /// `den_…`, under which the operator learns why the call was refused.
    pub denial: Option<DenialId>,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Mirror of the wire's `ErrorReason`; `proto/ravi/broker/v1/error.proto` says what each means
        /// and what to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorReason {
            $(#[doc = $name] $variant,)*
            /// A reason that a newer broker gave.
            Unrecognised,
        }

        impl ErrorReason {
            /// The code, as the wire has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unrecognised => "UNRECOGNISED",
                }
            }

            fn of(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Unrecognised,
                }
            }
        }
    };
}

reasons! {
    SessionRequired = "SESSION_REQUIRED",
    SessionInvalid = "SESSION_INVALID",
    SessionExpired = "SESSION_EXPIRED",
    SessionRevoked = "SESSION_REVOKED",
    RoleNotAvailable = "ROLE_NOT_AVAILABLE",
    ScopeNotGranted = "SCOPE_NOT_GRANTED",
    ResourceNotAvailable = "RESOURCE_NOT_AVAILABLE",
    LeaseNotAvailable = "LEASE_NOT_AVAILABLE",
    LeaseExpired = "LEASE_EXPIRED",
    LeaseRevoked = "LEASE_REVOKED",
    ArgumentInvalid = "ARGUMENT_INVALID",
    ResourceNameInvalid = "RESOURCE_NAME_INVALID",
    RateLimited = "RATE_LIMITED",
    CapacityReached = "CAPACITY_REACHED",
    BrokerLocked = "BROKER_LOCKED",
    BrokerDraining = "BROKER_DRAINING",
    AuditUnavailable = "AUDIT_UNAVAILABLE",
    LoginRequired = "LOGIN_REQUIRED",
    UpstreamUnavailable = "UPSTREAM_UNAVAILABLE",
    UpstreamThrottled = "UPSTREAM_THROTTLED",
    UpstreamRefused = "UPSTREAM_REFUSED",
    UpstreamInvalid = "UPSTREAM_INVALID",
    UpstreamOutcomeUnknown = "UPSTREAM_OUTCOME_UNKNOWN",
    UpstreamPlanRequired = "UPSTREAM_PLAN_REQUIRED",
    ConfigurationInvalid = "CONFIGURATION_INVALID",
    Internal = "INTERNAL",
    MethodUnknown = "METHOD_UNKNOWN",
    DeliveryNotAllowed = "DELIVERY_NOT_ALLOWED",
    ConnectionRetired = "CONNECTION_RETIRED",
    WatchNotAvailable = "WATCH_NOT_AVAILABLE",
    WatchExpired = "WATCH_EXPIRED",
    QuotaReached = "QUOTA_REACHED",
    ApprovalDenied = "APPROVAL_DENIED",
    ApprovalTimeout = "APPROVAL_TIMEOUT",
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClientError {
    /// Reads the broker's details, or else tells a lost connection from a stranger's answer.
    pub(super) fn of_status(status: &Status) -> Self {
        if let Some(info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) {
            let quota = status.get_details_quota_failure();
            let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
            return Self::Broker(BrokerError {
                reason: ErrorReason::of(&info.reason),
                message: plain(status.message()),
                retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
                limit: quota
                    .and_then(|quota| quota.violations.into_iter().next())
                    .map(|v| plain(&v.subject).into()),
                problems: violations.into_iter().flatten().map(|v| plain(&v.description)).collect(),
                send: info.metadata.get(SEND).and_then(|id| id.parse().ok()),
                denial: denial(status),
            });
        }
        if let Some(attempt) = failed_attempt(status) {
            return Self::Unreachable { tried: vec![attempt] };
        }
        match status.code() {
            Code::Unavailable => Self::Lost,
            Code::DeadlineExceeded => Self::TimedOut,
            // A source means that the status was made on this side, from a broken connection.
            _ if status.source().is_some() => Self::Lost,
            _ => Self::Protocol,
        }
    }

    /// The broker's reason, if it was the broker that refused.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Broker(error) => Some(error.reason),
            _ => None,
        }
    }
}

/// The connector's own error, where a connection could not be made again.
fn failed_attempt(status: &Status) -> Option<Attempt> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(attempt) = error.downcast_ref::<Attempt>() {
            return Some(attempt.clone());
        }
        source = error.source();
    }
    None
}

/// The id of the refused call. One that does not read as such is none.
fn denial(status: &Status) -> Option<DenialId> {
    status.metadata().get(DENIAL)?.to_str().ok()?.parse().ok()
}

/// Terminals and models read messages: no control characters, bounded.
fn plain(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;
    use crate::pb;

    fn status(domain: &str, reason: &str, message: &str) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, domain, HashMap::new());
        details.set_retry_info(Some(Duration::from_secs(7)));
        details.add_quota_failure_violation("rate.read", "60/min");
        Status::with_error_details(Code::ResourceExhausted, message, details)
    }

    #[test]
    fn the_reason_the_wait_and_the_limit_come_from_the_details() {
        let error = ClientError::of_status(&status(DOMAIN, "RATE_LIMITED", "slow\u{1b}[2J down"));
        let expected = BrokerError {
            reason: ErrorReason::RateLimited,
            message: "slow [2J down".into(),
            retry_after: Some(Duration::from_secs(7)),
            limit: Some("rate.read".into()),
            problems: Vec::new(),
            send: None,
            denial: None,
        };
        assert_eq!(error, ClientError::Broker(expected));
    }

    #[test]
    fn every_mistake_of_a_configuration_is_handed_on() {
        let mut details = ErrorDetails::with_error_info("CONFIGURATION_INVALID", DOMAIN, HashMap::new());
        details.add_bad_request_violation("configuration", "line 3: unknown key");
        details.add_bad_request_violation("configuration", "line 5: \u{1b}[2J");
        let status = Status::with_error_details(Code::InvalidArgument, "2 mistakes", details);
        let ClientError::Broker(error) = ClientError::of_status(&status) else { panic!("not the broker's") };
        assert_eq!(error.problems, ["line 3: unknown key", "line 5:  [2J"]);
    }

    #[test]
    fn the_id_of_a_refused_call_is_read_if_it_is_one() {
        let denial = |text: &'static str| {
            let mut status = status(DOMAIN, "RATE_LIMITED", "");
            status.metadata_mut().insert(DENIAL, text.parse().unwrap());
            let ClientError::Broker(error) = ClientError::of_status(&status) else {
                panic!("not the broker's")
            };
            error.denial
        };
        let id = DenialId([7; 16]);
        assert_eq!(denial(id.to_string().leak()), Some(id));
        for other in ["", "den_", "ses_a4dqobyha4dqobyha4dqobyha4", "den_a4dqobyha4dqobyha4dqobyha4 run this"]
        {
            assert_eq!(denial(other), None, "{other}");
        }
    }

    #[test]
    fn text_that_looks_like_a_reason_is_not_one() {
        let text = Status::permission_denied("RESOURCE_NOT_AVAILABLE");
        assert_eq!(ClientError::of_status(&text), ClientError::Protocol);
        let stranger = status("example.com", "RATE_LIMITED", "");
        assert_eq!(ClientError::of_status(&stranger), ClientError::Protocol);
    }

    #[test]
    fn every_reason_of_the_wire_has_its_mirror() {
        let mut known = std::collections::HashSet::new();
        for number in 1.. {
            let Ok(reason) = pb::ErrorReason::try_from(number) else { break };
            let name = reason.as_str_name().strip_prefix("ERROR_REASON_").unwrap();
            assert_eq!(ErrorReason::of(name).as_str(), name);
            known.insert(ErrorReason::of(name));
        }
        assert_eq!(known.len(), 34);
        assert_eq!(ErrorReason::of("UNSPECIFIED"), ErrorReason::Unrecognised);
    }

    #[test]
    fn an_unavailable_without_details_is_a_lost_connection() {
        assert_eq!(ClientError::of_status(&Status::unavailable("")), ClientError::Lost);
        assert_eq!(ClientError::of_status(&Status::deadline_exceeded("")), ClientError::TimedOut);
        assert_eq!(ClientError::of_status(&Status::unimplemented("")), ClientError::Protocol);
    }
}
