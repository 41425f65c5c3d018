//! The spellings of a value that are searched for as patterns.
//!
//! What an escape stands for (percent, backslash, entity) is decoded from the output instead, by `escape`.
//! Imports `secret`.

use super::alphabet::{PADDING, letter};
use super::automaton::FIRST_SYMBOL;
use crate::secret::Secret;

/// Shortest value that is masked, in bytes. Of a shorter one every other line would hold an instance.
pub(super) const SHORTEST: usize = 4;
/// Shortest line of a value of several lines that is masked by itself, in bytes.
const SHORTEST_LINE: usize = 8;
/// Longest value that is also searched for in base32 and backwards, in bytes. Larger ones are keys and
/// certificates, which nobody spells so, and each byte would cost 18 states.
const LONGEST_RARE: usize = 1024;

/// Patterns for each alphabet. Plain ones are bytes; the others are symbols already.
#[derive(Default)]
pub(super) struct Forms {
    pub(super) plain: Vec<Vec<u8>>,
    pub(super) letters: Vec<Vec<u8>>,
    pub(super) hex: Vec<Vec<u8>>,
}

impl Forms {
    /// Adds every spelling of a value; false if the value is too short to be masked.
    ///
    /// White space around the value is left out: it is often lost or added on the way, and what remains is
    /// found with it and without. Each longer line of a value of several lines is masked by itself too, since
    /// tools quote, indent and wrap them; the armour of a PEM file is not, being no secret.
    pub(super) fn add(&mut self, value: &Secret) -> bool {
        let value = value.expose().trim();
        if value.len() < SHORTEST {
            return false;
        }
        self.add_text(value);
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
        lines.filter(|&line| line != value && !is_armour(line)).for_each(|line| self.add_text(line));
        true
    }

    fn add_text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        self.plain.push(bytes.to_vec());
        self.add_quoted(text);
        self.add_wide(text);
        self.hex
            .push(bytes.iter().flat_map(|b| [FIRST_SYMBOL + (b >> 4), FIRST_SYMBOL + (b & 15)]).collect());
        (0..3).for_each(|before| self.letters.extend(base64(bytes, before)));
        if text.len() <= LONGEST_RARE {
            self.plain.push(text.chars().rev().collect::<String>().into_bytes());
            (0..5).for_each(|before| self.letters.extend(base32(bytes, before)));
        }
    }

    /// Quotes as a shell, SQL and CSV write them inside quotes.
    fn add_quoted(&mut self, text: &str) {
        for (quote, spelling) in [('\'', "'\\''"), ('\'', "'\"'\"'"), ('\'', "''"), ('"', "\"\"")] {
            if text.contains(quote) {
                self.plain.push(text.replace(quote, spelling).into_bytes());
            }
        }
    }

    /// UTF-16 differs from UTF-8 by more than the NULs, which are passed over, only outside ASCII.
    fn add_wide(&mut self, text: &str) {
        if !text.is_ascii() {
            self.plain.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
            self.plain.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        }
    }
}

/// A line such as `-----BEGIN CERTIFICATE-----` (RFC 7468).
fn is_armour(line: &str) -> bool {
    line.starts_with("-----BEGIN ") || line.starts_with("-----END ")
}

/// Base64 of a value with `before` bytes ahead of it in its group of three.
fn base64(bytes: &[u8], before: usize) -> Vec<Vec<u8>> {
    let symbol = |group: u8| FIRST_SYMBOL + group;
    grouped(bytes, before, Base { bits: 6, bytes: 3 }).spell(symbol)
}

/// Base32 of a value with `before` bytes ahead of it in its group of five, in capitals and small letters.
fn base32(bytes: &[u8], before: usize) -> Vec<Vec<u8>> {
    let capitals = |group: u8| letter(if group < 26 { b'A' + group } else { b'2' + group - 26 });
    let small = |group: u8| letter(if group < 26 { b'a' + group } else { b'2' + group - 26 });
    let groups = grouped(bytes, before, Base { bits: 5, bytes: 5 });
    let mut spellings = groups.spell(capitals);
    spellings.extend(groups.spell(small));
    spellings
}

/// A base: bits of a symbol, bytes of a full group.
struct Base {
    bits: usize,
    bytes: usize,
}

/// A value cut into symbols of a base.
struct Groups {
    /// The symbols that depend on the value alone, whatever stands around it.
    core: Vec<u8>,
    /// If the value is the end of the text: the last symbol, and how many `=` follow.
    end: Option<(u8, usize)>,
}

fn grouped(bytes: &[u8], before: usize, base: Base) -> Groups {
    let bit = |n: usize| bytes.get(n / 8).map_or(0, |byte| byte >> (7 - n % 8) & 1);
    let symbol = |from: usize| (from..from + base.bits).fold(0, |symbol, n| symbol << 1 | bit(n));
    let bits = bytes.len() * 8;
    // The bits that share a symbol with the byte ahead are left out.
    let skipped = (base.bits - before * 8 % base.bits) % base.bits;
    let whole = (bits - skipped) / base.bits;
    let core = (0..whole).map(|i| symbol(skipped + i * base.bits)).collect();
    let end = skipped + whole * base.bits;
    // A group that is not full is filled up to the next symbol with zeros, then to its length with `=`.
    let missing = (base.bytes - (before + bytes.len()) % base.bytes) % base.bytes;
    Groups { core, end: (end < bits).then(|| (symbol(end), missing * 8 / base.bits)) }
}

impl Groups {
    /// The core, then what the end of the text adds to it, symbol by symbol.
    fn spell(&self, symbol: impl Fn(u8) -> u8) -> Vec<Vec<u8>> {
        let mut spelling: Vec<u8> = self.core.iter().map(|&group| symbol(group)).collect();
        let mut spellings = vec![spelling.clone()];
        if let Some((last, padding)) = self.end {
            for next in std::iter::once(symbol(last)).chain(std::iter::repeat_n(PADDING, padding)) {
                spelling.push(next);
                spellings.push(spelling.clone());
            }
        }
        spellings
    }
}
