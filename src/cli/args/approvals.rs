//! Arguments of `approvals`: what waits for the operator.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse::duration;
use crate::types::ApprovalId;

#[derive(Args, Debug)]
#[command(after_help = "\
A role marks what has to be asked about with `approve`. Without a command, what waits is listed. What an
agent says about its reason is its own claim.

Example:
  ravi-broker approvals
  ravi-broker approvals allow apr_mfrggzdfmztwq2lknnwg23tpoa")]
pub(crate) struct Approvals {
    #[command(subcommand)]
    pub(crate) command: Option<ApprovalsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Show what waits, and the last alarms
    #[command(after_help = "Example:\n  ravi-broker approvals list --format json")]
    List,
    /// Stay and tell of each question, its end, and each alarm
    Watch(WatchApprovals),
    /// Allow one use, or every equal request of the session for a while
    Allow(AllowApproval),
    /// Refuse it; the same is then refused for ten minutes
    #[command(after_help = "Example:\n  ravi-broker approvals deny apr_mfrggzdfmztwq2lknnwg23tpoa")]
    Deny(OneApproval),
}

#[derive(Args, Debug)]
#[command(after_help = "\
The daemon itself starts no program. PROGRAM is started here, for each question and each alarm, with a
title and a text as its last two arguments; one at a time, at most twelve a minute. The text holds names
and nothing that an agent says.

Example:
  ravi-broker approvals watch -- notify-send --app-name=ravi-broker")]
pub(crate) struct WatchApprovals {
    /// Started for each question and alarm, with its own arguments before the title and the text
    #[arg(last = true, value_name = "PROGRAM", num_args = 1..=32)]
    pub(crate) notify: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without --for it is one use, by the call that waits longest.

Example:
  ravi-broker approvals allow apr_mfrggzdfmztwq2lknnwg23tpoa --for 10m")]
pub(crate) struct AllowApproval {
    /// As `approvals` shows it
    #[arg(value_name = "ID")]
    pub(crate) approval: ApprovalId,
    /// Every equal request of this session, for so long; at most a day
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct OneApproval {
    /// As `approvals` shows it
    #[arg(value_name = "ID")]
    pub(crate) approval: ApprovalId,
}
