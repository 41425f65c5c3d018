//! `ravi-sandbox`: wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    ravi_broker::program::sandbox()
}
