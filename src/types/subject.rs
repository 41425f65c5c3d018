//! What a request is about, where that is no resource that could be leased.

use std::fmt;

use super::{Channel, EmailAddress, IdentityName, MessageRef, PhoneNumber, SendId, WatchId};

/// Recipients that are named; the others are counted.
const NAMED: usize = 8;

/// For the trail and for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The messages of a channel.
    Channel(Channel),
    /// One message.
    Message(MessageRef),
    /// A watch for a code.
    Watch(WatchId),
    /// Whom a mail goes to.
    Addresses(Vec<EmailAddress>),
    /// Whom a text message goes to.
    Number(PhoneNumber),
    /// Something that was sent.
    Send(SendId),
    /// An identity other than the session's own.
    Identity(IdentityName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => channel.fmt(f),
            Self::Message(message) => message.fmt(f),
            Self::Watch(id) => id.fmt(f),
            Self::Addresses(addresses) => {
                for (at, address) in addresses.iter().take(NAMED).enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    write!(f, "{separator}{address}")?;
                }
                match addresses.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Number(number) => number.fmt(f),
            Self::Send(id) => id.fmt(f),
            Self::Identity(name) => write!(f, "identity/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_recipients_do_not_make_a_long_record() {
        let address = |at: usize| format!("{}{at}@example.com", "x".repeat(40)).parse().unwrap();
        let text = Subject::Addresses((0..50).map(address).collect()).to_string();
        assert!(text.ends_with(" and 42 more") && text.len() < 600, "{text}");
    }
}
