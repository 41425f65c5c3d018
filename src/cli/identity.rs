//! `identity list|show|create`: the operator's view of the account's identities.

use serde::Serialize;

use super::args::{CreateIdentity, IdentityCommand};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::output::Document;
use super::page::{Cell, Page, Tone};
use super::send::BudgetView;
use crate::client::{ClientError, ErrorReason, Identity, IdentityInfo};

pub(super) async fn run(context: &mut Context, command: &IdentityCommand) -> Result<(), CliError> {
    match command {
        IdentityCommand::List => list(context).await,
        IdentityCommand::Show(args) => show(context, args.identity.as_str()).await,
        IdentityCommand::Create(args) => create(context, args).await,
    }
}

async fn list(context: &mut Context) -> Result<(), CliError> {
    let identities = context.admin().await?.identities().await?;
    context.show(&ListView(identities.iter().map(InfoView::of).collect()))
}

async fn show(context: &mut Context, identity: &str) -> Result<(), CliError> {
    let shown = context.admin().await?.identity(identity).await.map_err(|error| match error.reason() {
        Some(reason @ ErrorReason::ArgumentInvalid) => CliError::Operator {
            reason,
            exit: Exit::Other,
            message: "the account has no identity of this name or UUID, or several of this name".to_owned(),
            hint: "`ravi-broker identity list` shows those that are there",
        },
        _ => error.into(),
    })?;
    context.show(&ShowView {
        info: InfoView::of(&shown),
        email_budget: shown.identity.email_budget.map(BudgetView::of),
        sms_budget: shown.identity.sms_budget.map(BudgetView::of),
    })
}

async fn create(context: &mut Context, args: &CreateIdentity) -> Result<(), CliError> {
    let country = args.country.as_deref().unwrap_or_default();
    let created = context.admin().await?.create_identity(args.name.as_str(), args.phone, country).await;
    let created = created.map_err(not_created)?;
    let Identity { uuid, name, email, phone, .. } = created.identity;
    context.show(&CreatedView { name, uuid, email, phone, phone_failure: created.phone_failure })
}

fn not_created(error: ClientError) -> CliError {
    let told = |reason, exit, message: &str, hint| CliError::Operator {
        reason,
        exit,
        message: message.to_owned(),
        hint,
    };
    match error.reason() {
        Some(reason @ ErrorReason::UpstreamRefused) => told(
            reason,
            Exit::Upstream,
            "an identity of this name is there already, or Ravi refused to create it",
            "`ravi-broker identity list` shows those that are there",
        ),
        Some(reason @ ErrorReason::UpstreamOutcomeUnknown) => told(
            reason,
            Exit::Upstream,
            "the identity may or may not have been created",
            "look with `ravi-broker identity list` before you repeat it",
        ),
        _ => error.into(),
    }
}

#[derive(Serialize)]
struct InfoView<'a> {
    name: &'a str,
    uuid: &'a str,
    email: Option<&'a str>,
    phone: Option<&'a str>,
    /// Roles that act as it.
    roles: &'a [String],
    /// The daemon holds a key of this identity alone.
    key_held: bool,
}

impl<'a> InfoView<'a> {
    fn of(info: &'a IdentityInfo) -> Self {
        let Identity { uuid, name, email, phone, .. } = &info.identity;
        let (email, phone) = (email.as_deref(), phone.as_deref());
        Self { name, uuid, email, phone, roles: &info.roles, key_held: info.key_held }
    }
}

fn roles(info: &InfoView<'_>) -> String {
    if info.roles.is_empty() { "-".to_owned() } else { info.roles.join(", ") }
}

#[derive(Serialize)]
#[serde(transparent)]
struct ListView<'a>(Vec<InfoView<'a>>);

impl Document for ListView<'_> {
    fn human(&self, page: &mut Page) {
        let row = |info: &InfoView<'_>| {
            let [email, phone] = [info.email, info.phone].map(|text| text.unwrap_or("-"));
            [info.name.into(), email.into(), phone.into(), roles(info).into(), info.uuid.into()]
        };
        let rows: Vec<[Cell; 5]> = self.0.iter().map(row).collect();
        page.table(["NAME", "EMAIL", "PHONE", "ROLES", "UUID"], &rows, "The account has no identity.");
    }
}

#[derive(Serialize)]
struct ShowView<'a> {
    #[serde(flatten)]
    info: InfoView<'a>,
    email_budget: Option<BudgetView>,
    sms_budget: Option<BudgetView>,
}

impl Document for ShowView<'_> {
    fn human(&self, page: &mut Page) {
        let budget = |budget: &Option<BudgetView>| {
            budget.as_ref().map_or_else(|| "-".to_owned(), BudgetView::in_words)
        };
        let info = &self.info;
        page.pairs([
            ("name", Cell::new(info.name, Tone::Strong)),
            ("uuid", info.uuid.into()),
            ("email", info.email.unwrap_or("-").into()),
            ("phone", info.phone.unwrap_or("-").into()),
            ("roles", roles(info).into()),
            ("own key held", if info.key_held { "yes" } else { "no" }.into()),
            ("mails sent", budget(&self.email_budget).into()),
            ("text messages sent", budget(&self.sms_budget).into()),
        ]);
    }
}

#[derive(Serialize)]
struct CreatedView {
    name: String,
    uuid: String,
    email: Option<String>,
    phone: Option<String>,
    /// Why it has no number although one was asked for.
    phone_failure: Option<String>,
}

impl Document for CreatedView {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new(format!("Created: {} ({})", self.name, self.uuid), Tone::Good));
        let addresses = [&self.email, &self.phone].into_iter().flatten();
        addresses.for_each(|address| page.line(format!("  {address}")));
        if let Some(reason) = &self.phone_failure {
            page.line(Cell::new(format!("It has no telephone number: {reason}"), Tone::Warn));
        }
    }
}
