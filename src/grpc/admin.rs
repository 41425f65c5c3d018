//! `AdminService`, served on the admin socket alone. The socket lets nobody in but the daemon's own user
//! and root, so there is no token here.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Answer, CallMeters, MAX_MESSAGE_BYTES, approval, convert, dispatch};
use crate::audit::Follow;
use crate::broker::{Asked, Broker, BrokerError, LoginDone, LoginEvent, Refusal, Revocation, SessionView};
use crate::clock::Clock;
use crate::config::Rate;
use crate::lease::Lease;
use crate::metrics::Exposition;
use crate::pb;
use crate::pb::admin_service_server::{AdminService, AdminServiceServer};
use crate::peer::PeerInfo;
use crate::secret::Secret;
use crate::sys::Protection;
use crate::types::Resource;

/// Progress of a login that a slow reader may be behind.
const LOGIN_EVENTS: usize = 4;
/// Records that a tail may begin with.
const MAX_TAIL: u32 = 1000;

/// What the daemon's process knows and the broker does not.
pub trait Process: Send + Sync + 'static {
    /// Reads the configuration again and puts it in force, or changes nothing.
    fn reload(&self) -> Result<Reloaded, BrokerError>;

    /// Calls to Ravi: how many are allowed in how long, and how many would be let through now.
    fn upstream_budget(&self) -> (Rate, u32);

    /// Writes down what the process counts.
    fn write_metrics(&self, page: &mut Exposition);

    /// Open connections on the agent socket.
    fn connections(&self) -> usize;

    /// How far each protection reached.
    fn protections(&self) -> Vec<Protection>;

    /// The configuration file.
    fn config_path(&self) -> PathBuf;

    /// When it started, by the wall clock of that moment.
    fn started_at(&self) -> Timestamp;
}

/// A reload that succeeded.
pub struct Reloaded {
    /// Names of the roles, in order.
    pub roles: Vec<String>,
    /// Sessions that ended by it.
    pub sessions_ended: usize,
}

/// The service of the admin socket.
#[derive(Clone)]
pub struct Admin {
    pub(super) broker: Arc<Broker>,
    process: Arc<dyn Process>,
    calls: Arc<CallMeters>,
    clock: Arc<dyn Clock>,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl Admin {
    /// Serves this broker, in this process.
    pub fn new(
        broker: Arc<Broker>,
        process: Arc<dyn Process>,
        calls: Arc<CallMeters>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { broker, process, calls, clock }
    }

    /// What there is to measure.
    pub async fn metrics(&self) -> Exposition {
        let mut page = Exposition::default();
        self.process.write_metrics(&mut page);
        self.broker.write_metrics(&mut page);
        dispatch::write_metrics(&self.broker, &mut page).await;
        self.calls.write(&mut page);
        page
    }

    /// The admin service.
    pub fn service(&self) -> AdminServiceServer<Self> {
        AdminServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn session_info(&self, view: &SessionView) -> pb::SessionInfo {
        let (session, now) = (&view.session, self.clock.now());
        let executable = session.opener.executable.as_ref().map(|file| file.path.display().to_string());
        let reason = session.reason.as_ref().map(ToString::to_string);
        pb::SessionInfo {
            session_id: session.id.to_string(),
            role: session.role.to_string(),
            identity: view.identity.clone(),
            uid: session.opener.uid,
            pid: i32::try_from(session.anchor().pid).unwrap_or_default(),
            executable: executable.unwrap_or_default(),
            leases: convert::count(view.leases),
            age: convert::duration(now.since(session.opened_at)),
            expires_in: convert::duration(session.expires_at().since(now)),
            reason: reason.unwrap_or_default(),
            parent_session_id: session.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            binding: session.binding().to_string(),
        }
    }

    fn lease_info(&self, lease: &Lease) -> pb::LeaseInfo {
        pb::LeaseInfo {
            lease_id: lease.id.to_string(),
            session_id: lease.session.to_string(),
            role: lease.role.to_string(),
            resource: lease.resource.to_string(),
            expires_in: convert::duration(lease.terms.expires_at.since(self.clock.now())),
            revocable: lease.revocable,
            uses: lease.uses,
        }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        let now = self.broker.snapshot();
        let (rate, left) = self.process.upstream_budget();
        let protections = self.process.protections().into_iter().map(|protection| pb::Protection {
            name: protection.name.to_owned(),
            tier: protection.tier.to_owned(),
            full: protection.full,
        });
        Ok(Response::new(pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: convert::timestamp(self.process.started_at()),
            locked: now.locked,
            upstream_url: now.upstream,
            management_key_held: now.management_key_held,
            identity_keys_held: convert::count(now.identity_keys),
            sessions: convert::count(now.sessions),
            leases: convert::count(now.leases),
            connections: convert::count(self.process.connections()),
            requests_served: now.served,
            requests_denied: now.denied,
            upstream_calls: now.upstream_calls,
            audit_head: Some(pb::AuditHead {
                sequence: now.audit.sequence,
                hash: now.audit.hash.to_string(),
                healthy: now.audit_healthy,
            }),
            config_path: self.process.config_path().display().to_string(),
            roles: now.roles.iter().map(ToString::to_string).collect(),
            protections: protections.collect(),
            dispatches: Some(dispatch::backlog(&self.broker).await),
            approvals: convert::count(now.approvals),
            upstream_budget: Some(pb::UpstreamBudget {
                calls: rate.count,
                per: convert::duration(rate.per),
                left,
            }),
        }))
    }

    async fn get_metrics(&self, _: Request<pb::GetMetricsRequest>) -> Answer<pb::GetMetricsResponse> {
        Ok(Response::new(pb::GetMetricsResponse { text: self.metrics().await.into_text() }))
    }

    async fn list_sessions(&self, _: Request<pb::ListSessionsRequest>) -> Answer<pb::ListSessionsResponse> {
        let sessions = self.broker.list_sessions();
        let sessions = sessions.iter().map(|view| self.session_info(view)).collect();
        Ok(Response::new(pb::ListSessionsResponse { sessions }))
    }

    async fn list_leases(
        &self,
        request: Request<pb::AdminServiceListLeasesRequest>,
    ) -> Answer<pb::AdminServiceListLeasesResponse> {
        let session = match request.into_inner().session_id.as_str() {
            "" => None,
            text => Some(convert::session_id(text)?),
        };
        let leases = self.broker.list_all_leases(session);
        let leases = leases.iter().map(|lease| self.lease_info(lease)).collect();
        Ok(Response::new(pb::AdminServiceListLeasesResponse { leases }))
    }

    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Answer<pb::RevokeResponse> {
        let message = request.into_inner();
        let reason = convert::reason(&message.reason)?;
        let revoked = self.broker.revoke(&target(message.target)?, reason.as_ref())?;
        Ok(Response::new(pb::RevokeResponse {
            sessions: convert::count(revoked.sessions),
            leases: convert::count(revoked.leases),
            exposed_resources: revoked.exposed.iter().map(Resource::to_string).collect(),
        }))
    }

    async fn lock(&self, request: Request<pb::LockRequest>) -> Answer<pb::LockResponse> {
        let reason = convert::reason(&request.into_inner().reason)?;
        let revoked = self.broker.lock(reason.as_ref())?;
        Ok(Response::new(pb::LockResponse {
            sessions: convert::count(revoked.sessions),
            leases: convert::count(revoked.leases),
        }))
    }

    async fn unlock(&self, _: Request<pb::UnlockRequest>) -> Answer<pb::UnlockResponse> {
        Ok(Response::new(pb::UnlockResponse { management_key_held: self.broker.unlock()? }))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        let id = convert::denial_id(&request.into_inner().denial_id)?;
        let refusal = self.broker.explain(id).ok_or(BrokerError::Argument {
            field: "denial_id",
            problem: "no such refusal is remembered; the audit trail may still have it",
        })?;
        Ok(Response::new(explanation(&refusal)))
    }

    async fn reload(&self, _: Request<pb::ReloadRequest>) -> Answer<pb::ReloadResponse> {
        let process = self.process.clone();
        let reload = tokio::task::spawn_blocking(move || process.reload());
        let reloaded = reload.await.unwrap_or(Err(BrokerError::Internal))?;
        let sessions_ended = convert::count(reloaded.sessions_ended);
        Ok(Response::new(pb::ReloadResponse { roles: reloaded.roles, sessions_ended }))
    }

    async fn list_approvals(
        &self,
        _: Request<pb::ListApprovalsRequest>,
    ) -> Answer<pb::ListApprovalsResponse> {
        Ok(Response::new(approval::list(&self.broker, &*self.clock)))
    }

    type WatchApprovalsStream = approval::Changes;

    async fn watch_approvals(
        &self,
        _: Request<pb::WatchApprovalsRequest>,
    ) -> Answer<Self::WatchApprovalsStream> {
        Ok(Response::new(approval::watch(&self.broker, &self.clock)))
    }

    async fn decide_approval(
        &self,
        request: Request<pb::DecideApprovalRequest>,
    ) -> Answer<pb::DecideApprovalResponse> {
        approval::decide(&self.broker, request)
    }

    type LoginStream = Events<pb::LoginResponse>;

    async fn login(&self, _: Request<pb::LoginRequest>) -> Answer<Self::LoginStream> {
        let (progress, events) = mpsc::channel(LOGIN_EVENTS);
        let login = tokio::spawn(self.broker.clone().login(progress));
        let outcome = stream::once(async move {
            match login.await.unwrap_or(Err(BrokerError::Internal)) {
                Ok(()) => None,
                Err(error) => Some(Err(error.into())),
            }
        });
        let events = ReceiverStream::new(events).map(|event| Ok(login_event(event)));
        Ok(Response::new(Box::pin(events.chain(outcome.filter_map(|failed| async { failed })))))
    }

    async fn import_keys(&self, request: Request<pb::ImportKeysRequest>) -> Answer<pb::ImportKeysResponse> {
        let message = request.into_inner();
        let given = |text: String| (!text.is_empty()).then(|| Secret::new(text));
        let identity = match given(message.identity_key) {
            Some(key) => Some((convert::name("identity_uuid", &message.identity_uuid)?, key)),
            None => None,
        };
        let done = self.broker.import_keys(given(message.management_key), identity).await?;
        let LoginDone { identities, persisted } = done;
        Ok(Response::new(pb::ImportKeysResponse { identities, persisted }))
    }

    async fn seal_key(&self, request: Request<pb::SealKeyRequest>) -> Answer<pb::SealKeyResponse> {
        let peer = request.extensions().get::<PeerInfo>().ok_or(BrokerError::Internal)?;
        self.broker.seal_key(peer.0.uid)?;
        Ok(Response::new(pb::SealKeyResponse {}))
    }

    async fn logout(&self, _: Request<pb::LogoutRequest>) -> Answer<pb::LogoutResponse> {
        Ok(Response::new(pb::LogoutResponse { file_removed: self.broker.logout()? }))
    }

    async fn list_dispatches(
        &self,
        request: Request<pb::ListDispatchesRequest>,
    ) -> Answer<pb::ListDispatchesResponse> {
        Ok(Response::new(dispatch::list(&self.broker, request.into_inner()).await?))
    }

    async fn retry_dispatch(
        &self,
        request: Request<pb::RetryDispatchRequest>,
    ) -> Answer<pb::RetryDispatchResponse> {
        Ok(Response::new(dispatch::retry(&self.broker, request.into_inner()).await?))
    }

    async fn drop_dispatch(
        &self,
        request: Request<pb::DropDispatchRequest>,
    ) -> Answer<pb::DropDispatchResponse> {
        Ok(Response::new(dispatch::drop_them(&self.broker, request.into_inner()).await?))
    }

    type TailAuditStream = Events<pb::TailAuditResponse>;

    async fn tail_audit(&self, request: Request<pb::TailAuditRequest>) -> Answer<Self::TailAuditStream> {
        let message = request.into_inner();
        let lines = usize::try_from(message.lines.min(MAX_TAIL)).unwrap_or_default();
        let Follow { last, next } = self.broker.follow_audit(lines);
        let last = stream::iter(last).map(|record| Ok(wire_record(&record)));
        if message.follow {
            let tail = Tail { next, stopping: self.broker.stopping() };
            return Ok(Response::new(Box::pin(last.chain(stream::unfold(Some(tail), next_record)))));
        }
        Ok(Response::new(Box::pin(last)))
    }

    async fn list_identities(
        &self,
        _: Request<pb::ListIdentitiesRequest>,
    ) -> Answer<pb::ListIdentitiesResponse> {
        self.identities().await
    }

    async fn show_identity(
        &self,
        request: Request<pb::ShowIdentityRequest>,
    ) -> Answer<pb::ShowIdentityResponse> {
        self.one_identity(request.into_inner()).await
    }

    async fn create_identity(
        &self,
        request: Request<pb::AdminServiceCreateIdentityRequest>,
    ) -> Answer<pb::AdminServiceCreateIdentityResponse> {
        self.new_identity(request.into_inner()).await
    }
}

/// The records that follow, until the daemon is told to stop.
struct Tail {
    next: broadcast::Receiver<Arc<str>>,
    stopping: CancellationToken,
}

/// Ends with an error when the reader was too slow to see every record: a gap must not pass for none.
async fn next_record(tail: Option<Tail>) -> Option<(Result<pb::TailAuditResponse, Status>, Option<Tail>)> {
    let mut tail = tail?;
    let next = tokio::select! {
        biased;
        next = tail.next.recv() => next,
        () = tail.stopping.cancelled() => return Some((Err(BrokerError::Draining.into()), None)),
    };
    match next {
        Ok(record) => Some((Ok(wire_record(&record)), Some(tail))),
        Err(broadcast::error::RecvError::Lagged(_)) => {
            let behind = BrokerError::Capacity("records that a slow reader may be behind");
            Some((Err(behind.into()), None))
        }
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

fn explanation(refusal: &Refusal) -> pb::ExplainResponse {
    let actor = &refusal.actor;
    let asked = match &refusal.asked {
        Asked::Nothing => String::new(),
        Asked::Role(role) => format!("role {role}"),
        Asked::Resource(resource) => resource.to_string(),
        Asked::Lease(lease) => format!("lease {lease}"),
        Asked::Subject(subject) => subject.to_string(),
    };
    pb::ExplainResponse {
        denial_id: refusal.id.to_string(),
        denied_at: convert::timestamp(refusal.at),
        rule: refusal.rule.to_string(),
        asked,
        session_id: actor.session.map(|session| session.to_string()).unwrap_or_default(),
        role: actor.role.as_ref().map(ToString::to_string).unwrap_or_default(),
        uid: actor.uid.unwrap_or_default(),
        pid: actor.pid.unwrap_or_default(),
        executable: actor.exe.as_deref().map(|exe| exe.display().to_string()).unwrap_or_default(),
        tier: refusal.tier.protection().tier.to_owned(),
        selectors: refusal.selectors(),
    }
}

fn wire_record(record: &str) -> pb::TailAuditResponse {
    pb::TailAuditResponse { record: record.to_owned() }
}

fn target(target: Option<pb::revoke_request::Target>) -> Result<Revocation, BrokerError> {
    use pb::revoke_request::Target;
    match target {
        Some(Target::LeaseId(id)) => convert::lease_id(&id).map(Revocation::Lease),
        Some(Target::SessionId(id)) => convert::session_id(&id).map(Revocation::Session),
        Some(Target::Role(role)) => convert::name("role", &role).map(Revocation::Role),
        Some(Target::All(true)) => Ok(Revocation::All),
        Some(Target::All(false)) | None => {
            Err(BrokerError::Argument { field: "target", problem: "name a lease, a session, a role, or all" })
        }
    }
}

fn login_event(event: LoginEvent) -> pb::LoginResponse {
    use pb::login_response::Event;
    let event = match event {
        LoginEvent::Prompt { verification_url, user_code, expires_in } => {
            let expires_in = convert::duration(expires_in);
            Event::Prompt(pb::LoginPrompt { verification_url, user_code, expires_in })
        }
        LoginEvent::Done(LoginDone { identities, persisted }) => {
            Event::Done(pb::LoginDone { identities, persisted })
        }
    };
    pb::LoginResponse { event: Some(event) }
}
