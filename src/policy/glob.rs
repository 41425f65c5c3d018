//! Patterns with `*` (any run of characters). Linear in the name for a fixed pattern, no recursion.
//! Pure; imports nothing.

use std::fmt;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Box<str>);

impl Glob {
    /// Matches everything.
    pub(super) fn any() -> Self {
        Self("*".into())
    }

    /// The caller has checked the characters. Runs of `*` mean the same as one and are folded, so that
    /// a pattern has one form.
    pub(super) fn new(pattern: &str) -> Self {
        let mut folded = String::with_capacity(pattern.len());
        for c in pattern.chars() {
            if c != '*' || !folded.ends_with('*') {
                folded.push(c);
            }
        }
        Self(folded.into())
    }

    /// True for `*`.
    pub(super) fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether the whole name fits.
    pub(super) fn matches(&self, name: &str) -> bool {
        run(self.0.as_bytes(), name.as_bytes())
    }

    /// Whether every name that fits `other` fits `self`: a `*` of `other` is only met by a `*`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        run(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Greedy match that goes back to the latest star only, which is enough for `*`.
fn run(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, consumed)) => {
                    retry = Some((after_star, consumed + 1));
                    p = after_star;
                    n = consumed + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by recursion.
    fn model(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| model(rest, &name[taken..])),
            Some((byte, rest)) => {
                name.split_first().is_some_and(|(first, name)| first == byte && model(rest, name))
            }
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_its_definition_matches(pattern in "[ab*]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(Glob::new(&pattern).matches(&name), model(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_covering_glob_matches_whatever_the_covered_one_does(wide in "[ab*]{0,6}", narrow in "[ab*]{0,6}", name in "[ab]{0,8}") {
            let (wide, narrow) = (Glob::new(&wide), Glob::new(&narrow));
            if wide.covers(&narrow) && narrow.matches(&name) {
                prop_assert!(wide.matches(&name));
            }
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        let glob = Glob::new(&"*A".repeat(64));
        assert!(!glob.matches(&"A".repeat(63)));
        assert!(!glob.matches(&"AB".repeat(4096)));
    }
}
