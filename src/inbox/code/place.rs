//! Where a candidate stands: its sentence, its line, and what lies between it and a word. Imports `inbox::text`.

use std::ops::Range;

use super::cue::{Cue, Hit};
use super::scene::Scene;
use super::shape::Candidate;
use super::words::{BETWEEN, PARTICLES, VERBS};

/// Longest way from a candidate to a word that announces it, in one sentence.
pub(super) const REACH: usize = 200;
/// Longest gap between a name and what it names.
const GAP: usize = 48;

/// A candidate in its surroundings.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) candidate: &'a Candidate,
}

impl Place<'_> {
    pub(super) fn sentence(&self) -> Range<usize> {
        let range = &self.candidate.range;
        let sentence = self.scene.sentence(range.start, REACH);
        sentence.start..sentence.end.max(range.end)
    }

    pub(super) fn line(&self) -> Range<usize> {
        let range = &self.candidate.range;
        let line = self.scene.line(range.start, REACH);
        line.start..line.end.max(range.end)
    }

    /// The last cue of these before the candidate, and the first behind it.
    pub(super) fn nearest(&self, kinds: &[Cue]) -> (Option<Hit<Cue>>, Option<Hit<Cue>>) {
        let range = &self.candidate.range;
        let before = self.scene.within(&(range.start.saturating_sub(REACH)..range.start));
        let after = self.scene.within(&(range.end..range.end + REACH));
        let kind = |hit: &&Hit<Cue>| kinds.contains(&hit.what);
        (before.iter().rev().find(kind).copied(), after.iter().find(kind).copied())
    }

    /// True if nothing else is on the line but punctuation.
    pub(super) fn is_alone(&self) -> bool {
        self.is_bare(self.line())
    }

    /// True if nothing else is in the sentence but punctuation.
    pub(super) fn is_sentence(&self) -> bool {
        self.is_bare(self.sentence())
    }

    fn is_bare(&self, around: Range<usize>) -> bool {
        let (range, text) = (&self.candidate.range, self.scene.seen.folded());
        let bare = |part: &[char]| !part.iter().any(|c| c.is_alphanumeric());
        bare(&text[around.start..range.start]) && bare(&text[range.end..around.end])
    }

    pub(super) fn is_quoted(&self) -> bool {
        self.scene.seen.folded()[self.line()].starts_with(&['>'])
    }

    /// True at the beginning of a sentence, or behind a colon.
    pub(super) fn is_put_forward(&self) -> bool {
        let before = &self.scene.lower[self.sentence().start..self.candidate.range.start];
        let last = before.iter().rev().find(|c| !c.is_whitespace());
        matches!(last, Some(':' | '：' | '→' | '>')) || !before.iter().any(|c| c.is_alphanumeric())
    }

    /// True at the end of a sentence, or before a dash.
    pub(super) fn is_closed(&self) -> bool {
        let text = &self.scene.lower[self.candidate.range.end..self.sentence().end];
        text.iter().find(|c| **c != ' ').is_none_or(|c| !c.is_alphanumeric() && *c != ',')
    }

    /// True if only punctuation and words that link lie in the gap, and `more` other words.
    pub(super) fn links(&self, gap: Range<usize>, more: usize) -> bool {
        if gap.end.saturating_sub(gap.start) > GAP {
            return false;
        }
        let lines = self.scene.lower[gap.clone()].iter().filter(|c| **c == '\n').count();
        let mut others = 0;
        for word in words(&self.scene.lower[gap]) {
            if word.chars().any(|c| c.is_ascii_digit()) {
                return false;
            }
            others += usize::from(!BETWEEN.has(&word) && !PARTICLES.has(&word));
        }
        let more = if lines > 0 { 0 } else { more };
        others <= more && lines <= 4
    }

    /// True if the gap before the candidate ends with what points at it.
    pub(super) fn points(&self, gap: &Range<usize>) -> bool {
        let text = &self.scene.lower[gap.clone()];
        let end = text
            .iter()
            .rposition(|c| !matches!(c, ' ' | '\n' | '"' | '\'' | '*' | '[' | '(' | '「' | '【' | '_'));
        match end.map(|end| text[end]) {
            Some(':' | '=' | '>' | '→' | '：') => true,
            Some(_) => words(text).last().is_some_and(|word| VERBS.has(word)),
            None => true,
        }
    }

    /// True if the gap behind the candidate begins with `is`, a dash or a colon.
    pub(super) fn is_verb(&self, gap: Range<usize>) -> bool {
        if gap.end <= gap.start || gap.end - gap.start > REACH {
            return false;
        }
        let text = &self.scene.lower[gap];
        let first = text.iter().find(|c| !matches!(c, ' ' | '"' | '\'' | '*' | ')' | ']' | '」' | '】'));
        matches!(first, Some('-' | ':' | '=' | '\n' | '(' | '|' | ',' | '/'))
            || first.is_none()
            // Endings and particles of languages without blanks are part of the sentence.
            || words(text).first().is_some_and(|word| VERBS.has(word) || PARTICLES.has(word))
    }
}

/// The words of a text, without punctuation.
fn words(text: &[char]) -> Vec<String> {
    text.split(|c| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.iter().collect())
        .collect()
}
