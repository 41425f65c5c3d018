//! The `denial-id` of refused calls: each has its own, and what is answered has none.

use std::collections::HashSet;

use http::Method;
use ravi_broker::pb;

use super::Victim;
use super::raw::{ACQUIRE, Answer, DESCRIBE, OPEN, Wire, framed, full, post, prefixed};
use super::sockets::methods;
use ravi_broker::client::OpenSession;

/// The id, which reads as one.
#[track_caller]
fn id(answer: &Answer) -> String {
    let id = answer.denial.clone().expect("a refused call has an id");
    assert!(id.parse::<ravi_broker::types::DenialId>().is_ok(), "{id}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_call_of_the_agent_socket_has_an_id_of_its_own() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let mut ids = HashSet::new();
    for (path, _) in methods() {
        ids.insert(id(&wire.post(&path, framed(b"")).await));
    }
    let (_, token) = victim.stack.stranger().await.open_session(OpenSession::role("notes")).await.unwrap();
    let acquire =
        |resource: &str| pb::AcquireLeaseRequest { resource: resource.into(), ..Default::default() };
    for resource in ["secret/STRIPE_API_KEY", "secret/OPENAI_ABSENT", "no name"] {
        ids.insert(id(&wire.call(ACQUIRE, token.expose(), &acquire(resource)).await));
    }
    // What tonic refuses by itself: a message that is no message, one too large, a path without a method,
    // an encoding, a query.
    ids.insert(id(&wire.post(OPEN, framed(&[0xff; 9])).await));
    ids.insert(id(&wire.post(OPEN, framed(&vec![0; 70_000])).await));
    ids.insert(id(&wire.post("/no.such.Service/Method", framed(b"")).await));
    ids.insert(id(&wire.post(OPEN, prefixed(1, 0, b"")).await));
    ids.insert(id(&wire.post(&format!("{OPEN}?query"), framed(b"")).await));
    victim.stack.admin().await.lock("").await.unwrap();
    ids.insert(id(&wire.call(DESCRIBE, token.expose(), &pb::DescribeSessionRequest {}).await));
    assert_eq!(ids.len(), methods().len() + 9, "no id came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_and_what_is_not_grpc_has_no_id() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let open = pb::OpenSessionRequest { role: "notes".into(), ..Default::default() };
    let opened = wire.call(OPEN, "", &open).await;
    assert_eq!((opened.status.as_ref().unwrap().code(), &opened.denial), (tonic::Code::Ok, &None));
    let mut get = post(OPEN, full(framed(b"")));
    *get.method_mut() = Method::GET;
    let refused = wire.send(get).await;
    assert_eq!((refused.http.as_u16(), refused.denial), (405, None));
}

/// The operator is told the reason itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_admin_socket_refuses_has_no_id() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.admin_socket).await;
    for (path, body) in [(OPEN, framed(b"")), ("/ravi.broker.v1.AdminService/Revoke", framed(&[0xff; 9]))] {
        let refused = wire.post(path, body).await;
        assert_ne!(refused.status.as_ref().unwrap().code(), tonic::Code::Ok);
        assert_eq!(refused.denial, None);
    }
}
