//! Every call, from every kind of client, and then a search at each stage of rest.

use crate::adapter::Adapter;
use crate::canary::Kind;
use crate::command;
use crate::drive::Driven;
use crate::memory::may_look;
use crate::stage::{Stage, nothing, tokens_of_open_connections};

#[tokio::test(flavor = "multi_thread")]
async fn every_call_leaves_nothing_behind() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::with(|setup| {
        setup.sections = "[limits]\nopen = \"60000/min\"\n[vault]\nfresh_for = \"1s\"\n".to_owned();
        setup.key_file = Some(setup.directory().join("credentials/stored-key"));
    })
    .await;
    let mut driven = Driven::agents(&mut stage).await;
    let mut shell = command::drive(&mut stage).await;
    let shell_pid = shell.succeed("echo $$").await.trim().parse().unwrap();
    let mut adapter = Adapter::start(&stage.stack.setup.agent_socket, "notes").await;
    let written = stage.fresh(Kind::Written);
    adapter.drive(&written).await;
    driven.timed_out().await;
    stage.search("idle", &tokens_of_open_connections);
    let outside = stage.outside(&[adapter.pid(), shell_pid]).await;
    driven.operator(&mut stage).await;
    stage.search("after release", &nothing);
    let missing = driven.calls.missing();
    assert!(missing.is_empty(), "calls that nobody drives: {missing:?}");
    stage.stack.admin().await.lock("").await.unwrap();
    stage.search("after lock", &nothing);
    let outside_at_the_end = stage.outside(&[]).await;

    stage.table.add("files, idle", outside);
    stage.table.add("files, locked", outside_at_the_end);
    stage.show();
    let stages = ["after release", "after lock", "files, idle", "files, locked"];
    let failures = stages.map(|name| stage.beyond(name, &nothing)).concat()
        + &stage.beyond("idle", &tokens_of_open_connections);
    drop((driven, adapter, shell));
    assert!(failures.is_empty(), "copies were left:\n{failures}");
}
