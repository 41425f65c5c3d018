//! The admin socket: what the operator can do. One method per verb of the API.

use std::path::{Path, PathBuf};

use tonic::Request;
use tonic::transport::Channel;

use super::channel::{self, Events, MAX_ANSWER_BYTES, answer, events};
use super::convert;
use super::error::ClientError;
use super::model::{
    Explanation, ImportKeys, KeysHeld, LeaseInfo, Locked, LoginEvent, Reloaded, RevokeTarget, Revoked,
    SessionInfo, Status, Unlocked,
};
use crate::pb;
use crate::pb::admin_service_client::AdminServiceClient;
use crate::pb::revoke_request::Target;
use crate::types::{DenialId, SessionId};

/// A connection to the admin socket.
pub struct AdminClient {
    channel: Channel,
    socket: PathBuf,
}

impl AdminClient {
    /// Connects to the first of the sockets (see [`locate`](super::locate)) that accepts.
    pub async fn connect(candidates: &[PathBuf]) -> Result<Self, ClientError> {
        let (channel, socket) = channel::connect(candidates).await?;
        Ok(Self { channel, socket })
    }

    /// The socket that accepted.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        convert::status(answer(self.admin().get_status(Request::new(pb::GetStatusRequest {}))).await?)
    }

    /// What the daemon counts, in the text form that Prometheus reads.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let request = Request::new(pb::GetMetricsRequest {});
        Ok(answer(self.admin().get_metrics(request)).await?.text)
    }

    /// The live sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, ClientError> {
        let request = Request::new(pb::ListSessionsRequest {});
        let listed = answer(self.admin().list_sessions(request)).await?.sessions;
        listed.into_iter().map(convert::session_info).collect()
    }

    /// The live leases, of one session or of all.
    pub async fn leases(&self, session: Option<SessionId>) -> Result<Vec<LeaseInfo>, ClientError> {
        let session_id = session.map(|id| id.to_string()).unwrap_or_default();
        let request = Request::new(pb::AdminServiceListLeasesRequest { session_id });
        let listed = answer(self.admin().list_leases(request)).await?.leases;
        listed.into_iter().map(convert::lease_info).collect()
    }

    /// Ends access. `reason` is for the audit trail, at most 256 characters.
    pub async fn revoke(&self, target: RevokeTarget, reason: &str) -> Result<Revoked, ClientError> {
        let target = Some(match target {
            RevokeTarget::Lease(id) => Target::LeaseId(id.to_string()),
            RevokeTarget::Session(id) => Target::SessionId(id.to_string()),
            RevokeTarget::Role(role) => Target::Role(role),
            RevokeTarget::All => Target::All(true),
        });
        let request = Request::new(pb::RevokeRequest { target, reason: reason.to_owned() });
        let pb::RevokeResponse { sessions, leases, exposed_resources } =
            answer(self.admin().revoke(request)).await?;
        Ok(Revoked { sessions, leases, exposed_resources })
    }

    /// Kill switch. `reason` is for the audit trail, at most 256 characters.
    pub async fn lock(&self, reason: &str) -> Result<Locked, ClientError> {
        let request = Request::new(pb::LockRequest { reason: reason.to_owned() });
        let pb::LockResponse { sessions, leases } = answer(self.admin().lock(request)).await?;
        Ok(Locked { sessions, leases })
    }

    /// Serves again after a lock.
    pub async fn unlock(&self) -> Result<Unlocked, ClientError> {
        let answered = answer(self.admin().unlock(Request::new(pb::UnlockRequest {}))).await?;
        Ok(Unlocked { management_key_held: answered.management_key_held })
    }

    /// Why a call was refused. The daemon remembers the last 1,024 refusals.
    pub async fn explain(&self, id: DenialId) -> Result<Explanation, ClientError> {
        let request = Request::new(pb::ExplainRequest { denial_id: id.to_string() });
        convert::explanation(answer(self.admin().explain(request)).await?)
    }

    /// Reads the configuration again.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        let request = Request::new(pb::ReloadRequest {});
        let pb::ReloadResponse { roles, sessions_ended } = answer(self.admin().reload(request)).await?;
        Ok(Reloaded { roles, sessions_ended })
    }

    /// Device-code login, run by the daemon. Dropping the stream gives it up.
    pub async fn login(&self) -> Result<Events<LoginEvent>, ClientError> {
        let mut admin = self.admin();
        events(admin.login(Request::new(pb::LoginRequest {})), convert::login_event).await
    }

    /// Hands over keys that the operator holds.
    pub async fn import_keys(&self, keys: ImportKeys) -> Result<KeysHeld, ClientError> {
        let request = Request::new(convert::import_keys(keys));
        let pb::ImportKeysResponse { identities, persisted } =
            answer(self.admin().import_keys(request)).await?;
        Ok(KeysHeld { identities, persisted })
    }

    /// Has the daemon write its management key into the pipe of whoever seals it. For root alone.
    pub async fn seal_key(&self) -> Result<(), ClientError> {
        answer(self.admin().seal_key(Request::new(pb::SealKeyRequest {}))).await.map(drop)
    }

    /// Has every key forgotten. Returns whether a key file was removed.
    pub async fn logout(&self) -> Result<bool, ClientError> {
        Ok(answer(self.admin().logout(Request::new(pb::LogoutRequest {}))).await?.file_removed)
    }

    /// The last `lines` audit records (at most 1,000), one line of JSON each, and with `follow` those
    /// that come.
    pub async fn tail_audit(&self, lines: u32, follow: bool) -> Result<Events<String>, ClientError> {
        let request = Request::new(pb::TailAuditRequest { lines, follow });
        let mut admin = self.admin();
        events(admin.tail_audit(request), |record| Ok(record.record)).await
    }

    pub(super) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}
