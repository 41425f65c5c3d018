//! Panics say where, never what: the text of a panic may hold anything that was being worked on.

use std::io::Write;
use std::panic::{self, PanicHookInfo};

/// Replaces the process's panic hook. The new one logs the place; without a logger it writes to
/// standard error.
pub fn report_panics_without_their_text() {
    panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let (file, line) = panic.location().map_or(("unknown", 0), |place| (place.file(), place.line()));
    if tracing::dispatcher::has_been_set() {
        tracing::error!(file, line, "a defect stopped a task");
    } else {
        let _ =
            writeln!(std::io::stderr(), "a defect stopped the program at {file}:{line}\nplease report it");
    }
}
