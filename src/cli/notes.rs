//! What people are told beside the result, on standard error: errors, remarks, and that something is
//! being waited for. Programs that asked for JSON get errors alone. A closed standard error is no
//! reason to fail. Imports nothing of this crate but its siblings.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::args::{Format, Global};
use super::error::Report;
use super::output::{coloured, span};
use super::page::{Cell, Page, Tone, harmless};

/// One turn of the spinner.
const FRAMES: [&str; 4] = ["-", "\\", "|", "/"];

/// Standard error.
pub(crate) struct Notes {
    json: bool,
    colour: bool,
    terminal: bool,
    frame: usize,
}

impl Notes {
    /// Takes standard error as `global` says.
    pub(crate) fn open(global: &Global) -> Self {
        let terminal = io::stderr().is_terminal();
        let colour = coloured(global.color, terminal);
        Self { json: global.format == Format::Json, colour, terminal, frame: 0 }
    }

    /// An error, in two lines or one object.
    pub(crate) fn error(&self, report: &Report) {
        if self.json {
            // Text and numbers always serialise.
            let object = serde_json::to_string(&Object { error: report }).unwrap_or_default();
            return put(&format!("{object}\n"));
        }
        let mut page = Page::new(self.colour);
        let mut lines = report.message.lines();
        page.pieces([Cell::new("error: ", Tone::Bad), Cell::from(lines.next().unwrap_or_default())]);
        lines.for_each(|line| page.line(line));
        report.problems.iter().for_each(|problem| page.line(format!("  {problem}")));
        page.pieces([Cell::new("hint: ", Tone::Strong), Cell::from(&report.hint)]);
        put(page.as_str());
    }

    /// A remark for people.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            put(&format!("{}\n", harmless(text)));
        }
    }

    /// Text of our own that has its line breaks already.
    pub(crate) fn raw(&self, text: &str) {
        put(text);
    }

    /// Shows that something is waited for, in place on a terminal and not at all elsewhere.
    pub(crate) fn spin(&mut self, what: &str, left: Duration) {
        if self.json || !self.terminal {
            return;
        }
        self.frame = (self.frame + 1) % FRAMES.len();
        put(&format!("\r\x1b[K{} {what} ({} left)", FRAMES[self.frame], span(left)));
    }

    /// Ends what `spin` showed.
    pub(crate) fn stop(&self) {
        if !self.json && self.terminal {
            put("\r\x1b[K");
        }
    }
}

#[derive(Serialize)]
struct Object<'a> {
    error: &'a Report,
}

fn put(text: &str) {
    // There is nowhere left to say that this failed.
    let _ = io::stderr().write_all(text.as_bytes());
}
