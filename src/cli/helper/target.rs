//! The host that a program asks a password for, and the hosts that a helper is bound to.
//!
//! A host has one form: a name of letters, digits and hyphens, and a port unless it is that of https.
//! What could be read as another host by somebody else is refused: a user before it, an escape, a name in
//! punycode (look-alikes are written so), a number. Imports `types` alone.

use std::str::FromStr;

use thiserror::Error;

use crate::types::{Domain, Field, PasswordName, Reference, Resource, Username};

/// The port that needs no name.
const HTTPS: u16 = 443;

/// Why a host or a binding was refused. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TargetError {
    /// Not a name.
    #[error("a host is a name such as github.com, perhaps with a port: no user, path, address or xn-- label")]
    Host,
    /// Not a number that a port can have.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Not a credential that a host can have.
    #[error("expected HOST[:PORT], or that and =ravi://password/DOMAIN[/USERNAME] or =ravi://secret/KEY")]
    Reference,
}

/// A host and a port, over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    host: Domain,
    /// `None`: the usual one.
    port: Option<u16>,
}

impl Target {
    /// At the usual port.
    pub(super) fn of(host: Domain) -> Self {
        Self { host, port: None }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port_number(port)?)),
            None => (text, None),
        };
        let host: Domain = host.parse().map_err(|_| TargetError::Host)?;
        let last = host.as_str().rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        let in_punycode = host.as_str().split('.').any(|label| label.starts_with("xn--"));
        if is_number || in_punycode {
            return Err(TargetError::Host);
        }
        Ok(Self { host, port: port.filter(|port| *port != HTTPS) })
    }
}

fn port_number(text: &str) -> Result<u16, TargetError> {
    let plain = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).ok_or(TargetError::Port)
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

/// A host that a helper answers for, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(super) target: Target,
    /// `None`: `password/HOST`.
    resource: Option<Resource>,
}

impl FromStr for Binding {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Some((target, reference)) = text.split_once('=') else {
            return Ok(Self { target: text.parse()?, resource: None });
        };
        let reference: Reference = reference.parse().map_err(|_| TargetError::Reference)?;
        let fits = matches!(reference.resource, Resource::Password(_) | Resource::Secret(_));
        if !fits || reference.field != Field::Value {
            return Err(TargetError::Reference);
        }
        Ok(Self { target: target.parse()?, resource: Some(reference.resource) })
    }
}

/// The credential for exactly this host and user, if the helper is to answer for it.
pub(super) fn resource_for(
    bound: &[Binding],
    target: &Target,
    username: Option<&Username>,
) -> Option<Resource> {
    let binding = bound.iter().find(|binding| binding.target == *target);
    let named = match binding {
        Some(binding) => binding.resource.clone(),
        // Another port is another server.
        None if bound.is_empty() && target.port.is_none() => None,
        None => return None,
    };
    let Some(named) = named else {
        let (domain, username) = (target.host.clone(), username.cloned());
        return Some(Resource::Password(PasswordName { domain, username }));
    };
    let Resource::Password(PasswordName { domain, username: own }) = named else { return Some(named) };
    let username = match (own, username) {
        (Some(own), Some(asked)) if own != *asked => return None,
        (own, asked) => own.or_else(|| asked.cloned()),
    };
    Some(Resource::Password(PasswordName { domain, username }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn bound(texts: &[&str]) -> Vec<Binding> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn answered(hosts: &[&str], asked: &str, username: Option<&str>) -> Option<String> {
        let username: Option<Username> = username.map(|name| name.parse().unwrap());
        resource_for(&bound(hosts), &target(asked), username.as_ref()).map(|found| found.to_string())
    }

    #[test]
    fn a_host_has_one_form() {
        assert_eq!(target("GitHub.com:443"), target("github.com"));
        assert_eq!(target("git.example.com:8443").to_string(), "git.example.com:8443");
        assert_ne!(target("github.com:8443"), target("github.com"));
    }

    #[test]
    fn what_could_be_read_as_another_host_is_refused() {
        for text in [
            "",
            ":443",
            "github.com:",
            "github.com:0",
            "github.com:00443",
            "github.com:+443",
            "github.com:65536",
            "github.com:443:8443",
            "github.com:443@evil.example",
            "alice@github.com",
            "alice:secret@github.com",
            "github.com/",
            "github.com\\.evil.example",
            "github.com%2eevil.example",
            "github.com?.evil.example",
            "github.com#evil.example",
            "github.com.",
            ".github.com",
            "github.com evil.example",
            "github.com\u{a0}",
            "github.com\n",
            "github.com\r",
            "github.com\0.evil.example",
            "gith\u{443}b.com",
            "github\u{3002}com",
            "\u{ff47}ithub.com",
            "xn--gthub-cta.com",
            "XN--gthub-cta.com",
            "www.xn--80ak6aa92e.com",
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "[::1]",
            "[::1]:443",
            "_dmarc.github.com",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_helper_answers_for_exactly_the_hosts_it_is_bound_to() {
        assert_eq!(answered(&["github.com"], "github.com", None).unwrap(), "password/github.com");
        for other in ["github.com:8443", "gist.github.com", "github.com.evil.example", "com", "ithub.com"] {
            assert_eq!(answered(&["github.com", "example.com"], other, None), None, "{other}");
        }
        assert_eq!(
            answered(&["github.com:8443"], "github.com:8443", Some("alice")).unwrap(),
            "password/github.com/alice"
        );
        assert_eq!(answered(&["github.com:8443"], "github.com", None), None);
    }

    #[test]
    fn a_helper_that_is_bound_to_none_answers_at_the_usual_port() {
        assert_eq!(answered(&[], "gist.github.com", None).unwrap(), "password/gist.github.com");
        assert_eq!(answered(&[], "github.com:8443", None), None);
    }

    #[test]
    fn a_binding_names_the_credential() {
        let hosts = ["git.example.com=ravi://password/example.com/ci", "api.example.com=ravi://secret/TOKEN"];
        assert_eq!(answered(&hosts, "git.example.com", None).unwrap(), "password/example.com/ci");
        assert_eq!(answered(&hosts, "git.example.com", Some("ci")).unwrap(), "password/example.com/ci");
        assert_eq!(answered(&hosts, "git.example.com", Some("root")), None);
        assert_eq!(answered(&hosts, "api.example.com", Some("x")).unwrap(), "secret/TOKEN");
        let open = ["git.example.com=ravi://password/example.com"];
        assert_eq!(answered(&open, "git.example.com", Some("ci")).unwrap(), "password/example.com/ci");
        for text in ["github.com=", "github.com=ravi://sso/token", "a.example=ravi://password/b#username"] {
            assert_eq!(text.parse::<Binding>(), Err(TargetError::Reference), "{text}");
        }
    }
}
