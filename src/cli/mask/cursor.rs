//! A place in one automaton, and where in the output the symbols it has read came from.
//!
//! A symbol is usually one byte of the output. Where it is not (an escape, something passed over), a gap is
//! noted; so the place of any symbol of a match that has begun is known without a note for every byte.
//! Gaps older than the match that has begun are dropped: there are never more than it has symbols.

use std::collections::VecDeque;
use std::ops::Range;

use super::automaton::{Automaton, BREAK, EVENT, OTHER, ROOT, SEPARATOR};

/// Most bytes that are passed over between two symbols of a match.
pub(super) const LONGEST_RUN: u64 = 32;

/// Where a reading of the output stands in one automaton.
#[derive(Default)]
pub(super) struct Cursor {
    pub(super) state: u32,
    /// Position in the output less number of symbols, for the next symbol.
    shift: u64,
    /// The shift before the first gap.
    base: u64,
    gaps: VecDeque<Gap>,
    /// Where the bytes passed over last end, and how many they are.
    passed_to: u64,
    run: u64,
}

/// From symbol number `from` on, the shift is `shift`.
#[derive(Clone, Copy)]
struct Gap {
    from: u64,
    shift: u64,
}

impl Cursor {
    /// Becomes a copy of `other`, in the memory it has.
    pub(super) fn follow(&mut self, other: &Self) {
        self.gaps.clear();
        self.gaps.extend(&other.gaps);
        let Self { state, shift, base, gaps: _, passed_to, run } = *other;
        (self.state, self.shift, self.base, self.passed_to, self.run) = (state, shift, base, passed_to, run);
    }

    /// Reads a symbol that is written at `at` in `len` bytes; returns where a pattern lies that it ends.
    pub(super) fn read(&mut self, automaton: &Automaton, class: u8, at: u64, len: u64) -> Option<Range<u64>> {
        if self.state != ROOT && matches!(class, BREAK | SEPARATOR) && self.pass(automaton, class, at, len) {
            return None;
        }
        let number = at - self.shift;
        let found = self.step(automaton, class, number).map(|start| start..at + len);
        if len != 1 {
            self.set_shift(automaton, number + 1, self.shift + len - 1);
        }
        found
    }

    /// Where the match that has begun starts, if the output has been read up to `at`.
    pub(super) fn start(&self, automaton: &Automaton, at: u64) -> u64 {
        match self.depth(automaton) {
            0 => at,
            depth => self.place(at - self.shift - depth),
        }
    }

    /// Symbols of the match that has begun.
    pub(super) fn depth(&self, automaton: &Automaton) -> u64 {
        u64::from(automaton.look(self.state).depth)
    }

    /// True if the byte before `at` was passed over.
    pub(super) fn is_passing(&self, at: u64) -> bool {
        self.state != ROOT && self.passed_to == at
    }

    /// True if both read the same from `at` on: what has begun has no symbol that they read differently.
    pub(super) fn agrees(&self, other: &Self, automaton: &Automaton, at: u64) -> bool {
        self.state == other.state && self.start(automaton, at) == other.start(automaton, at)
    }

    fn step(&mut self, automaton: &Automaton, class: u8, number: u64) -> Option<u64> {
        if matches!(class, OTHER | BREAK | SEPARATOR) {
            self.state = ROOT;
            return None;
        }
        let next = automaton.step(self.state, class);
        if next & EVENT == 0 {
            self.state = next;
            return None;
        }
        let facts = automaton.look(next);
        self.state = facts.onward;
        Some(self.place(number + 1 - u64::from(facts.longest)))
    }

    /// Passes over bytes inside a match; false if they end it.
    fn pass(&mut self, automaton: &Automaton, class: u8, at: u64, len: u64) -> bool {
        let goes_on = self.passed_to == at;
        self.run = if goes_on { self.run + len } else { len };
        if class == SEPARATOR && !goes_on {
            self.state = automaton.before_separator(self.state);
        }
        if self.state == ROOT || self.run > LONGEST_RUN {
            return false;
        }
        self.passed_to = at + len;
        self.set_shift(automaton, at - self.shift, self.shift + len);
        true
    }

    fn set_shift(&mut self, automaton: &Automaton, from: u64, shift: u64) {
        let first = from - self.depth(automaton);
        while let Some(&gap) = self.gaps.front().filter(|gap| gap.from <= first) {
            self.base = gap.shift;
            self.gaps.pop_front();
        }
        match self.gaps.back_mut() {
            Some(gap) if gap.from == from => gap.shift = shift,
            _ if self.state == ROOT => self.base = shift,
            _ => self.gaps.push_back(Gap { from, shift }),
        }
        self.shift = shift;
    }

    /// Where symbol `number` is written.
    fn place(&self, number: u64) -> u64 {
        let later = self.gaps.partition_point(|gap| gap.from <= number);
        number + later.checked_sub(1).and_then(|i| self.gaps.get(i)).map_or(self.base, |gap| gap.shift)
    }
}
