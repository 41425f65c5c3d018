//! The descriptor that a launcher leaves open: what works over it, for whom, and what does not.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::client::{OpenSession, link};
use ravi_broker::secret::Secret;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{Confinement, Stack, bounded, until};

const VALUE: &str = "sandbox-openai-notes-7c1f20\n";
const GET: &str = "ravi-broker get secret/OPENAI_API_KEY";
/// What sandboxes of agents refuse.
const SOCKETS: [libc::c_long; 6] = [
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
];

/// A link of a session of this process.
async fn linked(stack: &Stack) -> (OwnedFd, Secret) {
    let client = stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    (link::make(&stack.setup.agent_socket, &token).await.unwrap(), token)
}

/// A shell with the link as descriptor 9, in which sockets are forbidden if `confined`.
fn shell(stack: &Stack, link: impl AsFd, script: &str, confined: bool) -> Child {
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_ravi-broker")).parent().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("exec 9<&0 0</dev/null\n{script}")])
        .current_dir(stack.setup.directory())
        .env_clear()
        .env("PATH", format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default()))
        .env("RAVI_BROKER_SOCKET", &stack.setup.agent_socket)
        .env("RAVI_BROKER_LINK_FD", "9")
        .stdin(Stdio::from(link.as_fd().try_clone_to_owned().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if confined {
        Confinement { memlock: None, refused: (&SOCKETS, libc::EPERM) }.apply(&mut command);
    }
    command.spawn().unwrap()
}

async fn output(child: Child) -> (bool, String, String) {
    let output = bounded(child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_use_no_socket_leases_over_the_descriptor() {
    let stack = Stack::start().await;
    let (link, _) = linked(&stack).await;
    let (good, said, errors) = output(shell(&stack, &link, GET, true)).await;
    assert!(good && said == VALUE, "{errors}");
    // Without the descriptor the same process gets nowhere.
    let script = format!("exec 9<&-; {GET} --role notes");
    let (good, said, _) = output(shell(&stack, &link, &script, true)).await;
    assert!(!good && said.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_a_session_take_turns() {
    let stack = Stack::start().await;
    let (link, _) = linked(&stack).await;
    let script = format!("for i in 1 2 3 4 5; do {GET} || exit 1; done");
    let shells: Vec<_> = (0..6).map(|_| shell(&stack, &link, &script, true)).collect();
    for shell in shells {
        let (good, said, errors) = output(shell).await;
        assert!(good, "{errors}");
        assert_eq!(said, VALUE.repeat(5));
    }
}

/// The one that waits at the pipe has lost its parent by the time it goes on, and with it the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_outside_of_the_session_is_refused_on_a_stolen_copy_and_disturbs_nobody() {
    let stack = Stack::start().await;
    let (link, _) = linked(&stack).await;
    let script =
        format!("mkfifo gate; ( ( read go < gate; {GET} 2>&1; echo left $? ) & ); echo set; read never");
    let mut thief = shell(&stack, &link, &script.replace("read never", "exec sleep 60"), true);
    let mut said = BufReader::new(thief.stdout.take().unwrap()).lines();
    assert_eq!(bounded(said.next_line()).await.unwrap().as_deref(), Some("set"));
    std::fs::write(stack.setup.directory().join("gate"), "go\n").unwrap();
    let (good, value, errors) = output(shell(&stack, &link, GET, true)).await;
    assert!(good && value == VALUE, "{errors}");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.starts_with("left")) {
        lines.push(bounded(said.next_line()).await.unwrap().unwrap());
    }
    assert!(lines.iter().all(|line| !line.contains("sandbox-openai")), "it was given the value");
    assert_ne!(lines.last().map(String::as_str), Some("left 0"));
    assert!(stack.audited("session.denied").iter().any(|record| record["cause"] == "token_foreign"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_unread_does_not_confuse_the_next_one() {
    let stack = Stack::start().await;
    let (link, _) = linked(&stack).await;
    for _ in 0..5 {
        stack.daemon.signal(Signal::SIGSTOP);
        let asking = shell(&stack, &link, &format!("exec {GET}"), true);
        let pid = Pid::from_raw(asking.id().unwrap().cast_signed());
        // Killed at some point of its conversation: before, in or after the answer.
        stack.daemon.signal(Signal::SIGCONT);
        kill(pid, Signal::SIGKILL).unwrap();
        let _ = output(asking).await;
        let (good, said, errors) = output(shell(&stack, &link, GET, true)).await;
        assert!(good && said == VALUE, "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_its_session_and_with_no_token_there_is_none() {
    let stack = Stack::start().await;
    let (link, token) = linked(&stack).await;
    stack.holder(&token).await.close_session().await.unwrap();
    let (good, said, _) = output(shell(&stack, &link, GET, true)).await;
    assert!(!good && said.is_empty());
    assert!(link::make(&stack.setup.agent_socket, &Secret::copy_of("rbt_guess")).await.is_err());
}

/// Whoever takes nothing out of a link must not keep its session's answers, its place, or a daemon that stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_nobody_reads_ends_with_its_session() {
    let stack = Stack::start().await;
    let (link, token) = linked(&stack).await;
    let link = std::os::unix::net::UnixStream::from(link);
    link.set_nonblocking(true).unwrap();
    let mut link = UnixStream::from_std(link).unwrap();
    let mut open = Vec::new();
    ravi_broker::link::write(ravi_broker::link::Kind::Open, 7, &[], &mut open);
    // Until the answers have no more room, and then the questions.
    while let Ok(written) = timeout(Duration::from_secs(1), link.write_all(&open)).await {
        written.unwrap();
    }
    stack.holder(&token).await.close_session().await.unwrap();
    until(async || {
        tokio::task::yield_now().await;
        link.try_write(&open).is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
    .await;
}

/// A byte of a second process ends the connection: a request could be of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_of_one_process() {
    let stack = Stack::start().await;
    let mut stream = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    stream.read_exact(&mut [0; 9]).await.unwrap();
    let copy = Stdio::from(stream.as_fd().try_clone_to_owned().unwrap());
    let mut other = Command::new("sh").args(["-c", "printf x"]).stdout(copy).spawn().unwrap();
    bounded(other.wait()).await.unwrap();
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = bounded(stream.read_to_end(&mut rest)).await;
    until(async || stack.audited("session.denied").iter().any(|record| record["cause"] == "sender_foreign"))
        .await;
}

/// Who connects is nobody; who speaks is judged.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_handed_on_speaks_for_the_one_that_uses_it() {
    let stack = Stack::start().await;
    let stream = std::os::unix::net::UnixStream::connect(&stack.setup.agent_socket).unwrap();
    let own = std::env::current_exe().unwrap();
    let mut other = Command::new("python3");
    // Another program sends the greeting on it: the connection is its own from then on.
    let script = "import os,time; os.write(1, b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\x04\\0\\0\\0\\0\\0'); time.sleep(60)";
    other.args(["-c", script]).stdout(Stdio::from(stream.as_fd().try_clone_to_owned().unwrap()));
    let other = match other.kill_on_drop(true).spawn() {
        Ok(other) => other,
        Err(_) => return println!("skipped: no python3"),
    };
    let mut stream = UnixStream::from_std({
        stream.set_nonblocking(true).unwrap();
        stream
    })
    .unwrap();
    bounded(stream.read_exact(&mut [0; 9])).await.unwrap();
    // This process connected, and is a stranger now.
    let _ = stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
    let mut rest = Vec::new();
    let _ = bounded(stream.read_to_end(&mut rest)).await;
    until(async || stack.audited("session.denied").iter().any(|record| record["cause"] == "sender_foreign"))
        .await;
    drop((other, own));
}
