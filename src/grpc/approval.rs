//! The calls of `AdminService` about what waits for the operator, and about alarms.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Answer, convert, peer};
use crate::approval::{Decision, LONGEST_ALLOWANCE, Pending};
use crate::broker::{Alarm, Broker, BrokerError};
use crate::clock::{BootInstant, Clock};
use crate::pb;
use crate::pb::decide_approval_request::Decision as Wire;
use crate::types::ApprovalId;

pub(super) type Changes =
    Pin<Box<dyn Stream<Item = Result<pb::WatchApprovalsResponse, Status>> + Send + 'static>>;

/// All that waits now.
pub(super) fn list(broker: &Broker, clock: &dyn Clock) -> pb::ListApprovalsResponse {
    let now = clock.now();
    pb::ListApprovalsResponse {
        approvals: broker.list_approvals().iter().map(|pending| question(pending, now)).collect(),
        alarms: broker.list_alarms().iter().map(wire_alarm).collect(),
    }
}

struct Watching {
    broker: Arc<Broker>,
    clock: Arc<dyn Clock>,
    changes: watch::Receiver<u64>,
    stopping: CancellationToken,
    begun: bool,
}

pub(super) fn watch(broker: &Arc<Broker>, clock: &Arc<dyn Clock>) -> Changes {
    let (changes, stopping) = (broker.approval_changes(), broker.stopping());
    let watching = Watching { broker: broker.clone(), clock: clock.clone(), changes, stopping, begun: false };
    Box::pin(stream::unfold(Some(watching), next))
}

/// Changes that come while the reader is slow are one.
async fn next(
    watching: Option<Watching>,
) -> Option<(Result<pb::WatchApprovalsResponse, Status>, Option<Watching>)> {
    let mut watching = watching?;
    if watching.begun {
        let changed = tokio::select! {
            biased;
            () = watching.stopping.cancelled() => return Some((Err(BrokerError::Draining.into()), None)),
            changed = watching.changes.changed() => changed,
        };
        changed.ok()?;
    }
    watching.begun = true;
    watching.changes.mark_unchanged();
    let pb::ListApprovalsResponse { approvals, alarms } = list(&watching.broker, &*watching.clock);
    Some((Ok(pb::WatchApprovalsResponse { approvals, alarms }), Some(watching)))
}

pub(super) fn decide(
    broker: &Broker,
    request: Request<pb::DecideApprovalRequest>,
) -> Answer<pb::DecideApprovalResponse> {
    let (_, extensions, message) = request.into_parts();
    let id: ApprovalId = convert::name("approval_id", &message.approval_id)?;
    let wrong = |problem| BrokerError::Argument { field: "decision", problem };
    let decision = match message.decision {
        Some(Wire::AllowOnce(true)) => Decision::Once,
        Some(Wire::Deny(true)) => Decision::Deny,
        Some(Wire::AllowFor(time)) => {
            let time = Duration::try_from(time).ok();
            let time = time.filter(|time| (Duration::from_secs(1)..=LONGEST_ALLOWANCE).contains(time));
            Decision::For(time.ok_or(wrong("expected one second to a day"))?)
        }
        _ => return Err(wrong("allow it once, allow it for a while, or deny it").into()),
    };
    broker.decide_approval(peer(&extensions)?, id, decision)?;
    Ok(Response::new(pb::DecideApprovalResponse {}))
}

fn question(pending: &Pending, now: BootInstant) -> pb::PendingApproval {
    let request = &pending.request;
    let executable = request.executable.as_ref().map(|file| file.path.display().to_string());
    let delivery = request.wish.delivery.map(convert::wire_delivery);
    pb::PendingApproval {
        approval_id: pending.id.to_string(),
        session_id: request.session.to_string(),
        role: request.role.to_string(),
        uid: request.uid,
        pid: request.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default(),
        executable: executable.unwrap_or_default(),
        action: request.wish.verb.to_owned(),
        about: request.wish.about.clone(),
        claimed_reason: request.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        waited: convert::duration(now.since(pending.asked_at)),
        expires_in: convert::duration(pending.ends_at.since(now)),
        calls: convert::count(pending.waiting),
        delivery: delivery.unwrap_or(pb::Delivery::Unspecified).into(),
    }
}

fn wire_alarm(alarm: &Alarm) -> pb::Alarm {
    let Alarm { number, at, actor, resource } = alarm;
    pb::Alarm {
        number: *number,
        kind: pb::AlarmKind::Honeytoken.into(),
        raised_at: convert::timestamp(*at),
        session_id: actor.session.map(|session| session.to_string()).unwrap_or_default(),
        role: actor.role.as_ref().map(ToString::to_string).unwrap_or_default(),
        uid: actor.uid.unwrap_or_default(),
        pid: actor.pid.unwrap_or_default(),
        executable: actor.exe.as_deref().map(|exe| exe.display().to_string()).unwrap_or_default(),
        resource: resource.to_string(),
    }
}
