//! Masks values in a stream of output: whatever spells one of them becomes [`REPLACEMENT`].
//!
//! It guards against accidents (a debug print, a verbose client, an error that quotes a request), not
//! against a program that means to get a value out. A [`Mask`] is built once for a set of values; each
//! output has a [`Stream`] of it. The result does not depend on how the output is cut into pieces.
//!
//! # What is found
//!
//! For every value, with the white space around it left out, and for each of its lines of eight bytes and
//! more if it has several (PEM armour excepted):
//!
//! - as it is, also with `\r\n` for `\n` and `+` for space; backwards (up to 1 KiB);
//! - UTF-16 and UTF-32, either byte order (UTF-32 in the ASCII range);
//! - base64, standard and URL-safe, padded or not, at any place inside a longer text; base32 likewise (up to
//!   1 KiB, capitals or small letters); both wrapped at any width, with `\n` or `\r\n` and an indent;
//! - hexadecimal in any case, wrapped likewise, or with blanks, `:` or `-` between bytes;
//! - percent-encoded (each byte may be or not, any case), with backslash escapes (`\n`, `\x41`, `\101`,
//!   `\u0041`, `\u{41}`, `\U00000041`, `\"`) or with entities (`&amp;`, `&#65;`, `&#x41;`), and base64,
//!   base32 and hexadecimal with such escapes in them;
//! - quotes doubled as in SQL and CSV, or as a shell writes them inside single quotes.
//!
//! # What is out of reach
//!
//! Compression, encryption, digests, rot13 and other ciphers; other bases; numbers (a list of decimal
//! codes, `0x41, 0x42`); dumps with addresses or a second column; one character at a time with other
//! text or colours between; parts of a value other than its lines; two layers of spelling other than those
//! above (JSON inside JSON, base64 of base64, base64 of UTF-16, quoted-printable); an escape that a stray
//! `\` or `%` directly before it makes ambiguous; a value in another normal form or case. Values of less than
//! [`Mask::too_short`]'s bound are not masked. Where base64 or base32 goes on around a value, the letters at
//! the edges, which it shares with its neighbours, stay: at most four bits of its first and last byte.
//!
//! # Bounds
//!
//! Time is linear in the output, whatever it holds: every reading is an automaton. Held back is only what
//! can still become a match; twelve bytes for each symbol of the longest spelling, with up to 32 passed over
//! before each, are never exceeded.
//!
//! # Memory
//!
//! The tables and buffers hold secrets. They lie on the heap, and the process's allocator wipes what it
//! frees (invariant I1). No type here has `Debug`. Imports `secret`.

mod alphabet;
mod automaton;
mod cursor;
mod escape;
mod forms;
mod held;
mod reading;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use thiserror::Error;

use crate::secret::Secret;
use alphabet::{ALPHABETS, HEX, LETTERS, PLAIN, Tables};
use automaton::EVENT;
use forms::Forms;
use held::Held;
use reading::{Direct, Escaped};

/// What stands in the output for a value, whatever its length and spelling.
pub const REPLACEMENT: &[u8] = b"[ravi:masked]";

/// Most bytes of all values together. One of them has 64 KiB at most.
const MOST: usize = 256 * 1024;

/// Output that is scanned before any of it is released.
const PIECE: usize = 64 * 1024;

/// Symbols that [`Stream::idle`] may give away per alphabet: two bytes of a value and a bit.
const SHALLOW: [u64; ALPHABETS] = {
    let mut most = [0; ALPHABETS];
    (most[PLAIN], most[LETTERS], most[HEX]) = (2, 3, 5);
    most
};

/// Why a mask cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MaskError {
    /// The values are too large. Inject fewer of them, or turn masking off.
    #[error("the values to be masked have {bytes} bytes, more than {MOST}")]
    TooLarge {
        /// Bytes of all values together.
        bytes: usize,
    },
}

/// The values to be masked, ready to be searched for.
pub struct Mask {
    tables: Arc<Tables>,
    too_short: Vec<usize>,
}

impl Mask {
    /// Prepares to mask `values`, which it copies.
    pub fn new<'a>(values: impl Iterator<Item = &'a Secret>) -> Result<Self, MaskError> {
        let mut forms = Forms::default();
        let mut too_short = Vec::new();
        let mut bytes = 0;
        for (index, value) in values.enumerate() {
            bytes += value.len();
            if bytes > MOST {
                return Err(MaskError::TooLarge { bytes });
            }
            if !forms.add(value) {
                too_short.push(index);
            }
        }
        Ok(Self { tables: Arc::new(Tables::new(forms)), too_short })
    }

    /// Which values, counted from 0, are not masked: without the white space around them they have less than
    /// four bytes, and masking them would destroy all output.
    pub fn too_short(&self) -> &[usize] {
        &self.too_short
    }

    /// A stream of output to be masked.
    pub fn stream(&self) -> Stream {
        let escaped = escape::ALL.map(Escaped::new);
        Stream { tables: self.tables.clone(), direct: Direct::default(), escaped, held: Held::default() }
    }
}

/// One output on its way through a mask.
pub struct Stream {
    tables: Arc<Tables>,
    direct: Direct,
    escaped: [Escaped; 3],
    held: Held,
}

impl Stream {
    /// Takes more output and appends to `out` what can be released of it.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for piece in input.chunks(PIECE) {
            let start = self.held.end();
            self.held.bytes.extend_from_slice(piece);
            self.scan(piece, start);
            self.held.release(self.safe(), out);
        }
    }

    /// Appends the rest to `out`. The output has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for escaped in &mut self.escaped {
            escaped.finish(&self.tables, &mut self.held.spans);
        }
        self.held.release(self.held.end(), out);
    }

    /// Appends what is held back to `out`, if it is so little that it tells next to nothing of a value: two
    /// bytes or so. If it turns out to begin a match, the rest of that is masked.
    ///
    /// To be called when the output has paused, lest a prompt miss its last letter until it is answered.
    pub fn idle(&mut self, out: &mut Vec<u8>) {
        let awake = self.escaped.iter().filter_map(Escaped::awake);
        if std::iter::once(&self.direct).chain(awake).all(|reading| reading.is_shallow(&self.tables, SHALLOW))
        {
            self.held.release(self.held.end(), out);
        }
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.bytes.len()
    }

    /// Reads `piece`, which lies at `start`.
    fn scan(&mut self, piece: &[u8], start: u64) {
        let mut done = 0;
        while let Some(&byte) = piece.get(done) {
            let at = start + done as u64;
            let skipped = if self.is_plain(at) { self.skim(&piece[done..]) } else { 0 };
            if skipped > 0 {
                done += skipped;
                continue;
            }
            if escape::begins(byte) {
                self.escaped.iter_mut().for_each(|escaped| escaped.wake(&piece[done..], at, &self.direct));
            }
            self.direct.read(&self.tables, byte, at, 1, &mut self.held.spans);
            for escaped in &mut self.escaped {
                escaped.read(&self.tables, byte, &self.direct, &mut self.held.spans);
            }
            done += 1;
        }
    }

    /// True if only the direct reading is awake, and nothing is being passed over.
    fn is_plain(&self, at: u64) -> bool {
        self.escaped.iter().all(|escaped| escaped.awake().is_none()) && !self.direct.is_passing(at)
    }

    /// Reads bytes that do no more than move the automata on; returns how many there were.
    fn skim(&mut self, bytes: &[u8]) -> usize {
        let [plain, letters, hex] = &self.tables.automata;
        let mut states = self.direct.cursors.each_ref().map(|cursor| cursor.state);
        let mut done = 0;
        for &byte in bytes {
            let kind = self.tables.kind(byte);
            let [first, second, third, _] = kind.to_le_bytes();
            let next =
                [plain.step(states[0], first), letters.step(states[1], second), hex.step(states[2], third)];
            if (kind | next[0] | next[1] | next[2]) & EVENT != 0 {
                break;
            }
            states = next;
            done += 1;
        }
        self.direct.cursors.iter_mut().zip(states).for_each(|(cursor, state)| cursor.state = state);
        done
    }

    /// Up to where no match that may still come can reach back.
    fn safe(&self) -> u64 {
        let direct = self.direct.start(&self.tables, self.held.end());
        let escaped = self.escaped.iter().filter_map(|escaped| escaped.start(&self.tables));
        escaped.fold(direct, u64::min)
    }
}
