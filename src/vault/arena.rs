//! Secrets at rest: sealed under a key that is made at start, in memory that is locked.
//!
//! A resting value is AES-256-GCM ciphertext in a slot of a locked region; the only plaintext is the
//! [`Secret`] that [`Arena::open`] makes for one response. The sealing key has a page of its own, in
//! `memfd_secret(2)` if that is wanted and to be had, and is replaced by [`Arena::rekey`], after which no
//! older slot can be opened. While a value is sealed or opened, the cipher keeps the expanded key in a heap
//! block that aws-lc cleanses when it is freed (`OPENSSL_free`), and working state on the stack, which is
//! scrubbed here.

#![allow(unsafe_code, reason = "slots of one region, kept apart by the list of what is free")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use thiserror::Error;

use super::extents::Extents;
pub use super::tier::Reached;
use crate::config::MemoryTier;
use crate::secret::Secret;
use crate::sys::locked::{LockedBytes, Shortfall, wipe};
use crate::sys::stack::scrub_stack;

const KEY_LEN: usize = 32;
const TAG_LEN: usize = MAX_TAG_LEN;
/// For values: 6,049 of 1 KiB, where 4,096 are promised.
const VALUE_BYTES: usize = 6 << 20;
/// For Ravi's keys, apart from the values, so that neither takes the other's room: 256 bytes for each key
/// that the keyring holds. With the key's page the whole stays within a memlock limit of 8 MiB.
const KEY_BYTES: usize = 256 << 10;
/// Words of dead stack that are overwritten. The cipher's frames reach less than half as deep.
const SCRUBBED_WORDS: usize = 1024;

/// No sealing key could be made: the system's random source, or memory, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system's random source or memory failed")]
pub struct NoRandom;

/// A value has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ArenaFull {
    /// Others are in the way: drop some of them and try again.
    #[error("the memory for secrets is full")]
    Now,
    /// It would not fit if there were no others.
    #[error("the value is larger than the memory for secrets")]
    Ever,
}

/// Seals and opens values. Concurrency: any thread; opening takes the lock shared and briefly.
pub struct Arena {
    values: Arc<Pool>,
    keys: Arc<Pool>,
    sealing: RwLock<Sealing>,
    reached: Reached,
}

struct Sealing {
    key: LockedBytes,
    /// False if the random source failed while the key was replaced: nothing is sealed or opened then.
    key_is_set: bool,
    /// Counts slots sealed under this key: a nonce is never used twice.
    next_nonce: AtomicU64,
    /// Counts keys: a slot of an earlier key is recognised, not tried.
    epoch: u64,
}

/// One sealed value. Holds no plaintext; wiped, and its room free again, when dropped.
pub struct Slot {
    block: Block,
    /// Of the value.
    length: usize,
    nonce: u64,
    epoch: u64,
}

impl Arena {
    /// Maps the memory, protected as far as the host allows up to `wanted`, and makes a sealing key.
    pub fn new(wanted: MemoryTier) -> Result<Self, NoRandom> {
        let [values, keys] = [Pool::new(VALUE_BYTES)?, Pool::new(KEY_BYTES)?];
        let (key, not_secret) = key_page(wanted).map_err(|_| NoRandom)?;
        let regions = [&key, &values.region, &keys.region];
        let unlocked = regions.into_iter().find_map(LockedBytes::shortfall);
        let sealing = Sealing { key, key_is_set: false, next_nonce: AtomicU64::new(0), epoch: 0 };
        let arena = Self {
            values: Arc::new(values),
            keys: Arc::new(keys),
            sealing: RwLock::new(sealing),
            reached: Reached { wanted, unlocked, not_secret },
        };
        arena.rekey()?;
        Ok(arena)
    }

    /// Seals a copy of a value; the caller's own is wiped when it is dropped.
    pub fn seal(&self, value: &Secret) -> Result<Slot, ArenaFull> {
        let slot = self.seal_in(&self.values, value);
        scrub_stack::<SCRUBBED_WORDS>();
        slot
    }

    /// The same for one of Ravi's keys, which have room of their own.
    pub fn seal_key(&self, key: &Secret) -> Result<Slot, ArenaFull> {
        let slot = self.seal_in(&self.keys, key);
        scrub_stack::<SCRUBBED_WORDS>();
        slot
    }

    /// Opens a slot. `None`: its key is gone.
    pub fn open(&self, slot: &Slot) -> Option<Secret> {
        let value = self.open_in_place(slot);
        scrub_stack::<SCRUBBED_WORDS>();
        value
    }

    /// Forgets the sealing key and makes another, in the same page.
    pub fn rekey(&self) -> Result<(), NoRandom> {
        let mut sealing = self.sealing.write().unwrap_or_else(PoisonError::into_inner);
        sealing.epoch += 1;
        sealing.next_nonce = AtomicU64::new(0);
        wipe(sealing.key.as_mut_slice());
        sealing.key_is_set = rand::fill(sealing.key.as_mut_slice()).is_ok();
        if sealing.key_is_set { Ok(()) } else { Err(NoRandom) }
    }

    /// How far the memory is protected on this host.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// From the value straight to its slot: no plaintext is copied.
    #[inline(never)]
    fn seal_in(&self, pool: &Arc<Pool>, value: &Secret) -> Result<Slot, ArenaFull> {
        let mut block = Pool::take(pool, value.len().saturating_add(TAG_LEN))?;
        let sealing = self.sealing.read().unwrap_or_else(PoisonError::into_inner);
        let number = sealing.next_nonce.fetch_add(1, Ordering::Relaxed);
        let (plain, length) = (value.expose().as_bytes(), value.len());
        let (sealed, tag) = block.bytes_mut().split_at_mut(length);
        sealing
            .cipher()
            .and_then(|cipher| {
                let tag = &mut tag[..TAG_LEN];
                cipher.seal_out_of_place_scatter(nonce(number), Aad::empty(), plain, sealed, &[], tag)
            })
            // There is no memory for the cipher's state, or no key.
            .map_err(|Unspecified| ArenaFull::Now)?;
        Ok(Slot { block, length, nonce: number, epoch: sealing.epoch })
    }

    /// Into a buffer of the value's size: nothing is cut off or moved afterwards.
    #[inline(never)]
    fn open_in_place(&self, slot: &Slot) -> Option<Secret> {
        let sealing = self.sealing.read().unwrap_or_else(PoisonError::into_inner);
        if slot.epoch != sealing.epoch {
            return None;
        }
        let (sealed, tag) = slot.block.bytes().split_at(slot.length);
        let mut plain = vec![0; slot.length];
        let cipher = sealing.cipher().ok()?;
        cipher
            .open_separate_gather(nonce(slot.nonce), Aad::empty(), sealed, &tag[..TAG_LEN], &mut plain)
            .ok()?;
        String::from_utf8(plain).ok().map(Secret::new)
    }
}

impl Sealing {
    /// Built for each use, so that the key rests in its own page alone.
    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        let key = if self.key_is_set { self.key.as_slice() } else { return Err(Unspecified) };
        UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new)
    }
}

/// The sealing key's page, and why it is not in memfd_secret if that was wanted.
fn key_page(wanted: MemoryTier) -> io::Result<(LockedBytes, Option<Shortfall>)> {
    let locked = || LockedBytes::zeroed(KEY_LEN);
    match wanted {
        MemoryTier::Locked => Ok((locked()?, None)),
        MemoryTier::Secret => match LockedBytes::secret(KEY_LEN) {
            Ok(page) => Ok((page, None)),
            Err(shortfall) => Ok((locked()?, Some(shortfall))),
        },
    }
}

/// A region and what of it is free.
struct Pool {
    region: LockedBytes,
    free: Mutex<Extents>,
}

/// A part of a pool that belongs to nobody else.
struct Block {
    pool: Arc<Pool>,
    range: Range<usize>,
}

impl Pool {
    fn new(length: usize) -> Result<Self, NoRandom> {
        let region = LockedBytes::on_demand(length).map_err(|_| NoRandom)?;
        Ok(Self { region, free: Mutex::new(Extents::new(length)) })
    }

    fn take(pool: &Arc<Self>, length: usize) -> Result<Block, ArenaFull> {
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let full = if free.could_hold(length) { ArenaFull::Now } else { ArenaFull::Ever };
        let range = free.take(length).ok_or(full)?;
        Ok(Block { pool: pool.clone(), range })
    }
}

impl Block {
    fn bytes(&self) -> &[u8] {
        let Range { start, .. } = self.range;
        // SAFETY: the range lies within the region, which lives as long as the pool and is reached through
        // blocks alone; no other block has a byte of it, since `Extents` deals each byte out once.
        unsafe { std::slice::from_raw_parts(self.pool.region.start().add(start).as_ptr(), self.range.len()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let Range { start, .. } = self.range;
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe {
            std::slice::from_raw_parts_mut(self.pool.region.start().add(start).as_ptr(), self.range.len())
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        wipe(self.bytes_mut());
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.give_back(self.range.clone());
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs::File;
    use std::hint::black_box;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    fn arena() -> Arena {
        Arena::new(MemoryTier::Locked).unwrap()
    }

    fn value(length: usize) -> Secret {
        Secret::new("x".repeat(length))
    }

    #[test]
    fn a_slot_opens_to_what_was_sealed_and_holds_no_plaintext() {
        let arena = arena();
        let slot = arena.seal(&Secret::copy_of("canary-in-the-clear")).unwrap();
        let region = arena.values.region.as_slice();
        assert!(!region[..4096].windows(6).any(|window| window == b"canary"));
        assert!(arena.open(&slot).unwrap().expose() == "canary-in-the-clear");
        let empty = arena.seal(&value(0)).unwrap();
        assert!(arena.open(&empty).unwrap().is_empty());
    }

    #[test]
    fn equal_values_do_not_look_equal_at_rest() {
        let arena = arena();
        let [one, two] = ["same", "same"].map(|text| arena.seal(&Secret::copy_of(text)).unwrap());
        assert!(one.block.bytes() != two.block.bytes());
    }

    #[test]
    fn a_slot_that_was_tampered_with_does_not_open() {
        let arena = arena();
        let mut slot = arena.seal(&value(100)).unwrap();
        slot.block.bytes_mut()[50] ^= 1;
        assert!(arena.open(&slot).is_none());
    }

    #[test]
    fn after_a_new_key_no_older_slot_opens_and_new_ones_do() {
        let arena = arena();
        let slot = arena.seal(&value(4)).unwrap();
        arena.rekey().unwrap();
        assert!(arena.open(&slot).is_none());
        let slot = arena.seal(&value(4)).unwrap();
        assert!(arena.open(&slot).is_some());
    }

    #[test]
    fn a_dropped_slot_leaves_zeros_and_room() {
        let arena = arena();
        let slot = arena.seal(&value(1024)).unwrap();
        let range = slot.block.range.clone();
        assert!(arena.values.region.as_slice()[range.clone()].iter().any(|byte| *byte != 0));
        drop(slot);
        assert!(arena.values.region.as_slice()[range].iter().all(|byte| *byte == 0));
        assert!(arena.values.free.lock().unwrap().is_whole());
    }

    #[test]
    fn a_full_arena_refuses_until_something_is_dropped_and_keys_have_room_of_their_own() {
        let arena = arena();
        let refusal = |length| arena.seal(&value(length)).err();
        assert_eq!(refusal(VALUE_BYTES), Some(ArenaFull::Ever), "the tag does not fit");
        let first = arena.seal(&value(VALUE_BYTES - 4096 - TAG_LEN)).unwrap();
        let _second = arena.seal(&value(4096 - TAG_LEN)).unwrap();
        assert_eq!(refusal(0), Some(ArenaFull::Now));
        assert!(arena.seal_key(&value(200)).is_ok());
        drop(first);
        assert_eq!(refusal(1 << 20), None);
    }

    #[test]
    fn a_wish_that_the_host_cannot_fulfil_is_reported_and_one_that_it_can_is_met() {
        let reached = Arena::new(MemoryTier::Secret).unwrap().reached();
        match LockedBytes::secret(1).err() {
            None => assert_eq!(reached.tier().is_none(), reached.unlocked.is_some()),
            Some(why) => assert_eq!(reached.not_secret, Some(why)),
        }
        assert_eq!(reached.protection().full, reached.tier() == Some(MemoryTier::Secret));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn slots_hold_their_own_values_whatever_came_and_went(lengths in proptest::collection::vec(0usize..5000, 1..60)) {
            let arena = arena();
            let mut live: Vec<(Slot, usize)> = Vec::new();
            for (step, length) in lengths.into_iter().enumerate() {
                if step % 3 == 2 {
                    drop(live.swap_remove(length % live.len()));
                }
                live.push((arena.seal(&value(length)).unwrap(), length));
                for (slot, length) in &live {
                    prop_assert!(arena.open(slot).is_some_and(|open| open.expose() == value(*length).expose()));
                }
            }
            live.clear();
            prop_assert!(arena.values.free.lock().unwrap().is_whole());
        }
    }

    /// Bytes of stack below a test's frame that are looked at.
    const LOOKED_AT: usize = 64 << 10;
    const PAINT: u64 = 0xa5a5_a5a5_a5a5_a5a5;

    #[inline(never)]
    fn paint_stack() {
        black_box([PAINT; LOOKED_AT / 8]);
    }

    /// The words below the caller's frame after `work`, lowest first.
    #[inline(never)]
    fn dead_stack_after(work: impl FnOnce()) -> Vec<u64> {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut bytes = vec![0; LOOKED_AT];
        let here = 0_u64;
        let below = black_box(&raw const here) as usize - LOOKED_AT;
        paint_stack();
        work();
        memory.read_exact_at(&mut bytes, below as u64).unwrap();
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    /// What is no address, no number and no paint, hence might be a part of a key or of a cipher's state.
    fn looks_random(words: &[u64]) -> HashSet<u64> {
        words
            .iter()
            .copied()
            .filter(|word| *word != PAINT && (1 << 60..u64::MAX << 48).contains(word))
            .collect()
    }

    #[test]
    fn the_cipher_leaves_nothing_on_the_stack() {
        let arena = arena();
        let slot = arena.seal(&value(1024)).unwrap();
        let unscrubbed = || dead_stack_after(|| drop(arena.open_in_place(&slot)));
        // Twice, so that what is done once for a thread or process is done.
        let [_, left] = [unscrubbed(), unscrubbed()];
        let untouched = left.iter().take_while(|word| **word == PAINT).count();
        assert!(left.len() - untouched < SCRUBBED_WORDS, "{untouched}");
        // Looking and freeing leave something as well: constants, and the canary of stack protection.
        let opened = arena.open(&slot);
        let state = &looks_random(&left) - &looks_random(&dead_stack_after(|| drop(opened)));
        assert!(state.len() > 30, "the test would not see what the cipher leaves");
        let scrubbed = looks_random(&dead_stack_after(|| drop(arena.open(&slot))));
        assert_eq!(scrubbed.intersection(&state).count(), 0);
        let copy = value(1024);
        let scrubbed = looks_random(&dead_stack_after(|| drop(arena.seal(&copy))));
        assert_eq!(scrubbed.intersection(&state).count(), 0);
    }
}
