//! Parsers of single arguments. Their messages never quote the argument.

use std::time::Duration;

use thiserror::Error;

use crate::config::parse_duration;
use crate::types::{Channel, MessageRef, NameError, PasswordName, Resource, SecretKey};

/// Longest duration that is accepted: a year. The daemon cuts to the role's maximum anyway.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Why an argument was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum ArgumentError {
    #[error("a duration is a number with a unit: 90s, 10m, 8h or 2d, at least 1s and at most 366d")]
    Duration,
    #[error("expected secret/KEY; password entries have commands of their own, see `ravi-broker password`")]
    NotSecret,
    #[error("expected password/DOMAIN or password/DOMAIN/USERNAME")]
    NotPassword,
    #[error(
        "a scope is <kind>:<verb>[:<pattern>], at most 512 characters without spaces, such as secret:read:OPENAI_*"
    )]
    Scope,
    #[error("expected a place and a reference, such as NAME=ravi://secret/KEY")]
    Injection,
    #[error("a variable's name is 1 to 256 letters, digits and '_', and begins with no digit")]
    Variable,
    #[error("a descriptor is a number from 3 to 255; standard input has --stdin")]
    Descriptor,
    #[error("expected two capital letters such as CA")]
    Country,
    #[error("expected a mail such as email/42")]
    NotMail,
    #[error(transparent)]
    Name(#[from] NameError),
}

/// As the configuration has them (`90s`, `10m`, `8h`, `2d`), without nothing and eternity.
pub(super) fn duration(text: &str) -> Result<Duration, ArgumentError> {
    let duration = parse_duration(text).map_err(|_| ArgumentError::Duration)?;
    if duration.is_zero() || duration > LONGEST { Err(ArgumentError::Duration) } else { Ok(duration) }
}

pub(super) fn secret_resource(text: &str) -> Result<SecretKey, ArgumentError> {
    match text.parse()? {
        Resource::Secret(key) => Ok(key),
        _ => Err(ArgumentError::NotSecret),
    }
}

pub(super) fn password_resource(text: &str) -> Result<PasswordName, ArgumentError> {
    match text.parse()? {
        Resource::Password(name) => Ok(name),
        _ => Err(ArgumentError::NotPassword),
    }
}

pub(super) fn country(text: &str) -> Result<String, ArgumentError> {
    let is_code = text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
    if is_code { Ok(text.to_owned()) } else { Err(ArgumentError::Country) }
}

pub(super) fn mail(text: &str) -> Result<MessageRef, ArgumentError> {
    let message: MessageRef = text.parse()?;
    if message.channel == Channel::Email { Ok(message) } else { Err(ArgumentError::NotMail) }
}

/// The shape of a scope; the daemon knows the grammar.
pub(super) fn scope(text: &str) -> Result<String, ArgumentError> {
    let shaped = text.len() <= 512 && text.split(':').count() >= 2 && !text.starts_with(':');
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    if shaped && plain { Ok(text.to_owned()) } else { Err(ArgumentError::Scope) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in
            ["", "5", "h", "-5m", "+5m", "1.5h", "5 m", "5ms", "0s", "367d", "99999999999999999999s", "٣h"]
        {
            assert_eq!(duration(text), Err(ArgumentError::Duration), "{text:?}");
        }
    }

    #[test]
    fn a_scope_is_checked_for_its_shape() {
        assert!(scope("secret:read:OPENAI_*").is_ok());
        for text in ["", "secret", ":read", "secret:read:a b", "secret:read:\u{430}"] {
            assert_eq!(scope(text), Err(ArgumentError::Scope), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_no_secret_and_the_other_way_round() {
        assert_eq!(secret_resource("password/github.com"), Err(ArgumentError::NotSecret));
        assert_eq!(password_resource("secret/A"), Err(ArgumentError::NotPassword));
    }
}
