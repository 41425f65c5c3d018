//! What the session may do, as its scopes say it: which tools are worth showing, and whether a value would be
//! shown or may only be used. Decides nothing: every call is judged by the broker, whatever this says. Pure.

use crate::types::{PasswordName, SecretKey};

/// The scopes of the session, canonical, as the broker gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rights(Vec<String>);

/// How a value may reach whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Showing {
    /// It may be shown, or nothing is known: the broker decides.
    Ask,
    /// It may be used and not shown.
    UseOnly,
}

impl Rights {
    pub(super) fn new(scopes: Vec<String>) -> Self {
        Self(scopes)
    }

    /// Whether some scope is of this kind and verb, for example `secret:read`.
    pub(super) fn touch(&self, right: &str) -> bool {
        self.patterns(right).next().is_some()
    }

    pub(super) fn secret(&self, key: &SecretKey) -> Showing {
        self.showing("secret", |pattern| fits(pattern, key.as_str()))
    }

    pub(super) fn password(&self, name: &PasswordName) -> Showing {
        self.showing("password", |pattern| {
            let (domain, username) = pattern.split_once('/').unwrap_or((pattern, "*"));
            // Without a user name it could be any of the domain's.
            let wanted = name.username.as_ref().map_or("*", |username| username.as_str());
            fits(domain, name.domain.as_str()) && fits(username, wanted)
        })
    }

    fn showing(&self, kind: &str, fits: impl Fn(&str) -> bool) -> Showing {
        let allows = |verb: &str| self.patterns(&format!("{kind}:{verb}")).any(&fits);
        if !allows("read") && allows("use") { Showing::UseOnly } else { Showing::Ask }
    }

    /// The patterns of the scopes of this kind and verb; `*` for one without.
    fn patterns(&self, right: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(move |scope| {
            let rest = scope.strip_prefix(right)?;
            if rest.is_empty() { Some("*") } else { rest.strip_prefix(':') }
        })
    }
}

/// Whether the name fits a pattern in which `*` is any run of characters. Goes back to the latest star only.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Resource;

    fn rights(scopes: &[&str]) -> Rights {
        Rights::new(scopes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_kind_and_verb_is_touched_with_any_pattern_and_by_no_other_verb() {
        let rights = rights(&["secret:read:OPENAI_*", "email:read"]);
        assert!(rights.touch("secret:read") && rights.touch("email:read"));
        assert!(!rights.touch("secret:rea") && !rights.touch("secret:use") && !rights.touch("sms:read"));
    }

    #[test]
    fn a_value_is_for_use_alone_where_no_scope_shows_it() {
        let rights = rights(&["secret:read:OPENAI_*", "secret:use", "password:use:*.example.com/ci"]);
        for (key, expected) in
            [("OPENAI_KEY", Showing::Ask), ("OPENAI_", Showing::Ask), ("STRIPE_KEY", Showing::UseOnly)]
        {
            assert_eq!(rights.secret(&key.parse().unwrap()), expected, "{key}");
        }
        for (name, expected) in [
            ("password/a.example.com/ci", Showing::UseOnly),
            ("password/a.example.com/root", Showing::Ask),
            ("password/a.example.com", Showing::Ask),
            ("password/example.org/ci", Showing::Ask),
        ] {
            let Ok(Resource::Password(password)) = name.parse() else { panic!("{name}") };
            assert_eq!(rights.password(&password), expected, "{name}");
        }
        assert_eq!(Rights::new(vec![]).secret(&"A".parse().unwrap()), Showing::Ask);
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "A", true),
            ("A", "A", true),
            ("A", "AB", false),
            ("A*", "BA", false),
            ("*A", "BA", true),
            ("A*A", "A", false),
            ("A*B*C", "AxBxBxC", true),
            ("A*B*C", "AxCxB", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
