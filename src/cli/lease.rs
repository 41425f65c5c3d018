//! `get` and `lease acquire|read|renew|release|list|watch`.
//!
//! A value goes to standard output only where the command says so: `get` and `lease read` print it,
//! `lease acquire` puts it into its JSON document with `--with-value`. A terminal needs `--reveal` on
//! top, and is refused before the broker is asked.

use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;

use super::args::{
    AcquireLease, FieldName, GetValue, LeaseCommand, OneLease, ReadLease, RenewLease, Shown, UnderSession,
};
use super::context::{Context, text};
use super::error::CliError;
use super::output::{Document, moment, seconds, span};
use super::page::{Cell, Page, Tone};
use crate::client::{Credential, Lease, LeaseEvent};
use crate::types::Field;

pub(super) async fn run(context: &mut Context, command: &LeaseCommand) -> Result<(), CliError> {
    match command {
        LeaseCommand::Acquire(args) => acquire(context, args).await,
        LeaseCommand::Read(args) => read(context, args).await,
        LeaseCommand::Renew(args) => renew(context, args).await,
        LeaseCommand::Release(args) => release(context, args).await,
        LeaseCommand::List(under) => list(context, under).await,
        LeaseCommand::Watch(under) => watch(context, under).await,
    }
}

pub(super) async fn get(context: &mut Context, args: &GetValue) -> Result<(), CliError> {
    let mut shown = args.shown.clone();
    if args.reference.field == Field::Username {
        shown.field = FieldName::Username;
    }
    refuse_terminal(context, &shown)?;
    let resource = args.reference.resource.to_string();
    let reason = args.purpose.reason.as_ref();
    let (lease, credential) = context
        .under(&args.session, reason, async |client| {
            let (lease, credential) = client.acquire(&resource, None, &text(reason)).await?;
            // Nobody will use it again. If giving it back fails it ends by its time.
            let _ = client.release(lease.lease_id).await;
            Ok((lease, credential))
        })
        .await?;
    print(context, &shown, &lease, &credential)
}

async fn acquire(context: &mut Context, args: &AcquireLease) -> Result<(), CliError> {
    if args.with_value && !context.out.is_json() {
        let remedy = "add `--format json`, or use `ravi-broker get` for the value alone";
        return Err(CliError::Usage("--with-value goes only into a JSON document".into(), remedy.into()));
    }
    if args.with_value && context.out.is_terminal() && !args.reveal {
        return Err(CliError::Terminal);
    }
    let (client, _) = context.session(&args.session).await?;
    let reason = text(args.purpose.reason.as_ref());
    let (lease, credential) = client.acquire(&args.resource.to_string(), args.ttl, &reason).await?;
    if args.with_value {
        let document =
            AcquiredView { lease: LeaseView::of(&lease), credential: CredentialView::of(&credential) };
        return context.out.secret_document(&document).map_err(CliError::Output);
    }
    context.show(&LeaseView::of(&lease))
}

async fn read(context: &mut Context, args: &ReadLease) -> Result<(), CliError> {
    refuse_terminal(context, &args.shown)?;
    let (client, _) = context.session(&args.session).await?;
    let (lease, credential) = client.read(args.lease).await?;
    print(context, &args.shown, &lease, &credential)
}

/// Before anything is asked of the broker: what is not shown need not be fetched.
fn refuse_terminal(context: &Context, shown: &Shown) -> Result<(), CliError> {
    let secret = context.out.is_json() || shown.field == FieldName::Value;
    if secret && context.out.is_terminal() && !shown.reveal { Err(CliError::Terminal) } else { Ok(()) }
}

fn print(
    context: &mut Context,
    shown: &Shown,
    lease: &Lease,
    credential: &Credential,
) -> Result<(), CliError> {
    let out = &mut context.out;
    let written = if out.is_json() {
        let credential = CredentialView::of(credential);
        out.secret_document(&ValueView { resource: &lease.resource, credential })
    } else if shown.field == FieldName::Value {
        out.value(&credential.value, !shown.no_newline)
    } else {
        let username = credential.username.as_deref().ok_or(CliError::NoUsername)?;
        let end = if shown.no_newline { "" } else { "\n" };
        out.text(&format!("{username}{end}"))
    };
    written.map_err(CliError::Output)
}

async fn renew(context: &mut Context, args: &RenewLease) -> Result<(), CliError> {
    let (client, _) = context.session(&args.session).await?;
    let lease = client.renew(args.lease, args.ttl).await?;
    context.show(&LeaseView::of(&lease))
}

async fn release(context: &mut Context, args: &OneLease) -> Result<(), CliError> {
    let (client, _) = context.session(&args.session).await?;
    client.release(args.lease).await?;
    context.show(&ReleasedView { lease_id: args.lease.to_string() })
}

async fn list(context: &mut Context, under: &UnderSession) -> Result<(), CliError> {
    let (client, _) = context.session(under).await?;
    let leases = client.list_leases().await?;
    context.show(&LeasesView(leases.iter().map(LeaseView::of).collect()))
}

async fn watch(context: &mut Context, under: &UnderSession) -> Result<(), CliError> {
    let (client, _) = context.session(under).await?;
    let mut events = client.watch_leases().await?;
    while let Some(event) = events.next().await {
        context.show(&EventView::of(&event?))?;
    }
    context.notes.say("The session has ended.");
    Ok(())
}

/// A lease, as JSON has it.
#[derive(Serialize)]
struct LeaseView<'a> {
    lease_id: String,
    resource: &'a str,
    expires_at: String,
    #[serde(serialize_with = "seconds")]
    expires_in: Duration,
    /// How far a renewal can reach from now.
    #[serde(serialize_with = "seconds")]
    renewable_for: Duration,
    /// False: what was shown stays known until it is rotated.
    revocable: bool,
    uses: u64,
}

impl<'a> LeaseView<'a> {
    fn of(lease: &'a Lease) -> Self {
        Self {
            lease_id: lease.lease_id.to_string(),
            resource: &lease.resource,
            expires_at: moment(lease.expires_at),
            expires_in: lease.expires_in,
            renewable_for: lease.renewable_for,
            revocable: lease.revocable,
            uses: lease.uses,
        }
    }
}

impl Document for LeaseView<'_> {
    fn human(&self, page: &mut Page) {
        let end = if self.revocable { "ends access" } else { "the value stays known until it is rotated" };
        page.pairs([
            ("Lease", Cell::new(&self.lease_id, Tone::Strong)),
            ("Resource", self.resource.into()),
            ("Ends in", Cell::from(span(self.expires_in))),
            ("Renewable for", Cell::from(span(self.renewable_for))),
            ("After it", end.into()),
        ]);
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct LeasesView<'a>(Vec<LeaseView<'a>>);

impl Document for LeasesView<'_> {
    fn human(&self, page: &mut Page) {
        let row = |lease: &LeaseView| -> [Cell; 4] {
            let ends = span(lease.expires_in);
            [Cell::from(&lease.lease_id), lease.resource.into(), ends.into(), lease.uses.to_string().into()]
        };
        let rows: Vec<_> = self.0.iter().map(row).collect();
        page.table(["LEASE", "RESOURCE", "ENDS IN", "USES"], &rows, "No leases.");
    }
}

/// A credential on its way to standard output. Borrowed; has no `Debug` (invariant I6).
#[derive(Serialize)]
struct CredentialView<'a> {
    value: &'a str,
    username: Option<&'a str>,
}

impl<'a> CredentialView<'a> {
    fn of(credential: &'a Credential) -> Self {
        Self { value: credential.value.expose(), username: credential.username.as_deref() }
    }
}

#[derive(Serialize)]
struct ValueView<'a> {
    resource: &'a str,
    #[serde(flatten)]
    credential: CredentialView<'a>,
}

#[derive(Serialize)]
struct AcquiredView<'a> {
    #[serde(flatten)]
    lease: LeaseView<'a>,
    #[serde(flatten)]
    credential: CredentialView<'a>,
}

#[derive(Serialize)]
struct ReleasedView {
    lease_id: String,
}

impl Document for ReleasedView {
    fn human(&self, page: &mut Page) {
        page.line("The lease is given back.");
    }
}

/// What happened to a lease; `missed` names none.
#[derive(Serialize)]
struct EventView<'a> {
    event: &'static str,
    lease_id: Option<String>,
    resource: Option<&'a str>,
}

impl<'a> EventView<'a> {
    fn of(event: &'a LeaseEvent) -> Self {
        let (event, lease) = match event {
            LeaseEvent::Rotated(lease) => ("rotated", Some(lease)),
            LeaseEvent::Expiring(lease) => ("expiring", Some(lease)),
            LeaseEvent::Expired(lease) => ("expired", Some(lease)),
            LeaseEvent::Revoked(lease) => ("revoked", Some(lease)),
            LeaseEvent::Missed => ("missed", None),
        };
        let lease_id = lease.map(|lease| lease.lease_id.to_string());
        Self { event, lease_id, resource: lease.map(|lease| lease.resource.as_str()) }
    }
}

impl Document for EventView<'_> {
    fn human(&self, page: &mut Page) {
        let tone = match self.event {
            "rotated" => Tone::Good,
            "revoked" | "missed" => Tone::Bad,
            _ => Tone::Warn,
        };
        let what = Cell::new(format!("{:<8}", self.event), tone);
        let text = match (&self.lease_id, self.resource) {
            (Some(lease_id), Some(resource)) => format!("  {lease_id}  {resource}"),
            _ => "  events were dropped: see `ravi-broker lease list`".into(),
        };
        page.pieces([what, text.into()]);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::client::LeaseHandle;
    use crate::secret::Secret;
    use crate::types::LeaseId;

    const ID: &str = "lea_aeaqcaibaeaqcaibaeaqcaibae";

    fn lease() -> Lease {
        Lease {
            lease_id: LeaseId([1; 16]),
            resource: "secret/A".into(),
            expires_at: Timestamp::UNIX_EPOCH,
            expires_in: Duration::from_secs(300),
            renewable_for: Duration::from_secs(3600),
            revocable: false,
            uses: 1,
            delivery: crate::client::Delivery::Shown,
        }
    }

    #[test]
    fn the_json_form_of_a_lease_is_a_promise_and_holds_no_value() {
        let expected = serde_json::json!({
            "lease_id": ID, "resource": "secret/A", "expires_at": "1970-01-01T00:00:00Z",
            "expires_in": 300, "renewable_for": 3600, "revocable": false, "uses": 1,
        });
        assert_eq!(serde_json::to_value(LeaseView::of(&lease())).unwrap(), expected);
    }

    #[test]
    fn a_value_is_part_of_the_document_only_when_it_was_asked_for() {
        let (lease, value) = (lease(), Secret::copy_of("v\"1"));
        let credential = Credential { value, username: None };
        let document =
            AcquiredView { lease: LeaseView::of(&lease), credential: CredentialView::of(&credential) };
        let json = serde_json::to_value(document).unwrap();
        assert_eq!(
            (&json["value"], &json["username"], &json["lease_id"]),
            (&"v\"1".into(), &().into(), &ID.into())
        );
    }

    #[test]
    fn every_event_has_a_word_and_names_its_lease() {
        let handle = || LeaseHandle { lease_id: LeaseId([1; 16]), resource: "secret/A".into() };
        for (event, word) in [
            (LeaseEvent::Rotated(handle()), "rotated"),
            (LeaseEvent::Expiring(handle()), "expiring"),
            (LeaseEvent::Expired(handle()), "expired"),
            (LeaseEvent::Revoked(handle()), "revoked"),
        ] {
            let expected = serde_json::json!({ "event": word, "lease_id": ID, "resource": "secret/A" });
            assert_eq!(serde_json::to_value(EventView::of(&event)).unwrap(), expected);
        }
        let missed = serde_json::json!({ "event": "missed", "lease_id": null, "resource": null });
        assert_eq!(serde_json::to_value(EventView::of(&LeaseEvent::Missed)).unwrap(), missed);
    }
}
