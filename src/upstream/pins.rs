//! Which account rows belong to which identity.
//!
//! Rows of the vaults name their identity by an internal number that no documented call translates,
//! and an address list does not name it at all. So the number is learned at first sight and then held
//! to be one-to-one with the UUID, and addresses are compared with what the identity itself said.
//! Limit: a number that is wrong at first sight is noticed only when the second identity claims it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{AnswerFault, Identity, Result, UpstreamError};
use crate::types::IdentityUuid;

/// More identities than any account has; at the bound new ones are refused.
const MAX_IDENTITIES: usize = 16_384;

/// What was learned about identities. Shared by all calls; the lock is held for a look-up only.
#[derive(Default)]
pub(super) struct Pins(Mutex<Learned>);

#[derive(Default)]
struct Learned {
    number_of: HashMap<IdentityUuid, i64>,
    owner_of: HashMap<i64, IdentityUuid>,
    addresses_of: HashMap<IdentityUuid, Addresses>,
    /// Mail addresses in lower case; as many as identities at most.
    owner_of_address: HashMap<String, IdentityUuid>,
}

/// Which address of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Email,
    Phone,
}

#[derive(Clone)]
struct Addresses {
    email: Option<String>,
    phone: Option<String>,
}

impl Addresses {
    fn one(&self, kind: Address) -> Option<&String> {
        match kind {
            Address::Email => self.email.as_ref(),
            Address::Phone => self.phone.as_ref(),
        }
    }
}

impl Pins {
    /// All rows must carry one number, and it must be this identity's and nobody else's.
    pub(super) fn check(&self, identity: IdentityUuid, numbers: impl IntoIterator<Item = i64>) -> Result<()> {
        let mut numbers = numbers.into_iter();
        let Some(number) = numbers.next() else { return Ok(()) };
        let alone = numbers.all(|other| other == number);
        (alone && self.lock().claim(identity, number)).then_some(()).ok_or(FOREIGN)
    }

    /// Remembers what an identity said about itself.
    pub(super) fn learn(&self, identity: &Identity) {
        let mut learned = self.lock();
        let known = learned.addresses_of.contains_key(&identity.uuid);
        if known || learned.addresses_of.len() < MAX_IDENTITIES {
            let addresses = Addresses { email: identity.email.clone(), phone: identity.phone.clone() };
            let before = learned.addresses_of.insert(identity.uuid, addresses);
            if let Some(email) = before.and_then(|before| before.email) {
                let email = email.to_ascii_lowercase();
                if learned.owner_of_address.get(&email) == Some(&identity.uuid) {
                    learned.owner_of_address.remove(&email);
                }
            }
            if let Some(email) = &identity.email {
                learned.owner_of_address.insert(email.to_ascii_lowercase(), identity.uuid);
            }
        }
    }

    /// The address that the identity said it has.
    pub(super) fn address(&self, identity: IdentityUuid, kind: Address) -> Option<String> {
        self.lock().addresses_of.get(&identity)?.one(kind).cloned()
    }

    /// True if a mail address, in lower case, is that of another identity as far as is known.
    pub(super) fn is_anothers(&self, identity: IdentityUuid, email: &str) -> bool {
        self.lock().owner_of_address.get(email).is_some_and(|owner| *owner != identity)
    }

    /// True unless a number is known to be another identity's, or ours to be another. Teaches nothing: that
    /// these rows count identities as the vaults do is not documented.
    pub(super) fn agrees(&self, identity: IdentityUuid, number: i64) -> bool {
        let learned = self.lock();
        let other_number = learned.number_of.get(&identity).is_some_and(|pinned| *pinned != number);
        let other_owner = learned.owner_of.get(&number).is_some_and(|owner| *owner != identity);
        !other_number && !other_owner
    }

    /// True if every address in the list is the one that the identity said it has.
    pub(super) fn owns(&self, identity: IdentityUuid, kind: Address, listed: &[String]) -> bool {
        let learned = self.lock();
        let own = learned.addresses_of.get(&identity).and_then(|addresses| addresses.one(kind));
        listed.iter().all(|address| own.is_some_and(|own| own.eq_ignore_ascii_case(address)))
    }

    /// A panic elsewhere cannot leave the maps half-written: each insert is checked before it is made.
    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) const FOREIGN: UpstreamError = UpstreamError::Answer(AnswerFault::Foreign);

impl Learned {
    fn claim(&mut self, identity: IdentityUuid, number: i64) -> bool {
        match (self.number_of.get(&identity), self.owner_of.get(&number)) {
            (Some(pinned), Some(owner)) => *pinned == number && *owner == identity,
            (None, None) if self.number_of.len() < MAX_IDENTITIES => {
                self.number_of.insert(identity, number);
                self.owner_of.insert(number, identity);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn identity(n: u128) -> IdentityUuid {
        IdentityUuid(Uuid::from_u128(n))
    }

    #[test]
    fn an_identity_keeps_the_number_it_was_first_seen_with() {
        let pins = Pins::default();
        assert_eq!(pins.check(identity(1), [7, 7]), Ok(()));
        assert_eq!(pins.check(identity(1), [7]), Ok(()));
        assert_eq!(pins.check(identity(1), [8]), Err(FOREIGN));
    }

    #[test]
    fn two_identities_never_share_a_number() {
        let pins = Pins::default();
        assert_eq!(pins.check(identity(1), [7]), Ok(()));
        assert_eq!(pins.check(identity(2), [7]), Err(FOREIGN));
        assert_eq!(pins.check(identity(2), [8]), Ok(()), "the refused answer taught nothing");
    }

    #[test]
    fn rows_that_disagree_are_refused_and_teach_nothing() {
        let pins = Pins::default();
        assert_eq!(pins.check(identity(1), [7, 8]), Err(FOREIGN));
        assert_eq!(pins.check(identity(2), [7]), Ok(()));
    }

    #[test]
    fn an_empty_answer_says_nothing() {
        let pins = Pins::default();
        assert_eq!(pins.check(identity(1), []), Ok(()));
        assert_eq!(pins.check(identity(2), [7]), Ok(()));
    }

    #[test]
    fn an_address_must_be_the_one_that_the_identity_gave() {
        let pins = Pins::default();
        let listed = ["A@ravi.id".to_owned()];
        assert!(!pins.owns(identity(1), Address::Email, &listed), "not known yet");
        pins.learn(&Identity {
            uuid: identity(1),
            name: "a".into(),
            email: Some("a@ravi.id".into()),
            phone: None,
        });
        assert!(pins.owns(identity(1), Address::Email, &listed));
        assert!(!pins.owns(identity(1), Address::Phone, &["+15550100".into()]));
        assert!(!pins.owns(identity(1), Address::Email, &["a@ravi.id".into(), "b@ravi.id".into()]));
        assert!(pins.owns(identity(1), Address::Phone, &[]));
    }

    proptest! {
        #[test]
        fn what_was_accepted_is_one_to_one(sights in prop::collection::vec((0_u128..6, 0_i64..6), 0..60)) {
            let pins = Pins::default();
            let mut accepted = Vec::new();
            for (uuid, number) in sights {
                if pins.check(identity(uuid), [number]).is_ok() {
                    accepted.push((uuid, number));
                }
            }
            for a in &accepted {
                for b in &accepted {
                    prop_assert_eq!(a.0 == b.0, a.1 == b.1);
                }
            }
        }
    }
}
