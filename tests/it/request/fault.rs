//! What Ravi can do wrong on a read: each has its reason, nothing of the answer is kept or echoed.

use std::fs;
use std::time::Duration;

use ravi_broker::client::{BrokerError, ErrorReason, RevokeTarget};
use ravi_broker::sandbox::seed::DEPLOY_AGENT;
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::{reason, refusal};
use crate::support::{NOTES, Stack, until};

const SECRETS: &str = "/api/secrets/";
const CANARY: &str = "canary-5f1d77e0";

/// Asks for a value of its own under each fault, then without it. Returns what was said.
async fn under(stack: &Stack, answers: &[(Answer, ErrorReason, u64)]) -> Vec<BrokerError> {
    let control = stack.control();
    let agent = stack.agent("notes").await;
    // What a good answer looks like is known before.
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let mut said = Vec::new();
    for (number, (answer, expected, calls)) in answers.iter().enumerate() {
        let key = format!("OPENAI_CASE_{number}");
        control.set_secret(NOTES, &key, Secret::copy_of(CANARY)).unwrap();
        control.add_fault(Fault::new(SECRETS, answer.clone())).unwrap();
        let before = control.requests("GET", SECRETS);
        let resource = format!("secret/{key}");
        let refused = refusal(agent.acquire(&resource, None, "").await);
        assert_eq!(refused.reason, *expected, "{answer:?}");
        assert_eq!(control.requests("GET", SECRETS) - before, *calls, "{answer:?}");
        control.clear_faults();
        let (_, credential) = agent.acquire(&resource, None, "").await.unwrap();
        assert_eq!(credential.value.expose(), CANARY, "{answer:?}");
        assert_eq!(control.requests("GET", SECRETS) - before, calls + 1, "nothing was kept of {answer:?}");
        said.push(refused);
    }
    let told = format!("{said:?}");
    for echo in [CANARY, "sandbox", "fault", "html", "Error<", "throttled.", "e2e"] {
        assert!(!told.contains(echo), "{echo} in {told}");
    }
    assert_eq!(agent.list_leases().await.unwrap().len(), answers.len() + 1, "a failure leaves no lease");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_the_documented_one_is_discarded() {
    let stack = Stack::start().await;
    let invalid = ErrorReason::UpstreamInvalid;
    under(
        &stack,
        &[
            (Answer::Html(200), invalid, 1),
            (Answer::Empty(200), invalid, 1),
            (Answer::Empty(204), invalid, 1),
            (Answer::Oversized(2 << 20), invalid, 1),
            (Answer::WrongIdentity, invalid, 1),
            (Answer::LegacyEncrypted, invalid, 1),
        ],
    )
    .await;
    let failed = stack.audited("lease.denied");
    assert!(
        failed.iter().all(|record| record["outcome"] == "failed" && record["cause"] == "upstream_invalid")
    );
    assert_eq!(failed.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_ravi_is_told_by_its_kind() {
    let stack = Stack::start().await;
    let said = under(
        &stack,
        &[
            (Answer::Status(402), ErrorReason::UpstreamPlanRequired, 1),
            (Answer::Status(403), ErrorReason::UpstreamRefused, 1),
            (Answer::Status(404), ErrorReason::UpstreamUnavailable, 1),
            (Answer::Status(400), ErrorReason::UpstreamRefused, 1),
            (Answer::Status(500), ErrorReason::UpstreamUnavailable, 1),
            (Answer::Html(500), ErrorReason::UpstreamUnavailable, 1),
            (
                Answer::Throttled { retry_after_seconds: Some(61), retry_after: Some("99".into()) },
                ErrorReason::UpstreamThrottled,
                1,
            ),
            (
                Answer::Throttled { retry_after_seconds: None, retry_after: Some("99".into()) },
                ErrorReason::UpstreamThrottled,
                1,
            ),
        ],
    )
    .await;
    assert_eq!(said[6].retry_after, Some(Duration::from_secs(61)));
    assert_eq!(said[7].retry_after, Some(Duration::from_secs(99)));
    assert!(said[..6].iter().all(|error| error.retry_after.is_none()));
}

/// A read may be tried again: three times in all.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_was_cut_off_is_tried_again_and_then_given_up() {
    let stack = Stack::start().await;
    under(&stack, &[(Answer::Reset, ErrorReason::UpstreamUnavailable, 3)]).await;
    let agent = stack.agent("notes").await;
    stack.control().add_fault(Fault::new(SECRETS, Answer::Reset).times(2)).unwrap();
    agent.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_a_gateway_failed_or_that_broke_off_is_given_up_after_three_times() {
    let stack = Stack::start().await;
    under(
        &stack,
        &[
            (Answer::Status(503), ErrorReason::UpstreamUnavailable, 3),
            (Answer::Truncated, ErrorReason::UpstreamInvalid, 3),
        ],
    )
    .await;
}

/// The bearer stays with the origin.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let stack = Stack::start().await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = elsewhere.local_addr().unwrap();
    let own = format!("{}/api/secrets/?page=2", stack.setup.base_url);
    let redirects =
        [format!("http://{address}/"), format!("https://{address}/"), own, "/api/identities/".into()];
    let cases = redirects.map(|to| (Answer::Redirect(to), ErrorReason::UpstreamInvalid, 1));
    under(&stack, &cases).await;
    assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// The identity's own number is learned from the first good answer; rows of another are then refused
/// wherever they come from (I8).
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_identity_are_refused_in_every_list() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    stack.control().add_fault(Fault::new("/api/", Answer::WrongIdentity)).unwrap();
    assert_eq!(reason(agent.list_secrets().await), ErrorReason::UpstreamInvalid);
    assert_eq!(reason(agent.list_passwords().await), ErrorReason::UpstreamInvalid);
    assert_eq!(reason(agent.acquire("password/github.com", None, "").await), ErrorReason::UpstreamInvalid);
    assert_eq!(reason(agent.acquire("secret/STRIPE_API_KEY", None, "").await), ErrorReason::UpstreamInvalid);
    stack.control().clear_faults();
    assert_eq!(agent.list_passwords().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_ravi_rejected_is_not_used_again() {
    let stack = Stack::start().await;
    let control = stack.control();
    let admin = stack.admin().await;
    let agent = stack.agent("deploy").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert!(admin.status().await.unwrap().management_key_held);
    control.revoke_management_key();
    assert_eq!(reason(agent.acquire("secret/STRIPE_API_KEY", None, "").await), ErrorReason::LoginRequired);
    let calls = control.total_requests();
    assert!(!admin.status().await.unwrap().management_key_held);
    for _ in 0..3 {
        assert_eq!(
            reason(agent.acquire("secret/STRIPE_API_KEY", None, "").await),
            ErrorReason::LoginRequired
        );
        assert_eq!(reason(agent.list_secrets().await), ErrorReason::LoginRequired);
        let value = Secret::copy_of("value");
        assert_eq!(reason(agent.set_secret("A", &value, "").await), ErrorReason::LoginRequired);
        assert_eq!(reason(agent.acquire("sso/token", None, "").await), ErrorReason::LoginRequired);
    }
    assert_eq!(control.total_requests(), calls);
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
}

/// One that was handed over and is no good is replaced by a minted one, once.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_key_that_ravi_rejected_is_replaced_once() {
    let stack = Stack::with(|setup| {
        let name = format!("identity-key.{}", DEPLOY_AGENT.uuid);
        fs::create_dir(setup.credentials()).unwrap();
        fs::write(setup.credentials().join(name), "ravi_id_withdrawn").unwrap();
    })
    .await;
    let control = stack.control();
    let agent = stack.agent("deploy").await;
    agent.acquire("sso/token", None, "").await.unwrap();
    assert_eq!(control.requests("POST", "/api/auth/keys/identity/"), 1);
    assert_eq!(control.requests("POST", "/api/sso/token/"), 2);
    // It serves the vaults as well from now on; once it is withdrawn the management key does again.
    control.revoke_identity_keys("deploy-agent").unwrap();
    assert_eq!(reason(agent.acquire("secret/OPENAI_API_KEY", None, "").await), ErrorReason::LoginRequired);
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((status.identity_keys_held, status.management_key_held), (0, true));
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert_eq!(control.requests("POST", "/api/auth/keys/identity/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_asked() {
    let stack = Stack::with(|setup| setup.logged_in = false).await;
    let agent = stack.agent("deploy").await;
    assert_eq!(reason(agent.acquire("secret/OPENAI_API_KEY", None, "").await), ErrorReason::LoginRequired);
    assert_eq!(stack.control().total_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_whose_identity_ravi_does_not_know_gets_nothing() {
    let stack =
        Stack::with(|setup| setup.roles = setup.roles.replace("\"deploy-agent\"", "\"nobody\"")).await;
    let agent = stack.agent("deploy").await;
    assert_eq!(reason(agent.acquire("secret/OPENAI_API_KEY", None, "").await), ErrorReason::UpstreamRefused);
    assert_eq!(reason(agent.identity().await), ErrorReason::UpstreamRefused);
    assert_eq!(stack.control().requests("GET", "/api/identities/"), 1, "the directory is kept");
}

/// No lock is held over the wait for Ravi (I2), and no caller holds another one up.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_holds_up_nobody_else() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let agent = stack.agent("notes").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    let hanging = stack.agent("notes").await;
    stack.control().add_fault(Fault::new(SECRETS, Answer::Hang)).unwrap();
    let before = stack.control().requests("GET", SECRETS);
    let connections = admin.status().await.unwrap().connections;
    let hung = tokio::spawn(async move { hanging.acquire("secret/OPENAI_ORG_ID", None, "").await.map(drop) });
    stack.control().reached("GET", SECRETS, before + 1).await;
    let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    agent.acquire("identity/email", None, "").await.unwrap();
    agent.read(lease.lease_id).await.unwrap();
    agent.renew(lease.lease_id, None).await.unwrap();
    assert_eq!(admin.sessions().await.unwrap().len(), 2);
    admin.revoke(RevokeTarget::Lease(lease.lease_id), "").await.unwrap();
    admin.reload().await.unwrap();
    stack.agent("deploy").await.acquire("identity/email", None, "").await.unwrap();
    // Nor does the one that hangs keep anything when it gives up.
    hung.abort();
    until(async || admin.status().await.unwrap().connections < connections).await;
    assert_eq!(admin.leases(None).await.unwrap().len(), 3);
}

/// A host that cannot be reached at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_ravi_that_is_not_there_is_unavailable() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stack = Stack::with(|setup| setup.base_url = format!("https://{nobody}")).await;
    let agent = stack.agent("notes").await;
    assert_eq!(
        reason(agent.acquire("secret/OPENAI_API_KEY", None, "").await),
        ErrorReason::UpstreamUnavailable
    );
}

/// Ravi writes "absent" as an empty text.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_absent() {
    let stack = Stack::start().await;
    stack.control().set_secret(NOTES, "OPENAI_EMPTY", Secret::copy_of("")).unwrap();
    let agent = stack.agent("notes").await;
    let refused = refusal(agent.acquire("secret/OPENAI_EMPTY", None, "").await);
    assert_eq!(refused.reason, ErrorReason::ResourceNotAvailable);
}
