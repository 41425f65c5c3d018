//! Resource names: what a lease can be for.

use std::fmt;
use std::str::FromStr;

use super::{Domain, NameError, SecretKey, Username};

/// `secret/KEY`, `password/DOMAIN[/USERNAME]`, `sso/token`, `identity/email` or `identity/phone`, of
/// the session's own identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A row of the secret vault.
    Secret(SecretKey),
    /// A row of the password vault.
    Password(PasswordName),
    /// A short-lived sign-in token (`POST /api/sso/token/`).
    SsoToken,
    /// The identity's mail address.
    IdentityEmail,
    /// The identity's phone number.
    IdentityPhone,
}

/// Names a password: by domain, and by user name where a domain has several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PasswordName {
    /// As Ravi stores it, without subdomains.
    pub domain: Domain,
    /// Absent: the domain's only entry.
    pub username: Option<Username>,
}

impl FromStr for Resource {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "sso/token" => return Ok(Self::SsoToken),
            "identity/email" => return Ok(Self::IdentityEmail),
            "identity/phone" => return Ok(Self::IdentityPhone),
            _ => {}
        }
        if let Some(key) = text.strip_prefix("secret/") {
            return key.parse().map(Self::Secret);
        }
        let name = text.strip_prefix("password/").ok_or(NameError::Resource)?;
        let (domain, username) = match name.split_once('/') {
            Some((domain, username)) => (domain, Some(username.parse()?)),
            None => (name, None),
        };
        Ok(Self::Password(PasswordName { domain: domain.parse()?, username }))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(key) => write!(f, "secret/{key}"),
            Self::Password(name) => write!(f, "password/{name}"),
            Self::SsoToken => f.write_str("sso/token"),
            Self::IdentityEmail => f.write_str("identity/email"),
            Self::IdentityPhone => f.write_str("identity/phone"),
        }
    }
}

impl fmt::Display for PasswordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.username {
            Some(username) => write!(f, "{}/{username}", self.domain),
            None => self.domain.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_reads_back_as_it_was_printed() {
        for name in [
            "secret/OPENAI_API_KEY",
            "password/github.com",
            "password/github.com/alice",
            "sso/token",
            "identity/email",
            "identity/phone",
        ] {
            assert_eq!(name.parse::<Resource>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "",
            "secret",
            "secret/",
            "secret/../A",
            "SECRET/A",
            "secret/A/B",
            "password/",
            "password//x",
            "password/github.com/",
            "sso/",
            "sso/token/",
            "identity/phone ",
            "secret%2FA",
        ] {
            assert!(name.parse::<Resource>().is_err(), "{name:?}");
        }
    }
}
