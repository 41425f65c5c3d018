//! `service`: puts the daemon under systemd, and takes it away again.
//!
//! What is written comes from `systemd/` of the repository, with the place of the programs put in. Each step is shown
//! before it is taken. A file that somebody else wrote is neither replaced nor removed. Imports its siblings alone.

mod place;
mod step;

use serde::Serialize;
use thiserror::Error;

use std::io;
use std::path::PathBuf;

use self::place::{Installed, Place, SERVICE, Unit};
use self::step::Step;
use super::args::{ServiceChange, ServiceCommand, ServicePlace};
use super::context::Context;
use super::error::CliError;
use super::output::Document;
use super::page::{Cell, Page, Tone};

/// Why a service was not installed, removed or looked at.
#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error("this takes root\nrun it with sudo, or install it for yourself alone with --user")]
    NotRoot,
    #[error("there is no home directory\nset HOME, or XDG_CONFIG_HOME")]
    NoHome,
    #[error(
        "systemctl was not found\nsupervise `ravi-brokerd` in the way of this system; it runs in the foreground"
    )]
    NoSystemd,
    #[error("{} is not there\ninstall the programs side by side", .0.display())]
    NoDaemon(PathBuf),
    #[error(
        "{} may be changed by others than root, or lies where the service cannot see it\ninstall the programs with `install -o root -g root -m 0755 ravi-broker ravi-broker-mcp /usr/local/bin && install -o root -g root -m 0711 ravi-brokerd /usr/local/bin`",
        .0.display()
    )]
    Untrusted(PathBuf),
    #[error("the path {} has characters that a unit cannot hold\ninstall the programs elsewhere", .0.display())]
    Path(PathBuf),
    #[error("{} comes from a package\nuse `systemctl` with it, or remove the package first", .0.display())]
    Packaged(PathBuf),
    #[error("{} was written by somebody else\nmove it away first", .0.display())]
    Foreign(PathBuf),
    #[error("{}: {}\nsee that the path is right and that this user may write there", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
    #[error("`{0}` failed\nwhat it said stands above; `ravi-broker service uninstall` undoes what was done")]
    Command(String),
}

pub(super) fn run(context: &mut Context, command: &ServiceCommand) -> Result<(), CliError> {
    match command {
        ServiceCommand::Install(change) => install(context, change),
        ServiceCommand::Uninstall(change) => uninstall(context, change),
        ServiceCommand::Status(place) => status(context, place),
    }
}

fn install(context: &Context, change: &ServiceChange) -> Result<(), CliError> {
    let place = Place::of_host(change.place.user)?;
    place.may_install(change.dry_run)?;
    let mut steps = Vec::new();
    for (path, text) in place.files() {
        match Installed::look(&path, &text)? {
            Installed::Same => {}
            Installed::Absent | Installed::Older => steps.push(Step::Write(path, text)),
            Installed::Foreign => return Err(ServiceError::Foreign(path).into()),
        }
    }
    let (config, text) = place.config();
    // What is there is the operator's.
    if !config.exists() {
        steps.push(Step::Write(config, text));
    }
    steps.extend(place.on());
    take(context, &steps, change.dry_run)?;
    if !change.dry_run {
        context
            .notes
            .say("The daemon runs. Sign it in with `ravi-broker login`; give it roles in its configuration.");
    }
    Ok(())
}

fn uninstall(context: &Context, change: &ServiceChange) -> Result<(), CliError> {
    let place = Place::of_host(change.place.user)?;
    place.may_change(change.dry_run)?;
    let mut removed = Vec::new();
    for (path, text) in place.files() {
        match Installed::look(&path, &text)? {
            Installed::Absent => {}
            Installed::Same | Installed::Older => removed.push(Step::Remove(path)),
            Installed::Foreign => return Err(ServiceError::Foreign(path).into()),
        }
    }
    if removed.is_empty() {
        context.notes.say("There is nothing of this command's to remove.");
        return Ok(());
    }
    let [off, forget] = place.off();
    let steps: Vec<Step> = std::iter::once(off).chain(removed).chain([forget]).collect();
    take(context, &steps, change.dry_run)?;
    context.notes.say(&format!("Left as they are: {}.", place.left()));
    Ok(())
}

fn take(context: &Context, steps: &[Step], dry_run: bool) -> Result<(), ServiceError> {
    for step in steps {
        context.notes.say(&step.to_string());
        if !dry_run {
            step.take()?;
        }
    }
    if dry_run {
        context.notes.say("Nothing was changed.");
    }
    Ok(())
}

fn status(context: &mut Context, place: &ServicePlace) -> Result<(), CliError> {
    let place = Place::of_host(place.user)?;
    let units: Vec<Unit> = place.units().map(|name| place.unit(name)).collect();
    let running = units.iter().any(|unit| unit.name == SERVICE && unit.active == "active");
    context.show(&StatusView { user: place.user, running, units: &units })
}

#[derive(Serialize)]
struct StatusView<'a> {
    user: bool,
    running: bool,
    units: &'a [Unit],
}

impl Document for StatusView<'_> {
    fn human(&self, page: &mut Page) {
        let rows: Vec<[Cell; 5]> = self.units.iter().map(row).collect();
        page.table(["UNIT", "ACTIVE", "ENABLED", "BY", "FILE"], &rows, "There are no units.");
        page.line(match self.running {
            true => Cell::new("The daemon runs; `ravi-broker status` says how it is.", Tone::Good),
            false => Cell::new("The daemon does not run.", Tone::Warn),
        });
    }
}

fn row(unit: &Unit) -> [Cell; 5] {
    let tone = if unit.active == "active" { Tone::Good } else { Tone::Warn };
    let path = unit.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    [
        Cell::new(&unit.name, Tone::Strong),
        Cell::new(&unit.active, tone),
        Cell::from(&unit.enabled),
        Cell::from(unit.by),
        Cell::new(path, Tone::Dim),
    ]
}
