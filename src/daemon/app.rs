//! The composition root: reads and judges everything, then binds the sockets.
//!
//! Order matters: the configuration first, then the audit trail, then the process is confined to what
//! these need, then come the keys, and the sockets last. A daemon that cannot do its work safely never
//! listens (I10).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use super::error::{StartError, remedy};
use super::export::Export;
use super::listen::{self, Adopted, Bound, Mode};
use super::scrape::Scrape;
use super::settings::{Loaded, Settings};
use super::{confine, notify};
use crate::audit::AuditFile;
use crate::broker::{Broker, BrokerError, OwnPrograms, Parts};
use crate::clock::Clock;
use crate::config::{
    CallerTier, Config, ConfigError, DispatchConfig, Environment, MemoryConfig, Rate, Variable,
};
use crate::grpc::{Process, Reloaded};
use crate::inbox::dispatch::{Dispatches, OpenError};
use crate::inbox::store::Store;
use crate::limit::UpstreamBudget;
use crate::metrics::{Exposition, Kind};
use crate::peer::PeerTier;
use crate::secret::Secret;
use crate::sys::Protection;
use crate::upstream::{self, HttpUpstream, KeyId};
use crate::vault::Vault;
use crate::vault::arena::Arena;
use crate::vault::keyfile::KeySource;
use crate::vault::keyring::Keyring;

/// In the state directory, beside the audit trail.
const INBOX_FILE: &str = "inbox.db";

/// A daemon that is ready to serve.
pub(super) struct App {
    pub(super) broker: Arc<Broker>,
    pub(super) budget: Arc<UpstreamBudget>,
    pub(super) agent: Bound,
    pub(super) admin: Bound,
    pub(super) scrape: Option<Scrape>,
    pub(super) host: Arc<Host>,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
}

/// What the admin service asks of the process.
pub(super) struct Host {
    broker: Arc<Broker>,
    settings: Settings,
    in_force: Config,
    config_path: PathBuf,
    protections: Vec<Protection>,
    started_at: Timestamp,
    connections: OnceLock<listen::Connections>,
    budget: Arc<UpstreamBudget>,
    upstream: Arc<upstream::Meters>,
    export: Export,
    /// Held for a whole reload, by a signal or by the operator: one at a time.
    reloading: Mutex<()>,
}

impl App {
    /// Builds the daemon. `management_key` is that of an embedded sandbox; `protections` is what hardening
    /// the process reached.
    pub(super) fn build(
        settings: Settings,
        clock: Arc<dyn Clock>,
        management_key: Option<Secret>,
        mut protections: Vec<Protection>,
    ) -> Result<Self, StartError> {
        let started_at = clock.wall();
        let Loaded { config, policy, rules, path } = settings.load()?;
        let arena = Arc::new(memory(config.memory)?);
        protections.push(arena.reached().protection());
        make_directory(&config.audit.file)?;
        let audit = AuditFile::open(&config.audit.file, config.audit.max_bytes, clock.clone())?;
        let store = Store::open(&config.audit.file.with_file_name(INBOX_FILE))?;
        let adopted = listen::adopt()?;
        // Before the process is confined: it can listen on no port afterwards.
        let scrape = config.metrics.listen.map(Scrape::bind).transpose()?;
        protections.extend(confine::to_its_needs(&config, &path, &settings, &adopted)?);
        protections.push(callers(config.listen.require)?);
        let keyring = Arc::new(Keyring::new(arena.clone()));
        let keys = key_source(&config, &settings.environment);
        keys.load(&keyring)?;
        if let Some(key) = management_key {
            keyring.insert(KeyId::Management, &key);
        }
        let budget =
            Arc::new(UpstreamBudget::new(config.upstream.budget, config.upstream.identity_budget, &clock));
        let upstream = ravi(&config, &settings, keyring.clone(), budget.clone(), clock.clone())?;
        let meters = upstream.meters();
        let vault = Vault::new(upstream.clone(), arena.clone(), keyring, clock.clone(), config.vault.clone());
        let dispatches = Dispatches::open(store.clone(), arena.clone(), rules, clock.clone())?;
        let parts = Parts {
            policy,
            vault,
            arena,
            mailbox: upstream.clone(),
            upstream,
            store,
            dispatches,
            keys,
            programs: own_programs(),
            audit: Arc::new(audit),
            clock: clock.clone(),
        };
        let broker = Broker::new(&config, parts);
        let export = Export::new(&config.otlp)?;
        let (agent, admin) = sockets(&config, adopted)?;
        let host = Arc::new(Host {
            broker: broker.clone(),
            settings,
            in_force: config.clone(),
            config_path: path,
            protections,
            started_at,
            connections: OnceLock::new(),
            budget: budget.clone(),
            upstream: meters,
            export,
            reloading: Mutex::new(()),
        });
        Ok(Self { broker, budget, agent, admin, scrape, host, config, clock })
    }
}

impl Host {
    /// Lets `status` count connections.
    pub(super) fn count(&self, connections: listen::Connections) {
        let _ = self.connections.set(connections);
    }

    /// What is kept for a collector.
    pub(super) fn export(&self) -> &Export {
        &self.export
    }

    /// All of the new roles and dispatches, or nothing.
    fn take_over(&self) -> Result<Reloaded, BrokerError> {
        let loaded = self.settings.load().map_err(|error| self.refused(&error))?;
        if loaded.config.needs_restart(&self.in_force) {
            tracing::warn!(
                "only roles and dispatches were reloaded; the other settings that changed need a restart"
            );
        }
        self.reachable(&loaded.config)?;
        let dispatches = self.broker.dispatches();
        dispatches.prepare(&loaded.rules).map_err(|error| self.refused(&OpenError::from(error).into()))?;
        let mut roles: Vec<String> = loaded.policy.roles().map(|role| role.name().to_string()).collect();
        roles.sort();
        let sessions_ended = self.broker.reload(loaded.policy)?;
        dispatches.put(loaded.rules).map_err(|error| {
            tracing::error!(%error, "the new dispatches are not in force");
            BrokerError::Internal
        })?;
        Ok(Reloaded { roles, sessions_ended })
    }

    /// A confined process can connect to no port that it did not name before.
    fn reachable(&self, config: &Config) -> Result<(), BrokerError> {
        let allowed = confine::tcp_ports(&self.in_force);
        let beyond = config.dispatches.iter().filter(|rule| !allowed.contains(&rule.to.port()));
        let problem = |rule: &DispatchConfig| {
            let (line, name, port) = (rule.line, &rule.name, rule.to.port());
            format!("line {line}: dispatch.{name}.to: port {port} is new, and needs a restart of the daemon")
        };
        let problems: Vec<String> = beyond.map(problem).collect();
        if problems.is_empty() {
            return Ok(());
        }
        self.broker.reload_refused();
        let what = "the daemon has confined itself to the ports it knew at its start; restart it".to_owned();
        Err(BrokerError::Configuration { what, problems })
    }

    fn refused(&self, error: &StartError) -> BrokerError {
        self.broker.reload_refused();
        let problems = match error {
            StartError::Config(ConfigError::Invalid { problems, .. }) => {
                problems.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        let what = error.to_string().lines().next().unwrap_or_default().to_owned();
        BrokerError::Configuration { what, problems }
    }
}

impl Process for Host {
    fn reload(&self) -> Result<Reloaded, BrokerError> {
        // Whoever reads the file later also takes it over later.
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        notify::reloading();
        let reloaded = self.take_over();
        match &reloaded {
            Ok(Reloaded { roles, sessions_ended }) => {
                tracing::info!(roles = roles.len(), ended = sessions_ended, "reloaded");
                notify::ready("serving");
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded; the old configuration stays in force");
                if let BrokerError::Configuration { problems, .. } = error {
                    problems.iter().for_each(|problem| tracing::error!("{problem}"));
                }
                notify::ready("serving; the last reload failed");
            }
        }
        reloaded
    }

    fn upstream_budget(&self) -> (Rate, u32) {
        self.budget.left()
    }

    fn write_metrics(&self, page: &mut Exposition) {
        page.family("ravi_broker_build_info", Kind::Gauge, "1, with the version of the daemon.");
        page.sample("ravi_broker_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1_u8);
        let started = u64::try_from(self.started_at.as_second()).unwrap_or_default();
        page.single("ravi_broker_start_time_seconds", Kind::Gauge, "When the daemon started.", started);
        let connections = self.connections();
        page.single("ravi_broker_connections", Kind::Gauge, "Open connections of agents.", connections);
        let (rate, left) = self.budget.left();
        let help = "Calls to Ravi that the budget allows at once.";
        page.single("ravi_broker_upstream_budget_calls", Kind::Gauge, help, rate.count);
        let help = "Until a budget that was used up is whole again.";
        page.single("ravi_broker_upstream_budget_seconds", Kind::Gauge, help, rate.per.as_secs_f64());
        let help = "Calls to Ravi that the budget would let through now.";
        page.single("ravi_broker_upstream_budget_left", Kind::Gauge, help, left);
        let help = "Calls to Ravi that were held back by the budget of all or of one identity.";
        page.single("ravi_broker_upstream_budget_refused_total", Kind::Counter, help, self.budget.refused());
        self.upstream.write(page);
        self.export.write(page);
    }

    fn connections(&self) -> usize {
        self.connections.get().map_or(0, listen::Connections::open)
    }

    fn protections(&self) -> Vec<Protection> {
        self.protections.clone()
    }

    fn config_path(&self) -> PathBuf {
        self.config_path.clone()
    }

    fn started_at(&self) -> Timestamp {
        self.started_at
    }
}

/// How surely callers are known, at least as surely as is required.
fn callers(required: Option<CallerTier>) -> Result<Protection, StartError> {
    let reached = PeerTier::of_host();
    let required = match required {
        None => PeerTier::None,
        Some(CallerTier::Pid) => PeerTier::PidAndStartTime,
        Some(CallerTier::Pidfd) => PeerTier::PidfdAtConnect,
    };
    if reached < required { Err(StartError::Callers) } else { Ok(reached.protection()) }
}

/// The memory for secrets, at least as protected as is required. What falls short of what is wanted is told.
fn memory(config: MemoryConfig) -> Result<Arena, StartError> {
    let arena = Arena::new(config.tier).map_err(|_| StartError::NoRandom)?;
    let reached = arena.reached();
    let Some(shortfall) = reached.shortfall() else { return Ok(arena) };
    match config.require {
        Some(required) if reached.tier() < Some(required) => {
            Err(StartError::Memory { required, reached: reached.tier(), shortfall })
        }
        _ => {
            let (tier, remedy) = (reached.protection().tier, remedy(shortfall));
            tracing::warn!("secrets at rest are less protected than configured: {tier}; {remedy}");
            Ok(arena)
        }
    }
}

/// The command line and the adapter that were installed with this daemon.
fn own_programs() -> OwnPrograms {
    let daemon = std::env::current_exe().ok();
    let beside = |name: &str| daemon.as_ref().map(|daemon| daemon.with_file_name(name));
    OwnPrograms(["ravi-broker", "ravi-broker-mcp"].into_iter().filter_map(beside).collect())
}

/// The state directory belongs to us alone; systemd makes its own before we start.
fn make_directory(file: &Path) -> Result<(), StartError> {
    let Some(directory) = file.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| StartError::StateDirectory { path: directory.to_owned(), source })
}

fn key_source(config: &Config, environment: &Environment) -> KeySource {
    KeySource {
        credentials: environment.path(Variable::CredentialsDirectory),
        management_file: config.upstream.management_key_file.clone(),
        state: environment.path(Variable::StateDirectory),
    }
}

fn ravi(
    config: &Config,
    settings: &Settings,
    keyring: Arc<Keyring>,
    budget: Arc<UpstreamBudget>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<HttpUpstream>, StartError> {
    let ca_pem = match (&settings.upstream_ca, &config.upstream.ca_file) {
        (Some(pem), _) => Some(pem.clone()),
        (None, Some(path)) => {
            Some(std::fs::read(path).map_err(|source| StartError::CaFile { path: path.clone(), source })?)
        }
        (None, None) => None,
    };
    let http = upstream::Settings { base_url: config.upstream.base_url.clone(), ca_pem };
    Ok(Arc::new(HttpUpstream::new(http, keyring, budget, clock)?))
}

fn sockets(config: &Config, adopted: Adopted) -> Result<(Bound, Bound), StartError> {
    let mode = config.listen.group.map_or(Mode::Owner, Mode::Group);
    let agent = match adopted.agent {
        Some(bound) => bound,
        None => listen::bind(&config.listen.agent_socket, mode)?,
    };
    let admin = match adopted.admin {
        Some(bound) => bound,
        None => listen::bind(&config.listen.admin_socket, Mode::Owner)?,
    };
    Ok((agent, admin))
}
