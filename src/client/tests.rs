//! Round trips against a small daemon on a real Unix socket.

use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::fake::{FakeDaemon, LEASE, SESSION, VALUE, token};
use super::*;
use crate::pb;
use crate::secret::Secret;

async fn agent(daemon: &FakeDaemon) -> AgentClient {
    AgentClient::connect(&[daemon.path()]).await.expect("the socket accepts")
}

/// A client with a session.
async fn agent_in_session(daemon: &FakeDaemon) -> AgentClient {
    let client = agent(daemon).await;
    let (_, token) = client.open_session(OpenSession::role("notes-agent")).await.ok().unwrap();
    client.with_token(token)
}

#[tokio::test]
async fn a_session_is_opened_and_its_token_sent_with_what_follows() {
    let daemon = FakeDaemon::serving();
    let client = agent(&daemon).await;
    let open = OpenSession { anchor: Anchor::Parent, ..OpenSession::role("notes-agent") };
    let (session, given) = client.open_session(open).await.ok().unwrap();
    assert_eq!((session.session_id, session.role.as_str()), (SESSION, "notes-agent"));
    assert_eq!(session.expires_in.as_secs(), 60);
    assert_eq!(given.expose(), token(1));

    let refused = client.describe_session().await.unwrap_err();
    assert_eq!(refused.reason(), Some(ErrorReason::SessionRequired));
    let client = client.with_token(given);
    let described = client.describe_session().await.unwrap();
    assert_eq!((described.limits[0].remaining, described.max_live_leases), (59, 32));
    assert_eq!(client.close_session().await.unwrap(), 2);
}

#[tokio::test]
async fn a_token_that_no_broker_issued_is_for_the_broker_to_refuse() {
    let daemon = FakeDaemon::serving();
    let client = agent(&daemon).await.with_token(Secret::copy_of("line\nbreak"));
    let refused = client.describe_session().await.unwrap_err();
    assert_eq!(refused.reason(), Some(ErrorReason::SessionInvalid));
}

#[tokio::test]
async fn the_authorization_is_marked_so_that_no_log_shows_it() {
    let daemon = FakeDaemon::serving();
    let client = agent_in_session(&daemon).await;
    let shown = format!("{:?}", client.request(pb::DescribeSessionRequest {}));
    assert!(shown.contains("authorization") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_credential_is_leased_and_a_denial_keeps_its_reason() {
    let daemon = FakeDaemon::serving();
    let client = agent_in_session(&daemon).await;
    let (lease, credential) = client.acquire("password/github.com", None, "push").await.ok().unwrap();
    assert_eq!((lease.lease_id, lease.resource.as_str()), (LEASE, "password/github.com"));
    assert_eq!(credential.value.expose(), VALUE);
    assert_eq!(credential.username.as_deref(), Some("alice"));
    let denied = client.acquire("secret/OTHER", None, "").await.err().unwrap();
    assert_eq!(denied.reason(), Some(ErrorReason::ResourceNotAvailable));
    let foreign = client.renew(LEASE, None).await.unwrap_err();
    assert_eq!(foreign, ClientError::Protocol, "a status without the broker's details");
}

#[tokio::test]
async fn pages_are_followed_and_an_endless_list_is_cut_off() {
    let daemon = FakeDaemon::serving();
    let client = agent_in_session(&daemon).await;
    let names: Vec<_> = client.list_passwords().await.unwrap().into_iter().map(|n| n.resource).collect();
    assert_eq!(names, ["password/0.example", "password/1.example", "password/2.example"]);
    assert_eq!(client.list_secrets().await.unwrap().len(), 1);
    daemon.list_without_end();
    assert_eq!(client.list_secrets().await.unwrap_err(), ClientError::Protocol);
}

#[tokio::test]
async fn a_watch_ends_with_its_first_error() {
    let daemon = FakeDaemon::serving();
    let client = agent_in_session(&daemon).await;
    let seen: Vec<_> = client.watch_leases().await.unwrap().collect().await;
    let handle = LeaseHandle { lease_id: LEASE, resource: "secret/A".into() };
    assert_eq!(seen[..2], [Ok(LeaseEvent::Rotated(handle)), Ok(LeaseEvent::Missed)]);
    assert_eq!(seen[2].as_ref().unwrap_err().reason(), Some(ErrorReason::SessionRevoked));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_secret_is_set_and_its_name_returned() {
    let daemon = FakeDaemon::serving();
    let client = agent_in_session(&daemon).await;
    let (name, created) = client.set_secret("A", &Secret::copy_of(VALUE), "").await.unwrap();
    assert_eq!((name.resource.as_str(), created), ("secret/A", true));
}

#[tokio::test]
async fn the_operator_sees_the_daemon_and_follows_a_login() {
    let daemon = FakeDaemon::serving();
    let client = AdminClient::connect(&[daemon.path()]).await.ok().unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((status.version.as_str(), status.audit_head.sequence), ("1.2.3", 9));
    let revoked = client.revoke(RevokeTarget::Session(SESSION), "").await.unwrap();
    assert_eq!(revoked.exposed_resources, [SESSION.to_string()]);
    let login: Vec<_> = client.login().await.unwrap().map(Result::unwrap).collect().await;
    assert!(matches!(&login[0], LoginEvent::Prompt { user_code, .. } if user_code == "ABCD-1234"));
    let held = KeysHeld { identities: vec!["notes".into()], persisted: true };
    assert_eq!(login[1], LoginEvent::Done(held));
    let lines: Vec<_> = client.tail_audit(2, false).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(lines, ["{}", "{}"]);
}

#[tokio::test]
async fn an_unreachable_daemon_lists_what_was_tried_and_how_it_failed() {
    let daemon = FakeDaemon::new();
    let (absent, left) = (daemon.path().with_file_name("absent.sock"), daemon.path());
    drop(daemon.bind());
    let long = PathBuf::from("/").join("x".repeat(200));
    let tried = [absent.clone(), left.clone(), long.clone()];
    let error = AgentClient::connect(&tried).await.err().unwrap();
    let expected = [
        (absent, ConnectFailure::Absent),
        (left, ConnectFailure::Refused),
        (long, ConnectFailure::Other(std::io::ErrorKind::InvalidInput)),
    ];
    let tried = expected.map(|(path, failure)| Attempt { path, failure });
    assert_eq!(error, ClientError::Unreachable { tried: tried.into() });
}

#[tokio::test]
async fn the_first_socket_that_accepts_is_used() {
    let daemon = FakeDaemon::serving();
    let absent = daemon.path().with_file_name("absent.sock");
    let client = AgentClient::connect(&[absent, daemon.path()]).await.ok().unwrap();
    assert_eq!(client.socket(), daemon.path());
    assert!(client.open_session(OpenSession::role("notes-agent")).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_and_made_again_with_the_next_call() {
    let daemon = FakeDaemon::new();
    let listener = daemon.bind();
    let breaking = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        until_call_begins(&mut stream).await;
    });
    let client = agent(&daemon).await;
    let lost = client.describe_session().await.unwrap_err();
    assert_eq!(lost, ClientError::Lost);
    breaking.await.unwrap();
    let gone = client.describe_session().await.unwrap_err();
    let attempt = Attempt { path: daemon.path(), failure: ConnectFailure::Refused };
    assert_eq!(gone, ClientError::Unreachable { tried: vec![attempt] });
    daemon.serve();
    assert!(client.open_session(OpenSession::role("notes-agent")).await.is_ok());
}

/// Reads HTTP/2 frames (RFC 9113, section 4.1) up to the first HEADERS frame.
async fn until_call_begins(stream: &mut UnixStream) {
    const PREFACE_LENGTH: usize = 24;
    const HEADERS: u8 = 1;
    stream.read_exact(&mut [0; PREFACE_LENGTH]).await.unwrap();
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length.try_into().unwrap()]).await.unwrap();
        if header[3] == HEADERS {
            return;
        }
    }
}
