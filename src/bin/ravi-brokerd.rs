//! `ravi-brokerd`: wiring only.

use std::process::ExitCode;

use ravi_broker::program::{self, WIPING, WipingAllocator};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WIPING;

fn main() -> ExitCode {
    program::brokerd()
}
