//! Accept goes on whatever happens, within its caps.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::task::Poll;

use futures_util::Stream;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, listen, socket};
use ravi_broker::clock::{Clock, SystemClock};
use ravi_broker::daemon::listen::{BindError, Spoken, adopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream as AsyncStream;

use super::*;

/// Runs out of descriptors with a client in the backlog, and serves it once there are some again.
pub(super) fn play_starved_daemon(socket: &Path) {
    runtime().block_on(async {
        let mut incoming = accepting(socket, Admission::Everyone, WIDE);
        let connections = incoming.connections();
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        say("starving");
        let started = SystemClock.now();
        std::future::poll_fn(|cx| match Pin::new(&mut incoming).poll_next(cx) {
            Poll::Ready(_) => panic!("accepted without a descriptor"),
            Poll::Pending if connections.failures() < 5 => Poll::Pending,
            Poll::Pending => Poll::Ready(()),
        })
        .await;
        assert!(SystemClock.now().since(started) >= Duration::from_millis(150), "it spins");
        hoard.clear();
        spoken(next(&mut incoming).await).await.write_all(b"!").await.unwrap();
    });
}

/// Accepts one connection and says what it saw.
pub(super) fn play_server(socket: &Path) {
    runtime().block_on(async {
        let mut incoming = accepting(socket, Admission::Everyone, WIDE);
        say("ready");
        let peer = next(&mut incoming).await.peer().0;
        say(&format!("foreign {}, process {}", peer.foreign, peer.process.is_some()));
    });
}

pub(super) fn play_activated_daemon() {
    runtime().block_on(async {
        let adopted = match adopt() {
            Ok(adopted) => adopted,
            Err(error) => return say(&error.to_string().replace('\n', "; ")),
        };
        assert!(adopt().is_err(), "the descriptors have one owner");
        for (name, bound) in [("agent", adopted.agent), ("admin", adopted.admin)] {
            let Some(bound) = bound else {
                say(&format!("{name}: none"));
                continue;
            };
            let stop = CancellationToken::new();
            let mut incoming = Incoming::new(bound, Admission::Operator, WIDE, stop).unwrap();
            say(&format!("{name}: ready"));
            spoken(next(&mut incoming).await).await.write_all(name.as_bytes()).await.unwrap();
        }
    });
}

/// Once its client has said something.
async fn spoken(connection: Connection) -> Spoken {
    connection.begin().await.unwrap().spoken()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn accept_survives_the_descriptor_limit() {
    let (_directory, socket) = room();
    let mut daemon = Process::start("accept without descriptors", &socket);
    assert_eq!(daemon.hear(), "starving");
    let mut client = AsyncStream::connect(&socket).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let served = tokio::time::timeout(HANG, client.read_u8()).await;
    assert_eq!(served.unwrap().unwrap(), b'!');
    daemon.finish();
}

#[tokio::test]
async fn a_client_that_leaves_at_once_stops_nothing() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    for _ in 0..20 {
        drop(UnixStream::connect(&socket).unwrap());
    }
    let mut stays = AsyncStream::connect(&socket).await.unwrap();
    for _ in 0..20 {
        assert!(next(&mut incoming).await.begin().await.is_none());
    }
    stays.write_all(b"?").await.unwrap();
    let mut connection = spoken(next(&mut incoming).await).await;
    assert_eq!(connection.read_u8().await.unwrap(), b'?');
    assert_eq!(incoming.connections().open(), 1);
}

#[tokio::test]
async fn the_cap_closes_further_connections_at_once_and_frees_places() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, Limits { total: 2, per_uid: 64 });
    let connections = incoming.connections();
    let _clients = [(); 2].map(|()| UnixStream::connect(&socket).unwrap());
    let held = [next(&mut incoming).await, next(&mut incoming).await];

    let mut over = AsyncStream::connect(&socket).await.unwrap();
    refused(&mut incoming, &mut over).await;
    assert_eq!((connections.open(), connections.refused()), (2, 1));

    drop(held);
    assert_eq!(connections.open(), 0);
    let _client = UnixStream::connect(&socket).unwrap();
    let _connection = next(&mut incoming).await;
    assert_eq!((connections.open(), connections.refused()), (1, 1));
}

#[tokio::test]
async fn one_user_over_its_cap_leaves_room_for_another() {
    if !can_become_others() {
        return;
    }
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, Limits { total: 64, per_uid: 2 });
    let _clients = [(); 2].map(|()| UnixStream::connect(&socket).unwrap());
    let _held = [next(&mut incoming).await, next(&mut incoming).await];
    let mut over = AsyncStream::connect(&socket).await.unwrap();
    refused(&mut incoming, &mut over).await;

    let mut neighbour = Process::start_as(STRANGER, "connect", &socket);
    assert_eq!(neighbour.hear(), "connected");
    let connection = next(&mut incoming).await;
    assert_eq!(connection.peer().0.uid, STRANGER);
}

#[tokio::test]
async fn the_admin_socket_is_for_our_user_and_root() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Operator, WIDE);
    let _client = UnixStream::connect(&socket).unwrap();
    let own = next(&mut incoming).await;
    assert_eq!(own.peer().0.uid, Uid::effective().as_raw());
    if !can_become_others() {
        return;
    }
    let connections = incoming.connections();
    for uid in [STRANGER, NOBODY] {
        let mut stranger = Process::start_as(uid, "connect", &socket);
        assert_eq!(stranger.hear(), "connected");
        pending(&mut incoming).await;
        stranger.finish();
    }
    assert_eq!((connections.open(), connections.refused()), (1, 2));
}

/// The stream takes the connection, gives nothing out, and the client reads its end.
async fn refused(incoming: &mut Incoming, client: &mut AsyncStream) {
    pending(incoming).await;
    let read = tokio::time::timeout(HANG, client.read(&mut [0])).await.unwrap();
    let closed =
        matches!(&read, Ok(0)) || read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(closed, "still open");
}

/// Polls until the stream has refused whoever waits.
async fn pending(incoming: &mut Incoming) {
    let refused = incoming.connections().refused();
    let connections = incoming.connections();
    let turned_away = std::future::poll_fn(|cx| match Pin::new(&mut *incoming).poll_next(cx) {
        Poll::Ready(_) => panic!("it was admitted"),
        Poll::Pending if connections.refused() > refused => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
    });
    tokio::time::timeout(HANG, turned_away).await.expect("nobody was refused");
}

#[tokio::test]
async fn stopping_removes_the_socket_and_keeps_the_lock_until_the_drain_is_over() {
    let (_directory, socket) = room();
    let stop = CancellationToken::new();
    let bound = bind(&socket, Mode::Owner).unwrap();
    let mut incoming = Incoming::new(bound, Admission::Everyone, WIDE, stop.clone()).unwrap();
    let _client = UnixStream::connect(&socket).unwrap();
    let _under_way = next(&mut incoming).await;
    stop.cancel();
    assert!(incoming.next().await.is_none());
    assert!(!socket.exists());
    assert!(matches!(bind(&socket, Mode::Owner), Err(BindError::Running { .. })));
    drop(incoming);
    bind(&socket, Mode::Owner).unwrap();
}

#[tokio::test]
async fn a_pending_stream_wakes_up_to_stop() {
    let (_directory, socket) = room();
    let stop = CancellationToken::new();
    let bound = bind(&socket, Mode::Owner).unwrap();
    let mut incoming = Incoming::new(bound, Admission::Everyone, WIDE, stop.clone()).unwrap();
    let waits = tokio::spawn(async move { incoming.next().await.is_none() });
    tokio::task::yield_now().await;
    stop.cancel();
    assert!(tokio::time::timeout(HANG, waits).await.unwrap().unwrap());
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_taken_over_and_left_behind() {
    let (directory, agent) = room();
    let admin = directory.path().join("admin.sock");
    let sockets = [&agent, &admin].map(|path| UnixListener::bind(path).unwrap());
    let mut daemon = activated("agent:admin", sockets.map(OwnedFd::from));
    for (name, path) in [("agent", &agent), ("admin", &admin)] {
        assert_eq!(daemon.hear(), format!("{name}: ready"));
        let mut text = String::new();
        let mut client = AsyncStream::connect(path).await.unwrap();
        client.write_all(b"?").await.unwrap();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, name);
    }
    daemon.finish();
    assert!(agent.exists() && admin.exists());
}

/// The service manager starts the daemon because somebody has connected.
#[tokio::test]
async fn who_spoke_before_the_daemon_was_there_is_served() {
    let (directory, agent) = room();
    let admin = directory.path().join("admin.sock");
    let sockets = [&agent, &admin].map(|path| UnixListener::bind(path).unwrap());
    let mut clients = Vec::new();
    for path in [&agent, &admin] {
        let mut client = AsyncStream::connect(path).await.unwrap();
        client.write_all(b"?").await.unwrap();
        clients.push(client);
    }
    let daemon = activated("agent:admin", sockets.map(OwnedFd::from));
    for (name, mut client) in ["agent", "admin"].into_iter().zip(clients) {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, name);
    }
    daemon.finish();
}

#[test]
fn a_socket_of_the_service_manager_that_does_not_fit_is_refused() {
    let (directory, path) = room();
    let listening = |name: &str| OwnedFd::from(UnixListener::bind(directory.path().join(name)).unwrap());
    let abstract_address = {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes()).unwrap()
    };
    let unfit = [
        ("agent:admin", UnixStream::pair().unwrap().0.into(), "is not a listening"),
        ("agent:admin", UnixListener::bind_addr(&abstract_address).unwrap().into(), "is not a listening"),
        ("agent:admin", std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(), "is not a listening"),
        ("agent:admin", unusual(SockType::Stream, &path.with_file_name("deaf"), false), "is not a listening"),
        (
            "agent:admin",
            unusual(SockType::SeqPacket, &path.with_file_name("packets"), true),
            "is not a listening",
        ),
        ("agent:agent", listening("b"), "two sockets named agent"),
        ("agent:other", listening("c"), "whose name is not known"),
        ("agent", listening("d"), "cannot be taken over"),
    ];
    for (index, (names, fd, complaint)) in unfit.into_iter().enumerate() {
        let good = listening(&format!("good{index}"));
        let said = activated(names, [good, fd]).hear();
        assert!(said.contains(complaint), "{said}");
    }
}

fn unusual(kind: SockType, path: &Path, listening: bool) -> OwnedFd {
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    if listening {
        listen(&socket, Backlog::new(1).unwrap()).unwrap();
    }
    socket
}

#[test]
fn without_a_service_manager_nothing_is_taken_over() {
    let mut daemon = Process::start("adopt", Path::new(""));
    assert_eq!((daemon.hear(), daemon.hear()), ("agent: none".into(), "admin: none".into()));
    daemon.finish();
}

/// Starts a daemon as systemd does: descriptors from 3 on, and the variables that describe them.
fn activated(names: &str, [first, second]: [OwnedFd; 2]) -> Process {
    let itself = command("adopt", Path::new(""));
    let script = r#"export LISTEN_PID=$$; exec "$0" "$@" 3<&0 4<&2 0</dev/null 2>/dev/null"#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).arg(itself.get_program()).args(itself.get_args());
    shell.env(ROLE, "adopt").env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    let mut child = shell.stdin(first).stdout(Stdio::piped()).stderr(second).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Process { input: None, output, child }
}
