//! Decodes the escapes in which programs write single characters: `%41`, `\u0041`, `&#65;`.
//!
//! Each decoder answers for the beginning of a text, and asks for more only as long as an escape can
//! still become complete, [`LONGEST`] bytes at most. Imports nothing of this crate.

/// Bytes of the longest escape: two `\uXXXX` for one character, and `&#x10FFFF;` with two zeros.
pub(super) const LONGEST: usize = 12;

/// A family of escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// `%41` (RFC 3986, section 2.1).
    Percent,
    /// `\n`, `\/`, `\x41`, `\101`, `\u0041`, `\u{41}`, `\U00000041`: JSON, C, shells, Python, Rust.
    Backslash,
    /// `&amp;`, `&#65;`, `&#x41;`: HTML and XML.
    Entity,
}

/// What the beginning of a text is.
pub(super) enum Decoded {
    /// More bytes are needed to tell.
    More,
    /// The first byte stands for itself.
    Literal,
    /// So many bytes stand for this character or byte.
    Character { taken: usize, is: Bytes },
}

/// Up to four bytes.
pub(super) struct Bytes {
    bytes: [u8; 4],
    len: usize,
}

use Decoded::{Literal, More};

/// Every family.
pub(super) const ALL: [Escape; 3] = [Escape::Percent, Escape::Backslash, Escape::Entity];

/// True for a byte with which an escape of some family begins.
pub(super) fn begins(byte: u8) -> bool {
    ALL.iter().any(|escape| escape.lead() == byte)
}

impl Escape {
    /// The byte with which every escape of the family begins.
    pub(super) fn lead(self) -> u8 {
        match self {
            Self::Percent => b'%',
            Self::Backslash => b'\\',
            Self::Entity => b'&',
        }
    }

    /// Reads the first escape or byte of `text`, which is not empty.
    pub(super) fn decode(self, text: &[u8]) -> Decoded {
        match (self, &text[..LONGEST.min(text.len())]) {
            (_, [first, ..]) if *first != self.lead() => Literal,
            (_, [_]) => More,
            (Self::Percent, [_, rest @ ..]) => number(rest, 1, 2, 16, byte),
            (Self::Backslash, [_, rest @ ..]) => backslash(rest),
            (Self::Entity, text) => entity(text),
            (_, []) => More,
        }
    }
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// `rest` is what follows the backslash.
fn backslash(rest: &[u8]) -> Decoded {
    let simple = |byte: u8| Decoded::Character { taken: 2, is: Bytes { bytes: [byte, 0, 0, 0], len: 1 } };
    match rest {
        [b'u', b'{', digits @ ..] => closed(digits, 6, b'}', 3, 16),
        [b'u', digits @ ..] => utf16(digits),
        [b'x', digits @ ..] => number(digits, 2, 2, 16, byte),
        [b'U', digits @ ..] => number(digits, 2, 8, 16, character),
        [b'0'..=b'3', ..] => number(rest, 1, 3, 8, byte),
        [b'n', ..] => simple(b'\n'),
        [b'r', ..] => simple(b'\r'),
        [b't', ..] => simple(b'\t'),
        [b'a', ..] => simple(0x07),
        [b'b', ..] => simple(0x08),
        [b'v', ..] => simple(0x0b),
        [b'f', ..] => simple(0x0c),
        [b'e', ..] => simple(0x1b),
        [other, ..] => simple(*other),
        [] => More,
    }
}

/// Four hexadecimal digits, or the eight of a surrogate pair with a `\u` between them.
fn utf16(digits: &[u8]) -> Decoded {
    let Some(high) = digits.get(..4) else { return number(digits, 2, 4, 16, character) };
    match parse(high, 16) {
        Some(0xd800..=0xdbff) => match &digits[4..] {
            [b'\\', b'u', low @ ..] if low.len() >= 4 => pair(high, &low[..4]),
            [] | [b'\\'] | [b'\\', b'u', ..] => More,
            _ => Literal,
        },
        _ => number(digits, 2, 4, 16, character),
    }
}

fn pair(high: &[u8], low: &[u8]) -> Decoded {
    let units = [high, low].map(|digits| parse(digits, 16).and_then(|unit| u16::try_from(unit).ok()));
    let [Some(high), Some(low)] = units else { return Literal };
    match char::decode_utf16([high, low]).next() {
        Some(Ok(c)) => Decoded::Character { taken: LONGEST, is: utf8(c) },
        _ => Literal,
    }
}

/// Longest name in [`named`], and most digits of a number.
const LONGEST_NAME: usize = LONGEST - 2;

fn entity(text: &[u8]) -> Decoded {
    match text {
        [_, b'#', b'x' | b'X', digits @ ..] => closed(digits, LONGEST - 4, b';', 3, 16),
        [_, b'#', digits @ ..] => closed(digits, LONGEST - 3, b';', 2, 10),
        [_, name @ ..] => match name.iter().position(|&b| b == b';') {
            Some(end) => named(&name[..end]).map_or(Literal, |c| found(c, end + 2)),
            None if name.len() < LONGEST_NAME && name.iter().all(u8::is_ascii_alphabetic) => More,
            None => Literal,
        },
        [] => More,
    }
}

fn named(name: &[u8]) -> Option<char> {
    Some(match name {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        b"nbsp" => '\u{a0}',
        _ => return None,
    })
}

/// A number of `most` digits at most, `before` bytes after the start, that `end` closes.
fn closed(digits: &[u8], most: usize, end: u8, before: usize, radix: u32) -> Decoded {
    let len = digits.iter().position(|&b| !is_digit(b, radix)).unwrap_or(digits.len());
    match digits.get(len) {
        _ if len > most => Literal,
        None => More,
        Some(&last) if last == end => match parse(&digits[..len], radix).and_then(char::from_u32) {
            Some(c) => found(c, before + len + 1),
            None => Literal,
        },
        Some(_) => Literal,
    }
}

/// A number of exactly `len` digits, `before` bytes after the start.
fn number(digits: &[u8], before: usize, len: usize, radix: u32, is: fn(u32) -> Option<Bytes>) -> Decoded {
    let digits = &digits[..len.min(digits.len())];
    if !digits.iter().all(|&b| is_digit(b, radix)) {
        return Literal;
    }
    if digits.len() < len {
        return More;
    }
    match parse(digits, radix).and_then(is) {
        Some(is) => Decoded::Character { taken: before + len, is },
        None => Literal,
    }
}

fn is_digit(byte: u8, radix: u32) -> bool {
    char::from(byte).is_digit(radix)
}

fn parse(digits: &[u8], radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    u32::from_str_radix(text, radix).ok()
}

fn found(c: char, taken: usize) -> Decoded {
    Decoded::Character { taken, is: utf8(c) }
}

fn character(number: u32) -> Option<Bytes> {
    char::from_u32(number).map(utf8)
}

fn byte(number: u32) -> Option<Bytes> {
    let byte = u8::try_from(number).ok()?;
    Some(Bytes { bytes: [byte, 0, 0, 0], len: 1 })
}

fn utf8(c: char) -> Bytes {
    let mut bytes = [0; 4];
    let len = c.encode_utf8(&mut bytes).len();
    Bytes { bytes, len }
}
