//! `doctor`: what is wrong between this process, the daemon and Ravi, and what to do about each.
//!
//! It looks at what this process can see. Which roles it may assume it learns by opening and closing a session of
//! each, and whether Ravi answers by asking for the session's identity; both are in the audit trail like any
//! other. It changes nothing. Imports `client`, `clock`, `types`.

mod daemon;
mod hosts;
mod report;
mod session;

use super::args::Doctor;
use super::context::Context;
use super::error::CliError;
use report::{Finding, Findings, ReportView};

/// Most roles that are tried.
const MAX_ROLES: usize = 16;

pub(super) async fn run(context: &mut Context, args: &Doctor) -> Result<(), CliError> {
    let mut findings = Findings::default();
    daemon::configuration(context, &mut findings);
    daemon::kernel(&mut findings);
    hosts::noted(&mut findings);
    let admin = daemon::admin(context, &mut findings).await;
    let Some(agent) = daemon::agent_socket(context, &mut findings).await else {
        return told(context, &findings);
    };
    let known = session::of_environment(context, &mut findings).await;
    let names = session::names(context, args, admin.as_ref()).await;
    let opened = session::roles(context, agent, args, &names, admin.as_ref(), &mut findings).await;
    session::upstream(known.as_ref().or(opened.as_ref()), &mut findings).await;
    if let Some(opened) = opened {
        // The session is bound to this process and ends with it anyway.
        let _ = opened.close_session().await;
    }
    told(context, &findings)
}

fn told(context: &mut Context, findings: &Findings) -> Result<(), CliError> {
    context.show(&ReportView::of(findings))?;
    if findings.all_well() { Ok(()) } else { Err(CliError::Found) }
}

/// What an error says, as something that is wrong.
fn wrong(check: &'static str, error: impl Into<CliError>) -> Finding {
    let report = error.into().report();
    Finding::bad(check, report.message.replace('\n', "; "), report.hint)
}
