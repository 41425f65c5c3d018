//! A daemon that runs out of descriptors survives, and serves again once it has some.

use ravi_broker::client::OpenSession;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::support::{Stack, bounded};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_64_descriptors_do_not_end_it() {
    let script = r#"ulimit -n 64; exec "$0" "$@""#;
    let stack = Stack::with(|setup| setup.wrapper = Some(script.into())).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stack.daemon.pid())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(limit.split_whitespace().filter(|word| *word == "64").count() == 2, "{limit}");

    let mut clients = Vec::new();
    for _ in 0..200 {
        match UnixStream::connect(&stack.setup.agent_socket).await {
            Ok(client) => clients.push(client),
            // The backlog is full as well.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    assert!(clients.len() > 64, "{}", clients.len());
    // It has tried, and failed, to accept more.
    bounded(async {
        while !stack.daemon.log().contains("cannot accept connections for now") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(clients);
    // A client that is accepted before the others have been closed cannot be attested, and is refused.
    let agent = bounded(async {
        loop {
            let client = stack.stranger().await;
            if let Ok((_, token)) = client.open_session(OpenSession::role("notes")).await {
                break client.with_token(token);
            }
        }
    })
    .await;
    bounded(agent.acquire("secret/OPENAI_API_KEY", None, "")).await.unwrap();
    assert_eq!(bounded(stack.admin()).await.status().await.unwrap().leases, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_begin_to_speak_is_hung_up_on() {
    let stack = Stack::start().await;
    let silent = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    let half = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    half.writable().await.unwrap();
    half.try_write(b"PRI * HTTP/2.0\r\n").unwrap();
    let speaks = stack.agent("notes").await;
    for mut client in [silent, half] {
        // The daemon may greet first; then comes the end.
        let mut said = Vec::new();
        bounded(client.read_to_end(&mut said)).await.unwrap();
    }
    speaks.describe_session().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_too_many_connections_is_capped_and_others_are_not() {
    let limits = "[limits]\nconnections_per_uid = 8\n";
    let stack = Stack::with(|setup| setup.sections = limits.into()).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(stack.stranger().await);
    }
    let ninth = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    bounded(ninth.readable()).await.unwrap();
    assert_eq!(ninth.try_read(&mut [0]).unwrap(), 0, "it was not closed at once");
    // The operator has a socket of its own.
    assert_eq!(stack.admin().await.status().await.unwrap().connections, 8);
    clients.pop();
    bounded(async {
        while stack.admin().await.status().await.unwrap().connections == 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stack.agent("notes").await.describe_session().await.unwrap();
}
