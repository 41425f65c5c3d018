//! The handle on a running sandbox, for use within the process. `control_http` offers the same
//! operations at `/__sandbox__/…`; Ravi has nothing of the kind. Deliveries are in `arrival`, what was sent in
//! `outbox`.

use thiserror::Error;
use uuid::Uuid;

use crate::secret::Secret;

use super::behaviour::Behaviour;
use super::device;
use super::fault::Fault;
use super::random::{self, NoRandomness};
use super::seed;
use super::state::{Api, Decision, Identity, KeyKind, SecretRow, World};
use super::traffic::RequestCount;

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// Neither a uuid nor a name of an identity.
    #[error("there is no such identity")]
    NoSuchIdentity,
    /// No such secret, password or key.
    #[error("there is no such entry")]
    NoSuchEntry,
    /// The identity has no mail address or no phone.
    #[error("the identity cannot be reached this way")]
    NoAddress,
    /// A list has reached its bound.
    #[error("no more of these are kept")]
    Full,
    /// A rule that the values break.
    #[error("{0}")]
    Invalid(&'static str),
    /// The operating system gave no random bytes.
    #[error("no random bytes can be had")]
    NoRandomness,
}

impl From<NoRandomness> for ControlError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

/// Steers a running sandbox. Cheap to clone; keeps working until the sandbox is shut down.
#[derive(Clone)]
pub struct Control {
    pub(super) api: Api,
}

impl Control {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }

    /// The first management key that is not revoked.
    pub fn management_key(&self) -> Option<Secret> {
        self.key(KeyKind::Management)
    }

    /// The first key of that identity (uuid or name) that is not revoked.
    pub fn identity_key(&self, identity: &str) -> Option<Secret> {
        let id = find(&self.api.world(), identity).ok()?.id;
        self.key(KeyKind::Identity(id))
    }

    fn key(&self, kind: KeyKind) -> Option<Secret> {
        let world = self.api.world();
        world.keys.iter().find(|key| key.kind == kind).map(|key| Secret::copy_of(key.value.expose()))
    }

    /// From now on the API answers 401 to every management key.
    pub fn revoke_management_key(&self) {
        self.api.world().keys.retain(|key| key.kind != KeyKind::Management);
    }

    /// From now on the API answers 401 to every key of that identity (uuid or name).
    pub fn revoke_identity_keys(&self, identity: &str) -> Result<(), ControlError> {
        let mut world = self.api.world();
        let id = find(&world, identity)?.id;
        world.keys.retain(|key| key.kind != KeyKind::Identity(id));
        Ok(())
    }

    /// Arms a fault.
    pub fn add_fault(&self, fault: Fault) -> Result<(), ControlError> {
        fault.check().map_err(ControlError::Invalid)?;
        if self.api.traffic.arm(fault) { Ok(()) } else { Err(ControlError::Full) }
    }

    /// The armed faults with turns left.
    pub fn faults(&self) -> Vec<Fault> {
        self.api.traffic.faults()
    }

    /// Disarms every fault.
    pub fn clear_faults(&self) {
        self.api.traffic.disarm();
    }

    /// Lets every request go that [`Answer::Held`](super::Answer::Held) holds at this moment.
    pub fn release(&self) {
        self.api.traffic.release();
    }

    /// Requests of that method and exact path since the start or the last reset.
    pub fn requests(&self, method: &str, path: &str) -> u64 {
        self.api.traffic.count(method, path)
    }

    /// All requests, those of `/__sandbox__/` apart.
    pub fn total_requests(&self) -> u64 {
        self.api.traffic.total()
    }

    /// Requests by method and path.
    pub fn request_counts(&self) -> Vec<RequestCount> {
        self.api.traffic.counts()
    }

    /// Waits until `count` requests of that method and exact path have come.
    pub async fn reached(&self, method: &str, path: &str, count: u64) {
        self.api.traffic.reached(method, path, count).await;
    }

    /// User codes of the logins that wait for a decision.
    pub fn pending_logins(&self) -> Vec<String> {
        let now = self.api.clock.now();
        let world = self.api.world();
        let open =
            world.logins.iter().filter(|login| login.decision == Decision::Pending && login.expires > now);
        open.map(|login| login.user_code.clone()).collect()
    }

    /// Approves the pending login of that code, or all. Returns how many.
    pub fn approve_login(&self, user_code: Option<&str>) -> usize {
        device::decide(&self.api, user_code, Decision::Approved)
    }

    /// Denies the pending login of that code, or all. Returns how many.
    pub fn deny_login(&self, user_code: Option<&str>) -> usize {
        device::decide(&self.api, user_code, Decision::Denied)
    }

    /// Sets a secret's value past the API, as somebody at the dashboard would. Makes it if absent.
    pub fn set_secret(&self, identity: &str, key: &str, value: Secret) -> Result<(), ControlError> {
        let now = self.api.wall();
        let mut world = self.api.world();
        let identity = find(&world, identity)?.id;
        if let Some(row) = world.secrets.iter_mut().find(|row| row.identity == identity && row.key == key) {
            (row.value, row.updated) = (value, now);
            return Ok(());
        }
        let (uuid, key, notes) = (random::uuid()?, key.to_owned(), Secret::copy_of(""));
        world.secrets.push(SecretRow { uuid, identity, key, value, notes, created: now, updated: now });
        Ok(())
    }

    /// Removes a secret past the API.
    pub fn remove_secret(&self, identity: &str, key: &str) -> Result<(), ControlError> {
        let mut world = self.api.world();
        let identity = find(&world, identity)?.id;
        let is_it = |row: &SecretRow| row.identity == identity && row.key == key;
        let index = world.secrets.iter().position(is_it).ok_or(ControlError::NoSuchEntry)?;
        world.secrets.remove(index);
        Ok(())
    }

    /// Changes a stored password past the API.
    pub fn set_password(
        &self,
        identity: &str,
        domain: &str,
        username: &str,
        password: Secret,
    ) -> Result<(), ControlError> {
        let now = self.api.wall();
        let mut world = self.api.world();
        let identity = find(&world, identity)?.id;
        let mut rows = world.passwords.iter_mut();
        let row =
            rows.find(|row| row.identity == identity && row.domain == domain && row.username == username);
        let row = row.ok_or(ControlError::NoSuchEntry)?;
        (row.password, row.updated) = (password, now);
        Ok(())
    }

    /// The switches as they stand.
    pub fn behaviour(&self) -> Behaviour {
        self.api.world().behaviour.clone()
    }

    /// Sets the switches.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.api.world().behaviour = behaviour;
        self.api.events.wake();
    }

    /// Everything as at the start, the keys included: data, switches, logins, counts, faults.
    pub fn reset(&self) -> Result<(), ControlError> {
        let fresh = seed::world(&self.api.seed, self.api.initial.clone(), self.api.clock.wall())?;
        *self.api.world() = fresh;
        self.api.traffic.reset();
        self.api.events.reset();
        self.api.logins_changed.send_replace(());
        Ok(())
    }
}

/// By uuid or name.
pub(super) fn find<'a>(world: &'a World, identity: &str) -> Result<&'a Identity, ControlError> {
    let uuid = Uuid::try_parse(identity).ok();
    let is_it = |other: &&Identity| Some(other.uuid) == uuid || other.name == identity;
    world.identities.iter().find(is_it).ok_or(ControlError::NoSuchIdentity)
}
