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
    let wiped = after_ten_leases(None).await;
    let script = format!("exec '{}' \"$@\"", unwiped().display());
    let unwiped = after_ten_leases(Some(script)).await;
    unwiped.show();
    let copies = [wiped, unwiped].map(|stage| stage.table.stage(STAGE).copies(Kind::Secret));
    assert_eq!(copies[0], 0, "the shipped daemon has copies too");
    assert!(copies[1] >= LEASES, "an allocator that does not wipe was not noticed");
}

const LEASES: usize = 10;
const STAGE: &str = "not wiping";

/// The daemon when its only client is gone, and with it the buffers of the connection.
async fn after_ten_leases(wrapper: Option<String>) -> Stage {
    let mut stage = Stage::with(|setup| setup.wrapper = wrapper).await;
    let agent = stage.agent("notes").await;
    for number in 0..LEASES {
        let name = format!("CANARY_{number}");
        stage.plant_secret(&name);
        let (lease, _) = agent.acquire(&format!("secret/{name}"), None, "").await.unwrap();
        agent.release(lease.lease_id).await.unwrap();
    }
    agent.close_session().await.unwrap();
    drop(agent);
    stage.search(STAGE, &nothing);
    stage
}
