//! `ravi-brokerd` without the allocator that wipes what is freed, and otherwise the same.
//!
//! The residue test counts what is left of secrets in the memory of the daemon, and a count of zero says
//! something only if the test can count. It runs this program as well and expects to find copies. It is
//! built by the tests alone and is not part of any package.

use std::process::ExitCode;

fn main() -> ExitCode {
    ravi_broker::program::brokerd()
}
