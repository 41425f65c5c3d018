//! `session open|delegate|show|renew|close` and `whoami`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{DelegateSession, OneCall, OpenSession, RenewSession, SessionCommand, UnderSession};
use super::context::{Context, text};
use super::error::CliError;
use super::exit::Exit;
use super::output::{Document, moment, seconds, span};
use super::page::{Cell, Page, Tone};
use crate::client::{
    self, AgentClient, Anchor, Binding, ClientError, Identity, LimitInfo, Session, SessionDescription,
    SessionFile, SessionFileError, locate,
};
use crate::clock::Clock;
use crate::secret::Secret;

/// Session files looked at in one go.
const MAX_FORGOTTEN: usize = 256;

pub(super) async fn run(context: &mut Context, command: &SessionCommand) -> Result<(), CliError> {
    match command {
        SessionCommand::Open(args) => open(context, args).await,
        SessionCommand::Delegate(args) => delegate(context, args).await,
        SessionCommand::Show(under) => show(context, under).await,
        SessionCommand::Renew(args) => renew(context, args).await,
        SessionCommand::Close(under) => close(context, under).await,
    }
}

async fn open(context: &mut Context, args: &OpenSession) -> Result<(), CliError> {
    let client = context.agent().await?;
    let request = client::OpenSession {
        role: args.role.to_string(),
        scopes: args.scopes.clone(),
        ttl: args.ttl,
        reason: text(args.purpose.reason.as_ref()),
        // This process ends at once; the shell that ran it goes on.
        anchor: Anchor::Parent,
    };
    let (session, token) = client.open_session(request).await?;
    hand_over(context, client, &session, token, args.file.as_deref()).await
}

async fn delegate(context: &mut Context, args: &DelegateSession) -> Result<(), CliError> {
    let (client, _) = context.session(&args.session).await?;
    let request = client::DelegateSession {
        scopes: args.scopes.clone(),
        ttl: args.ttl,
        reason: text(args.purpose.reason.as_ref()),
        pid: args.pid,
    };
    let (session, token) = client.delegate_session(request).await?;
    hand_over(context, client, &session, token, args.file.as_deref()).await
}

/// Keeps a new session in a file and tells which.
async fn hand_over(
    context: &mut Context,
    client: AgentClient,
    session: &Session,
    token: Secret,
    named: Option<&Path>,
) -> Result<(), CliError> {
    forget_ended(context.clock.wall());
    let path = keep(client, session, token, named).await?;
    let left = span(session.expires_in);
    context.notes.say(&format!("Session {} as {}, for {left}.", session.session_id, session.role));
    if context.out.is_terminal() {
        context.notes.say("Run this line in your shell, or put the command into eval \"$(…)\":");
    }
    context.show(&OpenedView { session: SessionView::of(session), session_file: &path })
}

/// Writes the session file. A session that cannot be kept is closed.
async fn keep(
    client: AgentClient,
    session: &Session,
    token: Secret,
    named: Option<&Path>,
) -> Result<String, CliError> {
    let file = SessionFile::new(client.socket(), session, token);
    let written = session_path(session, named).and_then(|path| match path.to_str() {
        Some(text) => file.write(&path).map(|()| text.to_owned()),
        None => Err(SessionFileError::Malformed(path)),
    });
    if written.is_err() {
        // It ends with the shell in any case.
        let _ = client.with_token(file.token).close_session().await;
    }
    Ok(written?)
}

/// Removes the files of sessions that have ended, which shells leave behind when they exit. A file that
/// cannot be read or removed is none of ours to mend.
fn forget_ended(now: Timestamp) {
    let entries = locate::session_directory().and_then(|directory| std::fs::read_dir(directory).ok());
    for entry in entries.into_iter().flatten().flatten().take(MAX_FORGOTTEN) {
        let path = entry.path();
        if SessionFile::read(&path).is_ok_and(|file| file.expires_at < now) {
            let _ = SessionFile::remove(&path);
        }
    }
}

/// Absolute, since the shell may move on.
fn session_path(session: &Session, named: Option<&Path>) -> Result<PathBuf, SessionFileError> {
    match named {
        Some(path) => std::path::absolute(path).map_err(|error| SessionFileError::Io(path.into(), error)),
        None => SessionFile::default_path(session.session_id),
    }
}

async fn show(context: &mut Context, under: &UnderSession) -> Result<(), CliError> {
    let (client, _) = context.session(under).await?;
    let description = client.describe_session().await?;
    context.show(&DescriptionView::of(&description))
}

async fn renew(context: &mut Context, args: &RenewSession) -> Result<(), CliError> {
    let (client, path) = context.session(&args.session).await?;
    let session = client.renew_session(args.ttl).await?;
    // Files are removed by the end that stands in them.
    SessionFile { expires_at: session.expires_at, ..SessionFile::read(&path)? }.write(&path)?;
    context.show(&RenewedView { session: SessionView::of(&session) })
}

async fn close(context: &mut Context, under: &UnderSession) -> Result<(), CliError> {
    let (client, path) = context.session(under).await?;
    let leases_revoked = match client.close_session().await {
        Ok(count) => count,
        // It is over, which is what was asked for.
        Err(error) if is_over(&error) => 0,
        Err(error) => return Err(error.into()),
    };
    SessionFile::remove(&path)?;
    context.show(&ClosedView { leases_revoked })
}

fn is_over(error: &ClientError) -> bool {
    error.reason().is_some_and(|reason| super::exit::outcome(reason).0 == Exit::Ended)
}

pub(super) async fn whoami(context: &mut Context, session: &OneCall) -> Result<(), CliError> {
    let (description, identity) = context
        .under(session, None, async |client| {
            let description = client.describe_session().await?;
            // Asked for only where it is allowed: a refusal would stand in the audit trail.
            let allowed = description.session.scopes.iter().any(|scope| scope.starts_with("identity:read"));
            let identity = if allowed { Some(client.identity().await?) } else { None };
            Ok((description, identity))
        })
        .await?;
    context.show(&WhoamiView {
        session: SessionView::of(&description.session),
        identity: identity.as_ref().map(IdentityView::of),
    })
}

/// A session, as JSON has it.
#[derive(Serialize)]
pub(super) struct SessionView<'a> {
    session_id: String,
    role: &'a str,
    /// The Ravi identity, as the configuration names it.
    identity: &'a str,
    scopes: &'a [String],
    expires_at: String,
    #[serde(serialize_with = "seconds")]
    expires_in: Duration,
    /// Whose token works: `process`, `subtree` or `cgroup`.
    binding: &'static str,
    /// The session that it was delegated from.
    parent_session_id: Option<String>,
}

impl<'a> SessionView<'a> {
    fn of(session: &'a Session) -> Self {
        Self {
            session_id: session.session_id.to_string(),
            role: &session.role,
            identity: &session.identity,
            scopes: &session.scopes,
            expires_at: moment(session.expires_at),
            expires_in: session.expires_in,
            binding: match session.binding {
                Binding::Process => "process",
                Binding::Subtree => "subtree",
                Binding::Cgroup => "cgroup",
            },
            parent_session_id: session.parent_session_id.map(|id| id.to_string()),
        }
    }

    fn pairs(&self) -> Vec<(&'static str, Cell)> {
        let parent = self.parent_session_id.as_ref().map(|id| ("Delegated by", Cell::from(id)));
        let own = [
            ("Role", Cell::new(self.role, Tone::Strong)),
            ("Identity", self.identity.into()),
            ("Session", Cell::from(&self.session_id)),
            ("Ends in", Cell::from(span(self.expires_in))),
            ("Works for", self.holders().into()),
            ("Scopes", Cell::from(self.scopes.join(", "))),
        ];
        own.into_iter().chain(parent).collect()
    }

    fn holders(&self) -> &'static str {
        match self.binding {
            "process" => "one process",
            "subtree" => "one process and what it starts",
            _ => "the processes of a cgroup",
        }
    }
}

#[derive(Serialize)]
struct OpenedView<'a> {
    session: SessionView<'a>,
    /// For `RAVI_BROKER_SESSION_FILE`.
    session_file: &'a str,
}

impl Document for OpenedView<'_> {
    /// A line for `eval`.
    fn human(&self, page: &mut Page) {
        page.shell(&format!("export {}={}", locate::SESSION_FILE_VARIABLE, quoted(self.session_file)));
    }
}

/// A word that a POSIX shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[derive(Serialize)]
struct DescriptionView<'a> {
    session: SessionView<'a>,
    limits: Vec<LimitView<'a>>,
    live_leases: u32,
    max_live_leases: u32,
}

#[derive(Serialize)]
struct LimitView<'a> {
    name: &'a str,
    /// As configured, for example `60/min`.
    rate: &'a str,
    /// Requests that would be let through at once.
    remaining: u32,
    #[serde(serialize_with = "seconds")]
    resets_in: Duration,
}

impl<'a> DescriptionView<'a> {
    fn of(description: &'a SessionDescription) -> Self {
        let limit = |limit: &'a LimitInfo| LimitView {
            name: &limit.name,
            rate: &limit.rate,
            remaining: limit.remaining,
            resets_in: limit.resets_in,
        };
        Self {
            session: SessionView::of(&description.session),
            limits: description.limits.iter().map(limit).collect(),
            live_leases: description.live_leases,
            max_live_leases: description.max_live_leases,
        }
    }
}

impl Document for DescriptionView<'_> {
    fn human(&self, page: &mut Page) {
        let leases = Cell::from(format!("{} of {}", self.live_leases, self.max_live_leases));
        page.pairs(self.session.pairs().into_iter().chain([("Leases", leases)]));
        page.line("");
        let row = |limit: &LimitView| -> [Cell; 4] {
            let tone = if limit.remaining == 0 { Tone::Warn } else { Tone::Plain };
            let remaining = Cell::new(limit.remaining.to_string(), tone);
            [limit.name.into(), limit.rate.into(), remaining, span(limit.resets_in).into()]
        };
        let rows: Vec<_> = self.limits.iter().map(row).collect();
        page.table(["LIMIT", "RATE", "LEFT NOW", "WHOLE IN"], &rows, "No limits.");
    }
}

#[derive(Serialize)]
struct RenewedView<'a> {
    session: SessionView<'a>,
}

impl Document for RenewedView<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!("The session ends in {}.", span(self.session.expires_in)));
    }
}

#[derive(Serialize)]
struct ClosedView {
    leases_revoked: u32,
}

impl Document for ClosedView {
    fn human(&self, page: &mut Page) {
        page.line(format!("The session is closed; leases that ended with it: {}.", self.leases_revoked));
    }
}

#[derive(Serialize)]
struct WhoamiView<'a> {
    session: SessionView<'a>,
    /// Null if the session has no `identity:read`.
    identity: Option<IdentityView<'a>>,
}

#[derive(Serialize)]
struct IdentityView<'a> {
    uuid: &'a str,
    name: &'a str,
    email: Option<&'a str>,
    phone: Option<&'a str>,
    owner: String,
}

impl<'a> IdentityView<'a> {
    fn of(identity: &'a Identity) -> Self {
        let owner = format!("{} {}", identity.owner_first_name, identity.owner_last_name);
        Self {
            uuid: &identity.uuid,
            name: &identity.name,
            email: identity.email.as_deref(),
            phone: identity.phone.as_deref(),
            owner: owner.trim().to_owned(),
        }
    }
}

impl Document for WhoamiView<'_> {
    fn human(&self, page: &mut Page) {
        page.pairs(self.session.pairs());
        if let Some(identity) = &self.identity {
            page.line("");
            page.pairs([
                ("Name", Cell::new(identity.name, Tone::Strong)),
                ("Mail", identity.email.unwrap_or("none").into()),
                ("Phone", identity.phone.unwrap_or("none").into()),
                ("Owner", Cell::from(&identity.owner)),
                ("UUID", identity.uuid.into()),
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    #[test]
    fn the_json_form_of_a_session_is_a_promise() {
        let session = Session {
            session_id: SessionId([1; 16]),
            role: "notes-agent".into(),
            identity: "notes".into(),
            scopes: vec!["secret:read:A".into()],
            expires_at: Timestamp::UNIX_EPOCH,
            expires_in: Duration::from_millis(61_900),
            binding: Binding::Subtree,
            parent_session_id: None,
        };
        let expected = serde_json::json!({
            "session_id": "ses_aeaqcaibaeaqcaibaeaqcaibae", "role": "notes-agent", "identity": "notes",
            "scopes": ["secret:read:A"], "expires_at": "1970-01-01T00:00:00Z", "expires_in": 61,
            "binding": "subtree", "parent_session_id": null,
        });
        assert_eq!(serde_json::to_value(SessionView::of(&session)).unwrap(), expected);
    }

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        assert_eq!(quoted("/run/a b/$(x)"), "'/run/a b/$(x)'");
        assert_eq!(quoted("/run/it's"), r"'/run/it'\''s'");
    }
}
