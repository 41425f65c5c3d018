//! Who is asking: what is established about a peer, and what is not believed.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use ravi_broker::peer::{Peer, PeerTier, Pidfd, ProcessId};
use ravi_broker::sys::peer::pidfd_at_connect;

use super::*;

fn own() -> ProcessId {
    ProcessId::of(std::process::id()).unwrap()
}

/// A client that is connected and stays, as the daemon sees it.
async fn connected(role: &str, incoming: &mut Incoming, socket: &Path) -> (Process, Connection, Arc<Peer>) {
    let mut client = Process::start(role, socket);
    assert_eq!(client.hear(), "connected");
    let connection = next(incoming).await;
    let peer = connection.peer().0;
    (client, connection, peer)
}

#[tokio::test]
async fn a_peer_is_described_by_the_kernel() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let client = UnixStream::connect(&socket).unwrap();
    let peer = next(&mut incoming).await.peer().0;
    let best = match pidfd_at_connect(&client) {
        Ok(Some(_)) => PeerTier::PidfdAtConnect,
        _ => PeerTier::PidAndStartTime,
    };
    assert_eq!((peer.uid, peer.gid), (Uid::effective().as_raw(), Gid::effective().as_raw()));
    assert_eq!((peer.process, peer.tier, peer.foreign), (Some(own()), best, false));
    assert_eq!(peer.executable.as_ref().unwrap().path, std::env::current_exe().unwrap());
    assert!(peer.is_alive() && peer.descends_from(own()));
}

#[tokio::test]
async fn a_child_descends_from_its_parent_and_not_the_other_way_round() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let (client, _connection, peer) = connected("connect", &mut incoming, &socket).await;
    let child = peer.process.unwrap();
    assert_eq!(child.pid, client.pid());
    assert_eq!(peer.parent(), Some(own()));
    assert!(peer.descends_from(own()) && peer.descends_from(child));
    assert!(!own().descends_from(child));

    let (_sibling, _other_connection, sibling) = connected("connect", &mut incoming, &socket).await;
    assert!(!sibling.descends_from(child));
}

#[tokio::test]
async fn the_end_of_a_process_is_noticed_and_ends_its_descent() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let (mut client, _connection, peer) = connected("connect", &mut incoming, &socket).await;
    let process = peer.process.unwrap();
    let pinned = Pidfd::open(process).unwrap();
    let ended = tokio::spawn(peer.ended());
    assert!(!ended.is_finished());
    client.child.kill().unwrap();
    tokio::time::timeout(HANG, ended).await.expect("the end was missed").unwrap();
    // Not reaped yet: its pid still leads to it.
    assert!(!peer.is_alive() && !process.is_alive() && !pinned.is_alive());
    assert!(!peer.descends_from(own()) && !peer.descends_from(process));
    assert_eq!((peer.parent(), process.parent(), process.executable()), (None, None, None));
    assert!(Pidfd::open(process).is_none() && ProcessId::of(process.pid).is_none());
    client.child.wait().unwrap();
    assert!(!peer.is_alive() && ProcessId::of(process.pid) != Some(process));
    tokio::time::timeout(HANG, peer.ended()).await.expect("an end that is over");
}

#[tokio::test]
async fn a_peer_that_exits_before_it_is_examined_is_unknown_and_stops_nothing() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let reaped = Process::start("connect and exit", &socket);
    reaped.finish();
    assert_unknown(&next(&mut incoming).await.peer().0).await;

    let unreaped = Process::start("connect and exit", &socket);
    let exited = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(unreaped.pid().cast_signed())), exited).unwrap();
    assert_unknown(&next(&mut incoming).await.peer().0).await;

    let _client = UnixStream::connect(&socket).unwrap();
    assert!(next(&mut incoming).await.peer().0.is_alive());
}

async fn assert_unknown(peer: &Peer) {
    assert_eq!(peer.uid, Uid::effective().as_raw());
    assert_eq!((peer.process, peer.tier, peer.foreign), (None, PeerTier::None, false));
    assert!(peer.executable.is_none() && peer.parent().is_none());
    assert!(!peer.is_alive() && !peer.descends_from(own()));
    tokio::time::timeout(HANG, peer.ended()).await.expect("nothing to wait for");
}

#[tokio::test]
async fn a_process_that_was_given_to_another_parent_no_longer_descends() {
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let mut parent = Process::start("start a client and leave", &socket);
    let grandchild: u32 = parent.hear().parse().unwrap();
    let parent_id = ProcessId::of(parent.pid()).unwrap();
    assert_eq!(parent.hear(), "connected");
    let connection = next(&mut incoming).await;
    let peer = connection.peer().0;
    assert_eq!(peer.process.unwrap().pid, grandchild);
    assert!(peer.descends_from(own()), "a session of its own does not leave the family");
    assert!(peer.descends_from(parent_id));

    parent.tell("leave");
    parent.finish();
    assert!(peer.is_alive());
    assert!(!peer.descends_from(own()) && !peer.descends_from(parent_id));
}

#[tokio::test]
async fn an_exec_changes_the_executable_and_not_the_process() {
    let mut shell = Process::run({
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo @ready; read line; exec cat"]);
        command
    });
    assert_eq!(shell.hear(), "ready");
    let process = ProcessId::of(shell.pid()).unwrap();
    let before = process.executable().unwrap();
    assert_eq!(before.path, fs::canonicalize("/bin/sh").unwrap());
    shell.tell("go");
    shell.tell("@cat");
    assert_eq!(shell.hear(), "cat");
    assert!(process.is_alive());
    let after = process.executable().unwrap();
    assert_ne!(before, after);
    assert_eq!(after.path, fs::canonicalize("/bin/cat").unwrap());
}

#[test]
fn what_a_process_calls_itself_is_not_believed() {
    let mut liar = Process::run({
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/bin/sh");
        let rename = r#"printf "a) S 1 1 (claude" >/proc/self/comm; echo @here; read line"#;
        command.arg0("/usr/bin/claude").args(["-c", rename]);
        command
    });
    liar.hear();
    let comm = fs::read_to_string(format!("/proc/{}/comm", liar.pid())).unwrap();
    assert!(comm.starts_with("a) S 1 1 ("), "{comm}");
    let process = ProcessId::of(liar.pid()).unwrap();
    assert_eq!(process.executable().unwrap().path, fs::canonicalize("/bin/sh").unwrap());
    assert_eq!(process.parent(), Some(own()));
}

#[test]
fn an_executable_that_was_replaced_is_unknown() {
    let (directory, _) = room();
    let program = directory.path().join("agent");
    fs::copy("/bin/cat", &program).unwrap();
    let mut agent = Process::run(Command::new(&program));
    agent.tell("@here");
    agent.hear();
    let process = ProcessId::of(agent.pid()).unwrap();
    assert_eq!(process.executable().unwrap().path, program);
    fs::hard_link(&program, directory.path().join("agent (deleted)")).unwrap();
    fs::remove_file(&program).unwrap();
    assert_eq!(process.executable(), None, "removed, with a link that is named as the kernel names it now");
    fs::copy("/bin/sh", &program).unwrap();
    assert_eq!(process.executable(), None, "replaced");
}

#[test]
fn a_path_in_a_mount_namespace_of_its_own_is_not_believed() {
    if !can_become_others() {
        return;
    }
    let (directory, _) = room();
    let [trusted, evil] = ["trusted", "evil"].map(|name| directory.path().join(name));
    fs::copy("/bin/cat", &evil).unwrap();
    fs::copy("/bin/sh", &trusted).unwrap();
    let mut agent = Process::run({
        let mut command = Command::new("unshare");
        let script = r#"mount --bind "$0" "$1" && exec "$1""#;
        command.args(["--mount", "sh", "-c", script]).args([&evil, &trusted]);
        command
    });
    agent.tell("@here");
    agent.hear();
    let claimed = fs::read_link(format!("/proc/{}/exe", agent.pid())).unwrap();
    assert_eq!(claimed, trusted, "the kernel alone would be fooled");
    assert_eq!(ProcessId::of(agent.pid()).unwrap().executable(), None);
}

#[tokio::test]
async fn a_peer_without_a_number_here_is_foreign() {
    if !can_become_others() {
        return;
    }
    let (_directory, socket) = room();
    let mut incoming = accepting(&socket, Admission::Everyone, WIDE);
    let mut nobody = Process::start_as(NOBODY, "connect", &socket);
    assert_eq!(nobody.hear(), "connected");
    let peer = next(&mut incoming).await.peer().0;
    assert!(peer.foreign && peer.uid == NOBODY);

    let (_other_directory, inner) = room();
    let server = command("accept once", &inner);
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(server.get_program())
        .args(server.get_args());
    unshare.env(ROLE, "accept once").env(SOCKET, &inner);
    let mut server = Process::run(unshare);
    assert_eq!(server.hear(), "ready");
    let _client = UnixStream::connect(&inner).unwrap();
    assert_eq!(server.hear(), "foreign true, process false");
    server.finish();
}

/// Connects its standard input, which others have as well.
pub(super) fn play_connector(socket: &Path) {
    let given = std::io::stdin();
    nix::sys::socket::connect(given.as_raw_fd(), &UnixAddr::new(socket).unwrap()).unwrap();
    say("connected");
    let _ = std::io::Read::read(&mut &given, &mut [0]);
}

/// A service of another user that writes what it is told to where it is told must not be heard as itself.
#[tokio::test]
async fn who_is_handed_a_socket_that_another_user_connected_does_not_speak_on_it() {
    if !can_become_others() {
        return;
    }
    let (_directory, path) = room();
    let mut incoming = accepting(&path, Admission::Everyone, WIDE);
    let handed = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let mut connector = command("connect what it was given", &path);
    connector.env(UID, STRANGER.to_string()).stdin(handed.try_clone().unwrap());
    let mut connector = Process::run_with_its_input(connector);
    assert_eq!(connector.hear(), "connected");
    let connection = next(&mut incoming).await;
    assert_eq!(connection.peer().0.uid, STRANGER);
    (&UnixStream::from(handed)).write_all(b"PRI").unwrap();
    assert!(connection.begin().await.is_none(), "root was heard on what another user connected");
}

/// What a privileged process connected may be in the hands of what it became.
#[tokio::test]
async fn a_process_that_gave_up_its_user_does_not_speak_as_that_user() {
    if !can_become_others() {
        return;
    }
    for admission in [Admission::Everyone, Admission::Operator] {
        let (_directory, socket) = room();
        let mut incoming = accepting(&socket, admission, WIDE);
        let mut dropper = Process::start("connect and become another", &socket);
        let connection = next(&mut incoming).await;
        assert_eq!(dropper.hear(), "spoken");
        let begun = connection.begin().await.map(|begun| begun.peer().0);
        let begun = begun.map(|peer| (peer.uid, peer.process.map(|process| process.pid)));
        let expected = (admission == Admission::Everyone).then_some((STRANGER, Some(dropper.pid())));
        assert_eq!(begun, expected, "{admission:?}");
    }
}
