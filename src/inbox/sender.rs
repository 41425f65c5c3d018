//! Who sent a message, strictly: one bare address, phone number, short code or sender id; and the patterns that name
//! whom a watcher trusts.
//!
//! Display names never count. Whatever is not plainly one address is no sender and matches nothing: comments,
//! quoted local parts, encoded words, groups, several addresses, letters beyond ASCII, `xn--` names, trailing dots,
//! control characters. A number or sender id of an SMS is what the network was told, and can be forged; an
//! alphanumeric id may be used by anyone. Imports `types`.

use std::str::FromStr;

use thiserror::Error;

use crate::types::Domain;

/// Longest address of a mail (RFC 5321, 4.5.3.1).
const MAX_ADDRESS: usize = 254;
const MAX_LOCAL: usize = 64;
/// Longest `From` that is read.
const MAX_FROM: usize = 998;

/// Names under which anyone can have a domain: no domain of a sender. Short on purpose; a top-level name of one
/// label is refused by its shape.
const SUFFIXES: &[&str] = &[
    "com",
    "net",
    "org",
    "io",
    "dev",
    "app",
    "co",
    "edu",
    "gov",
    "info",
    "biz",
    "me",
    "ai",
    "uk",
    "de",
    "fr",
    "ac.uk",
    "co.uk",
    "gov.uk",
    "ltd.uk",
    "me.uk",
    "net.uk",
    "org.uk",
    "plc.uk",
    "ac.jp",
    "co.jp",
    "go.jp",
    "ne.jp",
    "or.jp",
    "ac.kr",
    "co.kr",
    "go.kr",
    "ne.kr",
    "or.kr",
    "co.in",
    "firm.in",
    "gen.in",
    "gov.in",
    "ind.in",
    "net.in",
    "org.in",
    "ac.in",
    "asn.au",
    "com.au",
    "edu.au",
    "gov.au",
    "id.au",
    "net.au",
    "org.au",
    "ac.nz",
    "co.nz",
    "govt.nz",
    "net.nz",
    "org.nz",
    "ac.za",
    "co.za",
    "gov.za",
    "net.za",
    "org.za",
    "com.br",
    "gov.br",
    "net.br",
    "org.br",
    "com.mx",
    "gob.mx",
    "net.mx",
    "org.mx",
    "com.ar",
    "com.co",
    "com.pe",
    "com.ve",
    "com.ec",
    "com.uy",
    "com.bo",
    "com.py",
    "com.cn",
    "edu.cn",
    "gov.cn",
    "net.cn",
    "org.cn",
    "com.hk",
    "com.tw",
    "org.tw",
    "com.sg",
    "com.my",
    "com.ph",
    "com.vn",
    "net.vn",
    "co.id",
    "or.id",
    "go.id",
    "web.id",
    "co.th",
    "in.th",
    "or.th",
    "com.tr",
    "gen.tr",
    "gov.tr",
    "net.tr",
    "org.tr",
    "com.ua",
    "net.ua",
    "org.ua",
    "kiev.ua",
    "com.ru",
    "msk.ru",
    "spb.ru",
    "com.pl",
    "net.pl",
    "org.pl",
    "co.il",
    "org.il",
    "net.il",
    "gov.il",
    "ac.il",
    "com.sa",
    "com.eg",
    "co.ae",
    "com.pk",
    "com.bd",
    "com.np",
    "com.lk",
    "co.ke",
    "com.ng",
    "com.gh",
    "co.tz",
    "co.ug",
    "co.zw",
    "com.pt",
    "com.es",
    "org.es",
    "nom.es",
    "co.at",
    "or.at",
    "co.hu",
    "com.ro",
    "com.gr",
    "com.cy",
    "com.mt",
    "co.rs",
    "com.hr",
    "com.de",
    "eu.com",
    "us.com",
    "uk.com",
    "gb.net",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "vercel.app",
    "netlify.app",
    "pages.dev",
    "workers.dev",
    "web.app",
    "firebaseapp.com",
    "appspot.com",
    "azurewebsites.net",
    "cloudfront.net",
    "amazonaws.com",
    "blogspot.com",
    "onmicrosoft.com",
];

/// Why a sender or a pattern was refused. Never quotes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SenderError {
    /// Not plainly one address.
    #[error("expected one plain address such as no-reply@github.com")]
    Address,
    /// Neither a number nor a sender id.
    #[error(
        "expected a number such as +15551234567, a short code such as 32665, or a sender id such as GitHub"
    )]
    Sms,
    /// Neither address, domain, number, short code nor sender id.
    #[error(
        "expected an address, a domain such as github.com, a number such as +15551234567, a short code such as 32665, \
         or a sender id such as GitHub"
    )]
    Pattern,
    /// Anyone can have a name below it.
    #[error("this is a suffix below which anyone can register a domain; name the sender's own domain")]
    PublicSuffix,
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// By mail. Both parts in small letters: services do not tell addresses apart by case.
    Mail {
        /// What stands before the `@`.
        local: Box<str>,
        /// What stands behind it.
        domain: Domain,
    },
    /// By SMS, from a number in E.164 with its `+`.
    Phone(Box<str>),
    /// By SMS, from a short code.
    ShortCode(Box<str>),
    /// By SMS, under a name, in small letters. Anyone can send under it.
    Name(Box<str>),
}

impl Sender {
    /// Reads the `From` of a mail: `a@b`, `<a@b>` or `Name <a@b>`.
    pub fn mail(from: &str) -> Result<Self, SenderError> {
        let address = bare(from).ok_or(SenderError::Address)?;
        let (local, domain) = split(address).ok_or(SenderError::Address)?;
        Ok(Self::Mail { local, domain })
    }

    /// Reads the sender of an SMS, as the network gives it.
    pub fn sms(from: &str) -> Result<Self, SenderError> {
        phone(from).or_else(|| short_code(from)).or_else(|| name(from)).ok_or(SenderError::Sms)
    }
}

/// Whom a watcher trusts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SenderPattern {
    /// This one sender.
    Exact(Sender),
    /// Every address at this domain or below it, label by label.
    Domain(Domain),
}

impl SenderPattern {
    /// True if the pattern names the sender.
    pub fn matches(&self, sender: &Sender) -> bool {
        match (self, sender) {
            (Self::Exact(pattern), _) => pattern == sender,
            (Self::Domain(pattern), Sender::Mail { domain, .. }) => {
                let above = domain.as_str().strip_suffix(pattern.as_str());
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            (Self::Domain(_), _) => false,
        }
    }
}

impl FromStr for SenderPattern {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, SenderError> {
        if text.contains('@') {
            let (local, domain) = split(text).ok_or(SenderError::Address)?;
            return Ok(Self::Exact(Sender::Mail { local, domain }));
        }
        if SUFFIXES.iter().any(|suffix| suffix.eq_ignore_ascii_case(text)) {
            return Err(SenderError::PublicSuffix);
        }
        if text.contains('.') {
            return self::domain(text).map(Self::Domain).ok_or(SenderError::Pattern);
        }
        Sender::sms(text).map(Self::Exact).map_err(|_| SenderError::Pattern)
    }
}

/// The address in a `From`, without its display name.
fn bare(from: &str) -> Option<&str> {
    if from.len() > MAX_FROM || from.chars().any(char::is_control) {
        return None;
    }
    let from = from.trim_matches(' ');
    let Some(open) = from.find('<') else { return Some(from) };
    let (name, address) = (&from[..open], from[open + 1..].strip_suffix('>')?);
    let name = name.trim_matches(' ');
    // A name in quotes may hold anything but a quote; one without may not look like an address, a group, a comment
    // or an encoded word.
    let quoted = name.len() >= 2 && name.starts_with('"') && name.ends_with('"');
    let inside = if quoted { &name[1..name.len() - 1] } else { name };
    let odd = |c: char| {
        matches!(c, '"' | '\\' | '<' | '>') || !quoted && matches!(c, '@' | ',' | ';' | ':' | '(' | ')')
    };
    (!inside.chars().any(odd) && !inside.contains("=?")).then_some(address)
}

fn split(address: &str) -> Option<(Box<str>, Domain)> {
    if address.len() > MAX_ADDRESS {
        return None;
    }
    let (local, host) = address.split_once('@')?;
    // RFC 5322 `dot-atom`, without what only encoded words and routes use.
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$&'*+-/^_`{|}~".contains(&b);
    let dotted =
        local.len() <= MAX_LOCAL && local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom));
    dotted.then(|| Some((local.to_ascii_lowercase().into(), domain(host)?)))?
}

/// A domain with a dot, in ASCII, none of whose labels stands for other letters.
fn domain(text: &str) -> Option<Domain> {
    let domain: Domain = text.parse().ok()?;
    let name = domain.as_str();
    let top = name.rsplit('.').next()?;
    let named = name.contains('.') && top.len() >= 2 && top.bytes().all(|b| b.is_ascii_lowercase());
    (named && !name.split('.').any(|label| label.starts_with("xn--"))).then_some(domain)
}

/// ITU-T E.164: at most 15 digits, the first of which is no 0.
fn phone(text: &str) -> Option<Sender> {
    let digits = text.strip_prefix('+')?;
    let fits = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    fits.then(|| Sender::Phone(text.into()))
}

fn short_code(text: &str) -> Option<Sender> {
    let fits = (3..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| Sender::ShortCode(text.into()))
}

/// 3GPP TS 23.040, 9.1.2.5: at most eleven characters. One of them is a letter.
fn name(text: &str) -> Option<Sender> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b" -_&".contains(&b);
    let fits = (1..=11).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.trim() == text;
    fits.then(|| Sender::Name(text.to_ascii_lowercase().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> SenderPattern {
        text.parse().unwrap()
    }

    fn matches(text: &str, from: &str) -> bool {
        Sender::mail(from).is_ok_and(|sender| pattern(text).matches(&sender))
    }

    #[test]
    fn an_address_is_matched_alone_and_without_regard_to_its_display_name() {
        let exact = "no-reply@github.com";
        for from in [
            "no-reply@github.com",
            "<No-Reply@GitHub.com>",
            "GitHub <no-reply@github.com>",
            "\"G, Hub\" <no-reply@github.com>",
        ] {
            assert!(matches(exact, from), "{from}");
        }
        for from in [
            "noreply@github.com",
            "no-reply@mail.github.com",
            "no-reply@github.com <a@evil.io>",
            "\"no-reply@github.com\" <a@evil.io>",
        ] {
            assert!(!matches(exact, from), "{from}");
        }
    }

    #[test]
    fn a_domain_matches_itself_and_what_is_below_it() {
        for from in ["a@github.com", "a@GITHUB.COM", "GitHub <a@mail.eu.github.com>"] {
            assert!(matches("github.com", from), "{from}");
        }
        for from in [
            "a@github.com.evil.io",
            "a@github-com.io",
            "a@notgithub.com",
            "a@github.co",
            "a@github.com.",
            "a@.github.com",
            "a@xn--gthub-cta.com",
            "a@gıthub.com",
            "a@gitհub.com",
            "a@github.com\0",
            "a@github.com\r\nFrom: b@c.de",
            "a@github。com",
            "\"a\"@github.com",
            "a@evil.io, b@github.com",
            "a@github.com, b@evil.io",
            "a@evil.io <a@github.com>",
            "(x) a@github.com",
            "a@github.com (x)",
            "a@(x)github.com",
            "=?utf-8?q?x?= <a@github.com>",
            "a@evil.io@github.com",
            "a@[192.0.2.1]",
            "<a@github.com> <b@evil.io>",
            "<a@github.com",
            "a@github.com>",
            "team:a@github.com;",
            "a..b@github.com",
            "@github.com",
            "a@github.com\u{200b}",
            "evil.io!a@xn--github.com",
            "a @github.com",
            "",
            "<>",
            "a@github.com\n",
        ] {
            assert!(!matches("github.com", from), "{from:?}");
        }
    }

    #[test]
    fn a_pattern_below_which_anyone_can_register_is_refused() {
        for text in ["com", "co.uk", "CO.UK", "com.au", "github.io", "io"] {
            assert_eq!(text.parse::<SenderPattern>(), Err(SenderError::PublicSuffix), "{text}");
        }
        for text in [
            "",
            ".",
            "github.com.",
            ".github.com",
            "*.github.com",
            "xn--gthub-cta.com",
            "a@b",
            "a@@b.co",
            "+",
            "+0123456789",
            "12",
            "GitHub Security",
            "a@github.com ",
            "git\u{200b}hub",
        ] {
            assert!(text.parse::<SenderPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_sender_of_sms_is_matched_in_its_own_kind_alone() {
        let sms =
            |text: &str, from: &str| Sender::sms(from).is_ok_and(|sender| pattern(text).matches(&sender));
        assert!(sms("+15551234567", "+15551234567"));
        assert!(sms("32665", "32665"));
        assert!(sms("GitHub", "GITHUB"));
        assert!(!sms("32665", "+32665123"));
        assert!(!sms("+15551234567", "15551234567"));
        assert!(!sms("GitHub", "GitHub1"));
        assert!(!sms("GitHub", "G1tHub"));
        assert!(!sms("GitHub", "GitНub"));
        assert!(!sms("32665", "٣٢٦٦٥"));
        assert!(!sms("github.com", "github"));
    }
}
