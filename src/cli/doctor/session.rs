//! The session of the environment, the roles that this process may assume, and Ravi behind them.

use std::time::Duration;

use super::report::{Finding, Findings};
use super::{MAX_ROLES, wrong};
use crate::cli::args::{Doctor, UnderSession};
use crate::cli::config;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::OPEN_ONE;
use crate::cli::output::span;
use crate::client::{AdminClient, AgentClient, ClientError, ErrorReason, OpenSession, Session};
use crate::clock::Clock;

/// Clocks of one machine do not differ by more.
const SKEW: Duration = Duration::from_secs(5);

/// The session that the shell has, if it is good.
pub(super) async fn of_environment(context: &Context, findings: &mut Findings) -> Option<AgentClient> {
    const CHECK: &str = "session";
    let asked = async {
        let (client, _) = context.session(&UnderSession { session_file: None }).await?;
        let described = client.describe_session().await?;
        Ok::<_, CliError>((client, described.session))
    };
    match asked.await {
        Ok((client, session)) => {
            let what = format!("{}, for {}", session.role, span(session.expires_in));
            findings.add(Finding::good(CHECK, what));
            clock(context, &session, findings);
            Some(client)
        }
        Err(CliError::NoSession) => {
            findings.add(Finding::note(CHECK, "this shell has none", format!("{OPEN_ONE}, or use --role")));
            None
        }
        Err(error) => {
            findings.add(wrong(CHECK, error));
            None
        }
    }
}

/// The end of a session as the daemon's clock has it, beside the time that is left.
fn clock(context: &Context, session: &Session, findings: &mut Findings) {
    const CHECK: &str = "clock";
    let left = session.expires_at.duration_since(context.clock.wall());
    let expected = jiff::SignedDuration::try_from(session.expires_in).unwrap_or(jiff::SignedDuration::MAX);
    let skew = (left - expected).unsigned_abs();
    findings.add(if skew <= SKEW {
        Finding::good(CHECK, "the daemon's and ours agree; that of Ravi is not known")
    } else {
        let what = format!("it and the daemon's differ by {}, or it was set since", span(skew));
        Finding::bad(CHECK, what, "see that time is synchronised (`timedatectl`), then restart the daemon")
    });
}

/// The roles to try: those that were named, else all that this user can learn of.
pub(super) async fn names(context: &Context, args: &Doctor, admin: Option<&AdminClient>) -> Vec<String> {
    if !args.role.is_empty() {
        return args.role.iter().map(ToString::to_string).collect();
    }
    match admin {
        Some(admin) => admin.status().await.map(|status| status.roles).unwrap_or_default(),
        None => config::role_names(&context.global),
    }
}

/// Opens a session of each role and closes it; the first is kept for [`upstream`].
pub(super) async fn roles(
    context: &Context,
    first: AgentClient,
    args: &Doctor,
    names: &[String],
    admin: Option<&AdminClient>,
    findings: &mut Findings,
) -> Option<AgentClient> {
    const CHECK: &str = "roles";
    if names.is_empty() {
        findings.add(Finding::note(
            CHECK,
            "their names are not for this process to see",
            "name one with --role",
        ));
        return None;
    }
    let (mut opened, mut first) = (None, Some(first));
    for name in names.iter().take(MAX_ROLES) {
        let client = match first.take() {
            Some(client) => client,
            None => context.agent().await.ok()?,
        };
        match client.open_session(OpenSession::role(name)).await {
            Ok((session, token)) => {
                let what = format!("{name}: this process may assume it, as {}", session.identity);
                findings.add(Finding::good(CHECK, what));
                let client = client.with_token(token);
                if opened.is_none() {
                    opened = Some(client);
                } else {
                    let _ = client.close_session().await;
                }
            }
            Err(error) => {
                let finding = refused(name, &error, admin, !args.role.is_empty()).await;
                findings.add(finding);
            }
        }
    }
    if names.len() > MAX_ROLES {
        let what = format!("{} more were not tried", names.len() - MAX_ROLES);
        findings.add(Finding::note(CHECK, what, "name them with --role"));
    }
    if opened.is_none() && args.role.is_empty() {
        let fix = "write what this process is into `match` of a role, then `ravi-broker reload`";
        findings.add(Finding::bad(CHECK, "this process may assume none", fix));
    }
    opened
}

/// Why a role is not to be had: the rule, where the operator asks.
async fn refused(name: &str, error: &ClientError, admin: Option<&AdminClient>, named: bool) -> Finding {
    const CHECK: &str = "roles";
    let denial = match error {
        ClientError::Broker(refusal) => refusal.denial,
        _ => None,
    };
    let explained = match (admin, denial) {
        (Some(admin), Some(id)) => admin.explain(id).await.ok(),
        _ => None,
    };
    let (what, fix) = match (explained, denial) {
        (Some(told), _) => {
            let compared = told.selectors.join("; ");
            (
                format!("{name}: refused by {} ({compared})", told.rule),
                "compare with `match` of the role".into(),
            )
        }
        (None, Some(id)) => {
            (format!("{name}: {error}"), format!("the operator learns why with `ravi-broker explain {id}`"))
        }
        (None, None) => (format!("{name}: {error}"), "try again".into()),
    };
    let what = what.replace('\n', "; ");
    if named { Finding::bad(CHECK, what, fix) } else { Finding::note(CHECK, what, fix) }
}

/// Whether Ravi answers, as far as a session can tell.
pub(super) async fn upstream(client: Option<&AgentClient>, findings: &mut Findings) {
    const CHECK: &str = "Ravi";
    let Some(client) = client else {
        return findings.add(Finding::note(
            CHECK,
            "not asked: that takes a session",
            "name a role with --role",
        ));
    };
    findings.add(match client.identity().await {
        Ok(identity) => Finding::good(CHECK, format!("answers for {}", identity.name)),
        Err(error) if error.reason() == Some(ErrorReason::ResourceNotAvailable) => Finding::note(
            CHECK,
            "not asked: the role may not see its identity",
            "give it the scope identity:read",
        ),
        Err(error) => wrong(CHECK, error),
    });
}
