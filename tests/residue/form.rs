//! Forms in which a value can lie in memory or in a file.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::canary::{BLOCK, Canary, Kind};

/// How a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    Raw,
    /// As JSON writes it, without the quotes.
    Json,
    /// In base64, this many bytes into a group of three.
    Base64(usize),
    Base64Url(usize),
    Hex,
    UpperHex,
    /// With everything but letters and digits escaped.
    Url,
    /// With the unreserved characters of RFC 3986 left as they are.
    UrlReserved,
    Utf16Le,
    Utf16Be,
    /// In the Huffman code of HTTP/2 headers (RFC 7541, appendix B), this many bits into a byte.
    Huffman(usize),
    /// The bytes that a token's text stands for.
    Decoded,
    /// Some bytes of the random part in a row.
    Part,
    /// What does not fill a block of a cipher, at the end.
    LastBlock,
    /// What begins like a key or token, and is none that was planted.
    Unknown,
}

/// Bytes of a part that is looked for.
const FRAGMENT: usize = 16;
/// Bytes that no chance brings together.
const SHORTEST: usize = 10;
/// Bytes from one part to the next: of a value, `FRAGMENT + STRIDE - 1` bytes in a row are always found.
const STRIDE: usize = 4;

impl Form {
    /// Less than the whole value.
    pub(crate) fn is_fragment(self) -> bool {
        matches!(self, Self::Part | Self::LastBlock)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Every form of a canary, no two the same.
pub(crate) fn forms(canary: &Canary) -> Vec<(Form, Vec<u8>)> {
    let value = canary.value();
    let bytes = value.as_bytes();
    let random = canary.random().as_bytes();
    let mut all = vec![
        (Form::Raw, bytes.to_vec()),
        (Form::Json, json(value)),
        (Form::Hex, HEXLOWER.encode(bytes).into_bytes()),
        (Form::UpperHex, HEXUPPER.encode(bytes).into_bytes()),
        (Form::Url, utf8_percent_encode(value, NON_ALPHANUMERIC).to_string().into_bytes()),
        (Form::UrlReserved, url(value)),
        (Form::Utf16Le, value.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        (Form::Utf16Be, value.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        (Form::Part, random[random.len() - FRAGMENT..].to_vec()),
    ];
    // Whatever overwrote the rest of a value, its beginning for example, has left one of these.
    all.extend(random.windows(FRAGMENT).step_by(STRIDE).map(|part| (Form::Part, part.to_vec())));
    let last = bytes.len() / BLOCK * BLOCK;
    if bytes.len() - last >= SHORTEST {
        all.push((Form::LastBlock, bytes[last..].to_vec()));
    }
    for before in 0..3 {
        // The first group that is the value's alone, and as many whole ones as follow.
        let own = &bytes[(3 - before) % 3..];
        let own = &own[..own.len() / 3 * 3];
        all.push((Form::Base64(before), BASE64.encode(own).into_bytes()));
        all.push((Form::Base64Url(before), BASE64URL.encode(own).into_bytes()));
    }
    if canary.kind == Kind::SessionToken {
        // A token travels in a header.
        all.extend((0..8).map(|shift| (Form::Huffman(shift), huffman(random, shift))));
        all.extend(BASE64URL_NOPAD.decode(&bytes[4..]).map(|whole| (Form::Decoded, whole[16..].to_vec())));
    }
    let mut distinct = BTreeMap::new();
    for (form, text) in all {
        distinct.entry(text).or_insert(form);
    }
    distinct.into_iter().map(|(text, form)| (form, text)).collect()
}

fn json(value: &str) -> Vec<u8> {
    let quoted = serde_json::to_vec(value).expect("a text always serialises");
    quoted[1..quoted.len() - 1].to_vec()
}

fn url(value: &str) -> Vec<u8> {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(value, RESERVED).to_string().into_bytes()
}

/// The whole bytes of the text's code, where it begins `shift` bits into a byte.
fn huffman(text: &[u8], shift: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    for byte in text {
        let (code, length) = huffman_code(*byte);
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    let own = &bits[(8 - shift) % 8..];
    own.as_chunks::<8>()
        .0
        .iter()
        .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
        .collect()
}

/// RFC 7541, appendix B, for the digits of base64url and their neighbours: codes of one length count up.
fn huffman_code(byte: u8) -> (u32, u32) {
    const FIVE: &[u8] = b"012aceiost";
    const SIX: &[u8] = b" %-./3456789=A_bdfghlmnpru";
    const SEVEN: &[u8] = b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz";
    let position =
        |codes: &[u8]| codes.iter().position(|code| *code == byte).map(|at| u32::try_from(at).unwrap());
    if let Some(at) = position(FIVE) {
        return (at, 5);
    }
    if let Some(at) = position(SIX) {
        return (0x14 + at, 6);
    }
    if let Some(at) = position(SEVEN) {
        return (0x5c + at, 7);
    }
    match byte {
        b'X' => (0xfc, 8),
        b'Z' => (0xfd, 8),
        _ => panic!("not a digit of base64url"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_base64_is_found_wherever_it_begins() {
        let canary = Canary::fresh(Kind::Secret);
        let forms = forms(&canary);
        for before in ["", "a", "ab", "abc"] {
            let text = BASE64.encode(format!("{before}{}{before}", canary.value()).as_bytes());
            let found =
                forms.iter().any(|(_, form)| text.as_bytes().windows(form.len()).any(|at| at == form));
            assert!(found, "after {} bytes", before.len());
        }
    }

    #[test]
    fn the_header_code_is_that_of_the_standard() {
        // RFC 7541, C.6.1: "private" and C.4.3: "custom-value".
        assert_eq!(huffman(b"private", 0), [0xae, 0xc3, 0x77, 0x1a]);
        assert_eq!(huffman(b"custom-value", 0)[..], [0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4]);
        // "Bearer " takes five bytes, a zero five bits.
        assert_eq!(huffman(b"Bearer token", 0)[5..], huffman(b"token", 0));
        let shifted = huffman(b"token", 5);
        assert_eq!(huffman(b"0token", 0)[1..1 + shifted.len()], shifted);
    }

    #[test]
    fn what_has_to_be_escaped_has_a_form_of_its_own() {
        let canary = Canary::seen(Kind::Secret, "a \"value\" with-a-dash\\/ ä\n and a 10-byte end");
        let has = |wanted: Form| forms(&canary).iter().any(|(form, _)| *form == wanted);
        for form in [Form::Json, Form::Url, Form::UrlReserved, Form::Utf16Le, Form::Base64(2), Form::Part] {
            assert!(has(form), "{form}");
        }
    }
}
