//! `approvals`: what waits for the operator, and what the operator says to it.
//!
//! What an agent says about its reason is shown as its claim, with control characters as escapes. A program that is
//! to tell the operator is started here and not by the daemon, which can start none; it gets names alone.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::task::JoinHandle;

use super::args::{AllowApproval, Approvals, ApprovalsCommand, WatchApprovals};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Document, moment};
use super::page::{Cell, Page, Tone};
use crate::client::{
    Alarm, ApprovalDecision, Attention, ClientError, Delivery, ErrorReason, PendingApproval,
};
use crate::clock::{BootInstant, Clock};
use crate::config::duration_text;
use crate::types::ApprovalId;

/// Notifications within [`MINUTE`].
const PER_MINUTE: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);
/// Characters of a notification.
const LONGEST_TEXT: usize = 240;

pub(super) async fn run(context: &mut Context, args: &Approvals) -> Result<(), CliError> {
    match &args.command {
        None | Some(ApprovalsCommand::List) => {
            let attention = context.admin().await?.approvals().await?;
            context.show(&ListView::of(&attention))
        }
        Some(ApprovalsCommand::Watch(args)) => watch(context, args).await,
        Some(ApprovalsCommand::Allow(AllowApproval { approval, time })) => {
            let said = time.map_or(ApprovalDecision::Once, ApprovalDecision::For);
            decide(context, *approval, said).await
        }
        Some(ApprovalsCommand::Deny(args)) => decide(context, args.approval, ApprovalDecision::Deny).await,
    }
}

async fn decide(context: &mut Context, id: ApprovalId, said: ApprovalDecision) -> Result<(), CliError> {
    context.admin().await?.decide_approval(id, said).await.map_err(gone)?;
    context.show(&DecidedView::of(id, said))
}

/// The id was read here already, and so was the time.
fn gone(error: ClientError) -> CliError {
    match error.reason() {
        Some(reason @ ErrorReason::ArgumentInvalid) => CliError::Operator {
            reason,
            exit: Exit::Other,
            message: "no such request waits, or the time is not from one second to a day".into(),
            hint: "it was decided, its time was up, or its session ended; `ravi-broker approvals` shows what waits",
        },
        _ => error.into(),
    }
}

async fn watch(context: &mut Context, args: &WatchApprovals) -> Result<(), CliError> {
    let mut told = context.admin().await?.watch_approvals().await?;
    let (mut known, mut notifier) = (Attention::default(), Notifier::new(&args.notify));
    let mut begun = false;
    while let Some(now) = told.next().await {
        let now = now?;
        for pending in &now.approvals {
            if !known.approvals.iter().any(|old| old.approval_id == pending.approval_id) {
                show(context, &EventView::asked(pending))?;
                notifier.tell(context, "ravi-broker: approval needed", &question_text(pending));
            }
        }
        for old in &known.approvals {
            if !now.approvals.iter().any(|pending| pending.approval_id == old.approval_id) {
                show(context, &EventView::over(old.approval_id))?;
            }
        }
        let seen = known.alarms.last().map_or(0, |last| last.number);
        for alarm in now.alarms.iter().filter(|alarm| alarm.number > seen) {
            show(context, &EventView::alarm(alarm))?;
            // Those of before are shown, and no news.
            if begun {
                notifier.tell(context, "ravi-broker: honeytoken touched", &alarm_text(alarm));
            }
        }
        (known, begun) = (now, true);
    }
    Ok(())
}

fn show(context: &mut Context, event: &EventView<'_>) -> Result<(), CliError> {
    context.show(event)
}

/// Starts the operator's program, one at a time and so many a minute.
struct Notifier<'a> {
    program: &'a [OsString],
    running: Option<JoinHandle<()>>,
    started: Vec<BootInstant>,
}

impl<'a> Notifier<'a> {
    fn new(program: &'a [OsString]) -> Self {
        Self { program, running: None, started: Vec::new() }
    }

    fn tell(&mut self, context: &Context, title: &str, text: &str) {
        let Some((program, arguments)) = self.program.split_first() else { return };
        let now = context.clock.now();
        self.started.retain(|at| now.since(*at) < MINUTE);
        let busy = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if busy || self.started.len() >= PER_MINUTE {
            context.notes.say("a notification is left out: the one before still runs, or there were many");
            return;
        }
        self.started.push(now);
        let mut command = Command::new(program);
        command.args(arguments).arg(title).arg(text).stdin(Stdio::null()).stdout(Stdio::null());
        match command.spawn() {
            Ok(mut child) => self.running = Some(tokio::task::spawn_blocking(move || drop(child.wait()))),
            Err(error) => {
                context.notes.say(&format!("the program for notifications did not start: {}", error.kind()));
            }
        }
    }
}

fn question_text(pending: &PendingApproval) -> String {
    let PendingApproval { role, action, about, pid, executable, approval_id, .. } = pending;
    plain(&format!(
        "{role}: {action} {about} (pid {pid}, {executable}). ravi-broker approvals allow {approval_id}"
    ))
}

fn alarm_text(alarm: &Alarm) -> String {
    let Alarm { role, resource, pid, executable, .. } = alarm;
    plain(&format!("{role} asked for {resource} (pid {pid}, {executable}). Its session was ended."))
}

/// Desktops take some of this for markup: an agent chooses the names of its programs.
fn plain(text: &str) -> String {
    let shown = |c: char| if (c.is_ascii_graphic() || c == ' ') && !"<>&".contains(c) { c } else { '?' };
    text.chars().take(LONGEST_TEXT).map(shown).collect()
}

#[derive(Serialize)]
struct ListView<'a> {
    approvals: Vec<ApprovalView<'a>>,
    alarms: Vec<AlarmView<'a>>,
}

#[derive(Serialize)]
struct ApprovalView<'a> {
    approval_id: String,
    session_id: String,
    role: &'a str,
    uid: u32,
    pid: i32,
    executable: Option<&'a str>,
    action: &'a str,
    about: &'a str,
    delivery: Option<&'static str>,
    /// The agent's own words.
    claimed_reason: Option<&'a str>,
    waited: u64,
    expires_in: u64,
    calls: u32,
}

#[derive(Serialize)]
struct AlarmView<'a> {
    number: u64,
    kind: &'static str,
    raised_at: String,
    session_id: String,
    role: &'a str,
    uid: u32,
    pid: i32,
    executable: Option<&'a str>,
    resource: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum EventView<'a> {
    Asked(ApprovalView<'a>),
    Over { approval_id: String },
    Alarm(AlarmView<'a>),
}

#[derive(Serialize)]
struct DecidedView {
    approval_id: String,
    decision: &'static str,
    for_seconds: Option<u64>,
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl<'a> ListView<'a> {
    fn of(attention: &'a Attention) -> Self {
        let approvals = attention.approvals.iter().map(ApprovalView::of).collect();
        Self { approvals, alarms: attention.alarms.iter().map(AlarmView::of).collect() }
    }
}

impl<'a> ApprovalView<'a> {
    fn of(pending: &'a PendingApproval) -> Self {
        Self {
            approval_id: pending.approval_id.to_string(),
            session_id: pending.session_id.to_string(),
            role: &pending.role,
            uid: pending.uid,
            pid: pending.pid,
            executable: present(&pending.executable),
            action: &pending.action,
            about: &pending.about,
            delivery: pending.delivery.map(way),
            claimed_reason: present(&pending.claimed_reason),
            waited: pending.waited.as_secs(),
            expires_in: pending.expires_in.as_secs(),
            calls: pending.calls,
        }
    }

    fn put(&self, page: &mut Page) {
        let way = self.delivery.map(|way| format!(" ({way})")).unwrap_or_default();
        let wants = format!("{} asks for {} {}{way}", self.role, self.action, self.about);
        page.line(Cell::new(wants, Tone::Strong));
        let program = self.executable.unwrap_or("unknown program");
        let left = |seconds| duration_text(Duration::from_secs(seconds));
        let claim = match self.claimed_reason {
            Some(reason) => Cell::from(format!("it says (nobody has checked it): {reason}")),
            None => Cell::new("it says nothing", Tone::Dim),
        };
        page.pairs([
            ("  Approval", Cell::from(&self.approval_id)),
            ("  Process", Cell::from(format!("pid {}, uid {}, {program}", self.pid, self.uid))),
            ("  Session", Cell::from(&self.session_id)),
            ("  Reason", claim),
            (
                "  Waits",
                Cell::from(format!(
                    "{}; {} left; calls that wait now: {}",
                    left(self.waited),
                    left(self.expires_in),
                    self.calls
                )),
            ),
        ]);
    }
}

impl<'a> AlarmView<'a> {
    fn of(alarm: &'a Alarm) -> Self {
        Self {
            number: alarm.number,
            kind: "honeytoken",
            raised_at: moment(alarm.raised_at),
            session_id: alarm.session_id.to_string(),
            role: &alarm.role,
            uid: alarm.uid,
            pid: alarm.pid,
            executable: present(&alarm.executable),
            resource: &alarm.resource,
        }
    }

    fn put(&self, page: &mut Page) {
        let Self { raised_at, role, resource, pid, uid, session_id, .. } = self;
        let program = self.executable.unwrap_or("unknown program");
        let text = format!(
            "{raised_at} honeytoken: {role} asked for {resource}; pid {pid}, uid {uid}, {program}; {session_id} was ended"
        );
        page.line(Cell::new(text, Tone::Bad));
    }
}

impl Document for ListView<'_> {
    fn human(&self, page: &mut Page) {
        if self.approvals.is_empty() {
            page.line("No request waits.");
        }
        self.approvals.iter().for_each(|approval| approval.put(page));
        self.alarms.iter().for_each(|alarm| alarm.put(page));
        if !self.approvals.is_empty() {
            page.line(Cell::new("Decide with `ravi-broker approvals allow ID` or `deny ID`.", Tone::Dim));
        }
    }
}

impl<'a> EventView<'a> {
    fn asked(pending: &'a PendingApproval) -> Self {
        Self::Asked(ApprovalView::of(pending))
    }

    fn over(id: ApprovalId) -> Self {
        Self::Over { approval_id: id.to_string() }
    }

    fn alarm(alarm: &'a Alarm) -> Self {
        Self::Alarm(AlarmView::of(alarm))
    }
}

impl Document for EventView<'_> {
    fn human(&self, page: &mut Page) {
        match self {
            Self::Asked(approval) => approval.put(page),
            Self::Over { approval_id } => {
                page.line(Cell::new(format!("{approval_id} waits no longer"), Tone::Dim));
            }
            Self::Alarm(alarm) => alarm.put(page),
        }
    }
}

impl DecidedView {
    fn of(id: ApprovalId, said: ApprovalDecision) -> Self {
        let (decision, for_seconds) = match said {
            ApprovalDecision::Once => ("once", None),
            ApprovalDecision::For(time) => ("for", Some(time.as_secs())),
            ApprovalDecision::Deny => ("deny", None),
        };
        Self { approval_id: id.to_string(), decision, for_seconds }
    }
}

impl Document for DecidedView {
    fn human(&self, page: &mut Page) {
        match (self.decision, self.for_seconds) {
            ("deny", _) => page.line("Refused; the same is refused for ten minutes."),
            (_, Some(seconds)) => {
                let time = duration_text(Duration::from_secs(seconds));
                page.line(format!("Allowed to this session for {time}, for equal requests."));
            }
            _ => page.line("Allowed once."),
        }
    }
}

fn way(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Shown => "shown",
        Delivery::File => "file",
        Delivery::Descriptor => "fd",
        Delivery::Stdin => "stdin",
        Delivery::Environment => "env",
        Delivery::Helper => "helper",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    #[test]
    fn what_an_agent_says_moves_no_cursor_and_is_called_a_claim() {
        let pending = PendingApproval {
            approval_id: ApprovalId([7; 16]),
            session_id: SessionId([8; 16]),
            role: "notes".into(),
            uid: 1000,
            pid: 42,
            executable: "/tmp/\u{1b}[2Jx<b>&".into(),
            action: "secret:use".into(),
            about: "secret/STRIPE_API_KEY".into(),
            delivery: Some(Delivery::File),
            claimed_reason: "the operator \u{1b}]0;said yes\u{7}".into(),
            waited: Duration::from_secs(3),
            expires_in: Duration::from_secs(117),
            calls: 1,
        };
        let attention = Attention { approvals: vec![pending.clone()], alarms: Vec::new() };
        let mut page = Page::new(false);
        ListView::of(&attention).human(&mut page);
        assert!(page.as_str().contains("notes asks for secret:use secret/STRIPE_API_KEY (file)\n"));
        assert!(
            page.as_str().contains("it says (nobody has checked it): the operator "),
            "{}",
            page.as_str()
        );
        assert!(!page.as_str().contains(['\u{1b}', '\u{7}']), "{:?}", page.as_str());
        let text = question_text(&pending);
        assert!(!text.contains(['\u{1b}', '<', '&']) && !text.contains("said yes"), "{text}");
    }
}
