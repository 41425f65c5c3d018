//! Ending access: one lease, one session, a role, all; and the kill switch. Nothing passes the mark.

use std::fs;
use std::sync::Arc;

use ravi_broker::client::{AgentClient, ErrorReason, OpenSession, RevokeTarget, UpdatePassword};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;
use ravi_broker::types::{LeaseId, SessionId};

use super::reason;
use crate::support::{Daemon, NOTES, Stack};

const KEY: &str = "secret/OPENAI_API_KEY";
const SECRETS: &str = "/api/secrets/";

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_lease_is_over_and_cannot_be_renewed() {
    let stack = Stack::start().await;
    let (agent, admin) = (stack.agent("notes").await, stack.admin().await);
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    let (kept, _) = agent.acquire("secret/OPENAI_ORG_ID", None, "").await.unwrap();
    let revoked = admin.revoke(RevokeTarget::Lease(lease.lease_id), "seen in a chat").await.unwrap();
    assert_eq!((revoked.sessions, revoked.leases), (0, 1));
    assert_eq!(revoked.exposed_resources, [KEY]);
    assert_eq!(reason(agent.renew(lease.lease_id, None).await), ErrorReason::LeaseRevoked);
    assert_eq!(reason(agent.read(lease.lease_id).await), ErrorReason::LeaseRevoked);
    assert_eq!(reason(agent.release(lease.lease_id).await), ErrorReason::LeaseRevoked);
    agent.read(kept.lease_id).await.unwrap();
    let order = &stack.audited("admin.revoke")[0];
    assert_eq!(order["target"], lease.lease_id.to_string());
    assert_eq!(order["reason"], "seen in a chat");
    let ended = &stack.audited("lease.revoked")[0];
    assert_eq!((&ended["cause"], &ended["exposed"]), (&"operator".into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_session_a_role_or_all_ends_that_and_nothing_else() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let (session, first) = stack.opened(OpenSession::role("notes")).await;
    let second = stack.agent("notes").await;
    let (third, fourth) = (stack.agent("deploy").await, stack.agent("deploy").await);
    for agent in [&first, &second, &third, &fourth] {
        agent.acquire(KEY, None, "").await.unwrap();
    }
    third.acquire("sso/token", None, "").await.unwrap();
    fourth.acquire("password/grafana.net", None, "").await.unwrap();

    let revoked = admin.revoke(RevokeTarget::Session(session.session_id), "").await.unwrap();
    assert_eq!((revoked.sessions, revoked.leases), (1, 1));
    assert_eq!(reason(first.describe_session().await), ErrorReason::SessionRevoked);
    second.describe_session().await.unwrap();

    let revoked = admin.revoke(RevokeTarget::Role("deploy".into()), "").await.unwrap();
    assert_eq!((revoked.sessions, revoked.leases), (2, 4));
    assert_eq!(revoked.exposed_resources, [KEY, "password/grafana.net/deploy-agent"], "each once, no token");
    assert_eq!(reason(third.describe_session().await), ErrorReason::SessionRevoked);
    second.describe_session().await.unwrap();

    let revoked = admin.revoke(RevokeTarget::All, "").await.unwrap();
    assert_eq!((revoked.sessions, revoked.leases), (1, 1));
    assert_eq!(reason(second.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
    // The door stays open: only the kill switch closes it.
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_cannot_be_revoked() {
    let stack = Stack::start().await;
    let (agent, admin) = (stack.agent("notes").await, stack.admin().await);
    agent.acquire(KEY, None, "").await.unwrap();
    let absent = admin.revoke(RevokeTarget::Lease(LeaseId([7; 16])), "").await;
    assert_eq!(reason(absent), ErrorReason::LeaseNotAvailable);
    let absent = admin.revoke(RevokeTarget::Session(SessionId([7; 16])), "").await;
    assert_eq!(reason(absent), ErrorReason::SessionInvalid);
    let nobody = admin.revoke(RevokeTarget::Role("absent".into()), "").await.unwrap();
    assert_eq!((nobody.sessions, nobody.leases), (0, 0));
    assert_eq!(
        reason(admin.revoke(RevokeTarget::Role("No Role".into()), "").await),
        ErrorReason::ArgumentInvalid
    );
    assert_eq!(agent.list_leases().await.unwrap().len(), 1);
}

/// Asks for a cold value in a task of its own, and waits until Ravi was asked.
async fn asking(stack: &Stack, agent: &Arc<AgentClient>) -> tokio::task::JoinHandle<ErrorReason> {
    let control = stack.control();
    let before = control.requests("GET", SECRETS);
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let agent = agent.clone();
    let asked = tokio::spawn(async move { reason(agent.acquire(KEY, None, "").await) });
    control.reached("GET", SECRETS, before + 1).await;
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_revoked_while_its_value_is_fetched_does_not_get_it() {
    let stack = Stack::start().await;
    let agent = Arc::new(stack.agent("notes").await);
    let asked = asking(&stack, &agent).await;
    stack.admin().await.revoke(RevokeTarget::All, "").await.unwrap();
    stack.control().release();
    assert_eq!(asked.await.unwrap(), ErrorReason::SessionRevoked);
    assert!(stack.audited("lease.acquired").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_revoked_while_it_is_read_gives_no_value() {
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = Arc::new(stack.agent("deploy").await);
    let resource = "password/grafana.net".to_owned();
    let (lease, _) = agent.acquire(&resource, None, "").await.unwrap();
    // A change empties the cache, so that the next read asks Ravi.
    let password = Some(Secret::copy_of("second value"));
    agent
        .update_password(UpdatePassword { resource, password, length: None, reason: String::new() })
        .await
        .unwrap();
    let before = control.requests("GET", "/api/passwords/");
    control.add_fault(Fault::new("/api/passwords/", Answer::Held).on("GET")).unwrap();
    let read = tokio::spawn({
        let (agent, id) = (agent.clone(), lease.lease_id);
        async move { reason(agent.read(id).await) }
    });
    control.reached("GET", "/api/passwords/", before + 1).await;
    stack.admin().await.revoke(RevokeTarget::Lease(lease.lease_id), "").await.unwrap();
    control.release();
    assert_eq!(read.await.unwrap(), ErrorReason::LeaseRevoked);
    assert!(stack.audited("lease.read").is_empty());
}

/// The kill switch, in the middle of a fetch: no value after the mark, and none of the fetch is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_while_a_value_is_fetched_lets_none_out() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let agent = Arc::new(stack.agent("notes").await);
    let asked = asking(&stack, &agent).await;
    admin.lock("leak").await.unwrap();
    stack.control().release();
    assert_eq!(asked.await.unwrap(), ErrorReason::BrokerLocked);
    assert!(stack.audited("lease.acquired").is_empty());
    stack.control().clear_faults();
    admin.unlock().await.unwrap();
    let before = stack.control().requests("GET", SECRETS);
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    assert_eq!(stack.control().requests("GET", SECRETS), before + 1);
}

/// Nor if it was unlocked again before the answer came.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_spans_a_lock_and_an_unlock_lets_no_value_out() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let agent = Arc::new(stack.agent("notes").await);
    let asked = asking(&stack, &agent).await;
    admin.lock("").await.unwrap();
    admin.unlock().await.unwrap();
    stack.control().release();
    assert_eq!(asked.await.unwrap(), ErrorReason::BrokerLocked);
    assert!(stack.audited("lease.acquired").is_empty());
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_broker_refuses_everything_and_holds_nothing() {
    let stack = Stack::start().await;
    let (agent, admin) = (stack.agent("deploy").await, stack.admin().await);
    let (lease, _) = agent.acquire(KEY, None, "").await.unwrap();
    agent.acquire("sso/token", None, "").await.unwrap();
    let mut events = agent.watch_leases().await.unwrap();
    let locked = admin.lock("leak").await.unwrap();
    assert_eq!((locked.sessions, locked.leases), (1, 2));
    let status = admin.status().await.unwrap();
    assert!(status.locked && !status.management_key_held);
    assert_eq!((status.identity_keys_held, status.sessions, status.leases), (0, 0, 0));
    let calls = stack.control().total_requests();
    let refused = ErrorReason::BrokerLocked;
    assert_eq!(reason(agent.acquire(KEY, None, "").await), refused);
    assert_eq!(reason(agent.read(lease.lease_id).await), refused);
    assert_eq!(reason(agent.renew(lease.lease_id, None).await), refused);
    assert_eq!(reason(agent.list_secrets().await), refused);
    assert_eq!(reason(agent.set_secret("A", &Secret::copy_of("value"), "").await), refused);
    assert_eq!(reason(agent.describe_session().await), refused);
    assert_eq!(reason(stack.stranger().await.open_session(OpenSession::role("notes")).await), refused);
    let mut last = None;
    while let Some(event) = crate::support::bounded(futures_util::StreamExt::next(&mut events)).await {
        last = Some(event);
    }
    assert_eq!(reason(last.expect("the stream says why it ends")), refused);
    assert_eq!(stack.control().total_requests(), calls);
    let status = admin.lock("twice").await.unwrap();
    assert_eq!((status.sessions, status.leases), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_longer_in_the_credentials_is_gone_with_the_lock() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    fs::remove_file(stack.setup.credentials().join("management-key")).unwrap();
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    admin.lock("").await.unwrap();
    assert!(!admin.unlock().await.unwrap().management_key_held);
    let calls = stack.control().total_requests();
    let asked = stack.agent("notes").await.acquire(KEY, None, "").await;
    assert_eq!(reason(asked), ErrorReason::LoginRequired);
    assert_eq!(stack.control().total_requests(), calls);
}

/// Sessions whose role is gone or no longer matches end with the reload; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_the_sessions_whose_role_is_gone() {
    let stack = Stack::start().await;
    let (notes, deploy) = (stack.agent("notes").await, stack.agent("deploy").await);
    notes.acquire(KEY, None, "").await.unwrap();
    stack.rewrite(|text| text.replace("[role.notes]", "[role.notebook]"));
    let reloaded = stack.admin().await.reload().await.unwrap();
    assert_eq!((reloaded.roles, reloaded.sessions_ended), (vec!["deploy".to_owned(), "notebook".into()], 1));
    assert_eq!(reason(notes.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
    deploy.acquire(KEY, None, "").await.unwrap();
    let ended = &stack.audited("session.revoked")[0];
    assert_eq!(ended["cause"], "reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlock_reads_the_keys_again_and_old_sessions_stay_dead() {
    let stack = Stack::start().await;
    let (agent, admin) = (stack.agent("notes").await, stack.admin().await);
    agent.acquire(KEY, None, "").await.unwrap();
    admin.lock("").await.unwrap();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("second value")).unwrap();
    assert!(admin.unlock().await.unwrap().management_key_held);
    let status = admin.status().await.unwrap();
    assert!(!status.locked && status.management_key_held);
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::SessionRevoked);
    let (_, credential) = stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    assert_eq!(credential.value.expose(), "second value", "no value outlived the lock");
    assert!(admin.unlock().await.unwrap().management_key_held, "to unlock twice is no mistake");
    assert_eq!(stack.audited("admin.unlock").len(), 1);
}

/// A kill switch that a restart undoes is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_outlives_the_daemon_until_it_is_unlocked() {
    let mut stack = Stack::start().await;
    stack.admin().await.lock("something is wrong").await.unwrap();
    stack.daemon.signal(nix::sys::signal::Signal::SIGKILL);
    stack.daemon.ended().await;
    stack.daemon = Daemon::start(&stack.setup).await;
    let refused = stack.stranger().await.open_session(OpenSession::role("notes")).await;
    assert_eq!(reason(refused), ErrorReason::BrokerLocked);
    let status = stack.admin().await.status().await.unwrap();
    assert!(status.locked && !status.management_key_held);
    assert!(stack.admin().await.unlock().await.unwrap().management_key_held);
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    stack.daemon.signal(nix::sys::signal::Signal::SIGKILL);
    stack.daemon.ended().await;
    stack.daemon = Daemon::start(&stack.setup).await;
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
}

/// A key file that turned bad meanwhile must not open a broker without its key.
#[tokio::test(flavor = "multi_thread")]
async fn an_unlock_that_cannot_read_the_keys_leaves_the_broker_locked() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    admin.lock("").await.unwrap();
    let key = stack.setup.credentials().join("management-key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, "not a key").unwrap();
    assert_eq!(reason(admin.unlock().await), ErrorReason::ArgumentInvalid);
    assert!(admin.status().await.unwrap().locked);
    fs::write(&key, good).unwrap();
    assert!(admin.unlock().await.unwrap().management_key_held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minted_key_is_in_the_trail() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    agent.acquire("sso/token", None, "").await.unwrap();
    agent.acquire("sso/token", None, "").await.unwrap();
    assert_eq!(stack.audited("key.minted").len(), 1);
}

/// A right that a reload takes away is gone for the call that is under way as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_a_value_is_fetched_keeps_it_back() {
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = stack.agent("notes").await;
    control.add_fault(Fault::new(SECRETS, Answer::Held).times(1)).unwrap();
    let reload = async {
        control.reached("GET", SECRETS, 1).await;
        stack.rewrite(|text| text.replacen("\"secret:read:OPENAI_*\", ", "", 1));
        stack.admin().await.reload().await.unwrap();
        control.release();
    };
    let (fetched, ()) = tokio::join!(agent.acquire(KEY, None, ""), reload);
    assert_eq!(reason(fetched), ErrorReason::ResourceNotAvailable);
    assert!(agent.list_leases().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_names_are_fetched_keeps_them_back() {
    let stack = Stack::start().await;
    let control = stack.control();
    let agent = stack.agent("notes").await;
    control.add_fault(Fault::new(SECRETS, Answer::Held).times(1)).unwrap();
    let reload = async {
        control.reached("GET", SECRETS, 1).await;
        stack.rewrite(|text| text.replacen("\"secret:list:OPENAI_*\", ", "", 1));
        stack.admin().await.reload().await.unwrap();
        control.release();
    };
    let (listed, ()) = tokio::join!(agent.list_secrets(), reload);
    assert_eq!(reason(listed), ErrorReason::ResourceNotAvailable);
}
