//! The rows of the panels, as cells whose text is harmless: agents choose reasons and the names of their programs.
//! Pure. Imports `client`'s types and its neighbours.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::state::Picture;
use crate::cli::audit::Record;
use crate::cli::output::{count, span};
use crate::cli::page::{Cell, Tone, harmless};
use crate::client::{LeaseInfo, PendingApproval, SessionInfo};
use crate::types::{ApprovalId, LeaseId, SessionId};

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowId {
    Session(SessionId),
    Lease(LeaseId),
    Approval(ApprovalId),
    /// Number of an audit record.
    Record(u64),
}

/// A line that can be selected.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) cells: Vec<Cell>,
    /// For questions about it.
    pub(crate) name: String,
}

/// The sessions as a tree, with their leases.
pub(crate) fn of_sessions(picture: &Picture) -> Vec<Row> {
    let known: HashSet<SessionId> = picture.sessions.iter().map(|session| session.session_id).collect();
    let mut tree = Tree { rows: Vec::new(), below: HashMap::new(), leases: HashMap::new() };
    for session in &picture.sessions {
        let parent = session.parent_session_id.filter(|parent| known.contains(parent));
        tree.below.entry(parent).or_default().push(session);
    }
    for lease in &picture.leases {
        tree.leases.entry(lease.session_id).or_default().push(lease);
    }
    for session in tree.below.remove(&None).unwrap_or_default() {
        tree.add(session, "", "");
    }
    tree.rows
}

struct Tree<'a> {
    rows: Vec<Row>,
    below: HashMap<Option<SessionId>, Vec<&'a SessionInfo>>,
    leases: HashMap<SessionId, Vec<&'a LeaseInfo>>,
}

impl Tree<'_> {
    /// The session, its leases, and the sessions below it. As deep as the daemon lets a tree grow: eight.
    fn add(&mut self, session: &SessionInfo, head: &str, indent: &str) {
        self.rows.push(session_row(session, head));
        let leases = self.leases.remove(&session.session_id).unwrap_or_default();
        let below = self.below.remove(&Some(session.session_id)).unwrap_or_default();
        let mut left = leases.len() + below.len();
        let mut branch = || {
            left -= 1;
            if left == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") }
        };
        for lease in leases {
            let (head, _) = branch();
            self.rows.push(lease_row(lease, &format!("{indent}{head}")));
        }
        for session in below {
            let (head, rest) = branch();
            self.add(session, &format!("{indent}{head}"), &format!("{indent}{rest}"));
        }
    }
}

fn session_row(session: &SessionInfo, head: &str) -> Row {
    let SessionInfo { role, pid, age, expires_in, reason, .. } = session;
    let mut cells = vec![
        Cell::from(head),
        Cell::new(role, Tone::Strong),
        Cell::from(format!("  pid {pid} {}", program(&session.executable))),
        Cell::new(format!("  age {}, {} left", span(*age), span(*expires_in)), Tone::Dim),
    ];
    if !reason.is_empty() {
        cells.push(Cell::from(format!("  \"{reason}\"")));
    }
    let leases = count(session.leases.into(), "lease");
    let name = harmless(&format!("the session of {role}, pid {pid}, and its {leases}"));
    Row { id: RowId::Session(session.session_id), cells, name }
}

fn lease_row(lease: &LeaseInfo, head: &str) -> Row {
    let LeaseInfo { resource, expires_in, uses, .. } = lease;
    let cells = vec![
        Cell::from(head),
        Cell::from(resource),
        Cell::new(format!("  {} left, {}", span(*expires_in), count(*uses, "use")), Tone::Dim),
    ];
    let name = harmless(&format!("the lease of {} on {resource}", lease.role));
    Row { id: RowId::Lease(lease.lease_id), cells, name }
}

/// What waits for the operator, oldest first.
pub(crate) fn of_waiting(picture: &Picture) -> Vec<Row> {
    picture.attention.approvals.iter().map(approval_row).collect()
}

fn approval_row(pending: &PendingApproval) -> Row {
    let PendingApproval { role, action, about, pid, executable, claimed_reason, .. } = pending;
    let asks = format!("{action} {about}");
    let mut cells = vec![
        Cell::new(role, Tone::Strong),
        Cell::new(format!("  {asks}"), Tone::Warn),
        Cell::from(format!("  pid {pid} {}", program(executable))),
        Cell::new(format!("  {} left", span(pending.expires_in)), Tone::Dim),
    ];
    if !claimed_reason.is_empty() {
        cells.push(Cell::from(format!("  says \"{claimed_reason}\"")));
    }
    let name = harmless(&format!("{asks} for {role}, pid {pid}"));
    Row { id: RowId::Approval(pending.approval_id), cells, name }
}

/// The last records of the trail, newest first.
pub(crate) fn of_audit(picture: &Picture) -> Vec<Row> {
    let records = picture.audit.iter().rev().filter_map(|line| Record::read(line));
    let row = |record: Record| {
        let head = Cell::new(format!("{}  ", record.clock()), Tone::Dim);
        let (id, name) = (RowId::Record(record.seq), String::new());
        Row { id, cells: [vec![head], record.told()].concat(), name }
    };
    records.map(row).collect()
}

/// The last part of a path says most.
fn program(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or("?")
}
