//! Where a call belongs in a distributed trace: the `traceparent` of W3C Trace Context, version 00, read strictly. A
//! caller chooses it freely, so it correlates logs and decides nothing.

use std::fmt;

/// A `traceparent`: 55 characters of lower-case hexadecimal digits and hyphens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    text: [u8; LENGTH],
}

/// `00-`, 32 digits, a hyphen, 16 digits, a hyphen, 2 digits.
const LENGTH: usize = 55;
const TRACE: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

impl TraceParent {
    /// Reads one. Other versions are none: there is no other yet, and nothing is lost but a correlation.
    pub fn read(text: &str) -> Option<Self> {
        let text: [u8; LENGTH] = text.as_bytes().try_into().ok()?;
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = text.iter().enumerate().all(|(at, byte)| match at {
            0 | 1 => *byte == b'0',
            2 | 35 | 52 => *byte == b'-',
            _ => digit(byte),
        });
        let absent = |range: std::ops::Range<usize>| text[range].iter().all(|byte: &u8| *byte == b'0');
        (fits && !absent(TRACE) && !absent(SPAN)).then_some(Self { text })
    }

    /// The trace, in 32 digits.
    pub fn trace_id(&self) -> &str {
        &self.as_str()[TRACE]
    }

    /// The caller's own step in it, in 16 digits.
    pub fn span_id(&self) -> &str {
        &self.as_str()[SPAN]
    }

    /// Trace, step and flags as numbers.
    pub fn ids(&self) -> ([u8; 16], [u8; 8], u8) {
        let trace = u128::from_str_radix(self.trace_id(), 16).unwrap_or_default();
        let span = u64::from_str_radix(self.span_id(), 16).unwrap_or_default();
        let flags = u8::from_str_radix(&self.as_str()[FLAGS], 16).unwrap_or_default();
        (trace.to_be_bytes(), span.to_be_bytes(), flags)
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let read = TraceParent::read(GOOD).unwrap();
        assert_eq!(read.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.span_id(), "00f067aa0ba902b7");
        assert_eq!(read.as_str(), GOOD);
        let (trace, span, flags) = read.ids();
        assert_eq!((trace[..2].to_vec(), trace[15], span[1], flags), (vec![0x4b, 0xf9], 0x36, 0xf0, 1));
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\n-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::read(text), None, "{text:?}");
        }
    }
}
