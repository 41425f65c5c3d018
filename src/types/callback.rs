//! Where a callback goes: parsed once, so that no later code can send a message in the clear over a network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use thiserror::Error;

use super::{BaseUrl, BaseUrlError, LOCALHOST};

/// Longest path and query, in bytes.
const MAX_PATH: usize = 1024;

/// An address that is posted to: `https://host[:port]/path`, or `http://` with a loopback address or `localhost`.
/// It is written into logs and the audit trail: no part of it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl {
    origin: BaseUrl,
    path: Box<str>,
}

/// Why an address was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallbackUrlError {
    /// The part before the path.
    #[error(transparent)]
    Origin(#[from] BaseUrlError),
    /// The path or query.
    #[error("expected a path of at most 1024 visible ASCII characters, without a fragment")]
    Path,
}

impl CallbackUrl {
    /// Scheme, host and port.
    pub fn origin(&self) -> &BaseUrl {
        &self.origin
    }

    /// Path and query, for the request line.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        self.origin.uri().host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        let usual = if self.is_encrypted() { 443 } else { 80 };
        self.origin.uri().port_u16().unwrap_or(usual)
    }

    /// True for `https`.
    pub fn is_encrypted(&self) -> bool {
        self.origin.uri().scheme_str() == Some("https")
    }

    /// The address, where the host is one; 127.0.0.1 for `localhost`, whatever the resolver says.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.host() {
            LOCALHOST => Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        }
    }
}

impl FromStr for CallbackUrl {
    type Err = CallbackUrlError;

    fn from_str(text: &str) -> Result<Self, CallbackUrlError> {
        let scheme_end = text.find("://").ok_or(BaseUrlError::Scheme)? + 3;
        let path_at = text[scheme_end..].find(['/', '?', '#']).map_or(text.len(), |at| scheme_end + at);
        let origin: BaseUrl = text[..path_at].parse()?;
        let path = if path_at == text.len() { "/" } else { &text[path_at..] };
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\' | b'"' | b'<' | b'>');
        let fits = path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(plain);
        if !fits || path.parse::<Uri>().is_err() {
            return Err(CallbackUrlError::Path);
        }
        Ok(Self { origin, path: path.into() })
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_origin_and_a_path() {
        let url: CallbackUrl = "http://127.0.0.1:3000/external/sessions/a%2Fb/messages?x=1".parse().unwrap();
        assert_eq!((url.port(), url.path()), (3000, "/external/sessions/a%2Fb/messages?x=1"));
        assert_eq!(url.literal(), Some("127.0.0.1".parse().unwrap()));
        let url: CallbackUrl = "https://hooks.example.com".parse().unwrap();
        assert_eq!((url.port(), url.path(), url.literal()), (443, "/", None));
        assert_eq!(
            "http://[::1]:80/".parse::<CallbackUrl>().unwrap().literal(),
            Some("::1".parse().unwrap())
        );
    }

    #[test]
    fn a_message_goes_over_no_network_in_the_clear_and_to_no_ambiguous_place() {
        for text in [
            "",
            "127.0.0.1:3000/",
            "http://example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1@evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost\\@evil.example/",
            "ftp://127.0.0.1/",
            "https://user:pass@example.com/",
            "https://example.com/a b",
            "https://example.com/a\r\nHost: x",
            "https://example.com/#x",
            "https://example.com/\u{e9}",
            "https://example.com?x",
        ] {
            assert!(text.parse::<CallbackUrl>().is_err(), "{text:?}");
        }
    }
}
