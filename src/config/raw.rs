//! The file as it is written: what is there, with its line, and nothing that is not. One function
//! per section; defaults and precedence come later, in `resolve`.
//!
//! Never stops at the first mistake: every one goes into the report.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::dispatch::{self, DispatchConfig};
use super::origin::Origins;
use super::reader::{Table, Value};
use super::report::Report;
use super::sight::{self, RawSight};
use super::values::{
    BINDS, CALLERS, USERS, base_url, cgroup, count, deliveries, duration, group, host_name, identity,
    memory_tier, one_of, path, rate, socket_path, user,
};
use super::{Bind, CallerTier, IdentityRef, Located, MatchConfig, MemoryTier, Rate, UseBy};
use crate::types::{BaseUrl, Delivery, RoleName};

/// The one form of the file that this version reads.
const VERSION: u64 = 1;
const MAX_ROLES: usize = 1024;
const MAX_SCOPES: usize = 256;
const MAX_SCOPE_BYTES: usize = 512;
const MAX_MATCHERS: usize = 64;
const SELECTORS: &str = "uid, gid, exe, exe_sha256, parent_exe, unit, cgroup";

/// What a key is set to, if it is.
pub(super) type Set<T> = Option<Located<T>>;

pub(super) struct RawConfig {
    pub(super) upstream: RawUpstream,
    pub(super) listen: RawListen,
    pub(super) vault: RawVault,
    pub(super) memory: RawMemory,
    pub(super) audit: RawAudit,
    pub(super) limits: RawLimits,
    pub(super) inbox: RawInbox,
    pub(super) sight: RawSight,
    pub(super) honeytokens: Vec<Located<String>>,
    pub(super) roles: Vec<RawRole>,
    pub(super) dispatches: Vec<DispatchConfig>,
}

pub(super) struct RawUpstream {
    pub(super) base_url: Set<BaseUrl>,
    pub(super) ca_file: Set<PathBuf>,
    pub(super) management_key_file: Set<PathBuf>,
    pub(super) budget: Set<Rate>,
    pub(super) identity_budget: Set<Rate>,
}

pub(super) struct RawListen {
    pub(super) agent_socket: Set<PathBuf>,
    pub(super) admin_socket: Set<PathBuf>,
    pub(super) group: Set<u32>,
    pub(super) require: Set<CallerTier>,
}

pub(super) struct RawVault {
    pub(super) fresh_for: Set<Duration>,
    pub(super) absent_for: Set<Duration>,
    pub(super) max_entries: Set<usize>,
}

pub(super) struct RawMemory {
    pub(super) tier: Set<MemoryTier>,
    pub(super) require: Set<MemoryTier>,
}

pub(super) struct RawAudit {
    pub(super) file: Set<PathBuf>,
    pub(super) max_bytes: Set<u64>,
}

pub(super) struct RawLimits {
    pub(super) connections: Set<usize>,
    pub(super) connections_per_uid: Set<usize>,
    pub(super) sessions: Set<usize>,
    pub(super) open: Set<Rate>,
    pub(super) grace: Set<Duration>,
}

pub(super) struct RawInbox {
    pub(super) poll: Set<Duration>,
    pub(super) idle_poll: Set<Duration>,
    pub(super) events: Set<bool>,
    pub(super) email_per_day: Set<usize>,
    pub(super) sms_per_day: Set<usize>,
}

pub(super) struct RawRole {
    /// `None`: not a name, and reported.
    pub(super) name: Option<RoleName>,
    pub(super) line: u32,
    pub(super) identity: Set<IdentityRef>,
    pub(super) matchers: Vec<Located<MatchConfig>>,
    pub(super) scopes: Vec<Located<String>>,
    pub(super) approve: Vec<Located<String>>,
    pub(super) approval_wait: Set<Duration>,
    pub(super) approval_max_pending: Set<usize>,
    pub(super) approval_session_pending: Set<usize>,
    pub(super) bind: Set<Bind>,
    pub(super) use_by: Set<UseBy>,
    pub(super) inject: Set<Vec<Delivery>>,
    pub(super) provision: Set<bool>,
    pub(super) provision_phone: Set<bool>,
    pub(super) session_ttl: Set<Duration>,
    pub(super) session_max_live: Set<usize>,
    pub(super) lease_default_ttl: Set<Duration>,
    pub(super) lease_max_ttl: Set<Duration>,
    pub(super) lease_max_live: Set<usize>,
    pub(super) read_rate: Set<Rate>,
    pub(super) send_rate: Set<Rate>,
    pub(super) session_read_rate: Set<Rate>,
    pub(super) session_send_rate: Set<Rate>,
}

/// Reads the whole file; mistakes go into `report`.
pub(super) fn read(report: &Report, text: &str, origins: &mut Origins) -> RawConfig {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(0, |span| report.line(&span));
        match error.message() {
            "duplicate key" => report.add_broken(line, "this key is given twice"),
            message => report.add_broken(line, format!("not TOML: {message}")),
        }
    }
    let mut file = Table::root(report, document.get_ref());
    file.require("version", |value| match value.integer(0..=u64::MAX)? {
        VERSION => Ok(()),
        _ => Err("this broker reads version = 1".into()),
    });
    let config = RawConfig {
        upstream: upstream(file.table("upstream")),
        listen: listen(file.table("listen")),
        vault: vault(file.table("vault")),
        memory: memory(&mut file),
        audit: audit(file.table("audit")),
        limits: limits(file.table("limits")),
        inbox: inbox(file.table("inbox")),
        sight: sight::read(&mut file),
        honeytokens: texts(&mut file, "honeytokens"),
        roles: roles(file.table("role")),
        dispatches: dispatch::read(&mut file, report, origins),
    };
    file.finish();
    config
}

fn upstream(mut table: Table<'_>) -> RawUpstream {
    let section = RawUpstream {
        base_url: table.read("base_url", |value| base_url(value.text()?)),
        ca_file: table.read("ca_file", path),
        management_key_file: table.read("management_key_file", path),
        budget: table.read("budget", rate),
        identity_budget: table.read("identity_budget", rate),
    };
    table.finish();
    section
}

fn listen(mut table: Table<'_>) -> RawListen {
    let section = RawListen {
        agent_socket: table.read("agent_socket", |value| socket_path(path(value)?)),
        admin_socket: table.read("admin_socket", |value| socket_path(path(value)?)),
        group: table.read("group", group),
        require: table.read("require", |value| one_of(&CALLERS, value)),
    };
    table.finish();
    section
}

fn vault(mut table: Table<'_>) -> RawVault {
    let section = RawVault {
        fresh_for: table.read("fresh_for", duration(seconds(1)..=days(1))),
        absent_for: table.read("absent_for", duration(seconds(0)..=days(1))),
        max_entries: table.read("max_entries", count(1..=1_000_000)),
    };
    table.finish();
    section
}

/// `memory = "secret"` stands for `memory.tier = "secret"`.
fn memory(file: &mut Table<'_>) -> RawMemory {
    let Some(value) = file.value("memory") else { return RawMemory { tier: None, require: None } };
    if value.is_text() {
        let tier = memory_tier(&value).map_err(|message| value.refuse(&message)).ok();
        let tier = tier.map(|tier| Located { value: tier, line: value.line() });
        return RawMemory { tier, require: None };
    }
    let mut table = value.table();
    let section =
        RawMemory { tier: table.read("tier", memory_tier), require: table.read("require", memory_tier) };
    table.finish();
    section
}

fn audit(mut table: Table<'_>) -> RawAudit {
    const SIZES: RangeInclusive<u64> = (64 << 10)..=(64 << 30);
    let section = RawAudit {
        file: table.read("file", path),
        max_bytes: table.read("max_bytes", |value| value.integer(SIZES)),
    };
    table.finish();
    section
}

fn limits(mut table: Table<'_>) -> RawLimits {
    let section = RawLimits {
        connections: table.read("connections", count(1..=65_536)),
        connections_per_uid: table.read("connections_per_uid", count(1..=65_536)),
        sessions: table.read("sessions", count(1..=65_536)),
        open: table.read("open", rate),
        grace: table.read("grace", duration(seconds(0)..=seconds(300))),
    };
    table.finish();
    section
}

/// Ravi is asked at most every two seconds for one identity (docs/ravi-api.md §8.21).
fn inbox(mut table: Table<'_>) -> RawInbox {
    let section = RawInbox {
        poll: table.read("poll", duration(seconds(2)..=seconds(60))),
        idle_poll: table.read("idle_poll", duration(seconds(2)..=days(1))),
        events: table.read("events", Value::boolean),
        email_per_day: table.read("email_per_day", count(0..=100_000)),
        sms_per_day: table.read("sms_per_day", count(0..=100_000)),
    };
    table.finish();
    section
}

fn roles(table: Table<'_>) -> Vec<RawRole> {
    let mut named = table.into_named();
    if let Some((_, first_beyond)) = named.get(MAX_ROLES) {
        first_beyond.refuse(&format!("expected at most {MAX_ROLES} roles"));
        named.truncate(MAX_ROLES);
    }
    named.into_iter().map(|(name, value)| role(name, value)).collect()
}

fn role(name: &str, value: Value<'_>) -> RawRole {
    let name: Option<RoleName> = name.parse().map_err(|error| value.refuse(&format!("{error}"))).ok();
    let mut table = value.table();
    let mut session = table.table("session");
    let mut lease = table.table("lease");
    let mut rates = table.table("rate");
    let mut approval = table.table("approval");
    let role = RawRole {
        name,
        line: table.line(),
        identity: table.require("identity", identity),
        matchers: matchers(&mut table),
        scopes: scopes(&mut table),
        approve: texts(&mut table, "approve"),
        approval_wait: approval.read("wait", duration(seconds(1)..=seconds(3600))),
        approval_max_pending: approval.read("max_pending", count(1..=64)),
        approval_session_pending: approval.read("session_pending", count(1..=64)),
        bind: table.read("bind", |value| one_of(&BINDS, value)),
        use_by: table.read("use_by", |value| one_of(&USERS, value)),
        inject: table.read("inject", deliveries),
        provision: table.read("provision", Value::boolean),
        provision_phone: table.read("provision_phone", Value::boolean),
        session_ttl: session.read("ttl", duration(seconds(1)..=days(30))),
        session_max_live: session.read("max_live", count(1..=65_536)),
        lease_default_ttl: lease.read("default_ttl", duration(seconds(1)..=days(7))),
        lease_max_ttl: lease.read("max_ttl", duration(seconds(1)..=days(7))),
        lease_max_live: lease.read("max_live", count(1..=4096)),
        read_rate: rates.read("read", rate),
        send_rate: rates.read("send", rate),
        session_read_rate: rates.read("session_read", rate),
        session_send_rate: rates.read("session_send", rate),
    };
    [session, lease, rates, approval, table].into_iter().for_each(Table::finish);
    role
}

fn scopes(table: &mut Table<'_>) -> Vec<Located<String>> {
    let items = table.require("scopes", |value| value.items(MAX_SCOPES));
    items.map_or_else(Vec::new, |items| items.value.iter().filter_map(scope).collect())
}

/// A list that need not be there, of what `policy` reads.
fn texts(table: &mut Table<'_>, key: &'static str) -> Vec<Located<String>> {
    let items = table.read(key, |value| value.items(MAX_SCOPES));
    items.map_or_else(Vec::new, |items| items.value.iter().filter_map(scope).collect())
}

fn scope(item: &Value<'_>) -> Set<String> {
    let text = item.text().and_then(|text| match text.len() {
        1..=MAX_SCOPE_BYTES => Ok(text.to_owned()),
        _ => Err(format!("expected 1 to {MAX_SCOPE_BYTES} bytes")),
    });
    text.map_err(|message| item.refuse(&message)).ok().map(|value| Located { value, line: item.line() })
}

/// `match` is one table or an array of tables.
fn matchers(table: &mut Table<'_>) -> Vec<Located<MatchConfig>> {
    let tables = table.require("match", |value| match value.is_array() {
        true => value.items(MAX_MATCHERS).and_then(|items| match items.len() {
            0 => Err("an empty list matches nobody".to_owned()),
            _ => Ok(items),
        }),
        false => Ok(vec![value.clone()]),
    });
    let tables = tables.map_or_else(Vec::new, |tables| tables.value);
    tables.into_iter().map(|item| matcher(item.table())).collect()
}

fn matcher(mut table: Table<'_>) -> Located<MatchConfig> {
    let given = table.left();
    let value = MatchConfig {
        uid: table.read("uid", user).map(|uid| uid.value),
        gid: table.read("gid", group).map(|gid| gid.value),
        exe: table.read("exe", path).map(|exe| exe.value),
        exe_sha256: table.read("exe_sha256", host_name).map(|hash| hash.value),
        parent_exe: table.read("parent_exe", path).map(|exe| exe.value),
        unit: table.read("unit", host_name).map(|unit| unit.value),
        cgroup: table.read("cgroup", cgroup).map(|cgroup| cgroup.value),
        foreign: false,
    };
    let selected = table.left() < given;
    let foreign = table.read("foreign", Value::boolean).is_some_and(|foreign| foreign.value);
    if given == 0 {
        table.refuse(&format!("an empty match would let everybody in; name at least one of {SELECTORS}"));
    } else if !selected && table.left() == 0 {
        table.refuse(&format!("`foreign` alone selects nothing; name at least one of {SELECTORS}"));
    }
    let line = table.line();
    table.finish();
    Located { value: MatchConfig { foreign, ..value }, line }
}

pub(super) const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

const fn days(number: u64) -> Duration {
    Duration::from_secs(number * 86_400)
}
