//! Character references of HTML: `&amp;`, `&#52;`, `&#x34;`. Imports nothing of this crate.

/// Longest reference that is looked for, without its `&`.
const LONGEST: usize = 12;

/// The named ones that mail programs and services write.
const NAMED: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("ensp", '\u{2002}'),
    ("emsp", '\u{2003}'),
    ("thinsp", '\u{2009}'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
    ("lrm", '\u{200e}'),
    ("rlm", '\u{200f}'),
    ("shy", '\u{ad}'),
    ("ZeroWidthSpace", '\u{200b}'),
    ("NoBreak", '\u{2060}'),
    ("numsp", '\u{2007}'),
    ("puncsp", '\u{2008}'),
    ("hairsp", '\u{200a}'),
    ("num", '#'),
    ("colon", ':'),
    ("equals", '='),
    ("period", '.'),
    ("comma", ','),
    ("sol", '/'),
    ("commat", '@'),
    ("percnt", '%'),
    ("dollar", '$'),
    ("lowbar", '_'),
    ("ast", '*'),
    ("hyphen", '\u{2010}'),
    ("dash", '\u{2010}'),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("ndash", '–'),
    ("mdash", '—'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("laquo", '«'),
    ("raquo", '»'),
    ("hellip", '…'),
    ("bull", '•'),
    ("middot", '·'),
    ("times", '×'),
    ("copy", '©'),
    ("reg", '®'),
    ("trade", '™'),
    ("euro", '€'),
    ("pound", '£'),
    ("yen", '¥'),
    ("cent", '¢'),
    ("sect", '§'),
    ("deg", '°'),
    ("rarr", '→'),
    ("larr", '←'),
    ("iexcl", '¡'),
    ("iquest", '¿'),
    ("szlig", 'ß'),
];

/// Bases of letters whose names say their accent: `eacute`, `Uuml`, `ccedil`.
const ACCENTS: &[(&str, char)] = &[
    ("acute", '\u{301}'),
    ("grave", '\u{300}'),
    ("circ", '\u{302}'),
    ("uml", '\u{308}'),
    ("tilde", '\u{303}'),
    ("cedil", '\u{327}'),
    ("ring", '\u{30a}'),
    ("slash", '\u{338}'),
    ("caron", '\u{30c}'),
];

/// Reads the reference that follows a `&`: its characters, and how many bytes it takes.
pub(super) fn read(after: &str) -> Option<(char, Option<char>, usize)> {
    let bytes = &after.as_bytes()[..after.len().min(LONGEST + 4)];
    if bytes.first() == Some(&b'#') {
        let (value, taken) = number(&bytes[1..])?;
        return Some((character(value), None, taken + 1));
    }
    let length = bytes.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let name = &after[..length];
    let semicolon = usize::from(bytes.get(length) == Some(&b';'));
    if let Some((_, c)) = NAMED.iter().find(|(known, _)| *known == name) {
        return Some((*c, None, length + semicolon));
    }
    let mut letters = name.chars();
    let base = letters.next()?;
    let (_, accent) = ACCENTS.iter().find(|(known, _)| *known == letters.as_str())?;
    Some((base, Some(*accent), length + semicolon))
}

/// Text with its references resolved.
pub(super) fn resolve(text: &str) -> String {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        resolved.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match read(rest) {
            Some((c, accent, taken)) => {
                resolved.push(c);
                resolved.extend(accent);
                rest = &rest[taken..];
            }
            None => resolved.push('&'),
        }
    }
    resolved.push_str(rest);
    resolved
}

/// `52;` or `x34;`: the value, and how many bytes.
fn number(bytes: &[u8]) -> Option<(u32, usize)> {
    let (radix, from) = if matches!(bytes.first(), Some(b'x' | b'X')) { (16, 1) } else { (10, 0) };
    let digits = bytes[from..].iter().take_while(|b| char::from(**b).is_digit(radix)).count();
    let text = std::str::from_utf8(&bytes[from..from + digits]).ok()?;
    let value = u32::from_str_radix(text, radix).ok()?;
    let semicolon = usize::from(bytes.get(from + digits) == Some(&b';'));
    Some((value, from + digits + semicolon))
}

fn character(value: u32) -> char {
    match value {
        0 => '\u{fffd}',
        // As browsers read the Windows code page.
        0x91 | 0x92 => '\'',
        0x93 | 0x94 => '"',
        0x96 | 0x97 => '-',
        _ => char::from_u32(value).unwrap_or('\u{fffd}'),
    }
}
