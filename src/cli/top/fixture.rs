//! A picture of a daemon at work, for the tests of this folder.

use std::time::Duration;

use super::state::Picture;
use crate::client::{
    Alarm, Attention, AuditHead, DispatchBacklog, LeaseInfo, PendingApproval, SessionInfo, Status,
    UpstreamBudget,
};
use crate::clock::BootInstant;
use crate::types::{ApprovalId, LeaseId, SessionId};

/// So many seconds after the boot.
pub(crate) fn at(seconds: u64) -> BootInstant {
    BootInstant::from_nanos(seconds * 1_000_000_000)
}

/// A session with a lease, one below it with another, a request that waits, an alarm and two records.
pub(crate) fn picture() -> Picture {
    let parent = SessionId([1; 16]);
    let session = |session_id, pid, executable: &str, parent_session_id| SessionInfo {
        session_id,
        role: "notes".into(),
        identity: "assistant-notes-agent".into(),
        uid: 1000,
        pid,
        executable: executable.into(),
        leases: 1,
        age: Duration::from_secs(300),
        expires_in: Duration::from_secs(42_900),
        reason: "to take notes".into(),
        parent_session_id,
        binding: "subtree of 4242".into(),
    };
    let lease = |number, session_id, resource: &str| LeaseInfo {
        lease_id: LeaseId([number; 16]),
        session_id,
        role: "notes".into(),
        resource: resource.into(),
        expires_in: Duration::from_secs(299),
        revocable: false,
        uses: 3,
    };
    let child = SessionId([2; 16]);
    let record = |seq, event: &str, outcome: &str| {
        format!(
            r#"{{"seq":{seq},"time":"2026-11-23T06:00:00.1Z","event":"{event}","outcome":"{outcome}","role":"notes"}}"#
        )
    };
    Picture {
        status: status(),
        sessions: vec![
            session(parent, 4242, "/usr/bin/claude", None),
            session(child, 4300, "/usr/bin/child", Some(parent)),
        ],
        leases: vec![lease(3, parent, "secret/OPENAI_API_KEY"), lease(4, child, "password/github.com")],
        attention: Attention { approvals: vec![waiting()], alarms: vec![alarm()] },
        audit: vec![record(1, "session.opened", "allowed"), record(2, "lease.denied", "denied")],
        at: at(1),
    }
}

fn status() -> Status {
    Status {
        version: "1.2.3".into(),
        pid: 7,
        started_at: jiff::Timestamp::UNIX_EPOCH,
        locked: false,
        upstream_url: "https://api.ravi.id".into(),
        management_key_held: true,
        identity_keys_held: 0,
        sessions: 2,
        leases: 2,
        connections: 1,
        requests_served: 100,
        requests_denied: 5,
        upstream_calls: 7,
        audit_head: AuditHead { sequence: 2, hash: "00".into(), healthy: true },
        config_path: "/etc/ravi-broker/config.toml".into(),
        roles: vec!["notes".into()],
        protections: Vec::new(),
        dispatches: DispatchBacklog::default(),
        approvals: 1,
        upstream_budget: UpstreamBudget { calls: 60, per: Duration::from_secs(60), left: 60 },
    }
}

fn waiting() -> PendingApproval {
    PendingApproval {
        approval_id: ApprovalId([7; 16]),
        session_id: SessionId([8; 16]),
        role: "deploy".into(),
        uid: 1000,
        pid: 77,
        executable: "/usr/bin/deploy".into(),
        action: "secret:use".into(),
        about: "secret/STRIPE".into(),
        delivery: None,
        claimed_reason: "to pay".into(),
        waited: Duration::from_secs(3),
        expires_in: Duration::from_secs(117),
        calls: 1,
    }
}

fn alarm() -> Alarm {
    Alarm {
        number: 1,
        raised_at: jiff::Timestamp::UNIX_EPOCH,
        session_id: SessionId([9; 16]),
        role: "notes".into(),
        uid: 1000,
        pid: 78,
        executable: String::new(),
        resource: "secret/TRAP".into(),
    }
}
