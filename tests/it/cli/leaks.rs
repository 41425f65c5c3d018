//! What other programs and readers of a terminal could see: nothing secret.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::PROGRAM;
use crate::support::{NOTES, Stack, bounded};

const CANARY: &str = "canary-7be20c41-value";

/// What `ps` and its like show of a process, once it shows this.
async fn seen_of(pid: u32, expected: &str) -> String {
    bounded(async {
        loop {
            // A process that was just started has no arguments for a moment.
            let shown = ["cmdline", "environ"].map(|name| fs::read(format!("/proc/{pid}/{name}")));
            let shown = shown.into_iter().flatten();
            let shown: String =
                shown.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).collect();
            if shown.contains(expected) {
                break shown;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_on_its_way_in_is_on_no_command_line() {
    let stack = Stack::start().await;
    let mut command = stack.surrounded(PROGRAM);
    command.args(["set", "secret/CANARY", "--role", "deploy"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(CANARY.as_bytes()).unwrap();
    // It waits for the end of its input.
    let seen = seen_of(child.id(), "set secret/CANARY").await;
    assert!(!seen.contains(CANARY), "{seen}");
    drop(input);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(stack.run("get secret/CANARY --role deploy").good(), format!("{CANARY}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_and_a_token_on_their_way_out_are_on_no_command_line() {
    let stack = Stack::start().await;
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(CANARY)).unwrap();
    stack.control().add_fault(Fault::new("/api/secrets/", Answer::Held)).unwrap();
    let mut shell = super::Shell::under(&stack, "notes");
    let file = shell.run("echo \"$RAVI_BROKER_SESSION_FILE\"").good();
    let stored: serde_json::Value = serde_json::from_str(&fs::read_to_string(file.trim()).unwrap()).unwrap();
    let token = stored["token"].as_str().unwrap();
    let out = stack.setup.directory().join("value");
    let get = format!("ravi-broker get secret/OPENAI_API_KEY > {} & echo $!", out.display());
    let pid: u32 = shell.run(&get).good().trim().parse().unwrap();
    bounded(stack.control().reached("GET", "/api/secrets/", 1)).await;
    let seen = seen_of(pid, "get secret/OPENAI_API_KEY").await;
    assert!(!seen.contains(token) && !seen.contains(CANARY));
    stack.control().release();
    shell.run(&format!("wait {pid}")).good();
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("{CANARY}\n"));
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_what_was_given_or_what_ravi_sent() {
    let stack = Stack::start().await;
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(CANARY)).unwrap();
    stack.run("get secret/OPENAI_ORG_ID --role notes").good();
    let clean = |run: super::Run| {
        assert_ne!(run.code, Some(0), "{run:?}");
        assert!(!run.out.contains("canary") && !run.err.contains("canary"), "{run:?}");
    };
    for answer in [Answer::LegacyEncrypted, Answer::WrongIdentity, Answer::Truncated, Answer::Status(400)] {
        stack.control().clear_faults();
        stack.control().add_fault(Fault::new("/api/secrets/", answer)).unwrap();
        for format in ["human", "json"] {
            clean(stack.run(&format!("get secret/OPENAI_API_KEY --role notes --format {format}")));
            clean(stack.run_with(&format!("set secret/CANARY_A --role deploy --format {format}"), CANARY));
        }
    }
    stack.control().clear_faults();
    clean(stack.run_with("set secret/A --role notes", CANARY));
    clean(stack.run_with("set secret/A --role deploy", &CANARY.repeat(4000)));
    clean(stack.run_with("password update password/absent.example/x --stdin --role deploy", CANARY));
    clean(stack.run(&format!("get {CANARY} --role notes")));
    clean(stack.run(&format!("get secret/A --role {CANARY}/x")));
    clean(stack.run(&format!("session open --role notes --scopes {CANARY}:x")));
    clean(stack.run(&format!("revoke --lease {CANARY}")));
}
