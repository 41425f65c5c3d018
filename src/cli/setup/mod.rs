//! `setup`: gives a host of agents a role of its own, and takes that out again.
//!
//! What a file would say is computed from what it says, by pure functions (`json`, `toml`, `piece`); all of it is shown,
//! asked for, noted (`record`), and only then written (`stage`, `disk`). A file that does not parse, or in which somebody
//! else's is in the place, is left alone. Nothing secret is written, and nothing of others is shown. Imports its siblings,
//! `config` and `types`.

mod assistant;
mod diff;
mod disk;
mod error;
mod host;
mod json;
mod piece;
mod record;
mod role;
mod stage;
mod toml;
mod undo;
mod view;

use std::path::{Path, PathBuf};

use super::args::{HostName, Setup};
use super::ask::{self, Answer};
use super::context::Context;
use super::error::CliError;
use super::skill::SKILL;
use crate::types::{IdentityName, RoleName};
use assistant::{Assistant, Part};
pub(crate) use error::SetupError;
use host::{Places, Server};
use piece::{Piece, Wish};
pub(in crate::cli) use record::{Entry, Record};
use role::{Match, NewRole, Parent, Standing};
use stage::Stage;
use view::{PrintView, SetupView};

const ADAPTER: &str = "ravi-broker-mcp";

/// What is set up, as whom, and with what.
struct Job<'a> {
    host: HostName,
    role: RoleName,
    identity: IdentityName,
    places: Places,
    /// This program.
    program: PathBuf,
    adapter: PathBuf,
    /// The daemon's, where the usual places would not lead there.
    socket: Option<PathBuf>,
    agents: &'a [String],
}

pub(super) fn run(context: &mut Context, args: &Setup) -> Result<(), CliError> {
    check(args)?;
    if args.undo {
        return undo::run(context, args);
    }
    let job = Job::of(context, args)?;
    if args.host == HostName::Print {
        return print(context, &job);
    }
    let mut stage = Stage::new(args.project);
    let (file, record) = Record::open()?;
    let known = record.entry(args.host.name(), job.places.project.as_deref()).cloned();
    let mut notes = Vec::new();
    let wishes = job.wishes(&mut notes)?;
    let known_pieces = known.as_ref().map(|entry| entry.pieces.clone()).unwrap_or_default();
    let pieces = put_all(&mut stage, &wishes, known_pieces)?;
    let known_roles = known.map(|entry| entry.roles).unwrap_or_default();
    let roles = job.put_role(context, &mut stage, known_roles, &mut notes)?;
    let mut view = SetupView::of(&job, &stage, notes);
    if stage.changed().is_empty() {
        view.note("It is set up already: nothing to change.");
        return context.show(&view);
    }
    agree(context, args.yes, &view, "Write it?")?;
    let entry = Entry {
        host: args.host.name().to_owned(),
        project: job.places.project.clone(),
        role: job.role.to_string(),
        program: job.started().to_owned(),
        pieces,
        roles,
    };
    // Before the files: what is noted and not there is no harm.
    record.with(args.host.name(), job.places.project.as_deref(), Some(entry)).write(&file)?;
    stage.write()?;
    view.written(format!("`{}` takes it out again.", undo::command(args)));
    context.show(&view)
}

/// What the parser of the command line cannot tell.
fn check(args: &Setup) -> Result<(), SetupError> {
    match args.host {
        HostName::Print if args.undo || args.project || args.file.is_some() => Err(SetupError::Print),
        HostName::Assistant if args.project => Err(SetupError::NoProject { host: "kcosr/assistant" }),
        host if host != HostName::Assistant && !args.agent.is_empty() => {
            Err(SetupError::NoFile { host: host.name() })
        }
        _ => Ok(()),
    }
}

/// Shows the change and asks. A program is told the change as well where it is not made.
fn agree(context: &mut Context, yes: bool, view: &SetupView, question: &str) -> Result<(), CliError> {
    if !context.out.is_json() {
        context.out.page(|page| view.diff_on(page)).map_err(CliError::Output)?;
    }
    let error = match ask::agree(yes, question) {
        Answer::Yes => return Ok(()),
        Answer::No => SetupError::Declined,
        Answer::Nobody => SetupError::NotAsked,
    };
    if context.out.is_json() {
        context.show(view)?;
    }
    Err(error.into())
}

/// Puts every wish in, and returns what is then to be remembered.
fn put_all(stage: &mut Stage, wishes: &[Wish], mut pieces: Vec<Piece>) -> Result<Vec<Piece>, SetupError> {
    for wish in wishes {
        let at = pieces.iter().position(|piece| wish.is_for(piece));
        let put = stage.put(wish, at.map(|at| &pieces[at]))?;
        match (put, at) {
            (Some(piece), Some(at)) => pieces[at] = piece,
            (Some(piece), None) => pieces.push(piece),
            (None, _) => {}
        }
    }
    Ok(pieces)
}

impl<'a> Job<'a> {
    fn of(context: &Context, args: &'a Setup) -> Result<Self, CliError> {
        let role = match &args.role {
            Some(role) => role.clone(),
            None if args.host == HostName::Print => "my-agent".parse().map_err(|_| SetupError::NotText)?,
            None => args.host.name().parse().map_err(|_| SetupError::NotText)?,
        };
        let identity = match &args.identity {
            Some(identity) => identity.clone(),
            None => role.as_str().parse().map_err(|_| SetupError::NotText)?,
        };
        let here = |error| SetupError::Io(PathBuf::from("."), error);
        let program = std::env::current_exe().map_err(here)?;
        let adapter = program.with_file_name(ADAPTER);
        if !adapter.is_file() {
            return Err(SetupError::NoAdapter.into());
        }
        let places = Places {
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            project: project(args)?,
            file: args.file.clone(),
        };
        let socket = context.named_agent_socket()?;
        Ok(Self { host: args.host, role, identity, places, program, adapter, socket, agents: &args.agent })
    }

    /// What the host starts: the adapter, or this program where it has a shell and no MCP.
    fn started(&self) -> &Path {
        match self.host {
            HostName::Pi | HostName::Assistant => &self.program,
            _ => &self.adapter,
        }
    }

    fn server(&self) -> Result<Server, SetupError> {
        Server::new(&self.adapter, Some(self.role.as_str()), self.socket.as_deref())
    }

    fn wishes(&self, notes: &mut Vec<String>) -> Result<Vec<Wish>, SetupError> {
        match self.host {
            HostName::Pi => Ok(vec![host::skill(&self.places, SKILL, self.role.as_str())?]),
            HostName::Assistant => self.assistant(notes),
            host => Ok(vec![host::server(host, &self.places, &self.server()?)?]),
        }
    }

    fn assistant(&self, notes: &mut Vec<String>) -> Result<Vec<Wish>, SetupError> {
        let file = assistant::file(self.places.file.as_deref())?;
        let found = disk::find(&file, false)?;
        let host = Assistant::read(file, found.text.as_deref(), self.agents)?;
        let part = Part {
            program: &self.program,
            adapter: &self.adapter,
            role: self.role.as_str(),
            socket: self.socket.as_deref(),
            home: self.places.home.as_deref(),
        };
        notes.extend_from_slice(&host.notes);
        notes.push(
            "Start kcosr/assistant anew: it reads its configuration and plugins at its start.".to_owned(),
        );
        host.wishes(&part, self.agents)
    }

    /// Adds the role where the configuration has none of its name and is this user's to change.
    fn put_role(
        &self,
        context: &Context,
        stage: &mut Stage,
        roles: Vec<Piece>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Piece>, CliError> {
        let missing = match role::standing(&context.global, &self.role)? {
            Standing::There(reads) => {
                if reads {
                    notes.push(format!(
                        "The role {} may read values: what it reads goes to the model, its provider and the host's logs. \
                         `use` in place of `read` gives them to programs alone.",
                        self.role
                    ));
                }
                return Ok(roles);
            }
            Standing::Missing(file) => Some(file),
            Standing::Hidden => None,
        };
        let (new, about) = self.new_role();
        let Some(file) = missing.filter(|file| disk::find(file, false).is_ok()) else {
            notes.push(format!(
                "The broker's configuration is not this user's to change. If it has no role {}, its operator adds:\n{}",
                self.role,
                new.text()?
            ));
            return Ok(roles);
        };
        // Not a project's, whatever the host's file is.
        let roles = stage.of_user(|stage| put_all(stage, &[new.wish(file.clone())?], roles))?;
        if !stage.text(&file).is_some_and(|text| super::config::would_hold(&file, text)) {
            return Err(SetupError::Refused(file).into());
        }
        notes.extend(about);
        notes.push("If the daemon runs already: `ravi-broker reload` puts the role in force.".to_owned());
        Ok(roles)
    }

    fn new_role(&self) -> (NewRole<'_>, Option<String>) {
        let shell = |what| Match { exe: self.program.clone(), parent: None, what };
        let starter = match self.host {
            HostName::ClaudeCode => Some("claude"),
            HostName::Codex => Some("codex"),
            HostName::Cursor => Some("cursor"),
            _ => None,
        };
        let (parent, note) = match starter.map(role::parent) {
            Some(Parent::Known(path)) => (Some(path), None),
            Some(Parent::Changing) => (None, Some("its path changes with each version")),
            Some(Parent::Unknown) => (None, Some("it is a script, or not on the path")),
            None => (None, None),
        };
        let adapter = Match { exe: self.adapter.clone(), parent, what: "the adapter" };
        let matches = match self.host {
            HostName::Pi => vec![shell("what its shell calls")],
            HostName::Assistant => vec![shell("its wrappers and its plugin")],
            _ => vec![adapter, shell("`ravi-broker run`, in the agent's shell")],
        };
        let note = starter.zip(note).map(|(starter, why)| {
            format!("The role does not name `{starter}` as what starts the adapter: {why}. `parent_exe` can be added by hand.")
        });
        let host = self.host.name();
        (NewRole { name: &self.role, identity: &self.identity, host, matches }, note)
    }
}

/// The project that is meant: the working directory, without links on the way.
fn project(args: &Setup) -> Result<Option<PathBuf>, SetupError> {
    if !args.project {
        return Ok(None);
    }
    let here = std::env::current_dir().and_then(std::fs::canonicalize);
    here.map(Some).map_err(|error| SetupError::Io(PathBuf::from("."), error))
}

fn print(context: &mut Context, job: &Job) -> Result<(), CliError> {
    let text = match role::standing(&context.global, &job.role)? {
        Standing::There(_) => None,
        _ => Some(job.new_role().0.text()?),
    };
    let server = job.server()?.json(HostName::Print);
    context.show(&PrintView::of(server, &job.role, text))
}
