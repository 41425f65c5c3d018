//! What the rules need of Rust's grammar: attributes, ends of items, lists.

use proc_macro2::{Delimiter, Group, TokenTree};

/// One `#[…]` or `#![…]`.
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) content: Vec<TokenTree>,
    /// What it stands on exists in tests alone.
    pub(crate) for_tests: bool,
    /// It speaks of all that encloses it: `#![…]`.
    pub(crate) inner: bool,
    /// Where the next token is.
    pub(crate) end: usize,
}

impl Attribute {
    pub(crate) fn read(tokens: &[TokenTree], at: usize) -> Option<Self> {
        if text(tokens, at) != "#" {
            return None;
        }
        let inner = text(tokens, at + 1) == "!";
        let at = at + 1 + usize::from(inner);
        let group = group(tokens.get(at)?, Delimiter::Bracket)?;
        let content = trees(group);
        let path: Vec<String> =
            content.iter().map(word).take_while(|word| word != "(" && word != "=").collect();
        let for_tests = match path.first()?.as_str() {
            "cfg" => content.get(1).is_some_and(means_test),
            _ => path.last().is_some_and(|last| last == "test"),
        };
        Some(Self { name: path[0].clone(), content, for_tests, inner, end: at + 1 })
    }

    /// The traits that it derives, under `cfg_attr` too.
    pub(crate) fn derives(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect_derives(&self.content, &mut found);
        found
    }
}

fn collect_derives(tokens: &[TokenTree], found: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        if at > 0 && word(&tokens[at - 1]) == "derive" {
            found.extend(trees(group).iter().map(word));
        }
        collect_derives(&trees(group), found);
    }
}

/// True for `(test)` and `(all(test, …))`, false for `(any(test, …))` and `(not(test))`.
fn means_test(condition: &TokenTree) -> bool {
    let TokenTree::Group(group) = condition else { return false };
    parts(&trees(group)).iter().any(|part| match word(&part[0]).as_str() {
        "test" => true,
        "all" => part.get(1).is_some_and(means_test),
        _ => false,
    })
}

/// The name at the end of `fmt::Display` or `Vec<T>`: the last one outside angle brackets.
pub(crate) fn path_end(words: &[String]) -> Option<String> {
    let mut depth = 0_usize;
    let mut last = None;
    for word in words {
        match word.as_str() {
            "<" => depth += 1,
            ">" => depth = depth.saturating_sub(1),
            "where" => break,
            name if depth == 0 && name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                last = Some(name.to_owned())
            }
            _ => {}
        }
    }
    last
}

/// Where the item, field or statement that begins at `at` ends, by its `;`, its `{…}` or, in a list, its comma.
pub(crate) fn item_end(tokens: &[TokenTree], mut at: usize) -> usize {
    const ITEMS: [&str; 17] = [
        "pub",
        "fn",
        "mod",
        "use",
        "struct",
        "enum",
        "union",
        "impl",
        "trait",
        "const",
        "static",
        "type",
        "unsafe",
        "async",
        "extern",
        "macro_rules",
        "let",
    ];
    while let Some(attribute) = Attribute::read(tokens, at) {
        at = attribute.end;
    }
    let item = ITEMS.contains(&text(tokens, at).as_str());
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';' || !item && punct.as_char() == ',',
        _ => false,
    };
    tokens.iter().skip(at).position(ends).map_or(tokens.len(), |more| at + more + 1)
}

/// The text of the token at `at`; of a group, its opening bracket.
pub(crate) fn text(tokens: &[TokenTree], at: usize) -> String {
    tokens.get(at).map(word).unwrap_or_default()
}

pub(crate) fn word(token: &TokenTree) -> String {
    match token {
        TokenTree::Group(group) => match group.delimiter() {
            Delimiter::Parenthesis => "(".to_owned(),
            Delimiter::Brace => "{".to_owned(),
            Delimiter::Bracket => "[".to_owned(),
            Delimiter::None => String::new(),
        },
        token => token.to_string(),
    }
}

pub(crate) fn group(token: &TokenTree, delimiter: Delimiter) -> Option<&Group> {
    match token {
        TokenTree::Group(group) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

pub(crate) fn trees(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

/// Splits at the commas; no part is empty.
pub(crate) fn parts(tokens: &[TokenTree]) -> Vec<Vec<TokenTree>> {
    tokens.split(|token| word(token) == ",").filter(|part| !part.is_empty()).map(<[_]>::to_vec).collect()
}
