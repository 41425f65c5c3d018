//! Looks for a value in what passed the mask, by decoding all of it in every way.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, Encoding, HEXLOWER};

/// True if the output spells the value in any way. `REPLACEMENT` stops every decoder.
pub(super) fn leaks(value: &str, output: &[u8]) -> bool {
    let readings = [output.to_vec(), percent(output), backslash(output), entities(output)];
    readings.iter().any(|reading| spells(value, reading))
}

fn spells(value: &str, output: &[u8]) -> bool {
    let bytes = value.as_bytes();
    let without = |dropped: &[u8]| -> Vec<u8> {
        output.iter().copied().filter(|byte| !dropped.contains(byte)).collect()
    };
    let form: Vec<u8> = output.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    let backwards: String = value.chars().rev().collect();
    let hex = without(b" \t\r\n:-").to_ascii_lowercase();
    let url = without(b" \t\r\n").into_iter().map(|b| match b {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    });
    let base32 = without(b" \t\r\n").to_ascii_uppercase();
    contains(output, bytes)
        || contains(output, backwards.as_bytes())
        || contains(&form, bytes)
        || contains(&without(b"\0\r"), value.replace('\r', "").as_bytes())
        || contains(&hex, HEXLOWER.encode(bytes).as_bytes())
        || holds(&url.collect::<Vec<u8>>(), &BASE64_NOPAD, 4, bytes)
        || holds(&base32, &BASE32_NOPAD, 8, bytes)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Decodes every run of letters of the encoding from every place in its group.
fn holds(text: &[u8], encoding: &Encoding, group: usize, value: &[u8]) -> bool {
    let is_letter = |byte: &u8| encoding.specification().symbols.as_bytes().contains(byte);
    text.split(|byte| !is_letter(byte)).any(|run| {
        (0..group.min(run.len())).any(|from| {
            let whole = (run.len() - from) / group * group;
            // Filled up, so that the bytes of a group that is not full are seen too.
            let mut letters = run[from..].to_vec();
            letters.resize(if whole < letters.len() { whole + group } else { whole }, b'A');
            contains(&encoding.decode(&letters).unwrap(), value)
        })
    })
}

fn percent(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

fn backslash(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut units = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let (character, len) = one_backslash(&text[at..], &mut units);
        out.extend(character);
        at += len;
    }
    out
}

/// What the text begins with, and how long that is. `units` holds the first half of a surrogate pair.
fn one_backslash(text: &[u8], units: &mut Vec<u16>) -> (Vec<u8>, usize) {
    let number = |range: std::ops::Range<usize>, radix| {
        let digits = std::str::from_utf8(text.get(range)?).ok()?;
        u32::from_str_radix(digits, radix).ok()
    };
    let character = |n: Option<u32>| n.and_then(char::from_u32).map(|c| c.to_string().into_bytes());
    let literal = || (vec![text[0]], 1);
    match text {
        [b'\\', b'u', b'{', rest @ ..] => match rest.iter().position(|&b| b == b'}') {
            Some(end) => character(number(3..3 + end, 16)).map_or_else(literal, |c| (c, end + 4)),
            None => literal(),
        },
        [b'\\', b'u', ..] => {
            let Some(unit) = number(2..6, 16) else { return literal() };
            units.push(u16::try_from(unit).unwrap());
            let decoded = String::from_utf16(units);
            if decoded.is_ok() || units.len() > 1 {
                units.clear();
            }
            (decoded.unwrap_or_default().into_bytes(), 6)
        }
        [b'\\', b'U', ..] => character(number(2..10, 16)).map_or_else(literal, |c| (c, 10)),
        [b'\\', b'x', ..] => number(2..4, 16).map_or_else(literal, |n| (vec![n.to_le_bytes()[0]], 4)),
        [b'\\', b'0'..=b'3', ..] => number(1..4, 8).map_or_else(literal, |n| (vec![n.to_le_bytes()[0]], 4)),
        [b'\\', b'n', ..] => (vec![b'\n'], 2),
        [b'\\', b'r', ..] => (vec![b'\r'], 2),
        [b'\\', b't', ..] => (vec![b'\t'], 2),
        [b'\\', other, ..] => (vec![*other], 2),
        _ => literal(),
    }
}

fn entities(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let end = text[at..].iter().take(12).position(|&b| b == b';');
        let name = end
            .filter(|_| text[at] == b'&')
            .and_then(|end| std::str::from_utf8(&text[at + 1..at + end]).ok());
        match name.and_then(entity) {
            Some(c) => {
                out.extend(c.to_string().into_bytes());
                at += end.unwrap() + 1;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        _ => match name.strip_prefix("#x") {
            Some(hex) => char::from_u32(u32::from_str_radix(hex, 16).ok()?),
            None => char::from_u32(name.strip_prefix('#')?.parse().ok()?),
        },
    }
}
