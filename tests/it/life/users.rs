//! What other users can do: nothing, unless the sockets' group lets them connect. Takes root to see.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::Uid;
use tempfile::TempDir;
use tokio::process::Command;

use super::assert_two_lines;
use crate::support::{Setup, Stack, bounded};

/// A user without an account and without anything that belongs to it.
const STRANGER: u32 = 65533;
/// A group of the same kind.
const GROUP: u32 = 65531;

/// Says so where a test cannot be made.
fn can_become_others() -> bool {
    let can = Uid::effective().is_root();
    if !can {
        // Not `eprintln!`, which the test harness would keep to itself.
        let _ = writeln!(std::io::stderr(), "skipped: it takes root to act as another user");
    }
    can
}

/// The programs at a place that every user can reach.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for program in [env!("CARGO_BIN_EXE_ravi-broker"), env!("CARGO_BIN_EXE_ravi-brokerd")] {
            let program = Path::new(program);
            let place = directory.path().join(program.file_name().unwrap());
            if fs::hard_link(program, &place).is_err() {
                fs::copy(program, &place).unwrap();
            }
        }
        Self(directory)
    }

    /// The program, to be run as the stranger.
    fn of_stranger(&self, name: &str, gid: u32) -> Command {
        let mut command = Command::new(self.0.path().join(name));
        command.env_clear().current_dir("/").uid(STRANGER).gid(gid).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// Exit code and standard error.
async fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = bounded(command.output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Sockets in a directory that everybody may pass through, so that only they themselves keep anybody out.
fn in_the_open(setup: &mut Setup, directory: &Path) {
    let run = directory.join("run");
    fs::DirBuilder::new().mode(0o755).create(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    (setup.agent_socket, setup.admin_socket) = (run.join("broker.sock"), run.join("admin.sock"));
}

fn mode(path: &Path) -> (u32, u32) {
    let stat = fs::metadata(path).unwrap();
    (stat.mode() & 0o777, stat.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_cannot_connect_to_sockets_of_mode_0600() {
    let programs = Programs::new();
    let stack = Stack::with(|setup| in_the_open(setup, programs.0.path())).await;
    assert_eq!(mode(&stack.setup.agent_socket).0, 0o600);
    assert_eq!(mode(&stack.setup.admin_socket).0, 0o600);
    if !can_become_others() {
        return;
    }
    let agent = stack.setup.agent_socket.to_str().unwrap();
    let mut get = programs.of_stranger("ravi-broker", STRANGER);
    let (code, said) = run(get.args(["get", "secret/A", "--role", "notes", "--socket", agent])).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("permission denied") && said.contains("join the group"), "{said}");
    let admin = stack.setup.admin_socket.to_str().unwrap();
    let mut status = programs.of_stranger("ravi-broker", STRANGER);
    let (code, said) = run(status.args(["status", "--admin-socket", admin])).await;
    assert_eq!(code, Some(3), "{said}");
    assert_two_lines(&said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_may_connect_and_still_needs_a_role_and_never_the_admin_socket() {
    if !can_become_others() {
        return;
    }
    let programs = Programs::new();
    let stack = Stack::with(|setup| {
        in_the_open(setup, programs.0.path());
        // In the section that is open at this place: [listen].
        setup.sections = format!("group = {GROUP}\n");
    })
    .await;
    assert_eq!(mode(&stack.setup.agent_socket), (0o660, GROUP));
    assert_eq!(mode(&stack.setup.admin_socket).0, 0o600);
    let agent = stack.setup.agent_socket.to_str().unwrap();
    let get = ["get", "secret/OPENAI_API_KEY", "--role", "notes", "--socket", agent];
    let (code, said) = run(programs.of_stranger("ravi-broker", GROUP).args(get)).await;
    // Through the door, and refused by the role's match.
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("no such role"), "{said}");
    let denied = &stack.audited("session.denied")[0];
    assert_eq!((&denied["uid"], &denied["cause"]), (&STRANGER.into(), &"role_mismatch".into()));
    let (code, said) = run(programs.of_stranger("ravi-broker", STRANGER).args(get)).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("permission denied"), "{said}");
    let admin = stack.setup.admin_socket.to_str().unwrap();
    let status = ["status", "--admin-socket", admin];
    assert_eq!(run(programs.of_stranger("ravi-broker", GROUP).args(status)).await.0, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_socket_refuses_another_user_whatever_its_mode() {
    if !can_become_others() {
        return;
    }
    let programs = Programs::new();
    let stack = Stack::with(|setup| in_the_open(setup, programs.0.path())).await;
    let admin = stack.setup.admin_socket.clone();
    fs::set_permissions(&admin, fs::Permissions::from_mode(0o666)).unwrap();
    let status = ["status", "--admin-socket", admin.to_str().unwrap()];
    let lock = ["lock", "--admin-socket", admin.to_str().unwrap()];
    for arguments in [status, lock] {
        let (code, said) = run(programs.of_stranger("ravi-broker", STRANGER).args(arguments)).await;
        assert_eq!(code, Some(3), "{said}");
        assert_two_lines(&said);
    }
    assert!(!stack.admin().await.status().await.unwrap().locked);
}

/// A daemon of another user, or of this one where there is no other.
fn lonely_daemon(programs: &Programs) -> Command {
    if Uid::effective().is_root() {
        return programs.of_stranger("ravi-brokerd", STRANGER);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ravi-brokerd"));
    command.env_clear().current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_directory_it_does_not_start_and_does_not_fall_back() {
    let programs = Programs::new();
    let config = programs.0.path().join("config.toml");
    fs::write(&config, "version = 1\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let mut daemon = lonely_daemon(&programs);
    let (code, said) = run(daemon.arg("--config").arg(&config).env("HOME", "/nonexistent")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no runtime directory for the sockets"), "{said}");
    assert!(said.contains("XDG_RUNTIME_DIR"), "{said}");
    assert!(!said.contains("/tmp/ravi"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_it_says_where_it_looked() {
    if Path::new("/etc/ravi-broker/config.toml").exists() {
        return; // This machine has a daemon of its own.
    }
    let programs = Programs::new();
    let home = PathBuf::from("/nonexistent/home");
    let (code, said) = run(lonely_daemon(&programs).env("HOME", &home)).await;
    assert_eq!(code, Some(1), "{said}");
    assert_two_lines(&said);
    for place in ["/nonexistent/home/.config/ravi-broker/config.toml", "/etc/ravi-broker/config.toml"] {
        assert!(said.contains(place), "{said}");
    }
    assert!(said.contains("ravi-broker config example"), "{said}");
    // One that was named has no stand-in.
    let (code, said) = run(lonely_daemon(&programs).args(["--config", "/nonexistent/named.toml"])).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("looked for /nonexistent/named.toml\n"), "{said}");
}
