//! Load for a running daemon, the bare server that it is compared with, and the comparison.
//!
//! ```text
//! cargo bench --bench load -- drive --socket /run/ravi-broker/broker.sock --role bench --clients 8
//! cargo bench --bench load -- floor --socket /tmp/floor.sock
//! cargo bench --bench load -- compare                # ratios of the daemon to the floor, against their bars
//! cargo bench --bench load -- instructions           # the same in instructions, under callgrind
//! ```
//!
//! Server and client are separate processes. Wall times here are as noisy as the host: what is judged are
//! ratios within one run, of medians over alternated pairs, and instructions.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the result is the output")]
#![allow(clippy::disallowed_methods, reason = "what is measured is the time")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends the program")]

mod compare;
mod drive;
mod floor;
mod instructions;
mod process;
mod stage;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest of it")]
mod support;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "load", about = "Load for a running daemon, and what it is compared with")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    /// What `cargo bench` says to every bench; means nothing here
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Send calls to a socket and print one line of JSON
    Drive(drive::Drive),
    /// Answer `AcquireLease` with a constant, and do nothing else
    Floor(floor::Floor),
    /// Daemon and floor in alternated pairs, as ratios
    Compare(compare::Compare),
    /// Instructions of 10,000 warm `AcquireLease`, of the daemon and of the floor
    Instructions(instructions::Instructions),
}

fn main() {
    match Cli::parse().what {
        Some(What::Drive(drive)) => drive.run(),
        Some(What::Floor(floor)) => floor.run(),
        Some(What::Instructions(instructions)) => instructions.run(),
        Some(What::Compare(compare)) => compare.run(),
        None => compare::Compare::default().run(),
    }
}
