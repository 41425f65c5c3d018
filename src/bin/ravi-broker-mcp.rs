//! `ravi-broker-mcp`: wiring only.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use ravi_broker::mcp::{self, Args};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

const LOG_VARIABLE: &str = "RAVI_BROKER_LOG";
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_standard_error();
    let sockets = args.sockets();
    let access = match args.access() {
        Ok(access) => access,
        Err(error) => return fail(&format!("RAVI_BROKER_ROLE: {error}\nSee ravi-broker-mcp --help"), USAGE),
    };
    if io::stdin().is_terminal() {
        tell("ravi-broker-mcp speaks MCP and is started by a host; see ravi-broker-mcp --help");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime did not start: {error}"), 1),
    };
    let result = runtime.block_on(async {
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        mcp::run(access, sockets, either(signals)).await.map_err(io::Error::other)
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

async fn either((mut interrupt, mut terminate): (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
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

fn fail(message: &str, code: u8) -> ExitCode {
    tell(message);
    ExitCode::from(code)
}

/// A host that has closed standard error is no reason to panic.
fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}
