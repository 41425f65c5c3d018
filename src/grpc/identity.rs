//! `IdentityService`. What is created goes on to its end in a task of its own.

use tonic::{Request, Response};

use super::persona::{country, wire_identity};
use super::send::wire_budget;
use super::{Agent, Answer, Retire, convert};
use crate::broker::{Admitted, BrokerError};
use crate::limit::Class;
use crate::pb;
use crate::pb::identity_service_server::IdentityService;
use crate::types::{Channel, Delivery, Resource};

const MAX_QUERY_CHARACTERS: usize = 256;

#[tonic::async_trait]
impl IdentityService for Agent {
    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Answer<pb::GetIdentityResponse> {
        let (admitted, _) = self.admit(request, Class::Read, Ok)?;
        let card = self.broker.read_identity(&admitted).await?;
        let uuid = card.identity.uuid;
        let email = self.broker.budget(uuid, Channel::Email).await?;
        let sms = self.broker.budget(uuid, Channel::Sms).await?;
        let identity = pb::Identity {
            owner_first_name: card.owner.first_name,
            owner_last_name: card.owner.last_name,
            email_budget: Some(wire_budget(email)),
            sms_budget: Some(wire_budget(sms)),
            ..wire_identity(card.identity)
        };
        Ok(Response::new(pb::GetIdentityResponse { identity: Some(identity) }))
    }

    async fn create_identity(
        &self,
        request: Request<pb::CreateIdentityRequest>,
    ) -> Answer<pb::CreateIdentityResponse> {
        let (admitted, (name, reason)) = self.admit(request, Class::Send, |message| {
            Ok((convert::name("name", &message.name)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        let create =
            |admitted: Admitted| async move { broker.create_identity(&admitted, name, reason).await };
        let identity = Some(wire_identity(Self::to_the_end(admitted, create).await?));
        Ok(Response::new(pb::CreateIdentityResponse { identity }))
    }

    async fn provision_phone(
        &self,
        request: Request<pb::ProvisionPhoneRequest>,
    ) -> Answer<pb::ProvisionPhoneResponse> {
        let (admitted, (country, reason)) = self.admit(request, Class::Send, |message| {
            Ok((country(message.country)?, convert::reason(&message.reason)?))
        })?;
        let broker = self.broker.clone();
        let provision =
            |admitted: Admitted| async move { broker.provision_phone(&admitted, country, reason).await };
        let identity = Some(wire_identity(Self::to_the_end(admitted, provision).await?));
        Ok(Response::new(pb::ProvisionPhoneResponse { identity }))
    }

    async fn mint_sso_token(
        &self,
        request: Request<pb::MintSsoTokenRequest>,
    ) -> Answer<pb::MintSsoTokenResponse> {
        let retire = Retire::of(request.extensions());
        let (admitted, reason) =
            self.admit(request, Class::Read, |message| convert::reason(&message.reason))?;
        let leased =
            self.broker.acquire(&admitted, Resource::SsoToken, Delivery::Shown, None, reason).await?;
        retire.after_answer(&admitted, &leased.credential.value);
        let (lease, credential) = convert::leased(leased, &*self.clock);
        Ok(Response::new(pb::MintSsoTokenResponse { lease, credential }))
    }

    async fn search_contacts(
        &self,
        request: Request<pb::SearchContactsRequest>,
    ) -> Answer<pb::SearchContactsResponse> {
        let (admitted, query) = self.admit(request, Class::Read, |message| query(message.query))?;
        let contacts = self.broker.search_contacts(&admitted, &query).await?;
        let contacts = contacts.into_iter().map(|contact| pb::Contact {
            name: contact.name,
            email: contact.email,
            phone: contact.phone,
            trusted: contact.is_trusted,
        });
        Ok(Response::new(pb::SearchContactsResponse { contacts: contacts.collect() }))
    }
}

fn query(text: String) -> Result<String, BrokerError> {
    let fits = !text.trim().is_empty() && text.chars().count() <= MAX_QUERY_CHARACTERS;
    if fits && !text.contains(char::is_control) {
        return Ok(text);
    }
    Err(BrokerError::Argument { field: "query", problem: "expected 1 to 256 characters on one line" })
}
