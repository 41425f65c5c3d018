//! `ravi-brokerd`: wiring only.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ravi_broker::config::{Environment, Variable};
use ravi_broker::daemon::{self, Args, Settings};
use ravi_broker::secret::Secret;
use ravi_broker::sys::harden::harden;
use ravi_broker::telemetry;

fn main() -> ExitCode {
    let protections = harden();
    let args = Args::parse();
    let environment = Environment::capture();
    if let Err(error) = telemetry::init(environment.text(Variable::RaviBrokerLog)) {
        return fail(&error.to_string());
    }
    let embedded = match embed(&args) {
        Ok(embedded) => embedded,
        Err(error) => return fail(&error),
    };
    let mut settings = args.settings(environment);
    let management_key = embedded.map(|sandbox| sandbox.connect(&mut settings));
    match daemon::run(settings, management_key, protections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// An embedded stand-in for Ravi, and how to reach it.
struct Embedded {
    base_url: String,
    ca_pem: Vec<u8>,
    management_key: Secret,
    config: String,
}

impl Embedded {
    fn connect(self, settings: &mut Settings) -> Secret {
        settings.overrides.base_url = Some(self.base_url);
        settings.upstream_ca = Some(self.ca_pem);
        if matches!(settings.file, daemon::ConfigFile::Usual) {
            settings.file = daemon::ConfigFile::Text(self.config);
        }
        self.management_key
    }
}

#[cfg(feature = "sandbox")]
fn embed(args: &Args) -> Result<Option<Embedded>, String> {
    if !args.sandbox {
        return Ok(None);
    }
    let sandbox = ravi_broker::sandbox::embed().map_err(|error| error.to_string())?;
    let config = sandbox.example_config();
    Ok(Some(Embedded {
        base_url: sandbox.base_url,
        ca_pem: sandbox.ca_pem,
        management_key: sandbox.management_key,
        config,
    }))
}

#[cfg(not(feature = "sandbox"))]
fn embed(_: &Args) -> Result<Option<Embedded>, String> {
    Ok(None)
}

/// The error says what happened, and in its last line what to do.
fn fail(error: &str) -> ExitCode {
    let (what, hint) = error.rsplit_once('\n').unwrap_or((error, "look at the log, and start it again"));
    // A closed standard error is no reason to panic.
    let _ = writeln!(std::io::stderr(), "error: {what}\nhint: {hint}");
    ExitCode::FAILURE
}
