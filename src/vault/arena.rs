//! Secrets at rest: sealed under a key that is made at start and lives in locked memory.
//!
//! A resting value is AES-256-GCM ciphertext; the only plaintext is the [`Secret`] that
//! [`Arena::open`] makes for one response. The sealing key is locked against swap, left out of core
//! dumps, wiped on fork, and replaced by [`Arena::rekey`], after which no older slot can be opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use thiserror::Error;

use crate::secret::Secret;
use crate::sys::Protection;
use crate::sys::locked::LockedBytes;

const KEY_LEN: usize = 32;

/// No sealing key could be made: the system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system's random source failed")]
pub struct NoRandom;

/// Seals and opens values. Concurrency: any thread; opening takes the lock shared and briefly.
pub struct Arena {
    sealing: RwLock<Sealing>,
}

struct Sealing {
    key: LockedBytes,
    /// Counts slots sealed under this key: a nonce is never used twice.
    next_nonce: AtomicU64,
    /// Counts keys: a slot of an earlier key is recognised, not tried.
    epoch: u64,
}

/// One sealed value. Holds no plaintext.
pub struct Slot {
    ciphertext: Box<[u8]>,
    nonce: u64,
    epoch: u64,
}

impl Arena {
    /// Makes a sealing key.
    pub fn new() -> Result<Self, NoRandom> {
        Ok(Self { sealing: RwLock::new(Sealing::new(0)?) })
    }

    /// Seals a copy of the value; the caller's own is wiped when it is dropped.
    pub fn seal(&self, value: &Secret) -> Slot {
        let sealing = self.sealing.read().unwrap_or_else(PoisonError::into_inner);
        let number = sealing.next_nonce.fetch_add(1, Ordering::Relaxed);
        let mut buffer = Vec::with_capacity(value.len() + AES_256_GCM.tag_len());
        buffer.extend_from_slice(value.expose().as_bytes());
        let sealed = sealing
            .cipher()
            .and_then(|cipher| cipher.seal_in_place_append_tag(nonce(number), Aad::empty(), &mut buffer));
        if sealed.is_err() {
            // Cannot happen for buffers of this size; an empty slot never opens.
            zeroize::Zeroize::zeroize(&mut buffer);
        }
        Slot { ciphertext: buffer.into_boxed_slice(), nonce: number, epoch: sealing.epoch }
    }

    /// Opens a slot. `None`: its key is gone.
    pub fn open(&self, slot: &Slot) -> Option<Secret> {
        let sealing = self.sealing.read().unwrap_or_else(PoisonError::into_inner);
        if slot.epoch != sealing.epoch {
            return None;
        }
        let mut buffer = slot.ciphertext.to_vec();
        let cipher = sealing.cipher().ok()?;
        let length = cipher.open_in_place(nonce(slot.nonce), Aad::empty(), &mut buffer).ok()?.len();
        buffer.truncate(length);
        String::from_utf8(buffer).ok().map(Secret::new)
    }

    /// Forgets the sealing key and makes another.
    pub fn rekey(&self) -> Result<(), NoRandom> {
        let mut sealing = self.sealing.write().unwrap_or_else(PoisonError::into_inner);
        *sealing = Sealing::new(sealing.epoch + 1)?;
        Ok(())
    }

    /// What protects the sealing key on this host, in words for `status`.
    pub fn protections(&self) -> [Protection; 3] {
        let sealing = self.sealing.read().unwrap_or_else(PoisonError::into_inner);
        sealing.key.protections()
    }
}

impl Sealing {
    fn new(epoch: u64) -> Result<Self, NoRandom> {
        let mut key = LockedBytes::zeroed(KEY_LEN).map_err(|_| NoRandom)?;
        rand::fill(key.as_mut_slice()).map_err(|Unspecified| NoRandom)?;
        Ok(Self { key, next_nonce: AtomicU64::new(0), epoch })
    }

    /// Built for each use, so that the key rests in the locked page alone; the cipher's own copy is
    /// cleansed when it is dropped.
    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&AES_256_GCM, self.key.as_slice()).map(LessSafeKey::new)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_opens_to_what_was_sealed_and_holds_no_plaintext() {
        let arena = Arena::new().unwrap();
        let slot = arena.seal(&Secret::copy_of("canary-in-the-clear"));
        assert!(!slot.ciphertext.windows(6).any(|window| window == b"canary"));
        assert_eq!(arena.open(&slot).unwrap().expose(), "canary-in-the-clear");
    }

    #[test]
    fn equal_values_do_not_look_equal_at_rest() {
        let arena = Arena::new().unwrap();
        let (one, two) = (arena.seal(&Secret::copy_of("same")), arena.seal(&Secret::copy_of("same")));
        assert_ne!(one.ciphertext, two.ciphertext);
    }

    #[test]
    fn after_a_new_key_no_older_slot_opens() {
        let arena = Arena::new().unwrap();
        let slot = arena.seal(&Secret::copy_of("value"));
        arena.rekey().unwrap();
        assert!(arena.open(&slot).is_none());
    }
}
