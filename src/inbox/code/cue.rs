//! Finds the cue words of every language in one pass over the folded text.
//!
//! At each place the longest phrase counts, and what it covers begins no other. A phrase of a script with spaces
//! stands between word borders; one of a script without may stand anywhere. Imports `inbox::text`.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::words;
use crate::inbox::text::{Folded, fold, lower};

/// What a phrase says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cue {
    /// Names a code that is used once.
    Code,
    /// Names a code of some kind.
    Weak,
    /// Names what approves something: to be entered, or of a payment that was made.
    Approval,
    /// Somebody signs in, signs up, confirms.
    Auth,
    /// Tells the reader to enter something.
    Enter,
    /// Something ends soon.
    Life,
    /// Keep it to yourself; it was not you.
    Guard,
    /// Said behind a code that is of no use any more.
    Over,
    /// Names another number.
    Label,
    /// Names another number, or an account that a code is for.
    Soft,
    /// Advertises.
    Promo,
    /// Speaks of orders, deliveries and stays.
    Trade,
    /// Invites to a call.
    Meeting,
}

/// A phrase that was found, in folded characters.
#[derive(Clone, Copy)]
pub(crate) struct Hit<T> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) what: T,
}

struct Phrase<T> {
    letters: Vec<char>,
    open_start: bool,
    open_end: bool,
    what: T,
}

/// Phrases by their first two letters, the longest first.
pub(crate) struct Phrases<T> {
    by_start: HashMap<(char, char), Vec<Phrase<T>>>,
}

impl<T: Copy> Phrases<T> {
    pub(crate) fn new<L: Iterator<Item = &'static str>>(tables: impl IntoIterator<Item = (T, L)>) -> Self {
        let mut by_start: HashMap<(char, char), Vec<Phrase<T>>> = HashMap::new();
        for (what, phrases) in tables {
            for phrase in phrases {
                let phrase = Phrase::new(phrase, what);
                let first = phrase.letters.first().copied().unwrap_or(' ');
                let second = phrase.letters.get(1).copied().unwrap_or(' ');
                by_start.entry((first, second)).or_default().push(phrase);
            }
        }
        for phrases in by_start.values_mut() {
            phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.letters.len()));
        }
        Self { by_start }
    }

    /// Every phrase in small, folded letters.
    pub(crate) fn find(&self, text: &[char]) -> Vec<Hit<T>> {
        let mut hits = Vec::new();
        let mut at = 0;
        while at < text.len() {
            match self.at(text, at) {
                Some(hit) => {
                    at = hit.end.max(at + 1);
                    hits.push(hit);
                }
                None => at += 1,
            }
        }
        hits
    }

    fn at(&self, text: &[char], at: usize) -> Option<Hit<T>> {
        let first = text[at];
        let second = text.get(at + 1).copied().unwrap_or(' ');
        // A phrase of one letter is followed by anything.
        [second, ' '].into_iter().find_map(|second| {
            let phrases = self.by_start.get(&(first, second))?;
            phrases.iter().find_map(|phrase| {
                let end = phrase.end(text, at)?;
                Some(Hit { start: at, end, what: phrase.what })
            })
        })
    }
}

impl<T> Phrase<T> {
    fn new(written: &str, what: T) -> Self {
        let open_start = written.starts_with('*');
        let open_end = written.ends_with('*');
        let letters = written.trim_matches('*').chars().filter_map(|c| match fold(c) {
            Folded::As(c) => Some(if c == '-' { ' ' } else { lower(c) }),
            _ => None,
        });
        Self { letters: letters.collect(), open_start, open_end, what }
    }

    /// Where the phrase ends, if it stands at `at`.
    fn end(&self, text: &[char], at: usize) -> Option<usize> {
        if !self.open_start && at > 0 && spaced(text[at]) && joins(text[at - 1]) {
            return None;
        }
        let mut end = at;
        for letter in &self.letters {
            let c = *text.get(end)?;
            if *letter == ' ' {
                if !is_gap(c) {
                    return None;
                }
                end += 1;
                // At most one more: the blank after a line break.
                end += usize::from(text.get(end).copied().is_some_and(is_gap));
            } else if c == *letter {
                end += 1;
            } else {
                return None;
            }
        }
        let goes_on = text.get(end).copied().is_some_and(joins) && spaced(text[end - 1]);
        (self.open_end || !goes_on).then_some(end)
    }
}

/// The table of all languages, built once.
pub(crate) fn cues() -> &'static Phrases<Cue> {
    static TABLE: OnceLock<Phrases<Cue>> = OnceLock::new();
    const LISTS: [(Cue, &str); 13] = [
        (Cue::Code, "code"),
        (Cue::Weak, "weak"),
        (Cue::Approval, "approval"),
        (Cue::Auth, "auth"),
        (Cue::Enter, "enter"),
        (Cue::Life, "life"),
        (Cue::Guard, "guard"),
        (Cue::Over, "over"),
        (Cue::Label, "label"),
        (Cue::Soft, "soft"),
        (Cue::Promo, "promo"),
        (Cue::Trade, "trade"),
        (Cue::Meeting, "meeting"),
    ];
    TABLE.get_or_init(|| Phrases::new(LISTS.map(|(cue, name)| (cue, words::cues(name)))))
}

fn is_gap(c: char) -> bool {
    matches!(c, ' ' | '\n' | '-')
}

/// A letter of a script that puts spaces between words, and adds nothing before them.
fn spaced(c: char) -> bool {
    c.is_alphabetic() && (c as u32) < 0x530
}

/// A letter that makes a word longer.
fn joins(c: char) -> bool {
    spaced(c)
}
