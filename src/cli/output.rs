//! Where results go: standard output, as text for people or as JSON for programs.
//!
//! Text from outside (names, reasons, addresses) reaches a terminal only with its control characters
//! shown, so that it cannot steer the terminal. Values of secrets pass through [`Output::value`] and
//! [`Output::secret_document`] alone: they go straight to the descriptor, past every buffer of the
//! standard library. Imports `secret` and the arguments' enums.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{Colour, Format, Global};
use super::page::Page;
use crate::secret::Secret;

/// A result that is shown in either form. The serialised form is a promise: fields are added, never
/// renamed; durations are whole seconds, times RFC 3339 in UTC, lists arrays.
pub(crate) trait Document: Serialize {
    /// Writes the result for people.
    fn human(&self, page: &mut Page);
}

/// Standard output.
pub(crate) struct Output {
    /// The descriptor itself, unbuffered: each document is one write.
    out: File,
    format: Format,
    colour: bool,
    terminal: bool,
}

impl Output {
    /// Takes standard output as `global` says.
    pub(crate) fn open(global: &Global) -> io::Result<Self> {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let out = File::from(stdout.as_fd().try_clone_to_owned()?);
        Ok(Self { out, format: global.format, colour: coloured(global.color, terminal), terminal })
    }

    /// True where a person reads along.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// True if JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes one result, or one of a stream.
    pub(crate) fn show(&mut self, document: &impl Document) -> io::Result<()> {
        if self.is_json() {
            let mut line = serde_json::to_vec(document)?;
            line.push(b'\n');
            return self.out.write_all(&line);
        }
        self.page(|page| document.human(page))
    }

    /// Writes text for people.
    pub(crate) fn page(&mut self, write: impl FnOnce(&mut Page)) -> io::Result<()> {
        let mut page = Page::new(self.colour);
        write(&mut page);
        self.out.write_all(page.as_str().as_bytes())
    }

    /// Writes text as it is: a shell line, an example file, records that are JSON already.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Writes a secret, from where it lies to the descriptor.
    pub(crate) fn value(&mut self, value: &Secret, newline: bool) -> io::Result<()> {
        self.out.write_all(value.expose().as_bytes())?;
        if newline { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Writes pieces of which some are secret, one after the other and without a copy of them.
    pub(crate) fn pieces(&mut self, pieces: &[&str]) -> io::Result<()> {
        pieces.iter().try_for_each(|piece| self.out.write_all(piece.as_bytes()))
    }

    /// Writes a JSON document that holds a secret, piece by piece and without a copy of it.
    pub(crate) fn secret_document(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&self.out, document)?;
        self.out.write_all(b"\n")
    }
}

/// Whether a stream gets colours.
pub(crate) fn coloured(when: Colour, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match when {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => terminal && !set("NO_COLOR") && !dumb,
    }
}

/// Serialises a duration as whole seconds.
pub(crate) fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// A time as RFC 3339 in UTC, in whole seconds: nobody acts on less.
pub(crate) fn moment(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// A duration for people: its two largest units, such as `4m 59s`, or `12h` where the second is nothing.
/// Seconds are rounded up, so that what was asked for is also what is shown.
pub(crate) fn span(duration: Duration) -> String {
    let left = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let units = [(left / 86_400, 'd'), (left / 3600 % 24, 'h'), (left / 60 % 60, 'm'), (left % 60, 's')];
    match units.iter().position(|(count, _)| *count > 0) {
        None => "0s".into(),
        Some(first) => {
            let shown = units[first..].iter().take(2).filter(|(count, _)| *count > 0);
            shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
        }
    }
}

/// A number of things, such as `1 record` or `2 records`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_by_its_two_largest_units() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(299), "4m 59s");
        assert_eq!(shown(3600), "1h");
        assert_eq!(shown(3601), "1h");
        assert_eq!(shown(90_061), "1d 1h");
        assert_eq!(span(Duration::from_millis(299_001)), "5m");
        assert_eq!(span(Duration::from_nanos(1)), "1s");
    }

    #[test]
    fn a_time_is_shown_in_whole_seconds() {
        let time = "2026-11-23T06:27:15.0708532Z".parse().unwrap();
        assert_eq!(moment(time), "2026-11-23T06:27:15Z");
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!((count(0, "lease"), count(1, "lease")), ("0 leases".into(), "1 lease".into()));
    }

    #[test]
    fn colour_can_be_forced_and_forbidden() {
        assert!(coloured(Colour::Always, false));
        assert!(!coloured(Colour::Never, true));
        assert!(!coloured(Colour::Auto, false));
    }
}
