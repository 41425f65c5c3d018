//! `dispatch list|retry|drop`: what callbacks are to be told, and what could not be told to them.

use serde::Serialize;

use super::args::{DispatchCommand, ListDispatches, StateName, WhichDispatches};
use super::context::Context;
use super::error::CliError;
use super::output::{Document, moment};
use super::page::{Cell, Page, Tone};
use crate::client::{DispatchInfo, DispatchState, Dispatched};

pub(super) async fn run(context: &mut Context, command: &DispatchCommand) -> Result<(), CliError> {
    match command {
        DispatchCommand::List(args) => list(context, args).await,
        DispatchCommand::Retry(which) => {
            let dispatches = context.admin().await?.retry_dispatches(chosen(which)).await?;
            context.show(&DoneView { dispatches, done: "to be tried again" })
        }
        DispatchCommand::Drop(which) => {
            let dispatches = context.admin().await?.drop_dispatches(chosen(which)).await?;
            context.show(&DoneView { dispatches, done: "dropped" })
        }
    }
}

/// Page by page, up to what was asked for.
async fn list(context: &mut Context, args: &ListDispatches) -> Result<(), CliError> {
    let client = context.admin().await?;
    let state = args.state.map(|state| match state {
        StateName::Pending => DispatchState::Pending,
        StateName::Delivered => DispatchState::Delivered,
        StateName::Dropped => DispatchState::Dropped,
        StateName::Dead => DispatchState::Dead,
    });
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let left = args.limit.saturating_sub(u32::try_from(listed.len()).unwrap_or(u32::MAX));
        let (page, next) = client.dispatches(state, left, &token).await?;
        listed.extend(page);
        token = next;
        if token.is_empty() || listed.len() >= args.limit as usize {
            break;
        }
    }
    context.show(&ListView {
        dispatches: listed.iter().map(DispatchView::of).collect(),
        more: !token.is_empty(),
    })
}

/// The definition of the arguments lets exactly one through.
fn chosen(which: &WhichDispatches) -> Dispatched {
    which.dispatch.map_or(Dispatched::AllDead, Dispatched::One)
}

struct ListView<'a> {
    dispatches: Vec<DispatchView<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct DispatchView<'a> {
    dispatch_id: String,
    rule: &'a str,
    target: &'a str,
    identity_uuid: &'a str,
    message: &'a str,
    state: &'static str,
    attempts: u32,
    queued_at: String,
    /// When it is tried next, or was settled.
    next_at: String,
    /// A closed word; null if the last attempt did not fail.
    fault: Option<&'a str>,
}

impl<'a> DispatchView<'a> {
    fn of(info: &'a DispatchInfo) -> Self {
        Self {
            dispatch_id: info.dispatch_id.to_string(),
            rule: &info.rule,
            target: &info.target,
            identity_uuid: &info.identity_uuid,
            message: &info.message,
            state: info.state.name(),
            attempts: info.attempts,
            queued_at: moment(info.queued_at),
            next_at: moment(info.next_at),
            fault: Some(info.fault.as_str()).filter(|fault| !fault.is_empty()),
        }
    }

    fn row(&self) -> [Cell; 6] {
        let tone = match self.state {
            "delivered" => Tone::Good,
            "dead" => Tone::Bad,
            _ => Tone::Plain,
        };
        [
            self.dispatch_id.as_str().into(),
            self.rule.into(),
            self.message.into(),
            Cell::new(self.state, tone),
            self.attempts.to_string().into(),
            self.fault.unwrap_or("-").into(),
        ]
    }
}

impl Serialize for ListView<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.dispatches.serialize(serializer)
    }
}

impl Document for ListView<'_> {
    fn human(&self, page: &mut Page) {
        let rows: Vec<_> = self.dispatches.iter().map(DispatchView::row).collect();
        page.table(["DISPATCH", "RULE", "MESSAGE", "STATE", "ATTEMPTS", "FAULT"], &rows, "No dispatches.");
        if self.more {
            page.line(Cell::new("There are more; raise --limit.", Tone::Dim));
        }
    }
}

#[derive(Serialize)]
struct DoneView {
    dispatches: u32,
    #[serde(skip)]
    done: &'static str,
}

impl Document for DoneView {
    fn human(&self, page: &mut Page) {
        page.line(format!("Dispatches {}: {}.", self.done, self.dispatches));
    }
}
