//! What has the shape of a code: runs of digits, digits in groups, capitals with digits, groups with dashes, single
//! characters in boxes. What has the shape of something else (money, a date, a time, a phone number, a part of an
//! address) is left out here, whatever the words around it say. Imports `inbox::text`.

use std::ops::Range;

use super::url;
use super::words::{MONEY, UNITS};
use crate::inbox::text::lower;

/// Fewest and most digits of a code.
const DIGITS: Range<usize> = 4..11;
/// Most letters and digits of a code with letters.
const LONGEST: usize = 14;

/// How a candidate is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `482913`, `G-482913`.
    Digits,
    /// `123 456`, `123-456`, or one digit in each box.
    Grouped,
    /// `2024`: believed to be a year unless a code is announced.
    Year,
    /// `AB12CD`, `K7QX-2MPA`, `G-482913`.
    Mixed,
    /// `FXRBG`, `ABC-DEF`: letters alone.
    Letters,
    /// `tulor-vemin-raska`: words that a machine has made up, alone on a line.
    Words,
}

impl Shape {
    /// Digits alone.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Digits | Self::Grouped)
    }
}

/// Something that could be a code.
pub(crate) struct Candidate {
    /// Where it is, in folded characters.
    pub(crate) range: Range<usize>,
    pub(crate) shape: Shape,
    /// What is typed.
    pub(crate) typed: String,
    /// After `@host #`, the form for which browsers fill in codes.
    pub(crate) bound: bool,
    /// It follows a `#`.
    pub(crate) hash: bool,
}

/// A maximal run of ASCII letters and digits, with single dashes inside.
struct Chunk {
    range: Range<usize>,
    /// Lengths of the parts between dashes.
    parts: Vec<usize>,
    digits: usize,
    capitals: usize,
    small: usize,
}

/// Finds the candidates in a text. `spans` are the addresses in it.
pub(crate) fn candidates(text: &[char], spans: &[Range<usize>]) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut spans = spans.iter().peekable();
    let mut at = 0;
    while at < text.len() {
        while spans.next_if(|span| span.end <= at).is_some() {}
        if let Some(span) = spans.peek().filter(|span| span.contains(&at)) {
            at = span.end;
            continue;
        }
        if !text[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let chunk = Chunk::read(text, at);
        at = match boxes(text, &chunk) {
            Some(end) => boxed(text, chunk.range.start..end, &mut found),
            None if chunk.is_digits() => spaced(text, chunk, &mut found),
            None => {
                let end = chunk.range.end;
                found.extend(single(text, &chunk));
                end
            }
        };
    }
    found
}

impl Chunk {
    fn read(text: &[char], start: usize) -> Self {
        let mut chunk = Self { range: start..start, parts: vec![0], digits: 0, capitals: 0, small: 0 };
        let mut at = start;
        while let Some(c) = text.get(at) {
            match c {
                '0'..='9' => chunk.digits += 1,
                'A'..='Z' => chunk.capitals += 1,
                'a'..='z' => chunk.small += 1,
                '-' if text.get(at + 1).is_some_and(char::is_ascii_alphanumeric) => {
                    chunk.parts.push(0);
                    at += 1;
                    continue;
                }
                _ => break,
            }
            if let Some(last) = chunk.parts.last_mut() {
                *last += 1;
            }
            at += 1;
        }
        chunk.range.end = at;
        chunk
    }

    fn is_digits(&self) -> bool {
        self.capitals + self.small == 0
    }

    /// `G-482913`.
    fn is_marked(&self) -> bool {
        self.parts.len() == 2
            && self.parts[0] == 1
            && self.capitals == 1
            && self.small == 0
            && DIGITS.contains(&self.parts[1])
    }

    fn is_words(&self) -> bool {
        self.digits + self.capitals == 0
            && (3..=6).contains(&self.parts.len())
            && self.parts.iter().all(|part| (4..=10).contains(part))
    }

    fn length(&self) -> usize {
        self.digits + self.capitals + self.small
    }
}

/// True if a neighbour makes the run a part of something longer.
fn is_attached(text: &[char], range: &Range<usize>) -> bool {
    let before = |back: usize| range.start.checked_sub(back).map(|at| text[at]);
    let after = |on: usize| text.get(range.end + on).copied();
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bold = before(1) == Some('*') && after(0) == Some('*');
    let left = match before(1) {
        Some('.' | ',' | ':' | '\'') => digit(before(2)),
        Some('/' | '\\') => word(before(2)),
        Some('*') => !bold,
        Some('•' | '●') => matches!(before(2), Some('•' | '●')),
        Some('-') => before(2).is_some_and(|c| c.is_alphanumeric() || c == '-'),
        Some('+' | '_' | '%' | '&' | '@' | '~' | '^') => true,
        Some(c) => is_currency(c) || c.is_alphabetic() && (c as u32) < 0x250,
        None => false,
    };
    let right = match after(0) {
        Some('.' | ',' | '\'') => digit(after(1)),
        Some(':') => digit(after(1)),
        Some('/' | '\\') => word(after(1)),
        Some('*') => !bold && after(1) == Some('*'),
        Some('%' | '‰' | '°' | '_' | '@' | '&' | '=' | '+') => true,
        Some(c) => is_currency(c) || c.is_alphabetic() && (c as u32) < 0x250,
        None => false,
    };
    left || right || beside_money(text, range)
}

pub(super) fn is_currency(c: char) -> bool {
    matches!(c, '$' | '¢' | '£' | '¤' | '¥' | '元' | '円' | '원' | '块')
        || ('\u{20a0}'..='\u{20c0}').contains(&c)
}

/// True with the name of a currency or a unit as the next word.
fn beside_money(text: &[char], range: &Range<usize>) -> bool {
    let before: String = {
        let mut at = range.start;
        while at > 0 && text[at - 1] == ' ' && range.start - at < 2 {
            at -= 1;
        }
        let end = if at > 0 && text[at - 1] == '.' { at - 1 } else { at };
        let mut start = end;
        while start > 0
            && end - start < 8
            && (text[start - 1].is_alphabetic() || is_currency(text[start - 1]))
        {
            start -= 1;
        }
        text[start..end].iter().map(|c| lower(*c)).collect()
    };
    let after: String = {
        let mut start = range.end;
        while text.get(start) == Some(&' ') && start - range.end < 2 {
            start += 1;
        }
        let end = (start..text.len().min(start + 12)).find(|at| {
            !(text[*at].is_alphanumeric() || is_currency(text[*at]) || matches!(text[*at], '%' | '"' | '.'))
        });
        let end = end.unwrap_or(text.len().min(start + 12));
        text[start..end].iter().map(|c| lower(*c)).collect()
    };
    let after = after.trim_end_matches('.');
    let symbol = |word: &str| word.chars().count() == 1 && word.chars().all(is_currency);
    MONEY.has(&before)
        || symbol(&before)
        || MONEY.has(after)
        || UNITS.has(after)
        || after.starts_with('%')
        || after.chars().next().is_some_and(is_currency)
}

/// Digits, alone or with more digits behind single blanks.
fn spaced(text: &[char], first: Chunk, found: &mut Vec<Candidate>) -> usize {
    let mut chunks = vec![first];
    let mut end = chunks[0].range.end;
    while chunks.len() < 64 {
        // Two blanks stand between cells of a table.
        let gap = text[end..].iter().take(3).take_while(|c| **c == ' ').count();
        if !(1..=2).contains(&gap) || !text.get(end + gap).is_some_and(char::is_ascii_digit) {
            break;
        }
        let next = Chunk::read(text, end + gap);
        if !next.is_digits() || gap == 2 && (next.length() > 3 || chunks[0].length() > 3) {
            break;
        }
        end = next.range.end;
        chunks.push(next);
    }
    let whole = chunks[0].range.start..end;
    let sizes: Vec<usize> = chunks.iter().flat_map(|chunk| chunk.parts.iter().copied()).collect();
    let digits: usize = sizes.iter().sum();
    let in_words = chunks.len() > 1;
    let even =
        sizes.len() > 1 && sizes.windows(2).all(|pair| pair[0] == pair[1]) && (sizes[0] > 1 || !in_words);
    if sizes.len() == 1 {
        found.extend(single(text, &chunks[0]));
    } else if even && DIGITS.contains(&digits) && sizes != [2; 5] && !is_date(text, &whole, &sizes) {
        if !is_attached(text, &whole) {
            found.push(candidate(text, whole, Shape::Grouped, true));
        }
    } else if in_words && !is_phone(text, &whole, &sizes) {
        found.extend(
            chunks.iter().filter(|chunk| chunk.parts.len() == 1).filter_map(|chunk| single(text, chunk)),
        );
    }
    end
}

/// `12-03-26`, with dashes alone.
fn is_date(text: &[char], whole: &Range<usize>, sizes: &[usize]) -> bool {
    let value = |at: usize| text[at..at + 2].iter().fold(0, |n, c| n * 10 + c.to_digit(10).unwrap_or(0));
    sizes == [2, 2, 2] && text[whole.start + 2] == '-' && {
        let (first, second) = (value(whole.start), value(whole.start + 3));
        (1..=31).contains(&first) && (1..=31).contains(&second) && (first <= 12 || second <= 12)
    }
}

/// Groups as phone numbers, cards and accounts are written.
fn is_phone(text: &[char], whole: &Range<usize>, sizes: &[usize]) -> bool {
    let digits: usize = sizes.iter().sum();
    let before = whole.start.checked_sub(1).map(|at| text[at]);
    digits >= 9 && sizes.iter().all(|size| *size >= 2)
        || matches!(before, Some('+' | '('))
        || text[whole.clone()].contains(&'-')
        || sizes == [3, 4]
}

/// One run, by itself.
fn single(text: &[char], chunk: &Chunk) -> Option<Candidate> {
    if chunk.is_words() && is_line(text, &chunk.range) {
        return Some(candidate(text, chunk.range.clone(), Shape::Words, false));
    }
    if is_attached(text, &chunk.range) || chunk.length() > LONGEST {
        return None;
    }
    let dashed = chunk.parts.len() > 1;
    let shape = if chunk.is_digits() {
        if dashed || !DIGITS.contains(&chunk.digits) {
            return None;
        }
        if is_year(text, &chunk.range) { Shape::Year } else { Shape::Digits }
    } else if chunk.digits == 0 {
        let even = chunk.parts.windows(2).all(|pair| pair[0] == pair[1]);
        let fits = if dashed { even && chunk.parts[0] >= 3 } else { (5..=8).contains(&chunk.capitals) };
        (chunk.small == 0 && fits).then_some(Shape::Letters)?
    } else if chunk.is_marked() {
        Shape::Digits
    } else {
        mixed(text, chunk)?
    };
    Some(candidate(text, chunk.range.clone(), shape, false))
}

/// True if nothing else stands on the line.
fn is_line(text: &[char], range: &Range<usize>) -> bool {
    let before = text[..range.start].iter().rev().take(64).find(|c| **c != ' ');
    let after = text[range.end..].iter().take(64).find(|c| **c != ' ');
    [before, after].into_iter().all(|c| matches!(c, None | Some('\n')))
}

/// Letters with digits: capitals, or letters that no word and no unit has.
fn mixed(text: &[char], chunk: &Chunk) -> Option<Shape> {
    let written: String = text[chunk.range.clone()].iter().collect();
    let dashed = chunk.parts.len() > 1;
    let masked = written.trim_start_matches(['X', 'x']).len() + 2 <= written.len()
        && written.trim_start_matches(['X', 'x']).chars().all(|c| c.is_ascii_digit() || c == '-');
    let number = written.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let quantity = !dashed && number.chars().all(|c| c.is_ascii_digit()) && {
        let unit = written[number.len()..].to_ascii_lowercase();
        UNITS.has(&unit)
            || MONEY.has(&unit)
            || matches!(unit.as_str(), "st" | "nd" | "rd" | "th" | "k" | "h" | "s" | "x" | "px" | "p")
    };
    // `08h15`, `1920x1080`.
    let halves: Vec<&str> = written.split(['h', 'H', 'x']).collect();
    let time = halves.len() == 2
        && halves.iter().all(|half| !half.is_empty() && half.bytes().all(|b| b.is_ascii_digit()))
        && (halves[0].len() <= 2 && halves[1].len() == 2 || written.contains('x'));
    let parts_fit = chunk.parts.len() <= 4 && chunk.parts.iter().all(|part| *part <= 8);
    // `mp3`, `web3`, `covid19`: a word with a number behind it.
    let word = written.trim_end_matches(|c: char| c.is_ascii_digit());
    let named =
        chunk.small > 1 && !dashed && word.chars().all(|c| c.is_ascii_alphabetic()) && word.len() >= 2;
    let lettered = chunk.small > 0 && dashed && chunk.digits < 3;
    let fits = (4..=LONGEST).contains(&chunk.length()) && (chunk.length() > 4 || chunk.digits > 1);
    (fits && parts_fit && !time && !masked && !quantity && !named && !lettered).then_some(Shape::Mixed)
}

fn is_year(text: &[char], range: &Range<usize>) -> bool {
    range.len() == 4 && matches!(text[range.start..range.start + 2], ['1', '9'] | ['2', '0'])
}

/// The end of a row of boxes: four to ten single characters, each behind blanks or on a line of its own.
fn boxes(text: &[char], chunk: &Chunk) -> Option<usize> {
    let fits = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
    if chunk.length() != 1 || !fits(text[chunk.range.start]) {
        return None;
    }
    let (mut end, mut count, mut digits) = (chunk.range.end, 1, chunk.digits);
    loop {
        let gap = text[end..].iter().take(4).take_while(|c| matches!(c, ' ' | '\n' | '-' | '|')).count();
        let at = end + gap;
        let alone = !text.get(at + 1).is_some_and(char::is_ascii_alphanumeric);
        if gap == 0 || !alone || !text.get(at).copied().is_some_and(fits) {
            break;
        }
        digits += usize::from(text[at].is_ascii_digit());
        (end, count) = (at + 1, count + 1);
        if count > 64 {
            break;
        }
    }
    (count >= 4 && digits >= 1).then_some(end)
}

/// Takes a row of boxes for a code, unless it counts up: a scale, pages, days.
fn boxed(text: &[char], range: Range<usize>, found: &mut Vec<Candidate>) -> usize {
    let end = range.end;
    let characters: Vec<u32> =
        text[range.clone()].iter().filter(|c| c.is_ascii_alphanumeric()).map(|c| *c as u32).collect();
    let counts = characters.windows(2).all(|pair| pair[1] == pair[0] + 1);
    if (4..=10).contains(&characters.len()) && !counts && !is_attached(text, &range) {
        found.push(candidate(text, range, Shape::Grouped, true));
    }
    end
}

fn candidate(text: &[char], range: Range<usize>, shape: Shape, join: bool) -> Candidate {
    let keep = |c: &&char| !join || c.is_ascii_alphanumeric();
    let typed = text[range.clone()].iter().filter(keep).collect();
    let hash = range.start > 0 && text[range.start - 1] == '#';
    let bound = hash && url::is_bound(&text[range.start.saturating_sub(url::LONGEST_HOST)..range.start - 1]);
    Candidate { range, shape, typed, bound, hash }
}
