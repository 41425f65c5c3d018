//! `login`: the daemon signs in to Ravi; this program only shows where to approve it. With `--import`
//! the keys of Ravi's own command line are handed to the daemon, once. Then the key is sealed for the daemon's next
//! start, where this host can do that (`seal`). `logout` forgets it everywhere.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;

use super::args::Login;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Document, seconds, span};
use super::page::{Cell, Page, Tone};
use super::ravi_file;
use super::seal::{self, Sealer};
use crate::client::{ClientError, ErrorReason, Events, KeysHeld, LoginEvent};
use crate::clock::{BootInstant, Clock};

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);
/// How a management key is kept over a restart, and how an identity's own.
const BY_KEY_FILE: &str = "It is kept in memory only. To keep it over a restart, run this as root with the system's \
    daemon, which seals it, or name upstream.management_key_file.";
/// What a key file is less than a sealed credential.
const PLAIN: &str = "The key is also in upstream.management_key_file, in plain text: mode 0600 keeps other users from it, \
    but not whoever reads the disk or a backup, nor a program of the daemon's user. A sealed one opens on this machine alone.";
/// The file that is read by nobody once there is a credential.
const SUPERFLUOUS: &str =
    "The key is still in upstream.management_key_file, in plain text: take that setting away, and the file.";
const BY_CREDENTIAL: &str = "It is kept in memory only: give it as the systemd credential identity-key.UUID to keep it over a restart.";

pub(super) async fn run(context: &mut Context, args: &Login) -> Result<(), CliError> {
    match &args.import {
        Some(named) => import(context, named.clone(), args.no_seal).await,
        None => sign_in(context, args.no_seal).await,
    }
}

/// Forgets the keys here and for the next start.
pub(super) async fn logout(context: &mut Context) -> Result<(), CliError> {
    let file_removed = context.admin().await?.logout().await.map_err(|error| for_operator(error, false))?;
    let sealed = seal::remove()?;
    context.show(&LogoutView { file_removed, sealed_removed: sealed.is_some() })
}

/// Seals what the daemon holds now, where it can be sealed.
async fn keep(context: &Context, no_seal: bool) -> Result<Option<PathBuf>, CliError> {
    let admin = context.admin().await?;
    let Some(sealer) = Sealer::of(&admin).filter(|_| !no_seal) else { return Ok(None) };
    Ok(Some(sealer.seal(&admin).await.map_err(|error| for_operator(error, false))??))
}

async fn import(context: &mut Context, named: Option<PathBuf>, no_seal: bool) -> Result<(), CliError> {
    let path = named.map_or_else(ravi_file::home_path, Ok)?;
    let keys = ravi_file::read(&path)?;
    let keys_of_account = keys.management_key.is_some();
    let held = context.admin().await?.import_keys(keys).await.map_err(|error| for_operator(error, false))?;
    let by_file = if keys_of_account { BY_KEY_FILE } else { BY_CREDENTIAL };
    let sealed = if keys_of_account { keep(context, no_seal).await? } else { None };
    context.show(&DoneView::of(&held, sealed, by_file))?;
    let advice = "Now delete management_key and identity_key from";
    context.notes.say(&format!("{advice} {}: every program of yours can read them there.", path.display()));
    Ok(())
}

async fn sign_in(context: &mut Context, no_seal: bool) -> Result<(), CliError> {
    let mut events = context.admin().await?.login().await?;
    let mut code_ends = None;
    loop {
        match next(context, &mut events, code_ends).await? {
            LoginEvent::Prompt { verification_url, user_code, expires_in } => {
                code_ends = Some(context.clock.now() + expires_in);
                let (url, code) = (&verification_url, &user_code);
                context.show(&PromptView {
                    event: "prompt",
                    verification_url: url,
                    user_code: code,
                    expires_in,
                })?;
            }
            LoginEvent::Done(held) => {
                let sealed = keep(context, no_seal).await?;
                return context.show(&DoneView::of(&held, sealed, BY_KEY_FILE));
            }
        }
    }
}

/// Waits for the next event, with a spinner where somebody watches.
async fn next(
    context: &mut Context,
    events: &mut Events<LoginEvent>,
    code_ends: Option<BootInstant>,
) -> Result<LoginEvent, CliError> {
    let event = loop {
        let turn = context.clock.sleep_until(context.clock.now() + TURN);
        tokio::select! {
            event = events.next() => break event,
            () = turn => {
                let left = code_ends.map(|end| end.since(context.clock.now())).unwrap_or_default();
                context.notes.spin("waiting for your approval", left);
            }
        }
    };
    context.notes.stop();
    // The daemon ends a login with its result or with an error, never with silence.
    event.unwrap_or(Err(ClientError::Lost)).map_err(|error| for_operator(error, code_ends.is_some()))
}

/// What a refusal means here: to an agent it would speak of arguments and of the account.
fn for_operator(error: ClientError, prompted: bool) -> CliError {
    let ClientError::Broker(refusal) = &error else { return error.into() };
    match refusal.reason {
        reason @ ErrorReason::ArgumentInvalid => CliError::Operator {
            reason,
            exit: Exit::Other,
            message: refusal.message.clone(),
            hint: "once that is right, run `ravi-broker login` again",
        },
        reason @ ErrorReason::UpstreamRefused if prompted => CliError::Operator {
            reason,
            exit: Exit::Upstream,
            message: "the sign-in was denied on Ravi's page".into(),
            hint: "run `ravi-broker login` again, and approve it there",
        },
        _ => error.into(),
    }
}

#[derive(Serialize)]
struct PromptView<'a> {
    event: &'static str,
    verification_url: &'a str,
    user_code: &'a str,
    #[serde(serialize_with = "seconds")]
    expires_in: Duration,
}

impl Document for PromptView<'_> {
    fn human(&self, page: &mut Page) {
        page.pieces(["Open   ".into(), Cell::new(self.verification_url, Tone::Strong)]);
        page.pieces(["Code   ".into(), Cell::new(self.user_code, Tone::Strong)]);
        page.line(format!("See that the page shows this code; it is good for {}.", span(self.expires_in)));
    }
}

#[derive(Serialize)]
struct DoneView<'a> {
    event: &'static str,
    identities: &'a [String],
    /// True if the key also survives a restart of the daemon, in a file in plain text.
    persisted: bool,
    /// Where it was sealed for the next start.
    sealed: Option<PathBuf>,
    /// What would make it do so.
    #[serde(skip)]
    advice: &'static str,
}

impl<'a> DoneView<'a> {
    fn of(held: &'a KeysHeld, sealed: Option<PathBuf>, advice: &'static str) -> Self {
        Self { event: "done", identities: &held.identities, persisted: held.persisted, sealed, advice }
    }
}

impl Document for DoneView<'_> {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new("The broker holds the key.", Tone::Good));
        if !self.identities.is_empty() {
            page.line(format!("Identities: {}", self.identities.join(", ")));
        }
        match (&self.sealed, self.persisted) {
            (Some(path), persisted) => {
                let sealed = format!("It is sealed for this machine in {}.", path.display());
                page.line(Cell::new(sealed, Tone::Good));
                if persisted {
                    page.line(Cell::new(SUPERFLUOUS, Tone::Warn));
                }
            }
            (None, true) => page.line(Cell::new(PLAIN, Tone::Warn)),
            (None, false) => page.line(Cell::new(self.advice, Tone::Warn)),
        }
    }
}

#[derive(Serialize)]
struct LogoutView {
    file_removed: bool,
    sealed_removed: bool,
}

impl Document for LogoutView {
    fn human(&self, page: &mut Page) {
        page.line(Cell::new("The broker holds no key any more.", Tone::Good));
        if self.file_removed {
            page.line("The key file is removed.");
        }
        if self.sealed_removed {
            page.line(
                "The sealed key is removed; systemd keeps an open copy until the service stops: restart it.",
            );
        }
        page.line("The key is still good: withdraw it in Ravi's dashboard if somebody may have it.");
    }
}
