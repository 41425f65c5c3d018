//! SIGTERM: calls under way finish, new ones are turned away, streams end, everything is wiped.

use std::time::Duration;

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use ravi_broker::client::{ClientError, ErrorReason, LoginEvent};
use ravi_broker::sandbox::{Answer, Fault};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::reason;
use crate::support::{Stack, bounded};

const SECRETS: &str = "/api/secrets/";

/// Longer than any wait of a test: a drain that waits for it fails.
const FOREVER: &str = "[limits]\ngrace = \"5m\"\n";

async fn with_grace(limits: &str) -> Stack {
    let limits = limits.to_owned();
    Stack::with(|setup| setup.sections = limits).await
}

fn is_turned_away(error: &ClientError) -> bool {
    // On a connection that is still there the broker says so; a new one finds no socket.
    error.reason() == Some(ErrorReason::BrokerDraining)
        || matches!(error, ClientError::Unreachable { .. } | ClientError::Lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_gets_its_answer_and_a_new_one_is_turned_away() {
    let mut stack = with_grace(FOREVER).await;
    let control = stack.control();
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let (waiting, other, watcher) =
        (stack.agent("notes").await, stack.agent("notes").await, stack.agent("notes").await);
    let mut events = watcher.watch_leases().await.unwrap();
    let answer = tokio::spawn(async move { waiting.acquire("secret/OPENAI_API_KEY", None, "").await });
    bounded(control.reached("GET", SECRETS, 1)).await;

    stack.daemon.signal(Signal::SIGTERM);
    stack.daemon.notification("STOPPING=1").await;
    // The end of a stream says that the gate is closed.
    assert_eq!(reason(bounded(events.next()).await.unwrap()), ErrorReason::BrokerDraining);
    assert!(bounded(events.next()).await.is_none());
    let late = bounded(other.acquire("secret/OPENAI_API_KEY", None, "")).await.err().unwrap();
    assert!(is_turned_away(&late), "{late:?}");
    let late = bounded(other.describe_session()).await.unwrap_err();
    assert!(is_turned_away(&late), "{late:?}");
    assert!(!answer.is_finished(), "the call under way was cut off");

    control.release();
    let (lease, credential) = bounded(answer).await.unwrap().unwrap();
    assert_eq!(credential.value.expose(), "sandbox-openai-notes-7c1f20");
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
    assert!(!stack.setup.agent_socket.exists() && !stack.setup.admin_socket.exists());
    assert!(stack.daemon.log().contains("every value and key is wiped"));
    // What it got is on record, and that the daemon's end took the lease away.
    assert_eq!(stack.audited("lease.acquired")[0]["lease"], lease.lease_id.to_string());
    assert_eq!(stack.audited("lease.revoked")[0]["lease"], lease.lease_id.to_string());
    assert_eq!(stack.audit().last().unwrap()["event"], "daemon.stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_no_new_connection_is_accepted() {
    let mut stack = with_grace(FOREVER).await;
    let control = stack.control();
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let (waiting, watcher) = (stack.agent("notes").await, stack.agent("notes").await);
    let mut events = watcher.watch_leases().await.unwrap();
    let answer = tokio::spawn(async move { waiting.acquire("secret/OPENAI_API_KEY", None, "").await });
    bounded(control.reached("GET", SECRETS, 1)).await;
    stack.daemon.signal(Signal::SIGTERM);
    bounded(events.next()).await;
    // Whoever slipped in before the socket closed has its connection ended, and nobody hangs.
    bounded(async {
        while let Ok(stream) = UnixStream::connect(&stack.setup.agent_socket).await {
            let _ = stream.readable().await;
        }
    })
    .await;
    assert!(!answer.is_finished());
    control.release();
    bounded(answer).await.unwrap().unwrap();
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_time_is_over_calls_are_cut_off_and_the_daemon_ends_well() {
    let mut stack = with_grace("[limits]\ngrace = \"1s\"\n").await;
    let control = stack.control();
    control.add_fault(Fault::new(SECRETS, Answer::Held)).unwrap();
    let agent = stack.agent("notes").await;
    let answer = tokio::spawn(async move { agent.acquire("secret/OPENAI_API_KEY", None, "").await });
    bounded(control.reached("GET", SECRETS, 1)).await;
    stack.daemon.signal(Signal::SIGTERM);
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
    let error = bounded(answer).await.unwrap().err().expect("nothing was released");
    assert!(is_turned_away(&error), "{error:?}");
    let log = stack.daemon.log();
    assert!(log.contains("the grace time is over") && log.contains("every value and key is wiped"), "{log}");
    assert!(!stack.setup.agent_socket.exists() && !stack.setup.admin_socket.exists());
    assert!(stack.audited("lease.acquired").is_empty());
    assert_eq!(stack.audit().last().unwrap()["event"], "daemon.stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_a_reason_and_hold_nothing_up() {
    let mut stack = with_grace(FOREVER).await;
    let admin = stack.admin().await;
    let mut leases = stack.agent("notes").await.watch_leases().await.unwrap();
    let mut audit = admin.tail_audit(0, true).await.unwrap();
    let mut login = admin.login().await.unwrap();
    assert!(matches!(bounded(login.next()).await, Some(Ok(LoginEvent::Prompt { .. }))));

    stack.daemon.signal(Signal::SIGTERM);
    assert_eq!(reason(bounded(leases.next()).await.unwrap()), ErrorReason::BrokerDraining);
    assert_eq!(reason(bounded(login.next()).await.unwrap()), ErrorReason::BrokerDraining);
    loop {
        // Records that were written meanwhile come first.
        let Err(end) = bounded(audit.next()).await.expect("an end with a reason") else { continue };
        assert_eq!(end.reason(), Some(ErrorReason::BrokerDraining));
        break;
    }
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
}

async fn health(socket: &std::path::Path) -> HealthClient<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    HealthClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_its_health_is_told_and_holds_nothing_up() {
    let mut stack = with_grace(FOREVER).await;
    let mut watches = Vec::new();
    for (socket, service) in [
        (&stack.setup.agent_socket, ""),
        (&stack.setup.agent_socket, "ravi.broker.v1.LeaseService"),
        (&stack.setup.admin_socket, ""),
        (&stack.setup.admin_socket, "ravi.broker.v1.AdminService"),
    ] {
        let mut client = health(socket).await;
        let request = HealthCheckRequest { service: service.into() };
        let checked = client.check(request.clone()).await.unwrap().into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving, "{service}");
        let mut watch = client.watch(request).await.unwrap().into_inner();
        assert_eq!(bounded(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }
    stack.daemon.signal(Signal::SIGTERM);
    for watch in &mut watches {
        let told = bounded(watch.message()).await.unwrap().unwrap();
        assert_eq!(told.status(), ServingStatus::NotServing);
        assert!(bounded(watch.message()).await.unwrap().is_none());
    }
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_silent_connections_hold_nothing_up() {
    // Shorter than the time that a client has to begin to speak.
    let mut stack = with_grace("[limits]\ngrace = \"3s\"\n").await;
    let _idle = (stack.agent("notes").await, stack.admin().await);
    let silent = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    let half = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    half.writable().await.unwrap();
    half.try_write(b"PRI * HTTP/2.0\r\n").unwrap();
    stack.daemon.signal(Signal::SIGTERM);
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
    assert!(!stack.daemon.log().contains("the grace time is over"), "{}", stack.daemon.log());
    drop((silent, half));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_from_the_keyboard_ends_it_in_the_same_way() {
    let mut stack = with_grace(FOREVER).await;
    stack.daemon.signal(Signal::SIGINT);
    stack.daemon.notification("STOPPING=1").await;
    assert_eq!(stack.daemon.ended().await.code(), Some(0));
    assert!(!stack.setup.agent_socket.exists());
    assert_eq!(stack.audit().last().unwrap()["event"], "daemon.stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_every_session_on_the_record_and_a_start_knows_none() {
    let mut stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    agent.acquire("secret/OPENAI_API_KEY", Some(Duration::from_secs(60)), "").await.unwrap();
    stack.restart().await;
    let ended = &stack.audited("session.revoked")[0];
    assert_eq!((&ended["cause"], &ended["ended_leases"]), (&"stopping".into(), &1.into()));
    // The client connects again by itself; its token is of a life before.
    assert_eq!(reason(agent.list_leases().await), ErrorReason::SessionInvalid);
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 0);
}
