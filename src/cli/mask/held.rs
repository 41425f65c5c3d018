//! Output that is not released yet, and the places in it that are to be masked.
//!
//! Positions count the bytes of the output from its start. Freed memory is wiped by the allocator; what is
//! released stays in the buffer's memory until newer output replaces it. Imports nothing of this crate.

use std::ops::Range;

use super::REPLACEMENT;

#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    /// Position of the first byte held.
    start: u64,
    pub(super) spans: Spans,
    /// Where the masked text that was released last ends.
    masked_to: Option<u64>,
}

/// Places to be masked, in order, neither touching nor overlapping.
#[derive(Default)]
pub(super) struct Spans(Vec<Range<u64>>);

impl Spans {
    /// Adds a place, joining it with those that it touches.
    pub(super) fn add(&mut self, mut span: Range<u64>) {
        let first = self.0.partition_point(|other| other.end < span.start);
        let last = self.0.partition_point(|other| other.start <= span.end);
        for other in &self.0[first..last] {
            span = span.start.min(other.start)..span.end.max(other.end);
        }
        self.0.splice(first..last, [span]);
    }
}

impl Held {
    /// Moves everything before `to` to `out`, places to be masked as [`REPLACEMENT`].
    ///
    /// A place of which a part was released before is masked from there on. One that touches what was masked
    /// last adds no second replacement. So a place to be masked that reaches beyond `to` is released as a
    /// whole: whatever still joins it changes nothing.
    pub(super) fn release(&mut self, to: u64, out: &mut Vec<u8>) {
        let to = to.clamp(self.start, self.end());
        let around = self.spans.0.iter().find(|span| span.contains(&to));
        let to = around.map_or(to, |span| span.end);
        let mut at = self.start;
        let due = self.spans.0.partition_point(|span| span.start < to);
        for span in self.spans.0.drain(..due).filter(|span| span.end > self.start) {
            let start = span.start.max(at);
            out.extend_from_slice(slice(&self.bytes, self.start, at..start));
            if self.masked_to != Some(start) {
                out.extend_from_slice(REPLACEMENT);
            }
            at = span.end;
            self.masked_to = Some(at);
        }
        out.extend_from_slice(slice(&self.bytes, self.start, at..to));
        self.bytes.drain(..usize::try_from(to - self.start).unwrap_or(0));
        self.start = to;
    }

    /// Position after the last byte held.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

fn slice(bytes: &[u8], start: u64, range: Range<u64>) -> &[u8] {
    let place = |at: u64| usize::try_from(at - start).ok();
    place(range.start).zip(place(range.end)).and_then(|(from, to)| bytes.get(from..to)).unwrap_or_default()
}
