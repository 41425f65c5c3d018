//! `ravi-broker-mcp`. Links neither TLS nor the vault: it imports `mcp` and what that needs.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::{fail, tell};
use crate::mcp::{self, Args, Asked};
use crate::telemetry;

const LOG_VARIABLE: &str = "RAVI_BROKER_LOG";
const USAGE: u8 = 2;

/// The adapter, until its input ends or a signal comes.
pub fn mcp() -> ExitCode {
    telemetry::report_panics_without_their_text();
    let args = match Args::read(std::env::args_os().skip(1)) {
        Ok(Asked::Serve(args)) => args,
        Ok(Asked::Say(text)) => {
            // Who reads it may have gone.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            fail(&error.to_string(), "see ravi-broker-mcp --help");
            return ExitCode::from(USAGE);
        }
    };
    log_to_standard_error();
    let sockets = args.sockets();
    let access = match args.access() {
        Ok(access) => access,
        Err(error) => {
            fail(&format!("RAVI_BROKER_ROLE: {error}"), "see ravi-broker-mcp --help");
            return ExitCode::from(USAGE);
        }
    };
    if io::stdin().is_terminal() {
        tell("ravi-broker-mcp speaks MCP and is started by a host; see ravi-broker-mcp --help");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), "look at the limits of the process"),
    };
    let result = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        mcp::run(access, sockets, stop).await.map_err(io::Error::other)
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), "start the adapter again"),
    }
}

/// Our own lines alone: the libraries below log requests and results, and with them secrets.
fn log_to_standard_error() {
    let level = std::env::var(LOG_VARIABLE).ok().and_then(|level| level.parse().ok());
    let ours = Targets::new().with_target("ravi_broker", level.unwrap_or(LevelFilter::WARN));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
    tracing_subscriber::registry().with(lines).with(ours).init();
}
