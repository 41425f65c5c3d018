//! `IdentityService`.

use tonic::{Request, Response};

use super::{Agent, Answer};
use crate::limit::Class;
use crate::pb;
use crate::pb::identity_service_server::IdentityService;

#[tonic::async_trait]
impl IdentityService for Agent {
    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Answer<pb::GetIdentityResponse> {
        let (admitted, _) = self.admit(request, Class::Read, Ok)?;
        let card = self.broker.read_identity(&admitted).await?;
        let identity = pb::Identity {
            uuid: card.identity.uuid.to_string(),
            name: card.identity.name,
            email: card.identity.email.unwrap_or_default(),
            phone: card.identity.phone.unwrap_or_default(),
            owner_first_name: card.owner.first_name,
            owner_last_name: card.owner.last_name,
            ..Default::default()
        };
        Ok(Response::new(pb::GetIdentityResponse { identity: Some(identity) }))
    }

    async fn create_identity(
        &self,
        _: Request<pb::CreateIdentityRequest>,
    ) -> Answer<pb::CreateIdentityResponse> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn provision_phone(
        &self,
        _: Request<pb::ProvisionPhoneRequest>,
    ) -> Answer<pb::ProvisionPhoneResponse> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn mint_sso_token(&self, _: Request<pb::MintSsoTokenRequest>) -> Answer<pb::MintSsoTokenResponse> {
        Err(tonic::Status::unimplemented(""))
    }

    async fn search_contacts(
        &self,
        _: Request<pb::SearchContactsRequest>,
    ) -> Answer<pb::SearchContactsResponse> {
        Err(tonic::Status::unimplemented(""))
    }
}
