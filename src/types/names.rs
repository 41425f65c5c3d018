//! Names that people and agents write: bounded, without control characters or look-alikes, in one
//! canonical form each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Why a name was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// A UUID in hyphenated hexadecimal form was expected.
    #[error("expected a UUID such as 6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a")]
    Uuid,
    /// A session or lease handle was expected.
    #[error("expected a handle as the broker printed it")]
    Handle,
    /// See [`RoleName`].
    #[error(
        "a role name is 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
    )]
    Role,
    /// See [`IdentityName`].
    #[error("an identity name is 1 to 128 printable characters without leading or trailing space")]
    Identity,
    /// See [`SecretKey`].
    #[error("a secret key is 1 to 128 characters of A-Z, 0-9 and '_', and begins with a letter")]
    SecretKey,
    /// See [`Domain`].
    #[error(
        "a domain is a host name such as github.com: no scheme, port, path or trailing dot; write non-ASCII names in their xn-- form"
    )]
    Domain,
    /// See [`Username`].
    #[error("a user name is 1 to 256 printable characters without leading or trailing space")]
    Username,
    /// See [`Reason`].
    #[error("a reason is at most 256 characters without control characters")]
    Reason,
    /// See [`Resource`](super::Resource).
    #[error("expected secret/KEY, password/DOMAIN[/USERNAME], sso/token, identity/email or identity/phone")]
    Resource,
    /// See [`Channel`](super::Channel).
    #[error("a channel is email or sms")]
    Channel,
    /// See [`MessageRef`](super::MessageRef).
    #[error("expected email/NUMBER or sms/NUMBER, as the list of messages has it")]
    Message,
    /// See [`EmailAddress`](super::EmailAddress).
    #[error("expected one address such as jane@example.com: no display name, quotes or non-ASCII characters")]
    Email,
    /// See [`PhoneNumber`](super::PhoneNumber).
    #[error("expected a number in international form such as +15550100001")]
    Phone,
    /// See [`Reference`](super::Reference).
    #[error("expected ravi://secret/KEY, ravi://password/DOMAIN[/USERNAME][#username] or ravi://sso/token")]
    Reference,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $error:ident, $canonical:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The canonical text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let canonical: fn(&str) -> Option<String> = $canonical;
                canonical(text).map(|text| Self(text.into())).ok_or(NameError::$error)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// Name of a role in the configuration: `[a-z0-9][a-z0-9._-]{0,63}`.
    RoleName, Role, |text| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let first = text.bytes().next()?;
        let fits = text.len() <= 64 && first.is_ascii_alphanumeric() && text.bytes().all(allowed);
        fits.then(|| text.to_owned())
    }
);

name_type!(
    /// Name of a Ravi identity (`Identity.name`), compared as it is.
    IdentityName, Identity, |text| printable(text, 128)
);

name_type!(
    /// Key of a Ravi secret. Ravi raises letters and then demands `^[A-Z][A-Z0-9_]*$`; so do we,
    /// before every call.
    SecretKey, SecretKey, |text| {
        let key = text.to_ascii_uppercase();
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let first = key.bytes().next()?;
        let fits = key.len() <= 128 && first.is_ascii_uppercase() && key.bytes().all(allowed);
        fits.then_some(key)
    }
);

name_type!(
    /// Domain of a password entry: letters, digits and hyphens in labels (RFC 1123), lower case.
    Domain, Domain, |text| {
        let domain = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        (domain.len() <= 253 && domain.split('.').all(label)).then_some(domain)
    }
);

name_type!(
    /// Account name of a password entry, compared as it is. A slash is allowed.
    Username, Username, |text| printable(text, 256)
);

name_type!(
    /// What a caller says about the purpose of a request: for the audit trail, believed by nobody.
    Reason, Reason, |text| {
        let fits = text.len() <= 1024 && text.chars().count() <= 256;
        (fits && !text.chars().any(is_hidden)).then(|| text.to_owned())
    }
);

fn printable(text: &str, max_bytes: usize) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= max_bytes;
    let plain = text.trim() == text && !text.chars().any(is_hidden);
    (fits && plain).then(|| text.to_owned())
}

/// Characters that a reader does not see or that reorder what the reader sees.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_is_raised_to_its_canonical_form() {
        assert_eq!("openai_api_key".parse::<SecretKey>().unwrap().as_str(), "OPENAI_API_KEY");
    }

    #[test]
    fn tricks_with_secret_keys_are_refused() {
        for trick in
            ["", "_A", "1A", "A B", "A ", "A\0", "../A", "A%41", "\u{410}PI_KEY", "A\u{200b}", "ſECRET"]
        {
            assert!(trick.parse::<SecretKey>().is_err(), "{trick:?}");
        }
    }

    #[test]
    fn a_domain_is_lowered_and_nothing_else() {
        assert_eq!("GitHub.com".parse::<Domain>().unwrap().as_str(), "github.com");
        for trick in [
            "",
            ".",
            "github.com.",
            "https://github.com",
            "github.com/",
            "github.com:443",
            "gith\u{443}b.com",
            "-a.com",
            "a..b",
            "a%2ecom",
        ] {
            assert!(trick.parse::<Domain>().is_err(), "{trick:?}");
        }
    }

    #[test]
    fn a_reason_cannot_forge_a_line() {
        assert!("deploy the site".parse::<Reason>().is_ok());
        assert!("a\nb".parse::<Reason>().is_err());
        assert!("a\u{202e}b".parse::<Reason>().is_err());
    }
}
