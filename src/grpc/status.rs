//! The only place where an error becomes a wire status.
//!
//! A status carries the reason as `google.rpc.ErrorInfo`, waiting time as `RetryInfo`, a reached limit as
//! `QuotaFailure`. Its text is the broker's own, never upstream's or the caller's.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::BrokerError;
use crate::pb::ErrorReason;
use crate::types::{DenialId, NameError};
use crate::upstream::UpstreamError;

const DOMAIN: &str = "broker.ravi.id";
const PREFIX: &str = "ERROR_REASON_";
const STATUS: &str = "grpc-status";
const DETAILS: &str = "grpc-status-details-bin";
const DENIAL: &str = "denial-id";
/// A status travels in headers, of which clients read 8 to 16 KiB: in base64, beside the rest.
const MAX_PROBLEM_BYTES: usize = 4 * 1024;
/// What the wire adds to each.
const VIOLATION_BYTES: usize = 24;

impl From<BrokerError> for Status {
    fn from(error: BrokerError) -> Self {
        let (code, reason) = classify(&error);
        let mut details = ErrorDetails::with_error_info(name(reason), DOMAIN, metadata(&error));
        if let Some(wait) = retry_after(&error) {
            details.set_retry_info(Some(wait));
        }
        if let Some(limit) = limit(&error) {
            details.add_quota_failure_violation(limit, "reached");
        }
        for problem in problems(&error) {
            details.add_bad_request_violation("configuration", problem);
        }
        Self::with_error_details(code, error.to_string(), details)
    }
}

/// Gives an error that tonic made by itself a reason and a text of ours; its code, which follows gRPC's
/// own table, stays. Every error gets the call's id if it has one, the same for what is absent and what is forbidden.
pub(super) fn explain<B>(mut response: http::Response<B>, id: Option<DenialId>) -> http::Response<B> {
    let headers = response.headers_mut();
    let Some(code) = headers.get(STATUS).map(|code| Code::from_bytes(code.as_bytes())) else {
        return response;
    };
    if code == Code::Ok {
        return response;
    }
    if !headers.contains_key(DETAILS) {
        // Fails on a text that is no header value; ours are.
        let _ = unread(code).add_header(headers);
    }
    if let Some(id) = id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
        headers.insert(DENIAL, id);
    }
    response
}

/// The refusal of a request that did not get as far as the broker.
pub(super) fn unread(code: Code) -> Status {
    let (reason, text) = match code {
        Code::Unimplemented => (ErrorReason::MethodUnknown, "no such method or encoding on this socket"),
        Code::OutOfRange => (ErrorReason::ArgumentInvalid, "the request is larger than 64 KiB"),
        Code::NotFound => (ErrorReason::ArgumentInvalid, "no such service on this socket"),
        _ => (ErrorReason::ArgumentInvalid, "the request cannot be read"),
    };
    Status::with_error_details(
        code,
        text,
        ErrorDetails::with_error_info(name(reason), DOMAIN, HashMap::new()),
    )
}

/// The reason of an error, where it is told beside an answer.
pub(super) fn reason(error: &BrokerError) -> &'static str {
    name(classify(error).1)
}

/// The reason that an answer gives. `None`: it is no error, or one of another making.
pub(super) fn reason_of(headers: &http::HeaderMap) -> Option<ErrorReason> {
    headers.get(DETAILS)?;
    let reason = Status::from_header_map(headers)?.get_details_error_info()?.reason;
    ErrorReason::from_str_name(&format!("{PREFIX}{reason}"))
}

/// The code of an answer that begins; good, if it says nothing yet. What is no answer of gRPC has none.
pub(super) fn code_of<B>(answer: &http::Response<B>) -> Code {
    match answer.headers().get(STATUS) {
        Some(code) => Code::from_bytes(code.as_bytes()),
        None if answer.status().is_success() => Code::Ok,
        None => Code::Unknown,
    }
}

pub(super) fn name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().strip_prefix(PREFIX).unwrap_or_default()
}

fn classify(error: &BrokerError) -> (Code, ErrorReason) {
    use BrokerError as E;
    use ErrorReason as R;
    match error {
        E::SessionRequired => (Code::Unauthenticated, R::SessionRequired),
        E::SessionInvalid => (Code::Unauthenticated, R::SessionInvalid),
        E::SessionExpired => (Code::Unauthenticated, R::SessionExpired),
        E::SessionRevoked => (Code::Unauthenticated, R::SessionRevoked),
        E::RoleNotAvailable => (Code::PermissionDenied, R::RoleNotAvailable),
        E::ScopeNotGranted => (Code::PermissionDenied, R::ScopeNotGranted),
        E::ResourceNotAvailable => (Code::PermissionDenied, R::ResourceNotAvailable),
        E::DeliveryNotAllowed => (Code::PermissionDenied, R::DeliveryNotAllowed),
        E::ApprovalDenied => (Code::PermissionDenied, R::ApprovalDenied),
        E::ApprovalExpired | E::ApprovalPending => (Code::DeadlineExceeded, R::ApprovalTimeout),
        E::LeaseNotAvailable => (Code::PermissionDenied, R::LeaseNotAvailable),
        E::LeaseExpired => (Code::FailedPrecondition, R::LeaseExpired),
        E::LeaseRevoked => (Code::FailedPrecondition, R::LeaseRevoked),
        E::Name {
            error:
                NameError::Role
                | NameError::Reason
                | NameError::Handle
                | NameError::Uuid
                | NameError::Identity
                | NameError::Email
                | NameError::Phone
                | NameError::Message,
            ..
        }
        | E::Argument { .. }
        | E::Ambiguous => (Code::InvalidArgument, R::ArgumentInvalid),
        E::Name { .. } => (Code::InvalidArgument, R::ResourceNameInvalid),
        E::RateLimited { .. } => (Code::ResourceExhausted, R::RateLimited),
        E::Capacity(_) => (Code::ResourceExhausted, R::CapacityReached),
        E::Locked => (Code::FailedPrecondition, R::BrokerLocked),
        E::Draining => (Code::Unavailable, R::BrokerDraining),
        E::ConnectionRetired => (Code::Unavailable, R::ConnectionRetired),
        E::AuditUnavailable | E::Unrecorded | E::StateUnavailable => (Code::Unavailable, R::AuditUnavailable),
        E::LoginRequired => (Code::FailedPrecondition, R::LoginRequired),
        E::NoIdentity => (Code::FailedPrecondition, R::UpstreamRefused),
        E::Configuration { .. } => (Code::InvalidArgument, R::ConfigurationInvalid),
        E::Internal => (Code::Internal, R::Internal),
        E::WatchNotAvailable => (Code::PermissionDenied, R::WatchNotAvailable),
        E::WatchExpired => (Code::FailedPrecondition, R::WatchExpired),
        E::Quota { .. } => (Code::ResourceExhausted, R::QuotaReached),
        E::SendUnknown(_) | E::Provisioning(_) | E::Unprovisioned(_) => {
            (Code::Unknown, R::UpstreamOutcomeUnknown)
        }
        E::Upstream(error) => classify_upstream(error),
    }
}

fn classify_upstream(error: &UpstreamError) -> (Code, ErrorReason) {
    use ErrorReason as R;
    use UpstreamError as E;
    match error {
        E::NoKey | E::KeyRejected => (Code::FailedPrecondition, R::LoginRequired),
        E::Refused | E::Conflict | E::Invalid => (Code::FailedPrecondition, R::UpstreamRefused),
        E::NotFound => (Code::PermissionDenied, R::ResourceNotAvailable),
        E::PlanRequired => (Code::FailedPrecondition, R::UpstreamPlanRequired),
        E::Throttled { .. } => (Code::ResourceExhausted, R::UpstreamThrottled),
        E::BudgetReached { .. } => (Code::ResourceExhausted, R::RateLimited),
        E::Unavailable => (Code::Unavailable, R::UpstreamUnavailable),
        E::OutcomeUnknown => (Code::Unknown, R::UpstreamOutcomeUnknown),
        E::Answer(_) => (Code::Internal, R::UpstreamInvalid),
    }
}

fn retry_after(error: &BrokerError) -> Option<Duration> {
    match error {
        BrokerError::RateLimited { retry_after, .. }
        | BrokerError::Quota { retry_after, .. }
        | BrokerError::Upstream(
            UpstreamError::Throttled { retry_after } | UpstreamError::BudgetReached { retry_after },
        ) => Some(*retry_after),
        _ => None,
    }
}

/// What the caller needs for its next step.
fn metadata(error: &BrokerError) -> HashMap<String, String> {
    match error {
        BrokerError::SendUnknown(id) => HashMap::from([("send".to_owned(), id.to_string())]),
        _ => HashMap::new(),
    }
}

fn limit(error: &BrokerError) -> Option<&'static str> {
    match error {
        BrokerError::RateLimited { limit, .. }
        | BrokerError::Quota { budget: limit, .. }
        | BrokerError::Capacity(limit) => Some(limit),
        _ => None,
    }
}

/// The mistakes of a configuration, as many as fit into the headers that clients read.
fn problems(error: &BrokerError) -> Vec<String> {
    let BrokerError::Configuration { problems, .. } = error else { return Vec::new() };
    let mut room = MAX_PROBLEM_BYTES;
    let fits = |problem: &&String| {
        room = room.saturating_sub(problem.len() + VIOLATION_BYTES);
        room > 0
    };
    let mut told: Vec<String> = problems.iter().take_while(fits).cloned().collect();
    if told.len() < problems.len() {
        told.push(format!("and {} more", problems.len() - told.len()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DenialId = DenialId([7; 16]);

    #[test]
    fn an_absent_and_a_forbidden_resource_look_the_same() {
        let absent = Status::from(BrokerError::from(crate::vault::VaultError::Absent));
        let forbidden = Status::from(BrokerError::ResourceNotAvailable);
        assert_eq!(absent.code(), forbidden.code());
        assert_eq!(absent.message(), forbidden.message());
        assert_eq!(absent.details(), forbidden.details());
    }

    #[test]
    fn an_error_that_tonic_made_gets_a_reason_and_one_of_ours_is_left_alone() {
        let explained = |status: Status| {
            let explained = explain(status.into_http::<()>(), Some(ID));
            Status::from_header_map(explained.headers()).unwrap()
        };
        let reason = |status: &Status| status.get_details_error_info().unwrap().reason;
        let foreign = explained(Status::internal("failed to decode: caller's bytes"));
        assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::Internal, "ARGUMENT_INVALID"));
        assert_eq!(foreign.message(), "the request cannot be read");
        let ours = explained(BrokerError::Locked.into());
        assert_eq!((ours.code(), reason(&ours).as_str()), (Code::FailedPrecondition, "BROKER_LOCKED"));
    }

    #[test]
    fn what_is_no_error_is_left_alone() {
        let answer = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        assert_eq!(explain(answer, Some(ID)).headers().len(), 1);
    }

    #[test]
    fn mistakes_without_end_fit_into_the_headers_and_are_counted() {
        let problems = (0..200).map(|line| format!("line {line}: unknown key `{}`", "x".repeat(60)));
        let what = "config.toml: 200 mistakes".to_owned();
        let status = Status::from(BrokerError::Configuration { what, problems: problems.collect() });
        let details = status.get_error_details();
        let told = &details.bad_request().unwrap().field_violations;
        assert!(told[0].description.starts_with("line 0: "));
        let left = 200 - (told.len() - 1);
        assert_eq!(told.last().unwrap().description, format!("and {left} more"));
        assert!(status.details().len() < 6 * 1024, "{}", status.details().len());
    }

    #[test]
    fn a_limit_says_when_to_come_back() {
        let wait = Duration::from_secs(7);
        let status = Status::from(BrokerError::RateLimited { limit: "rate.read", retry_after: wait });
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
        assert_eq!(details.error_info().unwrap().domain, DOMAIN);
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(wait));
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "rate.read");
    }
}
