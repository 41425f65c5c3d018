//! Where Ravi's API is: parsed once, so that no later code can send a key in the clear or elsewhere.
//!
//! Invariant: `https` with any host, or `http` with a loopback host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use thiserror::Error;

use super::Domain;

/// `https://host[:port]`, or `http://` with a loopback address or `localhost`.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    origin: Box<str>,
    authority_at: usize,
    uri: Uri,
}

/// Why a base URL was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BaseUrlError {
    /// Neither scheme.
    #[error("expected https://host[:port], or http:// with a loopback address")]
    Scheme,
    /// The keys would cross a network in the clear.
    #[error("http:// is for loopback addresses and localhost alone; write https://")]
    Plaintext,
    /// User name, path, query or fragment.
    #[error("only scheme, host and port may be given")]
    Extra,
    /// Not a host name or address.
    #[error("the host is neither a host name nor an address")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl BaseUrl {
    /// Scheme, host and port as `https://api.ravi.id`: lower case, default port left out.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Host and port, for the `Host` header.
    pub fn authority(&self) -> &str {
        &self.origin[self.authority_at..]
    }

    /// What to connect to.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl Default for BaseUrl {
    /// `https://api.ravi.id`, which Ravi calls canonical (docs/ravi-api.md §1).
    fn default() -> Self {
        let uri = Uri::from_static("https://api.ravi.id/");
        Self { origin: "https://api.ravi.id".into(), authority_at: "https://".len(), uri }
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BaseUrlError::Scheme)?;
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(BaseUrlError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '\\', '?', '#', '@']) {
            return Err(BaseUrlError::Extra);
        }
        let (host, port) = split_port(authority)?;
        let host: Host = host.parse()?;
        if scheme == "http" && !host.is_loopback() {
            return Err(BaseUrlError::Plaintext);
        }
        let origin = match port.filter(|port| *port != default_port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        let uri = Uri::try_from(format!("{origin}/")).map_err(|_| BaseUrlError::Host)?;
        Ok(Self { origin: origin.into(), authority_at: scheme.len() + 3, uri })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.origin, f)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), BaseUrlError> {
    let host_end = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[host_end..].find(':') else { return Ok((authority, None)) };
    let (host, port) = (&authority[..host_end + colon], &authority[host_end + colon + 1..]);
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(BaseUrlError::Port)?;
    Ok((host, Some(port)))
}

enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(String),
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
            Self::Name(name) => name == LOCALHOST,
        }
    }
}

/// Connected to 127.0.0.1, whatever the resolver says.
pub const LOCALHOST: &str = "localhost";

impl FromStr for Host {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.parse().map(Self::V6).map_err(|_| BaseUrlError::Host);
        }
        match text.parse() {
            Ok(IpAddr::V4(address)) => return Ok(Self::V4(address)),
            Ok(IpAddr::V6(_)) => return Err(BaseUrlError::Host),
            Err(_) => {}
        }
        let name: Domain = text.parse().map_err(|_| BaseUrlError::Host)?;
        // Resolvers read `127.1` or `2130706433` as addresses: a name ends in a label with a letter.
        let last = name.as_str().rsplit('.').next().unwrap_or_default();
        let is_name = last.bytes().any(|b| b.is_ascii_lowercase()) && !last.starts_with("0x");
        is_name.then(|| Self::Name(name.as_str().to_owned())).ok_or(BaseUrlError::Host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, BaseUrlError> {
        text.parse::<BaseUrl>().map(|url| url.to_string())
    }

    #[test]
    fn a_base_url_has_one_canonical_form() {
        assert_eq!(parse("https://api.ravi.id").unwrap(), "https://api.ravi.id");
        assert_eq!(parse("https://API.Ravi.id:443/").unwrap(), "https://api.ravi.id");
        assert_eq!(parse("https://api.ravi.id:8443").unwrap(), "https://api.ravi.id:8443");
        assert_eq!(parse("http://127.0.0.1:8000/").unwrap(), "http://127.0.0.1:8000");
        assert_eq!(parse("http://[::1]:8000").unwrap(), "http://[::1]:8000");
        assert_eq!(parse("http://localhost:80").unwrap(), "http://localhost");
        assert_eq!("https://[::1]:8443".parse::<BaseUrl>().unwrap().authority(), "[::1]:8443");
    }

    #[test]
    fn the_default_is_what_its_own_text_reads_as() {
        let default = BaseUrl::default();
        assert_eq!(default.to_string().parse::<BaseUrl>().unwrap(), default);
    }

    #[test]
    fn plaintext_leaves_the_machine_under_no_spelling() {
        for text in [
            "http://api.ravi.id",
            "http://10.0.0.1",
            "http://169.254.169.254",
            "http://0.0.0.0",
            "http://[::]",
            "http://[fe80::1]",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert_eq!(parse(text), Err(BaseUrlError::Plaintext), "{text}");
        }
    }

    #[test]
    fn nothing_but_scheme_host_and_port_is_taken() {
        for text in [
            "https://user@api.ravi.id",
            "https://user:key@api.ravi.id",
            "https://api.ravi.id/api",
            "https://api.ravi.id//",
            "https://api.ravi.id?x=1",
            "https://api.ravi.id#x",
            "https://api.ravi.id\\@evil.example",
        ] {
            assert_eq!(parse(text), Err(BaseUrlError::Extra), "{text}");
        }
        for text in ["", "api.ravi.id", "ftp://api.ravi.id", "HTTPS://api.ravi.id", " https://api.ravi.id"] {
            assert_eq!(parse(text), Err(BaseUrlError::Scheme), "{text}");
        }
    }

    #[test]
    fn a_malformed_host_or_port_is_refused() {
        for text in [
            "https://",
            "https:///",
            "https://a b",
            "https://a..b",
            "https://[::1",
            "https://::1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://api.ravi.id.",
            "https://api.r\u{430}vi.id",
            "https://api.ravi.id\r\nX: y",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in
            ["https://a.b:", "https://a.b:0", "https://a.b:65536", "https://a.b:+1", "https://a.b:1:2"]
        {
            assert_eq!(parse(text), Err(BaseUrlError::Port), "{text}");
        }
        assert_eq!(parse("https://[::1]x"), Err(BaseUrlError::Host));
    }
}
