//! From what is written to what is in force: flag, environment, file, default, in this order; then
//! the rules that span several settings.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::origin::{Origin, Origins};
use super::paths::{self, PathError};
use super::raw::{RawConfig, RawInbox, RawMemory, RawRole, Set};
use super::report::Report;
use super::units::duration_text;
use super::values::{base_url, plain_path, socket_path};
use super::{
    ApprovalConfig, AuditConfig, Bind, Bounds, Config, Environment, IdentityRef, InboxConfig, LimitsConfig,
    ListenConfig, Located, MemoryConfig, MemoryTier, Overrides, Provision, Rate, RoleConfig, UpstreamConfig,
    UseBy, Variable, VaultConfig,
};
use crate::types::{BaseUrl, Delivery, IdentityUuid, RoleName};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Decides every setting; mistakes go into `report`.
pub(super) fn resolve(
    raw: RawConfig,
    environment: &Environment,
    overrides: &Overrides,
    report: &Report,
    origins: &mut Origins,
) -> Config {
    let mut deciding = Deciding { environment, overrides, report, origins };
    let RawConfig { upstream, listen, vault, memory, audit, limits, inbox, sight, .. } = raw;
    let (honeytokens, roles, dispatches) = (raw.honeytokens, raw.roles, raw.dispatches);
    deciding.note_each("honeytokens", &honeytokens);
    let (metrics, otlp) = sight.resolve(deciding.report, deciding.origins);
    let config = Config {
        upstream: UpstreamConfig {
            base_url: deciding.base_url(upstream.base_url),
            ca_file: deciding.ca_file(upstream.ca_file),
            management_key_file: deciding
                .optional("upstream.management_key_file", upstream.management_key_file),
            budget: deciding.setting("upstream.budget", upstream.budget, per(300, MINUTE)),
            identity_budget: deciding.setting(
                "upstream.identity_budget",
                upstream.identity_budget,
                per(120, MINUTE),
            ),
        },
        listen: ListenConfig {
            agent_socket: deciding.agent_socket(listen.agent_socket),
            admin_socket: deciding.admin_socket(listen.admin_socket),
            group: deciding.optional("listen.group", listen.group),
            require: deciding.optional("listen.require", listen.require),
        },
        vault: VaultConfig {
            fresh_for: deciding.setting("vault.fresh_for", vault.fresh_for, 5 * MINUTE),
            absent_for: deciding.setting("vault.absent_for", vault.absent_for, Duration::from_secs(10)),
            max_entries: deciding.setting("vault.max_entries", vault.max_entries, 4096),
        },
        memory: deciding.memory(memory),
        audit: AuditConfig {
            file: deciding.audit_file(audit.file),
            max_bytes: deciding.setting("audit.max_bytes", audit.max_bytes, 8 << 20),
        },
        limits: LimitsConfig {
            connections: deciding.setting("limits.connections", limits.connections, 1024),
            connections_per_uid: deciding.setting(
                "limits.connections_per_uid",
                limits.connections_per_uid,
                256,
            ),
            sessions: deciding.setting("limits.sessions", limits.sessions, 1024),
            open: deciding.setting("limits.open", limits.open, per(120, MINUTE)),
            grace: deciding.setting("limits.grace", limits.grace, Duration::from_secs(5)),
        },
        inbox: deciding.inbox(inbox),
        metrics,
        otlp,
        honeytokens,
        roles: roles.into_iter().map(|role| deciding.role(role)).collect(),
        dispatches,
    };
    judge_sockets(&config.listen, report, origins);
    config
}

/// Agents must not reach the operator's socket.
fn judge_sockets(listen: &ListenConfig, report: &Report, origins: &Origins) {
    let decided = !listen.agent_socket.as_os_str().is_empty();
    if decided && listen.agent_socket == listen.admin_socket {
        let line = match origins.of_key("listen.admin_socket") {
            Origin::File(line) => line,
            _ => 0,
        };
        report.add(line, "listen.admin_socket: expected another path than listen.agent_socket");
    }
}

fn per(count: u32, per: Duration) -> Rate {
    Rate { count, per }
}

struct Deciding<'a> {
    environment: &'a Environment,
    overrides: &'a Overrides,
    report: &'a Report,
    origins: &'a mut Origins,
}

impl Deciding<'_> {
    fn setting<T>(&mut self, key: &str, file: Set<T>, default: T) -> T {
        self.optional(key, file).unwrap_or(default)
    }

    fn optional<T>(&mut self, key: &str, file: Set<T>) -> Option<T> {
        let Located { value, line } = file?;
        self.origins.note(key, Origin::File(line));
        Some(value)
    }

    fn note_each(&mut self, key: &str, listed: &[Located<String>]) {
        for (at, item) in listed.iter().enumerate() {
            self.origins.note(&format!("{key}[{at}]"), Origin::File(item.line));
        }
    }

    fn base_url(&mut self, file: Set<BaseUrl>) -> BaseUrl {
        const KEY: &str = "upstream.base_url";
        let flag = self.overrides.base_url.as_deref().map(|url| (url, Origin::Flag("--base-url")));
        let variable = Variable::RaviApiUrl;
        let set = self.environment.raw(variable).map(|url| url.to_str().unwrap_or_default());
        let above = flag.or_else(|| set.map(|url| (url, Origin::Environment(variable.name()))));
        let Some((url, origin)) = above else {
            return self.setting(KEY, file, BaseUrl::default());
        };
        self.origins.note(KEY, origin);
        let name = if let Origin::Flag(name) | Origin::Environment(name) = origin { name } else { KEY };
        base_url(url).unwrap_or_else(|message| {
            self.report.add(0, format!("{name}: {message}"));
            BaseUrl::default()
        })
    }

    /// What is required is wanted, unless less was asked for by name.
    fn memory(&mut self, raw: RawMemory) -> MemoryConfig {
        let line = raw.require.as_ref().map_or(0, |require| require.line);
        let require = self.optional("memory.require", raw.require);
        let tier = self.setting("memory.tier", raw.tier, require.unwrap_or(MemoryTier::Locked));
        if require.is_some_and(|require| require > tier) {
            let message = format!("memory.require: expected at most memory.tier, which is {tier}");
            self.report.add(line, message);
        }
        MemoryConfig { tier, require }
    }

    fn inbox(&mut self, raw: RawInbox) -> InboxConfig {
        let mails = self.setting("inbox.email_per_day", raw.email_per_day, 100);
        let texts = self.setting("inbox.sms_per_day", raw.sms_per_day, 50);
        InboxConfig {
            poll: self.setting("inbox.poll", raw.poll, Duration::from_secs(2)),
            idle_poll: self.setting("inbox.idle_poll", raw.idle_poll, Duration::from_secs(30)),
            events: self.setting("inbox.events", raw.events, false),
            email_per_day: u32::try_from(mails).unwrap_or(u32::MAX),
            sms_per_day: u32::try_from(texts).unwrap_or(u32::MAX),
        }
    }

    fn ca_file(&mut self, file: Set<PathBuf>) -> Option<PathBuf> {
        let flag = self.overrides.ca_file.clone();
        self.flag("upstream.ca_file", "--ca-file", flag, Ok)
            .or_else(|| self.optional("upstream.ca_file", file))
    }

    fn agent_socket(&mut self, file: Set<PathBuf>) -> PathBuf {
        let flag = self.overrides.agent_socket.clone();
        let default = paths::runtime_directory(self.environment).map(|path| paths::agent_socket(&path));
        self.path("listen.agent_socket", ("--agent-socket", flag), file, socket_path, default)
    }

    fn admin_socket(&mut self, file: Set<PathBuf>) -> PathBuf {
        let flag = self.overrides.admin_socket.clone();
        let default = paths::runtime_directory(self.environment).map(|path| paths::admin_socket(&path));
        self.path("listen.admin_socket", ("--admin-socket", flag), file, socket_path, default)
    }

    fn audit_file(&mut self, file: Set<PathBuf>) -> PathBuf {
        let flag = self.overrides.audit_file.clone();
        let default = paths::state_directory(self.environment).map(|path| path.join("audit.jsonl"));
        self.path("audit.file", ("--audit-file", flag), file, Ok, default)
    }

    fn path(
        &mut self,
        key: &str,
        (name, flag): (&'static str, Option<PathBuf>),
        file: Set<PathBuf>,
        check: fn(PathBuf) -> Result<PathBuf, String>,
        default: Result<PathBuf, PathError>,
    ) -> PathBuf {
        let set = self.flag(key, name, flag, check).or_else(|| self.optional(key, file));
        set.unwrap_or_else(|| {
            let checked = default.map_err(|error| error.to_string().replace('\n', ": ")).and_then(check);
            checked.unwrap_or_else(|message| {
                self.report.add(0, format!("{key}: {message}"));
                PathBuf::new()
            })
        })
    }

    /// A path given by a flag, made absolute.
    fn flag(
        &mut self,
        key: &str,
        name: &'static str,
        path: Option<PathBuf>,
        check: fn(PathBuf) -> Result<PathBuf, String>,
    ) -> Option<PathBuf> {
        let path = path?;
        self.origins.note(key, Origin::Flag(name));
        let absolute = std::path::absolute(path).map_err(|_| "expected a path".to_owned());
        let checked = absolute.and_then(|path| plain_path(&path)).and_then(check);
        checked.map_err(|message| self.report.add(0, format!("{name}: {message}"))).ok()
    }

    fn role(&mut self, raw: RawRole) -> RoleConfig {
        let line = raw.line;
        let name = raw.name.unwrap_or_else(|| stand_in_name(line));
        let key = |setting: &str| format!("role.{name}.{setting}");
        for (at, matcher) in raw.matchers.iter().enumerate() {
            self.origins.note(&key(&format!("match[{at}]")), Origin::File(matcher.line));
        }
        self.note_each(&key("scopes"), &raw.scopes);
        self.note_each(&key("approve"), &raw.approve);
        let default_line = raw.lease_default_ttl.as_ref().map(|ttl| ttl.line);
        let lease_max_ttl = self.setting(&key("lease.max_ttl"), raw.lease_max_ttl, HOUR);
        let usual = lease_max_ttl.min(5 * MINUTE);
        let lease_default_ttl = self.setting(&key("lease.default_ttl"), raw.lease_default_ttl, usual);
        if lease_default_ttl > lease_max_ttl {
            let max = duration_text(lease_max_ttl);
            let message =
                format!("{}: expected at most lease.max_ttl, which is {max}", key("lease.default_ttl"));
            self.report.add(default_line.unwrap_or(line), message);
        }
        let provision = self.provision(&name, raw.identity.as_ref(), raw.provision, raw.provision_phone);
        let read_rate = self.setting(&key("rate.read"), raw.read_rate, per(60, MINUTE));
        let send_rate = self.setting(&key("rate.send"), raw.send_rate, per(10, HOUR));
        RoleConfig {
            line,
            identity: self.setting(&key("identity"), raw.identity, stand_in_identity()),
            matchers: raw.matchers.into_iter().map(|matcher| matcher.value).collect(),
            scopes: raw.scopes,
            approve: raw.approve,
            approval: ApprovalConfig {
                wait: self.setting(&key("approval.wait"), raw.approval_wait, 2 * MINUTE),
                max_pending: self.setting(&key("approval.max_pending"), raw.approval_max_pending, 8),
                session_pending: self.setting(
                    &key("approval.session_pending"),
                    raw.approval_session_pending,
                    4,
                ),
            },
            bind: self.setting(&key("bind"), raw.bind, Bind::default()),
            use_by: self.setting(&key("use_by"), raw.use_by, UseBy::default()),
            provision,
            inject: self.setting(&key("inject"), raw.inject, Delivery::INJECTED.to_vec()),
            bounds: Bounds {
                session_ttl: self.setting(&key("session.ttl"), raw.session_ttl, 12 * HOUR),
                session_max_live: self.setting(&key("session.max_live"), raw.session_max_live, 64),
                lease_default_ttl,
                lease_max_ttl,
                lease_max_live: self.setting(&key("lease.max_live"), raw.lease_max_live, 32),
                session_read_rate: self.setting(&key("rate.session_read"), raw.session_read_rate, read_rate),
                session_send_rate: self.setting(&key("rate.session_send"), raw.session_send_rate, send_rate),
                read_rate,
                send_rate,
            },
            name,
        }
    }

    /// What has no name cannot be created, and what is not created gets no telephone.
    fn provision(
        &mut self,
        role: &RoleName,
        identity: Option<&Located<IdentityRef>>,
        create: Set<bool>,
        phone: Set<bool>,
    ) -> Provision {
        let key = |setting: &str| format!("role.{role}.{setting}");
        let (create_line, phone_line) =
            (create.as_ref().map(|set| set.line), phone.as_ref().map(|set| set.line));
        let create = self.setting(&key("provision"), create, false);
        let phone = self.setting(&key("provision_phone"), phone, false);
        let named = identity.is_none_or(|identity| matches!(identity.value, IdentityRef::Name(_)));
        if create && !named {
            let message =
                format!("{}: expected an identity by name: Ravi chooses the UUID", key("provision"));
            self.report.add(create_line.unwrap_or(0), message);
        }
        if phone && !create {
            let message = format!("{}: expected provision = true beside it", key("provision_phone"));
            self.report.add(phone_line.unwrap_or(0), message);
        }
        match (create, phone) {
            (false, _) => Provision::Nothing,
            (true, false) => Provision::Identity,
            (true, true) => Provision::WithPhone,
        }
    }
}

/// Stands where a role's name was refused, so that the rest of the role is judged as well. The
/// report holds a problem then, and the draft is never released.
fn stand_in_name(line: u32) -> RoleName {
    format!("line-{line}").parse().expect("letters, a hyphen and digits are a role name")
}

/// The same for an identity.
fn stand_in_identity() -> IdentityRef {
    IdentityRef::Uuid(IdentityUuid(Uuid::nil()))
}
