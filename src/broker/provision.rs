//! Identities that are made: each name once, however many ask at the same time.
//!
//! An attempt is noted in the store before Ravi is asked, so that one whose answer is lost is never made a second time
//! by the daemon: from then on the identity is looked for by its name, and after five minutes the operator is told to
//! look. Only the operator's own order goes past a note.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Broker;
use super::error::{BrokerError, Result};
use crate::audit::{Actor, Event, Target, Verb};
use crate::clock::BootInstant;
use crate::config::{IdentityRef, Provision};
use crate::inbox::store::provisioning;
use crate::policy::Role;
use crate::session::Session;
use crate::types::{IdentityName, IdentityUuid, Reason, Subject};
use crate::upstream::{Identity, UpstreamError};
use crate::vault::VaultError;
use crate::vault::flight::Flights;

/// For so long an identity that was to be created may still appear.
const APPEARS: Duration = Duration::from_secs(300);
/// For so long a clear refusal of Ravi's is believed.
const REFUSED: Duration = Duration::from_secs(60);
/// Names whose refusal is remembered; roles have no more.
const MAX_REFUSED: usize = 1024;
/// How often an identity is read again whose telephone is in doubt, and how long between.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// Creations under way, one for each name, and those that Ravi refused a moment ago.
pub(super) struct Creations {
    flights: Flights<IdentityName, Result<Made>>,
    refused: Mutex<HashMap<IdentityName, (BootInstant, BrokerError)>>,
}

/// An identity of the name that was asked for.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) identity: Identity,
    /// It was not there before.
    pub(super) is_new: bool,
}

/// Who has an identity made, and how.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) actor: Actor,
    pub(super) reason: Option<Reason>,
    /// The operator's own: past the note of an earlier attempt.
    pub(super) insists: bool,
    /// It gets a telephone number, if it can.
    pub(super) with_phone: bool,
}

impl Creations {
    pub(super) fn new() -> Self {
        Self { flights: Flights::new(), refused: Mutex::default() }
    }

    fn refusal(&self, name: &IdentityName, now: BootInstant) -> Option<BrokerError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = refused.get(name)?;
        (now.since(*at) < REFUSED).then(|| error.clone())
    }

    fn refuse(&self, name: &IdentityName, now: BootInstant, error: &BrokerError) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (at, _)| now.since(*at) < REFUSED);
        if refused.len() < MAX_REFUSED {
            refused.insert(name.clone(), (now, error.clone()));
        }
    }
}

impl Broker {
    /// The identity behind a role. One that is not there is made, if the role says so.
    pub(super) async fn identity_of(&self, session: &Session, role: &Role) -> Result<IdentityUuid> {
        let found = self.vault.resolve(role.identity()).await;
        let (
            Err(VaultError::NoIdentity),
            IdentityRef::Name(name),
            Provision::Identity | Provision::WithPhone,
        ) = (&found, role.identity(), role.provision)
        else {
            return Ok(found?);
        };
        if let Some(error) = self.creations.refusal(name, self.clock.now()) {
            return Err(error);
        }
        let with_phone = role.provision == Provision::WithPhone;
        let order = Order { actor: session.actor.clone(), reason: None, insists: false, with_phone };
        let made = self.make_identity(name, order).await.0;
        if let Err(error @ BrokerError::Upstream(_)) = &made {
            self.creations.refuse(name, self.clock.now(), error);
        }
        Ok(made?.identity.uuid)
    }

    /// Joins the creation of this name, or begins it. It goes on to its end without its callers. True if it is this
    /// order that it was begun for.
    pub(super) async fn make_identity(&self, name: &IdentityName, order: Order) -> (Result<Made>, bool) {
        let Some(broker) = self.me.upgrade() else { return (Err(BrokerError::Internal), false) };
        let mut begun = false;
        let start = || {
            begun = true;
            broker.make(name.clone(), order)
        };
        let made = self.creations.flights.join(name.clone(), start).await;
        (made.unwrap_or(Err(BrokerError::Internal)), begun)
    }

    async fn make(self: Arc<Self>, name: IdentityName, order: Order) -> Result<Made> {
        self.gate.check()?;
        let account = self.vault.account()?;
        if let Some(identity) = self.find_identity(account, &name).await? {
            return Ok(Made { identity, is_new: false });
        }
        if let Some(begun_at) = provisioning::begun(&self.store, &name).await?
            && !order.insists
        {
            let age = self.clock.wall().as_second().saturating_sub(begun_at);
            let is_late = u64::try_from(age).is_ok_and(|age| age >= APPEARS.as_secs());
            return Err(if is_late {
                BrokerError::Unprovisioned(name)
            } else {
                BrokerError::Provisioning(name)
            });
        }
        provisioning::begin(&self.store, &name, self.clock.wall().as_second()).await?;
        let subject = Subject::Identity(name.clone());
        let event = Event::of(Verb::IdentityCreated, &order.actor).target(Target::Subject(&subject));
        if let Err(error) = self.must_record(&event.reason(order.reason.as_ref())) {
            provisioning::end(&self.store, &name).await?;
            return Err(error);
        }
        match self.mailbox.create_identity(name.as_str()).await {
            Ok((identity, key)) => {
                self.vault.learn(account, &name, identity.uuid, key.as_ref());
                if key.is_some() {
                    self.try_record(&Event::of(Verb::KeyMinted, &order.actor).identity(identity.uuid));
                }
                if identity.name == name.as_str() {
                    provisioning::end(&self.store, &name).await?;
                } else {
                    // By its name it will not be found again, and must not be made again.
                    tracing::error!(identity = %identity.uuid, "Ravi gave a new identity another name: configure its UUID");
                }
                let identity = self.with_phone(identity, &order).await;
                Ok(Made { identity, is_new: true })
            }
            Err(UpstreamError::OutcomeUnknown | UpstreamError::Answer(_)) => {
                let found = self.find_identity(account, &name).await.ok().flatten();
                let identity = found.ok_or(BrokerError::Provisioning(name))?;
                Ok(Made { identity: self.with_phone(identity, &order).await, is_new: true })
            }
            Err(error) => {
                provisioning::end(&self.store, &name).await?;
                Err(error.into())
            }
        }
    }

    /// By a fresh list: what was cached may be from before.
    async fn find_identity(&self, account: u64, name: &IdentityName) -> Result<Option<Identity>> {
        let listed = self.upstream.list_identities().await?;
        let mut named = listed.into_iter().filter(|identity| identity.name == name.as_str());
        match (named.next(), named.next()) {
            (Some(identity), None) => {
                provisioning::end(&self.store, name).await?;
                self.vault.learn(account, name, identity.uuid, None);
                Ok(Some(identity))
            }
            (Some(_), Some(_)) => Err(BrokerError::NoIdentity),
            (None, _) => Ok(None),
        }
    }

    /// Without a number it is of use all the same.
    async fn with_phone(&self, identity: Identity, order: &Order) -> Identity {
        if !order.with_phone || identity.phone.is_some() {
            return identity;
        }
        let event = Event::of(Verb::IdentityProvisioned, &order.actor).identity(identity.uuid);
        let recorded = self.must_record(&event.reason(order.reason.as_ref()));
        let given = match recorded {
            Ok(()) => self.give_phone(identity.uuid, None).await,
            Err(error) => Err(error),
        };
        given.unwrap_or_else(|error| {
            tracing::warn!(identity = %identity.uuid, %error, "a new identity has no telephone number");
            identity
        })
    }

    /// Asks for a number, once. Where the answer is lost, the identity tells whether it has one.
    pub(super) async fn give_phone(&self, identity: IdentityUuid, country: Option<&str>) -> Result<Identity> {
        let given = self.mailbox.provision_phone(identity, country).await;
        self.vault.forget_card(identity);
        let error = match given {
            Ok(identity) => return Ok(identity),
            Err(UpstreamError::Answer(_)) => UpstreamError::OutcomeUnknown,
            Err(error) => error,
        };
        // It has one already, or may have.
        if let UpstreamError::OutcomeUnknown | UpstreamError::Conflict = error {
            for look in 0..LOOKS {
                if look > 0 {
                    self.clock.sleep_until(self.clock.now() + BETWEEN_LOOKS).await;
                }
                let read = self.upstream.read_identity(identity).await;
                if let Ok(read) = read
                    && read.phone.is_some()
                {
                    self.vault.forget_card(identity);
                    return Ok(read);
                }
            }
        }
        Err(error.into())
    }
}
