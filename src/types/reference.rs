//! References: how a command line names a part of a credential, `ravi://RESOURCE[#FIELD]`.

use std::fmt;
use std::str::FromStr;

use super::{NameError, Resource};

/// `ravi://secret/KEY`, `ravi://password/DOMAIN[/USERNAME][#username]`, `ravi://sso/token`: the value of a
/// resource, or the account name of a password.
///
/// The field is what follows the last `#`; a user name that holds a `#` cannot be written in a reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// What is leased.
    pub resource: Resource,
    /// Which part of it is meant.
    pub field: Field,
}

/// A part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The secret itself.
    Value,
    /// The account name of a password; no secret.
    Username,
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix("ravi://").ok_or(NameError::Reference)?;
        let (name, field) = match name.rsplit_once('#') {
            None => (name, Field::Value),
            Some((name, "username")) => (name, Field::Username),
            Some(_) => return Err(NameError::Reference),
        };
        let resource = name.parse()?;
        let named = matches!(resource, Resource::Password(_));
        if field == Field::Username && !named {
            return Err(NameError::Reference);
        }
        Ok(Self { resource, field })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ravi://{}", self.resource)?;
        match self.field {
            Field::Value => Ok(()),
            Field::Username => f.write_str("#username"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_as_it_was_printed() {
        for text in [
            "ravi://secret/OPENAI_API_KEY",
            "ravi://password/github.com",
            "ravi://password/github.com#username",
            "ravi://password/github.com/alice",
            "ravi://password/github.com/alice#username",
            "ravi://sso/token",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_nothing_or_too_much_is_refused() {
        for text in [
            "",
            "secret/A",
            "ravi:secret/A",
            "RAVI://secret/A",
            "ravi://",
            "ravi://secret/A#username",
            "ravi://secret/A#",
            "ravi://password/github.com#password",
            "ravi://password/github.com#Username",
            "ravi://password/github.com/a#b",
            "ravi://password/github.com?x",
            "ravi:///secret/A",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
