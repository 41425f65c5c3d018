//! Clients in other languages, given only `proto/` and the socket: the programs under `examples/`.
//!
//! Their packages are not Rust's, so `.ci/run` installs them and says where they are; without that
//! a test here says that it was skipped. `.ci/run` runs them in steps of their own and counts them there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    // Node looks for packages beside the program, and the repository is no place to put them.
    let folder = tempfile::tempdir().expect("a folder for the program");
    let program = folder.path().join("lease.mjs");
    std::fs::copy(root().join("examples/node/lease.mjs"), &program).expect("a copy of the program");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).expect("a link to the packages");
    let mut node = Command::new("node");
    node.arg(program);
    with_broker(|target| assert_leases(node, target));
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
