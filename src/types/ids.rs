//! Identifiers. None of them is a credential: all may be logged and shown.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::NameError;

/// A Ravi identity (`Identity.uuid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityUuid(pub Uuid);

/// A row of Ravi's password or secret vault (`PasswordEntry.uuid`, `SecretEntry.uuid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryUuid(pub Uuid);

macro_rules! uuid_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Uuid::try_parse(text).map(Self).map_err(|_| NameError::Uuid)
            }
        }
    )*};
}

uuid_text!(IdentityUuid, EntryUuid);

/// Public handle of a session: 128 random bits, printed as `ses_` and base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

/// Public handle of a lease: 128 random bits, printed as `lea_` and base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub [u8; 16]);

/// Names one call, so that the operator can ask why it was refused: 128 bits, printed as `den_` and base32
/// in lower case. Says nothing to anybody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialId(pub [u8; 16]);

/// Public handle of a watch for a code: 128 random bits, printed as `wat_` and base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub [u8; 16]);

/// Public handle of something that was sent, to ask later what became of it: 128 random bits, printed as `snd_`
/// and base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub [u8; 16]);

/// Names one delivery to one callback, the same in each attempt: 128 random bits, printed as `dsp_` and
/// base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DispatchId(pub [u8; 16]);

/// Names one question to the operator: 128 random bits, printed as `apr_` and base32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(pub [u8; 16]);

/// Base32 in lower case, without padding (RFC 4648 §6), of 128 bits.
fn digits(id: &[u8; 16]) -> ArrayString {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = u128::from_be_bytes(*id);
    ArrayString(std::array::from_fn(|at| {
        // The last digit has three bits of its own and two zeros.
        let digit = if at < DIGITS - 1 { bits >> (123 - 5 * at) } else { bits << 2 };
        ALPHABET[(digit & 31) as usize]
    }))
}

const DIGITS: usize = 26;

/// Text on the stack.
struct ArrayString([u8; DIGITS]);

impl std::ops::Deref for ArrayString {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

macro_rules! prefixed_text {
    ($($name:ident = $prefix:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&digits(&self.0))
            }
        }

        impl $name {
            /// Appends what it prints as.
            pub fn push_to(&self, text: &mut String) {
                text.push_str($prefix);
                text.push_str(&digits(&self.0));
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let digits = text.strip_prefix($prefix).ok_or(NameError::Handle)?;
                if digits.len() != 26 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(NameError::Handle);
                }
                let bytes = BASE32_NOPAD_NOCASE.decode(digits.as_bytes()).map_err(|_| NameError::Handle)?;
                bytes.try_into().map(Self).map_err(|_| NameError::Handle)
            }
        }
    )*};
}

prefixed_text!(
    SessionId = "ses_",
    LeaseId = "lea_",
    DenialId = "den_",
    WatchId = "wat_",
    SendId = "snd_",
    DispatchId = "dsp_",
    ApprovalId = "apr_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back_as_it_was_printed() {
        let id = LeaseId([7; 16]);
        assert_eq!(id.to_string().parse::<LeaseId>().unwrap(), id);
    }

    #[test]
    fn a_handle_is_printed_in_base32() {
        for seed in 0..=255 {
            let id = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ seed);
            let expected = BASE32_NOPAD_NOCASE.encode(&id).to_ascii_lowercase();
            assert_eq!(LeaseId(id).to_string(), format!("lea_{expected}"));
        }
    }

    #[test]
    fn a_handle_of_another_kind_or_case_is_refused() {
        let id = LeaseId([7; 16]).to_string();
        assert!(id.parse::<SessionId>().is_err());
        assert!(id.to_uppercase().parse::<LeaseId>().is_err());
        assert!(format!("{id}a").parse::<LeaseId>().is_err());
    }
}
