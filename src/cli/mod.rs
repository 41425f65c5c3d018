//! The command line, for people and for agents' shells.
//!
//! It reaches the daemon only through `client`, and reads configuration and audit files through
//! `config`, `policy` and `audit`. Secrets go to standard output by explicit command and nowhere else;
//! they are never arguments. `args` is the one definition of the command line, `exit` the table of exit codes,
//! `output` and `page` what results look like; each group of commands has a file.
//!
//! # JSON
//!
//! With `--format json` a command writes one document to standard output; those marked with a star write
//! one a line for as long as they run. Fields are added, never renamed or removed. Durations are whole
//! seconds, times RFC 3339 in UTC, what is absent is `null`.
//!
//! ```text
//! get, lease read         {resource, value, username}
//! lease acquire, renew    {lease_id, resource, expires_at, expires_in, renewable_for, revocable, uses}
//!                         and with --with-value: value, username
//! lease list              [the same]
//! lease release           {lease_id}
//! lease watch *           {event: rotated|expiring|expired|revoked|missed, lease_id, resource}
//! list secrets            [{resource, key}]
//! list passwords          [{resource, domain, username}]
//! set, delete, password   {resource, did: created|replaced|deleted}
//! session open, delegate  {session, session_file}
//! session renew           {session}
//! session show            {session, limits: [{name, rate, remaining, resets_in}], live_leases,
//!                         max_live_leases}
//!   session               {session_id, role, identity, scopes, expires_at, expires_in,
//!                         binding: process|subtree|cgroup, parent_session_id}
//! session close           {leases_revoked}
//! send, reply, forward    {message, budget: {limit, used, resets_at}}
//! check-send              {state: sent|not_found|ambiguous, message}
//! contacts                [{name, email, phone, trusted}]
//! whoami                  {session, identity: {uuid, name, email, phone, owner}}
//! login *                 {event: prompt, verification_url, user_code, expires_in}, then
//!                         {event: done, identities, persisted, sealed}
//! logout                  {file_removed, sealed_removed}
//! status                  {version, pid, started_at, locked, upstream_url, management_key_held,
//!                         identity_keys_held, connections, requests_served, requests_denied,
//!                         upstream_calls, audit: {sequence, hash, healthy}, config_path, roles,
//!                         protections: [{name, tier, full}],
//!                         dispatches: {pending, dead, oldest_pending, full}, approvals, sessions}
//!   sessions              [{session_id, role, identity, uid, pid, executable, reason, age, expires_in,
//!                         parent_session_id, binding,
//!                         leases: [{lease_id, resource, expires_in, revocable, uses}]}]
//! top                     as status
//! doctor                  {well, findings: [{check, state: good|note|bad, found, fix}]}
//! explain                 {denial_id, denied_at, rule, asked, session_id, role, uid, pid, executable,
//!                         tier, selectors: [text]}
//! approvals, list         {approvals: [{approval_id, session_id, role, uid, pid, executable, action, about,
//!                         delivery, claimed_reason, waited, expires_in, calls}],
//!                         alarms: [{number, kind, raised_at, session_id, role, uid, pid, executable,
//!                         resource}]}
//! approvals watch *       {event: asked|alarm, and the fields of it} or {event: over, approval_id}
//! approvals allow, deny   {approval_id, decision: once|for|deny, for_seconds}
//! revoke                  {sessions, leases, exposed_resources}
//! lock                    {locked, sessions, leases}
//! identity list           [{name, uuid, email, phone, roles, key_held}]
//! identity show           {the same, email_budget, sms_budget: {limit, used, resets_at}}
//! identity create         {name, uuid, email, phone, phone_failure}
//! unlock                  {locked, management_key_held}
//! reload                  {roles, sessions_ended}
//! dispatch list           [{dispatch_id, rule, target, identity_uuid, message,
//!                         state: pending|delivered|dropped|dead, attempts, queued_at, next_at, fault}]
//! dispatch retry, drop    {dispatches}
//! setup                   {host, role, changed, files, diff, notes: [text]}
//! setup print             {mcpServers, role: {name, text}}; text is null where the role is there
//! config check            {path, valid, problems: [{line, message}]}
//! config show             [{key, value, origin}]
//! audit verify            {valid, first, last, hash, unfinished, files: [{path, first, last}],
//!                         breach: {path, line, message}}
//! service status          {user, running, units: [{name, active, enabled, by, path}]}
//! inject, metrics, api-key, what their protocols say, whatever --format
//!   and the other helpers
//! audit tail *            the record, as the file holds it
//! any error               {error: {reason, message, hint, retry_after_seconds, problems, denial_id}},
//!                         on standard error; retry_after_seconds only where waiting helps, problems
//!                         (texts with their lines) only where a reload refused a configuration,
//!                         denial_id only where a rule refused and `explain` may tell which
//! ```

mod approvals;
mod args;
mod ask;
mod audit;
mod config;
mod context;
mod dispatch;
mod doctor;
mod error;
mod exit;
mod explain;
mod helper;
mod identity;
mod inbox;
mod inject;
mod input;
mod lease;
mod leased;
mod login;
mod manual;
pub mod mask;
mod notes;
mod operator;
mod output;
mod page;
mod ravi_file;
mod run;
mod seal;
mod send;
mod service;
mod session;
mod setup;
mod skill;
mod status;
mod top;
mod usage;
mod vault;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Colour, Command, Format, Global};
use context::Context;
use error::CliError;
use notes::Notes;
use output::{Output, coloured};

use crate::clock::SystemClock;

/// Runs the demo; told whether to use colours. It lives in the program, since it starts the others.
pub type DemoRunner = fn(bool) -> anyhow::Result<()>;

/// The whole program: parse, run, tell. `demo` is absent where the stand-in for Ravi was left out.
pub fn main(demo: Option<DemoRunner>) -> ExitCode {
    let arguments: Vec<OsString> = helper::by_name(std::env::args_os().collect());
    let result = match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            let notes = Notes::open(&cli.global);
            run(cli, demo).map_err(|error| (notes, error))
        }
        Err(error) => {
            let global = guess(&arguments);
            parse_failed(&global, &error).map_err(|error| (Notes::open(&global), error))
        }
    };
    match result {
        Ok(code) => code,
        Err((_, error)) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err((notes, error)) => tell(&notes, &error),
    }
}

/// The exit code of an error, which is told unless the result has told it already.
fn tell(notes: &Notes, error: &CliError) -> ExitCode {
    let report = error.report();
    if !matches!(error, CliError::Found) {
        notes.error(&report);
    }
    report.exit.into()
}

fn run(cli: Cli, demo: Option<DemoRunner>) -> Result<ExitCode, CliError> {
    let out = Output::open(&cli.global).map_err(CliError::Start)?;
    let notes = Notes::open(&cli.global);
    let mut context = Context { global: cli.global, out, notes, clock: SystemClock };
    if let Command::Demo = cli.command {
        return run_demo(&context, demo);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::Start)?;
    if let Command::Run(args) = &cli.command {
        return runtime.block_on(run::run(&context, args));
    }
    runtime.block_on(dispatch(&mut context, &cli.command))?;
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(context: &mut Context, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Get(args) => lease::get(context, args).await,
        Command::Lease(command) => lease::run(context, command).await,
        Command::List(command) => vault::list(context, command).await,
        Command::Set(args) => vault::set(context, args).await,
        Command::Password(command) => vault::password(context, command).await,
        Command::Delete(args) => vault::delete(context, args).await,
        Command::Session(command) => session::run(context, command).await,
        Command::Inbox(command) => inbox::run(context, command).await,
        Command::WaitCode(args) => inbox::wait_code(context, args).await,
        Command::Send(command) => send::send(context, command).await,
        Command::Reply(args) => send::reply(context, args).await,
        Command::Forward(args) => send::forward(context, args).await,
        Command::CheckSend(args) => send::check(context, args).await,
        Command::Contacts(args) => send::contacts(context, args).await,
        Command::Whoami(session) => session::whoami(context, session).await,
        Command::Inject(args) => inject::run(context, args).await,
        Command::GitCredential(args) => helper::git_credential(context, args).await,
        Command::DockerCredential(args) => helper::docker_credential(context, args).await,
        Command::AwsCredentials(args) => helper::aws_credentials(context, args).await,
        Command::ApiKey(args) => helper::api_key(context, args).await,
        Command::SshAskpass(args) => helper::ssh_askpass(context, args).await,
        Command::Login(args) => login::run(context, args).await,
        Command::Logout => login::logout(context).await,
        Command::Status => status::run(context).await,
        Command::Top(args) => top::run(context, args).await,
        Command::Metrics => metrics(context).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Explain(args) => explain::run(context, args).await,
        Command::Approvals(args) => approvals::run(context, args).await,
        Command::Revoke(args) => operator::revoke(context, args).await,
        Command::Identity(command) => identity::run(context, command).await,
        Command::Lock(purpose) => operator::lock(context, purpose).await,
        Command::Unlock => operator::unlock(context).await,
        Command::Reload => operator::reload(context).await,
        Command::Dispatch(command) => dispatch::run(context, command).await,
        Command::Setup(args) => setup::run(context, args),
        Command::Service(command) => service::run(context, command),
        Command::Skill(command) => skill::run(context, command),
        Command::Completions(args) => manual::completions(context, args),
        Command::Man(args) => manual::pages(context, args),
        Command::Config(command) => config::run(context, command),
        Command::Audit(command) => audit::run(context, command).await,
        // They end in other ways, before this.
        Command::Run(_) | Command::Demo => Err(CliError::NoDemo),
    }
}

/// The text as it is: its readers are programs.
async fn metrics(context: &mut Context) -> Result<(), CliError> {
    let text = context.admin().await?.metrics().await?;
    context.out.text(&text).map_err(CliError::Output)
}

fn run_demo(context: &Context, demo: Option<DemoRunner>) -> Result<ExitCode, CliError> {
    let runner = demo.ok_or(CliError::NoDemo)?;
    let colour = coloured(context.global.color, context.out.is_terminal());
    runner(colour).map_err(|error| CliError::Demo(format!("{error:#}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Help and version are results; everything else is a usage error.
fn parse_failed(global: &Global, error: &clap::Error) -> Result<ExitCode, CliError> {
    let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if missing && global.format == Format::Human {
        Notes::open(global).raw(&error.render().to_string());
        return Ok(exit::Exit::Usage.into());
    }
    if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let (what, remedy) = usage::explain(error);
        return Err(CliError::Usage(what, remedy));
    }
    let mut out = Output::open(global).map_err(CliError::Start)?;
    let styled = coloured(global.color, std::io::stdout().is_terminal());
    let text = error.render();
    let text = if styled { text.ansi().to_string() } else { text.to_string() };
    out.text(&text).map_err(CliError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// The form of output that a command line asks for which could not be parsed.
fn guess(arguments: &[OsString]) -> Global {
    let asks = |name: &str, value: &str| {
        let glued = arguments.iter().any(|argument| *argument == *format!("{name}={value}"));
        glued || arguments.windows(2).any(|pair| pair[0] == name && pair[1] == value)
    };
    let color = match (asks("--color", "always"), asks("--color", "never")) {
        (true, _) => Colour::Always,
        (_, true) => Colour::Never,
        _ => Colour::Auto,
    };
    let format = if asks("--format", "json") { Format::Json } else { Format::Human };
    Global { format, color, socket: None, admin_socket: None, config: None }
}
