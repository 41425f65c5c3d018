//! The processes of the demo and the directory they share. Everything ends when the stage is dropped.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Under this name the program is the daemon.
pub const DAEMON: &str = "ravi-brokerd";
/// Under this name the program is the stand-in for Ravi.
pub const SANDBOX: &str = "ravi-sandbox";
/// The agents, each an executable of its own.
pub(super) const NOTES: &str = "notes-agent";
pub(super) const DEPLOY: &str = "deploy-agent";
/// Where the identity of the first agent is reached.
pub(super) const NOTES_PHONE: &str = "+12025550111";
pub(super) const NOTES_EMAIL: &str = "assistant-notes-agent@agents.sandbox.example";
/// A daemon that is not ready by then will not be.
const START_LIMIT: Duration = Duration::from_secs(5);
/// A mail is noticed within two seconds and a little.
const WAKE_LIMIT: Duration = Duration::from_millis(2_600);

/// A running sandbox and daemon.
pub(super) struct Stage {
    daemon: Child,
    sandbox: Child,
    /// Where Ravi's stand-in listens.
    pub(super) base_url: String,
    /// Where messages wake an agent.
    pub(super) callback: Callback,
    directory: Directory,
    programs: Directory,
    /// Kept open: the daemon tells of its end as well.
    _notifications: UnixDatagram,
}

impl Stage {
    /// Starts the sandbox, then the daemon, and waits until both are ready.
    pub(super) fn set() -> Result<Self> {
        let directory = Directory::make(&memory())?;
        let programs = copy_agents()?;
        let callback = Callback::listen()?;
        let (mut sandbox, base_url) = start_sandbox(&directory.0)?;
        match start_daemon(&directory.0, &programs.0, &base_url, &callback) {
            Ok((daemon, notifications)) => Ok(Self {
                daemon,
                sandbox,
                base_url,
                callback,
                directory,
                programs,
                _notifications: notifications,
            }),
            Err(error) => {
                end(&mut sandbox);
                Err(error)
            }
        }
    }

    /// Runs a command of the operator to its end.
    pub(super) fn operator(&self, arguments: &[&str]) -> Result<Output> {
        self.run(&std::env::current_exe()?, arguments)
    }

    /// Runs a command of an agent to its end.
    pub(super) fn agent(&self, agent: &str, arguments: &[&str]) -> Result<Output> {
        self.run(&self.program(agent), arguments)
    }

    /// Starts a command of an agent whose output is read while it runs.
    pub(super) fn watch(&self, agent: &str, arguments: &[&str]) -> Result<Watched> {
        let mut command = self.command(&self.programs.0.join(agent), arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Watched { child, lines })
    }

    /// The program of an agent.
    pub(super) fn program(&self, agent: &str) -> PathBuf {
        self.programs.0.join(agent)
    }

    /// A file that two commands share.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// Tells the daemon to stop, and waits for it.
    pub(super) fn stop_daemon(&mut self) -> Result<bool> {
        kill(pid(&self.daemon), Signal::SIGTERM)?;
        Ok(self.daemon.wait()?.success())
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(program, arguments).output()?)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("XDG_RUNTIME_DIR", &self.directory.0).stdin(Stdio::null());
        command.arg("--socket").arg(self.file("broker.sock"));
        command.arg("--admin-socket").arg(self.file("admin.sock"));
        command.args(arguments);
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        end(&mut self.daemon);
        end(&mut self.sandbox);
    }
}

/// A command whose lines are read while it runs; ended when dropped.
pub(super) struct Watched {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watched {
    /// The next line that it prints.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A directory of our own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn make(parent: &Path) -> Result<Self> {
        let path =
            parent.join(format!("ravi-broker-demo-{}-{}", std::process::id(), parent.components().count()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Session files belong in memory.
fn memory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let shared = || Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
    runtime.or_else(shared).unwrap_or_else(std::env::temp_dir)
}

/// Copies of this program under the agents' names, in a directory whose programs may be run.
fn copy_agents() -> Result<Directory> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program lies in a directory")?;
    for parent in [std::env::temp_dir().as_path(), beside] {
        let programs = Directory::make(parent)?;
        for agent in [NOTES, DEPLOY] {
            let copy = programs.0.join(agent);
            fs::copy(&own, &copy).context("an agent's program cannot be copied")?;
            fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        }
        let mut trial = Command::new(programs.0.join(NOTES));
        if trial.arg("--version").env_clear().stdout(Stdio::null()).status().is_ok_and(|ran| ran.success()) {
            return Ok(programs);
        }
    }
    bail!("no directory for the agents' programs: the temporary one does not let programs run")
}

fn start_sandbox(directory: &Path) -> Result<(Child, String)> {
    let mut command = part(SANDBOX)?;
    command.args(["--auto-approve", "--format", "json", "--ca-dir"]).arg(directory);
    let mut child = command.stdout(Stdio::piped()).spawn().context("the sandbox cannot be started")?;
    let mut ready = String::new();
    let out = child.stdout.take().context("no pipe")?;
    BufReader::new(out.take(4096)).read_line(&mut ready)?;
    let ready: serde_json::Value = serde_json::from_str(&ready).context("the sandbox did not start")?;
    let base_url = ready["base_url"].as_str().context("the sandbox did not say where it is")?.to_owned();
    Ok((child, base_url))
}

fn start_daemon(
    directory: &Path,
    programs: &Path,
    base_url: &str,
    callback: &Callback,
) -> Result<(Child, UnixDatagram)> {
    let config = directory.join("config.toml");
    let text = configuration(directory, programs, base_url) + &callback.rule();
    fs::write(&config, text)?;
    let notify = directory.join("notify.sock");
    let notifications = UnixDatagram::bind(&notify)?;
    notifications.set_read_timeout(Some(START_LIMIT))?;
    let mut command = part(DAEMON)?;
    command.env("NOTIFY_SOCKET", &notify).env("RAVI_BROKER_LOG", "warn").arg("--config").arg(&config);
    let mut child = command.spawn().context("the daemon cannot be started")?;
    if notifications.recv(&mut [0; 4096]).is_err() {
        end(&mut child);
        bail!("the daemon did not become ready");
    }
    Ok((child, notifications))
}

/// This program under another name, in an empty environment.
fn part(name: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(OsStr::new(name)).env_clear().stdin(Stdio::null());
    Ok(command)
}

fn configuration(directory: &Path, programs: &Path, base_url: &str) -> String {
    let file = |name: &str| directory.join(name).display().to_string();
    let (uid, agents) = (geteuid(), programs.display());
    format!(
        r#"version = 1

[upstream]
base_url = {base_url:?}
ca_file = {ca:?}

[listen]
agent_socket = {agent:?}
admin_socket = {admin:?}

[audit]
file = {audit:?}

[role.{NOTES}]
identity = "assistant-notes-agent"
match = {{ uid = {uid}, exe = "{agents}/{NOTES}" }}
scopes = ["secret:read:OPENAI_*", "secret:list:OPENAI_*", "identity:read", "sms:await"]
rate = {{ read = "12/min" }}

[role.{DEPLOY}]
identity = "deploy-agent"
match = {{ uid = {uid}, exe = "{agents}/{DEPLOY}" }}
scopes = ["secret:read", "secret:list", "password:read:github.com", "identity:read", "sso:mint", "sms:send:+1*", "email:send:*@agents.sandbox.example"]

[inbox]
idle_poll = "2s"
"#,
        ca = file("ca.pem"),
        agent = file("broker.sock"),
        admin = file("admin.sock"),
        audit = file("audit.jsonl"),
    )
}

/// Plays the program that starts agents: takes one message over HTTP on loopback.
pub(super) struct Callback(TcpListener);

impl Callback {
    fn listen() -> Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))
    }

    pub(super) fn address(&self) -> String {
        let port = self.0.local_addr().map_or(0, |address| address.port());
        format!("http://127.0.0.1:{port}/external/sessions/notes/messages")
    }

    fn rule(&self) -> String {
        format!(
            "\n[[dispatch]]\nidentity = \"assistant-notes-agent\"\non = \"email\"\nto = {:?}\n",
            self.address()
        )
    }

    /// Waits a little for a message and takes it.
    pub(super) fn told(&self) -> Result<Option<String>> {
        let Some((mut stream, _)) = self.accept_in_time()? else { return Ok(None) };
        stream.set_read_timeout(Some(START_LIMIT))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line)? > 2 {
            let header = line.to_ascii_lowercase();
            if let Some(number) = header.strip_prefix("content-length:") {
                length = number.trim().parse().context("a length")?;
            }
            line.clear();
        }
        let mut body = String::new();
        reader.take(length).read_to_string(&mut body)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        Ok(Some(body))
    }

    fn accept_in_time(&self) -> Result<Option<(TcpStream, SocketAddr)>> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(WAKE_LIMIT).context("a timeout")?;
        let told = poll(&mut ready, limit)?;
        if told == 0 { Ok(None) } else { Ok(Some(self.0.accept()?)) }
    }
}

fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())
}
