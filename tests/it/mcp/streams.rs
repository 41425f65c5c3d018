//! Whatever a host makes standard input and output of: pipes are in the other tests.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{ADAPTER, PATIENCE};

fn start(input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
    let mut command = Command::new(ADAPTER);
    command.env_clear().stdin(input).stdout(output).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("the adapter starts")
}

async fn ended(mut child: Child) {
    let status = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
}

/// The opening of the protocol, which the adapter answers as well.
fn opening() -> String {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let open = json!({ "jsonrpc": "2.0", "id": "opening", "method": "initialize", "params": params });
    format!("{open}\n{}\n", json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
}

fn ping(id: &str) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }))
}

/// The ids of the answers to pings. One that was asked among too many others is answered all the same.
fn ids(lines: impl Iterator<Item = std::io::Result<String>>) -> Vec<String> {
    let id = |line: std::io::Result<String>| {
        let answer: Value = serde_json::from_str(line.unwrap().trim()).expect("a line of JSON");
        assert!(answer["result"].is_object() || answer["error"]["code"] == -32000, "{answer:.200}");
        answer["id"].as_str().unwrap().to_owned()
    };
    lines.map(id).collect()
}

/// More than one read and one write can take.
fn many() -> Vec<String> {
    (0..300).map(|number| format!("{number:->2000}")).collect()
}

#[tokio::test]
async fn files_are_read_to_the_end_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let [input, output] = ["in", "out"].map(|name| directory.path().join(name));
    let text: String = [opening()].into_iter().chain(many().iter().map(|id| ping(id))).collect();
    std::fs::write(&input, text.trim_end()).unwrap();
    let child = start(File::open(&input).unwrap(), File::create(&output).unwrap());
    ended(child).await;
    let mut answered = ids(BufReader::new(File::open(&output).unwrap()).lines());
    answered.retain(|id| id != "opening");
    answered.sort();
    assert!(answered == many(), "{} answers", answered.len());
}

#[tokio::test]
async fn sockets_that_do_not_block_are_waited_for() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let child = start(OwnedFd::from(theirs.try_clone().unwrap()), OwnedFd::from(theirs));
    let mut answers = BufReader::new(ours.try_clone().unwrap()).lines();
    (&ours).write_all(ping("first").as_bytes()).unwrap();
    assert_eq!(ids(answers.by_ref().take(1)), ["first"]);
    std::thread::scope(|scope| {
        scope.spawn(|| many().iter().for_each(|id| (&ours).write_all(ping(id).as_bytes()).unwrap()));
        let mut answered = ids(answers.by_ref().take(many().len()));
        answered.sort();
        assert!(answered == many(), "other answers");
    });
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    ended(child).await;
}

#[tokio::test]
async fn a_terminal_serves_until_it_is_gone() {
    // Not `openpty`: a program that inherits the controlling side never sees it go.
    let controlling = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&controlling).unwrap();
    unlockpt(&controlling).unwrap();
    let side = File::options().read(true).write(true).open(ptsname_r(&controlling).unwrap()).unwrap();
    let mut raw = tcgetattr(&side).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&side, SetArg::TCSANOW, &raw).unwrap();
    let child = start(side.try_clone().unwrap(), side);
    let mut terminal = controlling;
    terminal.write_all(ping("typed").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        terminal.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert_eq!(ids(answer.lines()), ["typed"]);
    drop(terminal);
    ended(child).await;
}
