//! `ravi-broker`: wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    ravi_broker::program::broker()
}
