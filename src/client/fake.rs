//! A daemon as far as the tests of `client` and `mcp` need one: real gRPC on a real Unix socket, and
//! sessions that a test can end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::pb;
use crate::pb::admin_service_server::{AdminService, AdminServiceServer};
use crate::pb::identity_service_server::{IdentityService, IdentityServiceServer};
use crate::pb::lease_service_server::{LeaseService, LeaseServiceServer};
use crate::pb::session_service_server::{SessionService, SessionServiceServer};
use crate::pb::vault_service_server::{VaultService, VaultServiceServer};
use crate::pb::watch_leases_response::Kind;
use crate::types::{LeaseId, SessionId};

/// Of the one password there is, and of each secret.
pub(crate) const VALUE: &str = "value-canary";
/// What its sessions may do.
const SCOPES: [&str; 5] = ["secret:read", "secret:list", "password:read", "password:list", "identity:read"];
pub(crate) const LEASE: LeaseId = LeaseId([1; 16]);
pub(crate) const SESSION: SessionId = SessionId([2; 16]);

/// Token of the session that was opened as the `number`th.
pub(crate) fn token(number: u32) -> String {
    format!("token-canary-{number}")
}

/// The daemon, and the directory of its socket.
pub(crate) struct FakeDaemon {
    directory: TempDir,
    state: Arc<State>,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// What outlives a restart.
#[derive(Default)]
struct State {
    opened: AtomicU32,
    closed: AtomicU32,
    /// Calls that asked for a credential, refused ones included.
    acquired: AtomicU32,
    released: AtomicU32,
    endless: AtomicBool,
    /// Token of the one session that is alive.
    live: Mutex<Option<String>>,
    /// Why other tokens are refused.
    refusal: Mutex<Option<&'static str>>,
}

impl FakeDaemon {
    /// Not started.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, state: Arc::default(), running: Mutex::default() }
    }

    pub(crate) fn serving() -> Self {
        let daemon = Self::new();
        daemon.serve();
        daemon
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("broker.sock")
    }

    pub(crate) fn bind(&self) -> UnixListener {
        let _ = std::fs::remove_file(self.path());
        UnixListener::bind(self.path()).unwrap()
    }

    /// Serves until it is stopped or the runtime of the test ends.
    pub(crate) fn serve(&self) {
        let fake = || Fake(Arc::clone(&self.state));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .add_service(SessionServiceServer::new(fake()))
            .add_service(LeaseServiceServer::new(fake()))
            .add_service(VaultServiceServer::new(fake()))
            .add_service(IdentityServiceServer::new(fake()))
            .add_service(AdminServiceServer::new(fake()));
        let incoming = UnixListenerStream::new(self.bind());
        let served = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        *self.running.lock().unwrap() = Some((stop, served));
    }

    /// Ends the daemon, and with it its connections and sessions.
    pub(crate) async fn stop(&self) {
        let (stop, served) = self.running.lock().unwrap().take().unwrap();
        stop.send(()).unwrap();
        served.await.unwrap();
        self.end_session("SESSION_INVALID");
    }

    /// Ends the session: its token is refused with `reason`.
    pub(crate) fn end_session(&self, reason: &'static str) {
        *self.state.live.lock().unwrap() = None;
        *self.state.refusal.lock().unwrap() = Some(reason);
    }

    /// From now on, the list of secrets always has another page.
    pub(crate) fn list_without_end(&self) {
        self.state.endless.store(true, Ordering::SeqCst);
    }

    pub(crate) fn opened(&self) -> u32 {
        self.state.opened.load(Ordering::SeqCst)
    }

    pub(crate) fn closed(&self) -> u32 {
        self.state.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn acquired(&self) -> u32 {
        self.state.acquired.load(Ordering::SeqCst)
    }

    pub(crate) fn released(&self) -> u32 {
        self.state.released.load(Ordering::SeqCst)
    }
}

struct Fake(Arc<State>);

impl Fake {
    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(presented) = request.metadata().get("authorization") else {
            return Err(refusal(Code::Unauthenticated, "SESSION_REQUIRED"));
        };
        let live = self.0.live.lock().unwrap().clone();
        if live.is_some_and(|token| presented == format!("Bearer {token}").as_str()) {
            return Ok(());
        }
        let reason = self.0.refusal.lock().unwrap().unwrap_or("SESSION_INVALID");
        Err(refusal(Code::Unauthenticated, reason))
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "broker.ravi.id", HashMap::new());
    Status::with_error_details(code, "refused", details)
}

fn limited() -> Status {
    let mut details = ErrorDetails::with_error_info("RATE_LIMITED", "broker.ravi.id", HashMap::new());
    details.set_retry_info(Some(std::time::Duration::from_secs(7)));
    Status::with_error_details(Code::ResourceExhausted, "too many requests", details)
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn moment() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 })
}

fn session(role: String) -> Option<pb::Session> {
    let session_id = SESSION.to_string();
    let (expires_at, expires_in) = (moment(), seconds(60));
    let binding = pb::SessionBinding::Subtree.into();
    let scopes = SCOPES.map(str::to_owned).into();
    Some(pb::Session { session_id, role, scopes, expires_at, expires_in, binding, ..Default::default() })
}

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl SessionService for Fake {
    async fn open_session(
        &self,
        request: Request<pb::OpenSessionRequest>,
    ) -> Answer<pb::OpenSessionResponse> {
        let role = request.into_inner().role;
        if role != "notes-agent" {
            return Err(refusal(Code::PermissionDenied, "ROLE_NOT_AVAILABLE"));
        }
        let token = token(self.0.opened.fetch_add(1, Ordering::SeqCst) + 1);
        *self.0.live.lock().unwrap() = Some(token.clone());
        Ok(Response::new(pb::OpenSessionResponse { session: session(role), token }))
    }

    async fn describe_session(
        &self,
        request: Request<pb::DescribeSessionRequest>,
    ) -> Answer<pb::DescribeSessionResponse> {
        self.authorize(&request)?;
        let limit = pb::Limit { name: "read".into(), rate: "60/min".into(), remaining: 59, resets_in: None };
        Ok(Response::new(pb::DescribeSessionResponse {
            session: session("notes-agent".into()),
            limits: vec![limit],
            live_leases: 1,
            max_live_leases: 32,
        }))
    }

    async fn delegate_session(
        &self,
        _: Request<pb::DelegateSessionRequest>,
    ) -> Answer<pb::DelegateSessionResponse> {
        unused()
    }

    async fn renew_session(&self, _: Request<pb::RenewSessionRequest>) -> Answer<pb::RenewSessionResponse> {
        unused()
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Answer<pb::CloseSessionResponse> {
        self.authorize(&request)?;
        self.0.closed.fetch_add(1, Ordering::SeqCst);
        *self.0.live.lock().unwrap() = None;
        Ok(Response::new(pb::CloseSessionResponse { leases_revoked: 2 }))
    }
}

#[tonic::async_trait]
impl LeaseService for Fake {
    type WatchLeasesStream = BoxStream<'static, Result<pb::WatchLeasesResponse, Status>>;

    async fn acquire_lease(
        &self,
        request: Request<pb::AcquireLeaseRequest>,
    ) -> Answer<pb::AcquireLeaseResponse> {
        self.authorize(&request)?;
        self.0.acquired.fetch_add(1, Ordering::SeqCst);
        let resource = request.into_inner().resource;
        match resource.as_str() {
            "password/github.com" | "secret/API_KEY" => {}
            "secret/HANGS" => return std::future::pending().await,
            "secret/LIMITED" => return Err(limited()),
            _ => return Err(refusal(Code::PermissionDenied, "RESOURCE_NOT_AVAILABLE")),
        }
        let lease = pb::Lease {
            lease_id: LEASE.to_string(),
            resource,
            expires_at: moment(),
            expires_in: seconds(300),
            ..Default::default()
        };
        let username = if lease.resource.starts_with("password/") { "alice" } else { "" };
        let credential = pb::Credential { value: VALUE.into(), username: username.into() };
        Ok(Response::new(pb::AcquireLeaseResponse { lease: Some(lease), credential: Some(credential) }))
    }

    async fn read_lease(&self, _: Request<pb::ReadLeaseRequest>) -> Answer<pb::ReadLeaseResponse> {
        unused()
    }

    async fn renew_lease(&self, _: Request<pb::RenewLeaseRequest>) -> Answer<pb::RenewLeaseResponse> {
        unused()
    }

    async fn release_lease(
        &self,
        request: Request<pb::ReleaseLeaseRequest>,
    ) -> Answer<pb::ReleaseLeaseResponse> {
        self.authorize(&request)?;
        assert_eq!(request.into_inner().lease_id, LEASE.to_string());
        self.0.released.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(pb::ReleaseLeaseResponse {}))
    }

    async fn list_leases(&self, _: Request<pb::ListLeasesRequest>) -> Answer<pb::ListLeasesResponse> {
        unused()
    }

    async fn watch_leases(
        &self,
        request: Request<pb::WatchLeasesRequest>,
    ) -> Answer<Self::WatchLeasesStream> {
        self.authorize(&request)?;
        let event = |kind: Kind, lease_id: String, resource: &str| {
            Ok(pb::WatchLeasesResponse { kind: kind.into(), lease_id, resource: resource.into() })
        };
        let events = vec![
            event(Kind::Rotated, LEASE.to_string(), "secret/A"),
            event(Kind::Missed, String::new(), ""),
            Err(refusal(Code::Unauthenticated, "SESSION_REVOKED")),
        ];
        Ok(Response::new(stream::iter(events).boxed()))
    }
}

#[tonic::async_trait]
impl VaultService for Fake {
    async fn list_passwords(
        &self,
        request: Request<pb::ListPasswordsRequest>,
    ) -> Answer<pb::ListPasswordsResponse> {
        self.authorize(&request)?;
        let page: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let resource = format!("password/{page}.example");
        let passwords = vec![pb::PasswordName { resource, ..Default::default() }];
        let next_page_token = if page < 2 { (page + 1).to_string() } else { String::new() };
        Ok(Response::new(pb::ListPasswordsResponse { passwords, next_page_token }))
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Answer<pb::ListSecretsResponse> {
        self.authorize(&request)?;
        let secrets = vec![pb::SecretName { resource: "secret/API_KEY".into(), key: "API_KEY".into() }];
        let endless = self.0.endless.load(Ordering::SeqCst);
        let next_page_token = if endless { "again".into() } else { String::new() };
        Ok(Response::new(pb::ListSecretsResponse { secrets, next_page_token }))
    }

    async fn create_password(
        &self,
        _: Request<pb::CreatePasswordRequest>,
    ) -> Answer<pb::CreatePasswordResponse> {
        unused()
    }

    async fn update_password(
        &self,
        _: Request<pb::UpdatePasswordRequest>,
    ) -> Answer<pb::UpdatePasswordResponse> {
        unused()
    }

    async fn delete_password(
        &self,
        _: Request<pb::DeletePasswordRequest>,
    ) -> Answer<pb::DeletePasswordResponse> {
        unused()
    }

    async fn set_secret(&self, request: Request<pb::SetSecretRequest>) -> Answer<pb::SetSecretResponse> {
        self.authorize(&request)?;
        let pb::SetSecretRequest { key, value, .. } = request.into_inner();
        let secret = Some(pb::SecretName { resource: format!("secret/{key}"), key });
        Ok(Response::new(pb::SetSecretResponse { secret, created: value == VALUE }))
    }

    async fn delete_secret(&self, _: Request<pb::DeleteSecretRequest>) -> Answer<pb::DeleteSecretResponse> {
        unused()
    }
}

#[tonic::async_trait]
impl IdentityService for Fake {
    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Answer<pb::GetIdentityResponse> {
        self.authorize(&request)?;
        let (name, email) = ("notes".into(), "notes@example.com".into());
        let identity = pb::Identity { name, email, ..Default::default() };
        Ok(Response::new(pb::GetIdentityResponse { identity: Some(identity) }))
    }

    async fn create_identity(
        &self,
        _: Request<pb::CreateIdentityRequest>,
    ) -> Answer<pb::CreateIdentityResponse> {
        unused()
    }

    async fn provision_phone(
        &self,
        _: Request<pb::ProvisionPhoneRequest>,
    ) -> Answer<pb::ProvisionPhoneResponse> {
        unused()
    }

    async fn mint_sso_token(&self, _: Request<pb::MintSsoTokenRequest>) -> Answer<pb::MintSsoTokenResponse> {
        unused()
    }

    async fn search_contacts(
        &self,
        _: Request<pb::SearchContactsRequest>,
    ) -> Answer<pb::SearchContactsResponse> {
        unused()
    }
}

#[tonic::async_trait]
impl AdminService for Fake {
    async fn list_identities(
        &self,
        _: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn show_identity(
        &self,
        _: Request<pb::ShowIdentityRequest>,
    ) -> Result<Response<pb::ShowIdentityResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_identity(
        &self,
        _: Request<pb::AdminServiceCreateIdentityRequest>,
    ) -> Result<Response<pb::AdminServiceCreateIdentityResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type LoginStream = BoxStream<'static, Result<pb::LoginResponse, Status>>;
    type TailAuditStream = BoxStream<'static, Result<pb::TailAuditResponse, Status>>;

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        let audit_head = Some(pb::AuditHead { sequence: 9, hash: "00".into(), healthy: true });
        let version = "1.2.3".into();
        Ok(Response::new(pb::GetStatusResponse {
            version,
            started_at: moment(),
            audit_head,
            ..Default::default()
        }))
    }

    async fn get_metrics(&self, _: Request<pb::GetMetricsRequest>) -> Answer<pb::GetMetricsResponse> {
        unused()
    }

    async fn list_sessions(&self, _: Request<pb::ListSessionsRequest>) -> Answer<pb::ListSessionsResponse> {
        unused()
    }

    async fn list_leases(
        &self,
        _: Request<pb::AdminServiceListLeasesRequest>,
    ) -> Answer<pb::AdminServiceListLeasesResponse> {
        unused()
    }

    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Answer<pb::RevokeResponse> {
        let exposed_resources = match request.into_inner().target {
            Some(pb::revoke_request::Target::SessionId(id)) => vec![id],
            _ => vec![],
        };
        Ok(Response::new(pb::RevokeResponse { sessions: 1, leases: 0, exposed_resources }))
    }

    async fn lock(&self, _: Request<pb::LockRequest>) -> Answer<pb::LockResponse> {
        unused()
    }

    async fn unlock(&self, _: Request<pb::UnlockRequest>) -> Answer<pb::UnlockResponse> {
        unused()
    }

    async fn explain(&self, _: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        unused()
    }

    async fn reload(&self, _: Request<pb::ReloadRequest>) -> Answer<pb::ReloadResponse> {
        unused()
    }

    async fn login(&self, _: Request<pb::LoginRequest>) -> Answer<Self::LoginStream> {
        use pb::login_response::Event;

        let user_code = "ABCD-1234".into();
        let prompt = Event::Prompt(pb::LoginPrompt { user_code, ..Default::default() });
        let done = Event::Done(pb::LoginDone { identities: vec!["notes".into()], persisted: true });
        let events = [prompt, done].map(|event| Ok(pb::LoginResponse { event: Some(event) }));
        Ok(Response::new(stream::iter(events).boxed()))
    }

    async fn import_keys(&self, _: Request<pb::ImportKeysRequest>) -> Answer<pb::ImportKeysResponse> {
        unused()
    }

    async fn seal_key(&self, _: Request<pb::SealKeyRequest>) -> Answer<pb::SealKeyResponse> {
        unused()
    }

    async fn logout(&self, _: Request<pb::LogoutRequest>) -> Answer<pb::LogoutResponse> {
        unused()
    }

    async fn list_dispatches(
        &self,
        _: Request<pb::ListDispatchesRequest>,
    ) -> Answer<pb::ListDispatchesResponse> {
        unused()
    }

    async fn list_approvals(
        &self,
        _: Request<pb::ListApprovalsRequest>,
    ) -> Answer<pb::ListApprovalsResponse> {
        unused()
    }

    type WatchApprovalsStream = BoxStream<'static, Result<pb::WatchApprovalsResponse, Status>>;

    async fn watch_approvals(
        &self,
        _: Request<pb::WatchApprovalsRequest>,
    ) -> Answer<Self::WatchApprovalsStream> {
        unused()
    }

    async fn decide_approval(
        &self,
        _: Request<pb::DecideApprovalRequest>,
    ) -> Answer<pb::DecideApprovalResponse> {
        unused()
    }

    async fn retry_dispatch(
        &self,
        _: Request<pb::RetryDispatchRequest>,
    ) -> Answer<pb::RetryDispatchResponse> {
        unused()
    }

    async fn drop_dispatch(&self, _: Request<pb::DropDispatchRequest>) -> Answer<pb::DropDispatchResponse> {
        unused()
    }

    async fn tail_audit(&self, request: Request<pb::TailAuditRequest>) -> Answer<Self::TailAuditStream> {
        let lines = usize::try_from(request.into_inner().lines).unwrap();
        let record = || Ok(pb::TailAuditResponse { record: "{}".into() });
        Ok(Response::new(stream::iter(std::iter::repeat_with(record).take(lines)).boxed()))
    }
}
