//! The memory that secrets rest in: what a host can withhold, and how loudly that is told; what root
//! cannot read; how many values a usual limit has room for.

use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use ravi_broker::config::MemoryTier;
use ravi_broker::secret::Secret;
use ravi_broker::sys::locked::{LockedBytes, Shortfall};
use ravi_broker::vault::arena::Arena;

use super::assert_two_lines;
use crate::support::{Confinement, Daemon, Shell, Stack};

/// The limit that the memory is promised to fit into: systemd's default, and that of most hosts.
const USUAL_LIMIT: rlim_t = 8 << 20;
const MEMFD_SECRET: &[libc::c_long] = &[libc::SYS_memfd_secret];
const LOCKS: &[libc::c_long] = &[libc::SYS_mlock, libc::SYS_mlock2];

/// A host that withholds something, and what the daemon makes of it.
struct Host {
    withholds: Confinement,
    /// What is wanted, and what would be required in vain.
    tier: &'static str,
    /// What `status` says.
    reached: &'static str,
    /// What the operator is told to do.
    remedy: &'static str,
}

fn withheld_limit(memlock: rlim_t) -> Confinement {
    Confinement { memlock: Some(memlock), refused: (&[], 0) }
}

fn withheld_calls(calls: &'static [libc::c_long], error: libc::c_int) -> Confinement {
    Confinement { memlock: None, refused: (calls, error) }
}

/// Starts on the host as it is, loudly; and under `memory.require` not at all.
async fn falls_back(host: Host) {
    let Host { withholds, tier, reached, remedy } = host;
    let section = format!("[memory]\ntier = \"{tier}\"\n");
    let (setup, sandbox) = Stack::prepared(|setup| setup.sections = section).await;
    let daemon = Daemon::start_with(&setup, |command| withholds.apply(command)).await;
    let stack = Stack::of(daemon, setup, sandbox);
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let status = stack.admin().await.status().await.unwrap();
    let told = status.protections.iter().find(|protection| protection.name == "secrets at rest").unwrap();
    assert_eq!((told.tier.as_str(), told.full), (reached, false));
    let admin = stack.setup.admin_socket.display();
    let page = Shell::start(&stack).succeed(&format!("ravi-broker status --admin-socket {admin}")).await;
    assert!(page.lines().any(|line| line.contains("secrets at rest") && line.contains(reached)), "{page}");
    let log = stack.daemon.log();
    let warned = |line: &&str| line.contains("WARN") && line.contains(reached) && line.contains(remedy);
    assert_eq!(log.lines().filter(warned).count(), 1, "{log}");

    let section = format!("[memory]\nrequire = \"{tier}\"\n");
    let (setup, _sandbox) = Stack::prepared(|setup| setup.sections = section).await;
    let mut daemon = Daemon::spawn_with(&setup, |command| {
        withholds.apply(command);
        command.env("RAVI_BROKER_LOG", "error");
    });
    let (code, said) = daemon.outcome().await;
    assert_eq!(code, Some(1), "{said}");
    assert_two_lines(&said);
    assert!(said.contains(&format!("memory.require is \"{tier}\"")) && said.contains(remedy), "{said}");
    assert!(!setup.agent_socket.exists() && !setup.audit_file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_memory_may_be_locked_it_says_so_or_does_not_start() {
    for limit in [0, 64 << 10] {
        falls_back(Host {
            withholds: withheld_limit(limit),
            tier: "locked",
            reached: "sealed, NOT locked: RLIMIT_MEMLOCK is too low",
            remedy: "LimitMEMLOCK=8M",
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_locking_fails_it_says_so_or_does_not_start() {
    if !can_lock() {
        return;
    }
    falls_back(Host {
        withholds: withheld_calls(LOCKS, libc::EPERM),
        tier: "locked",
        reached: "sealed, NOT locked: the kernel refuses to lock memory",
        remedy: "permit mlock and mlock2",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memfd_secret_it_falls_back_to_locked_memory_or_does_not_start() {
    if !can_lock() {
        return;
    }
    falls_back(Host {
        withholds: withheld_calls(MEMFD_SECRET, libc::ENOSYS),
        tier: "secret",
        reached: "sealed, in locked memory; the kernel offers no memfd_secret",
        remedy: "CONFIG_SECRETMEM",
    })
    .await;
    falls_back(Host {
        withholds: withheld_calls(MEMFD_SECRET, libc::EPERM),
        tier: "secret",
        reached: "sealed, in locked memory; the kernel refuses memfd_secret",
        remedy: "permit memfd_secret",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usual_limit_is_enough_for_the_locked_tier() {
    if !can_lock() {
        return;
    }
    let section = "[memory]\nrequire = \"locked\"\n";
    let (setup, sandbox) = Stack::prepared(|setup| setup.sections = section.into()).await;
    let daemon = Daemon::start_with(&setup, |command| withheld_limit(USUAL_LIMIT).apply(command)).await;
    let stack = Stack::of(daemon, setup, sandbox);
    assert_eq!(at_rest(&stack).await, ("sealed, in locked memory".to_owned(), true));
    assert!(!stack.daemon.log().contains("less protected"), "{}", stack.daemon.log());
    let locked = kilobytes(&format!("/proc/{}/status", stack.daemon.pid()), "VmLck:");
    assert!((6 << 10..8 << 10).contains(&locked), "{locked} kB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sealing_key_in_secret_memory_is_out_of_the_reach_of_root() {
    if !is_root("to look into another process") || !has_secret_memory() {
        return;
    }
    let section = "[memory]\nrequire = \"secret\"\n";
    let stack = Stack::with(|setup| setup.sections = section.into()).await;
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let reached = "sealed; key in memfd_secret, slots in locked memory";
    assert_eq!(at_rest(&stack).await, (reached.to_owned(), true));

    let pid = stack.daemon.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let keys: Vec<usize> = mappings(&maps, "/secretmem");
    assert_eq!(keys.len(), 1, "{maps}");
    let heap = mappings(&maps, "[heap]");
    for (base, readable) in [(keys[0], false), (heap[0], true)] {
        assert_eq!(read_from_proc(pid, base), readable, "/proc/PID/mem at {base:x}");
        assert_eq!(read_from_process(pid, base), readable, "process_vm_readv at {base:x}");
    }
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.map(|entry| fs::read_link(entry.unwrap().path()).unwrap_or_default());
    let targets: Vec<_> = targets.collect();
    assert!(
        targets.len() > 3 && !targets.iter().any(|target| target.to_string_lossy().contains("secretmem"))
    );
}

/// Where the mappings of this name begin.
fn mappings(maps: &str, name: &str) -> Vec<usize> {
    let named = maps.lines().filter(|line| line.contains(name));
    let base = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
    named.filter_map(base).collect()
}

fn read_from_proc(pid: i32, base: usize) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    memory.read_exact_at(&mut [0; 32], base as u64).is_ok()
}

fn read_from_process(pid: i32, base: usize) -> bool {
    let mut bytes = [0; 32];
    let remote = [RemoteIoVec { base, len: bytes.len() }];
    process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(&mut bytes)], &remote).is_ok()
}

/// In the environment of a process that plays the arena's owner.
const PLAYS: &str = "RAVI_TEST_FILLS_ARENA";
const STRANGER: u32 = 65533;

#[test]
fn four_thousand_and_ninety_six_values_of_1_kib_fit_into_the_usual_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    if hard < USUAL_LIMIT && !Uid::effective().is_root() {
        return skip("it takes a hard limit of 8 MiB of locked memory");
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "life::memory::plays_a_process_that_fills_an_arena", "--nocapture"]);
    let output = command.env(PLAYS, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("4096 values, all of them locked"), "{said}");
}

#[test]
fn plays_a_process_that_fills_an_arena() {
    if std::env::var_os(PLAYS).is_none() {
        return;
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, USUAL_LIMIT, USUAL_LIMIT).unwrap();
    if Uid::effective().is_root() {
        // Root's CAP_IPC_LOCK lifts the limit.
        let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
    }
    let beyond = LockedBytes::on_demand(usize::try_from(USUAL_LIMIT).unwrap() + 1).unwrap();
    assert_eq!(beyond.shortfall(), Some(Shortfall::MemlockLimit), "the limit is not in force");
    drop(beyond);

    let arena = Arena::new(MemoryTier::Locked).unwrap();
    assert_eq!(arena.reached().tier(), Some(MemoryTier::Locked));
    let value = |number: usize| Secret::new(format!("{number:01024}"));
    let sealed: Vec<_> = (0..4096).map(|number| arena.seal(&value(number))).collect();
    for (number, slot) in sealed.iter().enumerate() {
        let open = arena.open(slot.as_ref().unwrap_or_else(|full| panic!("{number}: {full}"))).unwrap();
        assert!(open.expose() == value(number).expose());
    }
    // A new key while all of them rest, as `lock` does.
    arena.rekey().unwrap();
    let locked = kilobytes("/proc/self/status", "VmLck:");
    assert!(locked <= USUAL_LIMIT >> 10, "{locked} kB");
    println!("4096 values, all of them locked, in {locked} kB");
}

async fn at_rest(stack: &Stack) -> (String, bool) {
    let status = stack.admin().await.status().await.unwrap();
    let protection = status.protections.into_iter().find(|protection| protection.name == "secrets at rest");
    protection.map(|protection| (protection.tier, protection.full)).unwrap()
}

fn kilobytes(path: &str, field: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Says so where a test cannot be made.
fn skip(why: &str) {
    // Not `eprintln!`, which the test harness would keep to itself.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn is_root(for_what: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        skip(&format!("it takes root {for_what}"));
    }
    root
}

fn can_lock() -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    let can = hard >= USUAL_LIMIT;
    if !can {
        skip("it takes a hard limit of 8 MiB of locked memory");
    }
    can
}

fn has_secret_memory() -> bool {
    let there = LockedBytes::secret(1).is_ok();
    if !there {
        skip("the kernel offers no memfd_secret");
    }
    there
}

/// It needs no memory, but the same kind of host.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_does_not_pin_callers_it_does_not_start_if_that_is_required() {
    let (setup, _sandbox) = Stack::prepared(|_| {}).await;
    let text = std::fs::read_to_string(&setup.config_file).unwrap();
    let text = text.replacen("[listen]\n", "[listen]\nrequire = \"pidfd\"\n", 1);
    std::fs::write(&setup.config_file, text).unwrap();
    let mut daemon = Daemon::spawn_with(&setup, |command| {
        withheld_calls(&[libc::SYS_getsockopt], libc::ENOPROTOOPT).apply(command);
        command.env("RAVI_BROKER_LOG", "error");
    });
    let (code, said) = daemon.outcome().await;
    assert_eq!(code, Some(1), "{said}");
    assert_two_lines(&said);
    assert!(said.contains("listen.require") && !setup.agent_socket.exists(), "{said}");
}
