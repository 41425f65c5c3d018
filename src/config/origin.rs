//! Where each setting came from, and the listing of all of them for `config show`.
//!
//! No secret is part of the configuration, so every value may be shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::dispatch;
use super::units::duration_text;
use super::values::{BINDS, CALLERS, USERS};
use super::{
    Config, IdentityRef, InboxConfig, LimitsConfig, Located, MatchConfig, Provision, RoleConfig,
    UpstreamConfig,
};
use crate::types::{CgroupPath, UnitName};

/// Where a setting came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line, by its name.
    Flag(&'static str),
    /// An environment variable, by its name.
    Environment(&'static str),
    /// A line of the file, counted from 1.
    File(u32),
    /// Nobody set it.
    #[default]
    Default,
}

/// The origins of all settings of one configuration, by key.
#[derive(Clone, Debug)]
pub struct Origins {
    path: PathBuf,
    by_key: BTreeMap<String, Origin>,
}

impl Origins {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), by_key: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, key: &str, origin: Origin) {
        self.by_key.insert(key.to_owned(), origin);
    }

    /// Where the setting `key` (`upstream.base_url`) came from.
    pub fn of_key(&self, key: &str) -> Origin {
        self.by_key.get(key).copied().unwrap_or_default()
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self, key: &str) -> String {
        match self.of_key(key) {
            Origin::Flag(name) => format!("flag {name}"),
            Origin::Environment(name) => format!("environment {name}"),
            Origin::File(line) => format!("{}:{line}", self.path.display()),
            Origin::Default => "default".to_owned(),
        }
    }
}

/// One setting, as `config show --origin` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `upstream.base_url`.
    pub key: String,
    /// As the file would say it; `-` for what is not set.
    pub value: String,
    /// `flag --base-url`, `environment RAVI_API_URL`, `/etc/ravi-broker/config.toml:3` or `default`.
    pub origin: String,
}

/// All settings in force, in the order of the documentation.
pub fn show(config: &Config, origins: &Origins) -> Vec<Shown> {
    let mut listing = Listing { origins, shown: Vec::new() };
    listing.upstream(&config.upstream);
    let Config { listen, vault, memory, audit, .. } = config;
    listing.put("listen.agent_socket", listen.agent_socket.display());
    listing.put("listen.admin_socket", listen.admin_socket.display());
    listing.put_option("listen.group", listen.group);
    listing.put_option("listen.require", listen.require.map(|tier| word(&CALLERS, &tier)));
    listing.put("vault.fresh_for", duration_text(vault.fresh_for));
    listing.put("vault.absent_for", duration_text(vault.absent_for));
    listing.put("vault.max_entries", vault.max_entries);
    listing.put("memory.tier", memory.tier);
    listing.put_option("memory.require", memory.require);
    listing.put("audit.file", audit.file.display());
    listing.put("audit.max_bytes", audit.max_bytes);
    listing.limits(config.limits);
    listing.inbox(config.inbox);
    for (key, value) in config.metrics.shown().into_iter().chain(config.otlp.shown()) {
        listing.put(key, value);
    }
    listing.put_each("honeytokens", &config.honeytokens);
    config.roles.iter().for_each(|role| listing.role(role));
    for (key, value) in config.dispatches.iter().flat_map(dispatch::shown) {
        listing.put(&key, value);
    }
    listing.shown
}

struct Listing<'a> {
    origins: &'a Origins,
    shown: Vec<Shown>,
}

impl Listing<'_> {
    fn put(&mut self, key: &str, value: impl fmt::Display) {
        let origin = self.origins.text(key);
        self.shown.push(Shown { key: key.to_owned(), value: value.to_string(), origin });
    }

    fn put_option(&mut self, key: &str, value: Option<impl fmt::Display>) {
        let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        self.put(key, value);
    }

    fn put_each(&mut self, key: &str, listed: &[Located<String>]) {
        for (at, item) in listed.iter().enumerate() {
            self.put(&format!("{key}[{at}]"), &item.value);
        }
    }

    fn upstream(&mut self, upstream: &UpstreamConfig) {
        self.put("upstream.base_url", &upstream.base_url);
        self.put_option("upstream.ca_file", upstream.ca_file.as_ref().map(|path| path.display()));
        let key_file = upstream.management_key_file.as_ref().map(|path| path.display());
        self.put_option("upstream.management_key_file", key_file);
        self.put("upstream.budget", upstream.budget);
        self.put("upstream.identity_budget", upstream.identity_budget);
    }

    fn limits(&mut self, limits: LimitsConfig) {
        self.put("limits.connections", limits.connections);
        self.put("limits.connections_per_uid", limits.connections_per_uid);
        self.put("limits.sessions", limits.sessions);
        self.put("limits.open", limits.open);
        self.put("limits.grace", duration_text(limits.grace));
    }

    fn inbox(&mut self, inbox: InboxConfig) {
        self.put("inbox.poll", duration_text(inbox.poll));
        self.put("inbox.idle_poll", duration_text(inbox.idle_poll));
        self.put("inbox.events", inbox.events);
        self.put("inbox.email_per_day", inbox.email_per_day);
        self.put("inbox.sms_per_day", inbox.sms_per_day);
    }

    fn role(&mut self, role: &RoleConfig) {
        let key = |name: &str| format!("role.{}.{name}", role.name);
        match &role.identity {
            IdentityRef::Uuid(uuid) => self.put(&key("identity"), uuid),
            IdentityRef::Name(name) => self.put(&key("identity"), name),
        }
        for (at, matcher) in role.matchers.iter().enumerate() {
            self.put(&key(&format!("match[{at}]")), match_text(matcher));
        }
        self.put_each(&key("scopes"), &role.scopes);
        self.put_each(&key("approve"), &role.approve);
        self.put(&key("approval.wait"), duration_text(role.approval.wait));
        self.put(&key("approval.max_pending"), role.approval.max_pending);
        self.put(&key("approval.session_pending"), role.approval.session_pending);
        self.put(&key("bind"), word(&BINDS, &role.bind));
        self.put(&key("use_by"), word(&USERS, &role.use_by));
        self.put(&key("provision"), role.provision >= Provision::Identity);
        self.put(&key("provision_phone"), role.provision == Provision::WithPhone);
        let inject: Vec<_> = role.inject.iter().map(|delivery| delivery.as_str()).collect();
        self.put(&key("inject"), if inject.is_empty() { "none".to_owned() } else { inject.join(", ") });
        self.put(&key("session.ttl"), duration_text(role.bounds.session_ttl));
        self.put(&key("session.max_live"), role.bounds.session_max_live);
        self.put(&key("lease.default_ttl"), duration_text(role.bounds.lease_default_ttl));
        self.put(&key("lease.max_ttl"), duration_text(role.bounds.lease_max_ttl));
        self.put(&key("lease.max_live"), role.bounds.lease_max_live);
        self.put(&key("rate.read"), role.bounds.read_rate);
        self.put(&key("rate.send"), role.bounds.send_rate);
        self.put(&key("rate.session_read"), role.bounds.session_read_rate);
        self.put(&key("rate.session_send"), role.bounds.session_send_rate);
    }
}

fn match_text(matcher: &MatchConfig) -> String {
    let MatchConfig { uid, gid, exe, exe_sha256, parent_exe, unit, cgroup, foreign } = matcher;
    let named = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let facts = [
        named("uid", uid.map(|uid| uid.to_string())),
        named("gid", gid.map(|gid| gid.to_string())),
        named("exe", path(exe)),
        named("exe_sha256", exe_sha256.map(|hash| hash.to_string())),
        named("parent_exe", path(parent_exe)),
        named("unit", unit.as_ref().map(UnitName::to_string)),
        named("cgroup", cgroup.as_ref().map(CgroupPath::to_string)),
        foreign.then(|| "foreign".to_owned()),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn word<T: PartialEq>(words: &[(&'static str, T)], meant: &T) -> &'static str {
    words.iter().find(|(_, value)| value == meant).map_or("-", |(word, _)| word)
}
