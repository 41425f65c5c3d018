//! Addresses in a text: where they are, and whether one may be handed out as a link.
//!
//! Imports nothing of this crate.

use std::ops::Range;

/// Longest host name with what stands around it.
pub(super) const LONGEST_HOST: usize = 258;

/// An address that was found in a text.
pub(crate) struct Span {
    pub(crate) range: Range<usize>,
    /// It begins with `https://`.
    pub(crate) secure: bool,
    /// It begins with `http://` or `https://`.
    pub(crate) web: bool,
}

/// Finds addresses: of pages with and without their scheme, and of mail.
pub(crate) fn spans(text: &[char]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !is_address(text[at]) {
            at += 1;
            continue;
        }
        let length = text[at..].iter().take_while(|c| is_address(**c)).count();
        in_run(text, at..at + length, &mut spans);
        at += length;
    }
    spans
}

fn is_address(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '`' | '{' | '}' | '|' | '\\' | '^')
}

/// Finds the addresses in a run without blanks.
fn in_run(text: &[char], run: Range<usize>, spans: &mut Vec<Span>) {
    let mut from = run.start;
    while let Some((start, secure)) = scheme(&text[from..run.end]).map(|(at, secure)| (from + at, secure)) {
        // Two addresses without a blank between: `https://a,https://b`. One inside a query stays part of it.
        let rest = &text[start + 8..run.end.max(start + 8)];
        let next = scheme(rest).map(|(at, _)| start + 8 + at);
        let end = match next {
            Some(next) if matches!(text[next - 1], ',' | ';' | ')' | ']' | '\'') => next - 1,
            _ => run.end,
        };
        let end = trimmed(text, start..end);
        spans.push(Span { range: start..end, secure, web: true });
        from = match next {
            Some(next) if next >= end => next,
            _ => return,
        };
    }
    if from == run.start && is_bare(&text[run.clone()]) {
        spans.push(Span { range: run, secure: false, web: false });
    }
}

/// Where `http://` or `https://` begins.
fn scheme(text: &[char]) -> Option<(usize, bool)> {
    let is = |at: usize, word: &str| {
        text.len() >= at + word.len()
            && text[at..].iter().zip(word.chars()).all(|(c, w)| c.eq_ignore_ascii_case(&w))
    };
    let at = (0..text.len()).find(|at| is(*at, "http://") || is(*at, "https://"))?;
    Some((at, is(at, "https://")))
}

/// Without the punctuation of the sentence that it stands in.
fn trimmed(text: &[char], range: Range<usize>) -> usize {
    let mut end = range.end;
    let mut open = text[range.clone()].iter().filter(|c| **c == '(').count();
    let mut closed = text[range.clone()].iter().filter(|c| **c == ')').count();
    while end > range.start {
        match text[end - 1] {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | ']' | '[' | '*' => {}
            ')' if closed > open => closed -= 1,
            '(' => open -= 1,
            _ => break,
        }
        end -= 1;
    }
    end
}

/// `www.example.com/path`, `example.com`, `somebody@example.com`, `@example.com`.
fn is_bare(run: &[char]) -> bool {
    let from = run.iter().position(|c| c.is_ascii_alphanumeric()).unwrap_or(run.len());
    let run = &run[from..];
    if let Some(at) = run.iter().position(|c| *c == '@') {
        return at > 0 && run[at + 1..].contains(&'.') || at == 0;
    }
    let host: Vec<char> = run
        .iter()
        .copied()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .take(256)
        .collect();
    let path = run.get(host.len()) == Some(&'/');
    let host: String = host.iter().collect();
    let host = host.trim_end_matches('.');
    let Some((before, top)) = host.rsplit_once('.') else { return false };
    let name = before.chars().any(|c| c.is_ascii_alphabetic()) || path;
    top.len() >= 2 && top.chars().all(|c| c.is_ascii_lowercase()) && name
}

/// True if `@host ` ends the text: the form in which services bind a code to a host.
pub(super) fn is_bound(before: &[char]) -> bool {
    let Some((' ', host)) = before.split_last().map(|(last, rest)| (*last, rest)) else { return false };
    let letters =
        host.iter().rev().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).count();
    let at = host.len() - letters;
    letters > 3
        && at > 0
        && host[at - 1] == '@'
        && host[at..].contains(&'.')
        && (at == 1 || host[at - 2].is_whitespace())
}

/// The host of an address that may be handed out: `https`, a host name of ASCII letters that is no look-alike,
/// no user, no other port. Small letters.
pub(crate) fn host(address: &str) -> Option<String> {
    let scheme = address.get(..8)?;
    if !scheme.eq_ignore_ascii_case("https://") || !address.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    if address.contains(['\\', '<', '>', '"', '`', '{', '}', '^', '|']) {
        return None;
    }
    let rest = &address[8..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
            && !label.starts_with("xn--")
    };
    let named = host.contains('.') && host.len() <= 253 && host.split('.').all(label);
    let top = host.rsplit('.').next()?;
    (named && top.bytes().all(|b| b.is_ascii_alphabetic())).then_some(host)
}
