//! Core dumps: the kernel writes none, and what a debugger writes as root holds nothing.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::census::Census;
use crate::memory::{may_look, skip};
use crate::sealing::KeyPages;
use crate::stage::{Stage, nothing};

#[tokio::test(flavor = "multi_thread")]
async fn a_core_dump_of_the_resting_daemon_holds_nothing() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    let agent = stage.agent("notes").await;
    agent.acquire("secret/CANARY", None, "").await.unwrap();
    drop(agent);
    stage.search("clients gone", &nothing);
    let core = stage.stack.setup.directory().join("dump");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-solib-add off", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-p", &stage.stack.daemon.pid().to_string(), "-ex"]).arg(format!("gcore {}", core.display()));
    gdb.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match gdb.status() {
        Err(error) => skip(&format!("gdb does not run ({})", error.kind())),
        Ok(_) if !core.exists() => skip("gdb may not dump a process here"),
        Ok(_) => {
            let census = Census::of_file(&core, &stage.canaries);
            let sealing = KeyPages::find(stage.stack.daemon.pid());
            let sealing = sealing.map_or(0, |key| key.count_in(&std::fs::read(&core).unwrap()));
            std::fs::remove_file(&core).unwrap();
            assert!(census.bytes > 1 << 20, "hardly anything was dumped");
            assert_eq!(sealing, 0, "the sealing key is in the dump");
            assert!(census.is_clean(), "a dump by a debugger:\n{census}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_aborts_leaves_no_core() {
    use std::os::unix::process::ExitStatusExt;
    let mut stage = Stage::set().await;
    stage.plant_secret("CANARY");
    let agent = stage.agent("notes").await;
    agent.acquire("secret/CANARY", None, "").await.unwrap();
    stage.stack.daemon.signal(Signal::SIGABRT);
    let status = stage.stack.daemon.ended().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let files = std::fs::read_dir(stage.stack.setup.directory()).unwrap();
    let cores = files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("core"));
    assert_eq!(cores.count(), 0);
}
