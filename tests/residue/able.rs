//! The search can fail: a daemon that does not wipe what it frees is caught.

use std::path::{Path, PathBuf};

use crate::canary::Kind;
use crate::memory::may_look;
use crate::stage::{Stage, nothing};

/// `ravi-brokerd` without the allocator that wipes (`tests/residue/unwiped.rs`).
fn unwiped() -> PathBuf {
    let daemon = Path::new(env!("CARGO_BIN_EXE_ravi-brokerd"));
    let example = daemon.with_file_name("examples").join("unwiped");
    assert!(example.is_file(), "build it first: cargo build --example unwiped");
    example
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_wipe_is_caught() {
    if !may_look() {
        return;
    }
    let script = format!("exec '{}' \"$@\"", unwiped().display());
    let mut stage = Stage::with(|setup| setup.wrapper = Some(script)).await;
    let names: Vec<String> = (0..10).map(|number| format!("CANARY_{number}")).collect();
    for name in &names {
        stage.plant_secret(name);
    }
    let agent = stage.agent("notes").await;
    for name in &names {
        let (lease, _) = agent.acquire(&format!("secret/{name}"), None, "").await.unwrap();
        agent.release(lease.lease_id).await.unwrap();
    }
    agent.close_session().await.unwrap();
    // Only its heap counts: buffers of open connections are there in either build.
    drop(agent);
    stage.search("without wiping", &nothing);
    stage.show();
    let census = stage.table.stage("without wiping");
    assert!(census.copies(Kind::Secret) >= names.len(), "an allocator that does not wipe was not noticed");
}
