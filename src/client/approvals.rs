//! What waits for the operator, and alarms: plain types and the calls of the admin socket about it.

use std::time::Duration;

use jiff::Timestamp;
use tonic::Request;

use super::admin::AdminClient;
use super::channel::{Events, answer, events};
use super::convert;
use super::error::ClientError;
use super::model::Delivery;
use crate::pb;
use crate::types::{ApprovalId, SessionId};

/// A request that waits for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingApproval {
    /// To decide it by.
    pub approval_id: ApprovalId,
    /// Whose.
    pub session_id: SessionId,
    /// The session's role.
    pub role: String,
    /// User of the process that asks.
    pub uid: u32,
    /// That process.
    pub pid: i32,
    /// What it runs; empty if that is not known.
    pub executable: String,
    /// Kind and verb.
    pub action: String,
    /// The resource or the recipients.
    pub about: String,
    /// Where a value would go.
    pub delivery: Option<Delivery>,
    /// What the agent says. Nobody has checked it.
    pub claimed_reason: String,
    /// For how long already.
    pub waited: Duration,
    /// Until it ends.
    pub expires_in: Duration,
    /// Calls that wait for it now.
    pub calls: u32,
}

/// A session asked for a honeytoken and was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Counts from 1 at the daemon's start.
    pub number: u64,
    /// When.
    pub raised_at: Timestamp,
    /// Which session.
    pub session_id: SessionId,
    /// Its role.
    pub role: String,
    /// User of the process that asked.
    pub uid: u32,
    /// That process.
    pub pid: i32,
    /// What it ran; empty if that is not known.
    pub executable: String,
    /// For what.
    pub resource: String,
}

/// All that the operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    /// Oldest first.
    pub approvals: Vec<PendingApproval>,
    /// Oldest first.
    pub alarms: Vec<Alarm>,
}

/// What the operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalDecision {
    /// One use.
    Once,
    /// Every equal request of the session, for so long.
    For(Duration),
    /// No.
    Deny,
}

impl AdminClient {
    /// What waits now, and the last alarms.
    pub async fn approvals(&self) -> Result<Attention, ClientError> {
        let request = Request::new(pb::ListApprovalsRequest {});
        let pb::ListApprovalsResponse { approvals, alarms } =
            answer(self.admin().list_approvals(request)).await?;
        attention(approvals, alarms)
    }

    /// The same at once and whenever it has changed.
    pub async fn watch_approvals(&self) -> Result<Events<Attention>, ClientError> {
        let mut client = self.admin();
        let call = client.watch_approvals(Request::new(pb::WatchApprovalsRequest {}));
        events(call, |told: pb::WatchApprovalsResponse| attention(told.approvals, told.alarms)).await
    }

    /// Decides a request that waits.
    pub async fn decide_approval(&self, id: ApprovalId, said: ApprovalDecision) -> Result<(), ClientError> {
        use pb::decide_approval_request::Decision;
        let decision = match said {
            ApprovalDecision::Once => Decision::AllowOnce(true),
            ApprovalDecision::For(time) => Decision::AllowFor(convert::wire_duration(time)),
            ApprovalDecision::Deny => Decision::Deny(true),
        };
        let request = pb::DecideApprovalRequest { approval_id: id.to_string(), decision: Some(decision) };
        answer(self.admin().decide_approval(Request::new(request))).await.map(drop)
    }
}

fn attention(approvals: Vec<pb::PendingApproval>, alarms: Vec<pb::Alarm>) -> Result<Attention, ClientError> {
    let approvals = approvals.into_iter().map(pending).collect::<Result<_, _>>()?;
    let alarms = alarms.into_iter().map(alarm).collect::<Result<_, _>>()?;
    Ok(Attention { approvals, alarms })
}

fn pending(wire: pb::PendingApproval) -> Result<PendingApproval, ClientError> {
    let delivery = match wire.delivery() {
        pb::Delivery::Unspecified => None,
        delivery => Some(convert::delivery(delivery)),
    };
    Ok(PendingApproval {
        approval_id: wire.approval_id.parse().map_err(|_| ClientError::Protocol)?,
        session_id: convert::handle(&wire.session_id)?,
        role: wire.role,
        uid: wire.uid,
        pid: wire.pid,
        executable: wire.executable,
        action: wire.action,
        about: wire.about,
        delivery,
        claimed_reason: wire.claimed_reason,
        waited: convert::duration(wire.waited)?,
        expires_in: convert::duration(wire.expires_in)?,
        calls: wire.calls,
    })
}

fn alarm(wire: pb::Alarm) -> Result<Alarm, ClientError> {
    Ok(Alarm {
        number: wire.number,
        raised_at: convert::timestamp(wire.raised_at)?,
        session_id: convert::handle(&wire.session_id)?,
        role: wire.role,
        uid: wire.uid,
        pid: wire.pid,
        executable: wire.executable,
        resource: wire.resource,
    })
}
