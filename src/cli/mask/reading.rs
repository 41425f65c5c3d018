//! The ways in which the output is read: as it is, and with the escapes of each family decoded.
//!
//! Where there are no escapes all readings are the same. So a reading with escapes sleeps until one
//! begins, starts from where the direct reading is, and sleeps again once both agree. Every reading
//! feeds all three automata: `%2B` inside base64 and `\n` between lines of hex are found too.

use std::ops::Range;

use super::alphabet::{ALPHABETS, Tables};
use super::cursor::Cursor;
use super::escape::{Decoded, Escape, LONGEST};
use super::held::Spans;

/// A reading with no escapes.
#[derive(Default)]
pub(super) struct Direct {
    pub(super) cursors: [Cursor; ALPHABETS],
}

/// A reading with the escapes of one family.
pub(super) struct Escaped {
    family: Escape,
    awake: bool,
    reading: Direct,
    /// The escape that has begun, if it is one.
    pending: Vec<u8>,
    /// Where it starts; where the reading stands, if none has begun.
    at: u64,
}

impl Direct {
    /// Reads a byte that is written at `at` in `len` bytes.
    pub(super) fn read(&mut self, tables: &Tables, byte: u8, at: u64, len: u64, spans: &mut Spans) {
        let classes = tables.classes(byte);
        for ((cursor, automaton), class) in self.cursors.iter_mut().zip(&tables.automata).zip(classes) {
            let found = cursor.read(automaton, class, at, len);
            found.into_iter().for_each(|span: Range<u64>| spans.add(span));
        }
    }

    /// True if the last byte before `at` was passed over inside a match.
    pub(super) fn is_passing(&self, at: u64) -> bool {
        self.cursors.iter().any(|cursor| cursor.is_passing(at))
    }

    /// Where the earliest match that has begun starts, if the output has been read up to `at`.
    pub(super) fn start(&self, tables: &Tables, at: u64) -> u64 {
        let starts = self.cursors.iter().zip(&tables.automata).map(|(c, automaton)| c.start(automaton, at));
        starts.fold(at, u64::min)
    }

    /// True if no match that has begun has more symbols than `most`.
    pub(super) fn is_shallow(&self, tables: &Tables, most: [u64; ALPHABETS]) -> bool {
        let depths = self.cursors.iter().zip(&tables.automata).map(|(c, automaton)| c.depth(automaton));
        depths.zip(most).all(|(depth, most)| depth <= most)
    }

    fn agrees(&self, other: &Self, tables: &Tables, at: u64) -> bool {
        let pairs = self.cursors.iter().zip(&other.cursors).zip(&tables.automata);
        pairs.into_iter().all(|((a, b), automaton)| a.agrees(b, automaton, at))
    }
}

impl Escaped {
    pub(super) fn new(family: Escape) -> Self {
        let pending = Vec::with_capacity(LONGEST);
        Self { family, awake: false, reading: Direct::default(), pending, at: 0 }
    }

    /// The reading, unless it is the same as the direct one.
    pub(super) fn awake(&self) -> Option<&Direct> {
        self.awake.then_some(&self.reading)
    }

    /// To be called before `direct` reads the output from `at` on, of which `text` is known so far, if an
    /// escape of some family may begin there.
    pub(super) fn wake(&mut self, text: &[u8], at: u64, direct: &Direct) {
        if !self.awake && !matches!(self.family.decode(text), Decoded::Literal) {
            self.awake = true;
            self.at = at;
            self.reading.cursors.iter_mut().zip(&direct.cursors).for_each(|(mine, other)| mine.follow(other));
        }
    }

    /// Reads a byte, if awake; to be called after `direct` has read it.
    pub(super) fn read(&mut self, tables: &Tables, byte: u8, direct: &Direct, spans: &mut Spans) {
        if !self.awake {
            return;
        }
        self.pending.push(byte);
        self.decode(tables, spans, false);
        let at = self.at;
        self.awake = !(self.pending.is_empty() && self.reading.agrees(direct, tables, at));
    }

    /// Takes an escape that has begun for what it looks like: the output has ended.
    pub(super) fn finish(&mut self, tables: &Tables, spans: &mut Spans) {
        self.decode(tables, spans, true);
    }

    /// Where the earliest match that has begun starts.
    pub(super) fn start(&self, tables: &Tables) -> Option<u64> {
        self.awake.then(|| self.reading.start(tables, self.at))
    }

    fn decode(&mut self, tables: &Tables, spans: &mut Spans, ended: bool) {
        while let Some(&first) = self.pending.first() {
            let taken = match self.family.decode(&self.pending) {
                Decoded::More if !ended => return,
                Decoded::More | Decoded::Literal => {
                    self.reading.read(tables, first, self.at, 1, spans);
                    1
                }
                Decoded::Character { taken, is } => {
                    // The first byte of a character takes the whole escape, the others nothing.
                    let len = taken as u64;
                    for (i, &byte) in is.as_slice().iter().enumerate() {
                        let (at, len) = if i == 0 { (self.at, len) } else { (self.at + len, 0) };
                        self.reading.read(tables, byte, at, len, spans);
                    }
                    taken
                }
            };
            self.pending.drain(..taken);
            self.at += taken as u64;
        }
    }
}
