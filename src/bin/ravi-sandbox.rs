//! `ravi-sandbox`: wiring only.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ravi_broker::sandbox::{Args, run};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return fail("signals cannot be watched", "try again");
    };
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    match run(args, stop, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), error.advice()),
    }
}

/// Says what happened and what to do. A closed standard error is no reason to panic.
fn fail(what: &str, advice: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {what}\nhint: {advice}");
    ExitCode::FAILURE
}
