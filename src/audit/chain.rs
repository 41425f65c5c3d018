//! The hash chain: how records are sealed and checked. Pure: no file, no clock.
//!
//! One record is one line, in exactly this form:
//!
//! ```text
//! {"seq":N,"prev":"<64 hex>",<the record's own fields>,"hash":"<64 hex>"}
//! ```
//!
//! `hash` is BLAKE3 over the bytes of the line up to `,"hash"`, with the closing brace: over the record
//! without its hash. `prev` is the hash of the record before; the first record has `seq` 1 and 64 zeros. BLAKE3
//! because the hash is taken under the one lock of the trail, and costs a quarter of SHA-256 where a processor has
//! no instructions for that. Lines are checked byte by byte and never parsed and written again, so a change
//! of white space, of key order or of a repeated key is a change like any other.
//!
//! The chain is not keyed: who may write the file can write another history from any record on.
//! What it finds is a change by anybody who does not redo the rest, and the newest hash, kept
//! elsewhere, pins everything before it.

use std::fmt;
use std::io::{self, BufRead, Read};

use data_encoding::HEXLOWER;
use itoa::Buffer;
use thiserror::Error;

/// Bytes of the longest line that is read. Records stay far below.
const MAX_LINE: usize = 16 << 10;
const SEQUENCE: &[u8] = b"{\"seq\":";
const PREVIOUS: &[u8] = b",\"prev\":\"";
const HASH: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";
const HEX: usize = 64;
/// What the frame adds to a record's own fields, at most.
pub(super) const FRAME: usize = 256;
/// What the first record of a file says that continues another one.
const BEGINS_FILE: &[u8] = b"\"event\":\"audit.rotated\"";

/// BLAKE3 of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

/// The newest record of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 before the first.
    pub sequence: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { sequence: 0, hash: Hash([0; 32]) };
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Not in the form above.
    #[error("this is not a record of the audit trail")]
    Malformed,
    /// The hash does not fit the bytes.
    #[error("the record was changed")]
    Changed,
    /// The number jumps ahead.
    #[error("records {from} to {to} before it are missing")]
    Missing {
        /// The first that is not there.
        from: u64,
        /// The last that is not there.
        to: u64,
    },
    /// The number was there before.
    #[error("record {sequence} is repeated or out of order")]
    Repeated {
        /// The number.
        sequence: u64,
    },
    /// The number fits and the hash of the record before does not.
    #[error("it does not continue the record before it")]
    Discontinued,
    /// The file ends before the newest record that was written.
    #[error("the end is missing: records up to {head} were written, the last one here is {last}")]
    Truncated {
        /// The last complete record.
        last: u64,
        /// The newest one, by the head file.
        head: u64,
    },
    /// The record that the head file names is another one here.
    #[error("it is not the record that the head file names")]
    HeadMismatch,
    /// The head file is gone or not in its form.
    #[error("the head file is missing or damaged, so a missing end could not be noticed")]
    HeadMissing,
}

/// Puts the record's own fields, a JSON object with at least one of them, at the end of the chain.
/// Returns the line, with its line break, and the head that follows.
pub fn seal(head: &Head, fields: &str) -> (String, Head) {
    let mut line = String::new();
    let head = seal_into(&mut line, head, fields);
    (line, head)
}

/// The same at the end of a text.
pub(super) fn seal_into(text: &mut String, head: &Head, fields: &str) -> Head {
    let sequence = head.sequence + 1;
    let own = fields.strip_prefix('{').unwrap_or(fields);
    let own = own.strip_suffix('}').unwrap_or(own);
    text.reserve(own.len() + FRAME);
    let start = text.len();
    text.push_str("{\"seq\":");
    text.push_str(Buffer::new().format(sequence));
    text.push_str(",\"prev\":\"");
    head.hash.push_hex(text);
    text.push_str("\",");
    text.push_str(own);
    let hash = hash_of(&text.as_bytes()[start..]);
    text.push_str(",\"hash\":\"");
    hash.push_hex(text);
    text.push_str("\"}\n");
    Head { sequence, hash }
}

/// Checks that `line`, without its line break, is the record after `head`, and returns it as the new
/// head.
///
/// # Errors
/// The [`Fault`] that tells most: a record that was changed is reported as such even if its number is
/// wrong as well.
pub fn check(head: &Head, line: &[u8]) -> Result<Head, Fault> {
    let record = Record::of(line).ok_or(Fault::Malformed)?;
    record.verify()?;
    let next = head.sequence.checked_add(1).ok_or(Fault::Malformed)?;
    match record.sequence {
        sequence if sequence > next => Err(Fault::Missing { from: next, to: sequence - 1 }),
        sequence if sequence < next => Err(Fault::Repeated { sequence }),
        _ if record.previous != head.hash => Err(Fault::Discontinued),
        sequence => Ok(Head { sequence, hash: record.hash }),
    }
}

/// The head that the first line of a file says it continues: [`Head::START`], or that of a file which
/// was set aside, and then the line is the record of that change.
///
/// # Errors
/// [`Fault::Discontinued`] for a first record that claims a past, [`Fault::Missing`] for a later one
/// that does not begin a file.
pub fn continues(line: &[u8]) -> Result<Head, Fault> {
    let record = Record::of(line).ok_or(Fault::Malformed)?;
    let before = Head { sequence: record.sequence - 1, hash: record.previous };
    match before.sequence {
        0 if before == Head::START => Ok(before),
        0 => Err(Fault::Discontinued),
        _ if record.begins_file() => Ok(before),
        to => Err(Fault::Missing { from: 1, to }),
    }
}

/// What a walk over the lines of one file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// What the first record continues.
    pub before: Head,
    /// The last good record; `before` if there is none.
    pub head: Head,
    /// Bytes of the good records.
    pub bytes: u64,
    /// Bytes after the last line break: a record that was not finished.
    pub unfinished: u64,
    /// The first line that is wrong, counted from 1; nothing after it was looked at.
    pub breach: Option<(u64, Fault)>,
}

/// Checks all lines in order. `after` is the record before the first one, where it is known.
/// `each` sees the offset and the new head of every good record.
///
/// # Errors
/// Those of the reader.
pub fn walk(
    mut reader: impl BufRead,
    after: Option<Head>,
    mut each: impl FnMut(u64, &Head),
) -> io::Result<Walk> {
    let start = after.unwrap_or(Head::START);
    let mut walk = Walk { before: start, head: start, bytes: 0, unfinished: 0, breach: None };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            match length > MAX_LINE {
                true => walk.breach = Some((number, Fault::Malformed)),
                false => walk.unfinished = length as u64,
            }
            break;
        }
        let checked = match after {
            None if number == 1 => continues(&line).and_then(|before| {
                (walk.before, walk.head) = (before, before);
                check(&before, &line)
            }),
            _ => check(&walk.head, &line),
        };
        match checked {
            Ok(head) => {
                each(walk.bytes, &head);
                walk.head = head;
                walk.bytes += length as u64;
            }
            Err(fault) => {
                walk.breach = Some((number, fault));
                break;
            }
        }
    }
    Ok(walk)
}

/// A line taken apart, its bytes untouched.
struct Record<'a> {
    sequence: u64,
    previous: Hash,
    /// Everything before `,"hash"`.
    body: &'a [u8],
    hash: Hash,
}

impl<'a> Record<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let (body, seal) = line.split_at_checked(line.len().checked_sub(HASH.len() + HEX + END.len())?)?;
        let hash = Hash::of_hex(seal.strip_prefix(HASH)?.strip_suffix(END)?)?;
        let rest = body.strip_prefix(SEQUENCE)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at(digits);
        let sequence: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let plain = sequence > 0 && number.first() != Some(&b'0');
        let (previous, rest) = rest.strip_prefix(PREVIOUS)?.split_at_checked(HEX)?;
        let framed = plain && rest.starts_with(b"\",\"");
        framed.then_some(Self { sequence, previous: Hash::of_hex(previous)?, body, hash })
    }

    /// A text inside the record cannot pass for this: its quotation marks are escaped.
    fn begins_file(&self) -> bool {
        self.body.windows(BEGINS_FILE.len()).any(|window| window == BEGINS_FILE)
    }

    fn verify(&self) -> Result<(), Fault> {
        if hash_of(self.body) == self.hash { Ok(()) } else { Err(Fault::Changed) }
    }
}

/// The hash of a record, given without its closing brace.
fn hash_of(body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    hasher.update(b"}");
    Hash(*hasher.finalize().as_bytes())
}

impl Hash {
    /// Reads 64 characters of lower-case hexadecimal.
    pub fn of_hex(hex: &[u8]) -> Option<Self> {
        let mut hash = [0; 32];
        let whole = hex.len() == HEX && HEXLOWER.decode_mut(hex, &mut hash).is_ok();
        whole.then_some(Self(hash))
    }

    pub(super) fn push_hex(&self, text: &mut String) {
        HEXLOWER.encode_append(&self.0, text);
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of a chain of `count` records, each with its line break.
    fn chain(count: u64) -> Vec<String> {
        let mut head = Head::START;
        let sealed = (0..count).map(|at| {
            let (line, next) = seal(&head, &format!("{{\"event\":\"lease.read\",\"at\":{at}}}"));
            head = next;
            line
        });
        sealed.collect()
    }

    fn walked(text: &[u8]) -> Walk {
        walk(text, None, |_, _| {}).unwrap()
    }

    /// The first wrong line. `text` as it is must not pass for the whole of `lines`.
    fn breach(lines: &[String]) -> Option<(u64, Fault)> {
        walked(lines.concat().as_bytes()).breach
    }

    #[test]
    fn a_chain_that_nobody_touched_is_whole() {
        let lines = chain(5);
        let walk = walked(lines.concat().as_bytes());
        assert_eq!((walk.before, walk.head.sequence, walk.breach), (Head::START, 5, None));
        assert_eq!((walk.bytes, walk.unfinished), (lines.concat().len() as u64, 0));
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let line = chain(1).remove(0);
        let zeros = "0".repeat(64);
        let body = format!("{{\"seq\":1,\"prev\":\"{zeros}\",\"event\":\"lease.read\",\"at\":0");
        let digest = blake3::hash(format!("{body}}}").as_bytes()).to_hex();
        assert_eq!(line, format!("{body},\"hash\":\"{digest}\"}}\n"));
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn a_dropped_record_is_missing() {
        let mut lines = chain(5);
        lines.drain(2..4);
        assert_eq!(breach(&lines), Some((3, Fault::Missing { from: 3, to: 4 })));
    }

    #[test]
    fn a_repeated_record_is_noticed() {
        let mut lines = chain(5);
        lines.insert(2, lines[1].clone());
        assert_eq!(breach(&lines), Some((3, Fault::Repeated { sequence: 2 })));
    }

    #[test]
    fn a_record_of_another_chain_does_not_continue_this_one() {
        let mut lines = chain(3);
        let (other, head) = seal(&Head::START, "{\"event\":\"other\"}");
        lines[0] = other;
        assert_eq!(breach(&lines), Some((2, Fault::Discontinued)));
        assert_eq!(head.sequence, 1);
    }

    #[test]
    fn a_first_record_that_claims_a_past_is_refused() {
        let past = Head { sequence: 0, hash: Hash([7; 32]) };
        assert_eq!(breach(&[seal(&past, "{\"event\":\"x\"}").0]), Some((1, Fault::Discontinued)));
    }

    #[test]
    fn a_later_file_begins_with_the_record_of_the_change() {
        let past = Head { sequence: 3, hash: Hash([7; 32]) };
        let begins = seal(&past, "{\"event\":\"audit.rotated\",\"previous\":\"audit.1.jsonl\"}").0;
        let walk = walked(begins.as_bytes());
        assert_eq!((walk.before, walk.head.sequence, walk.breach), (past, 4, None));
        let claims = serde_json::to_string("\"event\":\"audit.rotated\"").unwrap();
        let quotes = seal(&past, &format!("{{\"event\":\"session.opened\",\"reason\":{claims}}}")).0;
        assert_eq!(breach(&[quotes]), Some((1, Fault::Missing { from: 1, to: 3 })));
    }

    #[test]
    fn other_forms_of_the_same_json_are_not_the_same_record() {
        let line = chain(1).remove(0);
        for other in [
            line.replacen("\"event\":", "\"event\": ", 1),
            line.replacen("{\"seq\":1,", "{ \"seq\":1,", 1),
            line.replacen("\"seq\":1", "\"seq\":01", 1),
            line.replacen("\"seq\":1", "\"seq\":+1", 1),
            line.replacen("\"event\":\"lease.read\",\"at\":0", "\"at\":0,\"event\":\"lease.read\"", 1),
            line.replacen("\"at\":0", "\"at\":0,\"at\":0", 1),
            line.replacen("lease", "l\\u0065ase", 1),
            line.replace('\n', " \n"),
            line.replace('\n', "\r\n"),
            format!(" {line}"),
            format!("\n{line}"),
            format!("\u{feff}{line}"),
            line.to_uppercase(),
        ] {
            assert!(walked(other.as_bytes()).breach.is_some(), "{other}");
        }
    }

    #[test]
    fn a_number_has_one_form_even_where_its_hash_fits() {
        let zeros = "0".repeat(64);
        let body = format!("{{\"seq\":01,\"prev\":\"{zeros}\",\"event\":\"x\"");
        let line = format!("{body},\"hash\":\"{}\"}}\n", hash_of(body.as_bytes()));
        assert_eq!(breach(&[line.replacen("01", "1", 1)]), Some((1, Fault::Changed)));
        assert_eq!(breach(&[line]), Some((1, Fault::Malformed)));
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_the_longest_record() {
        let endless = io::repeat(b'x').take(1 << 30);
        let walk = walk(io::BufReader::new(endless), None, |_, _| {}).unwrap();
        assert_eq!(walk.breach, Some((1, Fault::Malformed)));
    }

    #[test]
    fn an_end_that_was_cut_anywhere_never_passes_for_the_whole() {
        let text = chain(4).concat();
        let whole = walked(text.as_bytes());
        for cut in 0..text.len() {
            let walk = walked(&text.as_bytes()[..cut]);
            assert_ne!(walk.head, whole.head, "cut at {cut}");
            assert_eq!(walk.bytes + walk.unfinished, cut as u64);
        }
    }

    proptest! {
        #[test]
        fn a_change_of_any_byte_is_found(at in 0usize..4096, byte: u8) {
            let text = chain(4).concat().into_bytes();
            let whole = walked(&text);
            let at = at % text.len();
            prop_assume!(text[at] != byte);
            let mut changed = text.clone();
            changed[at] = byte;
            let walk = walked(&changed);
            // The last line break is the only byte whose loss leaves an unfinished record instead.
            prop_assert!(walk.breach.is_some() || (at == text.len() - 1 && walk.head != whole.head));
        }

        #[test]
        fn an_inserted_or_removed_byte_is_found(at in 0usize..4096, byte in proptest::option::of(any::<u8>())) {
            let text = chain(4).concat().into_bytes();
            let whole = walked(&text);
            let at = at % text.len();
            let mut changed = text.clone();
            match byte {
                Some(byte) => changed.insert(at, byte),
                None => drop(changed.remove(at)),
            }
            prop_assume!(changed != text);
            let walk = walked(&changed);
            prop_assert!(walk.breach.is_some() || walk.head != whole.head);
        }

        #[test]
        fn any_other_order_of_the_lines_is_found(lines in proptest::collection::vec(0usize..6, 0..8)) {
            let text = chain(6);
            let other: Vec<String> = lines.iter().map(|&at| text[at].clone()).collect();
            let walk = walked(other.concat().as_bytes());
            let run = lines.iter().copied().eq(0..lines.len());
            prop_assert_eq!(walk.breach.is_none(), run, "only an unbroken run from the first record passes");
        }
    }
}
