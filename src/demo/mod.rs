//! `ravi-broker demo`: the main job, told step by step, with real processes.
//!
//! A stand-in for Ravi over TLS, the daemon, an operator and two agents run as processes of their own;
//! the agents are copies of this program under other names, since a role knows its agents by their
//! executable. Nothing leaves the machine, and no value of a credential is printed. Layer 5.

mod stage;
mod story;

use anyhow::Result;

pub use stage::{DAEMON, SANDBOX};

/// Tells the story. Fails if a step does not go as told.
pub fn run(colour: bool) -> Result<()> {
    let mut stage = stage::Stage::set()?;
    story::tell(&mut stage, &mut story::Teller::new(colour))
}
