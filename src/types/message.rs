//! Messages, who they go to, and by which way. Names only: what a message says is not here.

use std::fmt;
use std::str::FromStr;

use super::NameError;

/// Longest local part and longest address, in bytes (RFC 5321 §4.5.3.1).
const MAX_LOCAL: usize = 64;
const MAX_ADDRESS: usize = 254;
/// Digits of a number in E.164 form.
const NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// By which way a message comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Mail.
    Email,
    /// Text messages.
    Sms,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 2] = [Self::Email, Self::Sms];

    /// `email` or `sms`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Channel {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|channel| channel.name() == text).ok_or(NameError::Channel)
    }
}

/// A message of an identity: `email/42` or `sms/7`, by the number that Ravi gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageRef {
    /// Where it is.
    pub channel: Channel,
    /// `EmailMessageDetail.id` or `PhoneMessage.id`. Positive.
    pub id: i64,
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.id)
    }
}

impl FromStr for MessageRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (channel, digits) = text.split_once('/').ok_or(NameError::Message)?;
        let channel = channel.parse().map_err(|_| NameError::Message)?;
        // One form for each number: no sign, no leading zero.
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let id = digits.parse().ok().filter(|_| plain).ok_or(NameError::Message)?;
        Ok(Self { channel, id })
    }
}

/// A mail address as one can be written to: `local@domain`, in lower case. Quoted local parts and
/// non-ASCII characters are refused: two of them can look alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailAddress(Box<str>);

impl EmailAddress {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands after the `@`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EmailAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let (local, domain) = lower.split_once('@').ok_or(NameError::Email)?;
        let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
        let atoms = |part: &str| !part.is_empty() && part.bytes().all(atom);
        let local_fits = local.len() <= MAX_LOCAL && local.split('.').all(atoms);
        let fits = local_fits && domain.contains('.') && domain.parse::<super::Domain>().is_ok();
        if fits && lower.len() <= MAX_ADDRESS { Ok(Self(lower.into())) } else { Err(NameError::Email) }
    }
}

/// A telephone number in E.164 form: `+` and 7 to 15 digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneNumber(Box<str>);

impl PhoneNumber {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PhoneNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('+').ok_or(NameError::Phone)?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let fits = plain && NUMBER_DIGITS.contains(&digits.len());
        fits.then(|| Self(text.into())).ok_or(NameError::Phone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_name() {
        let message: MessageRef = "email/42".parse().unwrap();
        assert_eq!(
            (message.channel, message.id, message.to_string()),
            (Channel::Email, 42, "email/42".into())
        );
        let hostile =
            ["email/", "email/0", "email/042", "email/-1", "email/+1", "mail/1", "sms/1/2", "sms", "sms/ 1"];
        for name in hostile.into_iter().chain(["sms/99999999999999999999"]) {
            assert!(name.parse::<MessageRef>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_address_is_canonical_or_refused() {
        let address: EmailAddress = "Jane.Doe+x@Example.COM".parse().unwrap();
        assert_eq!((address.as_str(), address.domain()), ("jane.doe+x@example.com", "example.com"));
        for text in [
            "",
            "a",
            "a@",
            "@b.c",
            "a@b",
            "a@b.c.",
            "a@b@c.d",
            "a b@c.d",
            "\"a\"@b.c",
            "a..b@c.d",
            ".a@b.c",
            "a.@b.c",
            "a@b.c\n",
            "Jane <a@b.c>",
            "a@b.c,d@e.f",
            "\u{430}@b.c",
            "a@\u{432}.c",
            "a@[127.0.0.1]",
            "a@b_c.d",
        ] {
            assert!(text.parse::<EmailAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_number_is_in_e164_form_or_refused() {
        assert_eq!("+15550100001".parse::<PhoneNumber>().unwrap().as_str(), "+15550100001");
        for text in [
            "",
            "+",
            "15550100001",
            "+0555010",
            "+1 555 0100001",
            "+123456",
            "+1234567890123456",
            "+1555x100001",
        ] {
            assert!(text.parse::<PhoneNumber>().is_err(), "{text:?}");
        }
    }
}
