//! A caller's trace in the daemon's log, and what the journal is told.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::support::{Daemon, Setup, Stack, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ravi-broker");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn whoami(setup: &Setup, trace: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["whoami", "--role", "notes", "--socket"]).arg(&setup.agent_socket);
    command.env_clear().env("TRACEPARENT", trace).stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_of_a_call_names_the_trace_that_its_caller_named() {
    let stack = Stack::start().await;
    // What is not one to the letter is as good as none.
    for trace in
        ["", "forged\nline", &format!("01-{TRACE}-{PARENT}-01"), &format!("00-{TRACE}-{PARENT}-01-x")]
    {
        assert!(whoami(&stack.setup, trace).output().unwrap().status.success());
    }
    until(async || stack.daemon.log().matches("CloseSession").count() == 4).await;
    assert!(!stack.daemon.log().contains(TRACE) && !stack.daemon.log().contains("forged"));
    let done = whoami(&stack.setup, &format!("00-{TRACE}-{PARENT}-01")).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let span =
        |method: &str| format!("call{{method=\"{method}\" trace_id=\"{TRACE}\" parent_id=\"{PARENT}\"}}");
    for method in ["SessionService/OpenSession", "IdentityService/GetIdentity", "SessionService/CloseSession"]
    {
        until(async || stack.daemon.log().contains(&span(method))).await;
    }
}

/// What comes to a journal of the test's own, which a mount namespace puts in the place of the host's.
fn journal(folder: &Path) -> Receiver<Vec<u8>> {
    fs::create_dir(folder).unwrap();
    let socket = UnixDatagram::bind(folder.join("socket")).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = socket.recv(&mut buffer) {
            if tell.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    told
}

/// A field in the journal's own form: its name, the length of its value, its value.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = u64::try_from(value.len()).unwrap().to_le_bytes();
    [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_told_fields_and_not_only_lines() {
    let tried = Command::new("unshare").args(["-m", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: a journal of the test's own; mounting takes root");
        return;
    }
    let (mut setup, sandbox) = Stack::prepared(|_| {}).await;
    let folder = setup.directory().join("journal");
    let told = journal(&folder);
    let mount = format!(
        "mount -t tmpfs none /run && mkdir /run/systemd && ln -s {} /run/systemd/journal && exec \"$0\" \"$@\"",
        folder.display()
    );
    setup.wrapper = Some(format!("exec unshare -m sh -c '{mount}' \"$0\" \"$@\""));
    // The daemon writes to the journal if its standard error is the journal's.
    let log = File::create(setup.directory().join("log")).unwrap().metadata().unwrap();
    let stream = format!("{}:{}", log.dev(), log.ino());
    let daemon = Daemon::start_with(&setup, |command| {
        command.env("JOURNAL_STREAM", &stream);
    })
    .await;
    let stack = Stack::of(daemon, setup, sandbox);
    let mut enter = Command::new("nsenter");
    enter.args([
        "-m",
        "-t",
        &stack.daemon.pid().to_string(),
        PROGRAM,
        "whoami",
        "--role",
        "notes",
        "--socket",
    ]);
    enter.arg(&stack.setup.agent_socket).env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01"));
    let done = enter.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let expected = [
        field("RAVI_TRACE_ID", TRACE),
        field("RAVI_PARENT_ID", PARENT),
        field("RAVI_METHOD", "IdentityService/GetIdentity"),
        field("SPAN_NAME", "call"),
        field("TARGET", "ravi_broker::call"),
        field("MESSAGE", "call"),
    ];
    let has = |record: &[u8], field: &[u8]| record.windows(field.len()).any(|window| window == field);
    let mut seen = 0;
    while let Ok(record) = told.recv_timeout(Duration::from_secs(20)) {
        seen += 1;
        if expected.iter().all(|field| has(&record, field)) {
            return;
        }
    }
    panic!("of {seen} records none is about the call");
}
