//! The search: every form of every canary in one pass.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::canary::{Canary, Kind};
use crate::form::{Form, forms};

/// A place where a canary was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) kind: Kind,
    /// Which of the canaries, in the order they were given. `None`: what begins like one.
    pub(crate) canary: Option<usize>,
    pub(crate) form: Form,
    pub(crate) offset: usize,
    length: usize,
}

/// Looks for a set of canaries.
pub(crate) struct Scanner {
    automaton: AhoCorasick,
    /// What each pattern stands for.
    patterns: Vec<(Kind, Option<usize>, Form)>,
}

/// Digits after a prefix that make it more than the name of a kind.
const DIGITS: usize = 20;

impl Scanner {
    pub(crate) fn new(canaries: &[Canary]) -> Self {
        let (mut patterns, mut texts) = (Vec::new(), Vec::new());
        for (index, canary) in canaries.iter().enumerate() {
            for (form, text) in forms(canary) {
                patterns.push((canary.kind, Some(index), form));
                texts.push(text);
            }
        }
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.prefix().is_empty()) {
            patterns.push((kind, None, Form::Unknown));
            texts.push(kind.prefix().as_bytes().to_vec());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(texts)
            .expect("a few thousand patterns");
        Self { automaton, patterns }
    }

    /// Every hit, each once: what lies within another of the same canary is part of it.
    pub(crate) fn scan(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for found in self.automaton.find_overlapping_iter(text) {
            let (kind, canary, form) = self.patterns[found.pattern()];
            let length = match form {
                Form::Unknown => token_length(&text[found.start()..], kind),
                _ => found.len(),
            };
            if length > 0 {
                hits.push(Hit { kind, canary, form, offset: found.start(), length });
            }
        }
        // What begins first and is longest comes first; what nobody planted comes last.
        hits.sort_by_key(|hit| (hit.canary.is_none(), hit.offset, usize::MAX - hit.length));
        let mut kept: Vec<Hit> = Vec::new();
        let mut last_of: HashMap<usize, usize> = HashMap::new();
        for hit in hits {
            let last = match hit.canary {
                Some(canary) => last_of.get(&canary).copied(),
                None => kept.iter().position(|known| (known.offset..known.end()).contains(&hit.offset)),
            };
            match last.map(|at| &mut kept[at]) {
                Some(last) if hit.lies_in(last) || hit.canary.is_none() => {}
                // Parts of one value that overlap are one part.
                Some(last)
                    if hit.form == Form::Part && last.form == Form::Part && hit.offset <= last.end() =>
                {
                    last.length = hit.end() - last.offset;
                }
                _ => {
                    hit.canary.map(|canary| last_of.insert(canary, kept.len()));
                    kept.push(hit);
                }
            }
        }
        kept
    }
}

impl Hit {
    /// Where in the text.
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.end()
    }

    fn end(&self) -> usize {
        self.offset + self.length
    }

    fn lies_in(&self, other: &Self) -> bool {
        other.offset <= self.offset && self.end() <= other.end()
    }
}

/// Tokens that nobody planted, as they stand in a text: to be looked for in their other forms.
pub(crate) fn strays(text: &[u8]) -> Vec<(Kind, String)> {
    let hits = Scanner::new(&[]).scan(text).into_iter();
    hits.map(|hit| (hit.kind, String::from_utf8_lossy(&text[hit.offset..hit.end()]).into_owned())).collect()
}

/// The length of a text that begins like a key or token; 0: it does not go on like one.
fn token_length(text: &[u8], kind: Kind) -> usize {
    let digits = &text[kind.prefix().len()..];
    let digit = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-' || **byte == b'_';
    let count = digits.iter().take(256).take_while(digit).count();
    // Words of a program's texts have underscores between them; a random text has capitals and figures.
    let random = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
    let looks_random = random.iter().all(|is| digits[..count].iter().any(is));
    if count >= DIGITS && looks_random { kind.prefix().len() + count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_every_kind_is_found_once() {
        for kind in Kind::ALL {
            let canaries = [Canary::fresh(Kind::Secret), Canary::key(kind)];
            let canaries =
                if kind == Kind::SessionToken { canaries } else { [Canary::fresh(kind), Canary::key(kind)] };
            let scanner = Scanner::new(&canaries);
            for (index, canary) in canaries.iter().enumerate() {
                for (form, text) in forms(canary) {
                    let hidden = [b"before \xff".as_slice(), &text, b"\xfe after"].concat();
                    let hits = scanner.scan(&hidden);
                    let found = hits
                        .iter()
                        .any(|hit| hit.canary == Some(index) && hit.form == form && hit.offset == 8);
                    assert!(found, "{kind} as {form}");
                    assert_eq!(hits.len(), 1, "{kind} as {form} is found more than once");
                }
            }
        }
        assert!(Scanner::new(&[Canary::fresh(Kind::Secret)]).scan(b"nothing to see here").is_empty());
    }

    #[test]
    fn a_value_whose_beginning_was_overwritten_is_found_as_one_part() {
        let canaries = [Canary::key(Kind::SignInToken)];
        let value = canaries[0].value().as_bytes();
        let rest = [b"another answer", &value[10..35], b"\0"].concat();
        let hits = Scanner::new(&canaries).scan(&rest);
        assert_eq!(hits.iter().map(|hit| hit.form).collect::<Vec<_>>(), [Form::Part]);
        assert!(hits[0].length >= 20, "{} of 25 bytes were found", hits[0].length);
    }

    #[test]
    fn a_token_that_nobody_planted_is_found_by_how_it_begins() {
        let scanner = Scanner::new(&[Canary::fresh(Kind::Secret)]);
        let stray = Canary::key(Kind::SessionToken);
        let hits = scanner.scan(format!("authorization: Bearer {}\r\n", stray.value()).as_bytes());
        assert_eq!(
            hits.iter().map(|hit| (hit.kind, hit.form)).collect::<Vec<_>>(),
            [(Kind::SessionToken, Form::Unknown)]
        );
        assert!(scanner.scan(b"ravi_mgmt_ is how it begins").is_empty());
    }
}
