//! Every error carries a `google.rpc.ErrorInfo` of the broker's domain (`error.proto`). What cannot
//! have one is in `requests.rs` and `floods.rs`: a call out of time, HTTP statuses, resets.

use prost::Message;
use ravi_broker::client::OpenSession;
use ravi_broker::pb;
use tonic::Code;
use tonic_types::StatusExt;

use super::Victim;
use super::raw::{ACQUIRE, CHECK, OPEN, Wire, framed};
use super::sockets::methods;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_is_refused_by_every_method_that_needs_one() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    for (path, operator) in methods() {
        if operator || path == OPEN {
            continue;
        }
        let refusal = wire.post(&path, framed(b"")).await.refusal();
        assert_eq!(refusal, (Code::Unauthenticated, "SESSION_REQUIRED".to_owned()), "{path}");
    }
    let open = wire.post(OPEN, framed(b"")).await;
    open.assert_refused(Code::PermissionDenied, "ROLE_NOT_AVAILABLE");
    victim.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_each_kind_has_its_code_and_reason() {
    let victim = Victim::start().await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let client = victim.stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    let acquire =
        |resource: &str| pb::AcquireLeaseRequest { resource: resource.to_owned(), ..Default::default() };

    let denied = wire.call(ACQUIRE, token.expose(), &acquire("secret/STRIPE_API_KEY")).await;
    denied.assert_refused(Code::PermissionDenied, "RESOURCE_NOT_AVAILABLE");
    let hostile = wire.call(ACQUIRE, token.expose(), &acquire("secret/../canary")).await;
    hostile.assert_refused(Code::InvalidArgument, "RESOURCE_NAME_INVALID");
    assert!(!hostile.status.unwrap().message().contains("canary"));
    let release = "/ravi.broker.v1.LeaseService/ReleaseLease";
    let unknown = pb::ReleaseLeaseRequest { lease_id: "not a lease".to_owned() };
    let unknown = wire.call(release, token.expose(), &unknown).await;
    unknown.assert_refused(Code::PermissionDenied, "LEASE_NOT_AVAILABLE");
    let health = pb_health("no.such.Service");
    wire.post(CHECK, health).await.assert_refused(Code::NotFound, "ARGUMENT_INVALID");

    let admin = victim.stack.admin().await;
    admin.lock("").await.unwrap();
    let locked = wire.call(ACQUIRE, token.expose(), &acquire("secret/OPENAI_API_KEY")).await;
    locked.assert_refused(Code::FailedPrecondition, "BROKER_LOCKED");
    admin.unlock().await.unwrap();
    let revoked = wire.call(ACQUIRE, token.expose(), &acquire("secret/OPENAI_API_KEY")).await;
    revoked.assert_refused(Code::Unauthenticated, "SESSION_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_names_itself_and_says_when_to_come_back() {
    let victim = Victim::with("[limits]\nopen = \"3/h\"\n").await;
    let wire = Wire::connect(&victim.stack.setup.agent_socket).await;
    let open = pb::OpenSessionRequest { role: "notes".to_owned(), ..Default::default() };
    let mut answer = wire.call(OPEN, "", &open).await;
    while answer.status.as_ref().unwrap().code() == Code::Ok {
        answer = wire.call(OPEN, "", &open).await;
    }
    answer.assert_refused(Code::ResourceExhausted, "RATE_LIMITED");
    let status = answer.status.unwrap();
    assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs() > 0);
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "limits.open");
}

fn pb_health(service: &str) -> Vec<u8> {
    let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
    framed(&request.encode_to_vec())
}
