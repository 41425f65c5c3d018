//! `ravi-broker-mcp`: wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    ravi_broker::program::mcp()
}
