//! The configuration: TOML, strict, versioned. A raw layer close to the file collects every problem
//! with its line; the resolved layer below has no `Option` that means "default".
//!
//! Imports `types` alone. Scopes stay text here and are compiled by `policy`, which adds its own
//! problems to the same report:
//!
//! ```text
//! Source::find  ->  read  ->  Draft  ->  policy looks at draft.config  ->  draft.finish(its problems)
//! locate           raw, resolve                                            Config
//! ```

mod dispatch;
mod environment;
mod error;
mod locate;
mod origin;
pub mod paths;
mod raw;
mod reader;
mod report;
mod resolve;
mod sight;
mod suggest;
mod units;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use dispatch::{DispatchConfig, Form};
pub use environment::{Environment, Variable};
pub use error::{ConfigError, FileFault};
pub use locate::Source;
pub use origin::{Origin, Origins, Shown, show};
pub use sight::{MetricsConfig, OtlpConfig, Traces};
pub use units::{UnitError, duration_text, parse_duration};

use crate::types::{BaseUrl, CgroupPath, Delivery, FileHash, IdentityName, IdentityUuid, RoleName, UnitName};
use report::Report;

/// Settings that came by flags of the command line: they go before everything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--base-url`.
    pub base_url: Option<String>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--agent-socket`.
    pub agent_socket: Option<PathBuf>,
    /// `--admin-socket`.
    pub admin_socket: Option<PathBuf>,
    /// `--audit-file`.
    pub audit_file: Option<PathBuf>,
}

/// A configuration that was read and is not in force: it may have mistakes.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What was understood. Where a mistake is, a harmless value stands in its place.
    pub config: Config,
    /// Where each setting came from, for [`show`].
    pub origins: Origins,
    /// The mistakes found so far.
    pub problems: Vec<Problem>,
}

impl Draft {
    /// The configuration, if neither the reader nor `more` (the problems that `policy` found) has
    /// anything against it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all problems in the order of their lines.
    pub fn finish(self, more: Vec<Problem>) -> Result<Config, ConfigError> {
        let mut problems = self.problems;
        problems.extend(more);
        if problems.is_empty() {
            return Ok(self.config);
        }
        problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid { path: self.origins.path().to_owned(), problems })
    }
}

/// Reads a configuration and decides every setting: flag, environment, file, default.
///
/// # Errors
/// [`ConfigError::Invalid`] if the file is not text or too large. All other mistakes are collected in
/// the draft.
pub fn read(source: &Source, environment: &Environment, overrides: &Overrides) -> Result<Draft, ConfigError> {
    let path = source.path().to_owned();
    let refuse = |line, message: &str| {
        let problems = vec![Problem { line, message: message.to_owned() }];
        ConfigError::Invalid { path: path.clone(), problems }
    };
    if source.bytes().len() > locate::MAX_BYTES {
        return Err(refuse(0, "larger than 1 MiB"));
    }
    let text = std::str::from_utf8(source.bytes()).map_err(|error| {
        let before = source.bytes().iter().take(error.valid_up_to());
        let breaks = before.filter(|byte| **byte == b'\n').count();
        refuse(u32::try_from(breaks + 1).unwrap_or(0), "not UTF-8")
    })?;
    let report = Report::of(text);
    let mut origins = Origins::of(&path);
    let raw = raw::read(&report, text, &mut origins);
    let config = resolve::resolve(raw, environment, overrides, &report, &mut origins);
    Ok(Draft { config, origins, problems: report.into_problems() })
}

/// A commented example that shows every key, for `ravi-broker config example` and the documentation.
pub fn example() -> &'static str {
    include_str!("example.toml")
}

/// The resolved configuration of the daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[upstream]`.
    pub upstream: UpstreamConfig,
    /// `[listen]`.
    pub listen: ListenConfig,
    /// `[vault]`.
    pub vault: VaultConfig,
    /// `[memory]`.
    pub memory: MemoryConfig,
    /// `[audit]`.
    pub audit: AuditConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[inbox]`.
    pub inbox: InboxConfig,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[telemetry.otlp]`.
    pub otlp: OtlpConfig,
    /// `honeytokens`: names that no honest agent asks for, still text. In force with a reload.
    pub honeytokens: Vec<Located<String>>,
    /// `[role.<name>]`, in the order of the file.
    pub roles: Vec<RoleConfig>,
    /// `[[dispatch]]`, in the order of the file.
    pub dispatches: Vec<DispatchConfig>,
}

impl Config {
    /// Whether more than roles and dispatches differs: a reload puts those in force and nothing else.
    pub fn needs_restart(&self, in_force: &Self) -> bool {
        let same = self.upstream == in_force.upstream
            && self.listen == in_force.listen
            && self.vault == in_force.vault
            && self.memory == in_force.memory
            && self.audit == in_force.audit
            && self.limits == in_force.limits
            && self.inbox == in_force.inbox
            && self.metrics == in_force.metrics
            && self.otlp == in_force.otlp;
        !same
    }
}

/// Where and how Ravi is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `base_url`: `https://host[:port]`, or `http://` with a loopback host. No path, one trailing slash
    /// stripped. Default `https://api.ravi.id`; `RAVI_API_URL` overrides the file.
    pub base_url: BaseUrl,
    /// `ca_file`: PEM certificates trusted in place of the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// `management_key_file`: a 0600 file, read when `$CREDENTIALS_DIRECTORY/management-key` is absent
    /// and written by `login`.
    pub management_key_file: Option<PathBuf>,
    /// `budget`: calls to Ravi in all. Default `300/min`.
    pub budget: Rate,
    /// `identity_budget`: calls to Ravi for one identity. Default `120/min`.
    pub identity_budget: Rate,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// `agent_socket`. Default `<runtime directory>/broker.sock`.
    pub agent_socket: PathBuf,
    /// `admin_socket`. Default `<runtime directory>/admin.sock`.
    pub admin_socket: PathBuf,
    /// `group`: a group id that may connect to the agent socket (mode 0660). Absent: 0600.
    pub group: Option<u32>,
    /// `require`: how surely callers have to be known. Below it the daemon does not start. Default: none.
    pub require: Option<CallerTier>,
}

/// How surely the kernel ties a caller to its process, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerTier {
    /// `pid`: by its pid and start time.
    Pid,
    /// `pidfd`: by a pidfd that the kernel took at connect (Linux 6.5).
    Pidfd,
}

/// The read-through cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultConfig {
    /// `fresh_for`: how long a fetched value is served without asking again. Default `5m`.
    pub fresh_for: Duration,
    /// `absent_for`: how long "there is none" is believed. Default `10s`.
    pub absent_for: Duration,
    /// `max_entries`: cached values in all. Default 4096.
    pub max_entries: usize,
}

/// The memory that holds secrets at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// `tier`: what is wanted. Default `locked`, or what is required.
    pub tier: MemoryTier,
    /// `require`: the daemon does not start below it. Absent: whatever is reached is reported.
    pub require: Option<MemoryTier>,
}

/// How far memory is protected, the weaker first. On a host that allows neither, secrets rest sealed in
/// ordinary memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryTier {
    /// `locked`: sealing key and slots are not swapped, not in core dumps, not inherited by a fork.
    Locked,
    /// `secret`: besides, the sealing key lies in `memfd_secret(2)`, which root cannot read either.
    Secret,
}

impl fmt::Display for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "locked",
            Self::Secret => "secret",
        })
    }
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// `file`. Default `<state directory>/audit.jsonl`.
    pub file: PathBuf,
    /// `max_bytes`: size at which the file is set aside and a new one continues the chain. Default 8 MiB: the
    /// current file is checked whole at every start.
    pub max_bytes: u64,
}

/// Bounds of the daemon as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `connections`: open connections in all. Default 1024.
    pub connections: usize,
    /// `connections_per_uid`. Default 256.
    pub connections_per_uid: usize,
    /// `sessions`: live sessions in all. Default 1024.
    pub sessions: usize,
    /// `open`: `OpenSession` calls of one user. Default `120/min`.
    pub open: Rate,
    /// `grace`: how long SIGTERM waits for calls under way. Default `5s`.
    pub grace: Duration,
}

/// Mail and text messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxConfig {
    /// `poll`: between two looks at the messages of an identity while somebody waits for a code. Default `2s`.
    pub poll: Duration,
    /// `idle_poll`: the same while nobody does, but a dispatch or a stream needs them. Default `30s`.
    pub idle_poll: Duration,
    /// `events`: listen to Ravi's event stream, to look sooner. Its form is not documented. Default false.
    pub events: bool,
    /// `email_per_day`: mails that one identity may send in a day (UTC). Default 100, which is what Ravi gives
    /// an inbox without a plan (docs/ravi-api.md §5).
    pub email_per_day: u32,
    /// `sms_per_day`: the same for text messages; Ravi documents no bound. Default 50.
    pub sms_per_day: u32,
}

/// One role: which identity, what it may do, and who may assume it.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// The table's name.
    pub name: RoleName,
    /// Line of the table's header, for messages.
    pub line: u32,
    /// `identity`: a name or a UUID.
    pub identity: IdentityRef,
    /// `match`: one table or an array of tables; any of them suffices. Never empty.
    pub matchers: Vec<MatchConfig>,
    /// `scopes`, still text.
    pub scopes: Vec<Located<String>>,
    /// `approve`: what the operator is asked about each time, still text. Default: nothing.
    pub approve: Vec<Located<String>>,
    /// `approval`.
    pub approval: ApprovalConfig,
    /// `bind`. Default `subtree`.
    pub bind: Bind,
    /// `use_by`. Default `cli`.
    pub use_by: UseBy,
    /// `provision`: the identity is created when there is none of its name, and `provision_phone`: it then gets a
    /// telephone number. Default: nothing is created.
    pub provision: Provision,
    /// `inject`: the ways in which a value may be delivered without being shown, none twice. Default: all.
    pub inject: Vec<Delivery>,
    /// `session`, `lease` and `rate`.
    pub bounds: Bounds,
}

/// How requests wait for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApprovalConfig {
    /// `wait`: how long a question waits. Default `2m`.
    pub wait: Duration,
    /// `max_pending`: questions of the role at once. Default 8.
    pub max_pending: usize,
    /// `session_pending`: questions of one session at once. Default 4.
    pub session_pending: usize,
}

/// What is created for a role whose identity is not there yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provision {
    /// Nothing.
    #[default]
    Nothing,
    /// The identity.
    Identity,
    /// The identity, with a telephone number.
    WithPhone,
}

/// Which processes may use a session besides the one that it is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// `process`: no other.
    Process,
    /// `subtree`: its descendants.
    #[default]
    Subtree,
    /// `cgroup`: all of its cgroup and of those below.
    Cgroup,
}

/// Which programs are given a value that is not to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseBy {
    /// `cli`: the broker's own programs, which put it where they were told to.
    #[default]
    Cli,
    /// `any`: any that holds the session. It could show the value.
    Any,
}

/// How long, how many and how often: the bounds that a role sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `session.ttl`. Default `12h`.
    pub session_ttl: Duration,
    /// `session.max_live`: sessions of this role at once. Default 64.
    pub session_max_live: usize,
    /// `lease.default_ttl`. Default `5m`.
    pub lease_default_ttl: Duration,
    /// `lease.max_ttl`. Default `1h`.
    pub lease_max_ttl: Duration,
    /// `lease.max_live`: leases of one session at once. Default 32.
    pub lease_max_live: usize,
    /// `rate.read`: reads and leases of the role. Default `60/min`.
    pub read_rate: Rate,
    /// `rate.send`: writes and sends of the role. Default `10/h`.
    pub send_rate: Rate,
    /// `rate.session_read`: the same of one session. Default: the role's.
    pub session_read_rate: Rate,
    /// `rate.session_send`: the same of one session. Default: the role's.
    pub session_send_rate: Rate,
}

/// A Ravi identity as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdentityRef {
    /// By `Identity.uuid`.
    Uuid(IdentityUuid),
    /// By `Identity.name`, looked up once.
    Name(IdentityName),
}

impl fmt::Display for IdentityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Facts of the calling process that must all hold. At least one besides `foreign` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchConfig {
    /// `uid`: a number, or a user name resolved at load.
    pub uid: Option<u32>,
    /// `gid`: a number, or a group name resolved at load.
    pub gid: Option<u32>,
    /// `exe`: absolute path of the executable.
    pub exe: Option<PathBuf>,
    /// `exe_sha256`: hash of the executable's content.
    pub exe_sha256: Option<FileHash>,
    /// `parent_exe`: absolute path of the executable of the parent.
    pub parent_exe: Option<PathBuf>,
    /// `unit`: systemd service or scope.
    pub unit: Option<UnitName>,
    /// `cgroup`: this group (v2) or one below. Never the root.
    pub cgroup: Option<CgroupPath>,
    /// `foreign`: the process may be in another user or PID namespace. Default `false`.
    pub foreign: bool,
}

/// So many in such a time, written `60/min`: units `s`, `min`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// At least one second.
    pub per: Duration,
}

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Counted from 1.
    pub line: u32,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 if no line applies.
    pub line: u32,
    /// What is wrong and what would be right. Holds no value of a secret: the file holds none.
    pub message: String,
}
