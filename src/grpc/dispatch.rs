//! What callbacks are told, for the operator: the calls of `AdminService` that are about it.

use super::convert;
use crate::broker::{Broker, BrokerError};
use crate::inbox::store::outbox::{Chosen, Delivery, State};
use crate::metrics::{Exposition, Kind};
use crate::pb;

/// Deliveries in one answer.
const PAGE: usize = 500;

pub(super) async fn list(
    broker: &Broker,
    request: pb::ListDispatchesRequest,
) -> Result<pb::ListDispatchesResponse, BrokerError> {
    let wrong = |field, problem| BrokerError::Argument { field, problem };
    let state = pb::DispatchState::try_from(request.state);
    let state = match state.map_err(|_| wrong("state", "expected a known state"))? {
        pb::DispatchState::Unspecified => None,
        pb::DispatchState::Pending => Some(State::Pending),
        pb::DispatchState::Delivered => Some(State::Delivered),
        pb::DispatchState::Dropped => Some(State::Dropped),
        pb::DispatchState::Dead => Some(State::Dead),
    };
    let unread = |_| wrong("page_token", "expected next_page_token of the page before");
    let after = match request.page_token.as_str() {
        "" => 0,
        token => token.parse().map_err(unread)?,
    };
    let limit = match usize::try_from(request.page_size).unwrap_or(PAGE) {
        0 => PAGE,
        size => size.min(PAGE),
    };
    let mut page = broker.list_dispatches(state, after, limit + 1).await?;
    let more = page.len() > limit;
    page.truncate(limit);
    let last = page.last().filter(|_| more).map(|last| last.sequence.to_string());
    Ok(pb::ListDispatchesResponse {
        dispatches: page.iter().map(info).collect(),
        next_page_token: last.unwrap_or_default(),
    })
}

pub(super) async fn retry(
    broker: &Broker,
    request: pb::RetryDispatchRequest,
) -> Result<pb::RetryDispatchResponse, BrokerError> {
    use pb::retry_dispatch_request::Target;
    let chosen = match request.target {
        Some(Target::DispatchId(id)) => one(&id)?,
        Some(Target::AllDead(all)) => all_dead(all)?,
        None => return Err(NO_TARGET),
    };
    let dispatches = convert::count(broker.retry_dispatches(chosen).await?);
    Ok(pb::RetryDispatchResponse { dispatches })
}

pub(super) async fn drop_them(
    broker: &Broker,
    request: pb::DropDispatchRequest,
) -> Result<pb::DropDispatchResponse, BrokerError> {
    use pb::drop_dispatch_request::Target;
    let chosen = match request.target {
        Some(Target::DispatchId(id)) => one(&id)?,
        Some(Target::AllDead(all)) => all_dead(all)?,
        None => return Err(NO_TARGET),
    };
    let dispatches = convert::count(broker.drop_dispatches(chosen).await?);
    Ok(pb::DropDispatchResponse { dispatches })
}

pub(super) async fn backlog(broker: &Broker) -> pb::DispatchBacklog {
    let backlog = broker.backlog().await;
    pb::DispatchBacklog {
        pending: backlog.pending,
        dead: backlog.dead,
        oldest_pending: backlog.oldest_pending.and_then(convert::duration),
        full: backlog.full,
    }
}

/// What callbacks are still to be told, as metrics.
pub(super) async fn write_metrics(broker: &Broker, page: &mut Exposition) {
    let backlog = broker.backlog().await;
    let name = "ravi_broker_dispatches";
    page.family(name, Kind::Gauge, "Messages that callbacks are to be told of, and those given up.");
    page.sample(name, &[("state", "pending")], backlog.pending);
    page.sample(name, &[("state", "dead")], backlog.dead);
    let waited = backlog.oldest_pending.unwrap_or_default().as_secs();
    let help = "For how long the oldest pending one has waited.";
    page.single("ravi_broker_dispatch_oldest_seconds", Kind::Gauge, help, waited);
}

const NO_TARGET: BrokerError =
    BrokerError::Argument { field: "target", problem: "name a delivery, or all that are dead" };

fn one(id: &str) -> Result<Chosen, BrokerError> {
    convert::name("dispatch_id", id).map(Chosen::One)
}

fn all_dead(all: bool) -> Result<Chosen, BrokerError> {
    if all { Ok(Chosen::AllDead) } else { Err(NO_TARGET) }
}

fn info(delivery: &Delivery) -> pb::DispatchInfo {
    let Delivery { new, state, attempts, queued_at, next_at, fault, .. } = delivery;
    let time = |at: i64| jiff::Timestamp::from_millisecond(at).ok().and_then(convert::timestamp);
    let state = match state {
        State::Pending => pb::DispatchState::Pending,
        State::Delivered => pb::DispatchState::Delivered,
        State::Dropped => pb::DispatchState::Dropped,
        State::Dead => pb::DispatchState::Dead,
    };
    pb::DispatchInfo {
        dispatch_id: new.id.to_string(),
        rule: new.rule.clone(),
        target: new.target.clone(),
        identity_uuid: new.identity.to_string(),
        message: new.message.to_string(),
        state: state.into(),
        attempts: *attempts,
        queued_at: time(*queued_at),
        next_at: time(*next_at),
        fault: fault.clone(),
    }
}
