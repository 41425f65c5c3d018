//! Sockets and the processes behind them: binding, accepting, attesting. Real sockets, real processes.
//!
//! Other processes are this test binary again: [`Process::start`] runs the test [`plays_another_process`]
//! with a role in its environment. It speaks in lines that begin with `@` and does as its input says.

mod bind;
mod incoming;
mod peer;
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};
use ravi_broker::daemon::listen::{Admission, Connection, Incoming, Limits, Mode, bind};
use ravi_broker::sys::harden::{harden, raise_descriptor_limit};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const ROLE: &str = "RAVI_TEST_ROLE";
const SOCKET: &str = "RAVI_TEST_PATH";
const UID: &str = "RAVI_TEST_UID";
/// A user without an account and without anything that belongs to it.
const STRANGER: u32 = 65533;
/// Who the kernel shows for users that have no number here.
const NOBODY: u32 = 65534;
const WIDE: Limits = Limits { total: 64, per_uid: 64 };
/// Only so that a hang becomes a failure.
const HANG: Duration = Duration::from_secs(20);

#[test]
fn plays_another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = std::env::var_os(SOCKET).map(PathBuf::from).unwrap_or_default();
    if let Ok(uid) = std::env::var(UID) {
        become_user(uid.parse().unwrap());
    }
    match role.as_str() {
        "connect" => play_client(&socket),
        "connect in a session of its own" => {
            setsid().unwrap();
            play_client(&socket);
        }
        "connect and become another" => play_dropper(&socket),
        "connect what it was given" => peer::play_connector(&socket),
        "connect and exit" => drop(UnixStream::connect(&socket).unwrap()),
        "start a client and leave" => play_parent(&socket),
        "bind" => bind::play_daemon(&socket),
        "bind with an open umask" => bind::play_careless_daemon(&socket),
        "accept without descriptors" => incoming::play_starved_daemon(&socket),
        "accept once" => incoming::play_server(&socket),
        "adopt" => incoming::play_activated_daemon(),
        "harden" => process::play_hardened(&socket),
        "lock without a budget" => process::play_unlocked(),
        "notify" => process::play_notifier(),
        "panic" => process::play_panic(),
        _ => panic!("no such role"),
    }
}

/// Connects, says so, and stays until the other side closes.
fn play_client(socket: &Path) {
    match UnixStream::connect(socket) {
        Ok(mut stream) => {
            say("connected");
            let _ = stream.read(&mut [0]);
        }
        Err(error) => say(&format!("refused: {:?}", error.kind())),
    }
}

/// Connects, gives up its user, and speaks.
fn play_dropper(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    become_user(STRANGER);
    stream.write_all(b"PRI").unwrap();
    say("spoken");
    listen_for_a_line();
}

/// Starts a client and, when told, ends before it does.
fn play_parent(socket: &Path) {
    let role = "connect in a session of its own";
    // It outlives the pipe, and its test harness would complain of that.
    let mut child = command(role, socket).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    say(&child.id().to_string());
    listen_for_a_line();
    assert!(child.try_wait().unwrap().is_none(), "the client has ended too early");
}

fn become_user(uid: u32) {
    setgroups(&[]).unwrap();
    let gid = Gid::from_raw(uid);
    setresgid(gid, gid, gid).unwrap();
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid).unwrap();
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

fn listen_for_a_line() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// This test binary, about to play a role.
fn command(role: &str, socket: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "socket::plays_another_process", "--nocapture"]);
    command.env(ROLE, role).env(SOCKET, socket);
    command
}

/// Another process; killed and reaped when dropped.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, socket: &Path) -> Self {
        Self::run(command(role, socket))
    }

    fn start_as(uid: u32, role: &str, socket: &Path) -> Self {
        let mut command = command(role, socket);
        command.env(UID, uid.to_string());
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::run_with_its_input(command)
    }

    fn run_with_its_input(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), output, child }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the role says. The test harness of the process talks as well.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process ended without a word");
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return said.to_owned();
            }
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Lets it go on to its end, and waits for that.
    fn finish(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that other users may pass through, and a socket path in it.
fn room() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = directory.path().join("broker.sock");
    (directory, socket)
}

/// A bound socket that accepts.
fn accepting(socket: &Path, admission: Admission, limits: Limits) -> Incoming {
    let bound = bind(socket, Mode::Owner).unwrap();
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o666)).unwrap();
    Incoming::new(bound, admission, limits, CancellationToken::new()).unwrap()
}

async fn next(incoming: &mut Incoming) -> Connection {
    let next = tokio::time::timeout(HANG, incoming.next()).await;
    next.expect("nobody was accepted").expect("the stream has ended").expect("cannot fail")
}

/// Some rules take a second user to see. Says so where there is none.
fn can_become_others() -> bool {
    let can = Uid::effective().is_root();
    if !can {
        // Not `eprintln!`, which the test harness would keep to itself.
        let _ = writeln!(std::io::stderr(), "skipped: it takes root to act as another user");
    }
    can
}
