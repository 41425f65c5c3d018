//! What the process does not let others do to it, and what it has given up itself: nobody of the same
//! user gets into it, no descriptor survives an exec, nothing is dumped, files and ports are confined,
//! and the attestor lives exactly as long as the daemon.
//!
//! The attacker is this test binary again: it runs the test [`plays_an_attacker`] with its victims in
//! its environment.

use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Gid, Pid, Uid, User, setgroups, setresgid, setresuid};
use ravi_broker::client::{ErrorReason, ImportKeys, OpenSession};
use ravi_broker::secret::Secret;
use tempfile::TempDir;

use super::{assert_two_lines, reason};
use crate::support::{Confinement, Daemon, Setup, Stack, until};

/// A user without an account and without anything that belongs to it.
const STRANGER: u32 = 65532;
const VICTIMS: &str = "RAVI_TEST_VICTIMS";
const UID: &str = "RAVI_TEST_ATTACKER_UID";
type Attack = fn(i32) -> nix::Result<()>;
const ATTACKS: [(&str, Attack); 8] = [
    ("PTRACE_ATTACH", |pid| traced(libc::PTRACE_ATTACH, pid)),
    ("PTRACE_SEIZE", |pid| traced(libc::PTRACE_SEIZE, pid)),
    ("process_vm_readv", read_memory),
    ("pidfd_getfd", take_descriptor),
    ("/proc/PID/mem", |pid| opened(pid, "mem")),
    ("/proc/PID/maps", |pid| opened(pid, "maps")),
    ("/proc/PID/environ", |pid| opened(pid, "environ")),
    ("/proc/PID/fd", |pid| opened(pid, "fd")),
];

#[test]
fn plays_an_attacker() {
    let Ok(victims) = std::env::var(VICTIMS) else { return };
    if let Ok(uid) = std::env::var(UID) {
        let (uid, gid) = (uid.parse().unwrap(), Gid::from_raw(uid.parse().unwrap()));
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(Uid::from_raw(uid), Uid::from_raw(uid), Uid::from_raw(uid)).unwrap();
    }
    // The same attacks on a process that does nothing against them.
    let mut open = Command::new("sleep").arg("1000").spawn().unwrap();
    let open_pid = i32::try_from(open.id()).unwrap();
    for (name, attack) in ATTACKS {
        println!("@open {name}: {:?}", attack(open_pid));
        for victim in victims.split(' ') {
            println!("@hardened {name} on {victim}: {:?}", attack(victim.parse().unwrap()));
        }
    }
    open.kill().unwrap();
    open.wait().unwrap();
}

#[expect(unsafe_code, reason = "no crate at hand wraps ptrace")]
fn traced(request: libc::c_uint, pid: i32) -> nix::Result<()> {
    // SAFETY: neither request takes an address of ours.
    nix::errno::Errno::result(unsafe { libc::ptrace(request, pid, 0, 0) })?;
    // SAFETY: as above; `waitpid` is given no place for a status. So the next attack finds it free.
    unsafe {
        if request == libc::PTRACE_SEIZE {
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        }
        libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
        libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
    }
    Ok(())
}

fn read_memory(pid: i32) -> nix::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let address = maps.split_once('-').and_then(|(from, _)| usize::from_str_radix(from, 16).ok());
    let remote = [RemoteIoVec { base: address.unwrap_or(4096), len: 16 }];
    let mut bytes = [0; 16];
    process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(&mut bytes)], &remote).map(drop)
}

#[expect(unsafe_code, reason = "no crate at hand wraps these calls")]
fn take_descriptor(pid: i32) -> nix::Result<()> {
    // SAFETY: both calls take integers only; what they open is closed with the process.
    unsafe {
        let pidfd = nix::errno::Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        nix::errno::Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0)).map(drop)
    }
}

fn opened(pid: i32, name: &str) -> nix::Result<()> {
    let path = format!("/proc/{pid}/{name}");
    let opened = if name == "fd" { fs::read_dir(path).map(drop) } else { File::open(path).map(drop) };
    opened.map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap()))
}

/// What the attacker said, as `uid` if that is another user than ours.
fn attack(uid: u32, victims: [i32; 2]) -> Vec<String> {
    let mut attacker = Command::new(std::env::current_exe().unwrap());
    attacker.args(["--exact", "life::harden::plays_an_attacker", "--nocapture"]);
    attacker.env(VICTIMS, victims.map(|pid| pid.to_string()).join(" "));
    if Uid::effective().is_root() {
        attacker.env(UID, uid.to_string());
    }
    let output = attacker.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text.lines().filter_map(|line| line.split_once('@')).map(|(_, said)| said.to_owned()).collect()
}

/// The child of this daemon that is the attestor.
fn attestor(daemon: i32) -> i32 {
    attestors(daemon)[0]
}

pub(super) fn attestors(daemon: i32) -> Vec<i32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_its = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(ravi-attestor)") && fields(&stat).get(1) == Some(&daemon.to_string().as_str())
    };
    pids.filter(is_its).collect()
}

/// From the state on.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect())
}

/// Ended, whether or not somebody has taken note of it.
fn has_ended(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| matches!(fields(&stat).first(), None | Some(&("Z" | "X"))))
}

/// Waits for the end of a process that is not our child.
async fn gone(pid: i32) {
    until(async || {
        tokio::task::yield_now().await;
        has_ended(pid)
    })
    .await;
}

/// Gives everything below to the user.
pub(super) fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), uid));
    }
}

/// A daemon that is not root, a place for programs that everybody may run, and its user.
async fn unprivileged(change: impl FnOnce(&mut Setup)) -> (Stack, TempDir, u32) {
    let programs = tempfile::tempdir().unwrap();
    let own = Uid::effective();
    if !own.is_root() {
        return (Stack::with(change).await, programs, own.as_raw());
    }
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = programs.path().join("ravi-brokerd");
    fs::copy(env!("CARGO_BIN_EXE_ravi-brokerd"), &program).unwrap();
    let become_it = format!("exec {} \"$@\"", program.display());
    let change = |setup: &mut Setup| {
        setup.wrapper = Some(become_it);
        change(setup);
    };
    let (setup, sandbox) = Stack::prepared(change).await;
    let directory = setup.directory().to_owned();
    let daemon = Daemon::start_with(&setup, |command| {
        give(&directory, STRANGER);
        command.uid(STRANGER).gid(STRANGER);
    })
    .await;
    (Stack::of(daemon, setup, sandbox), programs, STRANGER)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_of_the_same_user_gets_into_the_daemon_or_its_attestor() {
    let (stack, _programs, uid) = unprivileged(|_| {}).await;
    let daemon = stack.daemon.pid();
    let victims = [daemon, attestor(daemon)];
    let said = tokio::task::spawn_blocking(move || attack(uid, victims)).await.unwrap();
    assert_eq!(said.len(), ATTACKS.len() * 3, "{said:#?}");
    for line in said {
        let (whom, outcome) = (line.starts_with("open"), line.rsplit_once(": ").unwrap().1);
        match whom {
            true => assert_eq!(outcome, "Ok(())", "the attack itself does not work: {line}"),
            false => assert!(matches!(outcome, "Err(EPERM)" | "Err(EACCES)"), "{line}"),
        }
    }
    assert!(!has_ended(victims[0]) && !has_ended(victims[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_of_a_busy_daemon_survives_an_exec() {
    if !Uid::effective().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: it takes root to look into the daemon");
        return;
    }
    // One that is inherited, as from a careless parent.
    let script = r#"exec "$0" "$@" 9</dev/null"#;
    let stack = Stack::with(|setup| setup.wrapper = Some(script.into())).await;
    let mut agents = Vec::new();
    for _ in 0..8 {
        let agent = stack.agent("notes").await;
        agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
        agents.push(agent);
    }
    stack.admin().await.status().await.unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", stack.daemon.pid())).unwrap() {
        let path = entry.unwrap().path();
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        // It may have been closed meanwhile.
        let Ok(info) = fs::read_to_string(&path) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        assert!(number <= 2 || flags & libc::O_CLOEXEC != 0, "{number}: {info}");
        seen.push(number);
    }
    assert!(seen.len() > 20 && seen.contains(&9), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leaves_no_core_whatever_the_limit_of_the_parent() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = Command::new("/bin/sh");
    control.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(directory.path());
    if !control.status().is_ok_and(|status| status.core_dumped()) {
        let _ = writeln!(std::io::stderr(), "skipped: nothing dumps core on this host");
        return;
    }
    let script = r#"ulimit -c unlimited; exec "$0" "$@""#;
    let mut stack = Stack::with(|setup| setup.wrapper = Some(script.into())).await;
    stack.daemon.signal(Signal::SIGABRT);
    let status = stack.daemon.ended().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGABRT), false));
}

/// 0: the kernel has none.
#[expect(unsafe_code, reason = "no crate at hand asks for the version alone")]
fn landlock_abi() -> i64 {
    // SAFETY: with this flag the call takes no memory.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) }.max(0)
}

/// Says so where nothing can be confined.
fn can_confine() -> bool {
    let can = landlock_abi() > 0;
    if !can {
        let _ = writeln!(std::io::stderr(), "skipped: this kernel has no landlock");
    }
    can
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_says_how_far_it_is_confined() {
    let stack = Stack::start().await;
    let status = stack.admin().await.status().await.unwrap();
    let reached = |name: &str| status.protections.iter().find(|p| p.name.contains(name)).unwrap().full;
    assert_eq!(reached("files and network confined"), landlock_abi() >= 6, "{:?}", status.protections);
    assert!(reached("no descriptor survives an exec") && reached("trace processes of other users"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_written_to_where_a_link_leads_that_was_put_there_later() {
    if !can_confine() {
        return;
    }
    let stack = Stack::with(|setup| setup.key_file = Some(setup.directory().join("keys/key"))).await;
    let [keys, outside] = ["keys", "outside"].map(|name| stack.setup.directory().join(name));
    let key = stack.control().management_key().unwrap();
    let import = async || {
        let keys = ImportKeys { management_key: Some(Secret::copy_of(key.expose())), identity_key: None };
        stack.admin().await.import_keys(keys).await
    };
    assert!(import().await.unwrap().persisted && keys.join("key").exists());
    fs::rename(&keys, stack.setup.directory().join("aside")).unwrap();
    fs::DirBuilder::new().mode(0o700).create(&outside).unwrap();
    symlink(&outside, &keys).unwrap();
    assert_eq!(reason(import().await), ErrorReason::ArgumentInvalid);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_not_read_from_where_a_link_leads_that_was_put_there_later() {
    if !can_confine() {
        return;
    }
    let stack = Stack::start().await;
    let outside = TempDir::new().unwrap();
    let (config, elsewhere) = (stack.setup.config_file.clone(), outside.path().join("config.toml"));
    fs::copy(&config, &elsewhere).unwrap();
    fs::remove_file(&config).unwrap();
    symlink(&elsewhere, &config).unwrap();
    stack.admin().await.reload().await.unwrap_err();
    assert!(stack.daemon.log().contains("permission denied"), "{}", stack.daemon.log());
    // The same file where it was.
    fs::remove_file(&config).unwrap();
    fs::copy(&elsewhere, &config).unwrap();
    stack.admin().await.reload().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_daemon_still_finds_hosts_and_users_by_name() {
    let own = User::from_uid(Uid::effective()).unwrap().expect("the user has an account").name;
    let stack = Stack::with(|setup| setup.base_url = setup.base_url.replace("127.0.0.1", "localhost")).await;
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    stack.rewrite(|text| text.replace(&format!("uid = {}", Uid::effective()), &format!("uid = {own:?}")));
    stack.admin().await.reload().await.unwrap();
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_with_an_abstract_name_is_told_by_a_confined_daemon() {
    let (setup, _sandbox) = Stack::prepared(|_| {}).await;
    let name = format!("ravi-broker-manager-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _daemon = Daemon::spawn_with(&setup, |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    let mut bytes = [0; 64];
    let length = tokio::task::block_in_place(|| manager.recv(&mut bytes)).unwrap();
    assert!(bytes[..length].starts_with(b"READY=1\n"));
}

/// A role for this very program, besides one for its user.
pub(super) fn roles_by_program(setup: &mut Setup) {
    let exe = std::env::current_exe().unwrap();
    setup.roles.push_str(&format!(
        "[role.program]\nidentity = \"deploy-agent\"\nmatch = {{ exe = {exe:?} }}\nscopes = [\"secret:read\"]\n"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestor_that_hangs_denies_the_roles_that_need_it_and_no_others() {
    let stack = Stack::with(roles_by_program).await;
    let attestor = Pid::from_raw(attestor(stack.daemon.pid()));
    let open = async |role| stack.stranger().await.open_session(OpenSession::role(role)).await;
    open("program").await.unwrap();
    // What a terminal or a service manager sends to all of a daemon's processes.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(attestor, signal).unwrap();
    }
    open("program").await.unwrap();
    kill(attestor, Signal::SIGSTOP).unwrap();
    assert_eq!(reason(open("program").await), ErrorReason::RoleNotAvailable);
    open("notes").await.unwrap();
    assert!(stack.daemon.log().contains("the attestor does not answer"));
    kill(attestor, Signal::SIGCONT).unwrap();
    until(async || open("program").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_root_sees_what_the_programs_of_its_user_hold() {
    let content = fs::read(env!("CARGO_BIN_EXE_ravi-broker")).unwrap();
    let hash: String = digest(&SHA256, &content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let (stack, programs, uid) = unprivileged(|setup| {
        let other = "00".repeat(32);
        for (role, hash) in [("pinned", &hash), ("other", &other)] {
            setup.roles.push_str(&format!(
                "[role.{role}]\nidentity = \"deploy-agent\"\nmatch = {{ exe_sha256 = {hash:?} }}\nscopes = [\"secret:read\"]\n"
            ));
        }
    })
    .await;
    let program = programs.path().join("ravi-broker");
    fs::copy(env!("CARGO_BIN_EXE_ravi-broker"), &program).unwrap();
    for (role, gets) in [("pinned", true), ("other", false)] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#""$0" "$@"; exit $?"#]).arg(&program);
        command.args(["get", "secret/OPENAI_API_KEY", "--role", role]);
        command.env("RAVI_BROKER_SOCKET", &stack.setup.agent_socket).uid(uid).gid(uid);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let why = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if gets { 0 } else { 4 }), "{role}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_attestor_wipes_and_ends() {
    let mut stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    fs::write(stack.setup.directory().join("log"), "").unwrap();
    kill(Pid::from_raw(attestor(stack.daemon.pid())), Signal::SIGKILL).unwrap();
    let (code, _) = stack.daemon.outcome().await;
    assert_eq!(code, Some(1));
    let log = stack.daemon.log();
    let from = log.find("error: ").unwrap_or_else(|| panic!("{log}"));
    assert_two_lines(&log[from..]);
    assert!(log.contains("the attestor, the daemon's child, has ended"), "{log}");
    assert_eq!(stack.audited("daemon.stopping").len(), 1);
    assert!(!stack.setup.agent_socket.exists() && !stack.setup.admin_socket.exists());
    // Started again it is whole.
    stack.daemon = Daemon::start(&stack.setup).await;
    stack.agent("notes").await.describe_session().await.unwrap();
}

/// Linux before 5.9, and filters that do not know the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_close_range_starts_and_its_attestor_keeps_one_descriptor() {
    const REFUSED: &[libc::c_long] = &[libc::SYS_close_range];
    let withholds = Confinement { memlock: None, refused: (REFUSED, libc::ENOSYS) };
    let (setup, sandbox) = Stack::prepared(|_| {}).await;
    let daemon = Daemon::start_with(&setup, |command| withholds.apply(command)).await;
    let stack = Stack::of(daemon, setup, sandbox);
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let descriptors = format!("/proc/{}/fd", attestor(stack.daemon.pid()));
    assert_eq!(fs::read_dir(descriptors).unwrap().count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestor_does_not_outlive_its_daemon_however_that_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut stack = Stack::start().await;
        let child = attestor(stack.daemon.pid());
        stack.daemon.signal(signal);
        stack.daemon.ended().await;
        gone(child).await;
    }
    // Not even while it does not listen.
    let mut stack = Stack::start().await;
    let child = attestor(stack.daemon.pid());
    kill(Pid::from_raw(child), Signal::SIGSTOP).unwrap();
    stack.daemon.signal(Signal::SIGKILL);
    stack.daemon.ended().await;
    gone(child).await;
}
