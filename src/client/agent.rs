//! The agent socket: sessions, leases, vaults, identity. One method per verb of the API, which
//! documents the errors of each (`proto/ravi/broker/v1/`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::channel::{self, Events, MAX_ANSWER_BYTES, answer, events};
use super::convert;
use super::error::{Attempt, ClientError};
use super::model::{
    CreatePassword, Credential, DelegateSession, Delivery, Identity, Lease, LeaseEvent, OpenSession,
    PasswordName, SecretName, Session, SessionDescription, UpdatePassword,
};
use crate::pb;
use crate::pb::identity_service_client::IdentityServiceClient;
use crate::pb::inbox_service_client::InboxServiceClient;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::session_service_client::SessionServiceClient;
use crate::pb::vault_service_client::VaultServiceClient;
use crate::secret::Secret;
use crate::types::{LeaseId, TraceParent};

/// 500 names a page: more than any vault holds.
const MAX_PAGES: usize = 64;

/// A connection to the agent socket, with a session token once there is one. Has no `Debug` and no
/// `Clone`, since it holds the token.
pub struct AgentClient {
    channel: Channel,
    socket: PathBuf,
    authorization: Option<MetadataValue<Ascii>>,
    trace: Option<MetadataValue<Ascii>>,
}

macro_rules! service {
    ($name:ident, $client:ident) => {
        pub(super) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
        }
    };
}

impl AgentClient {
    service!(sessions, SessionServiceClient);
    service!(leases, LeaseServiceClient);
    service!(vault, VaultServiceClient);
    service!(identities, IdentityServiceClient);
    service!(inbox, InboxServiceClient);

    /// Connects to the first of the sockets (see [`locate`](super::locate)) that accepts.
    /// A sandbox that forbids sockets may still have a link.
    pub async fn connect(candidates: &[PathBuf]) -> Result<Self, ClientError> {
        let error = match channel::connect(candidates).await {
            Ok((channel, socket)) => return Ok(Self::on(channel, socket)),
            Err(error) => error,
        };
        let ClientError::Unreachable { mut tried } = error else { return Err(error) };
        match Self::over_link(candidates).await {
            Some(Ok(client)) => return Ok(client),
            Some(Err(attempt)) => tried.push(attempt),
            None => {}
        }
        Err(ClientError::Unreachable { tried })
    }

    /// Connects for the session of the link (see [`link`](super::link)), which is known over the link alone. By the
    /// sockets if there is no link to this daemon.
    pub async fn connect_linked(candidates: &[PathBuf]) -> Result<Self, ClientError> {
        match Self::over_link(candidates).await {
            Some(Ok(client)) => Ok(client),
            Some(Err(attempt)) => Err(ClientError::Unreachable { tried: vec![attempt] }),
            None => Self::connect(candidates).await,
        }
    }

    async fn over_link(candidates: &[PathBuf]) -> Option<Result<Self, Attempt>> {
        let (channel, socket) = (channel::over_link(candidates).await?, candidates.first()?.clone());
        Some(channel.map(|channel| Self::on(channel, socket)))
    }

    fn on(channel: Channel, socket: PathBuf) -> Self {
        Self { channel, socket, authorization: None, trace: None }
    }

    /// The socket that accepted.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends the token with every further call. One that no broker can have issued is sent as an empty
    /// one, for the broker to refuse.
    pub fn with_token(mut self, token: Secret) -> Self {
        self.authorization = Some(authorization(&token));
        self
    }

    /// Says with every further call to which trace it belongs, if it is to any.
    pub fn within(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace.and_then(|trace| MetadataValue::try_from(trace.as_str()).ok());
        self
    }

    /// Assumes a role. Returns the session and its token, for [`AgentClient::with_token`] or a
    /// [`SessionFile`](super::SessionFile).
    pub async fn open_session(&self, open: OpenSession) -> Result<(Session, Secret), ClientError> {
        let request = self.traced(convert::open_session(open));
        convert::opened_session(answer(self.sessions().open_session(request)).await?)
    }

    /// The session of the token, and what is left of its limits.
    pub async fn describe_session(&self) -> Result<SessionDescription, ClientError> {
        let request = self.request(pb::DescribeSessionRequest {});
        convert::session_description(answer(self.sessions().describe_session(request)).await?)
    }

    /// Opens a session below this one. Returns it and its token.
    pub async fn delegate_session(
        &self,
        delegate: DelegateSession,
    ) -> Result<(Session, Secret), ClientError> {
        let request = self.request(convert::delegate_session(delegate));
        convert::delegated_session(answer(self.sessions().delegate_session(request)).await?)
    }

    /// Moves the end of the session to `ttl` from now. Absent: as far as its role lets it.
    pub async fn renew_session(&self, ttl: Option<Duration>) -> Result<Session, ClientError> {
        let ttl = ttl.map(convert::wire_duration);
        let request = self.request(pb::RenewSessionRequest { ttl });
        convert::session(answer(self.sessions().renew_session(request)).await?.session)
    }

    /// Ends the session. Returns how many leases ended with it.
    pub async fn close_session(&self) -> Result<u32, ClientError> {
        let request = self.request(pb::CloseSessionRequest {});
        Ok(answer(self.sessions().close_session(request)).await?.leases_revoked)
    }

    /// Leases a credential. `ttl` absent: the role's.
    pub async fn acquire(
        &self,
        resource: &str,
        ttl: Option<Duration>,
        reason: &str,
    ) -> Result<(Lease, Credential), ClientError> {
        self.acquire_for(resource, ttl, reason, Delivery::Shown).await
    }

    /// Leases a credential to be delivered in this way and no other.
    pub async fn acquire_for(
        &self,
        resource: &str,
        ttl: Option<Duration>,
        reason: &str,
        delivery: Delivery,
    ) -> Result<(Lease, Credential), ClientError> {
        let message = pb::AcquireLeaseRequest {
            resource: resource.to_owned(),
            ttl: ttl.map(convert::wire_duration),
            reason: reason.to_owned(),
            delivery: convert::wire_delivery(delivery).into(),
        };
        let granted = answer(self.leases().acquire_lease(self.request(message))).await?;
        Ok((convert::lease(granted.lease)?, convert::credential(granted.credential)?))
    }

    /// The credential again, under a live lease.
    pub async fn read(&self, lease_id: LeaseId) -> Result<(Lease, Credential), ClientError> {
        let request = self.request(pb::ReadLeaseRequest { lease_id: lease_id.to_string() });
        let granted = answer(self.leases().read_lease(request)).await?;
        Ok((convert::lease(granted.lease)?, convert::credential(granted.credential)?))
    }

    /// Moves the end of a live lease to `ttl` from now. Absent: the role's.
    pub async fn renew(&self, lease_id: LeaseId, ttl: Option<Duration>) -> Result<Lease, ClientError> {
        let ttl = ttl.map(convert::wire_duration);
        let request = self.request(pb::RenewLeaseRequest { lease_id: lease_id.to_string(), ttl });
        convert::lease(answer(self.leases().renew_lease(request)).await?.lease)
    }

    /// Gives a lease back before its time.
    pub async fn release(&self, lease_id: LeaseId) -> Result<(), ClientError> {
        let request = self.request(pb::ReleaseLeaseRequest { lease_id: lease_id.to_string() });
        answer(self.leases().release_lease(request)).await.map(drop)
    }

    /// The live leases of the session.
    pub async fn list_leases(&self) -> Result<Vec<Lease>, ClientError> {
        let request = self.request(pb::ListLeasesRequest {});
        let listed = answer(self.leases().list_leases(request)).await?.leases;
        listed.into_iter().map(|lease| convert::lease(Some(lease))).collect()
    }

    /// What happens to the session's leases from now on.
    pub async fn watch_leases(&self) -> Result<Events<LeaseEvent>, ClientError> {
        let request = self.request(pb::WatchLeasesRequest {});
        let mut leases = self.leases();
        events(leases.watch_leases(request), convert::lease_event).await
    }

    /// Names of the passwords that the session may list.
    pub async fn list_passwords(&self) -> Result<Vec<PasswordName>, ClientError> {
        let mut names = Vec::new();
        let mut page_token = String::new();
        for _ in 0..MAX_PAGES {
            let request = self.request(pb::ListPasswordsRequest { page_size: 0, page_token });
            let page = answer(self.vault().list_passwords(request)).await?;
            names.extend(page.passwords.into_iter().map(convert::password_name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(names);
            }
        }
        Err(ClientError::Protocol)
    }

    /// Names of the secrets that the session may list.
    pub async fn list_secrets(&self) -> Result<Vec<SecretName>, ClientError> {
        let mut names = Vec::new();
        let mut page_token = String::new();
        for _ in 0..MAX_PAGES {
            let request = self.request(pb::ListSecretsRequest { page_size: 0, page_token });
            let page = answer(self.vault().list_secrets(request)).await?;
            names.extend(page.secrets.into_iter().map(convert::secret_name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(names);
            }
        }
        Err(ClientError::Protocol)
    }

    /// Creates a password entry with a generated password. Returns the entry as Ravi stored it.
    pub async fn create_password(&self, create: CreatePassword) -> Result<PasswordName, ClientError> {
        let CreatePassword { domain, username, length, reason } = create;
        let length = length.unwrap_or_default();
        let request = self.request(pb::CreatePasswordRequest { domain, username, length, reason });
        let created = answer(self.vault().create_password(request)).await?;
        created.password.map(convert::password_name).ok_or(ClientError::Protocol)
    }

    /// Changes the password of an entry.
    pub async fn update_password(&self, update: UpdatePassword) -> Result<PasswordName, ClientError> {
        let UpdatePassword { resource, password, length, reason } = update;
        let password = password.map(|password| password.expose().to_owned()).unwrap_or_default();
        let length = length.unwrap_or_default();
        let request = self.request(pb::UpdatePasswordRequest { resource, password, length, reason });
        let updated = answer(self.vault().update_password(request)).await?;
        updated.password.map(convert::password_name).ok_or(ClientError::Protocol)
    }

    /// Deletes a password entry.
    pub async fn delete_password(&self, resource: &str, reason: &str) -> Result<(), ClientError> {
        let message = pb::DeletePasswordRequest { resource: resource.to_owned(), reason: reason.to_owned() };
        answer(self.vault().delete_password(self.request(message))).await.map(drop)
    }

    /// Creates a secret or replaces its value. True: it is new.
    pub async fn set_secret(
        &self,
        key: &str,
        value: &Secret,
        reason: &str,
    ) -> Result<(SecretName, bool), ClientError> {
        let message = pb::SetSecretRequest {
            key: key.to_owned(),
            value: value.expose().to_owned(),
            reason: reason.to_owned(),
        };
        let set = answer(self.vault().set_secret(self.request(message))).await?;
        let name = set.secret.map(convert::secret_name).ok_or(ClientError::Protocol)?;
        Ok((name, set.created))
    }

    /// Deletes a secret.
    pub async fn delete_secret(&self, key: &str, reason: &str) -> Result<(), ClientError> {
        let message = pb::DeleteSecretRequest { key: key.to_owned(), reason: reason.to_owned() };
        answer(self.vault().delete_secret(self.request(message))).await.map(drop)
    }

    /// The Ravi identity behind the session's role.
    pub async fn identity(&self) -> Result<Identity, ClientError> {
        let request = self.request(pb::GetIdentityRequest {});
        let answered = answer(self.identities().get_identity(request)).await?;
        answered.identity.map(convert::identity).ok_or(ClientError::Protocol)
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.traced(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }

    fn traced<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.trace {
            request.metadata_mut().insert("traceparent", value.clone());
        }
        request
    }
}

/// A session without a connection, for a program that lives on between its calls. While a connection is
/// open its buffers keep what has gone through them; one that is made for a call takes them away with it.
/// Has no `Debug` and no `Clone`, since it holds the token.
pub struct HeldSession {
    socket: PathBuf,
    /// `None`: that of the link, which needs none.
    authorization: Option<MetadataValue<Ascii>>,
}

impl HeldSession {
    /// A session that was opened at `socket`.
    pub fn new(socket: &Path, token: &Secret) -> Self {
        Self { socket: socket.to_owned(), authorization: Some(authorization(token)) }
    }

    /// The session of the link that a launcher left open (see [`link`](super::link)), at the daemon of `socket`.
    pub fn linked(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), authorization: None }
    }

    /// Connects to the session's socket, for calls under the session.
    pub async fn connect(&self) -> Result<AgentClient, ClientError> {
        let socket = std::slice::from_ref(&self.socket);
        let Some(authorization) = self.authorization.clone() else {
            return AgentClient::connect_linked(socket).await;
        };
        let client = AgentClient::connect(socket).await?;
        Ok(AgentClient { authorization: Some(authorization), ..client })
    }
}

/// The header value of a token, shared by all requests that carry it. Being marked as sensitive it is left
/// out of logs and of the compression tables of HTTP/2 (RFC 7541, section 7.1.3).
fn authorization(token: &Secret) -> MetadataValue<Ascii> {
    let bearer = Zeroizing::new(["Bearer ", token.expose()].concat());
    let value = MetadataValue::try_from(bearer.as_str());
    let mut value = value.unwrap_or_else(|_| MetadataValue::from_static("Bearer "));
    value.set_sensitive(true);
    value
}
