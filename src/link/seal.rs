//! Sealing: what the two ends of a conversation write opens to the other end alone.
//!
//! Both make an X25519 key for the one conversation, so that nothing that is kept afterwards opens what was
//! written. The keys of the two directions come from HKDF-SHA-256 over the shared secret, with both public
//! keys and the conversation's number in its `info`; a frame is ChaCha20-Poly1305 (RFC 8439) with its head as
//! associated data and its place in the order as nonce. So a frame that was changed, repeated, left out,
//! moved, or is of another conversation or direction does not open, and an end that sees one must end the
//! conversation: its [`Opener`] opens nothing after it. Keys are wiped when dropped; what was computed with
//! them leaves working state on the stack, which is scrubbed here. Imports `sys`.
//!
//! The daemon has aws-lc; this is made of small crates, since the adapter speaks it too, which would
//! grow by half with aws-lc in it.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::frame::{HEAD, Head, Kind, MAX_PAYLOAD};
use crate::sys::stack::scrub_stack;

/// Bytes of a public key.
pub const PUBLIC_KEY: usize = 32;
/// Bytes that sealing adds.
pub const TAG: usize = 16;
/// Longest piece of a conversation that one frame carries.
pub const MAX_PLAIN: usize = MAX_PAYLOAD - TAG;

/// Parts these keys from those of any other use.
const PURPOSE: &[u8] = b"ravi-broker link 2";
/// Words of dead stack that are overwritten after a frame, and after an agreement, whose calls reach deeper.
const AFTER_FRAME: usize = 2048;
const AFTER_AGREEMENT: usize = 8192;

/// A key cannot be agreed on, or a frame does not open: the conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what came over the link was not sealed for this conversation")]
pub struct Broken;

/// Which end of the link one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A process of the session.
    Client,
    /// The broker.
    Broker,
}

/// One's own half of the keys of a conversation. Has no `Debug`: it holds a key.
pub struct Ephemeral {
    private: Box<StaticSecret>,
    public: [u8; PUBLIC_KEY],
}

impl Ephemeral {
    /// A fresh one.
    ///
    /// # Errors
    /// The system's random source, or memory, failed.
    pub fn new() -> Result<Self, Broken> {
        let made = make();
        scrub_stack::<AFTER_AGREEMENT>();
        made
    }

    /// What the other end gets.
    pub fn public(&self) -> &[u8; PUBLIC_KEY] {
        &self.public
    }

    /// The keys of a conversation, for what one writes and for what one reads.
    ///
    /// # Errors
    /// The other's key is none, or one of those that would lead everybody to the same secret.
    pub fn agree(self, end: End, conversation: u64, theirs: &[u8]) -> Result<(Sealer, Opener), Broken> {
        let agreed = agree(self, end, conversation, theirs);
        scrub_stack::<AFTER_AGREEMENT>();
        agreed
    }
}

#[inline(never)]
fn make() -> Result<Ephemeral, Broken> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|_| Broken)?;
    let private = Box::new(StaticSecret::from(*random));
    let public = PublicKey::from(&*private).to_bytes();
    Ok(Ephemeral { private, public })
}

#[inline(never)]
fn agree(own: Ephemeral, end: End, conversation: u64, theirs: &[u8]) -> Result<(Sealer, Opener), Broken> {
    let Ephemeral { private, public } = own;
    let theirs: [u8; PUBLIC_KEY] = theirs.try_into().map_err(|_| Broken)?;
    let secret = private.diffie_hellman(&PublicKey::from(theirs));
    // Points of low order lead everybody to zeros (RFC 7748, section 6.1).
    if !secret.was_contributory() {
        return Err(Broken);
    }
    let secret = Hkdf::<Sha256>::new(Some(PURPOSE), secret.as_bytes());
    let (client, broker) = match end {
        End::Client => (public, theirs),
        End::Broker => (theirs, public),
    };
    let number = conversation.to_be_bytes();
    let to_broker = key(&secret, &[b"to the broker", &client, &broker, &number])?;
    let to_client = key(&secret, &[b"to the client", &client, &broker, &number])?;
    let (ours, other) = match end {
        End::Client => (to_broker, to_client),
        End::Broker => (to_client, to_broker),
    };
    Ok((Sealer { key: ours, conversation, next: 0 }, Opener { key: Some(other), conversation, next: 0 }))
}

/// In a block of its own, which is wiped where it lies: what is moved leaves a copy behind.
fn key(secret: &Hkdf<Sha256>, info: &[&[u8]]) -> Result<Box<ChaCha20Poly1305>, Broken> {
    let mut bytes = Zeroizing::new([0; 32]);
    secret.expand_multi_info(info, &mut *bytes).map_err(|_| Broken)?;
    Ok(Box::new(ChaCha20Poly1305::new(<&Key>::from(&*bytes))))
}

/// Seals what one end writes. Has no `Debug`: it holds a key.
pub struct Sealer {
    key: Box<ChaCha20Poly1305>,
    conversation: u64,
    /// Of the next frame.
    next: u64,
}

impl Sealer {
    /// A frame with at most [`MAX_PLAIN`] bytes of `plain`, put behind what is in the buffer. Returns how many
    /// it took. The bytes become ciphertext where they lie, so the buffer should have room for the frame.
    ///
    /// # Errors
    /// There is no memory, or no number left: nothing was put into the buffer.
    pub fn seal(&mut self, kind: Kind, plain: &[u8], into: &mut Vec<u8>) -> Result<usize, Broken> {
        let plain = &plain[..plain.len().min(MAX_PLAIN)];
        let begin = into.len();
        let sealed = self.seal_behind(kind, plain, into);
        scrub_stack::<AFTER_FRAME>();
        if sealed.is_err() {
            into.truncate(begin);
        }
        sealed.map(|()| plain.len())
    }

    #[inline(never)]
    fn seal_behind(&mut self, kind: Kind, plain: &[u8], into: &mut Vec<u8>) -> Result<(), Broken> {
        let head = Head { kind, length: plain.len() + TAG, conversation: self.conversation }.bytes();
        let nonce = nonce(&mut self.next)?;
        into.reserve(HEAD + plain.len() + TAG);
        into.extend(head);
        let begin = into.len();
        into.extend(plain);
        let bytes = (&mut into[begin..]).into();
        let tag = self.key.encrypt_inout_detached(&nonce, &head, bytes).map_err(|_| Broken)?;
        into.extend(tag);
        Ok(())
    }
}

/// Opens what the other end wrote. Has no `Debug`: it holds a key.
pub struct Opener {
    /// `None` after a frame that did not open.
    key: Option<Box<ChaCha20Poly1305>>,
    conversation: u64,
    /// Of the next frame.
    next: u64,
}

impl Opener {
    /// Opens the next frame where it lies, and returns what it carries.
    ///
    /// # Errors
    /// It is not the next frame of this conversation. No other will open.
    pub fn open<'a>(&mut self, head: &Head, payload: &'a mut [u8]) -> Result<&'a mut [u8], Broken> {
        let opened = self.open_in_place(head, payload);
        scrub_stack::<AFTER_FRAME>();
        if opened.is_err() {
            self.key = None;
        }
        opened
    }

    #[inline(never)]
    fn open_in_place<'a>(&mut self, head: &Head, payload: &'a mut [u8]) -> Result<&'a mut [u8], Broken> {
        let key = self.key.as_ref().ok_or(Broken)?;
        let nonce = nonce(&mut self.next)?;
        // The number is in the key as well; the head is as it was read.
        if head.conversation != self.conversation || head.length != payload.len() {
            return Err(Broken);
        }
        let plain = payload.len().checked_sub(TAG).ok_or(Broken)?;
        let (sealed, tag) = payload.split_at_mut(plain);
        let tag = <&Tag>::try_from(&*tag).map_err(|_| Broken)?;
        key.decrypt_inout_detached(&nonce, &head.bytes(), (&mut *sealed).into(), tag).map_err(|_| Broken)?;
        Ok(sealed)
    }
}

/// The nonce of this number, and the number after it. None is used twice.
fn nonce(next: &mut u64) -> Result<Nonce, Broken> {
    let number = *next;
    *next = number.checked_add(1).ok_or(Broken)?;
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Ok(Nonce::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u64 = 7;
    const CANARY: &[u8] = b"canary-7d1f0a63-value";

    struct Ends {
        client: (Sealer, Opener),
        broker: (Sealer, Opener),
    }

    fn ends() -> Ends {
        let (client, broker) = (Ephemeral::new().unwrap(), Ephemeral::new().unwrap());
        let (clients, brokers) = (*client.public(), *broker.public());
        Ends {
            client: client.agree(End::Client, NUMBER, &brokers).unwrap(),
            broker: broker.agree(End::Broker, NUMBER, &clients).unwrap(),
        }
    }

    fn frame(sealer: &mut Sealer, kind: Kind, plain: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        assert_eq!(sealer.seal(kind, plain, &mut frame), Ok(plain.len()));
        frame
    }

    fn open(opener: &mut Opener, frame: &[u8]) -> Result<Vec<u8>, Broken> {
        let (head, payload) = frame.split_first_chunk().unwrap();
        let mut payload = payload.to_vec();
        opener.open(&Head::read(head).map_err(|_| Broken)?, &mut payload).map(|plain| plain.to_vec())
    }

    fn shows(bytes: &[u8], canary: &[u8]) -> bool {
        bytes.windows(8).any(|window| canary.windows(8).any(|part| part == window))
    }

    #[test]
    fn a_frame_opens_to_what_was_sealed_and_shows_no_part_of_it() {
        let Ends { mut client, mut broker } = ends();
        // What a frame would show that is not sealed.
        let mut bare = Vec::new();
        crate::link::write(Kind::Data, NUMBER, CANARY, &mut bare);
        assert!(shows(&bare, CANARY));
        for _ in 0..3 {
            let sealed = frame(&mut broker.0, Kind::Data, CANARY);
            assert!(!shows(&sealed, CANARY));
            assert_eq!(open(&mut client.1, &sealed).unwrap(), CANARY);
            let sealed = frame(&mut client.0, Kind::Data, CANARY);
            assert!(!shows(&sealed, CANARY));
            assert_eq!(open(&mut broker.1, &sealed).unwrap(), CANARY);
        }
        let close = frame(&mut broker.0, Kind::Close, &[]);
        assert_eq!(open(&mut client.1, &close).unwrap(), b"");
    }

    #[test]
    fn a_frame_takes_no_more_than_fits() {
        let Ends { mut client, mut broker } = ends();
        let mut sealed = Vec::new();
        assert_eq!(broker.0.seal(Kind::Data, &[9; 70_000], &mut sealed), Ok(MAX_PLAIN));
        assert_eq!(sealed.len(), HEAD + MAX_PAYLOAD);
        assert_eq!(open(&mut client.1, &sealed).unwrap(), [9; MAX_PLAIN]);
    }

    #[test]
    fn a_frame_that_was_changed_anywhere_does_not_open_and_none_after_it() {
        let length = frame(&mut ends().broker.0, Kind::Data, CANARY).len();
        for at in 0..length {
            let Ends { mut client, mut broker } = ends();
            let mut sealed = frame(&mut broker.0, Kind::Data, CANARY);
            sealed[at] ^= 1;
            assert_eq!(open(&mut client.1, &sealed), Err(Broken), "{at}");
            // A byte of the head can make it no head at all, which no opener gets to see.
            if at >= HEAD {
                sealed[at] ^= 1;
                assert_eq!(open(&mut client.1, &sealed), Err(Broken), "{at}");
                let next = frame(&mut broker.0, Kind::Data, CANARY);
                assert_eq!(open(&mut client.1, &next), Err(Broken), "{at}");
            }
        }
    }

    #[test]
    fn a_frame_that_was_repeated_left_out_or_moved_does_not_open() {
        let sealed = |broker: &mut Sealer| [1, 2].map(|byte| frame(broker, Kind::Data, &[byte; 20]));
        let Ends { mut client, mut broker } = ends();
        let [first, second] = sealed(&mut broker.0);
        assert!(open(&mut client.1, &first).is_ok());
        assert_eq!(open(&mut client.1, &first), Err(Broken), "repeated");
        assert_eq!(open(&mut client.1, &second), Err(Broken), "after a repeated one");
        let Ends { mut client, mut broker } = ends();
        let [first, second] = sealed(&mut broker.0);
        assert_eq!(open(&mut client.1, &second), Err(Broken), "the first was left out");
        assert_eq!(open(&mut client.1, &first), Err(Broken), "moved behind the second");
    }

    #[test]
    fn a_frame_of_the_other_direction_or_of_another_conversation_does_not_open() {
        let Ends { client: (mut own, mut from_broker), .. } = ends();
        let sent = frame(&mut own, Kind::Data, CANARY);
        assert_eq!(open(&mut from_broker, &sent), Err(Broken), "one's own");
        let (mut one, mut other) = (ends(), ends());
        let foreign = frame(&mut one.broker.0, Kind::Data, CANARY);
        assert_eq!(open(&mut other.client.1, &foreign), Err(Broken), "of other keys");
        // The same public keys under another number are other keys.
        let (client, broker) = (Ephemeral::new().unwrap(), Ephemeral::new().unwrap());
        let (clients, brokers) = (*client.public(), *broker.public());
        let (_, mut opener) = client.agree(End::Client, NUMBER, &brokers).unwrap();
        let (mut sealer, _) = broker.agree(End::Broker, NUMBER + 1, &clients).unwrap();
        sealer.conversation = NUMBER;
        assert_eq!(open(&mut opener, &frame(&mut sealer, Kind::Data, CANARY)), Err(Broken));
    }

    /// What the documents say, computed by another implementation.
    #[test]
    fn the_keys_and_the_seal_are_those_of_the_standards() {
        use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
        use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
        use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

        let client = PrivateKey::generate(&X25519).unwrap();
        let clients = client.compute_public_key().unwrap();
        let broker = Ephemeral::new().unwrap();
        let brokers = *broker.public();
        let (mut sealer, _) = broker.agree(End::Broker, NUMBER, clients.as_ref()).unwrap();
        let mut key = [0; 32];
        agree(&client, UnparsedPublicKey::new(&X25519, &brokers), (), |secret| {
            let secret = Salt::new(HKDF_SHA256, b"ravi-broker link 2").extract(secret);
            let info = [&b"to the client"[..], clients.as_ref(), &brokers, &NUMBER.to_be_bytes()];
            secret.expand(&info, &CHACHA20_POLY1305).unwrap().fill(&mut key).map_err(drop)
        })
        .unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
        for number in 0..3_u8 {
            let mut sealed = frame(&mut sealer, Kind::Data, CANARY);
            let (head, payload) = sealed.split_at_mut(HEAD);
            let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]);
            assert_eq!(key.open_in_place(nonce, Aad::from(head), payload).unwrap(), CANARY);
        }
    }

    /// The points of low order of RFC 7748's curve, and what is no point's encoding by its length.
    #[test]
    fn a_key_that_leads_everybody_to_the_same_secret_is_refused() {
        let mut one = [0; PUBLIC_KEY];
        one[0] = 1;
        let order_8 = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let mut minus_one = [0xff; PUBLIC_KEY];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for low in [[0; PUBLIC_KEY], one, order_8, minus_one] {
            for end in [End::Client, End::Broker] {
                assert!(Ephemeral::new().unwrap().agree(end, NUMBER, &low).is_err());
            }
        }
        for length in [0, 31, 33] {
            assert!(Ephemeral::new().unwrap().agree(End::Broker, NUMBER, &vec![9; length]).is_err());
        }
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let Ends { mut broker, .. } = ends();
        broker.0.next = u64::MAX;
        let mut into = vec![1];
        assert_eq!(broker.0.seal(Kind::Data, CANARY, &mut into), Err(Broken));
        assert_eq!(into, [1]);
    }
}
