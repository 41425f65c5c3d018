//! Clients in other languages, given only `proto/` and the socket: the programs under `examples/`.
//!
//! Their packages are not Rust's, so `.ci/run` installs them and says where they are; without that
//! a test here says that it was skipped. `.ci/run` runs them in steps of their own and counts them there.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ravi_broker::sandbox::NewSms;
use ravi_broker::secret::Secret;

use crate::support::{NOTES, Stack};

/// What a client is told on its command line, and what it must never print.
struct Target {
    agent_socket: PathBuf,
    role: &'static str,
    resource: &'static str,
    value: &'static str,
}

/// Hands a running broker to `check`. The role matches by uid alone: the executable is an interpreter.
fn with_broker(check: impl FnOnce(&Target)) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stack = runtime.block_on(Stack::start());
    let value = "value of a known length";
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(value)).expect("the sandbox has it");
    let agent_socket = stack.setup.agent_socket.clone();
    check(&Target { agent_socket, role: "notes", resource: "secret/OPENAI_API_KEY", value });
    assert_eq!(stack.audited("lease.released").len(), 1, "the client gave its lease back");
    // The daemon is ended by the runtime that started it.
    runtime.block_on(async { drop(stack) });
}

#[test]
fn a_python_client_leases_a_secret() {
    let Some(packages) = packages("RAVI_BROKER_CLIENT_PYTHON") else { return };
    let mut python = Command::new("python3");
    python.arg("examples/python/lease.py").env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    with_broker(|target| assert_leases(python, target));
}

#[test]
fn a_node_client_leases_a_secret() {
    let Some(packages) = packages("RAVI_BROKER_CLIENT_NODE") else { return };
    let folder = beside(packages, "lease.mjs");
    let mut node = Command::new("node");
    node.arg(folder.path().join("lease.mjs"));
    with_broker(|target| assert_leases(node, target));
}

#[test]
fn a_python_client_waits_for_a_code_and_a_rotation() {
    let Some(packages) = packages("RAVI_BROKER_CLIENT_PYTHON") else { return };
    let mut python = Command::new("python3");
    python.arg("examples/python/watch.py").env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    assert_waits(python);
}

#[test]
fn a_node_client_waits_for_a_code_and_a_rotation() {
    let Some(packages) = packages("RAVI_BROKER_CLIENT_NODE") else { return };
    let folder = beside(packages, "watch.mjs");
    let mut node = Command::new("node");
    node.arg(folder.path().join("watch.mjs"));
    assert_waits(node);
}

#[test]
fn no_example_of_a_client_is_longer_than_a_screen() {
    for name in ["python/lease.py", "python/watch.py", "node/lease.mjs", "node/watch.mjs"] {
        let text = std::fs::read_to_string(root().join("examples").join(name)).expect("it is there");
        assert!(text.lines().count() <= 40, "{name}");
    }
}

/// May wait for codes and write, so that the test can rotate what the client holds.
const WAITER: &str = r#"
[role.waiter]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["secret:read:OPENAI_*", "secret:write:OPENAI_*", "sms:await"]
"#;

/// Sends the client a code when it waits for one, and changes the secret when it waits for that.
fn assert_waits(mut client: Command) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stack = runtime.block_on(Stack::with(|setup| setup.roles.push_str(WAITER)));
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of("first-value")).expect("it is there");
    client.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).arg(&stack.setup.agent_socket);
    let mut client =
        client.args(["waiter", "secret/OPENAI_API_KEY"]).spawn().expect("the interpreter starts");
    let mut printed = String::new();
    for line in BufReader::new(client.stdout.take().expect("it is piped")).lines() {
        let line = line.expect("it is text");
        if line.starts_with("waiting for a code") {
            let (from, body) = ("+15559876543".into(), "Your verification code is 482913".into());
            let message = NewSms { identity: NOTES.into(), from, body, ..NewSms::default() };
            stack.control().deliver_sms(message).expect("it has a number");
        } else if line == "waiting for a rotation" {
            runtime.block_on(async {
                let value = Secret::copy_of("another, longer value");
                stack
                    .agent("waiter")
                    .await
                    .set_secret("OPENAI_API_KEY", &value, "")
                    .await
                    .expect("it may write");
            });
        }
        printed.push_str(&line);
        printed.push('\n');
    }
    assert!(client.wait().expect("it ends").success(), "{printed}");
    assert!(printed.contains("code of 6 characters\n"), "{printed}");
    assert!(printed.ends_with("rotated: value of 21 characters\n"), "{printed}");
    for hidden in ["482913", "first-value", "another, longer value"] {
        assert!(!printed.contains(hidden), "the client printed what it should not");
    }
    runtime.block_on(async { drop(stack) });
}

/// A folder with a copy of a client and its packages: Node looks for them beside the program, and the repository is no
/// place to put them.
fn beside(packages: OsString, program: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the program");
    let copy = folder.path().join(program);
    std::fs::copy(root().join("examples/node").join(program), copy).expect("a copy of the program");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).expect("a link to the packages");
    folder
}

/// Runs the client to its end; its calls have deadlines of their own.
fn assert_leases(mut client: Command, target: &Target) {
    client.current_dir(root()).stdin(Stdio::null());
    client.arg(&target.agent_socket).args([target.role, target.resource]);
    let output = client.output().expect("the interpreter starts");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(!printed.contains(target.value), "the client printed the value");
    assert!(output.status.success(), "the client failed:\n{printed}");
    for line in [
        format!("of role {}\n", target.role),
        format!("of {}\n", target.resource),
        format!("value of {} characters\n", target.value.chars().count()),
        "released and closed\n".to_owned(),
    ] {
        assert!(printed.contains(&line), "{line:?} is not in:\n{printed}");
    }
}

/// The folder that `variable` names.
#[expect(clippy::print_stdout, reason = "a test that does not run has to say so")]
fn packages(variable: &str) -> Option<OsString> {
    let folder = std::env::var_os(variable).filter(|folder| !folder.is_empty());
    if folder.is_none() {
        println!("skipped: {variable} does not name a folder with the client's packages (.ci/run sets it)");
    }
    folder
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
