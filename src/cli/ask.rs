//! Asks a person on the terminal before something is written. Imports nothing of this crate.

use std::io::{self, BufRead, IsTerminal, Read, Write};

/// What a person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on.
    Yes,
    /// Anything else.
    No,
    /// There is no terminal to ask on.
    Nobody,
}

/// Asks, unless that was answered before.
pub(super) fn agree(yes: bool, question: &str) -> Answer {
    if yes {
        return Answer::Yes;
    }
    let input = io::stdin();
    if !input.is_terminal() || !io::stderr().is_terminal() {
        return Answer::Nobody;
    }
    // A question that cannot be shown still has its answer read.
    let _ = io::stderr().write_all(format!("{question} [y/N] ").as_bytes());
    let mut answer = String::new();
    let read = input.lock().take(16).read_line(&mut answer);
    let agreed = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    if agreed { Answer::Yes } else { Answer::No }
}
