//! Wire to domain, parsed or refused; domain to wire.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use super::retire::padding;
use crate::broker::{BrokerError, Described, Leased, Opened, Result};
use crate::clock::{BootInstant, Clock};
use crate::lease::Lease;
use crate::limit::{Class, Remaining, Share};
use crate::pb;
use crate::session::Binding;
use crate::types::{
    Delivery, DenialId, LeaseId, NameError, PasswordName, Reason, Resource, SecretKey, SessionId,
};

/// A longer life than this is a mistake, not a wish.
const LONGEST_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
/// Bounds of a generated password; Ravi's own are not documented.
const PASSWORD_LENGTHS: std::ops::RangeInclusive<u32> = 16..=64;
const DEFAULT_PASSWORD_LENGTH: u8 = 24;
/// Names in one answer.
const PAGE: usize = 500;

/// Reads a name in its canonical form; `field` is what the message calls it.
pub(super) fn name<T: FromStr<Err = NameError>>(field: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|error| BrokerError::Name { field, error })
}

/// Reads a lease handle. A malformed one is as absent as an unknown one.
pub(super) fn lease_id(text: &str) -> Result<LeaseId> {
    text.parse().map_err(|_| BrokerError::LeaseNotAvailable)
}

/// Reads the id of a refused call.
pub(super) fn denial_id(text: &str) -> Result<DenialId> {
    name("denial_id", text)
}

/// Reads a session handle.
pub(super) fn session_id(text: &str) -> Result<SessionId> {
    name("session_id", text)
}

/// Reads a purpose; empty means none.
pub(super) fn reason(text: &str) -> Result<Option<Reason>> {
    if text.is_empty() { Ok(None) } else { name("reason", text).map(Some) }
}

/// Reads a password's resource name.
pub(super) fn password(text: &str) -> Result<PasswordName> {
    match name("resource", text)? {
        Resource::Password(name) => Ok(name),
        _ => Err(BrokerError::Argument {
            field: "resource",
            problem: "expected password/<domain>[/<username>]",
        }),
    }
}

/// Reads the length of a password to be generated; 0 means the default.
pub(super) fn password_length(length: u32) -> Result<u8> {
    let wrong = BrokerError::Argument { field: "length", problem: "expected 16 to 64, or 0 for the default" };
    match length {
        0 => Ok(DEFAULT_PASSWORD_LENGTH),
        length if PASSWORD_LENGTHS.contains(&length) => u8::try_from(length).map_err(|_| wrong),
        _ => Err(wrong),
    }
}

/// Reads where a value goes.
pub(super) fn delivery(wire: i32) -> Result<Delivery> {
    match pb::Delivery::try_from(wire) {
        Ok(pb::Delivery::Unspecified | pb::Delivery::Shown) => Ok(Delivery::Shown),
        Ok(pb::Delivery::File) => Ok(Delivery::File),
        Ok(pb::Delivery::Descriptor) => Ok(Delivery::Descriptor),
        Ok(pb::Delivery::Stdin) => Ok(Delivery::Stdin),
        Ok(pb::Delivery::Environment) => Ok(Delivery::Environment),
        Ok(pb::Delivery::Helper) => Ok(Delivery::Helper),
        Err(_) => Err(BrokerError::Argument { field: "delivery", problem: "expected a known delivery" }),
    }
}

/// Reads a life: absent, or at least a millisecond.
pub(super) fn ttl(wire: Option<prost_types::Duration>) -> Result<Option<Duration>> {
    let Some(wire) = wire else { return Ok(None) };
    let ttl = Duration::try_from(wire).ok().filter(|ttl| *ttl >= Duration::from_millis(1));
    let ttl = ttl.ok_or(BrokerError::Argument { field: "ttl", problem: "expected a positive duration" })?;
    Ok(Some(ttl.min(LONGEST_TTL)))
}

/// One page of names, and the token of the next.
pub(super) fn page<T>(names: Vec<T>, size: u32, token: &str) -> Result<(Vec<T>, String)> {
    let wrong =
        BrokerError::Argument { field: "page_token", problem: "expected next_page_token of the page before" };
    let start: usize = if token.is_empty() { 0 } else { token.parse().map_err(|_| wrong)? };
    let size = match usize::try_from(size).unwrap_or(PAGE) {
        0 => PAGE,
        size => size.min(PAGE),
    };
    let end = start.saturating_add(size);
    let next = if end < names.len() { end.to_string() } else { String::new() };
    Ok((names.into_iter().skip(start).take(size).collect(), next))
}

pub(super) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

pub(super) fn timestamp(at: jiff::Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn session(described: &Described, clock: &dyn Clock) -> pb::Session {
    pb::Session {
        session_id: described.id.to_string(),
        role: described.role.to_string(),
        identity: described.identity.clone(),
        scopes: described.scopes.clone(),
        expires_at: timestamp(clock.wall_at(described.expires_at)),
        expires_in: duration(described.expires_at.since(clock.now())),
        binding: binding(&described.binding).into(),
        parent_session_id: described.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        padding: Bytes::new(),
    }
}

/// The one copy of a token that goes to the wire, behind its session.
pub(super) fn opened(opened: &Opened, clock: &dyn Clock) -> (Option<pb::Session>, String) {
    let token = opened.token.expose().to_owned();
    (Some(pb::Session { padding: padding(&token), ..session(&opened.described, clock) }), token)
}

fn binding(binding: &Binding) -> pb::SessionBinding {
    match binding {
        Binding::Process(_) => pb::SessionBinding::Process,
        Binding::Subtree(_) => pb::SessionBinding::Subtree,
        Binding::Cgroup { .. } => pb::SessionBinding::Cgroup,
    }
}

pub(super) fn limit(remaining: &Remaining) -> pb::Limit {
    let name = match (remaining.share, remaining.class) {
        (Share::Role, Class::Read) => "read",
        (Share::Role, Class::Send) => "send",
        (Share::Session, Class::Read) => "session_read",
        (Share::Session, Class::Send) => "session_send",
    };
    pb::Limit {
        name: name.to_owned(),
        rate: remaining.rate.to_string(),
        remaining: remaining.requests,
        resets_in: duration(remaining.resets_in),
    }
}

pub(super) fn lease(lease: &Lease, clock: &dyn Clock) -> pb::Lease {
    let now = clock.now();
    let left = |at: BootInstant| duration(at.since(now));
    pb::Lease {
        lease_id: lease.id.to_string(),
        resource: lease.resource.to_string(),
        expires_at: timestamp(clock.wall_at(lease.terms.expires_at)),
        expires_in: left(lease.terms.expires_at),
        renewable_for: left(lease.terms.limit_at),
        revocable: lease.revocable,
        uses: lease.uses,
        delivery: wire_delivery(lease.delivery).into(),
        padding: Bytes::new(),
    }
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

/// The one copy of a value that goes to the wire.
pub(super) fn leased(leased: Leased, clock: &dyn Clock) -> (Option<pb::Lease>, Option<pb::Credential>) {
    let Leased { lease: terms, credential } = leased;
    let value = credential.value.expose().to_owned();
    let username = credential.username.unwrap_or_default();
    let lease = pb::Lease { padding: padding(&value), ..lease(&terms, clock) };
    (Some(lease), Some(pb::Credential { value, username }))
}

pub(super) fn password_name(name: PasswordName) -> pb::PasswordName {
    let domain = name.domain.as_str().to_owned();
    let username = name.username.as_ref().map_or("", |username| username.as_str()).to_owned();
    pb::PasswordName { resource: Resource::Password(name).to_string(), domain, username }
}

pub(super) fn secret_name(key: SecretKey) -> pb::SecretName {
    pb::SecretName { key: key.as_str().to_owned(), resource: Resource::Secret(key).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_delivery_is_shown_and_an_unknown_one_is_refused() {
        assert_eq!(delivery(0), Ok(Delivery::Shown));
        for known in Delivery::INJECTED {
            assert_eq!(delivery(wire_delivery(known).into()), Ok(known));
        }
        for unknown in [-1, 7, i32::MAX] {
            assert!(matches!(delivery(unknown), Err(BrokerError::Argument { field: "delivery", .. })));
        }
    }
}
