//! How Ravi shortens the domain of a password: scheme, path and subdomain go
//! (`https://mail.google.com/inbox` becomes `google.com`). Pure.

use std::net::IpAddr;

/// Suffixes of two labels below which names are registered. The public suffix list has thousands;
/// which of them Ravi knows is not documented.
const TWO_LABEL_SUFFIXES: [&str; 16] = [
    "ac.uk", "co.at", "co.il", "co.in", "co.jp", "co.kr", "co.nz", "co.uk", "co.za", "com.au", "com.br",
    "com.cn", "com.mx", "com.tr", "gov.uk", "org.uk",
];

const MAX_HOST: usize = 253;

/// `None` if no host name or address is left.
pub(super) fn normalise(input: &str) -> Option<String> {
    let host = host_of(input.trim()).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    if host.parse::<IpAddr>().is_ok() {
        return Some(host.to_owned());
    }
    let labels: Vec<&str> = host.split('.').collect();
    if host.len() > MAX_HOST || !labels.iter().all(|label| is_label(label)) {
        return None;
    }
    let last_two = labels[labels.len().saturating_sub(2)..].join(".");
    let kept = if TWO_LABEL_SUFFIXES.contains(&last_two.as_str()) { 3 } else { 2 };
    Some(labels[labels.len().saturating_sub(kept)..].join("."))
}

fn host_of(input: &str) -> &str {
    let rest = input.split_once("://").map_or(input, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => host.split_once(':').map_or(host, |(host, _)| host),
    }
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_path_port_and_subdomain_are_stripped() {
        for (input, domain) in [
            ("https://mail.google.com/inbox", "google.com"),
            ("GitHub.com", "github.com"),
            ("login.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("http://user:pw@a.b.example.org:8443/x?y#z", "example.org"),
            ("localhost", "localhost"),
            ("https://127.0.0.1:8000/", "127.0.0.1"),
            ("http://[::1]:8000/", "::1"),
            ("example.org.", "example.org"),
        ] {
            assert_eq!(normalise(input).as_deref(), Some(domain), "{input}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for input in ["", "   ", "https:///path", "a b.com", "-x.com", "..", "exa\u{300}mple.com"] {
            assert_eq!(normalise(input), None, "{input}");
        }
    }
}
