//! `setup HOST --undo`: takes out what was noted, if it is as it was written. Imports its siblings.

use super::error::SetupError;
use super::piece::{Piece, What};
use super::record::{Entry, Record};
use super::stage::Stage;
use super::view::SetupView;
use super::{agree, project};
use crate::cli::args::Setup;
use crate::cli::config;
use crate::cli::context::Context;
use crate::cli::error::CliError;

pub(super) fn run(context: &mut Context, args: &Setup) -> Result<(), CliError> {
    let (host, project) = (args.host.name(), project(args)?);
    let (file, record) = Record::open()?;
    let mut stage = Stage::new(args.project);
    let Some(entry) = record.entry(host, project.as_deref()).cloned() else {
        let mut view = SetupView::new(host, None, &stage, Vec::new());
        view.note("Nothing is noted that could be taken out.");
        return context.show(&view);
    };
    for piece in entry.pieces.iter().rev() {
        stage.take(piece, |_| true)?;
    }
    let record = record.with(host, project.as_deref(), None);
    let mut notes = Vec::new();
    for role in entry.roles.iter().rev() {
        notes.extend(stage.of_user(|stage| take_role(stage, role, &record.hosts))?);
    }
    let mut view = SetupView::new(host, Some(entry.role), &stage, notes);
    if !stage.changed().is_empty() {
        agree(context, args.yes, &view, "Take it out?")?;
    }
    stage.write()?;
    record.write(&file)?;
    view.written("It is taken out.".to_owned());
    context.show(&view)
}

/// Takes a role out, unless others need it or somebody made it their own. Says which.
fn take_role(stage: &mut Stage, role: &Piece, others: &[Entry]) -> Result<Option<String>, SetupError> {
    let What::Toml { table: [_, name], .. } = &role.what else { return Ok(None) };
    let stays = |why: &str| Ok(Some(format!("The role {name} stays: {why}.")));
    if others.iter().any(|entry| entry.role == *name) {
        return stays("another host was set up with it");
    }
    match stage.take(role, |text| config::would_hold(&role.file, text)) {
        Ok(()) if stage.text(&role.file).is_none() => Ok(None),
        Ok(()) => Ok(Some("If the daemon runs: `ravi-broker reload` ends the role.".to_owned())),
        Err(SetupError::Changed(_) | SetupError::Shape(_) | SetupError::Syntax(_)) => {
            stays("it was changed since it was added")
        }
        Err(error) => Err(error),
    }
}

/// The command that takes out what these arguments set up.
pub(super) fn command(args: &Setup) -> String {
    let project = if args.project { " --project" } else { "" };
    format!("ravi-broker setup {}{project} --undo", args.host.name())
}
