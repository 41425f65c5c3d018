//! Arguments of the operator's commands: they go to the admin socket, or work without the daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::agent::Purpose;
use super::parse::country;
use crate::types::{DenialId, DispatchId, IdentityName, LeaseId, RoleName, SessionId};

#[derive(Args, Debug)]
#[command(after_help = "\
Without --import, a page of Ravi asks you to approve this machine; nothing secret passes through the
terminal. With it, the keys of Ravi's own command line are handed over once, from ~/.ravi/config.json
or PATH; the file of the working directory is never read.

As root, for the daemon of the system, the key is then sealed with systemd-creds, in place of an
earlier one. It goes from the daemon into that program, and opens on this machine alone.

Example:
  sudo ravi-broker login
  ravi-broker login --import")]
pub(crate) struct Login {
    /// Do not seal the key for the daemon's next start
    #[arg(long)]
    pub(crate) no_seal: bool,
    /// Take over the keys of Ravi's own command line
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    // Absent, given without a path, given with one.
    pub(crate) import: Option<Option<PathBuf>>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Arrows or j and k select, tab goes to the next panel, r revokes, l locks, u unlocks, a approves, d denies,
? helps, q quits; what changes something is asked about first. Where standard output is no terminal, one
plain picture is printed; with --format json it is the one of `status`.

Example:
  ravi-broker top
  ravi-broker top --once")]
pub(crate) struct Top {
    /// Print one plain picture and end
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The caller of a refused call is told an id and not the reason. The daemon remembers the last 1,024
since its start; the audit trail keeps the rule alone.

Example:
  ravi-broker explain den_mfrggzdfmztwq2lknnwg23tpoa")]
pub(crate) struct Explain {
    /// The id, as the refused call was told it
    #[arg(value_name = "ID")]
    pub(crate) denial: DenialId,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Access by a value that was already shown ends only with its rotation; the answer names such values.

Example:
  ravi-broker revoke --role notes-agent --reason \"agent misbehaved\"")]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) target: RevokeTarget,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
}

/// Exactly one of them is given.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokeTarget {
    /// One lease
    #[arg(long, value_name = "ID")]
    pub(crate) lease: Option<LeaseId>,
    /// One session and its leases
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<SessionId>,
    /// All sessions of a role
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<RoleName>,
    /// All sessions
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// The identities of the account, and the roles that act as them
    #[command(after_help = "Example:\n  ravi-broker identity list")]
    List,
    /// One identity, and what it may still send today
    #[command(after_help = "Example:\n  ravi-broker identity show assistant-notes-agent")]
    Show(ShowIdentity),
    /// Create an identity; one of a name that is there is refused
    Create(CreateIdentity),
}

#[derive(Args, Debug)]
pub(crate) struct ShowIdentity {
    /// Its name or its UUID
    #[arg(value_name = "IDENTITY")]
    pub(crate) identity: IdentityName,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A role with `provision = true` has its identity created by itself. This is for others, and for one
that was asked for, did not appear, and is not on Ravi's dashboard either.

Example:
  ravi-broker identity create assistant-notes-agent --phone")]
pub(crate) struct CreateIdentity {
    /// 1 to 128 printable characters
    pub(crate) name: IdentityName,
    /// Give it a telephone number, which takes some seconds
    #[arg(long)]
    pub(crate) phone: bool,
    /// Of the number: two letters, such as CA; Ravi's default if absent
    #[arg(long, requires = "phone", value_name = "CODE", value_parser = country)]
    pub(crate) country: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report everything that is wrong with the configuration, with its lines
    #[command(after_help = "Example:\n  ravi-broker config check --config ./config.toml")]
    Check,
    /// Show every setting as it applies
    Show(ShowConfig),
    /// Print a commented configuration to start from
    #[command(after_help = "Example:\n  ravi-broker config example > ~/.config/ravi-broker/config.toml")]
    Example,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ravi-broker config show --origin")]
pub(crate) struct ShowConfig {
    /// Say where each setting comes from
    #[arg(long)]
    pub(crate) origin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DispatchCommand {
    /// Show deliveries, oldest first; what a message says is not kept
    #[command(after_help = "Example:\n  ravi-broker dispatch list --state dead --format json")]
    List(ListDispatches),
    /// Try again at once, with all attempts
    #[command(after_help = "Example:\n  ravi-broker dispatch retry --all-dead")]
    Retry(WhichDispatches),
    /// Give up for good: nobody is told
    #[command(after_help = "Example:\n  ravi-broker dispatch drop dsp_mfrggzdfmztwq2lknnwg23tpoa")]
    Drop(WhichDispatches),
}

#[derive(Args, Debug)]
pub(crate) struct ListDispatches {
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<StateName>,
    /// How many to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// What has become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateName {
    // To be tried.
    Pending,
    // Taken.
    Delivered,
    // Nobody is told.
    Dropped,
    // Given up.
    Dead,
}

/// Exactly one of them is given.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichDispatches {
    /// One that is pending or dead
    #[arg(value_name = "ID")]
    pub(crate) dispatch: Option<DispatchId>,
    /// All that are dead
    #[arg(long)]
    pub(crate) all_dead: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the last records, one a line; whole with --format json
    #[command(after_help = "Example:\n  ravi-broker audit tail -n 50 --follow")]
    Tail(TailAudit),
    /// Check the chain of records in a file, without the daemon
    #[command(after_help = "Example:\n  ravi-broker audit verify")]
    Verify(VerifyAudit),
}

#[derive(Args, Debug)]
pub(crate) struct TailAudit {
    /// How many of the last records to print
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) lines: u32,
    /// Stay and print what follows
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyAudit {
    /// The audit file; the configured one if absent
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
}
