//! Canaries: values that occur nowhere else, one for each secret that is planted or seen.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64URL_NOPAD;

/// What kind of secret a canary stands for: the rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    ManagementKey,
    IdentityKey,
    Password,
    Secret,
    /// A value that an agent wrote through the broker.
    Written,
    /// A value that was generated on an agent's behalf.
    Generated,
    SignInToken,
    SessionToken,
    /// A code or a link in a message.
    Code,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::ManagementKey,
        Self::IdentityKey,
        Self::Password,
        Self::Secret,
        Self::Written,
        Self::Generated,
        Self::SignInToken,
        Self::SessionToken,
        Self::Code,
    ];

    /// What texts of this kind begin with, where it is always the same.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::ManagementKey => "ravi_mgmt_",
            Self::IdentityKey => "ravi_id_",
            Self::SignInToken => "rvt_",
            Self::SessionToken => "rbt_",
            _ => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ManagementKey => "management key",
            Self::IdentityKey => "identity key",
            Self::Password => "password",
            Self::Secret => "secret",
            Self::Written => "written value",
            Self::Generated => "generated value",
            Self::SignInToken => "sign-in token",
            Self::SessionToken => "session token",
            Self::Code => "code in a message",
        })
    }
}

/// A secret to be looked for. Has no `Debug`: a failing test must not print it.
pub(crate) struct Canary {
    pub(crate) kind: Kind,
    value: String,
}

/// Bytes of a block of AES.
pub(crate) const BLOCK: usize = 16;

/// Base64url digits that the public id of a session takes in its token, with the one it shares.
const SESSION_ID_DIGITS: usize = 22;

impl Canary {
    /// A secret that somebody else made.
    pub(crate) fn seen(kind: Kind, value: &str) -> Self {
        assert!(value.len() >= 16 && value.starts_with(kind.prefix()), "no {kind} can be told from chance");
        Self { kind, value: value.to_owned() }
    }

    /// A fresh value: 256 random bits, a number, and characters that JSON and URLs have to escape.
    pub(crate) fn fresh(kind: Kind) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let escaped = if number.is_multiple_of(2) { "\"\\/ ä\n" } else { "-" };
        let mut value = format!("{}{escaped}{number}", digits::<16>());
        // The last block of a cipher is all random and not whole: implementations treat it on its own.
        let length = (value.len() + BLOCK).next_multiple_of(BLOCK) + BLOCK - 1;
        value.push_str(&digits::<48>()[..length - value.len()]);
        Self { kind, value }
    }

    /// A fresh key of the form that Ravi gives its keys.
    pub(crate) fn key(kind: Kind) -> Self {
        Self { kind, value: format!("{}{}", kind.prefix(), digits::<32>()) }
    }

    /// The value in the clear, to be planted.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    /// The part that nobody else knows.
    pub(crate) fn random(&self) -> &str {
        let public = match self.kind {
            Kind::SessionToken => self.kind.prefix().len() + SESSION_ID_DIGITS,
            kind => kind.prefix().len(),
        };
        &self.value[public..]
    }
}

fn digits<const N: usize>() -> String {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    BASE64URL_NOPAD.encode(&bytes)
}
