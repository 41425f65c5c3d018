//! `ravi-brokerd`.

use std::process::ExitCode;

use clap::Parser;

use super::fail;
use crate::config::{Environment, Variable};
use crate::daemon::{self, Args, Settings};
use crate::peer;
use crate::secret::Secret;
use crate::sys::attestor::Attestor;
use crate::sys::harden::harden;
use crate::telemetry;

const LIMITS: &str = "look at the limits of processes and descriptors";

/// The daemon: hardens itself before anything is read, forks its attestor before there is a secret or a
/// thread, then judges, confines itself, binds, serves.
pub fn brokerd() -> ExitCode {
    let protections = harden();
    let args = Args::parse();
    match Attestor::start() {
        Ok(attestor) => peer::look_through(attestor),
        Err(error) => return fail(&format!("the attestor cannot be started: {error}"), LIMITS),
    }
    let environment = Environment::capture();
    if let Err(error) = telemetry::init(environment.text(Variable::RaviBrokerLog)) {
        return refuse(&error.to_string());
    }
    let (settings, management_key) = match connected(args, environment) {
        Ok(connected) => connected,
        Err(error) => return refuse(&error),
    };
    match daemon::run(settings, management_key, protections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

/// With `--sandbox`: the settings point to an embedded stand-in, whose key comes along.
#[cfg(feature = "sandbox")]
fn connected(args: Args, environment: Environment) -> Result<(Settings, Option<Secret>), String> {
    let embed = args.sandbox;
    let mut settings = args.settings(environment);
    if !embed {
        return Ok((settings, None));
    }
    let sandbox = crate::sandbox::embed().map_err(|error| format!("{error}\ntry again"))?;
    if matches!(settings.file, daemon::ConfigFile::Usual) {
        settings.file = daemon::ConfigFile::Text(sandbox.example_config());
    }
    // A try must not write into the trail of the real thing.
    if settings.overrides.audit_file.is_none() {
        let state = crate::config::paths::state_directory(&settings.environment)
            .map_err(|error| error.to_string())?;
        settings.overrides.audit_file = Some(state.join("sandbox").join("audit.jsonl"));
    }
    settings.overrides.base_url = Some(sandbox.base_url);
    settings.upstream_ca = Some(sandbox.ca_pem);
    Ok((settings, Some(sandbox.management_key)))
}

#[cfg(not(feature = "sandbox"))]
fn connected(args: Args, environment: Environment) -> Result<(Settings, Option<Secret>), String> {
    Ok((args.settings(environment), None))
}

/// The daemon's errors say what happened, and in their last line what to do.
fn refuse(error: &str) -> ExitCode {
    let (what, advice) = error.rsplit_once('\n').unwrap_or((error, "look at the log, and start it again"));
    fail(what, advice)
}
