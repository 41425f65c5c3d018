//! What callbacks are told, as the operator sees it: plain types and the calls of the admin socket about it.

use std::time::Duration;

use jiff::Timestamp;
use tonic::Request;

use super::admin::AdminClient;
use super::channel::answer;
use super::convert;
use super::error::ClientError;
use crate::pb;
use crate::types::DispatchId;

/// What has become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchState {
    /// To be tried.
    Pending,
    /// The callback took it.
    Delivered,
    /// Nobody is to be told.
    Dropped,
    /// Given up.
    Dead,
}

impl DispatchState {
    /// `pending`, `delivered`, `dropped` or `dead`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Dead => "dead",
        }
    }
}

/// One message for one callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchInfo {
    /// The same in every attempt.
    pub dispatch_id: DispatchId,
    /// Name of the rule.
    pub rule: String,
    /// Where it goes.
    pub target: String,
    /// Whose message.
    pub identity_uuid: String,
    /// Which: `email/42`.
    pub message: String,
    /// What has become of it.
    pub state: DispatchState,
    /// Attempts that count.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it is tried next, or was settled.
    pub next_at: Timestamp,
    /// Why the last attempt failed; empty if it did not.
    pub fault: String,
}

/// How much callbacks are still to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchBacklog {
    /// To be tried.
    pub pending: u32,
    /// Given up.
    pub dead: u32,
    /// How long the oldest pending one has waited.
    pub oldest_pending: Option<Duration>,
    /// New messages are held back.
    pub full: bool,
}

/// Which deliveries an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatched {
    /// One that is pending or dead.
    One(DispatchId),
    /// All that are dead.
    AllDead,
}

impl AdminClient {
    /// One page of deliveries, oldest first, and the token of the next; empty if there is none.
    pub async fn dispatches(
        &self,
        state: Option<DispatchState>,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<DispatchInfo>, String), ClientError> {
        let state = match state {
            None => pb::DispatchState::Unspecified,
            Some(DispatchState::Pending) => pb::DispatchState::Pending,
            Some(DispatchState::Delivered) => pb::DispatchState::Delivered,
            Some(DispatchState::Dropped) => pb::DispatchState::Dropped,
            Some(DispatchState::Dead) => pb::DispatchState::Dead,
        };
        let page_token = page_token.to_owned();
        let request = pb::ListDispatchesRequest { state: state.into(), page_size, page_token };
        let listed = answer(self.admin().list_dispatches(Request::new(request))).await?;
        let dispatches: Result<_, _> = listed.dispatches.into_iter().map(info).collect();
        Ok((dispatches?, listed.next_page_token))
    }

    /// Has deliveries tried again. How many.
    pub async fn retry_dispatches(&self, which: Dispatched) -> Result<u32, ClientError> {
        use pb::retry_dispatch_request::Target;
        let target = Some(match which {
            Dispatched::One(id) => Target::DispatchId(id.to_string()),
            Dispatched::AllDead => Target::AllDead(true),
        });
        let request = Request::new(pb::RetryDispatchRequest { target });
        Ok(answer(self.admin().retry_dispatch(request)).await?.dispatches)
    }

    /// Drops deliveries. How many.
    pub async fn drop_dispatches(&self, which: Dispatched) -> Result<u32, ClientError> {
        use pb::drop_dispatch_request::Target;
        let target = Some(match which {
            Dispatched::One(id) => Target::DispatchId(id.to_string()),
            Dispatched::AllDead => Target::AllDead(true),
        });
        let request = Request::new(pb::DropDispatchRequest { target });
        Ok(answer(self.admin().drop_dispatch(request)).await?.dispatches)
    }
}

/// A daemon that knows no dispatches has none.
pub(super) fn backlog(wire: Option<pb::DispatchBacklog>) -> DispatchBacklog {
    let pb::DispatchBacklog { pending, dead, oldest_pending, full } = wire.unwrap_or_default();
    let oldest_pending = oldest_pending.and_then(|waited| Duration::try_from(waited).ok());
    DispatchBacklog { pending, dead, oldest_pending, full }
}

fn info(wire: pb::DispatchInfo) -> Result<DispatchInfo, ClientError> {
    let state = match wire.state() {
        pb::DispatchState::Pending => DispatchState::Pending,
        pb::DispatchState::Delivered => DispatchState::Delivered,
        pb::DispatchState::Dropped => DispatchState::Dropped,
        pb::DispatchState::Dead => DispatchState::Dead,
        pb::DispatchState::Unspecified => return Err(ClientError::Protocol),
    };
    Ok(DispatchInfo {
        dispatch_id: wire.dispatch_id.parse().map_err(|_| ClientError::Protocol)?,
        rule: wire.rule,
        target: wire.target,
        identity_uuid: wire.identity_uuid,
        message: wire.message,
        state,
        attempts: wire.attempts,
        queued_at: convert::timestamp(wire.queued_at)?,
        next_at: convert::timestamp(wire.next_at)?,
        fault: wire.fault,
    })
}
