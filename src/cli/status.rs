//! `status`: the daemon, how far its protections reach, and who is using it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::output::{Document, count, moment, seconds, span};
use super::page::{Cell, Page, Tone};
use crate::client::{DispatchBacklog, LeaseInfo, SessionInfo, Status};

pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let client = context.admin().await?;
    let status = client.status().await?;
    let sessions = client.sessions().await?;
    let leases = client.leases(None).await?;
    context.show(&StatusView::of(&status, &sessions, &leases))
}

/// The daemon, as JSON has it.
#[derive(Serialize)]
struct StatusView<'a> {
    version: &'a str,
    pid: u32,
    started_at: String,
    locked: bool,
    upstream_url: &'a str,
    management_key_held: bool,
    identity_keys_held: u32,
    connections: u32,
    requests_served: u64,
    requests_denied: u64,
    upstream_calls: u64,
    audit: AuditView<'a>,
    config_path: &'a str,
    roles: &'a [String],
    protections: Vec<ProtectionView<'a>>,
    dispatches: BacklogView,
    /// Requests that wait for the operator.
    approvals: u32,
    sessions: Vec<SessionView<'a>>,
}

/// The newest audit record.
#[derive(Serialize)]
struct AuditView<'a> {
    sequence: u64,
    hash: &'a str,
    /// False after a failed write: nothing is released.
    healthy: bool,
}

/// What callbacks are still to be told.
#[derive(Serialize)]
struct BacklogView {
    pending: u32,
    dead: u32,
    /// Seconds that the oldest pending one has waited.
    oldest_pending: Option<u64>,
    /// New messages are held back: there is no room for them.
    full: bool,
}

#[derive(Serialize)]
struct ProtectionView<'a> {
    name: &'a str,
    tier: &'a str,
    full: bool,
}

#[derive(Serialize)]
struct SessionView<'a> {
    session_id: String,
    role: &'a str,
    identity: &'a str,
    uid: u32,
    pid: i32,
    executable: &'a str,
    reason: &'a str,
    #[serde(serialize_with = "seconds")]
    age: Duration,
    #[serde(serialize_with = "seconds")]
    expires_in: Duration,
    parent_session_id: Option<String>,
    /// In words.
    binding: &'a str,
    leases: Vec<LeaseView<'a>>,
}

/// The sessions by their parent; those that have none, or one that has just ended, by `None`. Oldest first.
type Children<'v, 'a> = HashMap<Option<&'v str>, Vec<&'v SessionView<'a>>>;

#[derive(Serialize)]
struct LeaseView<'a> {
    lease_id: String,
    resource: &'a str,
    #[serde(serialize_with = "seconds")]
    expires_in: Duration,
    revocable: bool,
    uses: u64,
}

impl<'a> StatusView<'a> {
    fn of(status: &'a Status, sessions: &'a [SessionInfo], leases: &'a [LeaseInfo]) -> Self {
        let head = &status.audit_head;
        let protections = status.protections.iter();
        Self {
            version: &status.version,
            pid: status.pid,
            started_at: moment(status.started_at),
            locked: status.locked,
            upstream_url: &status.upstream_url,
            management_key_held: status.management_key_held,
            identity_keys_held: status.identity_keys_held,
            connections: status.connections,
            requests_served: status.requests_served,
            requests_denied: status.requests_denied,
            upstream_calls: status.upstream_calls,
            audit: AuditView { sequence: head.sequence, hash: &head.hash, healthy: head.healthy },
            config_path: &status.config_path,
            roles: &status.roles,
            dispatches: BacklogView::of(&status.dispatches),
            approvals: status.approvals,
            protections: protections
                .map(|p| ProtectionView { name: &p.name, tier: &p.tier, full: p.full })
                .collect(),
            sessions: sessions.iter().map(|session| SessionView::of(session, leases)).collect(),
        }
    }
}

impl<'a> SessionView<'a> {
    fn of(session: &'a SessionInfo, leases: &'a [LeaseInfo]) -> Self {
        let own = leases.iter().filter(|lease| lease.session_id == session.session_id);
        Self {
            session_id: session.session_id.to_string(),
            role: &session.role,
            identity: &session.identity,
            uid: session.uid,
            pid: session.pid,
            executable: &session.executable,
            reason: &session.reason,
            age: session.age,
            expires_in: session.expires_in,
            parent_session_id: session.parent_session_id.map(|id| id.to_string()),
            binding: &session.binding,
            leases: own.map(LeaseView::of).collect(),
        }
    }
}

impl SessionView<'_> {
    /// Whom it works for, the program that opened it, and what it said it was for.
    fn owner(&self) -> String {
        let Self { binding, uid, executable, reason, .. } = self;
        let said = if reason.is_empty() { String::new() } else { format!(": \"{reason}\"") };
        format!("{binding}, uid {uid}, opened by {executable}{said}")
    }

    /// The session, its leases, and the sessions below it. `head` stands before its first line, `indent`
    /// before the others.
    fn draw(&self, page: &mut Page, children: &Children<'_, '_>, head: &str, indent: &str) {
        let ends = span(self.expires_in);
        page.pieces([
            Cell::from(head),
            Cell::new(self.role, Tone::Strong),
            Cell::from(format!("  {}  as {}  ends in {ends}", self.session_id, self.identity)),
        ]);
        page.line(Cell::new(format!("{indent}   {}", self.owner()), Tone::Dim));
        let below = children.get(&Some(self.session_id.as_str())).map_or(&[][..], Vec::as_slice);
        let mut left = self.leases.len() + below.len();
        let mut branch = || {
            left -= 1;
            if left == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") }
        };
        for lease in &self.leases {
            let (ends, uses) = (span(lease.expires_in), count(lease.uses, "use"));
            let (head, _) = branch();
            page.line(format!(
                "{indent}{head}{}  {}  ends in {ends}, {uses}",
                lease.lease_id, lease.resource
            ));
        }
        for session in below {
            let (head, rest) = branch();
            session.draw(page, children, &format!("{indent}{head}"), &format!("{indent}{rest}"));
        }
    }
}

impl BacklogView {
    fn of(backlog: &DispatchBacklog) -> Self {
        let DispatchBacklog { pending, dead, oldest_pending, full } = *backlog;
        Self { pending, dead, oldest_pending: oldest_pending.map(|waited| waited.as_secs()), full }
    }

    fn cell(&self) -> Cell {
        let waits = self
            .oldest_pending
            .map(|waited| format!(", the oldest for {}", span(Duration::from_secs(waited))));
        let text = format!("{} pending{}, {} dead", self.pending, waits.unwrap_or_default(), self.dead);
        match (self.full, self.dead) {
            (true, _) => {
                Cell::new(format!("{text}; the queue is full, new messages are held back"), Tone::Bad)
            }
            (false, 0) => Cell::from(text),
            (false, _) => Cell::new(format!("{text}: see `ravi-broker dispatch list`"), Tone::Warn),
        }
    }
}

impl<'a> LeaseView<'a> {
    fn of(lease: &'a LeaseInfo) -> Self {
        Self {
            lease_id: lease.lease_id.to_string(),
            resource: &lease.resource,
            expires_in: lease.expires_in,
            revocable: lease.revocable,
            uses: lease.uses,
        }
    }
}

impl Document for StatusView<'_> {
    fn human(&self, page: &mut Page) {
        page.pairs([
            ("Broker", self.state()),
            ("Version", Cell::from(format!("{}, pid {}, since {}", self.version, self.pid, self.started_at))),
            ("Ravi", self.upstream_url.into()),
            ("Keys", self.keys()),
            (
                "Requests",
                Cell::from(format!("{} served, {} denied", self.requests_served, self.requests_denied)),
            ),
            ("Calls to Ravi", Cell::from(self.upstream_calls.to_string())),
            ("Connections", Cell::from(self.connections.to_string())),
            ("Audit", self.audit_state()),
            ("Dispatches", self.dispatches.cell()),
            ("Approvals", approvals(self.approvals)),
            ("Configuration", self.config_path.into()),
            ("Roles", Cell::from(self.roles.join(", "))),
        ]);
        page.line("");
        let row = |p: &ProtectionView| -> [Cell; 2] {
            [p.name.into(), Cell::new(p.tier, if p.full { Tone::Good } else { Tone::Warn })]
        };
        let rows: Vec<_> = self.protections.iter().map(row).collect();
        page.table(["PROTECTION", "REACHED"], &rows, "No protections are reported.");
        page.line("");
        self.tree(page);
    }
}

impl StatusView<'_> {
    fn state(&self) -> Cell {
        match (self.locked, self.audit.healthy) {
            (true, _) => Cell::new("locked", Tone::Bad),
            (false, false) => Cell::new("serves nothing: the audit trail cannot be written", Tone::Bad),
            (false, true) => Cell::new("serving", Tone::Good),
        }
    }

    fn keys(&self) -> Cell {
        let of_identities = count(self.identity_keys_held.into(), "identity key");
        match (self.management_key_held, self.identity_keys_held) {
            (true, 0) => Cell::from("management key"),
            (true, _) => Cell::from(format!("management key, {of_identities}")),
            (false, 0) if self.locked => Cell::new("none: forgotten when it was locked", Tone::Warn),
            (false, 0) => Cell::new("none: run `ravi-broker login`", Tone::Warn),
            (false, _) => Cell::from(of_identities),
        }
    }

    fn audit_state(&self) -> Cell {
        let tone = if self.audit.healthy { Tone::Plain } else { Tone::Bad };
        let hash = self.audit.hash.get(..16).unwrap_or(self.audit.hash);
        Cell::new(format!("{}, head {hash}", count(self.audit.sequence, "record")), tone)
    }

    /// Sessions, and below each its leases and the sessions that were delegated from it.
    fn tree(&self, page: &mut Page) {
        if self.sessions.is_empty() {
            return page.line("No sessions.");
        }
        let children = self.children();
        for session in children.get(&None).map_or(&[][..], Vec::as_slice) {
            session.draw(page, &children, "", "");
        }
    }

    fn children(&self) -> Children<'_, '_> {
        let known: HashSet<&str> = self.sessions.iter().map(|session| session.session_id.as_str()).collect();
        let mut children = Children::new();
        for session in &self.sessions {
            let parent = session.parent_session_id.as_deref().filter(|parent| known.contains(parent));
            children.entry(parent).or_default().push(session);
        }
        children
    }
}

fn approvals(waiting: u32) -> Cell {
    match waiting {
        0 => "none waits".into(),
        waiting => Cell::new(format!("waiting {waiting}: see `ravi-broker approvals`"), Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::client::{AuditHead, Protection};
    use crate::types::{LeaseId, SessionId};

    fn status(locked: bool) -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 42,
            started_at: Timestamp::UNIX_EPOCH,
            locked,
            upstream_url: "https://api.ravi.id".into(),
            management_key_held: true,
            identity_keys_held: 0,
            sessions: 1,
            leases: 1,
            connections: 2,
            requests_served: 10,
            requests_denied: 1,
            upstream_calls: 3,
            audit_head: AuditHead { sequence: 9, hash: "0123456789abcdef0123".into(), healthy: true },
            config_path: "/etc/ravi-broker/config.toml".into(),
            roles: vec!["notes-agent".into()],
            dispatches: DispatchBacklog::default(),
            approvals: 0,
            upstream_budget: crate::client::UpstreamBudget::default(),
            protections: vec![Protection { name: "memory lock".into(), tier: "locked".into(), full: true }],
        }
    }

    fn session(number: u8) -> SessionInfo {
        SessionInfo {
            session_id: SessionId([number; 16]),
            role: "notes-agent".into(),
            identity: "assistant-notes-agent".into(),
            uid: 1000,
            pid: 7,
            executable: "/usr/bin/claude".into(),
            leases: 1,
            age: Duration::from_secs(60),
            expires_in: Duration::from_secs(3600),
            reason: String::new(),
            parent_session_id: None,
            binding: "subtree of 7".into(),
        }
    }

    fn lease(session: u8) -> LeaseInfo {
        LeaseInfo {
            lease_id: LeaseId([9; 16]),
            session_id: SessionId([session; 16]),
            role: "notes-agent".into(),
            resource: "secret/OPENAI_API_KEY".into(),
            expires_in: Duration::from_secs(290),
            revocable: false,
            uses: 2,
        }
    }

    #[test]
    fn every_lease_hangs_below_its_own_session() {
        let (status, sessions, leases) = (status(false), [session(1), session(2)], [lease(2)]);
        let view = serde_json::to_value(StatusView::of(&status, &sessions, &leases)).unwrap();
        assert_eq!(view["sessions"][0]["leases"], serde_json::json!([]));
        assert_eq!(view["sessions"][1]["leases"][0]["resource"], "secret/OPENAI_API_KEY");
        assert_eq!(view["sessions"][1]["leases"][0]["expires_in"], 290);
        assert_eq!(view["audit"]["sequence"], 9);
    }

    #[test]
    fn a_session_hangs_below_the_one_that_delegated_it() {
        let below = |number, parent| SessionInfo {
            parent_session_id: Some(SessionId([parent; 16])),
            ..session(number)
        };
        let (status, leases) = (status(false), [lease(1), lease(3)]);
        let sessions = [session(1), session(2), below(3, 1), below(4, 1), below(5, 9)];
        let mut page = Page::new(false);
        let view = StatusView::of(&status, &sessions, &leases);
        view.tree(&mut page);
        let id = |number| SessionId([number; 16]);
        let owner = "subtree of 7, uid 1000, opened by /usr/bin/claude";
        let named = |number| format!("notes-agent  {}  as assistant-notes-agent  ends in 1h", id(number));
        let leased = format!("{}  secret/OPENAI_API_KEY  ends in 4m 50s, 2 uses", LeaseId([9; 16]));
        let expected = [
            named(1),
            format!("   {owner}"),
            format!("├─ {leased}"),
            format!("├─ {}", named(3)),
            format!("│     {owner}"),
            format!("│  └─ {leased}"),
            format!("└─ {}", named(4)),
            format!("      {owner}"),
            named(2),
            format!("   {owner}"),
            named(5),
            format!("   {owner}"),
        ];
        assert_eq!(page.as_str().lines().collect::<Vec<_>>(), expected);
        let json = serde_json::to_value(view).unwrap();
        assert_eq!(json["sessions"][2]["parent_session_id"], id(1).to_string());
        assert_eq!(json["sessions"][0]["parent_session_id"], serde_json::Value::Null);
        assert_eq!(json["sessions"][0]["binding"], "subtree of 7");
    }

    #[test]
    fn a_locked_broker_says_so_first() {
        let status = status(true);
        let mut page = Page::new(false);
        StatusView::of(&status, &[session(1)], &[lease(1)]).human(&mut page);
        assert!(page.as_str().starts_with("Broker         locked\n"), "{}", page.as_str());
        assert!(page.as_str().contains("└─ lea_"), "{}", page.as_str());
    }
}
