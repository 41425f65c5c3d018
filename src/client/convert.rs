//! Wire types to plain types and back. A required field that is absent or malformed is
//! [`ClientError::Protocol`]; nothing is guessed. Secrets are moved.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::error::ClientError;
use super::messages::send_budget;
use super::model::{
    Anchor, AuditHead, Binding, Credential, DelegateSession, Delivery, Explanation, Identity, ImportKeys,
    KeysHeld, Lease, LeaseEvent, LeaseHandle, LeaseInfo, LimitInfo, LoginEvent, OpenSession, PasswordName,
    Protection, SecretName, Session, SessionDescription, SessionInfo, Status, UpstreamBudget,
};
use crate::pb;
use crate::pb::login_response::Event;
use crate::pb::watch_leases_response::Kind;
use crate::secret::Secret;

type Result<T> = std::result::Result<T, ClientError>;

pub(super) fn open_session(open: OpenSession) -> pb::OpenSessionRequest {
    let OpenSession { role, scopes, ttl, reason, anchor } = open;
    let anchor = match anchor {
        Anchor::Caller => pb::SessionAnchor::Caller,
        Anchor::Parent => pb::SessionAnchor::Parent,
    };
    let ttl = ttl.map(wire_duration);
    pb::OpenSessionRequest { role, scopes, ttl, reason, anchor: anchor.into() }
}

pub(super) fn opened_session(answer: pb::OpenSessionResponse) -> Result<(Session, Secret)> {
    let token = Secret::new(answer.token);
    if token.is_empty() {
        return Err(ClientError::Protocol);
    }
    Ok((session(answer.session)?, token))
}

pub(super) fn delegate_session(delegate: DelegateSession) -> pb::DelegateSessionRequest {
    let DelegateSession { scopes, ttl, reason, pid } = delegate;
    let (ttl, pid) = (ttl.map(wire_duration), pid.unwrap_or_default());
    pb::DelegateSessionRequest { scopes, ttl, reason, pid }
}

pub(super) fn delegated_session(answer: pb::DelegateSessionResponse) -> Result<(Session, Secret)> {
    let pb::DelegateSessionResponse { session, token, .. } = answer;
    opened_session(pb::OpenSessionResponse { session, token })
}

pub(super) fn wire_delivery(delivery: Delivery) -> pb::Delivery {
    match delivery {
        Delivery::Shown => pb::Delivery::Shown,
        Delivery::File => pb::Delivery::File,
        Delivery::Descriptor => pb::Delivery::Descriptor,
        Delivery::Stdin => pb::Delivery::Stdin,
        Delivery::Environment => pb::Delivery::Environment,
        Delivery::Helper => pb::Delivery::Helper,
    }
}

pub(super) fn delivery(delivery: pb::Delivery) -> Delivery {
    match delivery {
        pb::Delivery::Unspecified | pb::Delivery::Shown => Delivery::Shown,
        pb::Delivery::File => Delivery::File,
        pb::Delivery::Descriptor => Delivery::Descriptor,
        pb::Delivery::Stdin => Delivery::Stdin,
        pb::Delivery::Environment => Delivery::Environment,
        pb::Delivery::Helper => Delivery::Helper,
    }
}

pub(super) fn session(session: Option<pb::Session>) -> Result<Session> {
    let session = session.ok_or(ClientError::Protocol)?;
    let binding = match session.binding() {
        pb::SessionBinding::Process => Binding::Process,
        pb::SessionBinding::Subtree => Binding::Subtree,
        pb::SessionBinding::Cgroup => Binding::Cgroup,
        pb::SessionBinding::Unspecified => return Err(ClientError::Protocol),
    };
    Ok(Session {
        binding,
        parent_session_id: optional_handle(&session.parent_session_id)?,
        session_id: handle(&session.session_id)?,
        role: session.role,
        identity: session.identity,
        scopes: session.scopes,
        expires_at: timestamp(session.expires_at)?,
        expires_in: duration(session.expires_in)?,
    })
}

pub(super) fn session_description(answer: pb::DescribeSessionResponse) -> Result<SessionDescription> {
    Ok(SessionDescription {
        session: session(answer.session)?,
        limits: answer.limits.into_iter().map(limit).collect::<Result<_>>()?,
        live_leases: answer.live_leases,
        max_live_leases: answer.max_live_leases,
    })
}

fn limit(limit: pb::Limit) -> Result<LimitInfo> {
    let resets_in = duration(limit.resets_in)?;
    Ok(LimitInfo { name: limit.name, rate: limit.rate, remaining: limit.remaining, resets_in })
}

pub(super) fn lease(lease: Option<pb::Lease>) -> Result<Lease> {
    let lease = lease.ok_or(ClientError::Protocol)?;
    Ok(Lease {
        delivery: delivery(lease.delivery()),
        lease_id: handle(&lease.lease_id)?,
        resource: lease.resource,
        expires_at: timestamp(lease.expires_at)?,
        expires_in: duration(lease.expires_in)?,
        renewable_for: duration(lease.renewable_for)?,
        revocable: lease.revocable,
        uses: lease.uses,
    })
}

pub(super) fn credential(credential: Option<pb::Credential>) -> Result<Credential> {
    let pb::Credential { value, username, .. } = credential.ok_or(ClientError::Protocol)?;
    Ok(Credential { value: Secret::new(value), username: present(username) })
}

pub(super) fn lease_event(event: pb::WatchLeasesResponse) -> Result<LeaseEvent> {
    let kind = event.kind();
    if kind == Kind::Missed {
        return Ok(LeaseEvent::Missed);
    }
    let lease = LeaseHandle { lease_id: handle(&event.lease_id)?, resource: event.resource };
    match kind {
        Kind::Rotated => Ok(LeaseEvent::Rotated(lease)),
        Kind::Expiring => Ok(LeaseEvent::Expiring(lease)),
        Kind::Expired => Ok(LeaseEvent::Expired(lease)),
        Kind::Revoked => Ok(LeaseEvent::Revoked(lease)),
        Kind::Unspecified | Kind::Missed => Err(ClientError::Protocol),
    }
}

pub(super) fn password_name(name: pb::PasswordName) -> PasswordName {
    let pb::PasswordName { resource, domain, username } = name;
    PasswordName { resource, domain, username }
}

pub(super) fn secret_name(name: pb::SecretName) -> SecretName {
    let pb::SecretName { resource, key } = name;
    SecretName { resource, key }
}

pub(super) fn identity(identity: pb::Identity) -> Identity {
    Identity {
        uuid: identity.uuid,
        name: identity.name,
        email: present(identity.email),
        phone: present(identity.phone),
        owner_first_name: identity.owner_first_name,
        owner_last_name: identity.owner_last_name,
        email_budget: identity.email_budget.and_then(|budget| send_budget(budget).ok()),
        sms_budget: identity.sms_budget.and_then(|budget| send_budget(budget).ok()),
    }
}

pub(super) fn status(status: pb::GetStatusResponse) -> Result<Status> {
    let head = status.audit_head.ok_or(ClientError::Protocol)?;
    Ok(Status {
        version: status.version,
        pid: status.pid,
        started_at: timestamp(status.started_at)?,
        locked: status.locked,
        upstream_url: status.upstream_url,
        management_key_held: status.management_key_held,
        identity_keys_held: status.identity_keys_held,
        sessions: status.sessions,
        leases: status.leases,
        connections: status.connections,
        requests_served: status.requests_served,
        requests_denied: status.requests_denied,
        upstream_calls: status.upstream_calls,
        audit_head: AuditHead { sequence: head.sequence, hash: head.hash, healthy: head.healthy },
        config_path: status.config_path,
        roles: status.roles,
        protections: status.protections.into_iter().map(protection).collect(),
        dispatches: super::dispatch::backlog(status.dispatches),
        approvals: status.approvals,
        upstream_budget: status.upstream_budget.map_or(Ok(UpstreamBudget::default()), upstream_budget)?,
    })
}

fn upstream_budget(budget: pb::UpstreamBudget) -> Result<UpstreamBudget> {
    let pb::UpstreamBudget { calls, per, left } = budget;
    Ok(UpstreamBudget { calls, per: duration(per)?, left })
}

fn protection(protection: pb::Protection) -> Protection {
    let pb::Protection { name, tier, full } = protection;
    Protection { name, tier, full }
}

pub(super) fn session_info(info: pb::SessionInfo) -> Result<SessionInfo> {
    Ok(SessionInfo {
        session_id: handle(&info.session_id)?,
        role: info.role,
        identity: info.identity,
        uid: info.uid,
        pid: info.pid,
        executable: info.executable,
        leases: info.leases,
        age: duration(info.age)?,
        expires_in: duration(info.expires_in)?,
        reason: info.reason,
        parent_session_id: optional_handle(&info.parent_session_id)?,
        binding: info.binding,
    })
}

pub(super) fn explanation(answer: pb::ExplainResponse) -> Result<Explanation> {
    Ok(Explanation {
        denial_id: handle(&answer.denial_id)?,
        denied_at: timestamp(answer.denied_at)?,
        rule: answer.rule,
        asked: answer.asked,
        session_id: optional_handle(&answer.session_id)?,
        role: answer.role,
        uid: answer.uid,
        pid: answer.pid,
        executable: answer.executable,
        tier: answer.tier,
        selectors: answer.selectors,
    })
}

pub(super) fn lease_info(info: pb::LeaseInfo) -> Result<LeaseInfo> {
    Ok(LeaseInfo {
        lease_id: handle(&info.lease_id)?,
        session_id: handle(&info.session_id)?,
        role: info.role,
        resource: info.resource,
        expires_in: duration(info.expires_in)?,
        revocable: info.revocable,
        uses: info.uses,
    })
}

pub(super) fn login_event(answer: pb::LoginResponse) -> Result<LoginEvent> {
    match answer.event.ok_or(ClientError::Protocol)? {
        Event::Prompt(pb::LoginPrompt { verification_url, user_code, expires_in }) => {
            Ok(LoginEvent::Prompt { verification_url, user_code, expires_in: duration(expires_in)? })
        }
        Event::Done(pb::LoginDone { identities, persisted }) => {
            Ok(LoginEvent::Done(KeysHeld { identities, persisted }))
        }
    }
}

pub(super) fn import_keys(keys: ImportKeys) -> pb::ImportKeysRequest {
    let management_key = keys.management_key.map(|key| key.expose().to_owned()).unwrap_or_default();
    let (identity_uuid, identity_key) =
        keys.identity_key.map(|(uuid, key)| (uuid.to_string(), key.expose().to_owned())).unwrap_or_default();
    pb::ImportKeysRequest { management_key, identity_key, identity_uuid }
}

/// Longer than anything the broker grants, and shorter than what the wire's form can hold. The broker
/// cuts what is too long for it.
const MAX_WIRE_SECONDS: u64 = u32::MAX as u64;

pub(super) fn wire_duration(duration: Duration) -> prost_types::Duration {
    let seconds = duration.as_secs().min(MAX_WIRE_SECONDS).cast_signed();
    prost_types::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() }
}

/// Absent means zero, as everywhere on the wire.
pub(super) fn duration(duration: Option<prost_types::Duration>) -> Result<Duration> {
    duration.map_or(Ok(Duration::ZERO), |d| d.try_into().map_err(|_| ClientError::Protocol))
}

pub(super) fn timestamp(timestamp: Option<prost_types::Timestamp>) -> Result<Timestamp> {
    let timestamp = timestamp.ok_or(ClientError::Protocol)?;
    Timestamp::new(timestamp.seconds, timestamp.nanos).map_err(|_| ClientError::Protocol)
}

pub(super) fn handle<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| ClientError::Protocol)
}

fn optional_handle<T: FromStr>(text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { handle(text).map(Some) }
}

/// The wire's empty text is "absent".
fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
