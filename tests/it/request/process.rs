//! Which process may do what: shells play the agents, each with the shipped command line.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use ravi_broker::client::{ErrorReason, SessionFile};
use ravi_broker::secret::Secret;
use tempfile::TempDir;

use super::refusal;
use crate::support::{Shell, Stack, until, without_ids};

/// Exit codes of the command line.
const DENIED: i32 = 4;

/// Opens a session that is bound to the shell, with its token in the file `session`.
async fn open(shell: &mut Shell, role: &str) {
    shell.succeed(&format!("ravi-broker session open --role {role} --file ./session")).await;
}

fn session_file(stack: &Stack) -> SessionFile {
    SessionFile::read(&stack.setup.directory().join("session")).expect("the shell has written it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_for_the_process_that_it_is_bound_to_and_what_that_starts() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    open(&mut shell, "notes").await;
    let get = "ravi-broker get secret/OPENAI_API_KEY --session-file ./session";
    assert_eq!(shell.succeed(get).await, "sandbox-openai-notes-7c1f20\n");
    let deeper = format!("sh -c 'sh -c \"{get}; true\"; true'");
    assert_eq!(shell.succeed(&deeper).await, "sandbox-openai-notes-7c1f20\n");
}

/// A parent, a sibling and a stranger with a made-up token hear the same; the operator reads the difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_hands_of_another_process_is_worth_nothing() {
    let stack = Stack::start().await;
    let (mut owner, mut sibling) = (Shell::start(&stack), Shell::start(&stack));
    open(&mut owner, "notes").await;
    let token = session_file(&stack).token;
    let calls = stack.control().total_requests();
    let foreign = refusal(stack.holder(&token).await.acquire("secret/OPENAI_API_KEY", None, "").await);
    let made_up = Secret::new(format!("rbt_{}", "A".repeat(64)));
    let unknown = refusal(stack.holder(&made_up).await.acquire("secret/OPENAI_API_KEY", None, "").await);
    assert_eq!(foreign, unknown);
    assert_eq!(foreign.reason, ErrorReason::SessionInvalid);
    let said = sibling.run("ravi-broker get secret/OPENAI_API_KEY --session-file ./session").await;
    assert_eq!(said.status, DENIED);
    assert!(said.text.contains(&foreign.message), "{}", said.text);
    // Closing another one's session is no right of theirs either.
    assert_eq!(refusal(stack.holder(&token).await.close_session().await), unknown);
    assert_eq!(stack.control().total_requests(), calls);
    let causes = stack.audited("session.denied");
    let causes: Vec<_> = causes.iter().map(|record| record["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["token_foreign", "token_unknown", "token_foreign", "token_foreign"]);
    owner.succeed("ravi-broker session show --session-file ./session").await;
}

/// `setsid` and a double fork: what has left the tree no longer belongs to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_left_the_tree_loses_the_session() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    open(&mut shell, "notes").await;
    let show = "ravi-broker session show --session-file ./session";
    // A session of the kernel's own kind changes nothing: the parent is the same.
    shell.succeed(&format!("setsid -w {show}")).await;
    // The one that waits at the pipe has lost its parent by the time it goes on.
    shell.succeed("mkfifo gate; ( ( read go < gate; ravi-broker session show --session-file ./session 2>&1; echo left $? ) & )").await;
    shell.tell("echo > gate").await;
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.starts_with("left")) {
        said.push(shell.hear().await);
    }
    assert_eq!(said.last().map(String::as_str), Some("left 4"), "{said:?}");
    shell.succeed(show).await;
    assert_eq!(stack.audited("session.denied")[0]["cause"], "token_foreign");
}

/// I3: the leases go with the session, the session with its process.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_process_that_it_is_bound_to() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let mut shell = Shell::start(&stack);
    open(&mut shell, "notes").await;
    shell.succeed("ravi-broker lease acquire secret/OPENAI_API_KEY --session-file ./session").await;
    // The command that opened it ended long ago; the shell is what it is bound to.
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (1, 1));
    shell.kill().await;
    until(async || admin.status().await.unwrap().sessions == 0).await;
    assert_eq!(admin.status().await.unwrap().leases, 0);
    until(async || stack.audited("lease.revoked").len() == 1).await;
    assert_eq!(stack.audited("session.revoked")[0]["cause"], "peer_exited");
    assert_eq!(stack.audited("lease.revoked")[0]["exposed"], true);
}

/// The command that opens a session for one call is the process it is bound to.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_one_call_is_over_after_the_call() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    let value = shell.succeed("ravi-broker get secret/OPENAI_API_KEY --role notes").await;
    assert_eq!(value, "sandbox-openai-notes-7c1f20\n");
    let status = stack.admin().await.status().await.unwrap();
    assert_eq!((status.sessions, status.leases), (0, 0));
}

/// A copy of the command line under another name, on a file system that programs may be started from.
fn copied_program(directory: &TempDir, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::copy(env!("CARGO_BIN_EXE_ravi-broker"), &path).expect("there is room for a copy");
    path
}

/// What `program get` says under the role, when it calls itself `name`: exit code, standard output, errors.
fn get(stack: &Stack, program: &Path, name: &Path, role: &str) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(program);
    command.arg0(name).args(["get", "secret/OPENAI_API_KEY", "--role", role]).env_clear();
    command.env("RAVI_BROKER_SOCKET", &stack.setup.agent_socket).env("HOME", stack.setup.directory());
    let output = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), without_ids(&text(output.stderr)))
}

/// By the file that it runs, as the kernel names it, and by nothing that it says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_by_the_executable_that_it_names_and_no_other() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (named, other) = (copied_program(&directory, "agent"), copied_program(&directory, "agent-2"));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&named, &link).unwrap();
    let stack = Stack::with(|setup| {
        for (role, exe) in [("tool", &named), ("linked", &link)] {
            setup.roles.push_str(&format!(
                "[role.{role}]\nidentity = \"deploy-agent\"\nmatch = {{ uid = UID, exe = {exe:?} }}\nscopes = [\"secret:read\"]\n"
            ));
        }
    })
    .await;
    let value = (Some(0), "sandbox-openai-deploy-e2a6c9\n".to_owned(), String::new());
    for role in ["tool", "linked"] {
        assert_eq!(get(&stack, &named, &named, role), value, "{role}");
        // Started by another path, it is the same file.
        assert_eq!(get(&stack, &link, &link, role), value, "{role}");
    }
    let calls = stack.control().total_requests();
    let absent = get(&stack, &other, &other, "absent");
    assert_eq!((absent.0, absent.1.as_str()), (Some(DENIED), ""));
    for role in ["tool", "linked"] {
        assert_eq!(get(&stack, &other, &other, role), absent, "{role}: the same program, another file");
        assert_eq!(get(&stack, &other, &named, role), absent, "{role}: under a borrowed name");
    }
    assert_eq!(stack.control().total_requests(), calls);
    let denied = stack.audited("session.denied");
    assert_eq!(denied.last().unwrap()["cause"], "role_mismatch");
    assert_eq!(denied.last().unwrap()["exe"], other.to_str().unwrap());
}
