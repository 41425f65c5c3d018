//! What the launcher says beside the program, on standard error: little, each thing once.

use std::cell::Cell;
use std::fmt::Display;

use crate::cli::args::Run;
use crate::cli::notes::Notes;

/// Remarks of the launcher.
pub(super) struct Say<'a> {
    notes: &'a Notes,
    quiet: bool,
    verbose: bool,
    /// In raw mode a line break alone does not return to the first column.
    raw: Cell<bool>,
}

impl<'a> Say<'a> {
    pub(super) fn new(notes: &'a Notes, args: &Run) -> Self {
        Self { notes, quiet: args.quiet, verbose: args.verbose, raw: Cell::new(false) }
    }

    /// Whether the terminal is in raw mode.
    pub(super) fn set_raw(&self, raw: bool) {
        self.raw.set(raw);
    }

    /// Something that the user has to know.
    pub(super) fn note(&self, text: impl Display) {
        let [before, after] = if self.raw.get() { ["\r", "\r"] } else { ["", ""] };
        self.notes.raw(before);
        self.notes.say(&format!("ravi-broker: {text}"));
        self.notes.raw(after);
    }

    /// Something for those who asked for it.
    pub(super) fn detail(&self, text: impl Display) {
        if self.verbose {
            self.note(text);
        }
    }

    /// A protection that was not to be had.
    pub(super) fn lower_tier(&self, what: &str, why: &dyn Display) {
        self.detail(format_args!("{what}: {why}"));
    }

    /// What `--env` means.
    pub(super) fn exposure(&self, args: &Run) {
        if !args.env.is_empty() && !self.quiet {
            self.note(
                "--env shows the value in /proc/PID/environ, in crash reports and to every process that the \
                 program starts; --file does not",
            );
        }
    }
}
