//! Scopes: the grammar of what a role may do, `<kind>:<verb>[:<pattern>]`. Pure.
//!
//! A scope is made canonical when it is read (`secret:read:openai_*` is `secret:read:OPENAI_*`) or
//! refused. A missing pattern means every name of the kind.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::glob::Glob;
use crate::types::{EmailAddress, PasswordName, PhoneNumber, SecretKey};

const MAX_LEN: usize = 512;

/// What a scope is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The secret vault; the pattern is over keys.
    Secret,
    /// The password vault; the pattern is over `domain` or `domain/username`.
    Password,
    /// Text messages; the pattern of `send` is over numbers.
    Sms,
    /// Mail; the pattern of `send` is over addresses.
    Email,
    /// Sign-in tokens.
    Sso,
    /// The identity itself.
    Identity,
}

/// What may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// The value is shown to the caller.
    Read,
    /// The value may only be injected, never shown to a model.
    Use,
    /// Names only.
    List,
    /// Change or delete.
    Write,
    /// Make a new one.
    Create,
    /// Send a message.
    Send,
    /// Wait for a code.
    Await,
    /// Have a token made.
    Mint,
}

/// Every verb that means something for a kind, and whether it takes a pattern.
const GRAMMAR: [(Kind, Verb, bool); 18] = [
    (Kind::Secret, Verb::Read, true),
    (Kind::Secret, Verb::Use, true),
    (Kind::Secret, Verb::List, true),
    (Kind::Secret, Verb::Write, true),
    (Kind::Password, Verb::Read, true),
    (Kind::Password, Verb::Use, true),
    (Kind::Password, Verb::List, true),
    (Kind::Password, Verb::Write, true),
    (Kind::Password, Verb::Create, true),
    (Kind::Sms, Verb::Read, false),
    (Kind::Sms, Verb::Await, false),
    (Kind::Sms, Verb::Send, true),
    (Kind::Email, Verb::Read, false),
    (Kind::Email, Verb::Await, false),
    (Kind::Email, Verb::Send, true),
    (Kind::Sso, Verb::Mint, false),
    (Kind::Identity, Verb::Read, false),
    (Kind::Identity, Verb::Create, false),
];

const KINDS: [(&str, Kind); 6] = [
    ("secret", Kind::Secret),
    ("password", Kind::Password),
    ("sms", Kind::Sms),
    ("email", Kind::Email),
    ("sso", Kind::Sso),
    ("identity", Kind::Identity),
];

const VERBS: [(&str, Verb); 8] = [
    ("read", Verb::Read),
    ("use", Verb::Use),
    ("list", Verb::List),
    ("write", Verb::Write),
    ("create", Verb::Create),
    ("send", Verb::Send),
    ("await", Verb::Await),
    ("mint", Verb::Mint),
];

/// One canonical scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    kind: Kind,
    verb: Verb,
    pattern: Pattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(Glob),
    Password { domain: Glob, username: Glob },
}

/// The name that a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    /// The request is about the kind as a whole.
    None,
    /// A secret's key.
    Secret(&'a SecretKey),
    /// A password. Without a user name it could be any of the domain's.
    Password(&'a PasswordName),
    /// Whom a mail goes to.
    Address(&'a EmailAddress),
    /// Whom a text message goes to.
    Number(&'a PhoneNumber),
}

/// Why a scope was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// Not `<kind>:<verb>[:<pattern>]`, or too long.
    #[error("a scope is <kind>:<verb>[:<pattern>], for example secret:read:OPENAI_*")]
    Form,
    /// Unknown kind.
    #[error("unknown kind; one of secret, password, sms, email, sso, identity")]
    Kind,
    /// The verb is unknown or means nothing for this kind.
    #[error(
        "this kind has no such verb (secret: read use list write; password: read use list write create; sms, email: read await send; sso: mint; identity: read create)"
    )]
    Verb,
    /// This scope takes no pattern.
    #[error("this scope takes no pattern")]
    NoPattern,
    /// The pattern holds a character that no name of the kind can have.
    #[error("the pattern holds a character that no such name can have")]
    Pattern,
}

impl Scope {
    /// Whether this scope allows the verb on the name.
    pub fn allows(&self, kind: Kind, verb: Verb, name: Name<'_>) -> bool {
        self.kind == kind && self.verb == verb && self.pattern.fits(name)
    }

    /// Whether the name, or what it turns out to mean, is among those of this scope: a password that is asked for by
    /// its domain alone can be any of the domain's.
    pub fn concerns(&self, kind: Kind, verb: Verb, name: Name<'_>) -> bool {
        let by_domain = |domain: &Glob| match name {
            Name::Password(name) => name.username.is_none() && domain.matches(name.domain.as_str()),
            _ => false,
        };
        let fits = match &self.pattern {
            Pattern::Password { domain, .. } if by_domain(domain) => true,
            pattern => pattern.fits(name),
        };
        self.kind == kind && self.verb == verb && fits
    }

    /// Whether this scope allows the verb on at least one name of the kind.
    pub fn touches(&self, kind: Kind, verb: Verb) -> bool {
        self.kind == kind && self.verb == verb
    }

    /// The kind and the verb.
    pub fn means(&self) -> (Kind, Verb) {
        (self.kind, self.verb)
    }

    /// Whether it allows the verb on every name of the kind.
    pub fn is_for_all(&self) -> bool {
        match &self.pattern {
            Pattern::Name(glob) => glob.is_any(),
            Pattern::Password { domain, .. } => domain.is_any(),
        }
    }

    /// Whether everything that `other` allows is allowed by `self`.
    pub fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind && self.verb == other.verb && self.pattern.covers(&other.pattern)
    }
}

impl Pattern {
    fn fits(&self, name: Name<'_>) -> bool {
        match (self, name) {
            (Self::Name(glob), Name::None) => glob.is_any(),
            (Self::Name(glob), Name::Secret(key)) => glob.matches(key.as_str()),
            (Self::Name(glob), Name::Address(address)) => glob.matches(address.as_str()),
            (Self::Name(glob), Name::Number(number)) => glob.matches(number.as_str()),
            (Self::Password { domain, username }, Name::Password(name)) => {
                domain.matches(name.domain.as_str())
                    && match &name.username {
                        Some(wanted) => username.matches(wanted.as_str()),
                        None => username.is_any(),
                    }
            }
            _ => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(wide), Self::Name(narrow)) => wide.covers(narrow),
            (
                Self::Password { domain, username },
                Self::Password { domain: narrow_domain, username: narrow_username },
            ) => domain.covers(narrow_domain) && username.covers(narrow_username),
            _ => false,
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.len() > MAX_LEN {
            return Err(ScopeError::Form);
        }
        let mut parts = text.splitn(3, ':');
        let kind = named(&KINDS, parts.next()).ok_or(ScopeError::Kind)?;
        let verb = named(&VERBS, Some(parts.next().ok_or(ScopeError::Form)?)).ok_or(ScopeError::Verb)?;
        let (.., takes_pattern) =
            GRAMMAR.iter().find(|(k, v, _)| (*k, *v) == (kind, verb)).ok_or(ScopeError::Verb)?;
        let pattern = match parts.next() {
            Some(_) if !takes_pattern => return Err(ScopeError::NoPattern),
            text => pattern(kind, text.unwrap_or("*"))?,
        };
        Ok(Self { kind, verb, pattern })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(text, _)| text);
        let verb = VERBS.iter().find(|(_, verb)| *verb == self.verb).map_or("", |(text, _)| text);
        write!(f, "{kind}:{verb}")?;
        match &self.pattern {
            Pattern::Name(glob) if glob.is_any() => Ok(()),
            Pattern::Name(glob) => write!(f, ":{glob}"),
            Pattern::Password { domain, username } if username.is_any() && domain.is_any() => Ok(()),
            Pattern::Password { domain, username } if username.is_any() => write!(f, ":{domain}"),
            Pattern::Password { domain, username } => write!(f, ":{domain}/{username}"),
        }
    }
}

fn named<T: Copy>(table: &[(&str, T)], text: Option<&str>) -> Option<T> {
    table.iter().find(|(name, _)| Some(*name) == text).map(|(_, value)| *value)
}

fn pattern(kind: Kind, text: &str) -> Result<Pattern, ScopeError> {
    match kind {
        Kind::Secret => {
            let upper = text.to_ascii_uppercase();
            checked(&upper, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_').map(Pattern::Name)
        }
        Kind::Password => {
            let (domain, username) = text.split_once('/').unwrap_or((text, "*"));
            let lower = domain.to_ascii_lowercase();
            let domain =
                checked(&lower, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b))?;
            let username = checked(username, |b| b.is_ascii_graphic() || b >= 0x80)?;
            Ok(Pattern::Password { domain, username })
        }
        Kind::Email => {
            let lower = text.to_ascii_lowercase();
            checked(&lower, |b| b.is_ascii_alphanumeric() || b"@.!#$%&'+/=?^_`{|}~-".contains(&b))
                .map(Pattern::Name)
        }
        Kind::Sms => checked(text, |b| b.is_ascii_digit() || b == b'+').map(Pattern::Name),
        Kind::Sso | Kind::Identity => Ok(Pattern::Name(Glob::any())),
    }
}

fn checked(text: &str, allowed: impl Fn(u8) -> bool) -> Result<Glob, ScopeError> {
    let fits = !text.is_empty() && text.bytes().all(|b| b == b'*' || allowed(b));
    fits.then(|| Glob::new(text)).ok_or(ScopeError::Pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    fn allows_password(scope_text: &str, name: &str) -> bool {
        let crate::types::Resource::Password(name) = format!("password/{name}").parse().unwrap() else {
            panic!()
        };
        scope(scope_text).allows(Kind::Password, Verb::Read, Name::Password(&name))
    }

    #[test]
    fn a_scope_is_printed_in_its_canonical_form() {
        for (text, canonical) in [
            ("secret:read:openai_*", "secret:read:OPENAI_*"),
            ("secret:read:*", "secret:read"),
            ("secret:read:A**B", "secret:read:A*B"),
            ("password:read:GitHub.com", "password:read:github.com"),
            ("password:read:github.com/*", "password:read:github.com"),
            ("password:read:github.com/alice", "password:read:github.com/alice"),
            ("email:send:*@example.com", "email:send:*@example.com"),
            ("sso:mint", "sso:mint"),
        ] {
            assert_eq!(scope(text).to_string(), canonical);
            assert_eq!(scope(canonical), scope(text));
        }
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused() {
        for (text, error) in [
            ("", ScopeError::Kind),
            ("secret", ScopeError::Form),
            ("Secret:read", ScopeError::Kind),
            ("secret:READ", ScopeError::Verb),
            ("secret:mint", ScopeError::Verb),
            ("sso:mint:*", ScopeError::NoPattern),
            ("secret:read:", ScopeError::Pattern),
            ("secret:read:A B", ScopeError::Pattern),
            ("secret:read:../A", ScopeError::Pattern),
            ("secret:read:\u{410}", ScopeError::Pattern),
            ("password:read:github.com/", ScopeError::Pattern),
        ] {
            assert_eq!(text.parse::<Scope>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_with_a_user_name_does_not_allow_the_whole_domain() {
        assert!(allows_password("password:read:github.com", "github.com"));
        assert!(allows_password("password:read:github.com", "github.com/alice"));
        assert!(allows_password("password:read:github.com/alice", "github.com/alice"));
        assert!(!allows_password("password:read:github.com/alice", "github.com/bob"));
        assert!(!allows_password("password:read:github.com/alice", "github.com"));
        assert!(!allows_password("password:read:github.com", "evil-github.com"));
    }

    #[test]
    fn a_star_in_the_domain_does_not_reach_into_the_user_name() {
        assert!(!allows_password("password:read:*.com/alice", "github.com/bob"));
    }

    #[test]
    fn a_narrower_scope_is_covered_and_a_wider_one_is_not() {
        assert!(scope("secret:read").covers(&scope("secret:read:OPENAI_*")));
        assert!(scope("secret:read:OPENAI_*").covers(&scope("secret:read:OPENAI_API_*")));
        assert!(!scope("secret:read:OPENAI_*").covers(&scope("secret:read:*")));
        assert!(!scope("secret:read:OPENAI_*").covers(&scope("secret:write:OPENAI_A")));
        assert!(scope("password:read:github.com").covers(&scope("password:read:github.com/alice")));
        assert!(!scope("password:read:github.com/alice").covers(&scope("password:read:github.com")));
    }
}
