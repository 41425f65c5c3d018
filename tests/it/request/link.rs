//! The descriptor that a launcher leaves open: what works over it, for whom, and what does not.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ravi_broker::client::{ClientError, OpenSession, link};
use ravi_broker::link::{Ephemeral, HEAD, Head, Kind, PREFACE, VERSION};
use ravi_broker::secret::Secret;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{Confinement, NOTES, Stack, bounded, no_python, until};

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

/// Keeps whatever can be read of the descriptor, until it is told to stop.
const THIEF: &str = r#"
import os, socket, sys
link = socket.socket(fileno=os.dup(9))
loot, seen = open("loot", "wb", buffering=0), b""
os.write(1, b"there\n")
while True:
    try:
        got = link.recv(1 << 20, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        if sys.argv[1] == "take" and len(got) > 4096: got = link.recv(1 << 20, socket.MSG_DONTWAIT)
    except BlockingIOError:
        got = b""
        if os.path.exists("stop"): break
    if got and got != seen: loot.write(got)
    seen = got
os.write(1, b"gone\n")
"#;

/// A thief with a stolen copy of the link, and no more of a session than that: its parent is gone.
struct Thief {
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    shell: Child,
}

impl Thief {
    async fn enter(stack: &Stack, link: &OwnedFd, how: &str) -> Self {
        std::fs::write(stack.setup.directory().join("thief.py"), THIEF).unwrap();
        let script = format!("( python3 thief.py {how} & ); exec sleep 600");
        let mut shell = shell(stack, link, &script, false);
        let mut said = BufReader::new(shell.stdout.take().unwrap()).lines();
        assert_eq!(bounded(said.next_line()).await.unwrap().as_deref(), Some("there"));
        Self { said, shell }
    }

    fn loot(stack: &Stack) -> Vec<u8> {
        std::fs::read(stack.setup.directory().join("loot")).unwrap()
    }

    async fn leave(mut self, stack: &Stack) -> Vec<u8> {
        std::fs::write(stack.setup.directory().join("stop"), "").unwrap();
        assert_eq!(bounded(self.said.next_line()).await.unwrap().as_deref(), Some("gone"));
        self.shell.kill().await.unwrap();
        Self::loot(stack)
    }
}

/// A value whose answers are told from others by their length.
fn long_value() -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut digits = String::new();
    while digits.len() < 4096 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        digits.push_str(&format!("{state:016x}"));
    }
    digits
}

/// Frames of a conversation that are long enough for the value, complete or not.
fn long_frames(loot: &[u8]) -> usize {
    let heads = loot.windows(HEAD).filter_map(|window| Head::read(window.first_chunk()?).ok());
    heads.filter(|head| head.kind == Kind::Data && head.length > 4096).count()
}

/// Whether any eight bytes of the value, or of a spelling of it, are there.
fn shows(loot: &[u8], value: &str) -> bool {
    let spellings = [
        value.as_bytes().to_vec(),
        value.bytes().rev().collect(),
        value.to_uppercase().into_bytes(),
        data_encoding::HEXLOWER.encode(value.as_bytes()).into_bytes(),
        data_encoding::HEXLOWER.decode(value.as_bytes()).unwrap(),
        data_encoding::BASE64.encode(value.as_bytes()).into_bytes(),
        data_encoding::BASE64.encode(&value.as_bytes()[1..]).into_bytes(),
        data_encoding::BASE64.encode(&value.as_bytes()[2..]).into_bytes(),
    ];
    let parts: HashSet<&[u8]> = spellings.iter().flat_map(|spelling| spelling.windows(8)).collect();
    loot.windows(8).any(|window| parts.contains(window))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_peeks_at_a_stolen_copy_sees_no_part_of_a_value() {
    if no_python() {
        return;
    }
    let stack = Stack::start().await;
    let value = long_value();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(&value)).unwrap();
    // The search finds what it is for.
    let mut bare = Vec::new();
    ravi_broker::link::write(Kind::Data, 7, value.as_bytes(), &mut bare);
    assert!(shows(&bare, &value));
    let (link, token) = linked(&stack).await;
    let thief = Thief::enter(&stack, &link, "peek").await;
    let mut calls = 0;
    while calls < 8 || (long_frames(&Thief::loot(&stack)) < 8 && calls < 200) {
        let (good, said, errors) = output(shell(&stack, &link, GET, true)).await;
        assert!(good && said == format!("{value}\n"), "{errors}");
        calls += 1;
    }
    let loot = thief.leave(&stack).await;
    assert!(long_frames(&loot) >= 8, "it has hardly seen an answer");
    assert!(!shows(&loot, &value) && !shows_token(&loot, &token), "it has read what is not its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_away_from_a_stolen_copy_disturbs_and_learns_nothing() {
    if no_python() {
        return;
    }
    let stack = Stack::start().await;
    let value = long_value();
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(&value)).unwrap();
    let (link, token) = linked(&stack).await;
    let thief = Thief::enter(&stack, &link, "take").await;
    let mut calls = 0;
    while long_frames(&Thief::loot(&stack)) == 0 && calls < 200 {
        // Answered or not: what the thief took, it cannot put back.
        let _ = output(shell(&stack, &link, &format!("timeout 0.5 {GET}"), true)).await;
        calls += 1;
    }
    let loot = thief.leave(&stack).await;
    assert!(long_frames(&loot) > 0, "it has taken no answer");
    assert!(!shows(&loot, &value) && !shows_token(&loot, &token), "it has read what is not its own");
    let (good, said, errors) = output(shell(&stack, &link, GET, true)).await;
    assert!(good && said == format!("{value}\n"), "{errors}");
}

fn shows_token(loot: &[u8], token: &Secret) -> bool {
    let token = token.expose().as_bytes();
    loot.windows(8).any(|window| token[8..].windows(8).any(|part| part == window))
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

/// The call that ends the session, and the link with it, is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_call_that_ends_a_session_is_answered_over_its_link() {
    let stack = Stack::start().await;
    for _ in 0..10 {
        let (link, _) = linked(&stack).await;
        let (good, _, errors) = output(shell(&stack, &link, "ravi-broker session close", true)).await;
        assert!(good, "{errors}");
    }
    assert_eq!(stack.audited("session.closed").len(), 10);
}

/// A launcher and a daemon of two installations: neither serves the other.
#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_link_is_refused_and_told() {
    let stack = Stack::start().await;
    let client = stack.stranger().await;
    let (_, token) = client.open_session(OpenSession::role("notes")).await.unwrap();
    for (version, answer) in [(0, Kind::Refused), (1, Kind::Refused), (VERSION, Kind::Bound)] {
        let mut begin = PREFACE.to_vec();
        ravi_broker::link::write(Kind::Bind, 0, token.expose().as_bytes(), &mut begin);
        begin[PREFACE.len() + 1] = version;
        let mut launcher = UnixStream::connect(&stack.setup.agent_socket).await.unwrap();
        launcher.write_all(&begin).await.unwrap();
        let mut head = [0; HEAD];
        bounded(launcher.read_exact(&mut head)).await.unwrap();
        assert_eq!(Head::read(&head).unwrap().kind, answer, "{version}");
    }
    // A daemon of before: what it says is read as such, and as no link.
    let socket = stack.setup.directory().join("older.sock");
    let older = tokio::net::UnixListener::bind(&socket).unwrap();
    let serve = async {
        let (mut stream, _) = older.accept().await.unwrap();
        stream.write_all(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        stream
    };
    let (_, made) = tokio::join!(serve, link::make(&socket, &token));
    assert_eq!(made.unwrap_err(), ClientError::Protocol);
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
    let key = Ephemeral::new().unwrap();
    ravi_broker::link::write(Kind::Open, 7, key.public(), &mut open);
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
