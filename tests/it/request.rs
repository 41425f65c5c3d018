//! The request path of the shipped daemon: sessions, leases, denials, limits, revocation.

use ravi_broker::client::{ClientError, ErrorReason};

use crate::support::{NOTES, Stack};

fn reason<T>(outcome: Result<T, ClientError>) -> ErrorReason {
    match outcome {
        Err(ClientError::Broker(error)) => error.reason,
        Err(error) => panic!("not an error of the broker: {error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leases_a_secret_of_its_own_identity() {
    let stack = Stack::start().await;
    stack
        .control()
        .set_secret(NOTES, "OPENAI_API_KEY", ravi_broker::secret::Secret::copy_of("first value"))
        .unwrap();
    let agent = stack.agent("notes").await;
    let (lease, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "to take notes").await.unwrap();
    assert_eq!(credential.value.expose(), "first value");
    assert_eq!(lease.resource, "secret/OPENAI_API_KEY");
    assert_eq!(stack.audited("lease.acquired").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_and_a_forbidden_secret_look_the_same() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    let absent = agent.acquire("secret/OPENAI_ABSENT", None, "").await;
    let forbidden = agent.acquire("secret/STRIPE_API_KEY", None, "").await;
    let text = |outcome: &Result<_, ClientError>| outcome.as_ref().err().map(ToString::to_string);
    assert_eq!(text(&absent), text(&forbidden));
    assert_eq!(reason(absent), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(forbidden), ErrorReason::ResourceNotAvailable);
}
