//! `SessionService`.

use tonic::{Request, Response};

use super::meter::OfRole;
use super::{Agent, Answer, caller, convert};
use crate::broker::BrokerError;
use crate::limit::Class;
use crate::pb;
use crate::pb::session_service_server::SessionService;
use crate::policy::scope::Scope;
use crate::session::{Anchor, Delegation, Opening};

/// Scopes of one request.
const MAX_SCOPES: usize = 256;

#[tonic::async_trait]
impl SessionService for Agent {
    async fn open_session(
        &self,
        request: Request<pb::OpenSessionRequest>,
    ) -> Answer<pb::OpenSessionResponse> {
        let (metadata, extensions, message) = request.into_parts();
        let caller = caller(&metadata, &extensions)?;
        let role = convert::name("role", &message.role).map_err(|_| BrokerError::RoleNotAvailable)?;
        let opened = self.broker.open_session(caller, &role, opening(&message)?).await?;
        OfRole::note(&extensions, || self.broker.role_label(&role));
        let (session, token) = convert::opened(&opened, &*self.clock);
        Ok(Response::new(pb::OpenSessionResponse { session, token }))
    }

    async fn describe_session(
        &self,
        request: Request<pb::DescribeSessionRequest>,
    ) -> Answer<pb::DescribeSessionResponse> {
        let (admitted, _) = self.admit(request, Class::Read, Ok)?;
        let described = self.broker.describe_session(&admitted)?;
        Ok(Response::new(pb::DescribeSessionResponse {
            session: Some(convert::session(&described, &*self.clock)),
            limits: described.limits.iter().map(convert::limit).collect(),
            live_leases: convert::count(described.leases),
            max_live_leases: convert::count(described.max_leases),
        }))
    }

    async fn delegate_session(
        &self,
        request: Request<pb::DelegateSessionRequest>,
    ) -> Answer<pb::DelegateSessionResponse> {
        let (admitted, delegation) = self.admit(request, Class::Read, |message| delegation(&message))?;
        let opened = self.broker.delegate_session(&admitted, delegation)?;
        let (session, token) = convert::opened(&opened, &*self.clock);
        Ok(Response::new(pb::DelegateSessionResponse { session, token }))
    }

    async fn renew_session(
        &self,
        request: Request<pb::RenewSessionRequest>,
    ) -> Answer<pb::RenewSessionResponse> {
        let (admitted, ttl) = self.admit(request, Class::Read, |message| convert::ttl(message.ttl))?;
        let renewed = self.broker.renew_session(&admitted, ttl)?;
        let session = Some(convert::session(&renewed, &*self.clock));
        Ok(Response::new(pb::RenewSessionResponse { session }))
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Answer<pb::CloseSessionResponse> {
        let (admitted, _) = self.admit_return(request, Ok)?;
        let leases_revoked = convert::count(self.broker.close_session(&admitted));
        Ok(Response::new(pb::CloseSessionResponse { leases_revoked }))
    }
}

fn scopes(texts: &[String]) -> Result<Vec<Scope>, BrokerError> {
    let wrong = |problem| BrokerError::Argument { field: "scopes", problem };
    if texts.len() > MAX_SCOPES {
        return Err(wrong("too many"));
    }
    let scopes: Result<Vec<Scope>, _> = texts.iter().map(|text| text.parse()).collect();
    scopes.map_err(|_| wrong("expected <kind>:<verb>[:<pattern>], as in the role"))
}

fn delegation(message: &pb::DelegateSessionRequest) -> Result<Delegation, BrokerError> {
    Ok(Delegation {
        scopes: scopes(&message.scopes)?,
        ttl: convert::ttl(message.ttl)?,
        reason: convert::reason(&message.reason)?,
        pid: (message.pid != 0).then_some(message.pid),
    })
}

fn opening(message: &pb::OpenSessionRequest) -> Result<Opening, BrokerError> {
    let anchor = match message.anchor() {
        pb::SessionAnchor::Unspecified | pb::SessionAnchor::Caller => Anchor::Caller,
        pb::SessionAnchor::Parent => Anchor::Parent,
    };
    Ok(Opening {
        scopes: scopes(&message.scopes)?,
        ttl: convert::ttl(message.ttl)?,
        reason: convert::reason(&message.reason)?,
        anchor,
    })
}
