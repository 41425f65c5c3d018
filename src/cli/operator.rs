//! `revoke`, `lock`, `unlock` and `reload`: the operator's switches.

use serde::Serialize;

use super::args::{Purpose, Revoke, RevokeTarget};
use super::context::{Context, text};
use super::error::CliError;
use super::exit::Exit;
use super::output::Document;
use super::page::{Cell, Page, Tone};
use crate::client::{self, ClientError, ErrorReason};

pub(super) async fn revoke(context: &mut Context, args: &Revoke) -> Result<(), CliError> {
    let client = context.admin().await?;
    let reason = text(args.purpose.reason.as_ref());
    let revoked = client.revoke(target(&args.target), &reason).await;
    let client::Revoked { sessions, leases, exposed_resources } = revoked.map_err(for_operator)?;
    context.show(&RevokedView { sessions, leases, exposed_resources })
}

/// What an agent is told of a session or lease that it may not know is no help here.
fn for_operator(error: ClientError) -> CliError {
    let (exit, hint) = (Exit::Other, "`ravi-broker status` shows the live sessions and their leases");
    let unknown =
        |reason, what| CliError::Operator { reason, exit, message: format!("no {what} is live"), hint };
    match error.reason() {
        Some(reason @ ErrorReason::SessionInvalid) => unknown(reason, "session of that id"),
        Some(reason @ ErrorReason::LeaseNotAvailable) => unknown(reason, "lease of that id"),
        _ => error.into(),
    }
}

/// The definition of the arguments lets exactly one through.
fn target(target: &RevokeTarget) -> client::RevokeTarget {
    match target {
        RevokeTarget { lease: Some(lease), .. } => client::RevokeTarget::Lease(*lease),
        RevokeTarget { session: Some(session), .. } => client::RevokeTarget::Session(*session),
        RevokeTarget { role: Some(role), .. } => client::RevokeTarget::Role(role.to_string()),
        _ => client::RevokeTarget::All,
    }
}

pub(super) async fn lock(context: &mut Context, purpose: &Purpose) -> Result<(), CliError> {
    let client = context.admin().await?;
    let client::Locked { sessions, leases } = client.lock(&text(purpose.reason.as_ref())).await?;
    context.show(&LockedView { locked: true, sessions, leases })
}

pub(super) async fn unlock(context: &mut Context) -> Result<(), CliError> {
    let management_key_held = context.admin().await?.unlock().await?.management_key_held;
    context.show(&UnlockedView { locked: false, management_key_held })
}

pub(super) async fn reload(context: &mut Context) -> Result<(), CliError> {
    let client::Reloaded { roles, sessions_ended } = context.admin().await?.reload().await?;
    context.show(&ReloadedView { roles, sessions_ended })
}

#[derive(Serialize)]
struct RevokedView {
    sessions: u32,
    leases: u32,
    /// Static values that the ended leases had shown: rotate these.
    exposed_resources: Vec<String>,
}

impl Document for RevokedView {
    fn human(&self, page: &mut Page) {
        if (self.sessions, self.leases) == (0, 0) {
            let nothing = "Nothing was live there; `ravi-broker status` shows the sessions and their roles.";
            return page.line(Cell::new(nothing, Tone::Warn));
        }
        page.line(format!("Ended: sessions {}, leases {}.", self.sessions, self.leases));
        if !self.exposed_resources.is_empty() {
            page.line(Cell::new("These values were shown; rotate them:", Tone::Warn));
            self.exposed_resources.iter().for_each(|resource| page.line(format!("  {resource}")));
        }
    }
}

#[derive(Serialize)]
struct LockedView {
    locked: bool,
    sessions: u32,
    leases: u32,
}

impl Document for LockedView {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new("The broker is locked and holds no secret.", Tone::Bad));
        page.line(format!("Ended: sessions {}, leases {}.", self.sessions, self.leases));
    }
}

#[derive(Serialize)]
struct UnlockedView {
    locked: bool,
    management_key_held: bool,
}

impl Document for UnlockedView {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new("The broker serves again.", Tone::Good));
        if !self.management_key_held {
            page.line(Cell::new("It holds no key: run `ravi-broker login`.", Tone::Warn));
        }
    }
}

#[derive(Serialize)]
struct ReloadedView {
    roles: Vec<String>,
    /// Sessions whose role is gone or no longer matches.
    sessions_ended: u32,
}

impl Document for ReloadedView {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new("The new configuration is in force.", Tone::Good));
        page.line(format!("Roles: {}", self.roles.join(", ")));
        page.line(format!("Sessions that ended: {}", self.sessions_ended));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn all_is_revoked_only_when_it_was_said() {
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Revoke(args) => target(&args.target),
            _ => unreachable!(),
        };
        assert_eq!(parse("ravi-broker revoke --all"), client::RevokeTarget::All);
        assert_eq!(parse("ravi-broker revoke --role a"), client::RevokeTarget::Role("a".into()));
        let lease = parse("ravi-broker revoke --lease lea_aaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert!(matches!(lease, client::RevokeTarget::Lease(_)));
        let session = parse("ravi-broker revoke --session ses_aaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert!(matches!(session, client::RevokeTarget::Session(_)));
    }
}
