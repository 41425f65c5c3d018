//! One part of a message, read: its addresses, cue words, candidates, lines and sentences. Imports `inbox::text`.

use std::ops::Range;

use super::cue::{Cue, Hit, cues};
use super::shape::{Candidate, candidates};
use super::url::{Span, spans};
use super::words::BETWEEN;
use crate::inbox::text::{Seen, lower};

/// Shortest line that a mail program may have broken.
const WRAPPED: usize = 40;

/// What the judges look at.
pub(crate) struct Scene<'a> {
    pub(crate) seen: &'a Seen,
    /// The folded text in small letters.
    pub(crate) lower: Vec<char>,
    pub(crate) spans: Vec<Span>,
    pub(crate) hits: Vec<Hit<Cue>>,
    pub(crate) candidates: Vec<Candidate>,
    /// Where each sentence begins.
    sentences: Vec<usize>,
    /// Where each line begins that is not empty.
    lines: Vec<usize>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(seen: &'a Seen) -> Self {
        let text = seen.folded();
        let lower: Vec<char> = text.iter().map(|c| lower(*c)).collect();
        let spans = spans(text);
        let covered: Vec<Range<usize>> = spans.iter().map(|span| span.range.clone()).collect();
        let mut hits = cues().find(&lower);
        let mut next = covered.iter().peekable();
        hits.retain(|hit| {
            while next.next_if(|span| span.end <= hit.start).is_some() {}
            next.peek().is_none_or(|span| span.start >= hit.end)
        });
        let candidates = candidates(text, &covered);
        let (lines, sentences) = borders(text, seen.is_wrapped());
        Self { seen, lower, spans, hits, candidates, sentences, lines }
    }

    /// True if a cue stands anywhere.
    pub(crate) fn has(&self, cue: Cue) -> bool {
        self.hits.iter().any(|hit| hit.what == cue)
    }

    /// The sentence around a place, at most `reach` characters to either side.
    pub(crate) fn sentence(&self, at: usize, reach: usize) -> Range<usize> {
        around(&self.sentences, at, self.lower.len(), reach)
    }

    /// The line around a place.
    pub(crate) fn line(&self, at: usize, reach: usize) -> Range<usize> {
        around(&self.lines, at, self.lower.len(), reach)
    }

    /// The `back`th line before the one around `at`, empty ones not counted.
    pub(crate) fn line_before(&self, at: usize, back: usize) -> Option<Range<usize>> {
        let index = self.lines.partition_point(|start| *start <= at).checked_sub(1 + back)?;
        Some(self.lines[index]..*self.lines.get(index + 1)?)
    }

    /// The `on`th line behind the one around `at`.
    pub(crate) fn line_after(&self, at: usize, on: usize) -> Option<Range<usize>> {
        let index = self.lines.partition_point(|start| *start <= at).checked_sub(1)? + on;
        let start = *self.lines.get(index)?;
        Some(start..self.lines.get(index + 1).copied().unwrap_or(self.lower.len()))
    }

    /// The word before a cue, with one blank between, and where it begins.
    pub(crate) fn word_before(&self, hit: &Hit<Cue>) -> Option<(usize, String)> {
        let (last, before) = self.lower[..hit.start].split_last()?;
        let length = before.iter().rev().take(24).take_while(|c| c.is_alphabetic()).count();
        let start = before.len() - length;
        (*last == ' ' && length > 0).then(|| (start, before[start..].iter().collect()))
    }

    /// The word behind a cue, with one blank between.
    pub(crate) fn word_after(&self, hit: &Hit<Cue>) -> Option<String> {
        let (first, after) = self.lower[hit.end..].split_first()?;
        let word: String = after.iter().take(24).take_while(|c| c.is_alphabetic()).collect();
        (*first == ' ' && !word.is_empty()).then_some(word)
    }

    /// True for `your code`, `the code`.
    pub(crate) fn is_owned(&self, hit: &Hit<Cue>) -> bool {
        self.word_before(hit).is_some_and(|(_, word)| BETWEEN.has(&word))
    }

    /// The cues that lie in a range.
    pub(crate) fn within(&self, range: &Range<usize>) -> &[Hit<Cue>] {
        let from = self.hits.partition_point(|hit| hit.start < range.start);
        let to = self.hits.partition_point(|hit| hit.end <= range.end);
        &self.hits[from..to.max(from)]
    }

    /// True if such a cue lies in a range.
    pub(crate) fn tells(&self, range: &Range<usize>, cue: Cue) -> bool {
        self.within(range).iter().any(|hit| hit.what == cue)
    }
}

fn around(starts: &[usize], at: usize, end: usize, reach: usize) -> Range<usize> {
    let next = starts.partition_point(|start| *start <= at);
    let from = next.checked_sub(1).map_or(0, |index| starts[index]);
    let to = starts.get(next).copied().unwrap_or(end);
    from.max(at.saturating_sub(reach))..to.min(at + reach)
}

/// Where lines and sentences begin. A line of plain text that was broken where it got too long does not end a
/// sentence.
fn borders(text: &[char], wrapped: bool) -> (Vec<usize>, Vec<usize>) {
    let (mut lines, mut sentences) = (Vec::new(), vec![0]);
    let mut start = 0;
    for line in text.split_inclusive(|c| *c == '\n') {
        let empty = line.iter().all(|c| c.is_whitespace());
        if !empty {
            lines.push(start);
        }
        for (at, c) in line.iter().enumerate() {
            if ends_sentence(line, at, *c) {
                sentences.push(start + at + 1);
            }
        }
        let next = start + line.len();
        // A line that is one word is an address, not a line that got too long; nor is one that ends with an address.
        let words = line.contains(&' ') && !ends_with_address(line);
        let broken =
            wrapped && words && line.len() >= WRAPPED && !text.get(next).is_none_or(|c| c.is_whitespace());
        if !broken && sentences.last() != Some(&next) {
            sentences.push(next);
        }
        start = next;
    }
    (lines, sentences)
}

fn ends_with_address(line: &[char]) -> bool {
    let end = line.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
    let word = line[..end].rsplit(|c| *c == ' ').next().unwrap_or_default();
    word.windows(3).take(8).any(|w| w == [':', '/', '/'])
}

fn ends_sentence(line: &[char], at: usize, c: char) -> bool {
    let next = line.get(at + 1).copied().unwrap_or('\n');
    match c {
        '。' | '！' | '？' | '।' | '؟' | '｡' => true,
        '!' | '?' => next.is_whitespace() || !next.is_ascii(),
        '.' => {
            let word = line[..at].iter().rev().take(5).take_while(|c| c.is_alphabetic()).count();
            let behind = line[at + 1..].iter().take(3).find(|c| !c.is_whitespace());
            let abbreviation =
                word <= 4 && word > 0 && behind.is_some_and(|c| c.is_ascii_digit() || *c == '#');
            let digits_glued = at > 0 && line[at - 1].is_ascii_digit() && next.is_alphabetic();
            // `codul dvs. de verificare`.
            let shortened = word <= 4 && word > 0 && next == ' ' && behind.is_some_and(|c| c.is_lowercase());
            (next.is_whitespace() || digits_glued) && !abbreviation && !shortened
        }
        _ => false,
    }
}
