//! What a model is told when a call fails: the reason code, what happened, and what to do next. No text
//! of Ravi's and nothing of the arguments is repeated.

use rmcp::model::{CallToolResult, ContentBlock};

use super::session::CallError;
use crate::client::{Attempt, BrokerError, ClientError, ConnectFailure, ErrorReason};

/// Code of errors that no broker gave: the adapter could not ask one.
const ADAPTER: &str = "ADAPTER_NOT_CONFIGURED";

const OTHER_VERSION: &str = "\
Tell the person you work for: ravi-brokerd and ravi-broker-mcp have to be of one version, and the socket has \
to be the daemon's agent socket.";

/// The result of a call that failed.
pub(super) fn failed(error: &CallError) -> CallToolResult {
    let (code, next) = match error {
        CallError::NoRole => (
            ADAPTER,
            "Tell the person you work for: add --role ROLE to the command of this MCP server, or set \
             RAVI_BROKER_ROLE, and restart it. `ravi-broker-mcp --help` has an example."
                .to_owned(),
        ),
        CallError::SessionFile(_) => (
            ADAPTER,
            "Tell the person you work for: open a session with `ravi-broker session open`, or start this \
             MCP server with --role ROLE instead of a session file."
                .to_owned(),
        ),
        CallError::Client(ClientError::Broker(error)) => (error.reason.as_str(), next_step(error)),
        CallError::Client(ClientError::Unreachable { tried }) if had_a_link(tried) => (
            "BROKER_UNREACHABLE",
            "Tell the person you work for: this program reaches the daemon over the link that `ravi-broker \
             run` left open, and that works no longer; it outlives neither its daemon nor its session. See \
             that the daemon runs, then start the program again with `ravi-broker run`."
                .to_owned(),
        ),
        CallError::Client(ClientError::Unreachable { .. }) => (
            "BROKER_UNREACHABLE",
            "Tell the person you work for: start the daemon with `systemctl --user start ravi-broker`, or \
             run `ravi-brokerd` in a terminal. If it listens elsewhere, give this MCP server --socket PATH. \
             Then call again; this server need not be restarted."
                .to_owned(),
        ),
        CallError::Client(ClientError::Lost) => {
            ("CONNECTION_LOST", "The daemon may be restarting. Call again in a moment.".to_owned())
        }
        CallError::Client(ClientError::TimedOut) => {
            ("TIMED_OUT", "Call again once. If it happens again, tell the person you work for.".to_owned())
        }
        CallError::Client(ClientError::Protocol) => ("PROTOCOL_ERROR", OTHER_VERSION.to_owned()),
    };
    let happened = match error {
        CallError::Client(ClientError::Broker(error)) => error.message.clone(),
        other => other.to_string(),
    };
    text(code, &happened, &next)
}

/// Whether a link was the way, and is none any more.
fn had_a_link(tried: &[Attempt]) -> bool {
    tried.iter().any(|attempt| attempt.failure == ConnectFailure::LinkEnded)
}

/// The result of a call whose arguments do not fit. `expected` is a text of ours.
pub(super) fn refused_arguments(expected: &str) -> CallToolResult {
    text("ARGUMENT_INVALID", expected, "Correct the arguments by the tool's input schema and call again.")
}

/// Text alone: hosts check structured content against the tool's output schema, errors too.
fn text(code: &str, happened: &str, next: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(format!("{code}: {happened}\n{next}"))])
}

/// What to do; where a rule refused, also how the operator learns which.
fn next_step(error: &BrokerError) -> String {
    use ErrorReason as Reason;

    let ruled = matches!(
        error.reason,
        Reason::SessionInvalid
            | Reason::SessionRevoked
            | Reason::RoleNotAvailable
            | Reason::ScopeNotGranted
            | Reason::ResourceNotAvailable
            | Reason::DeliveryNotAllowed
            | Reason::LeaseNotAvailable
            | Reason::LeaseRevoked
    );
    match error.denial.filter(|_| ruled) {
        Some(id) => format!("{} The operator learns why with `ravi-broker explain {id}`.", step(error)),
        None => step(error),
    }
}

fn step(error: &BrokerError) -> String {
    use ErrorReason as Reason;

    let step = match error.reason {
        Reason::SessionRequired
        | Reason::SessionInvalid
        | Reason::SessionExpired
        | Reason::SessionRevoked => {
            "A new session did not help. Tell the person you work for; if this MCP server uses a session \
             file, they have to run `ravi-broker session open` again."
        }
        Reason::RoleNotAvailable => {
            "Tell the person you work for: the daemon's configuration has no such role, or does not let \
             this program assume it (see `match` there)."
        }
        Reason::ScopeNotGranted | Reason::ResourceNotAvailable => {
            "Do not try other spellings. broker_whoami shows what you may do, passwords_list and secrets_list \
             what there is; if you need more, ask the person you work for."
        }
        Reason::DeliveryNotAllowed => {
            "The role forbids this way of delivery. Do not try others; ask the person you work for."
        }
        Reason::ApprovalDenied => {
            "The operator refused this. Do not ask again and do not try another way; go on without it, or ask \
             the person you work for."
        }
        Reason::ApprovalTimeout => {
            "The operator has to approve this and has not decided. Tell the person you work for: \
             `ravi-broker approvals list` shows the question. Then call again with the same arguments."
        }
        Reason::LeaseNotAvailable | Reason::LeaseExpired | Reason::LeaseRevoked => "Call the tool again.",
        Reason::ArgumentInvalid | Reason::ResourceNameInvalid => "Correct the arguments and call again.",
        Reason::RateLimited | Reason::UpstreamThrottled => return wait(error),
        Reason::CapacityReached => {
            "Too many leases are alive. Go on with the values you have and call again when some have \
             ended, or ask the person you work for."
        }
        Reason::BrokerLocked => {
            "The operator locked the broker on purpose. Stop, and tell the person you work for."
        }
        Reason::ConnectionRetired => "Call again.",
        Reason::WatchNotAvailable | Reason::WatchExpired => {
            "Open a new watch: call ravi_wait_for_code without one, and only then have the service send again."
        }
        Reason::QuotaReached => {
            "The identity may send no more today. Do not try again; tell the person you work for."
        }
        Reason::BrokerDraining => "The daemon is restarting. Call again in a moment.",
        Reason::AuditUnavailable | Reason::Internal | Reason::ConfigurationInvalid => {
            "Nothing was released. Tell the person you work for; the daemon's log has more."
        }
        Reason::LoginRequired => "Tell the person you work for: run `ravi-broker login`.",
        Reason::UpstreamUnavailable => {
            "Ravi cannot be reached. Call again in a minute; if it stays so, tell the person you work for."
        }
        Reason::UpstreamRefused | Reason::UpstreamInvalid => {
            "Do not call again. Tell the person you work for; `ravi-broker status` and the daemon's log \
             have more."
        }
        Reason::UpstreamOutcomeUnknown => {
            "It may or may not have taken effect. Do not repeat it before you have looked: for a message that was \
             sent with ravi_read_email or ravi_read_sms, for an entry with a list."
        }
        Reason::UpstreamPlanRequired => "Tell the person you work for: Ravi asks for a paid plan for this.",
        Reason::MethodUnknown => OTHER_VERSION,
        Reason::Unrecognised => "Tell the person you work for: the daemon is newer than this MCP server.",
    };
    step.to_owned()
}

fn wait(error: &BrokerError) -> String {
    match error.retry_after {
        // Rounded up, so that the next call is not too early again.
        Some(wait) => format!("Wait {} seconds, then call again. Do not call in a loop.", wait.as_secs() + 1),
        None => "Wait a minute, then call again. Do not call in a loop.".to_owned(),
    }
}
