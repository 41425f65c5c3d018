//! Which candidate is the code: the one that the words around it announce.
//!
//! Each candidate is placed on a ladder by how it is announced ([`Level`]). The highest step decides; two
//! different values on it are none. A guess is worse than no answer. Imports `inbox::text`.

use std::ops::Range;

use super::context::Context;
use super::cue::{Cue, Hit};
use super::scene::Scene;
use super::shape::{Candidate, Shape};
use super::words::{BETWEEN, PARTICLES, VERBS};

/// How a candidate is announced, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Alone on its line, in a message about signing in that soon expires.
    Alone,
    /// Alone on its line, with the name of a code near it.
    Near,
    /// In one sentence with the name of a code.
    Sentence,
    /// Right beside the name of a code.
    Beside,
    /// `@example.com #123456`.
    Bound,
}

/// What a part of a message says.
pub(crate) enum Verdict {
    /// No code.
    Nothing,
    /// One code: the candidate's place in the list.
    One(usize),
    /// Several, none of which stands out.
    Many,
}

/// Longest way from a candidate to a word that announces it, in one sentence.
const REACH: usize = 200;
/// Longest gap between a name and what it names.
const GAP: usize = 48;
/// How many lines above and below a candidate may announce it.
const LINES_ABOVE: usize = 4;
const LINES_BELOW: usize = 2;
/// Candidates that are judged at all. A message with more is a list.
const MOST: usize = 4096;

/// Judges the candidates of a part.
pub(crate) fn judge(scene: &Scene<'_>) -> Verdict {
    let context = Context::of(scene);
    let mut best: Option<(Level, usize)> = None;
    let mut rivals = false;
    if scene.candidates.len() > MOST {
        return Verdict::Nothing;
    }
    for (index, candidate) in scene.candidates.iter().enumerate() {
        let Some(level) = Look { scene, context: &context, index, candidate }.level() else { continue };
        match best {
            Some((before, _)) if level < before => {}
            Some((before, other)) if level == before => {
                rivals |= scene.candidates[other].typed != candidate.typed;
            }
            _ => (best, rivals) = (Some((level, index)), false),
        }
    }
    match best {
        Some(_) if rivals => Verdict::Many,
        Some((_, index)) => Verdict::One(index),
        None => Verdict::Nothing,
    }
}

struct Look<'a> {
    scene: &'a Scene<'a>,
    context: &'a Context,
    index: usize,
    candidate: &'a Candidate,
}

impl Look<'_> {
    fn level(&self) -> Option<Level> {
        let Candidate { range, shape, bound, .. } = self.candidate;
        if *bound {
            return Some(Level::Bound);
        }
        let quoted = self.scene.seen.folded()[self.scene.line(range.start, REACH)].starts_with(&['>']);
        if self.context.meeting || quoted || self.is_labelled() || self.is_signature() {
            return None;
        }
        let level =
            [self.beside(), self.in_sentence(), self.near(), self.alone()].into_iter().flatten().max()?;
        let announced = match shape {
            Shape::Digits | Shape::Grouped => true,
            Shape::Mixed => level >= Level::Near,
            Shape::Year => level == Level::Beside || level == Level::Near,
            Shape::Letters => level == Level::Beside || level == Level::Near,
        };
        announced.then_some(level)
    }

    fn sentence(&self) -> Range<usize> {
        let range = &self.candidate.range;
        let sentence = self.scene.sentence(range.start, REACH);
        sentence.start..sentence.end.max(range.end)
    }

    /// The last cue of these before the candidate, and the first behind it.
    fn nearest(&self, kinds: &[Cue]) -> (Option<Hit<Cue>>, Option<Hit<Cue>>) {
        let range = &self.candidate.range;
        let before = self.scene.within(&(range.start.saturating_sub(REACH)..range.start));
        let after = self.scene.within(&(range.end..range.end + REACH));
        let kind = |hit: &&Hit<Cue>| kinds.contains(&hit.what);
        (before.iter().rev().find(kind).copied(), after.iter().find(kind).copied())
    }

    /// True if something else is said to have this number.
    fn is_labelled(&self) -> bool {
        let range = &self.candidate.range;
        let kinds = [Cue::Code, Cue::Weak, Cue::Label, Cue::Soft, Cue::Promo];
        let (before, after) = self.nearest(&kinds);
        if let Some(hit) = before {
            match hit.what {
                Cue::Label | Cue::Promo if self.links(hit.end..range.start, 1) => return true,
                Cue::Soft if self.links(hit.end..range.start, 0) => {
                    // `Dear customer, 482913 is …`.
                    let apart = self.scene.lower[hit.end..range.start].contains(&',');
                    return !apart && !self.is_code_for(&hit);
                }
                Cue::Code | Cue::Weak if self.links(hit.end..range.start, 1) => return false,
                _ => {}
            }
        }
        if self.candidate.hash {
            // `#482913` is an order or a ticket, but for `code #482913`.
            return true;
        }
        after.is_some_and(|hit| {
            hit.what == Cue::Label
                && self.links(range.end..hit.start, 1)
                && self.is_verb(range.end..hit.start)
        })
    }

    /// True for what only says whose code it is: `code for your account: 482913`, `code number 482913`.
    fn is_code_for(&self, soft: &Hit<Cue>) -> bool {
        let sentence = self.sentence();
        let codes = self.scene.within(&(sentence.start..soft.start));
        let Some(code) = codes.iter().rev().find(|hit| matches!(hit.what, Cue::Code | Cue::Weak)) else {
            return false;
        };
        let gap = &self.scene.lower[soft.end..self.candidate.range.start];
        soft.start - code.end <= 2 || gap.iter().any(|c| matches!(c, ':' | '\n'))
    }

    /// The eleven characters by which Android finds the app: alone on the last line.
    fn is_signature(&self) -> bool {
        let text = self.scene.seen.folded();
        let at = self.candidate.range.start;
        let run = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let before = text[..at].iter().rev().take(12).take_while(run).count();
        let length = before + text[at..].iter().take(12).take_while(run).count();
        let last = text[at..].iter().skip(12).take(64).all(|c| c.is_whitespace());
        let begins_line = at - before == 0 || text[at - before - 1].is_whitespace();
        let mixed =
            text[at - before..].iter().take(length).any(|c| c.is_ascii_lowercase() || matches!(c, '+' | '/'));
        length == 11 && last && begins_line && mixed
    }

    /// True if this name may announce this candidate.
    fn names(&self, hit: &Hit<Cue>) -> bool {
        let shape = self.candidate.shape;
        let sentence = self.sentence();
        let promo = self.scene.tells(&sentence, Cue::Promo) || self.line_sells();
        match hit.what {
            Cue::Code => !promo || matches!(shape, Shape::Digits | Shape::Grouped),
            Cue::Weak => {
                !promo && self.context.trusts_weak(shape) && (shape != Shape::Letters || self.context.auth)
            }
            _ => false,
        }
    }

    /// The line before this one advertises.
    fn line_sells(&self) -> bool {
        self.scene
            .line_before(self.candidate.range.start, 1)
            .is_some_and(|line| self.scene.tells(&line, Cue::Promo))
            && !self.context.guard
    }

    /// `Your code is 482913`, `482913 is your code`, `enter 482913 to sign in`.
    fn beside(&self) -> Option<Level> {
        let range = &self.candidate.range;
        let sentence = self.sentence();
        let (before, after) = self.nearest(&[Cue::Code, Cue::Weak, Cue::Label, Cue::Enter]);
        if let Some(hit) = before {
            let gap = hit.end..range.start;
            let near = self.links(gap.clone(), 0) || hit.start >= sentence.start && self.points(&gap);
            if self.names(&hit) && near && self.is_free(&gap) {
                return Some(Level::Beside);
            }
            let told = self.scene.tells(&sentence, Cue::Auth) && self.context.is_about(self.candidate.shape);
            let sold = self.scene.tells(&sentence, Cue::Promo) && !self.context.guard;
            if hit.what == Cue::Enter && self.links(gap, 0) && told && !sold {
                return Some(Level::Beside);
            }
        }
        if self.candidate.shape == Shape::Letters {
            return None;
        }
        let hit = after.filter(|hit| hit.end <= sentence.end && self.names(hit))?;
        let gap = range.end..hit.start;
        (self.is_verb(gap.clone()) && self.is_free(&gap)).then_some(Level::Beside)
    }

    fn in_sentence(&self) -> Option<Level> {
        if !matches!(self.candidate.shape, Shape::Digits | Shape::Grouped | Shape::Mixed) {
            return None;
        }
        let sentence = self.sentence();
        let range = &self.candidate.range;
        let announces = |hit: &&Hit<Cue>| {
            let gap = if hit.end <= range.start {
                hit.end..range.start
            } else {
                range.end..hit.start.max(range.end)
            };
            self.names(hit) && self.is_free(&gap)
        };
        self.scene.within(&sentence).iter().any(|hit| announces(&hit)).then_some(Level::Sentence)
    }

    /// Alone on its line, and a line near it names a code.
    fn near(&self) -> Option<Level> {
        let range = &self.candidate.range;
        if !self.is_alone() {
            return None;
        }
        let above = (1..=LINES_ABOVE).filter_map(|back| self.scene.line_before(range.start, back));
        let below = (1..=LINES_BELOW).filter_map(|on| self.scene.line_after(range.start, on));
        for line in above.chain(below) {
            // A label on a line of its own, with its number below.
            let hits = self.scene.within(&line);
            if hits.iter().any(|hit| self.names(hit)) {
                return Some(Level::Near);
            }
        }
        None
    }

    /// Nothing names a code, but it stands where one would, in a message about signing in.
    fn alone(&self) -> Option<Level> {
        let context = self.context;
        let urgent = context.life || context.guard;
        if !context.auth || context.sells {
            return None;
        }
        let plain = matches!(self.candidate.shape, Shape::Digits | Shape::Grouped);
        let told = plain && urgent && self.is_put_forward() && self.scene.tells(&self.sentence(), Cue::Auth);
        let alone = self.is_alone() && (urgent || plain && self.is_led_to());
        (told || alone).then_some(Level::Alone)
    }

    /// True at the beginning of a sentence, behind a colon, or behind `enter`.
    fn is_put_forward(&self) -> bool {
        let start = self.candidate.range.start;
        let sentence = self.sentence();
        let before = &self.scene.lower[sentence.start..start];
        let last = before.iter().rev().find(|c| !c.is_whitespace());
        let entered = self.nearest(&[Cue::Enter]).0.is_some_and(|hit| self.links(hit.end..start, 0));
        entered || last == Some(&':') || !before.iter().any(|c| c.is_alphanumeric())
    }

    /// True if the line above tells the reader to enter what follows.
    fn is_led_to(&self) -> bool {
        let Some(above) = self.scene.line_before(self.candidate.range.start, 1) else { return false };
        let colon = self.scene.lower[above.clone()].iter().rev().find(|c| !c.is_whitespace());
        let (enter, auth) = (self.scene.tells(&above, Cue::Enter), self.scene.tells(&above, Cue::Auth));
        enter && auth || matches!(colon, Some(':' | '：')) && (enter || auth)
    }

    /// True if nothing else is on the line but punctuation.
    fn is_alone(&self) -> bool {
        let range = &self.candidate.range;
        let line = self.scene.line(range.start, REACH);
        let text = self.scene.seen.folded();
        let bare = |part: &[char]| !part.iter().any(|c| c.is_alphanumeric());
        bare(&text[line.start..range.start]) && bare(&text[range.end..line.end.max(range.end)])
    }

    /// True if no other candidate and no other label lies in the gap.
    fn is_free(&self, gap: &Range<usize>) -> bool {
        let other = |index: Option<usize>| {
            let Some(index) = index else { return false };
            let Some(other) = self.scene.candidates.get(index) else { return false };
            let inside = other.range.start >= gap.start && other.range.end <= gap.end;
            let rival = Look { scene: self.scene, context: self.context, index, candidate: other };
            inside && other.typed != self.candidate.typed && !rival.is_labelled()
        };
        let between = self.scene.within(gap).iter().any(|hit| hit.what == Cue::Label);
        !other(self.index.checked_sub(1)) && !other(Some(self.index + 1)) && !between
    }

    /// True if only punctuation and words that link lie in the gap, and `more` other words.
    fn links(&self, gap: Range<usize>, more: usize) -> bool {
        if gap.end.saturating_sub(gap.start) > GAP {
            return false;
        }
        let lines = self.scene.lower[gap.clone()].iter().filter(|c| **c == '\n').count();
        let mut others = 0;
        for word in words(&self.scene.lower[gap]) {
            if word.chars().any(|c| c.is_ascii_digit()) {
                return false;
            }
            others += usize::from(!BETWEEN.has(&word) && !is_particle(&word));
        }
        let more = if lines > 0 { 0 } else { more };
        others <= more && lines <= 4
    }

    /// True if the gap before the candidate ends with what points at it.
    fn points(&self, gap: &Range<usize>) -> bool {
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
    fn is_verb(&self, gap: Range<usize>) -> bool {
        if gap.end <= gap.start || gap.end - gap.start > REACH {
            return false;
        }
        let text = &self.scene.lower[gap];
        let first = text.iter().find(|c| !matches!(c, ' ' | '"' | '\'' | '*' | ')' | ']' | '」' | '】'));
        matches!(first, Some('-' | ':' | '=' | '\n' | '(' | '|' | ',' | '/'))
            || first.is_none()
            || words(text).first().is_some_and(|word| VERBS.has(word) || is_particle(word))
    }
}

/// The words of a text, without punctuation.
fn words(text: &[char]) -> Vec<String> {
    text.split(|c| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.iter().collect())
        .collect()
}

/// Endings and particles of languages that write them as part of a sentence without blanks.
fn is_particle(word: &str) -> bool {
    PARTICLES.has(word)
}
