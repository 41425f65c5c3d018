//! Identities: the session's own, those that are made beside it, and whom it knows; and what the operator does with them.

use super::error::{BrokerError, Result};
use super::provision::Order;
use super::{Admitted, Broker, Purpose};
use crate::audit::{Event, NOBODY, Verb};
use crate::config::IdentityRef;
use crate::inbox::budget::Standing;
use crate::policy::Action;
use crate::types::{Channel, IdentityName, Reason, RoleName};
use crate::upstream::{Contact, Identity, KeyId, UpstreamError};

/// Contacts in one answer.
const MAX_CONTACTS: usize = 50;

/// An identity as the operator sees it.
#[derive(Clone, Debug)]
pub struct IdentityView {
    /// As Ravi has it.
    pub identity: Identity,
    /// Roles that act as it, in order.
    pub roles: Vec<RoleName>,
    /// Whether a key of its own is held.
    pub key_held: bool,
}

/// An identity that was made for the operator.
#[derive(Clone, Debug)]
pub struct CreatedIdentity {
    /// As Ravi has it.
    pub identity: Identity,
    /// Why it has no telephone number, where one was asked for.
    pub without_phone: Option<BrokerError>,
}

impl Broker {
    /// Creates an identity beside the session's own. A name that is there is refused.
    pub async fn create_identity(
        &self,
        admitted: &Admitted,
        name: IdentityName,
        reason: Option<Reason>,
    ) -> Result<Identity> {
        let action = Action::CreateIdentity(name.clone());
        let grant = self.permit(admitted, action, Purpose::of(reason.as_ref())).await?;
        self.ensure_open(&admitted.session)?;
        let actor = admitted.session.actor.clone();
        let order = Order { actor, reason, insists: false, with_phone: false };
        let created = self.create_new(&name, order).await;
        created.inspect_err(|error| self.record_failed(admitted, grant.action(), error))
    }

    /// Gives the session's own identity a telephone number. One that has a number keeps it.
    pub async fn provision_phone(
        &self,
        admitted: &Admitted,
        country: Option<String>,
        reason: Option<Reason>,
    ) -> Result<Identity> {
        let purpose = Purpose::of(reason.as_ref());
        let grant = self.permit(admitted, Action::ProvisionPhone, purpose).await?;
        self.record_performed(&admitted.session, grant.action(), reason.as_ref())?;
        let provisioned = async {
            let identity = self.identity_of(&admitted.session, grant.role()).await?;
            let now = async { Ok(self.upstream.read_identity(identity).await?) };
            let now = self.while_open(&admitted.session, now).await?;
            if now.phone.is_some() {
                return Ok(now);
            }
            // A reload, a revocation or a lock may have come while it was read.
            self.again(admitted, &grant)?;
            self.ensure_open(&admitted.session)?;
            self.give_phone(identity, country.as_deref()).await
        };
        let provisioned = provisioned.await;
        let provisioned =
            provisioned.inspect_err(|error| self.record_failed(admitted, grant.action(), error))?;
        self.count_served();
        Ok(provisioned)
    }

    /// Whom the identity knows, at most 50.
    pub async fn search_contacts(&self, admitted: &Admitted, query: &str) -> Result<Vec<Contact>> {
        let grant = self.permit(admitted, Action::SearchContacts, Purpose::default()).await?;
        self.record_performed(&admitted.session, grant.action(), None)?;
        let found = async {
            let identity = self.identity_of(&admitted.session, grant.role()).await?;
            // As in every read: who lost the right meanwhile costs no call.
            self.again(admitted, &grant)?;
            Ok(self.mailbox.search_contacts(identity, query).await?)
        };
        let found = self.while_open(&admitted.session, found).await;
        let mut found = found.inspect_err(|error| self.record_failed(admitted, grant.action(), error))?;
        self.again(admitted, &grant)?;
        self.still_open(&admitted.session)?;
        found.truncate(MAX_CONTACTS);
        Ok(found)
    }

    /// For the operator: the identities of the account.
    pub async fn list_identities(&self) -> Result<Vec<IdentityView>> {
        self.gate.check()?;
        let mut identities = self.upstream.list_identities().await?;
        identities.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
        Ok(identities.into_iter().map(|identity| self.view(identity)).collect())
    }

    /// For the operator: one identity, and what it may still send today, by mail and by text message.
    pub async fn show_identity(&self, which: &IdentityRef) -> Result<(IdentityView, Standing, Standing)> {
        let is_it = |view: &IdentityView| match which {
            IdentityRef::Uuid(uuid) => view.identity.uuid == *uuid,
            IdentityRef::Name(name) => view.identity.name == name.as_str(),
        };
        let mut named = self.list_identities().await?.into_iter().filter(is_it);
        let (Some(view), None) = (named.next(), named.next()) else {
            return Err(BrokerError::Argument {
                field: "identity",
                problem: "the account has none of this name or UUID, or several of this name",
            });
        };
        let uuid = view.identity.uuid;
        let (email, sms) = (self.budget(uuid, Channel::Email).await?, self.budget(uuid, Channel::Sms).await?);
        Ok((view, email, sms))
    }

    /// For the operator: creates an identity, also one that an earlier attempt was noted for.
    pub async fn order_identity(
        &self,
        name: IdentityName,
        with_phone: bool,
        country: Option<String>,
    ) -> Result<CreatedIdentity> {
        let order = Order { actor: NOBODY.clone(), reason: None, insists: true, with_phone: false };
        let identity = self.create_new(&name, order).await?;
        if !with_phone || identity.phone.is_some() {
            return Ok(CreatedIdentity { identity, without_phone: None });
        }
        let event = Event::of(Verb::IdentityProvisioned, &NOBODY);
        self.must_record(&event.identity(identity.uuid))?;
        Ok(match self.give_phone(identity.uuid, country.as_deref()).await {
            Ok(identity) => CreatedIdentity { identity, without_phone: None },
            Err(error) => CreatedIdentity { identity, without_phone: Some(error) },
        })
    }

    /// Only who had it made is told that it was.
    async fn create_new(&self, name: &IdentityName, order: Order) -> Result<Identity> {
        let (made, begun) = self.make_identity(name, order).await;
        let made = made?;
        if !(made.is_new && begun) {
            return Err(BrokerError::Upstream(UpstreamError::Conflict));
        }
        self.count_served();
        Ok(made.identity)
    }

    fn view(&self, identity: Identity) -> IdentityView {
        let policy = self.policy.load();
        let acts_as = |of_role: &IdentityRef| match of_role {
            IdentityRef::Uuid(uuid) => identity.uuid == *uuid,
            IdentityRef::Name(name) => identity.name == name.as_str(),
        };
        let roles = policy.roles().filter(|role| acts_as(role.identity()));
        let mut roles: Vec<RoleName> = roles.map(|role| role.name().clone()).collect();
        roles.sort();
        let key_held = self.vault.keyring().holds(KeyId::Identity(identity.uuid));
        IdentityView { identity, roles, key_held }
    }
}
