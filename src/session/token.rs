//! Session tokens: `rbt_` and base64url of the session's id and 256 random bits.
//!
//! The id finds the session without a scan; the broker keeps only the BLAKE3 hash of the random part and
//! compares it in constant time. Pure but for the random source.

use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::types::SessionId;

const PREFIX: &str = "rbt_";
const ID_LEN: usize = 16;
const RANDOM_LEN: usize = 32;
const TOKEN_LEN: usize = ID_LEN + RANDOM_LEN;
const TEXT_LEN: usize = PREFIX.len() + TOKEN_LEN * 4 / 3;

/// What is kept of a token.
#[derive(Clone, Copy)]
pub(super) struct TokenHash([u8; 32]);

/// A token as a caller presented it.
pub(super) struct Presented {
    /// The session it claims.
    pub(super) id: SessionId,
    hash: TokenHash,
}

/// Makes a token for a new session. `None`: the system's random source failed.
pub(super) fn mint() -> Option<(SessionId, TokenHash, Secret)> {
    let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
    rand::fill(bytes.as_mut_slice()).ok()?;
    let mut text = String::with_capacity(TEXT_LEN);
    text.push_str(PREFIX);
    BASE64URL_NOPAD.encode_append(bytes.as_slice(), &mut text);
    let (id, random) = bytes.split_first_chunk()?;
    Some((SessionId(*id), TokenHash::of(random), Secret::new(text)))
}

impl Presented {
    /// Reads a token. `None`: not of the form that [`mint`] makes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        if text.len() != TEXT_LEN {
            return None;
        }
        let length = BASE64URL_NOPAD.decode_mut(digits.as_bytes(), bytes.as_mut_slice()).ok()?;
        let (id, random) = bytes[..length].split_first_chunk()?;
        Some(Self { id: SessionId(*id), hash: TokenHash::of(random) })
    }

    /// Whether this is the token that was minted, in constant time.
    pub(super) fn is(&self, minted: &TokenHash) -> bool {
        self.hash.0.ct_eq(&minted.0).into()
    }
}

impl TokenHash {
    fn of(random: &[u8]) -> Self {
        Self(*blake3::hash(random).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_recognised_and_leads_to_its_session() {
        let (id, hash, token) = mint().unwrap();
        let presented = Presented::read(token.expose()).unwrap();
        assert_eq!(presented.id, id);
        assert!(presented.is(&hash));
    }

    #[test]
    fn a_token_with_any_character_changed_is_not_recognised() {
        let (id, hash, token) = mint().unwrap();
        for at in PREFIX.len()..TEXT_LEN {
            let mut text = token.expose().to_owned().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(text).unwrap();
            let taken =
                Presented::read(&text).is_some_and(|presented| presented.id == id && presented.is(&hash));
            assert!(!taken, "position {at}");
        }
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in ["", "rbt_", "Bearer x", &"A".repeat(TEXT_LEN), &format!("rbt_{}=", "A".repeat(63))] {
            assert!(Presented::read(text).is_none());
        }
    }
}
