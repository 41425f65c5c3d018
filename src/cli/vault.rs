//! `list`, `set`, `delete` and `password`: names and changes, never values.

use serde::Serialize;

use super::args::{
    CreatePassword, DeleteEntry, DeletePassword, ListCommand, OneCall, PasswordCommand, SetSecret,
    UpdatePassword,
};
use super::context::{Context, text};
use super::error::CliError;
use super::input;
use super::output::Document;
use super::page::{Cell, Page};
use crate::client::{self, PasswordName, SecretName};

pub(super) async fn list(context: &mut Context, command: &ListCommand) -> Result<(), CliError> {
    match command {
        ListCommand::Secrets(session) => list_secrets(context, session).await,
        ListCommand::Passwords(session) => list_passwords(context, session).await,
    }
}

pub(super) async fn password(context: &mut Context, command: &PasswordCommand) -> Result<(), CliError> {
    match command {
        PasswordCommand::Create(args) => create_password(context, args).await,
        PasswordCommand::Update(args) => update_password(context, args).await,
        PasswordCommand::Delete(args) => delete_password(context, args).await,
    }
}

async fn list_secrets(context: &mut Context, session: &OneCall) -> Result<(), CliError> {
    let names = context.under(session, None, async |client| Ok(client.list_secrets().await?)).await?;
    context.show(&SecretsView(names.iter().map(SecretView::of).collect()))
}

async fn list_passwords(context: &mut Context, session: &OneCall) -> Result<(), CliError> {
    let names = context.under(session, None, async |client| Ok(client.list_passwords().await?)).await?;
    context.show(&PasswordsView(names.iter().map(PasswordView::of).collect()))
}

pub(super) async fn set(context: &mut Context, args: &SetSecret) -> Result<(), CliError> {
    let value = input::secret(&format!("Value of secret/{}", args.key), args.keep_newline)?;
    let reason = args.purpose.reason.as_ref();
    let (name, created) = context
        .under(&args.session, reason, async |client| {
            Ok(client.set_secret(args.key.as_str(), &value, &text(reason)).await?)
        })
        .await?;
    let did = if created { "created" } else { "replaced" };
    context.show(&ChangeView { resource: &name.resource, did })
}

pub(super) async fn delete(context: &mut Context, args: &DeleteEntry) -> Result<(), CliError> {
    let reason = args.purpose.reason.as_ref();
    context
        .under(&args.session, reason, async |client| {
            Ok(client.delete_secret(args.key.as_str(), &text(reason)).await?)
        })
        .await?;
    context.show(&ChangeView { resource: &format!("secret/{}", args.key), did: "deleted" })
}

async fn create_password(context: &mut Context, args: &CreatePassword) -> Result<(), CliError> {
    let reason = args.purpose.reason.as_ref();
    let create = client::CreatePassword {
        domain: args.domain.to_string(),
        username: args.username.as_ref().map(ToString::to_string).unwrap_or_default(),
        length: args.length,
        reason: text(reason),
    };
    let name = context
        .under(&args.session, reason, async |client| Ok(client.create_password(create).await?))
        .await?;
    context.show(&ChangeView { resource: &name.resource, did: "created" })
}

async fn update_password(context: &mut Context, args: &UpdatePassword) -> Result<(), CliError> {
    let resource = format!("password/{}", args.name);
    let password = if args.stdin { Some(input::secret(&format!("New {resource}"), false)?) } else { None };
    let reason = args.purpose.reason.as_ref();
    let update = client::UpdatePassword { resource, password, length: args.length, reason: text(reason) };
    let name = context
        .under(&args.session, reason, async |client| Ok(client.update_password(update).await?))
        .await?;
    context.show(&ChangeView { resource: &name.resource, did: "replaced" })
}

async fn delete_password(context: &mut Context, args: &DeletePassword) -> Result<(), CliError> {
    let resource = format!("password/{}", args.name);
    let reason = args.purpose.reason.as_ref();
    context
        .under(&args.session, reason, async |client| {
            Ok(client.delete_password(&resource, &text(reason)).await?)
        })
        .await?;
    context.show(&ChangeView { resource: &resource, did: "deleted" })
}

#[derive(Serialize)]
struct SecretView<'a> {
    /// For `get` and `lease acquire`.
    resource: &'a str,
    key: &'a str,
}

impl<'a> SecretView<'a> {
    fn of(name: &'a SecretName) -> Self {
        Self { resource: &name.resource, key: &name.key }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct SecretsView<'a>(Vec<SecretView<'a>>);

impl Document for SecretsView<'_> {
    fn human(&self, page: &mut Page) {
        self.0.iter().for_each(|name| page.line(name.resource));
    }
}

#[derive(Serialize)]
struct PasswordView<'a> {
    /// For `get` and `lease acquire`.
    resource: &'a str,
    domain: &'a str,
    username: &'a str,
}

impl<'a> PasswordView<'a> {
    fn of(name: &'a PasswordName) -> Self {
        Self { resource: &name.resource, domain: &name.domain, username: &name.username }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct PasswordsView<'a>(Vec<PasswordView<'a>>);

impl Document for PasswordsView<'_> {
    fn human(&self, page: &mut Page) {
        self.0.iter().for_each(|name| page.line(name.resource));
    }
}

/// One entry and what was done to it: `created`, `replaced` or `deleted`.
#[derive(Serialize)]
struct ChangeView<'a> {
    resource: &'a str,
    did: &'static str,
}

impl Document for ChangeView<'_> {
    fn human(&self, page: &mut Page) {
        page.line(Cell::from(format!("{}: {}.", self.resource, self.did)));
    }
}
