//! The methods of `AdminService` about identities, and how one looks on the wire.

use tonic::Response;

use super::send::wire_budget;
use super::{Admin, Answer, convert, status};
use crate::broker::{BrokerError, CreatedIdentity, IdentityView, Result};
use crate::config::IdentityRef;
use crate::pb;
use crate::types::IdentityName;
use crate::upstream::Identity;

impl Admin {
    pub(super) async fn identities(&self) -> Answer<pb::ListIdentitiesResponse> {
        let identities = self.broker.list_identities().await?;
        let identities = identities.into_iter().map(info).collect();
        Ok(Response::new(pb::ListIdentitiesResponse { identities }))
    }

    pub(super) async fn one_identity(
        &self,
        message: pb::ShowIdentityRequest,
    ) -> Answer<pb::ShowIdentityResponse> {
        let which = match message.identity.parse() {
            Ok(uuid) => IdentityRef::Uuid(uuid),
            Err(_) => IdentityRef::Name(convert::name("identity", &message.identity)?),
        };
        let (view, email, sms) = self.broker.show_identity(&which).await?;
        let mut info = info(view);
        if let Some(identity) = &mut info.identity {
            (identity.email_budget, identity.sms_budget) = (Some(wire_budget(email)), Some(wire_budget(sms)));
        }
        Ok(Response::new(pb::ShowIdentityResponse { identity: Some(info) }))
    }

    /// Goes on to its end even if the operator goes away.
    pub(super) async fn new_identity(
        &self,
        message: pb::AdminServiceCreateIdentityRequest,
    ) -> Answer<pb::AdminServiceCreateIdentityResponse> {
        let name: IdentityName = convert::name("name", &message.name)?;
        let country = country(message.country)?;
        let broker = self.broker.clone();
        let create = tokio::spawn(async move { broker.order_identity(name, message.phone, country).await });
        let created = create.await.unwrap_or(Err(BrokerError::Internal))?;
        let CreatedIdentity { identity, without_phone } = created;
        let phone_failure = without_phone.map(|error| status::reason(&error).to_owned()).unwrap_or_default();
        let identity = Some(wire_identity(identity));
        Ok(Response::new(pb::AdminServiceCreateIdentityResponse { identity, phone_failure }))
    }
}

fn info(view: IdentityView) -> pb::IdentityInfo {
    let IdentityView { identity, roles, key_held } = view;
    let roles = roles.iter().map(ToString::to_string).collect();
    pb::IdentityInfo { identity: Some(wire_identity(identity)), roles, key_held }
}

/// Without the owner.
pub(super) fn wire_identity(identity: Identity) -> pb::Identity {
    pb::Identity {
        uuid: identity.uuid.to_string(),
        name: identity.name,
        email: identity.email.unwrap_or_default(),
        phone: identity.phone.unwrap_or_default(),
        ..Default::default()
    }
}

/// Reads the country of a number; empty means Ravi's default.
pub(super) fn country(text: String) -> Result<Option<String>> {
    let is_code = text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
    match text.as_str() {
        "" => Ok(None),
        _ if is_code => Ok(Some(text)),
        _ => Err(BrokerError::Argument { field: "country", problem: "expected two letters such as CA" }),
    }
}
