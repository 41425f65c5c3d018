//! Paths and queries: every part that is not a constant is percent-encoded. Pure.
//!
//! Invariant: a path ends in `/`, and no value can add a segment, a parameter or a dot segment.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Result, UpstreamError};

/// Everything but the unreserved characters of RFC 3986. A plus sign too: query parsers read it as a space.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The place in a template that an object's name takes.
const HOLE: &str = "{id}";

/// One name or value, encoded for a path segment or a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The template with the object's name in its hole. Refuses a name that servers would resolve away.
pub(super) fn fill(template: &str, name: &str) -> Result<String> {
    match name {
        "" | "." | ".." => Err(UpstreamError::Invalid),
        _ => Ok(template.replacen(HOLE, &encode(name), 1)),
    }
}

/// Adds `name=value` to a query.
pub(super) fn push_pair(query: &mut String, name: &str, value: impl Display) {
    query.push(if query.is_empty() { '?' } else { '&' });
    query.push_str(name);
    query.push('=');
    query.push_str(&encode(&value.to_string()));
}

/// The query of a `next` link: of the same origin and path, the parameters of `ours` replaced by ours.
/// `None`: the link leads elsewhere.
pub(super) fn next_query(link: &str, origin: &str, path: &str, ours: &str) -> Option<String> {
    const MAX_LINK: usize = 2048;
    let plain = link.len() <= MAX_LINK && link.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    let local = if link.starts_with('/') { link } else { link.strip_prefix(origin)? };
    let theirs = local.strip_prefix(path)?.strip_prefix('?').filter(|_| plain)?;
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let fixed: Vec<String> = ours.trim_start_matches('?').split('&').map(name).collect();
    let mut query = ours.to_owned();
    for pair in theirs.split('&').filter(|pair| !pair.is_empty() && !fixed.contains(&name(pair))) {
        // An encoded name could be a fixed one in disguise.
        if name(pair).contains(['%', '+']) {
            return None;
        }
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(pair);
    }
    Some(query)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plus_sign_is_encoded() {
        assert_eq!(fill("/api/sms-inbox/{id}/", "1_+1555").unwrap(), "/api/sms-inbox/1_%2B1555/");
    }

    #[test]
    fn a_dot_segment_or_an_empty_one_is_refused() {
        for name in ["", ".", ".."] {
            assert_eq!(fill("/api/secrets/{id}/", name), Err(UpstreamError::Invalid));
        }
    }

    #[test]
    fn pairs_are_joined_into_a_query() {
        let mut query = String::new();
        push_pair(&mut query, "identity", "a b");
        push_pair(&mut query, "key", "X&y=1");
        assert_eq!(query, "?identity=a%20b&key=X%26y%3D1");
    }

    #[test]
    fn a_next_link_is_followed_on_the_same_origin_and_path_only() {
        let next = |link: &str| next_query(link, "https://api.ravi.id", "/api/secrets/", "?identity=me");
        let second = Some("?identity=me&offset=50".to_owned());
        assert_eq!(next("https://api.ravi.id/api/secrets/?offset=50"), second);
        assert_eq!(next("/api/secrets/?identity=other&offset=50&identity=third"), second);
        for link in [
            "https://evil.example/api/secrets/?offset=50",
            "https://api.ravi.id.evil.example/api/secrets/?offset=50",
            "https://api.ravi.id@evil.example/api/secrets/?offset=50",
            "http://api.ravi.id/api/secrets/?offset=50",
            "//evil.example/api/secrets/?offset=50",
            "/api/passwords/?offset=50",
            "/api/secrets/../passwords/?offset=50",
            "/api/secrets/",
            "/api/secrets/?offset=50#x",
            "/api/secrets/?ident%69ty=other",
            "/api/secrets/?offset=5\r\nX: y",
            "",
        ] {
            assert_eq!(next(link), None, "{link:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_stays_one_segment(name in "\\PC{1,40}") {
            prop_assume!(name != "." && name != "..");
            let path = fill("/api/secrets/{id}/", &name).unwrap();
            let segment = path.strip_prefix("/api/secrets/").unwrap().strip_suffix('/').unwrap();
            prop_assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            let back = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
            prop_assert_eq!(back, name);
        }
    }
}
