//! Folding of characters, for matching: `４８２` and `٤٨٢` read like `482`, `Código` like `Codigo`.
//!
//! One character becomes one, or none. Sources: the Unicode Character Database (`Nd`, `Default_Ignorable_Code_Point`,
//! canonical decompositions). Imports nothing of this crate.

/// What becomes of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// It stands for this one.
    As(char),
    /// It is shown, but belongs to the letter before it.
    Mark,
    /// It is not shown.
    Hidden,
}

/// The zero of each script; the other digits follow it.
const ZEROS: &[u32] = &[
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0,
    0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50,
    0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140,
    0x1e2f0, 0x1e950, 0x1fbf0,
];

/// U+00C0 to U+017F without accents.
const LATIN: &str = "AAAAAAACEEEEIIIIDNOOOOO×OUUUUYTsaaaaaaaceeeeiiiidnooooo÷ouuuuyty\
    AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIiIiJjKkkLlLlLlLlLlNnNnNnnNnOoOoOoOoRrRrRrSsSsSsSsTtTtTt\
    UuUuUuUuUuUuWwYyYZzZzZzs";

/// U+1E00 to U+1EFF without accents.
const LATIN_ADDITIONAL: &str = "AaBbBbBbCcDdDdDdDdDdEeEeEeEeEeFfGgHhHhHhHhHhIiIiKkKkKkLlLlLlLlMmMmMmNnNnNnNnOoOoOoOoPpPp\
    RrRrRrRrSsSsSsSsSsTtTtTtTtUuUuUuUuUuVvVvWwWwWwWwWwXxXxYyZzZzZzhtwyaſssSdAaAaAaAaAaAaAaAaAaAaAaAaEeEeEeEeEeEeEe\
    EeIiIiOoOoOoOoOoOoOoOoOoOoOoOoUuUuUuUuUuUuUuYyYyYyYyLlVvYy";

/// Folds one character.
pub(crate) fn fold(c: char) -> Folded {
    if c.is_ascii() {
        return match c {
            '\n' => Folded::As('\n'),
            '\t' | '\r' | '\x0b' | '\x0c' => Folded::As(' '),
            _ if c.is_ascii_control() => Folded::Hidden,
            _ => Folded::As(c),
        };
    }
    let code = c as u32;
    match code {
        // Spaces of every width, the blank of Braille among them.
        0xa0 | 0x1680 | 0x2000..=0x200a | 0x202f | 0x205f | 0x2800 | 0x3000 => Folded::As(' '),
        0x85 | 0x2028 | 0x2029 => Folded::As('\n'),
        _ if is_hidden(code) => Folded::Hidden,
        _ if is_mark(code) => Folded::Mark,
        0x2010..=0x2015 | 0x2212 | 0xfe58 | 0xfe63 => Folded::As('-'),
        0x2018..=0x201b | 0x2032 | 0x2bc => Folded::As('\''),
        0x201c..=0x201f | 0x2033 | 0xab | 0xbb => Folded::As('"'),
        0xc0..=0x17f => letter(LATIN, code - 0xc0, c),
        0x1e00..=0x1eff => letter(LATIN_ADDITIONAL, code - 0x1e00, c),
        // A comma between words in Chinese and Japanese, not between digits.
        0xff0c => Folded::As(c),
        0xff01..=0xff0f | 0xff1a..=0xff5e => ascii(code - 0xff01 + 0x21),
        0x1d400..=0x1d6a3 => mathematical(code),
        0x24b6..=0x24cf => ascii(code - 0x24b6 + u32::from(b'A')),
        0x24d0..=0x24e9 => ascii(code - 0x24d0 + u32::from(b'a')),
        0x2460..=0x2468 => ascii(code - 0x2460 + u32::from(b'1')),
        0x2776..=0x277e => ascii(code - 0x2776 + u32::from(b'1')),
        0x24ea | 0x24ff => Folded::As('0'),
        _ => digit(code).unwrap_or(Folded::As(other_letter(c))),
    }
}

/// The small letter, as one character.
pub(crate) fn lower(c: char) -> char {
    if c.is_ascii() { c.to_ascii_lowercase() } else { c.to_lowercase().next().unwrap_or(c) }
}

/// Zero-width and bidi controls, soft hyphens, selectors, tags, and the rest of what has no shape.
fn is_hidden(code: u32) -> bool {
    matches!(code,
        0x80..=0x9f | 0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f
        | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
        | 0xfff0..=0xfffb | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

/// Accents that stand behind their letter, vowel points, and the frame of a keycap.
fn is_mark(code: u32) -> bool {
    matches!(code,
        0x300..=0x34e | 0x350..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x5bf | 0x5c1..=0x5c2 | 0x5c4..=0x5c5
        | 0x5c7 | 0x610..=0x61a | 0x640 | 0x64b..=0x65f | 0x670 | 0x93c | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff
        | 0x20d0..=0x20f0 | 0xfe20..=0xfe2f)
}

fn letter(table: &str, at: u32, c: char) -> Folded {
    Folded::As(table.chars().nth(at as usize).unwrap_or(c))
}

fn ascii(code: u32) -> Folded {
    char::from_u32(code).map_or(Folded::Hidden, Folded::As)
}

/// The alphabets in bold, italic, script and so on: 26 capitals and 26 small letters each.
fn mathematical(code: u32) -> Folded {
    let at = (code - 0x1d400) % 52;
    ascii(if at < 26 { at + u32::from(b'A') } else { at - 26 + u32::from(b'a') })
}

fn digit(code: u32) -> Option<Folded> {
    let zero = ZEROS[..ZEROS.partition_point(|zero| *zero <= code)].last()?;
    (code - zero < 10).then(|| ascii(code - zero + u32::from(b'0')))
}

/// Letters of other scripts that are written with and without a mark.
fn other_letter(c: char) -> char {
    match c {
        'ё' | 'Ё' => 'е',
        'й' | 'Й' => 'и',
        'أ' | 'إ' | 'آ' | 'ٱ' => 'ا',
        'ى' | 'ی' => 'ي',
        'ة' => 'ه',
        'ک' => 'ك',
        'ά' => 'α',
        'έ' => 'ε',
        'ή' => 'η',
        'ί' => 'ι',
        'ό' => 'ο',
        'ύ' => 'υ',
        'ώ' => 'ω',
        _ => c,
    }
}
