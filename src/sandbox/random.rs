//! Fresh bytes, identifiers and keys. Imports `secret`.

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;
use uuid::{Builder, Uuid};

use crate::secret::Secret;

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no random bytes can be had")]
pub struct NoRandomness;

pub(super) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

pub(super) fn uuid() -> Result<Uuid, NoRandomness> {
    Ok(Builder::from_random_bytes(bytes()?).into_uuid())
}

/// `prefix` and 256 random bits. What Ravi puts after the prefix is not documented.
pub(super) fn key(prefix: &str) -> Result<Secret, NoRandomness> {
    let random = bytes::<32>()?;
    let mut text = String::with_capacity(prefix.len() + 43);
    text.push_str(prefix);
    BASE64URL_NOPAD.encode_append(&random, &mut text);
    Ok(Secret::new(text))
}

/// A number below `bound`, which is not 0. The bias of at most `bound / 2^64` does not matter here.
pub(super) fn below(bound: usize) -> Result<usize, NoRandomness> {
    let random = u64::from_le_bytes(bytes()?);
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    Ok(usize::try_from(random % bound).unwrap_or(0))
}

/// Like `ABCD-1234`, without letters and digits that are easily confused.
pub(super) fn user_code() -> Result<String, NoRandomness> {
    const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
    const DIGITS: &[u8] = b"23456789";
    let mut code = String::with_capacity(9);
    for alphabet in [LETTERS; 4] {
        code.push(char::from(alphabet[below(alphabet.len())?]));
    }
    code.push('-');
    for alphabet in [DIGITS; 4] {
        code.push(char::from(alphabet[below(alphabet.len())?]));
    }
    Ok(code)
}
