//! Which candidate is the code: the one that the words around it announce.
//!
//! Each candidate is placed on a ladder by how it is announced ([`Level`]). The highest step decides; two
//! different values on it are none. A guess is worse than no answer. Imports `inbox::text`.

use std::ops::Range;

use super::context::Context;
use super::cue::{Cue, Hit};
use super::place::{Place, REACH};
use super::scene::Scene;
use super::shape::{Candidate, Shape};
use super::words::{BETWEEN, OF, VERBS, WITH, YOUR};

/// How a candidate is announced, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// No word names a code, but it stands where one would, in a message about signing in.
    Inferred,
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

/// How many lines above and below a candidate may announce it.
const LINES_ABOVE: usize = 4;
const LINES_BELOW: usize = 2;
/// Longest message that is nothing but its code, in characters.
const TERSE: usize = 80;
/// Longest name of a sender before what it has to say.
const SENDER: usize = 32;
/// Candidates that are judged at all. A message with more is a list.
const MOST: usize = 4096;

/// Judges the candidates of a part.
pub(crate) fn judge(scene: &Scene<'_>) -> Verdict {
    if scene.candidates.len() > MOST {
        return Verdict::Nothing;
    }
    let context = Context::of(scene);
    let out: Vec<bool> = scene
        .candidates
        .iter()
        .map(|candidate| {
            let place = Place { scene, candidate };
            context.meeting
                || place.is_quoted()
                || place.is_over()
                || place.is_labelled()
                || place.is_signature()
        })
        .collect();
    let number = is_sole(scene, &out, Shape::is_plain);
    let any = is_sole(scene, &out, |shape| shape.is_plain() || shape == Shape::Mixed);
    let mut best: Option<(Level, usize)> = None;
    let mut rivals = false;
    for (index, candidate) in scene.candidates.iter().enumerate() {
        let place = Place { scene, candidate };
        let sole = if candidate.shape.is_plain() { number } else { any };
        let look = Look { place, context: &context, index, out: &out, sole };
        let Some(level) = look.level() else { continue };
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

/// True if a single value of this kind is left that nothing else is said to be.
fn is_sole(scene: &Scene<'_>, out: &[bool], kind: fn(Shape) -> bool) -> bool {
    let mut left = scene.candidates.iter().zip(out).filter(|(c, out)| !**out && kind(c.shape));
    left.next().is_some_and(|(first, _)| left.all(|(other, _)| other.typed == first.typed))
}

struct Look<'a> {
    place: Place<'a>,
    context: &'a Context,
    index: usize,
    /// Which candidates are something else.
    out: &'a [bool],
    /// No other number is left; of a candidate with letters, no other candidate with digits.
    sole: bool,
}

impl Look<'_> {
    fn level(&self) -> Option<Level> {
        let Candidate { shape, bound, .. } = self.place.candidate;
        if *bound {
            return Some(Level::Bound);
        }
        if self.out[self.index] {
            return None;
        }
        let level =
            [self.beside(), self.in_sentence(), self.near(), self.inferred()].into_iter().flatten().max()?;
        let announced = match shape {
            Shape::Digits | Shape::Grouped | Shape::Mixed => true,
            Shape::Year => level == Level::Beside || level == Level::Near,
            Shape::Letters => {
                !self.is_word() && (level == Level::Beside || level == Level::Near && self.is_led_to())
            }
            Shape::Words => level == Level::Near || level == Level::Beside,
        };
        announced.then_some(level)
    }

    fn shape(&self) -> Shape {
        self.place.candidate.shape
    }

    /// True for a word in capitals: on a button, or one that says something.
    fn is_word(&self) -> bool {
        let (scene, range) = (self.place.scene, &self.place.candidate.range);
        let (links, hits) = (scene.seen.links(), &scene.hits);
        let link = links.partition_point(|link| link.range.end <= range.start);
        let hit = hits.partition_point(|hit| hit.end <= range.start);
        links.get(link).is_some_and(|link| link.range.start < range.end)
            || hits.get(hit).is_some_and(|hit| hit.start < range.end)
    }

    /// True if this name may announce this candidate.
    fn names(&self, hit: &Hit<Cue>) -> bool {
        let (scene, shape) = (self.place.scene, self.shape());
        let promo = scene.tells(&self.place.sentence(), Cue::Promo) || self.line_sells();
        match hit.what {
            Cue::Code => !promo || shape.is_plain(),
            Cue::Approval => {
                let entered = scene.tells(&self.place.sentence(), Cue::Enter);
                !promo && (entered || self.context.life || !self.context.paid || scene.is_owned(hit))
            }
            Cue::Weak => {
                // `Your code is 2046`.
                // `PIN 0000 by default`.
                let typed = &self.place.candidate.typed;
                let default = typed.len() == 4 && typed.chars().all(|c| typed.starts_with(c));
                let year = shape == Shape::Year && scene.is_owned(hit);
                !promo
                    && !default
                    && (self.context.trusts_weak(if year { Shape::Digits } else { shape })
                        || self.is_to_sign_in(hit))
                    && (shape != Shape::Letters || self.context.auth)
                    && (self.context.auth
                        || self.context.guard
                        || self.is_yours(hit) && !self.is_of_something(hit))
            }
            _ => false,
        }
    }

    /// `Cost code`, `dress code`: in a mail, a word before the name that says which other code it is.
    fn is_of_something(&self, hit: &Hit<Cue>) -> bool {
        let scene = self.place.scene;
        let ascii = scene.lower[hit.start..hit.end].iter().all(char::is_ascii);
        let word = scene.word_before(hit).filter(|_| ascii && scene.seen.subject_end() > 0);
        word.is_some_and(|(start, word)| {
            let sentence = scene.sentence(start, REACH);
            let begins = !scene.lower[sentence.start..start].iter().any(|c| c.is_alphanumeric());
            let capital = scene.seen.folded()[start].is_uppercase();
            !BETWEEN.has(&word) && (begins || !capital)
        }) || scene.word_after(hit).is_some_and(|word| OF.has(&word))
    }

    /// In a message that does not say what for: the reader's own code, or little more than the code.
    fn is_yours(&self, hit: &Hit<Cue>) -> bool {
        let (scene, sentence) = (self.place.scene, self.place.sentence());
        let before = sentence.start..hit.start.max(sentence.start);
        let words = scene.lower[before.clone()].split(|c| !c.is_alphabetic());
        let told = words.map(|word| word.iter().collect::<String>()).any(|word| YOUR.has(&word))
            || scene.tells(&before, Cue::Enter);
        // `Sparbank: TAN 482913 …`
        let sender = &scene.lower[..hit.start];
        let first = sender.len() <= SENDER && sender.ends_with(&[':', ' ']);
        told || first || scene.lower.len() <= TERSE || !scene.lower[hit.start].is_ascii()
    }

    /// `Your code to sign in`: the name says itself what the code is for, whatever else is listed.
    fn is_to_sign_in(&self, hit: &Hit<Cue>) -> bool {
        let scene = self.place.scene;
        let sentence = scene.sentence(hit.start, REACH);
        self.shape().is_plain() && scene.tells(&sentence, Cue::Auth) && !scene.tells(&sentence, Cue::Trade)
    }

    /// The line before this one advertises.
    fn line_sells(&self) -> bool {
        let scene = self.place.scene;
        scene
            .line_before(self.place.candidate.range.start, 1)
            .is_some_and(|line| scene.tells(&line, Cue::Promo))
            && !self.context.guard
    }

    /// `Your code is 482913`, `482913 is your code`, `enter 482913 to sign in`.
    fn beside(&self) -> Option<Level> {
        let (place, range) = (&self.place, &self.place.candidate.range);
        let sentence = place.sentence();
        let (before, after) = place.nearest(&[Cue::Code, Cue::Weak, Cue::Approval, Cue::Label, Cue::Enter]);
        if let Some(hit) = before {
            let gap = hit.end..range.start;
            let near = place.links(gap.clone(), 0) || hit.start >= sentence.start && place.points(&gap);
            if self.names(&hit) && near && self.is_free(&gap) {
                return Some(Level::Beside);
            }
            let told = place.scene.tells(&sentence, Cue::Auth)
                && (self.context.is_about(self.shape()) || self.is_grouped());
            let sold = place.scene.tells(&sentence, Cue::Promo) && !self.context.guard;
            if hit.what == Cue::Enter && place.links(gap, 0) && told && !sold {
                return Some(Level::Beside);
            }
        }
        if matches!(self.shape(), Shape::Letters | Shape::Words) {
            return None;
        }
        let hit = after.filter(|hit| hit.end <= sentence.end && self.names(hit))?;
        let gap = range.end..hit.start;
        (place.is_verb(gap.clone()) && self.is_free(&gap)).then_some(Level::Beside)
    }

    fn in_sentence(&self) -> Option<Level> {
        if !self.shape().is_plain() && self.shape() != Shape::Mixed {
            return None;
        }
        let range = &self.place.candidate.range;
        let announces = |hit: &&Hit<Cue>| {
            let gap = if hit.end <= range.start {
                hit.end..range.start
            } else {
                range.end..hit.start.max(range.end)
            };
            self.names(hit) && self.is_free(&gap)
        };
        let hits = self.place.scene.within(&self.place.sentence());
        hits.iter().any(|hit| announces(&hit)).then_some(Level::Sentence)
    }

    /// Alone on its line, and a line near it names a code.
    fn near(&self) -> Option<Level> {
        let (scene, at) = (self.place.scene, self.place.candidate.range.start);
        if !self.place.is_alone() {
            return None;
        }
        // Words alone are told right above.
        let lines = if self.shape() == Shape::Words { 1 } else { LINES_ABOVE };
        let above = (1..=lines).filter_map(|back| scene.line_before(at, back));
        let below = (1..=LINES_BELOW)
            .filter(|_| self.shape() != Shape::Words)
            .filter_map(|on| scene.line_after(at, on));
        // A label on a line of its own, with its number below.
        let named = |line: Range<usize>| scene.within(&line).iter().any(|hit| self.names(hit));
        above.chain(below).any(named).then_some(Level::Near)
    }

    /// Nothing names a code, but it stands where one would.
    fn inferred(&self) -> Option<Level> {
        let (place, context) = (&self.place, self.context);
        let urgent = context.life || context.guard;
        if context.sells {
            return None;
        }
        let stands = match self.shape() {
            Shape::Digits | Shape::Grouped => self.is_told(urgent) || self.sole && self.is_given(urgent),
            Shape::Mixed => self.sole && place.is_alone() && context.auth && self.is_led_to(),
            Shape::Year | Shape::Letters | Shape::Words => false,
        };
        stands.then_some(Level::Inferred)
    }

    /// Put forward or entered, in order to sign in.
    fn is_told(&self, urgent: bool) -> bool {
        let (place, context) = (&self.place, self.context);
        let entered = self.is_entered();
        let here = place.scene.tells(&place.sentence(), Cue::Auth);
        urgent && context.auth && (entered || here && place.is_put_forward())
            || context.auth && place.is_alone() && (urgent || self.is_led_to())
    }

    /// The only number, where a code would stand.
    fn is_given(&self, urgent: bool) -> bool {
        let (place, context) = (&self.place, self.context);
        let (scene, sentence) = (place.scene, place.sentence());
        let sms = scene.seen.subject_end() == 0;
        let here = scene.tells(&sentence, Cue::Auth);
        let put = place.is_put_forward();
        let is = place.is_closed() || sms && place.is_verb(place.candidate.range.end..sentence.end);
        self.is_entered() && (context.auth || context.guard)
            || put && is && (context.auth && urgent || context.guard && (context.life || sms))
            || put && context.auth && (scene.tells(&sentence, Cue::Enter) || sms && here)
            || context.subject && (place.is_alone() || place.is_sentence())
            || self.is_titled()
    }

    /// `Kettle login: 482913`, in a message that says little else.
    fn is_titled(&self) -> bool {
        let (scene, start) = (self.place.scene, self.place.candidate.range.start);
        let (before, _) = self.place.nearest(&[Cue::Auth, Cue::Label, Cue::Soft]);
        scene.seen.subject_end() == 0
            && scene.lower.len() <= TERSE
            && self.place.is_closed()
            && before.is_some_and(|hit| {
                hit.what == Cue::Auth
                    && matches!(scene.lower[hit.end..start], [':' | '：'] | [':' | '：', ' '])
            })
    }

    /// `Enter 482913`, `482913 girin`.
    fn is_entered(&self) -> bool {
        let (place, range) = (&self.place, &self.place.candidate.range);
        let (before, after) = place.nearest(&[Cue::Enter]);
        let told = |hit: &Hit<Cue>| {
            let word: String = place.scene.lower[hit.start..hit.end].iter().collect();
            !WITH.has(&word)
        };
        let sentence = place.sentence();
        before.is_some_and(|hit| {
            hit.start >= sentence.start && place.links(hit.end..range.start, 0) && told(&hit)
        }) || after
            .is_some_and(|hit| hit.end <= sentence.end && place.links(range.end..hit.start, 0) && told(&hit))
    }

    /// True if the line above tells the reader to enter what follows.
    fn is_led_to(&self) -> bool {
        let scene = self.place.scene;
        let Some(above) = scene.line_before(self.place.candidate.range.start, 1) else { return false };
        let text = &scene.lower[above.clone()];
        let colon = matches!(text.iter().rev().find(|c| !c.is_whitespace()), Some(':' | '：'));
        let (enter, auth) = (scene.tells(&above, Cue::Enter), scene.tells(&above, Cue::Auth));
        let named = scene.within(&above).iter().any(|hit| self.names(hit));
        // `… a second proof. It is`
        let mut words = text.split(|c| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let verb =
            self.sole && words.next_back().is_some_and(|word| VERBS.has(&word.iter().collect::<String>()));
        enter && auth || verb || colon && (enter || named || auth && self.shape().is_plain())
    }

    /// `AB2-C3D`.
    fn is_grouped(&self) -> bool {
        self.shape() == Shape::Mixed && self.place.candidate.typed.contains('-')
    }

    /// True if no other candidate and no other label lies in the gap.
    fn is_free(&self, gap: &Range<usize>) -> bool {
        let scene = self.place.scene;
        let other = |index: Option<usize>| {
            let Some((index, other)) = index.and_then(|index| Some((index, scene.candidates.get(index)?)))
            else {
                return false;
            };
            let inside = other.range.start >= gap.start && other.range.end <= gap.end;
            // A name in capitals is no rival of a number.
            let name = matches!(other.shape, Shape::Letters | Shape::Words) && self.shape().is_plain();
            inside && !name && other.typed != self.place.candidate.typed && !self.out[index]
        };
        let labels = scene.within(gap).iter().filter(|hit| hit.what == Cue::Label);
        let pointed = gap.end == self.place.candidate.range.start && self.place.points(gap);
        // A label with its own number behind it takes no other: `card ending 4471 is 482913`.
        let between = labels
            .into_iter()
            .any(|hit| !(pointed && scene.lower[hit.end..gap.end].iter().any(char::is_ascii_digit)));
        !other(self.index.checked_sub(1)) && !other(Some(self.index + 1)) && !between
    }
}
