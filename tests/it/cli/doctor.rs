//! `doctor`: says what is wrong and what to do, and ends with 0 only if nothing is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Run, Shell, assert_fields};
use crate::support::Stack;

const STRANGER: &str = r#"
[role.stranger]
identity = "deploy-agent"
match = { uid = UID, exe = "/usr/bin/not-this-one" }
scopes = ["secret:list"]
"#;

/// The findings of one check, as state and text with the fix.
fn of(report: &Value, check: &str) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.inspect(|finding| assert_fields(finding, &["check", "state", "found", "fix"]));
    let found = findings.filter(|finding| finding["check"] == check).map(|finding| {
        let fix = finding["fix"].as_str();
        assert_eq!(fix.is_none(), finding["state"] == "good", "what is not good has a fix: {finding}");
        let text = format!("{} -> {}", finding["found"].as_str().unwrap(), fix.unwrap_or_default());
        (finding["state"].as_str().unwrap().to_owned(), text)
    });
    found.collect()
}

/// The only finding of a check.
#[track_caller]
fn only(report: &Value, check: &str, state: &str) -> String {
    let [(found, text)] = &of(report, check)[..] else { panic!("{check}: {report}") };
    assert_eq!(found, state, "{text}");
    text.clone()
}

fn failed(run: &Run) -> Value {
    assert_eq!((run.code, run.err.as_str()), (Some(1), ""), "{run:?}");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["well"], false);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_it_says_so_and_ends_with_0() {
    let stack = Stack::with(|setup| setup.roles.push_str(STRANGER)).await;
    let mut shell = Shell::under(&stack, "notes");
    let admin = format!("--admin-socket {}", stack.setup.admin_socket.display());
    let report = shell.run(&format!("ravi-broker doctor --format json {admin}")).json();
    assert_eq!(report["well"], true);
    for check in
        ["configuration", "daemon", "login", "audit trail", "agent socket", "session", "clock", "Ravi"]
    {
        only(&report, check, "good");
    }
    let roles = of(&report, "roles");
    let states: Vec<&str> = roles.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(states, ["good", "good", "note"], "{roles:?}");
    assert!(roles[2].1.contains("stranger: refused by") && roles[2].1.contains("/usr/bin/not-this-one"));
    let text = shell.run(&format!("ravi-broker doctor {admin}")).good();
    assert!(text.ends_with("All is well.\n") && !text.contains("WRONG"), "{text}");
    // It leaves no session behind but that of the shell.
    assert_eq!(stack.admin().await.sessions().await.unwrap().len(), 1);
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_what_to_do() {
    let stack = Stack::with(|setup| setup.roles.push_str(STRANGER)).await;
    let named = failed(&stack.run("doctor --format json --role stranger --role notes"));
    let [stranger, notes] = &of(&named, "roles")[..] else { panic!("{named}") };
    assert!(stranger.0 == "bad" && notes.0 == "good", "{named}");
    assert!(only(&named, "session", "note").contains("session open --role"));
    // Everybody may connect.
    fs::set_permissions(&stack.setup.agent_socket, PermissionsExt::from_mode(0o666)).unwrap();
    let open = failed(&stack.run("doctor --format json"));
    assert!(only(&open, "agent socket", "bad").contains("mode 0666"));
    fs::set_permissions(&stack.setup.agent_socket, PermissionsExt::from_mode(0o600)).unwrap();
    // A session file of a shell that has ended.
    let mut command = stack.surrounded(super::PROGRAM);
    command.env("RAVI_BROKER_SESSION_FILE", stack.setup.directory().join("gone.json"));
    let gone = failed(&Run::of(&command.args(["doctor", "--format", "json"]).output().unwrap()));
    assert!(only(&gone, "session", "bad").contains("no session file"));
    let socket = stack.setup.admin_socket.display();
    stack.run(&format!("lock --admin-socket {socket}")).good();
    let locked = failed(&stack.run(&format!("doctor --format json --admin-socket {socket}")));
    assert!(only(&locked, "lock", "bad").contains("unlock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ravi_being_away_is_told_apart_from_a_daemon_being_away() {
    let mut stack = Stack::start().await;
    stack.control().revoke_management_key();
    let refused = failed(&stack.run("doctor --format json --role notes"));
    assert!(only(&refused, "Ravi", "bad").contains("login"));
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    stack.daemon.ended().await;
    let away = failed(&stack.run("doctor --format json"));
    let text = only(&away, "agent socket", "bad");
    assert!(
        text.contains(stack.setup.agent_socket.to_str().unwrap()) && text.contains("ravi-brokerd"),
        "{text}"
    );
    assert!(of(&away, "roles").is_empty(), "what rests on it was not tried");
}
