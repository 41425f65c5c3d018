//! Calls in flight that stay so: a client that takes no byte of an answer, and a Ravi that sends none.

use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use prost::Message;
use ravi_broker::pb::AcquireLeaseRequest;
use ravi_broker::sandbox::{Answer, Fault};
use tonic::body::Body;
use tower::ServiceExt;

use crate::canary::Kind;
use crate::memory::may_look;
use crate::stage::{Stage, nothing, tokens_of_open_connections};
use crate::support::bounded;
use crate::wire::channel;

/// Calls in flight at once.
const CALLS: usize = 8;
/// Copies of its value that a call needs while its answer is on the way: the message, or its encoded form.
pub(crate) const PER_CALL: usize = 1;
/// Copies of the key while a request to Ravi is under way: its header as it was written.
pub(crate) const KEY_PER_REQUEST: usize = 1;

/// Answers whose values their receiver does not take.
pub(crate) struct Held {
    _answers: Vec<Response<Body>>,
}

impl Held {
    /// One call for each name, on one connection whose streams have this window.
    pub(crate) async fn acquire(socket: &Path, token: &str, names: &[String], window: u32) -> Self {
        let channel = channel(socket, |endpoint| endpoint.initial_stream_window_size(window)).await;
        let mut answers = Vec::new();
        for name in names {
            let message = AcquireLeaseRequest { resource: name.clone(), ..Default::default() };
            let request = post(token, &message.encode_to_vec());
            // Its head comes; its body waits for room.
            let answer = bounded(channel.clone().oneshot(request)).await.expect("an answer");
            assert!(!answer.headers().contains_key("grpc-status"), "the call was refused");
            answers.push(answer);
        }
        Self { _answers: answers }
    }
}

fn post(token: &str, message: &[u8]) -> Request<Body> {
    let length = u32::try_from(message.len()).expect("a short message");
    let body = [&[0][..], &length.to_be_bytes(), message].concat();
    let request = Request::builder()
        .method(Method::POST)
        .uri("http://localhost/ravi.broker.v1.LeaseService/AcquireLease")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"));
    request.body(Body::new(Full::new(Bytes::from(body)))).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_bounded_by_the_calls_in_flight() {
    if !may_look() {
        return;
    }
    let mut stage = Stage::set().await;
    let names: Vec<String> = (0..CALLS).map(|number| format!("CANARY_{number}")).collect();
    for name in &names {
        stage.plant_secret(name);
    }
    let resources: Vec<String> = names.iter().map(|name| format!("secret/{name}")).collect();
    let agent = stage.agent("notes").await;
    for resource in &resources {
        agent.acquire(resource, None, "").await.unwrap();
    }
    let token = stage.canaries.iter().find(|canary| canary.kind == Kind::SessionToken).unwrap();
    let token = token.value().to_owned();
    let socket = stage.stack.setup.agent_socket.clone();
    let serving = |kind| match kind {
        Kind::Secret => CALLS * PER_CALL,
        kind => tokens_of_open_connections(kind),
    };

    let mut failures = String::new();
    for (stage_name, window) in [("window 0", 0), ("window 16", 16)] {
        let held = Held::acquire(&socket, &token, &resources, window).await;
        stage.search(stage_name, &serving);
        failures += &stage.beyond(stage_name, &serving);
        drop(held);
    }
    stage.search("given up", &tokens_of_open_connections);
    failures += &stage.beyond("given up", &tokens_of_open_connections);

    let control = stage.stack.control();
    control.add_fault(Fault::new("/api/secrets/", Answer::Held)).unwrap();
    let before = control.requests("GET", "/api/secrets/");
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let agent = stage.stack.holder(&ravi_broker::secret::Secret::copy_of(&token)).await;
        waiting
            .spawn(async move { agent.acquire(&format!("secret/ABSENT_{number}"), None, "").await.is_ok() });
    }
    bounded(control.reached("GET", "/api/secrets/", before + CALLS as u64)).await;
    let fetching = |kind| match kind {
        Kind::ManagementKey => CALLS * KEY_PER_REQUEST,
        kind => tokens_of_open_connections(kind),
    };
    stage.search("fetching", &fetching);
    failures += &stage.beyond("fetching", &fetching);
    control.clear_faults();
    control.release();
    while let Some(found) = bounded(waiting.join_next()).await {
        assert!(!found.unwrap(), "there is none");
    }
    stage.search("idle", &tokens_of_open_connections);
    failures += &stage.beyond("idle", &tokens_of_open_connections);
    drop(agent);
    stage.search("clients gone", &nothing);
    failures += &stage.beyond("clients gone", &nothing);
    stage.show();
    assert!(failures.is_empty(), "more copies than calls need:\n{failures}");
}
