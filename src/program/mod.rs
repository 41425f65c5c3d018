//! What the mains do: parse, build, run, exit code. `src/bin/` calls these, and `ravi-broker` plays the
//! other parts itself when the demo starts it under their names. Layer 5: wiring only.

mod allocator;
mod brokerd;
mod mcp;
#[cfg(feature = "sandbox")]
mod sandbox;

use std::io::Write;
use std::process::ExitCode;

pub use allocator::{WIPING, WipingAllocator};
pub use brokerd::brokerd;
pub use mcp::mcp;
#[cfg(feature = "sandbox")]
pub use sandbox::sandbox;

/// `ravi-broker`. `cargo run` builds this program alone, and the demo needs a daemon and a sandbox as
/// processes of their own: it starts this very file under their names.
pub fn broker() -> ExitCode {
    #[cfg(feature = "sandbox")]
    {
        let name = std::env::args_os().next().map(std::path::PathBuf::from);
        match name.as_deref().and_then(|name| name.file_name()).and_then(|name| name.to_str()) {
            Some(crate::demo::DAEMON) => brokerd(),
            Some(crate::demo::SANDBOX) => sandbox(),
            _ => {
                crate::telemetry::report_panics_without_their_text();
                crate::cli::main(Some(crate::demo::run))
            }
        }
    }
    #[cfg(not(feature = "sandbox"))]
    {
        crate::telemetry::report_panics_without_their_text();
        crate::cli::main(None)
    }
}

/// A closed standard error is no reason to panic.
fn tell(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Says what happened and what to do.
fn fail(what: &str, advice: &str) -> ExitCode {
    tell(&format!("error: {what}\nhint: {advice}"));
    ExitCode::FAILURE
}
