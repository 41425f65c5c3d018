//! What git says to a credential helper: lines of `name=value` (git-credential(1)).
//!
//! The parser takes nothing that two readers could understand in two ways: no control character, no name
//! that is said twice, no `url` that could override the host, nothing after the blank line.

use zeroize::Zeroizing;

use super::RequestError;
use super::target::Target;
use crate::secret::Secret;
use crate::types::Username;

/// Most lines; git sends one for each capability and each challenge of the server as well.
const MAX_LINES: usize = 256;

/// A request. Has no `Debug`, since it can hold a password.
pub(super) struct Request {
    pub(super) target: Target,
    pub(super) username: Option<Username>,
    pub(super) password: Option<Secret>,
}

/// The lines that count, as they were said.
#[derive(Default)]
struct Said<'a> {
    protocol: Option<&'a str>,
    host: Option<&'a str>,
    path: Option<&'a str>,
    username: Option<&'a str>,
    password: Option<&'a str>,
}

/// Reads a request.
pub(super) fn parse(input: &Zeroizing<Vec<u8>>) -> Result<Request, RequestError> {
    let text = std::str::from_utf8(input).map_err(|_| RequestError::Form)?;
    let said = said(text)?;
    if said.protocol != Some("https") {
        return Err(RequestError::NotHttps);
    }
    let target = said.host.ok_or(RequestError::Host)?.parse().map_err(|_| RequestError::Host)?;
    let username = said.username.map(str::parse).transpose().map_err(|_| RequestError::Form)?;
    Ok(Request { target, username, password: said.password.map(Secret::copy_of) })
}

fn said(text: &str) -> Result<Said<'_>, RequestError> {
    let mut said = Said::default();
    let mut lines = text.split('\n');
    for (index, line) in lines.by_ref().enumerate() {
        if line.is_empty() {
            break;
        }
        if index == MAX_LINES {
            return Err(RequestError::Form);
        }
        let (name, value) = line.split_once('=').ok_or(RequestError::Form)?;
        if line.chars().any(char::is_control) {
            return Err(RequestError::Control);
        }
        let place = match name {
            "protocol" => &mut said.protocol,
            "host" => &mut said.host,
            "path" => &mut said.path,
            "username" => &mut said.username,
            "password" => &mut said.password,
            // It would stand for all of those.
            "url" => return Err(RequestError::Twice),
            // A capability, a challenge of the server, or what a later git says.
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(RequestError::Twice);
        }
    }
    // After the blank line: nothing, or it is not one request.
    if lines.all(str::is_empty) { Ok(said) } else { Err(RequestError::Form) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, RequestError> {
        parse(&Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn refused(text: &str) -> Option<RequestError> {
        read(text).err()
    }

    #[test]
    fn a_request_as_git_sends_it_is_understood() {
        let request = read(
            "capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=github.com:8443\npath=a/b.git\n\
             username=alice\nwwwauth[]=Basic realm=\"x\"\nwwwauth[]=Bearer\n\n",
        );
        let Ok(request) = request else { panic!("it is a request") };
        assert_eq!(request.target.to_string(), "github.com:8443");
        assert_eq!(request.username.unwrap().as_str(), "alice");
        assert!(request.password.is_none());
        assert!(read("protocol=https\nhost=github.com").is_ok());
    }

    #[test]
    fn a_host_cannot_be_smuggled_in() {
        // CVE-2020-5260: a line break in the URL became a second host.
        assert_eq!(
            refused("protocol=https\nhost=evil.example\nhost=github.com\n"),
            Some(RequestError::Twice)
        );
        assert_eq!(
            refused("protocol=https\nhost=evil.example\n\nhost=github.com\n"),
            Some(RequestError::Form)
        );
        // CVE-2020-11008: no host, or no protocol.
        assert_eq!(refused("protocol=https\n"), Some(RequestError::Host));
        assert_eq!(refused("protocol=https\nhost=\n"), Some(RequestError::Host));
        assert_eq!(refused("host=github.com\n"), Some(RequestError::NotHttps));
        assert_eq!(refused(""), Some(RequestError::NotHttps));
        // CVE-2024-52006 and CVE-2024-50338: a carriage return ended a line for some readers.
        assert_eq!(refused("protocol=https\nhost=github.com\r\n"), Some(RequestError::Control));
        assert_eq!(
            refused("protocol=https\rhost=github.com\nhost=evil.example\n"),
            Some(RequestError::Control)
        );
        // CVE-2024-50349: control characters and escapes that make a prompt show another host.
        for host in ["evil.example\x1b[2K", "evil.example\x08", "evil.example\x7f", "evil.example\u{9b}2K"] {
            assert_eq!(refused(&format!("protocol=https\nhost={host}\n")), Some(RequestError::Control));
        }
        assert_eq!(refused("protocol=https\nhost=github.com%0aevil.example\n"), Some(RequestError::Host));
        // CVE-2024-53263: the same in the path.
        assert_eq!(refused("protocol=https\nhost=github.com\npath=a\rhost=b\n"), Some(RequestError::Control));
        assert_eq!(refused("protocol=https\nhost=github.com\0\n"), Some(RequestError::Control));
        assert_eq!(
            refused("url=https://github.com\nprotocol=https\nhost=x.example\n"),
            Some(RequestError::Twice)
        );
        for host in ["alice@github.com", "github.com@evil.example", "github.com:443:80", "gith\u{443}b.com"] {
            assert_eq!(
                refused(&format!("protocol=https\nhost={host}\n")),
                Some(RequestError::Host),
                "{host}"
            );
        }
    }

    #[test]
    fn only_https_is_answered() {
        for protocol in ["http", "HTTPS", "https ", "cert", "imap", "ssh", "", "httpss"] {
            let request = format!("protocol={protocol}\nhost=github.com\n");
            assert_eq!(refused(&request), Some(RequestError::NotHttps), "{protocol}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(refused("protocol=https\nhost\n"), Some(RequestError::Form));
        assert_eq!(refused("protocol=https\nhost=github.com\nusername= x\n"), Some(RequestError::Form));
        assert_eq!(refused(&"a=b\n".repeat(300)), Some(RequestError::Form));
        assert!(parse(&Zeroizing::new(b"protocol=https\nhost=\xff\n".to_vec())).is_err());
    }
}
