//! A real daemon process, a real sandbox over TLS, and clients on real sockets.
//!
//! The daemon is the shipped binary with a configuration file, a credentials directory and nothing else
//! in its environment. It says that it is ready by `sd_notify`, so nothing here sleeps. Every file lies
//! in a directory of the test's own, in memory where the host has `/dev/shm`.

mod bare;
mod confine;
mod daemon;
mod forked;
mod shell;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ravi_broker::client::{AdminClient, AgentClient, OpenSession, Session};
use ravi_broker::sandbox::{Control, Sandbox, SandboxConfig};
use ravi_broker::secret::Secret;
use tempfile::TempDir;

pub(crate) use bare::{Answer, Bare, Ending};
pub(crate) use confine::{Confinement, no_python};
pub(crate) use daemon::{Daemon, bounded, optimised};
pub(crate) use forked::{fork, fork_as, preempt, wait};
pub(crate) use shell::Shell;

/// The identities that the sandbox is seeded with.
pub(crate) const NOTES: &str = "assistant-notes-agent";
pub(crate) const DEPLOY: &str = "deploy-agent";

/// Two roles for whoever runs the tests: `notes` may read little, `deploy` may do most things.
const ROLES: &str = r#"
[role.notes]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read:OPENAI_*", "secret:list:OPENAI_*", "password:read:github.com", "password:list:github.com", "identity:read"]
lease = { default_ttl = "5m", max_ttl = "1h", max_live = 32 }
rate = { read = "6000/min", send = "600/min" }

[role.deploy]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["secret:read", "secret:list", "secret:write", "password:read", "password:list", "password:write", "password:create", "identity:read", "sso:mint"]
lease = { max_live = 2000 }
rate = { read = "60000/min", send = "600/min" }
"#;

/// A daemon with its sandbox.
pub(crate) struct Stack {
    pub(crate) daemon: Daemon,
    pub(crate) setup: Setup,
    sandbox: Option<Sandbox>,
}

/// Where everything of one stack lies, before and after the daemon runs.
pub(crate) struct Setup {
    pub(crate) agent_socket: PathBuf,
    pub(crate) admin_socket: PathBuf,
    pub(crate) audit_file: PathBuf,
    pub(crate) config_file: PathBuf,
    pub(crate) base_url: String,
    /// Whether the daemon gets the management key at its start.
    pub(crate) logged_in: bool,
    /// Lines for `[upstream]`, `[vault]`, `[limits]` and `[audit]` sections.
    pub(crate) sections: String,
    pub(crate) roles: String,
    /// Calls to Ravi in all, and for one identity.
    pub(crate) budget: &'static str,
    pub(crate) identity_budget: &'static str,
    /// More arguments for the daemon.
    pub(crate) arguments: Vec<String>,
    /// Where the daemon keeps a management key that it was given.
    pub(crate) key_file: Option<PathBuf>,
    /// A shell script that prepares the process and becomes the daemon with `exec "$0" "$@"`.
    pub(crate) wrapper: Option<String>,
    directory: TempDir,
}

impl Stack {
    /// A daemon with the roles `notes` and `deploy`, logged in.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, changed before it starts.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (setup, sandbox) = Self::prepared(change).await;
        let daemon = Daemon::start(&setup).await;
        Self { daemon, setup, sandbox: Some(sandbox) }
    }

    /// All but the daemon, for a test that starts it in a way of its own.
    pub(crate) async fn prepared(change: impl FnOnce(&mut Setup)) -> (Setup, Sandbox) {
        let sandbox = Sandbox::start(SandboxConfig::default()).await.expect("the sandbox starts");
        let mut setup = Setup::new(&sandbox);
        change(&mut setup);
        setup.write(&sandbox);
        (setup, sandbox)
    }

    /// A daemon that was started for a prepared setup.
    pub(crate) fn of(daemon: Daemon, setup: Setup, sandbox: Sandbox) -> Self {
        Self { daemon, setup, sandbox: Some(sandbox) }
    }

    /// Tells the daemon to stop, waits for its end, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.daemon.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(self.daemon.ended().await.success(), "{}", self.daemon.log());
        self.daemon = Daemon::start(&self.setup).await;
    }

    /// The hand on the other side: faults, deliveries, counts.
    pub(crate) fn control(&self) -> Control {
        self.sandbox.as_ref().expect("the sandbox runs").control()
    }

    /// A client without a session.
    pub(crate) async fn stranger(&self) -> AgentClient {
        AgentClient::connect(std::slice::from_ref(&self.setup.agent_socket))
            .await
            .expect("the daemon accepts")
    }

    /// A client that has assumed the role; its session is bound to this process.
    pub(crate) async fn agent(&self, role: &str) -> AgentClient {
        self.agent_for(role, None).await
    }

    /// The same with a life of its own.
    pub(crate) async fn agent_for(&self, role: &str, ttl: Option<Duration>) -> AgentClient {
        self.opened(OpenSession { ttl, ..OpenSession::role(role) }).await.1
    }

    /// A session of this process, and a client that uses it.
    pub(crate) async fn opened(&self, open: OpenSession) -> (Session, AgentClient) {
        let client = self.stranger().await;
        let (session, token) = client.open_session(open).await.expect("the role matches");
        (session, client.with_token(token))
    }

    /// A client with a connection of its own that sends this token.
    pub(crate) async fn holder(&self, token: &Secret) -> AgentClient {
        self.stranger().await.with_token(Secret::copy_of(token.expose()))
    }

    /// The operator.
    pub(crate) async fn admin(&self) -> AdminClient {
        AdminClient::connect(std::slice::from_ref(&self.setup.admin_socket))
            .await
            .expect("the daemon accepts")
    }

    /// The lines of the audit trail.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.setup.audit_file).expect("the trail is there");
        // The daemon may be writing the next one.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }

    /// The records of one kind of event.
    pub(crate) fn audited(&self, event: &str) -> Vec<serde_json::Value> {
        self.audit().into_iter().filter(|record| record["event"] == event).collect()
    }

    /// Writes another configuration over the one in force, without telling the daemon.
    pub(crate) fn rewrite(&self, change: impl FnOnce(&str) -> String) {
        let text = fs::read_to_string(&self.setup.config_file).expect("the configuration is there");
        fs::write(&self.setup.config_file, change(&text)).expect("the configuration can be written");
    }
}

/// Asks again until it is so: for what the daemon does by itself and tells nobody.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            // What is asked may wait for nothing, and then nothing else on this thread would run, the bound included.
            tokio::task::yield_now().await;
        }
    };
    bounded(asking).await;
}

/// What was said, without the ids of refused calls: each call has another.
pub(crate) fn without_ids(text: &str) -> String {
    let cut = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).to_owned();
    let mut parts = text.split("den_");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "den_…" + &cut(part))
}

impl Setup {
    fn new(sandbox: &Sandbox) -> Self {
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let directory = directory.expect("a directory for the test");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
        let within = |name: &str| directory.path().join(name);
        Self {
            agent_socket: within("run/broker.sock"),
            admin_socket: within("run/admin.sock"),
            audit_file: within("state/audit.jsonl"),
            config_file: within("config.toml"),
            base_url: sandbox.base_url().to_owned(),
            logged_in: true,
            sections: String::new(),
            roles: ROLES.to_owned(),
            budget: "60000/min",
            identity_budget: "60000/min",
            arguments: Vec::new(),
            key_file: None,
            wrapper: None,
            directory,
        }
    }

    /// The test's own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Credentials as systemd would hand them over.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    fn write(&self, sandbox: &Sandbox) {
        let ca_file = self.directory.path().join("ca.pem");
        fs::write(&ca_file, sandbox.ca_pem().expect("the sandbox speaks TLS"))
            .expect("the CA can be written");
        fs::create_dir_all(self.credentials()).expect("a credentials directory");
        if self.logged_in {
            let key = sandbox.control().management_key().expect("the sandbox has an account");
            let path = self.credentials().join("management-key");
            fs::write(&path, key.expose()).expect("the key can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is private");
        }
        let uid = nix::unistd::geteuid().to_string();
        let text = format!(
            "version = 1\n[upstream]\nbase_url = {:?}\nca_file = {:?}\nbudget = {:?}\nidentity_budget = {:?}\n\
             [listen]\nagent_socket = {:?}\nadmin_socket = {:?}\n{}\n{}",
            self.base_url,
            ca_file,
            self.budget,
            self.identity_budget,
            self.agent_socket,
            self.admin_socket,
            self.sections,
            self.roles.replace("UID", &uid),
        );
        let text = match &self.key_file {
            Some(file) => text.replacen("[listen]", &format!("management_key_file = {file:?}\n[listen]"), 1),
            None => text,
        };
        let text = if text.contains("[audit]") {
            text
        } else {
            format!("{text}\n[audit]\nfile = {:?}\n", self.audit_file)
        };
        fs::write(&self.config_file, text).expect("the configuration can be written");
        fs::set_permissions(&self.config_file, fs::Permissions::from_mode(0o600)).expect("it is private");
    }
}
