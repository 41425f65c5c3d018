//! Why a command failed: every error ends in two lines on standard error (what happened, what to do),
//! or one JSON object, and an exit code.
//!
//! Errors of this program itself carry both lines in their text, divided by the last line break.
//! Nothing here quotes a value, an argument or the content of a file.

use std::io;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::exit::{Exit, OPEN_ONE, outcome};
use super::helper::RequestError;
use super::inject::InjectError;
use super::input::InputError;
use super::ravi_file::RaviFileError;
use super::seal::SealError;
use super::service::ServiceError;
use super::setup::SetupError;
use super::skill::SkillError;
use crate::audit::AuditError;
use crate::client::{Attempt, BrokerError, ClientError, ConnectFailure, ErrorReason, SessionFileError};
use crate::config::ConfigError;

/// Why a command did not do what it was asked to.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The daemon was not reached, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The session file was not read or written.
    #[error(transparent)]
    SessionFile(#[from] SessionFileError),
    /// The result could not be written. A closed pipe is no failure: the reader had enough.
    #[error("the result could not be written: {}\nsee that standard output is open and has room", .0.kind())]
    Output(io::Error),
    /// A value was not read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The question of another program was not answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A template was not filled in.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// The result of a template would be shown.
    #[error(
        "values would be shown on this terminal\nname a file with -o, pipe it to where it is needed, or give --force"
    )]
    InjectTerminal,
    /// The skill was not installed or removed.
    #[error(transparent)]
    Skill(#[from] SkillError),
    /// A host was not set up, or not undone.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The key is held and was not sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The service was not installed, removed or looked at.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A person ran what a program is to run.
    #[error(
        "a helper answers the program that starts it, and not a terminal\nconfigure it there as --help says"
    )]
    HelperTerminal,
    /// The value does not fit the protocol of a helper.
    #[error(
        "a value holds a line break or zero byte, which this protocol cannot carry\ninject it with `run --file`"
    )]
    NotOneLine,
    /// The file of Ravi's command line was not accepted.
    #[error(transparent)]
    RaviFile(#[from] RaviFileError),
    /// There is no configuration that could be in force.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The audit trail cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The arguments do not fit; the text has both lines.
    #[error("{0}\n{1}")]
    Usage(String, String),
    /// The daemon refused, for a reason that means something else to an operator than to an agent.
    #[error("{message}\n{hint}")]
    Operator {
        /// The daemon's reason.
        reason: ErrorReason,
        /// How the program ends.
        exit: Exit,
        /// What happened.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A session is needed.
    #[error("there is no session\n{OPEN_ONE}")]
    NoSession,
    /// A value would be shown.
    #[error("the value would be shown on this terminal\npipe it to where it is needed, or give --reveal")]
    Terminal,
    /// The credential has no user name.
    #[error("this credential has no user name\nleave --field away to get its value")]
    NoUsername,
    /// The account name of a password that has none was to be injected.
    #[error("this credential has no user name\nleave #username away to inject its value")]
    NoUsernameOf,
    /// A value for the environment has a zero byte.
    #[error("a value holds a zero byte, which no variable can hold\ninject it with --file")]
    ZeroByte,
    /// The mask refused.
    #[error("the values are too large to be masked in the output\ninject fewer at once, or give --no-mask")]
    TooMuchToMask,
    /// The program of `run` is not there.
    #[error("the program was not found\nsee that its name is right, and PATH")]
    NotFound,
    /// The program of `run` cannot be executed.
    #[error("the program cannot be executed\nsee that it is a program, and that this user may execute it")]
    NotExecutable,
    /// No code came.
    #[error(
        "no code came in time\nbegin to wait first, then have the service send it again; look at what came with `ravi-broker inbox list`"
    )]
    NoCode,
    /// What should have made the service send a code failed.
    #[error(
        "the command that was to trigger the code failed\nits own messages say why; nothing is waited for any more"
    )]
    Trigger,
    /// The program was built without the stand-in.
    #[error(
        "this build has no demo: it leaves the stand-in for Ravi out\nbuild it with the feature `sandbox`"
    )]
    NoDemo,
    /// The demo stopped.
    #[error(
        "the demo did not come to its end: {0}\nrun it again; if it stays, report it with what it printed"
    )]
    Demo(String),
    /// The program could not begin to work.
    #[error("the program could not start: {}\nlook at the limits of this shell (ulimit -a)", .0.kind())]
    Start(io::Error),
    /// A check found something; the result has told what.
    #[error("the check failed\nsee the result")]
    Found,
}

/// What the user is told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// A code to branch on.
    pub(crate) reason: &'static str,
    /// What happened.
    pub(crate) message: String,
    /// Every mistake of a configuration, with its line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
    /// What to do.
    pub(crate) hint: String,
    /// When waiting helps: for how long, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_seconds: Option<u64>,
    /// For `ravi-broker explain`, where a rule refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) denial_id: Option<String>,
    #[serde(skip)]
    pub(crate) exit: Exit,
}

impl CliError {
    /// True where there is nothing to tell: the reader of our output had enough.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What the user is told.
    pub(crate) fn report(&self) -> Report {
        match self {
            Self::Client(error) => of_client(error),
            Self::SessionFile(error) => of_session_file(error),
            Self::Usage(..) => own("USAGE", Exit::Usage, self),
            Self::Operator { reason, exit, .. } => own(reason.as_str(), *exit, self),
            Self::NoSession => own("SESSION_REQUIRED", Exit::Denied, self),
            Self::Terminal => own("TERMINAL_REFUSED", Exit::Usage, self),
            Self::NoUsername | Self::NoUsernameOf => own("FIELD_ABSENT", Exit::Other, self),
            Self::Request(_) => own("REQUEST_REFUSED", Exit::Usage, self),
            Self::Skill(_) => own("SKILL_UNCHANGED", Exit::Other, self),
            Self::Setup(error) if error.is_usage() => own("SETUP_UNCHANGED", Exit::Usage, self),
            Self::Setup(_) => own("SETUP_UNCHANGED", Exit::Other, self),
            Self::Seal(_) => own("KEY_NOT_SEALED", Exit::Other, self),
            Self::Service(_) => own("SERVICE_FAILED", Exit::Other, self),
            Self::Inject(InjectError::File(_) | InjectError::NotAFile) => {
                own("OUTPUT_FAILED", Exit::Other, self)
            }
            Self::Inject(_) => own("TEMPLATE_REFUSED", Exit::Usage, self),
            Self::HelperTerminal | Self::InjectTerminal => own("TERMINAL_REFUSED", Exit::Usage, self),
            Self::ZeroByte | Self::TooMuchToMask | Self::NotOneLine => own("VALUE_UNFIT", Exit::Other, self),
            Self::NotFound => own("PROGRAM_NOT_FOUND", Exit::NotFound, self),
            Self::NotExecutable => own("PROGRAM_NOT_EXECUTABLE", Exit::NotExecutable, self),
            Self::Input(_) => own("INPUT_INVALID", Exit::Usage, self),
            Self::RaviFile(_) => own("KEY_FILE_REFUSED", Exit::Other, self),
            Self::Config(ConfigError::NotFound { .. }) => own("CONFIGURATION_ABSENT", Exit::Other, self),
            Self::Config(_) => own("CONFIGURATION_INVALID", Exit::Other, self),
            Self::Audit(_) => own("AUDIT_UNREADABLE", Exit::Other, self),
            Self::Output(_) => own("OUTPUT_FAILED", Exit::Other, self),
            Self::NoCode => own("NO_CODE", Exit::Ended, self),
            Self::Trigger => own("TRIGGER_FAILED", Exit::Other, self),
            Self::NoDemo | Self::Demo(_) => own("DEMO_FAILED", Exit::Other, self),
            Self::Start(_) => own("START_FAILED", Exit::Other, self),
            Self::Found => own("CHECK_FAILED", Exit::Other, self),
        }
    }
}

fn own(reason: &'static str, exit: Exit, error: &CliError) -> Report {
    let text = error.to_string();
    let (message, hint) = text.rsplit_once('\n').unwrap_or((&text, ""));
    report(reason, exit, message, hint)
}

fn report(reason: &'static str, exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Report {
    let (message, hint) = (message.into(), hint.into());
    Report { reason, message, problems: Vec::new(), hint, retry_after_seconds: None, denial_id: None, exit }
}

fn of_client(error: &ClientError) -> Report {
    let unclear = "what was asked for may have happened: look before you repeat it";
    match error {
        ClientError::Unreachable { tried } => {
            report("BROKER_UNREACHABLE", Exit::Unreachable, error.to_string(), unreachable_hint(tried))
        }
        ClientError::Broker(refusal) => of_broker(refusal),
        ClientError::Lost => report("CONNECTION_LOST", Exit::Unreachable, error.to_string(), unclear),
        ClientError::TimedOut => report("TIMED_OUT", Exit::Unreachable, error.to_string(), unclear),
        ClientError::Protocol => report(
            "PROTOCOL_MISMATCH",
            Exit::Other,
            error.to_string(),
            "see that --socket names the broker's socket, and that both programs are of one version",
        ),
    }
}

fn of_broker(refusal: &BrokerError) -> Report {
    let (exit, hint) = outcome(refusal.reason);
    let mut message = refusal.message.clone();
    if let Some(limit) = &refusal.limit {
        message.push_str(&format!(" (limit: {limit})"));
    }
    let wait = refusal.retry_after.map(ceiling);
    let check = refusal
        .send
        .map(|id| format!("ask what became of it before you repeat it: ravi-broker check-send {id}"));
    let mut hint = match wait {
        Some(wait) => format!("in {wait}s: {hint}"),
        None => check.unwrap_or_else(|| hint.to_owned()),
    };
    let denial_id = refusal.denial.filter(|_| is_ruled(refusal.reason)).map(|id| id.to_string());
    if let Some(id) = &denial_id {
        hint.push_str(&format!("; the operator learns why with `ravi-broker explain {id}`"));
    }
    let problems = refusal.problems.clone();
    let told = report(refusal.reason.as_str(), exit, message, hint);
    Report { retry_after_seconds: wait, problems, denial_id, ..told }
}

/// Where a rule of the broker refused and the caller is not told which.
fn is_ruled(reason: ErrorReason) -> bool {
    use ErrorReason as R;
    let of_session =
        matches!(reason, R::SessionRequired | R::SessionInvalid | R::SessionExpired | R::SessionRevoked);
    let of_role = matches!(reason, R::RoleNotAvailable | R::ScopeNotGranted);
    let of_resource = matches!(reason, R::ResourceNotAvailable | R::DeliveryNotAllowed);
    let of_lease =
        matches!(reason, R::LeaseNotAvailable | R::LeaseExpired | R::LeaseRevoked | R::WatchNotAvailable);
    of_session || of_role || of_resource || of_lease
}

/// Whole seconds, rounded up: coming back a moment early would be refused again.
fn ceiling(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn unreachable_hint(tried: &[Attempt]) -> &'static str {
    let met = |failure| tried.iter().any(|attempt| attempt.failure == failure);
    if met(ConnectFailure::LinkEnded) {
        "a link outlives neither its daemon nor its session: if the daemon runs, start the program again with \
         `ravi-broker run`; if not, start the daemon first"
    } else if met(ConnectFailure::LinkSilent) || met(ConnectFailure::LinkBusy) {
        "try again; if it stays so, start the program again with `ravi-broker run`"
    } else if met(ConnectFailure::Permission) {
        "the socket is closed to this user: join the group `ravi-broker`, or ask its owner"
    } else {
        "start the daemon (`ravi-brokerd`), or name its socket with --socket or --admin-socket"
    }
}

fn of_session_file(error: &SessionFileError) -> Report {
    let exit = match error {
        SessionFileError::Absent(_) => Exit::Denied,
        _ => Exit::Other,
    };
    let hint = match error {
        SessionFileError::Absent(_) => OPEN_ONE,
        SessionFileError::NoDirectory | SessionFileError::OnDisk(_) => {
            "give a path in memory, for example --file /dev/shm/my-session"
        }
        SessionFileError::Io(..) => "see that the path is right and that this user may use it",
        _ => "remove it, or name another, and open a new session",
    };
    let reason = if exit == Exit::Denied { "SESSION_REQUIRED" } else { "SESSION_FILE_REFUSED" };
    report(reason, exit, error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DenialId;

    fn refusal(reason: ErrorReason, retry_after: Option<Duration>) -> CliError {
        let (message, limit) = ("too many reads".into(), Some("rate.read".into()));
        let (problems, send, denial) = (Vec::new(), None, Some(DenialId([7; 16])));
        ClientError::Broker(BrokerError { reason, message, retry_after, limit, problems, send, denial })
            .into()
    }

    #[test]
    fn a_refusal_says_what_happened_and_what_to_do() {
        let report = refusal(ErrorReason::RateLimited, Some(Duration::from_millis(6_200))).report();
        assert_eq!(report.exit, Exit::RateLimited);
        assert_eq!(report.message, "too many reads (limit: rate.read)");
        assert!(report.hint.starts_with("in 7s: wait"), "{}", report.hint);
        assert_eq!(report.retry_after_seconds, Some(7));
    }

    #[test]
    fn the_json_form_has_the_promised_fields() {
        let report = refusal(ErrorReason::LeaseExpired, None).report();
        let json = serde_json::to_value(&report).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["denial_id", "hint", "message", "reason"]);
        assert_eq!(json["reason"], "LEASE_EXPIRED");
        let waits =
            serde_json::to_value(refusal(ErrorReason::RateLimited, Some(Duration::from_secs(2))).report());
        assert_eq!(waits.unwrap()["retry_after_seconds"], 2);
    }

    #[test]
    fn a_refusal_by_a_rule_names_its_id_and_another_does_not() {
        let id = DenialId([7; 16]).to_string();
        for reason in
            [ErrorReason::ResourceNotAvailable, ErrorReason::SessionInvalid, ErrorReason::LeaseExpired]
        {
            let report = refusal(reason, None).report();
            assert!(report.hint.ends_with(&format!("`ravi-broker explain {id}`")), "{}", report.hint);
            assert_eq!(report.denial_id.as_ref(), Some(&id));
        }
        for reason in [ErrorReason::UpstreamUnavailable, ErrorReason::BrokerLocked, ErrorReason::RateLimited]
        {
            let report = refusal(reason, None).report();
            assert!(!report.hint.contains("explain") && report.denial_id.is_none(), "{}", report.hint);
        }
    }

    #[test]
    fn an_unreachable_broker_is_told_with_every_place_that_was_tried() {
        let attempt = |path: &str, failure| Attempt { path: path.into(), failure };
        let tried = vec![
            attempt("/run/user/7/ravi-broker/broker.sock", ConnectFailure::Absent),
            attempt("/run/ravi-broker/broker.sock", ConnectFailure::Permission),
        ];
        let report = CliError::from(ClientError::Unreachable { tried }).report();
        assert_eq!((report.reason, report.exit), ("BROKER_UNREACHABLE", Exit::Unreachable));
        assert!(report.message.contains("/run/user/7/ravi-broker/broker.sock (no such socket)"));
        assert!(report.hint.contains("group `ravi-broker`"));
    }

    #[test]
    fn every_error_of_our_own_has_two_lines() {
        let usage = || CliError::Usage("what".into(), "remedy".into());
        for error in [
            CliError::Output(io::ErrorKind::StorageFull.into()),
            usage(),
            CliError::NoSession,
            CliError::Terminal,
            CliError::NoUsername,
            CliError::NoUsernameOf,
            CliError::ZeroByte,
            CliError::NotOneLine,
            CliError::HelperTerminal,
            CliError::InjectTerminal,
            SkillError::NoHome.into(),
            SkillError::Declined.into(),
            SetupError::NotAsked.into(),
            SetupError::NoProject { host: "print" }.into(),
            SetupError::Changed("/f".into()).into(),
            SealError::Refused.into(),
            ServiceError::NotRoot.into(),
            ServiceError::Untrusted("/opt/ravi-brokerd".into()).into(),
            ServiceError::Command("systemctl daemon-reload".into()).into(),
            InjectError::Open(1).into(),
            InjectError::NoReference(1).into(),
            CliError::Request(RequestError::NotHttps),
            CliError::TooMuchToMask,
            CliError::NotFound,
            CliError::NotExecutable,
            CliError::NoDemo,
            CliError::Demo("why".into()),
            CliError::Start(io::ErrorKind::OutOfMemory.into()),
            CliError::Found,
        ] {
            let report = error.report();
            assert!(!report.message.is_empty() && !report.hint.is_empty(), "{error:?}");
            assert!(!report.message.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        assert!(CliError::Output(io::ErrorKind::BrokenPipe.into()).is_closed_pipe());
        assert!(!CliError::Output(io::ErrorKind::StorageFull.into()).is_closed_pipe());
        assert!(!CliError::NoSession.is_closed_pipe());
    }
}
