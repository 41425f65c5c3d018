//! `run`: a program under a session of its own.
//!
//! The launcher opens the session (bound to itself and what it starts), fetches the values, starts the program
//! and stays: it renews the session, copies output through the mask, passes signals on, and closes the session
//! when the program ends. Values lie in sealed files in memory; the launcher keeps no other copy but what
//! the mask needs. The session's token is in a file of mode 0600 and in no environment.
//!
//! Imports `client`, `clock`, `secret`, `sys`, `types` and its siblings.

mod environment;
mod files;
mod inject;
mod program;
mod relay;
mod say;
mod session;
mod signals;
mod streams;
mod supervise;
mod terminal;

use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::inject::Injected;
use self::program::ProgramFile;
use self::say::Say;
use self::session::LauncherSession;
use self::signals::Signals;
use self::streams::Streams;
use self::supervise::Supervisor;
use super::args::Run;
use super::context::Context;
use super::error::CliError;
use crate::sys::cgroup::Leaf;
use crate::sys::spawn::{Program, Surroundings, expect_children, spawn};

pub(in crate::cli) use environment::rules as environment_rules;

/// From the arguments to the exit code of the program.
pub(super) async fn run(context: &Context, args: &Run) -> Result<ExitCode, CliError> {
    let wanted = inject::wanted(args)?;
    let program = ProgramFile::find(&args.command[0])?;
    let signals = Signals::block().map_err(CliError::Start)?;
    let say = Say::new(&context.notes, args);
    let core_limit = forbid_core().map_err(CliError::Start)?;
    say.exposure(args);
    let _leaf = Leaf::enter().map_err(|error| say.lower_tier("no cgroup of its own", &error)).ok();
    let prepared = async {
        let session = LauncherSession::open(context, args).await?;
        match inject::acquire(&session, &wanted, args).await {
            Ok(values) => Ok((session, values)),
            Err(error) => {
                session.close().await;
                Err(error)
            }
        }
    };
    let (session, values) = tokio::select! {
        prepared = prepared => prepared?,
        // The session ends with this process.
        signal = signals.terminating() => return Ok(ended_by(signal)),
    };
    if values.iter().any(|value| !value.is_locked()) {
        say.lower_tier("values may be swapped", &"locked memory is used up (ulimit -l)");
    }
    let launch = Launch { program, core_limit, values };
    supervised(args, session, &signals, &say, launch).await
}

/// What is decided before the program starts.
struct Launch {
    program: ProgramFile,
    core_limit: (u64, u64),
    values: Vec<Injected>,
}

async fn supervised(
    args: &Run,
    mut session: LauncherSession,
    signals: &Signals,
    say: &Say<'_>,
    launch: Launch,
) -> Result<ExitCode, CliError> {
    let Launch { program, core_limit, values } = launch;
    let masked = !args.no_mask && values.iter().any(|value| value.is_secret());
    let mut streams = Streams::prepare(masked, args.stdin.is_some()).map_err(CliError::Start)?;
    let files = files::place(&values, session.take_link(say)).map_err(CliError::Start)?;
    let environment = environment::of_child(args, &session, &values, &files, say).map_err(CliError::Start)?;
    let started = {
        let program =
            Program { path: program.path, arguments: program::arguments(&args.command)?, environment };
        let descriptors = files.descriptors.into_iter().chain(streams.take_child_side()).collect();
        let terminal = streams.take_terminal();
        let mask = *signals.before();
        let start = || {
            expect_children()
                .and_then(|()| spawn(program, Surroundings { descriptors, mask, core_limit, terminal }))
        };
        start()
    };
    let started = match started {
        Ok(started) => started,
        Err(error) => {
            session.close().await;
            return Err(program::not_run(&error));
        }
    };
    let mask = inject::mask(&values, masked, say)?;
    // From here on the pages are kept from swap, and nothing else is kept.
    let _locked: Vec<_> = values.into_iter().map(Injected::into_locked).collect();
    let supervisor = Supervisor::new(started, signals, say, streams, mask).map_err(CliError::Start)?;
    let code = supervisor.run(session).await;
    Ok(ExitCode::from(code))
}

/// No core dump of this process; returns what the program is to have.
fn forbid_core() -> std::io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)?;
    Ok((soft, hard))
}

fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(supervise::code_of_signal(signal))
}
