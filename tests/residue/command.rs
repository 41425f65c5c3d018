//! The command line: driven by a shell, and looked at in the moment of its exit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use ravi_broker::client::{OpenSession, SessionFile};

use crate::canary::Kind;
use crate::census::Census;
use crate::files::HANDED_OVER;
use crate::frozen::Frozen;
use crate::memory::may_look;
use crate::scan::Scanner;
use crate::stage::Stage;
use crate::support::Shell;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ravi-broker");

/// The agent's and the operator's commands under a session of the shell's own. Returns the shell.
pub(crate) async fn drive(stage: &mut Stage) -> Shell {
    let value = stage.fresh(Kind::Written);
    hand_over(stage, "value", value.expose());
    stage.plant_secret("SHELL");
    let mut shell = Shell::start(&stage.stack);
    let session = format!("{HANDED_OVER}/session");
    shell.succeed(&format!("ravi-broker session open --role notes --file {session}")).await;
    let file = SessionFile::read(&stage.stack.setup.directory().join(&session)).unwrap();
    stage.saw(Kind::SessionToken, file.token.expose());
    shell.succeed(&format!("export RAVI_BROKER_SESSION_FILE={session}")).await;
    shell
        .succeed(&format!("export RAVI_BROKER_ADMIN_SOCKET={}", stage.stack.setup.admin_socket.display()))
        .await;
    let acquired = shell.succeed("ravi-broker lease acquire secret/SHELL --with-value --format json").await;
    let acquired: serde_json::Value = serde_json::from_str(&acquired).expect("a document");
    let lease =
        acquired["lease_id"].as_str().or_else(|| acquired["lease"]["lease_id"].as_str()).expect("its id");
    for line in [
        "get secret/SHELL",
        "get secret/SHELL --role notes",
        "get password/github.com/notes-agent --field username",
        &format!("lease read {lease}"),
        &format!("lease renew {lease}"),
        "lease list",
        &format!("lease release {lease}"),
        "list secrets",
        "list passwords",
        &format!("set secret/SHELL_SET < {HANDED_OVER}/value"),
        "delete secret/SHELL_SET",
        "password create shell.example --username canary",
        &format!("password update password/shell.example/canary --stdin < {HANDED_OVER}/value"),
        "password update password/shell.example/canary",
        "password delete password/shell.example/canary",
        "whoami",
        "session show",
        "status",
        "audit tail -n 20",
    ] {
        shell.succeed(&format!("ravi-broker {line}")).await;
    }
    for line in
        ["get secret/ABSENT", "get secret/SHELL --role few", &format!("lease read {lease}"), "get nothing"]
    {
        assert_ne!(shell.run(&format!("ravi-broker {line}")).await.status, 0, "{line}");
    }
    shell
}

/// A file for a program's standard input.
fn hand_over(stage: &Stage, name: &str, text: &str) {
    let path = stage.stack.setup.directory().join(HANDED_OVER).join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_ends_without_a_copy_of_what_it_printed() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    stage.plant_password(crate::support::NOTES, "github.com", "notes-agent");
    // A session of this process is one of its children too.
    let (session, token) =
        stage.stack.stranger().await.open_session(OpenSession::role("notes")).await.unwrap();
    stage.saw(Kind::SessionToken, token.expose());
    let path = stage.stack.setup.directory().join(HANDED_OVER).join("session");
    SessionFile::new(&stage.stack.setup.agent_socket, &session, token).write(&path).unwrap();
    let written = stage.fresh(Kind::Written);
    hand_over(&stage, "value", written.expose());
    let mut failures = String::new();
    let all = [
        ("get secret/CANARY --role notes", None),
        ("get password/github.com/notes-agent --role notes", None),
        ("get secret/CANARY", None),
        ("lease acquire secret/CANARY --with-value --format json", None),
        ("set secret/WRITTEN", Some("value")),
        ("password update password/github.com/notes-agent --stdin", Some("value")),
        ("get secret/ABSENT", None),
    ];
    for (line, input) in all {
        let mut command = Command::new(PROGRAM);
        command.args(line.split_whitespace()).env_clear().current_dir(stage.stack.setup.directory());
        command.env("XDG_RUNTIME_DIR", stage.stack.setup.directory());
        command.env("RAVI_BROKER_SOCKET", &stage.stack.setup.agent_socket);
        if !line.contains("--role") {
            command.env("RAVI_BROKER_SESSION_FILE", &path);
        }
        let input = input.map(|name| stage.stack.setup.directory().join(HANDED_OVER).join(name));
        command.stdin(input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let scanner = Scanner::new(&stage.canaries);
        let daemon = stage.stack.daemon.pid();
        let (census, outcome) =
            tokio::task::spawn_blocking(move || at_exit(command, daemon, &scanner)).await.unwrap();
        assert_eq!(outcome == Some(0), !line.contains("ABSENT"), "{line}");
        if !census.is_clean() {
            failures += &format!("{line}:\n{census}");
        }
    }
    assert!(failures.is_empty(), "copies were left at the exit:\n{failures}");
}

/// Runs a command, and searches its memory when it is about to exit, with nothing freed by the kernel yet.
/// The daemon stands still until the command is traced. All of this belongs to one thread: the tracer.
pub(crate) fn at_exit(mut command: Command, daemon: i32, scanner: &Scanner) -> (Census, Option<i32>) {
    let held = Frozen::new(daemon);
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).expect("it waits for the daemon");
    drop(held);
    loop {
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceEvent(_, _, event) if event == ptrace::Event::PTRACE_EVENT_EXIT as i32 => break,
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).unwrap(),
            WaitStatus::PtraceEvent(..) => ptrace::cont(pid, None::<Signal>).unwrap(),
            ended => panic!("it ended before it could be looked at: {ended:?}"),
        }
    }
    let mut census = Census::of_stopped(pid.as_raw(), scanner);
    for name in ["environ", "cmdline"] {
        let path = format!("/proc/{pid}/{name}");
        census.add(scanner, &path, &fs::read(&path).expect("it is still there"));
    }
    ptrace::cont(pid, None::<Signal>).unwrap();
    (census, child.wait().unwrap().code())
}
