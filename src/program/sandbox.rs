//! `ravi-sandbox`.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use super::fail;
use crate::sandbox::{Args, run};

/// The stand-in for Ravi, until SIGINT or SIGTERM.
pub fn sandbox() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), "look at the limits of the process"),
    };
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> ExitCode {
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
