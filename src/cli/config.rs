//! `config check|show|example`: works on the file, without the daemon. Imports `policy` and
//! `inbox`, which judge scopes and senders: what the daemon would refuse is refused here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{ConfigCommand, Global, ShowConfig};
use super::context::Context;
use super::error::CliError;
use super::output::Document;
use super::page::{Cell, Page, Tone};
use crate::config::{
    self, Config, ConfigError, Draft, Environment, Origin, Overrides, Problem, Shown, Source, Variable,
};
use crate::inbox::dispatch::Rules;
use crate::policy::Policy;

pub(super) fn run(context: &mut Context, command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Show(args) => show(context, args),
        ConfigCommand::Example => context.out.text(config::example()).map_err(CliError::Output),
    }
}

fn check(context: &mut Context) -> Result<(), CliError> {
    match judged(&context.global) {
        Ok(draft) => context.show(&CheckView::of(draft.origins.path(), &[])),
        Err(ConfigError::Invalid { path, problems }) => {
            context.show(&CheckView::of(&path, &problems))?;
            Err(CliError::Found)
        }
        Err(error) => Err(error.into()),
    }
}

fn show(context: &mut Context, args: &ShowConfig) -> Result<(), CliError> {
    let draft = judged(&context.global)?;
    let settings = config::show(&draft.config, &draft.origins);
    context
        .show(&SettingsView { settings: settings.iter().map(SettingView::of).collect(), origin: args.origin })
}

/// Judges the file without a word. Returns its path.
pub(super) fn check_quietly(global: &Global) -> Result<PathBuf, ConfigError> {
    Ok(judged(global)?.origins.path().to_owned())
}

/// The roles of the file, if this user may read it and nothing is wrong with it.
pub(super) fn role_names(global: &Global) -> Vec<String> {
    let config = judged(global).map(|draft| draft.config);
    config.map(|config| config.roles.iter().map(|role| role.name.to_string()).collect()).unwrap_or_default()
}

/// The configuration in force by the file, if nothing is wrong with it.
pub(super) fn accepted(global: &Global) -> Result<Config, CliError> {
    Ok(judged(global)?.config)
}

/// The configuration in force by the file, and the file.
pub(super) fn in_force(global: &Global) -> Result<(PathBuf, Config), ConfigError> {
    let draft = judged(global)?;
    Ok((draft.origins.path().to_owned(), draft.config))
}

/// Whether a text would be accepted as this file.
pub(super) fn would_hold(path: &Path, text: &str) -> bool {
    read_and_judge(&Source::of(path, text), &Environment::capture()).is_ok()
}

/// The sockets that the configuration names: the agents' and the operator's. A file that nobody named
/// and that cannot be used names none; the usual places are tried then.
pub(super) fn named_sockets(global: &Global) -> Result<[Option<PathBuf>; 2], CliError> {
    let environment = Environment::capture();
    let named = global.config.is_some() || environment.raw(Variable::RaviBrokerConfig).is_some();
    let draft = match draft(global, &environment) {
        Ok(draft) => draft,
        Err(error) if named => return Err(error.into()),
        Err(_) => return Ok([None, None]),
    };
    let from_file = |key| matches!(draft.origins.of_key(key), Origin::File(_));
    let listen = &draft.config.listen;
    Ok([
        from_file("listen.agent_socket").then(|| listen.agent_socket.clone()),
        from_file("listen.admin_socket").then(|| listen.admin_socket.clone()),
    ])
}

fn judged(global: &Global) -> Result<Draft, ConfigError> {
    let environment = Environment::capture();
    read_and_judge(&Source::find(global.config.as_deref(), &environment)?, &environment)
}

fn read_and_judge(source: &Source, environment: &Environment) -> Result<Draft, ConfigError> {
    let draft = config::read(source, environment, &Overrides::default())?;
    let mut problems = Policy::compile(&draft.config).err().unwrap_or_default();
    problems.extend(Rules::compile(&draft.config).err().unwrap_or_default());
    draft.clone().finish(problems)?;
    Ok(draft)
}

fn draft(global: &Global, environment: &Environment) -> Result<Draft, ConfigError> {
    let source = Source::find(global.config.as_deref(), environment)?;
    config::read(&source, environment, &Overrides::default())
}

#[derive(Serialize)]
struct CheckView<'a> {
    path: String,
    valid: bool,
    problems: Vec<ProblemView<'a>>,
}

#[derive(Serialize)]
struct ProblemView<'a> {
    /// Counted from 1; 0 if no line applies.
    line: u32,
    message: &'a str,
}

impl<'a> CheckView<'a> {
    fn of(path: &Path, problems: &'a [Problem]) -> Self {
        let problem = |problem: &'a Problem| ProblemView { line: problem.line, message: &problem.message };
        Self {
            path: path.display().to_string(),
            valid: problems.is_empty(),
            problems: problems.iter().map(problem).collect(),
        }
    }
}

impl Document for CheckView<'_> {
    fn human(&self, page: &mut Page) {
        if self.valid {
            let good = Cell::new("is good.", Tone::Good);
            return page.pieces([Cell::from(format!("{} ", self.path)), good]);
        }
        let count = self.problems.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        page.pieces([
            Cell::from(format!("{}: ", self.path)),
            Cell::new(format!("{count} {noun}"), Tone::Bad),
        ]);
        for problem in &self.problems {
            match problem.line {
                0 => page.line(format!("  {}", problem.message)),
                line => page.line(format!("  line {line}: {}", problem.message)),
            }
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct SettingsView<'a> {
    settings: Vec<SettingView<'a>>,
    #[serde(skip)]
    origin: bool,
}

#[derive(Serialize)]
struct SettingView<'a> {
    key: &'a str,
    /// As the file would say it; `-` for what is not set.
    value: &'a str,
    /// A flag, an environment variable, `file:line` or `default`.
    origin: &'a str,
}

impl<'a> SettingView<'a> {
    fn of(shown: &'a Shown) -> Self {
        Self { key: &shown.key, value: &shown.value, origin: &shown.origin }
    }
}

impl Document for SettingsView<'_> {
    fn human(&self, page: &mut Page) {
        if self.origin {
            let row = |s: &SettingView| -> [Cell; 3] {
                [s.key.into(), s.value.into(), Cell::new(s.origin, Tone::Dim)]
            };
            let rows: Vec<_> = self.settings.iter().map(row).collect();
            return page.table(["SETTING", "VALUE", "ORIGIN"], &rows, "");
        }
        let row = |s: &SettingView| -> [Cell; 2] { [s.key.into(), s.value.into()] };
        let rows: Vec<_> = self.settings.iter().map(row).collect();
        page.table(["SETTING", "VALUE"], &rows, "");
    }
}
