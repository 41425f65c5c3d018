//! `ravi-brokerd`.

use std::process::ExitCode;

use clap::Parser;

use super::fail;
use crate::config::{Environment, Variable};
use crate::daemon::{self, Args, Settings};
use crate::peer;
use crate::secret::Secret;
use crate::sys::attestor::{self, Attestor};
use crate::sys::confine::proc_is_hidden;
use crate::sys::harden::harden;
use crate::sys::{Protection, inherited};
use crate::telemetry;

const LIMITS: &str = "look at the limits of processes and descriptors";
const SERVICE: &str =
    "see that `ravi-broker-attestor.socket` is active and its service can start, or leave --attestor out";
const SOCKET: &str =
    "start it through ravi-broker-attestor.socket; it takes no part in a daemon started by hand";
/// `FileDescriptorName=` of the attestor's socket.
const ATTESTOR: &str = "attestor";

/// The daemon: hardens itself before anything is read, forks its attestor before there is a secret or a
/// thread, or finds the service that is it, then judges, confines itself, binds, serves.
pub fn brokerd() -> ExitCode {
    let mut protections = harden();
    let args = Args::parse();
    if args.attest {
        return attest();
    }
    let hidden = proc_is_hidden();
    match look_through(&args, hidden) {
        Ok(reached) => protections.push(reached),
        Err(refused) => return refused,
    }
    let environment = Environment::capture();
    if let Err(error) = telemetry::init(environment.text(Variable::RaviBrokerLog)) {
        return refuse(&error.to_string());
    }
    if hidden && args.attestor.is_none() {
        tracing::warn!(
            "/proc hides the processes of other users: none of them is given a role; show them, or run an \
             attestor that sees them (--attestor)"
        );
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

/// A service is named, or a child is forked.
fn look_through(args: &Args, hidden: bool) -> Result<Protection, ExitCode> {
    let (attestor, tier) = match &args.attestor {
        Some(path) => {
            let failed =
                |error| fail(&format!("the attestor at {} cannot be used: {error}", path.display()), SERVICE);
            (Attestor::connect(path).map_err(failed)?, "a service of its own")
        }
        None => {
            let failed = |error| fail(&format!("the attestor cannot be started: {error}"), LIMITS);
            let tier = match hidden {
                true => "a child, from which /proc hides other users",
                false => "a child",
            };
            (Attestor::start().map_err(failed)?, tier)
        }
    };
    let full = attestor.is_service() || !hidden;
    peer::look_through(attestor, hidden);
    Ok(Protection { name: "callers looked into by", tier, full })
}

/// The attestor as a service: reads no configuration and no secret, and writes nothing.
fn attest() -> ExitCode {
    let passed = inherited::take().unwrap_or_default().into_iter().find(|(name, _)| name == ATTESTOR);
    let Some((_, listener)) = passed else {
        return fail("no socket named attestor was passed", SOCKET);
    };
    match attestor::serve(&listener) {
        Err(error) => fail(&format!("the attestor cannot serve: {error}"), SOCKET),
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
