//! Restarts with the sockets held by a service manager, whose part the test plays: nobody is turned away.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use ravi_broker::client::{AgentClient, ClientError, ErrorReason, OpenSession};

use crate::support::{Daemon, Setup, Stack, bounded, until};

const CLIENTS: usize = 50;
const RESTARTS: usize = 5;
/// Who comes while there is no daemon. With the others less than `session.max_live`.
const LATE: usize = 10;
/// As systemd passes them: descriptors from 3 on, and variables that describe them.
const ADOPT: &str = r#"export LISTEN_PID=$$; exec "$0" "$@" 3<&0 4<&1 0</dev/null 1>&2"#;

/// The sockets of a service manager.
struct Held {
    agent: OwnedFd,
    admin: OwnedFd,
}

impl Held {
    /// Binds where the setup says that clients look.
    fn bind(setup: &mut Setup) -> Self {
        let directory = setup.directory().join("held");
        fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
        setup.agent_socket = directory.join("broker.sock");
        setup.admin_socket = directory.join("admin.sock");
        let bind = |path| OwnedFd::from(UnixListener::bind(path).unwrap());
        Self { agent: bind(&setup.agent_socket), admin: bind(&setup.admin_socket) }
    }

    async fn start(&self, setup: &Setup) -> Daemon {
        Daemon::start_with(setup, |command| {
            command.stdin(self.agent.try_clone().unwrap()).stdout(self.admin.try_clone().unwrap());
            command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "agent:admin");
        })
        .await
    }
}

/// How the attempts of all clients came out.
struct Tally {
    served: Vec<AtomicUsize>,
    /// The connection was not made.
    refused: AtomicUsize,
    /// It was, and ended before the answer.
    lost: AtomicUsize,
}

impl Tally {
    fn new() -> Self {
        let served = std::iter::repeat_with(AtomicUsize::default).take(CLIENTS).collect();
        Self { served, refused: AtomicUsize::default(), lost: AtomicUsize::default() }
    }
}

/// One client: a connection, a session and a value, again and again.
async fn client(number: usize, socket: PathBuf, tally: Arc<Tally>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        match one_round(socket.clone()).await {
            Ok(()) => drop(tally.served[number].fetch_add(1, Ordering::Relaxed)),
            Err(ClientError::Unreachable { .. }) => drop(tally.refused.fetch_add(1, Ordering::Relaxed)),
            Err(ClientError::Lost) => drop(tally.lost.fetch_add(1, Ordering::Relaxed)),
            // What clients act on: they come again.
            Err(error) => {
                let reason = error.reason();
                let ended =
                    [ErrorReason::BrokerDraining, ErrorReason::SessionInvalid, ErrorReason::SessionRevoked];
                assert!(reason.is_some_and(|reason| ended.contains(&reason)), "{error:?}");
            }
        }
    }
}

async fn one_round(socket: PathBuf) -> Result<(), ClientError> {
    let client = AgentClient::connect(&[socket]).await?;
    let (_, token) = client.open_session(OpenSession::role("notes")).await?;
    let client = client.with_token(token);
    client.acquire("secret/OPENAI_API_KEY", None, "").await?;
    client.close_session().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_fifty_clients_refuse_no_connection() {
    let (mut setup, sandbox) = Stack::prepared(|setup| {
        setup.wrapper = Some(ADOPT.into());
        setup.roles = setup.roles.replace("6000/min", "600000/min");
        setup.sections = "[limits]\nopen = \"600000/min\"\n".to_owned();
    })
    .await;
    let held = Held::bind(&mut setup);
    let mut daemon = held.start(&setup).await;
    let (tally, done) = (Arc::new(Tally::new()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, setup.agent_socket.clone(), tally.clone(), done.clone())))
        .collect();
    for _ in 0..RESTARTS {
        // Each of them works with this daemon before it goes.
        each_is_served(&tally).await;
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.ended().await.success(), "{}", daemon.log());
        // Nobody is there, and who comes waits.
        let early: Vec<_> = (0..LATE).map(|_| UnixStream::connect(&setup.agent_socket).unwrap()).collect();
        let late = (0..LATE).map(|_| tokio::spawn(one_round(setup.agent_socket.clone())));
        let late: Vec<_> = late.collect();
        daemon = held.start(&setup).await;
        for round in late {
            bounded(round).await.unwrap().expect("who came meanwhile is served");
        }
        drop(early);
    }
    each_is_served(&tally).await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        bounded(client).await.unwrap();
    }
    let (refused, lost) = (tally.refused.load(Ordering::Relaxed), tally.lost.load(Ordering::Relaxed));
    assert_eq!(refused, 0, "lost besides: {lost}");
    drop(sandbox);
}

/// Waits until each client was served once more.
async fn each_is_served(tally: &Tally) {
    let before = served(tally);
    until(async || {
        tokio::task::yield_now().await;
        served(tally).iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
}

fn served(tally: &Tally) -> Vec<usize> {
    tally.served.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}
