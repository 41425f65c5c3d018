//! Ways to spell a value, written apart from those of the mask.

use data_encoding::{
    BASE32, BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER,
};

/// A xorshift generator (Marsaglia, 2003); the seed is not 0.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % most
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Every spelling that the mask promises to find, by name.
pub(super) fn spellings(value: &str, dice: &mut Dice) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = value.as_bytes();
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![
        ("raw", bytes.to_vec()),
        ("with CRLF", value.replace('\n', "\r\n").into_bytes()),
        ("UTF-16 LE", value.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16 BE", value.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("double quotes doubled", value.replace('"', "\"\"").into_bytes()),
        ("single quotes doubled", value.replace('\'', "''").into_bytes()),
        ("single quotes for a shell", value.replace('\'', "'\\''").into_bytes()),
    ];
    if value.is_ascii() {
        all.push(("UTF-32 LE", bytes.iter().flat_map(|&b| [b, 0, 0, 0]).collect()));
    }
    all.extend(texts(value, bytes, dice).into_iter().map(|(name, text)| (name, text.into_bytes())));
    all
}

fn texts(value: &str, bytes: &[u8], dice: &mut Dice) -> Vec<(&'static str, String)> {
    let base64 = BASE64.encode(bytes);
    let hex = HEXLOWER.encode(bytes);
    let json = serde_json::to_string(value).unwrap();
    let json = json[1..json.len() - 1].to_owned();
    let lines = wrap(&base64, 1 + dice.below(20), "\n");
    vec![
        ("base64", base64.clone()),
        ("base64 without padding", BASE64_NOPAD.encode(bytes)),
        ("URL-safe base64", BASE64URL.encode(bytes)),
        ("URL-safe base64 without padding", BASE64URL_NOPAD.encode(bytes)),
        ("base64 in lines", lines.clone()),
        ("base64 in lines with CRLF", wrap(&base64, 1 + dice.below(76), "\r\n")),
        ("base64 in indented lines", wrap(&base64, 1 + dice.below(76), "\n    ")),
        ("base64 in lines in JSON", lines.replace('\n', "\\n").replace('/', "\\/")),
        ("base64 in a query", base64.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D")),
        ("base32", BASE32.encode(bytes)),
        ("base32 in small letters", BASE32_NOPAD.encode(bytes).to_lowercase()),
        ("base32 in lines", wrap(&BASE32.encode(bytes), 1 + dice.below(20), "\n")),
        ("hex", hex.clone()),
        ("hex in capitals", HEXUPPER.encode(bytes)),
        ("hex in mixed case", mixed(&hex, dice)),
        ("hex in lines", wrap(&hex, 1 + dice.below(20), "\n")),
        ("hex in lines with CRLF in JSON", wrap(&hex, 1 + dice.below(60), "\\r\\n")),
        ("hex with blanks", wrap(&hex, 2, " ")),
        ("hex with colons", wrap(&HEXUPPER.encode(bytes), 2, ":")),
        ("percent, what must be", percent(bytes, dice, |b, _| !b.is_ascii_alphanumeric())),
        ("percent, all", percent(bytes, dice, |_, _| true)),
        ("percent, some", percent(bytes, dice, |b, dice| matches!(b, b'%') || dice.flip())),
        ("form", percent(bytes, dice, |b, _| b != b' ' && !b.is_ascii_alphanumeric()).replace(' ', "+")),
        ("JSON", json.clone()),
        ("JSON with escaped slashes", json.replace('/', "\\/")),
        ("JSON in ASCII", utf16(value, |c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'))),
        ("JSON, all escaped", mixed(&utf16(value, |_| false), dice).replace("\\U", "\\u")),
        ("code points in braces", value.chars().map(|c| format!("\\u{{{:x}}}", u32::from(c))).collect()),
        ("long code points", value.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect()),
        ("hex escapes", bytes.iter().map(|b| format!("\\x{b:02x}")).collect()),
        ("octal escapes", bytes.iter().map(|b| format!("\\{b:03o}")).collect()),
        ("backslash for a shell", shell(value)),
        ("entities by name", named(value)),
        ("decimal entities", value.chars().map(|c| format!("&#{};", u32::from(c))).collect()),
        ("hex entities", value.chars().map(|c| format!("&#x{:X};", u32::from(c))).collect()),
        ("backwards", value.trim().chars().rev().collect()),
    ]
}

fn wrap(text: &str, width: usize, end: &str) -> String {
    let lines: Vec<&str> =
        text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(end)
}

fn mixed(text: &str, dice: &mut Dice) -> String {
    text.chars().map(|c| if dice.flip() { c.to_ascii_uppercase() } else { c }).collect()
}

fn percent(bytes: &[u8], dice: &mut Dice, which: impl Fn(u8, &mut Dice) -> bool) -> String {
    // A byte of a longer character cannot stand alone in a text.
    let mut text = String::new();
    for &byte in bytes {
        if byte >= 0x80 || which(byte, dice) {
            text.push_str(&format!("%{}", mixed(&format!("{byte:02x}"), dice)));
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

fn utf16(value: &str, plain: impl Fn(char) -> bool) -> String {
    let escaped = |c: char| -> String {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    value.chars().map(|c| if plain(c) { c.to_string() } else { escaped(c) }).collect()
}

fn shell(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| (c.is_ascii_punctuation() || c == ' ').then_some('\\').into_iter().chain([c]))
        .collect()
}

fn named(value: &str) -> String {
    let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    value.replace('"', "&quot;").replace('\'', "&#39;")
}
