//! Canonical text: what a person would see of a message.
//!
//! A mail or SMS goes in as it was received; out comes a [`Seen`]: characters without the invisible ones, in
//! lines as they would be shown, links beside them. Each character is kept twice: as it was written, and
//! folded (digits of any script to ASCII, letters without accents, one kind of space and dash) for matching.
//!
//! Invariants: time is linear in the input, and what is kept is bounded by [`MAX_SEEN`] characters and
//! [`MAX_LINKS`] links, whatever the message holds. Nothing that is hidden from a reader (`display:none`, white
//! on white, zero size, comments, …) is in it. Imports `types`.

mod entity;
mod fold;
mod html;
mod markup;
mod sheet;
mod style;

use std::ops::Range;

use crate::types::Channel;

pub(crate) use fold::{Folded, fold, lower};

/// Longest part of a message that is read at all, in bytes. A longer one has no code.
pub const MAX_INPUT: usize = 10 << 20;
/// What is looked at of one part: its first visible characters.
pub const MAX_SEEN: usize = 256 << 10;
/// What is looked at of a subject, in characters.
pub const MAX_SUBJECT: usize = 1024;
/// Links that are kept of one part.
pub const MAX_LINKS: usize = 1024;
/// Longest address of a link, in bytes.
pub const MAX_HREF: usize = 4096;

/// A message as it was received. A part that is absent is empty.
pub struct Message<'a> {
    /// How it came. Of an SMS, `text` is the body; `subject` and `html` are empty.
    pub channel: Channel,
    /// The subject of a mail, decoded.
    pub subject: &'a str,
    /// The `text/plain` part, or the body of an SMS.
    pub text: &'a str,
    /// The `text/html` part.
    pub html: &'a str,
}

impl Message<'_> {
    /// False if a part is longer than [`MAX_INPUT`].
    pub(crate) fn is_acceptable(&self) -> bool {
        [self.subject, self.text, self.html].iter().all(|part| part.len() <= MAX_INPUT)
    }
}

/// A link of the HTML part: what it covers of the text, and where it leads.
pub struct Link {
    /// The visible text, counted in folded characters.
    pub range: Range<usize>,
    /// The address as it was written, entities resolved.
    pub href: String,
}

/// What a person sees of one part.
#[derive(Default)]
pub struct Seen {
    shown: Vec<char>,
    folded: Vec<char>,
    /// For each folded character, where it is in `shown`.
    origin: Vec<u32>,
    links: Vec<Link>,
    /// Where the subject ends in `folded`.
    subject_end: usize,
    wrapped: bool,
    cut: bool,
}

impl Seen {
    /// Reads plain text under its subject, if it has one: the plain part of a mail, the body of an SMS.
    pub fn plain(subject: &str, text: &str) -> Self {
        let mut seen = Self { wrapped: true, ..Self::default() };
        seen.subject(subject);
        seen.lines(text);
        seen
    }

    /// Reads HTML under the subject of the mail.
    pub fn html(subject: &str, document: &str) -> Self {
        let mut seen = Self::default();
        seen.subject(subject);
        html::read(seen, document)
    }

    fn subject(&mut self, subject: &str) {
        for c in subject.chars().take(MAX_SUBJECT) {
            self.push(if c == '\n' || c == '\r' { ' ' } else { c });
        }
        if !self.shown.is_empty() {
            self.push('\n');
            self.push('\n');
        }
        self.subject_end = self.folded.len();
    }

    fn lines(&mut self, text: &str) {
        let mut before = ' ';
        for c in text.chars() {
            match c {
                '\n' if before == '\r' => {}
                '\r' => self.push('\n'),
                _ => self.push(c),
            }
            if self.is_full() {
                return;
            }
            before = c;
        }
    }

    /// The folded characters, which all positions count.
    pub fn folded(&self) -> &[char] {
        &self.folded
    }

    /// How many of them are the subject.
    pub(crate) fn subject_end(&self) -> usize {
        self.subject_end
    }

    /// The links of the HTML part, in the order of their beginnings.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// True if lines may have been broken by a mail program and not by the writer.
    pub fn is_wrapped(&self) -> bool {
        self.wrapped
    }

    /// True if more was visible than is kept.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// A range of folded characters as it was written.
    pub fn written(&self, range: Range<usize>) -> String {
        let from = self.origin_of(range.start);
        let to = match range.end.checked_sub(1) {
            Some(last) if range.end > range.start => self.origin_of(last) + 1,
            _ => from,
        };
        self.shown[from..to.max(from)].iter().collect()
    }

    /// All of it as it was written.
    pub fn text(&self) -> String {
        self.shown.iter().collect()
    }

    fn origin_of(&self, at: usize) -> usize {
        self.origin.get(at).map_or(self.shown.len(), |origin| *origin as usize)
    }

    fn is_full(&self) -> bool {
        self.cut
    }

    /// Adds a character, folded as well. An invisible one is left out.
    fn push(&mut self, c: char) {
        let folded = fold(c);
        if matches!(folded, Folded::Hidden) {
            return;
        }
        if self.shown.len() >= MAX_SEEN {
            self.cut = true;
            return;
        }
        if let Folded::As(c) = folded {
            self.folded.push(c);
            self.origin.push(self.shown.len() as u32);
        }
        self.shown.push(match folded {
            Folded::As(' ') => ' ',
            Folded::As('\n') => '\n',
            _ => c,
        });
    }

    fn last(&self) -> Option<char> {
        self.shown.last().copied()
    }
}

#[cfg(test)]
mod tests;
