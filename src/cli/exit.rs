//! The exit codes, and which reason of the broker ends in which: the one table.
//!
//! Beside each reason stands what a person should do next. Imports the client's reasons alone.

use std::process::ExitCode;

use crate::client::ErrorReason;

/// How the program ends. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something else went wrong.
    Other = 1,
    /// The command line, or an argument that the broker refused.
    Usage = 2,
    /// No daemon, or it went away.
    Unreachable = 3,
    /// The caller may not.
    Denied = 4,
    /// Too much at once; later it will work.
    RateLimited = 5,
    /// The session or lease is over.
    Ended = 6,
    /// Ravi failed or refused.
    Upstream = 7,
    /// The program of `run` is there and cannot be executed (POSIX shells).
    NotExecutable = 126,
    /// The program of `run` is not there (POSIX shells).
    NotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of a reason, and the advice that goes with it.
pub(crate) fn outcome(reason: ErrorReason) -> (Exit, &'static str) {
    use ErrorReason as R;
    match reason {
        R::SessionRequired => (Exit::Denied, OPEN_ONE),
        R::SessionInvalid => {
            (Exit::Denied, "a session works only below the shell that opened it: open one here")
        }
        R::SessionExpired | R::SessionRevoked => (Exit::Ended, OPEN_ONE),
        R::RoleNotAvailable => (Exit::Denied, "ask the operator which role this program may assume"),
        R::ScopeNotGranted => (Exit::Denied, "leave --scopes away, or ask for less than the role has"),
        R::ResourceNotAvailable => (Exit::Denied, "`ravi-broker list` shows what there is"),
        R::DeliveryNotAllowed => {
            (Exit::Denied, "the operator allows other ways with `inject` and `use_by` of the role")
        }
        R::ApprovalDenied => (Exit::Denied, "do not ask for it in another way; talk to the operator"),
        R::ApprovalTimeout => {
            (Exit::Denied, "run it again to go on waiting; the operator decides with `ravi-broker approvals`")
        }
        R::LeaseNotAvailable => (Exit::Denied, "`ravi-broker lease list` shows the leases of this session"),
        R::LeaseExpired | R::LeaseRevoked => (Exit::Ended, "acquire a new lease"),
        R::WatchNotAvailable => (Exit::Denied, "begin to wait anew, then trigger the message again"),
        R::WatchExpired => (Exit::Ended, "begin to wait anew, then trigger the message again"),
        R::QuotaReached => (Exit::RateLimited, "wait for the next day of the identity's budget"),
        R::ArgumentInvalid => (Exit::Usage, "`--help` after the command shows what it takes"),
        R::ResourceNameInvalid => {
            (Exit::Usage, "write secret/KEY, password/DOMAIN[/USERNAME] or sso/token, as `list` shows them")
        }
        R::RateLimited => {
            (Exit::RateLimited, "wait, then try again; `ravi-broker session show` shows the limits")
        }
        R::CapacityReached => (Exit::RateLimited, "release leases or close sessions that are not needed"),
        R::BrokerLocked => (Exit::Denied, "the operator serves again with `ravi-broker unlock`"),
        R::ConnectionRetired => (Exit::Unreachable, "run it again: another connection is made"),
        R::BrokerDraining => (Exit::Unreachable, "try again once the daemon is back"),
        R::AuditUnavailable => {
            (Exit::Other, "the operator makes room for the audit file; nothing is released before that")
        }
        R::LoginRequired => (Exit::Upstream, "the operator runs `ravi-broker login`"),
        R::UpstreamUnavailable => (Exit::Upstream, "try again; the operator can check [upstream] base_url"),
        R::UpstreamThrottled => {
            (Exit::RateLimited, "Ravi asks this account to slow down: wait, then try again")
        }
        R::UpstreamRefused => {
            (Exit::Upstream, "the operator checks the account, or runs `ravi-broker login` again")
        }
        R::UpstreamInvalid => {
            (Exit::Upstream, "try later; if it stays, the operator checks [upstream] base_url")
        }
        R::UpstreamOutcomeUnknown => (Exit::Upstream, "look with `ravi-broker list` before you repeat it"),
        R::UpstreamPlanRequired => {
            (Exit::Upstream, "the owner of the Ravi account needs a plan that includes this")
        }
        R::ConfigurationInvalid => {
            (Exit::Other, "correct the file, check it with `ravi-broker config check`, and reload again")
        }
        R::Internal => (Exit::Other, "this is a defect of the broker; its log has more"),
        R::MethodUnknown => (
            Exit::Other,
            "see that --socket names the right socket, and that both programs are of one version",
        ),
        R::Unrecognised => (Exit::Other, "the broker is newer than this program: update it"),
    }
}

/// How to get a session.
pub(crate) const OPEN_ONE: &str = "open one: eval \"$(ravi-broker session open --role ROLE)\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exit_codes() {
        use ErrorReason as R;
        let codes = |exit, reasons: &[R]| {
            for reason in reasons {
                assert_eq!(outcome(*reason).0 as u8, exit, "{reason}");
            }
            reasons.len()
        };
        let told = codes(1, &[R::AuditUnavailable, R::ConfigurationInvalid, R::Internal, R::Unrecognised])
            + codes(1, &[R::MethodUnknown])
            + codes(2, &[R::ArgumentInvalid, R::ResourceNameInvalid])
            + codes(3, &[R::BrokerDraining, R::ConnectionRetired])
            + codes(4, &[R::SessionRequired, R::SessionInvalid, R::RoleNotAvailable, R::ScopeNotGranted])
            + codes(4, &[R::ResourceNotAvailable, R::LeaseNotAvailable, R::BrokerLocked])
            + codes(4, &[R::DeliveryNotAllowed, R::WatchNotAvailable])
            + codes(4, &[R::ApprovalDenied, R::ApprovalTimeout])
            + codes(5, &[R::RateLimited, R::CapacityReached, R::UpstreamThrottled, R::QuotaReached])
            + codes(6, &[R::WatchExpired])
            + codes(6, &[R::SessionExpired, R::SessionRevoked, R::LeaseExpired, R::LeaseRevoked])
            + codes(7, &[R::LoginRequired, R::UpstreamUnavailable, R::UpstreamRefused, R::UpstreamInvalid])
            + codes(7, &[R::UpstreamOutcomeUnknown, R::UpstreamPlanRequired]);
        assert_eq!(told, 35, "a new reason needs its line here");
    }
}
