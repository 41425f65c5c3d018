//! The lists of words, by language: kept as text beside the code, where a line is easier to read and to add to than
//! a row of literals. Read once. Imports nothing of this crate.

use std::collections::HashSet;
use std::sync::LazyLock;

const CUES: &str = include_str!("cues.txt");
const LINKS: &str = include_str!("links.txt");

/// Words that are looked up whole.
pub(super) struct Words(HashSet<&'static str>);

impl Words {
    fn of(text: &'static str, name: &str) -> Self {
        Self(list(text, name).collect())
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

macro_rules! words {
    ($($name:ident = $text:ident $list:literal;)*) => {
        $(pub(super) static $name: LazyLock<Words> = LazyLock::new(|| Words::of($text, $list));)*
    };
}

words! {
    VERBS = CUES "verbs";
    BETWEEN = CUES "between";
    PARTICLES = CUES "particles";
    NUMBER = CUES "number";
    OF = CUES "of";
    YOUR = CUES "your";
    WITH = CUES "with";
    MONEY = CUES "money";
    UNITS = CUES "units";
    NEUTRAL = LINKS "neutral";
    PATHS = LINKS "paths";
    NEVER_PATHS = LINKS "never_paths";
    NEVER_HOSTS = LINKS "never_hosts";
    TOKENS = LINKS "tokens";
}

/// A list of phrases around codes.
pub(super) fn cues(name: &str) -> impl Iterator<Item = &'static str> {
    list(CUES, name)
}

/// A list of phrases at links.
pub(super) fn links(name: &str) -> impl Iterator<Item = &'static str> {
    list(LINKS, name)
}

/// The phrases of the list that a line `[name]` begins.
fn list(text: &'static str, name: &str) -> impl Iterator<Item = &'static str> {
    let begins = |line: &str| line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name);
    text.lines()
        .skip_while(move |line| !begins(line))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(" | "))
        .map(str::trim)
        .filter(|phrase| !phrase.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_has_its_phrases() {
        for name in [
            "code", "weak", "approval", "auth", "enter", "life", "guard", "over", "label", "soft", "promo",
            "trade", "meeting",
        ] {
            assert!(cues(name).count() > 10, "{name}");
        }
        for name in ["magic", "reset", "verify", "sign_in", "never"] {
            assert!(links(name).count() > 10, "{name}");
        }
        for words in [
            &VERBS,
            &BETWEEN,
            &PARTICLES,
            &MONEY,
            &NUMBER,
            &OF,
            &YOUR,
            &WITH,
            &UNITS,
            &NEUTRAL,
            &PATHS,
            &NEVER_PATHS,
            &NEVER_HOSTS,
            &TOKENS,
        ] {
            assert!(words.iter().count() > 10);
        }
        assert!(cues("code").any(|phrase| phrase == "verification code"));
        assert!(!cues("code").any(|phrase| phrase == "pin code"));
    }
}
