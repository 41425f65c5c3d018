//! The three ways in which bytes of the output are read as symbols, and the tables for all of them.
//!
//! - `plain`: bytes. Space and `+` are one symbol (form encoding); NUL and carriage return may stand
//!   anywhere, which finds UTF-16, UTF-32 and lines that a terminal ended.
//! - `letters`: the 64 symbols of base64, in both of its spellings, and `=`. Base32 is spelled with the same
//!   letters. Line ends may stand anywhere, with blanks after them.
//! - `hex`: nibbles in either case. Line ends may stand anywhere; blanks, `:` and `-` between bytes.
//!
//! Imports nothing of this crate outside this module.

use super::automaton::{Automaton, BREAK, EVENT, FIRST_SYMBOL, OTHER, SEPARATOR};
use super::forms::Forms;

/// How many ways of reading there are.
pub(super) const ALPHABETS: usize = 3;
/// Index of the plain reading.
pub(super) const PLAIN: usize = 0;
/// Index of base64 and base32.
pub(super) const LETTERS: usize = 1;
/// Index of base16.
pub(super) const HEX: usize = 2;

/// The symbol for the `=` that fills up base64 and base32.
pub(super) const PADDING: u8 = FIRST_SYMBOL + 64;
const LETTER_CLASSES: usize = FIRST_SYMBOL as usize + 65;
const HEX_CLASSES: usize = FIRST_SYMBOL as usize + 16;

/// The automata for one set of values, and the class of every byte for each of them.
pub(super) struct Tables {
    pub(super) automata: [Automaton; ALPHABETS],
    /// Three classes of eight bits from the lowest up; [`EVENT`] where an escape can begin.
    kinds: [u32; 256],
}

impl Tables {
    /// Builds the tables for the spellings of all values.
    pub(super) fn new(mut forms: Forms) -> Self {
        let (plain, plain_classes) = number_bytes(&forms.plain);
        let symbols = |bytes: Vec<u8>| -> Vec<u8> {
            bytes.iter().map(|&b| plain[usize::from(b)]).filter(|&class| class != BREAK).collect()
        };
        let bytes: Vec<Vec<u8>> = forms.plain.drain(..).map(symbols).collect();
        let automata = [
            Automaton::new(&bytes, plain_classes, false),
            Automaton::new(&forms.letters, LETTER_CLASSES, false),
            Automaton::new(&forms.hex, HEX_CLASSES, true),
        ];
        let kinds = std::array::from_fn(|byte| {
            let byte = byte.to_le_bytes()[0];
            let event = if super::escape::begins(byte) { EVENT } else { 0 };
            let classes = [plain[usize::from(byte)], letter(byte), nibble(byte), 0];
            u32::from_le_bytes(classes) | event
        });
        Self { automata, kinds }
    }

    /// The classes of a byte, with [`EVENT`] set where an escape can begin.
    #[inline(always)]
    pub(super) fn kind(&self, byte: u8) -> u32 {
        self.kinds[usize::from(byte)]
    }

    /// The classes of a byte, one per alphabet.
    pub(super) fn classes(&self, byte: u8) -> [u8; ALPHABETS] {
        let [plain, letter, nibble, _] = self.kind(byte).to_le_bytes();
        [plain, letter, nibble]
    }
}

/// Gives every byte that a pattern contains a class of its own.
fn number_bytes(patterns: &[Vec<u8>]) -> ([u8; 256], usize) {
    let mut classes = [OTHER; 256];
    (classes[0], classes[usize::from(b'\r')]) = (BREAK, BREAK);
    // 253 symbols at most: two bytes are breaks and two are one symbol.
    let mut unused = FIRST_SYMBOL..=u8::MAX;
    for &byte in patterns.iter().flatten() {
        if classes[usize::from(byte)] == OTHER {
            let class = unused.next().unwrap_or(OTHER);
            classes[usize::from(byte)] = class;
            if matches!(byte, b' ' | b'+') {
                (classes[usize::from(b' ')], classes[usize::from(b'+')]) = (class, class);
            }
        }
    }
    (classes, 256 - unused.count())
}

/// The class of a byte of base64 (RFC 4648, sections 4 and 5).
pub(super) fn letter(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => FIRST_SYMBOL + byte - b'A',
        b'a'..=b'z' => FIRST_SYMBOL + 26 + byte - b'a',
        b'0'..=b'9' => FIRST_SYMBOL + 52 + byte - b'0',
        b'+' | b'-' => FIRST_SYMBOL + 62,
        b'/' | b'_' => FIRST_SYMBOL + 63,
        b'=' => PADDING,
        b'\n' | b'\r' => BREAK,
        b' ' | b'\t' => SEPARATOR,
        _ => OTHER,
    }
}

fn nibble(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => FIRST_SYMBOL + byte - b'0',
        b'a'..=b'f' => FIRST_SYMBOL + 10 + byte - b'a',
        b'A'..=b'F' => FIRST_SYMBOL + 10 + byte - b'A',
        b'\n' | b'\r' => BREAK,
        b' ' | b'\t' | b':' | b'-' => SEPARATOR,
        _ => OTHER,
    }
}
