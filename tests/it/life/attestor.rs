//! The attestor as a service of its own: tells what the daemon's child would, to the daemon alone, and may end and
//! be started anew. The test plays the service manager: it holds the listening socket, and starts the program.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use ravi_broker::client::{ErrorReason, OpenSession};
use tempfile::TempDir;

use super::harden::{attestors, give, roles_by_program};
use super::{assert_two_lines, reason};
use crate::support::{Daemon, Setup, Shell, Stack, until};

/// A user without an account and without anything that belongs to it.
const STRANGER: u32 = 65532;
const SOCKET: &str = "RAVI_TEST_ATTESTOR";
const UID: &str = "RAVI_TEST_ATTESTOR_UID";
/// A question for the state of a process: its kind and number, the process, and nothing more.
const STAT: u32 = 6;

/// What the service manager has of the attestor.
struct Service {
    listener: OwnedFd,
    path: PathBuf,
    program: PathBuf,
    uid: u32,
    running: Option<Child>,
}

impl Service {
    /// The socket of this user, with the program not started.
    fn listening(directory: &Path, program: &Path, uid: u32) -> Self {
        let path = directory.join("attestor");
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        Self { listener, path, program: program.to_owned(), uid, running: None }
    }

    /// For a daemon of our own user, started.
    fn of(setup: &mut Setup) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_ravi-brokerd"));
        let mut service = Self::listening(setup.directory(), program, Uid::effective().as_raw());
        service.start();
        setup.arguments.push(format!("--attestor={}", service.path.display()));
        service
    }

    fn start(&mut self) {
        let script = r#"exec 3<&0 </dev/null; exec env LISTEN_PID=$$ "$0" --attest"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(&self.program).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "attestor");
        command.stdin(Stdio::from(self.listener.try_clone().unwrap()));
        if Uid::effective().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, self.uid);
            std::os::unix::process::CommandExt::gid(&mut command, self.uid);
        }
        self.running = Some(command.spawn().unwrap());
    }

    fn signal(&self, signal: Signal) {
        let pid = self.running.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            running.wait().unwrap();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

async fn with_service(change: impl FnOnce(&mut Setup)) -> (Stack, Service) {
    let mut service = None;
    let stack = Stack::with(|setup| {
        change(setup);
        service = Some(Service::of(setup));
    })
    .await;
    (stack, service.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_tells_what_the_child_would() {
    let of_child = Stack::with(roles_by_program).await;
    let (of_service, _service) = with_service(roles_by_program).await;
    assert_eq!(attestors(of_child.daemon.pid()).len(), 1);
    assert!(attestors(of_service.daemon.pid()).is_empty(), "it forked one all the same");
    let mut seen = Vec::new();
    for stack in [&of_child, &of_service] {
        for role in ["program", "notes"] {
            stack.stranger().await.open_session(OpenSession::role(role)).await.unwrap();
        }
        let mut shell = Shell::start(stack);
        shell.succeed("ravi-broker session open --role notes --file ./session").await;
        shell.succeed("sh -c 'ravi-broker get secret/OPENAI_API_KEY --session-file ./session; true'").await;
        let get = "ravi-broker get secret/OPENAI_API_KEY --session-file ./session";
        assert_eq!(Shell::start(stack).run(get).await.status, 4, "a process that is no descendant");
        let records = stack.audit();
        let told = records.iter().filter(|it| it["event"].as_str().unwrap().starts_with("session."));
        // All that is said of a caller, but its number.
        let told =
            told.map(|it| (it["event"].clone(), it["uid"].clone(), it["exe"].clone(), it["cause"].clone()));
        seen.push(told.collect::<Vec<_>>());
        let status = stack.admin().await.status().await.unwrap();
        let of = |name: &str| status.protections.iter().find(|p| p.name.contains(name)).unwrap().full;
        assert!(of("callers looked into by"));
    }
    assert!(seen[0].len() > 3, "{seen:#?}");
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_denies_the_roles_that_need_it_and_no_others() {
    let (stack, service) = with_service(roles_by_program).await;
    let open = async |role| stack.stranger().await.open_session(OpenSession::role(role)).await;
    open("program").await.unwrap();
    service.signal(Signal::SIGSTOP);
    assert_eq!(reason(open("program").await), ErrorReason::RoleNotAvailable);
    open("notes").await.unwrap();
    assert!(stack.daemon.log().contains("the attestor does not answer"));
    service.signal(Signal::SIGCONT);
    until(async || open("program").await.is_ok()).await;
    assert!(stack.daemon.log().contains("the attestor answers again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_costs_no_session_and_one_started_anew_is_found() {
    let (stack, mut service) = with_service(roles_by_program).await;
    let daemon = stack.daemon.pid();
    let by_program = stack.agent("program").await;
    let by_user = stack.agent("notes").await;
    for round in 0..2 {
        service.end();
        let open = async |role| stack.stranger().await.open_session(OpenSession::role(role)).await;
        assert_eq!(reason(open("program").await), ErrorReason::RoleNotAvailable, "{round}");
        assert_eq!(reason(by_program.describe_session().await), ErrorReason::SessionInvalid, "{round}");
        by_user.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
        open("notes").await.unwrap();
        service.start();
        until(async || open("program").await.is_ok()).await;
        by_program.describe_session().await.unwrap();
    }
    assert_eq!(stack.daemon.pid(), daemon);
    assert!(stack.audited("session.ended").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_sent_to_nobody_or_to_another_user_does_not_start() {
    let nobody = |setup: &mut Setup| setup.arguments.push("--attestor=/nonexistent/attestor".into());
    let (setup, _sandbox) = Stack::prepared(nobody).await;
    let said = super::refused(&setup).await;
    assert_two_lines(&said);
    assert!(said.contains("the attestor at /nonexistent/attestor cannot be used"), "{said}");
    if !can_become_others() {
        return;
    }
    // A listener of another user, at a path where ours might have been.
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = place.path().join("attestor");
    let mut impostor = play("listen", &path, STRANGER);
    until(async || path.exists()).await;
    let (setup, _sandbox) =
        Stack::prepared(|setup| setup.arguments.push(format!("--attestor={}", path.display()))).await;
    let said = super::refused(&setup).await;
    impostor.kill().unwrap();
    impostor.wait().unwrap();
    assert!(said.contains("another user listens there"), "{said}");
}

/// Says so where a test cannot be made.
fn can_become_others() -> bool {
    let can = Uid::effective().is_root();
    if !can {
        // Not `eprintln!`, which the test harness would keep to itself.
        let _ = writeln!(std::io::stderr(), "skipped: it takes root to act as another user");
    }
    can
}

/// This test binary again, as another user.
fn play(part: &str, path: &Path, uid: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "life::attestor::plays_a_stranger", "--nocapture"]);
    command.env(SOCKET, format!("{part} {}", path.display())).env(UID, uid.to_string());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn plays_a_stranger() {
    let Ok(asked) = std::env::var(SOCKET) else { return };
    let uid = std::env::var(UID).unwrap().parse().unwrap();
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(uid), Gid::from_raw(uid), Gid::from_raw(uid)).unwrap();
    setresuid(Uid::from_raw(uid), Uid::from_raw(uid), Uid::from_raw(uid)).unwrap();
    let (part, path) = asked.split_once(' ').unwrap();
    let address = UnixAddr::new(path).unwrap();
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
    if part == "listen" {
        bind(socket.as_raw_fd(), &address).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    }
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(30)).unwrap();
    let question: Vec<u8> = [STAT, 1, std::process::id(), 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut answer = [0; 64];
    let heard = connect(socket.as_raw_fd(), &address)
        .and_then(|()| send(socket.as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL))
        .and_then(|_| recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()));
    println!("@heard {heard:?}");
}

fn heard_by(uid: u32, path: &Path) -> String {
    let output = play("ask", path, uid).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.split_once("@heard ")).expect(&text).1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_nothing_whatever_the_mode_of_the_socket() {
    if !can_become_others() {
        return;
    }
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ravi-brokerd"));
    let mut service = Service::listening(place.path(), program, 0);
    service.start();
    let ask =
        async |uid, path: PathBuf| tokio::task::spawn_blocking(move || heard_by(uid, &path)).await.unwrap();
    assert_eq!(ask(STRANGER, service.path.clone()).await, "Err(EACCES)", "by the mode");
    fs::set_permissions(&service.path, fs::Permissions::from_mode(0o666)).unwrap();
    // Errors of a connection that was closed with a question in it.
    let refused = ["Ok(0)", "Err(ECONNRESET)", "Err(EPIPE)"];
    let heard = ask(STRANGER, service.path.clone()).await;
    assert!(refused.contains(&&*heard), "{heard}");
    assert_eq!(ask(0, service.path.clone()).await, "Ok(20)", "its owner is told");
    // Nor does a stranger take the line from the daemon.
    let path = service.path.clone();
    let (setup, _sandbox) =
        Stack::prepared(|setup| setup.arguments.push(format!("--attestor={}", path.display()))).await;
    let daemon = Daemon::start(&setup).await;
    let stack = Stack::of(daemon, setup, _sandbox);
    let heard = ask(STRANGER, service.path.clone()).await;
    assert!(refused.contains(&&*heard), "{heard}");
    stack.agent("notes").await.describe_session().await.unwrap();
    assert!(!stack.daemon.log().contains("the attestor does not answer"));
}

/// Becomes the daemon as another user, in a mount namespace in which `/proc` shows it none but its own.
fn hidden(program: &Path) -> String {
    let become_it = format!(
        "mount -t proc -o hidepid=invisible proc /proc && exec setpriv --reuid={STRANGER} --regid={STRANGER} \
         --clear-groups -- {} \"$@\"",
        program.display()
    );
    format!("exec unshare --mount sh -c '{become_it}' \"$0\" \"$@\"")
}

fn can_hide() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t proc -o hidepid=invisible proc /proc && setpriv --version"])
        .stdout(Stdio::null())
        .status();
    let can = can_become_others() && tried.is_ok_and(|status| status.success());
    if !can {
        let _ = writeln!(std::io::stderr(), "skipped: /proc cannot be mounted to hide processes");
    }
    can
}

/// A daemon of another user that sees no process of ours, and its attestor that does, if it is to have one.
async fn unseeing(attested: bool) -> (Stack, Option<Service>, TempDir) {
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = programs.path().join("ravi-brokerd");
    fs::copy(env!("CARGO_BIN_EXE_ravi-brokerd"), &program).unwrap();
    let mut service = None;
    let (setup, sandbox) = Stack::prepared(|setup| {
        setup.wrapper = Some(hidden(&program));
        if attested {
            let mut attestor = Service::listening(setup.directory(), &program, STRANGER);
            attestor.start();
            setup.arguments.push(format!("--attestor={}", attestor.path.display()));
            service = Some(attestor);
        }
    })
    .await;
    let directory = setup.directory().to_owned();
    let daemon = Daemon::start_with(&setup, |command| {
        give(&directory, STRANGER);
        command.env("PATH", std::env::var("PATH").unwrap_or_default());
    })
    .await;
    (Stack::of(daemon, setup, sandbox), service, programs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_proc_shows_nobody_knows_its_callers_by_the_attestor() {
    if !can_hide() {
        return;
    }
    let (stack, service, _places) = unseeing(true).await;
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", stack.daemon.pid())).unwrap();
    assert!(mounts.contains("hidepid=invisible"), "{mounts}");
    let status = stack.admin().await.status().await.unwrap();
    let of = |name: &str| status.protections.iter().find(|p| p.name.contains(name)).unwrap();
    assert_eq!(of("callers looked into by").tier, "a service of its own");
    assert!(!of("files and network confined").tier.contains("hidepid"), "{:?}", status.protections);

    // Of this process, a session; of another tree, one that its descendants may use and nobody else.
    let agent = stack.agent("notes").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    // In memory, and ours.
    let room = TempDir::new_in(stack.setup.directory().parent().unwrap()).unwrap();
    let file = room.path().join("session");
    let mut shell = Shell::start(&stack);
    shell.succeed(&format!("ravi-broker session open --role notes --file {}", file.display())).await;
    let get = format!("ravi-broker get secret/OPENAI_API_KEY --session-file {}", file.display());
    shell.succeed(&format!("sh -c 'sh -c \"{get}; true\"; true'")).await;
    assert_eq!(Shell::start(&stack).run(&get).await.status, 4);

    // Nothing at all is known of a new caller while it hangs; what is bound to its process goes on.
    let service = service.unwrap();
    service.signal(Signal::SIGSTOP);
    assert!(stack.stranger().await.open_session(OpenSession::role("notes")).await.is_err());
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert!(!stack.admin().await.status().await.unwrap().locked, "the operator is served by the user alone");
    service.signal(Signal::SIGCONT);
    until(async || stack.stranger().await.open_session(OpenSession::role("notes")).await.is_ok()).await;
    shell.succeed(&get).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_proc_shows_nobody_says_so_and_knows_none_without_an_attestor() {
    if !can_hide() {
        return;
    }
    let (stack, _, _places) = unseeing(false).await;
    let log = stack.daemon.log();
    assert!(log.contains("/proc hides the processes of other users"), "{log}");
    let refused = stack.stranger().await.open_session(OpenSession::role("notes")).await;
    assert!(refused.is_err());
    let status = stack.admin().await.status().await.unwrap();
    let reached = status.protections.iter().find(|p| p.name.contains("callers looked into by")).unwrap();
    assert!(!reached.full && reached.tier.contains("hides"), "{}", reached.tier);
}
