//! The promise in numbers: ten thousand leases of a hundred values leave no copy behind.

use std::sync::Arc;

use futures_util::future::join_all;
use ravi_broker::client::AgentClient;
use ravi_broker::secret::Secret;

use crate::canary::Kind;
use crate::memory::may_look;
use crate::serving::{Held, PER_CALL};
use crate::stage::{Stage, nothing, tokens_of_open_connections};

const CANARIES: usize = 100;
const LEASES: usize = 10_000;
/// Each with a connection and a session of its own.
const AGENTS: usize = 10;
/// Calls in flight while the daemon serves.
const HELD: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_leases_of_a_hundred_values_leave_nothing_behind() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    let names: Vec<String> = (0..CANARIES).map(|number| format!("secret/CANARY_{number}")).collect();
    for name in &names {
        stage.plant_secret(&name["secret/".len()..]);
    }
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        agents.push(Arc::new(stage.agent("notes").await));
    }
    let watch = agents[0].watch_leases().await.unwrap();
    let token = stage.canaries.iter().find(|canary| canary.kind == Kind::SessionToken).unwrap();
    let token = Secret::copy_of(token.value());

    let leases = join_all(agents.iter().map(|agent| tokio::spawn(acquire_all(agent.clone(), names.clone()))));
    let leases: Vec<_> = leases.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(stage.stack.admin().await.status().await.unwrap().leases as usize, LEASES);
    let socket = stage.stack.setup.agent_socket.clone();
    let held = Held::acquire(&socket, token.expose(), &names[..HELD], 16).await;
    let serving = |kind| match kind {
        Kind::Secret => HELD * PER_CALL,
        kind => tokens_of_open_connections(kind),
    };
    stage.search("serving", &serving);
    drop(held);
    stage.search("idle", &tokens_of_open_connections);
    let released = agents.iter().zip(leases).map(|(agent, leases)| {
        let agent = agent.clone();
        tokio::spawn(async move {
            for lease in leases {
                agent.release(lease).await.unwrap();
            }
        })
    });
    join_all(released).await.into_iter().for_each(Result::unwrap);
    stage.search("after release", &tokens_of_open_connections);
    drop(watch);
    stage.retired().await;
    stage.search("retired", &nothing);
    stage.stack.admin().await.lock("").await.unwrap();
    stage.search("after lock", &nothing);

    stage.show();
    let failures = stage.beyond("serving", &serving)
        + &["idle", "after release"].map(|name| stage.beyond(name, &tokens_of_open_connections)).concat()
        + &["retired", "after lock"].map(|name| stage.beyond(name, &nothing)).concat();
    drop(agents);
    assert!(failures.is_empty(), "copies were left:\n{failures}");
}

async fn acquire_all(agent: Arc<AgentClient>, names: Vec<String>) -> Vec<ravi_broker::types::LeaseId> {
    let mut leases = Vec::new();
    for name in names.iter().cycle().take(LEASES / AGENTS) {
        let (lease, _) = agent.acquire(name, None, "").await.expect("a lease");
        leases.push(lease.lease_id);
    }
    leases
}
