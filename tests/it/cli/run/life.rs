//! The program's life: how it ends, what reaches it, what it leaves behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::{CANARY, KEY, Signal, ended, fs, stack};
use crate::support::{Stack, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_programs() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    for options in [&[][..], &["--file", &file]] {
        assert_eq!(stack.launch(options, "exit 0").code, Some(0));
        assert_eq!(stack.launch(options, "exit 7").code, Some(7));
        assert_eq!(stack.launch(options, "kill -KILL $$").code, Some(137));
        assert_eq!(stack.launch(options, "kill -TERM $$").code, Some(143));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_has_the_codes_of_a_shell() {
    let stack = stack().await;
    let (what, _) = ended(stack.launcher(&[], &["no-such-program"])).failed(127);
    assert!(what.contains("not found"), "{what}");
    let plain = stack.setup.directory().join("plain");
    fs::write(&plain, "echo ran $1\n").unwrap();
    ended(stack.launcher(&[], &[plain.to_str().unwrap()])).failed(126);
    ended(stack.launcher(&[], &["/"])).failed(126);
    // As in a shell, a file without `#!` is a script.
    fs::set_permissions(&plain, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = ended(stack.launcher(&[], &[plain.to_str().unwrap(), "well"]));
    assert_eq!(script.good(), "ran well\n");
    let broken = stack.setup.directory().join("broken");
    fs::write(&broken, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    ended(stack.launcher(&[], &[broken.to_str().unwrap()])).failed(127);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_launcher_keep_its_own_codes() {
    let stack = stack().await;
    let mut command = stack.launcher(&[], &["true"]);
    command.env("RAVI_BROKER_SOCKET", "/nonexistent/broker.sock");
    ended(command).failed(3);
    stack.run("run --role no-such-role -- true").failed(4);
    stack.run("run --role notes true").failed(2);
    stack.run("run --role notes --scopes secret:read:STRIPE_* -- true").failed(4);
}

/// Says what it gets, and ends when told to by a HUP.
const LISTENER: &str = r#"
    for name in INT TERM USR1 USR2 CONT; do trap "echo got $name" $name; done
    trap 'exit 5' HUP
    echo ready
    while :; do sleep 0.05; done"#;

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_program_once() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    for options in [&[][..], &["--file", &file]] {
        let mut launched = stack.started(options, LISTENER);
        assert_eq!(launched.hear(), "ready");
        for signal in [Signal::SIGUSR1, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCONT, Signal::SIGUSR2] {
            launched.signal(signal);
            assert_eq!(launched.hear(), format!("got {}", &signal.as_str()[3..]));
        }
        launched.signal(Signal::SIGHUP);
        let run = launched.ended();
        assert_eq!((run.code, run.out.as_str()), (Some(5), ""), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_left_running_holds_nothing_up() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let run = stack.launch(&["--file", &file], "sleep 1000 & echo $!; echo done >&2");
    let pid: i32 = run.out.trim().parse().unwrap();
    assert_eq!((run.code, run.err.as_str()), (Some(0), "done\n"));
    let left = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(left, Signal::SIGKILL).expect("it was still running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_ends_the_program_by_sigpipe() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    for options in [&["--no-mask", "--file", &file][..], &["--file", &file]] {
        let mut command = stack.launcher(options, &["yes"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!((line.as_str(), child.wait().unwrap().code()), ("y\n", Some(141)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_arrives_whole_and_in_order() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let script = r#"seq 1 200000; cat "$F" > /dev/null; i=0; while [ $i -lt 50 ]; do echo out; echo err >&2; i=$((i+1)); done"#;
    let mut command = stack.launcher(&["--file", &file], &["sh", "-euc", script]);
    let path = stack.setup.directory().join("out");
    let output = fs::File::create(&path).unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output);
    assert!(command.status().unwrap().success());
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(fs::read_to_string(path).unwrap(), expected + &"out\nerr\n".repeat(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_close_its_output_and_go_on() {
    let stack = stack().await;
    let file = format!("F={KEY}");
    let script = "echo before; exec >&- ; echo after >&2; exit 4";
    let run = stack.launch(&["--file", &file], script);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (Some(4), "before\n", "after\n"));
}

/// The cgroup (version 2) of this process, if it may make others in it.
fn own_cgroup() -> Option<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let directory = Path::new(&mount).join(own);
    let probe = directory.join(format!("ravi-test-{}", std::process::id()));
    fs::create_dir(&probe).ok()?;
    fs::remove_dir(&probe).ok()?;
    Some(directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_in_a_cgroup_of_its_own_where_the_host_allows() {
    let stack = stack().await;
    let mut launched =
        stack.started(&[], "grep ^0:: /proc/self/cgroup || echo; cat > /dev/null; exec sleep 60");
    let seen = launched.hear();
    let name = format!("ravi-run-{}", launched.pid());
    let home = own_cgroup();
    assert_eq!(seen.ends_with(&name), home.is_some(), "{seen}");
    // A launcher that is killed cannot clean up; the next one does.
    launched.signal(Signal::SIGKILL);
    let left: Vec<_> = home.iter().map(|home| home.join(&name)).collect();
    let ended = launched.child.wait().unwrap();
    assert_eq!(ended.code(), None);
    for leaf in &left {
        assert!(leaf.is_dir());
        fs::write(leaf.join("cgroup.kill"), "1").unwrap();
        until(async || fs::read_to_string(leaf.join("cgroup.procs")).unwrap().is_empty()).await;
    }
    stack.launch(&[], ":").good();
    assert!(left.iter().all(|leaf| !leaf.exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_dumps_no_core_and_its_program_may() {
    let stack: Stack = stack().await;
    let script = r#"ulimit -c; grep 'Max core' /proc/$PPID/limits | tr -s ' ' | cut -d ' ' -f 5"#;
    let out = stack.launch(&[], script).good();
    let [program, launcher] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
    assert_eq!((program == "0", launcher), (soft == 0, "0"));
    assert!(!out.contains(CANARY));
}
