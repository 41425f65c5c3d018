//! The operator decides what waits, with the shipped program.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{PROGRAM, assert_fields};
use crate::support::{Shell, Stack, bounded, until};

const ROLE: &str = "[role.asking]\nidentity = \"assistant-notes-agent\"\nmatch = { uid = UID }\nscopes = [\"secret:read\"]\n\
                    approve = [\"secret:read\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_told_to_the_desktop_and_decided() {
    let stack = Stack::with(|setup| setup.roles.push_str(ROLE)).await;
    // A notifier that writes down what it is given, in the place of notify-send.
    let (notifier, told) = (stack.setup.directory().join("notify"), stack.setup.directory().join("told"));
    let script = format!("#!/bin/sh\nprintf '%s|' \"$@\" >> {}\n", told.display());
    std::fs::write(&notifier, script).unwrap();
    std::fs::set_permissions(&notifier, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut watching = stack.surrounded(PROGRAM);
    watching.args(["--format", "json", "approvals", "watch", "--"]).arg(&notifier).arg("--app-name=test");
    let mut watching = Command::from(watching).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut events = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = bounded(events.next_line()).await.unwrap().expect("it goes on");
        serde_json::from_str(&line).unwrap()
    };

    assert_eq!(stack.run("approvals").good(), "No request waits.\n");
    let mut agent = Shell::start(&stack);
    agent.succeed("eval \"$(ravi-broker session open --role asking 2>/dev/null)\"").await;
    let ask = "ravi-broker get secret/OPENAI_API_KEY --reason 'be quick' >got 2>&1 &";
    agent.tell(&format!("{ask} echo begun")).await;
    assert_eq!(agent.hear().await, "begun");
    let asked = next().await;
    assert_eq!((&asked["event"], &asked["action"]), (&"asked".into(), &"secret:read".into()), "{asked}");
    assert!(asked["executable"].as_str().unwrap().ends_with("/ravi-broker"), "{asked}");
    let id = asked["approval_id"].as_str().unwrap().to_owned();

    let page = stack.run("approvals list").good();
    assert!(page.starts_with("asking asks for secret:read secret/OPENAI_API_KEY (shown)\n"), "{page}");
    assert!(page.contains("it says (nobody has checked it): be quick"), "{page}");
    let listed = stack.run("approvals --format json").json();
    assert_fields(&listed, &["approvals", "alarms"]);
    let fields = [
        "approval_id",
        "session_id",
        "role",
        "uid",
        "pid",
        "executable",
        "action",
        "about",
        "delivery",
        "claimed_reason",
        "waited",
        "expires_in",
        "calls",
    ];
    assert_fields(&listed["approvals"][0], &fields);
    assert!(stack.run("status").good().contains("waiting 1: see `ravi-broker approvals`"));

    let allowed = stack.run(&format!("approvals allow {id} --for 10m --format json")).json();
    assert_eq!((&allowed["decision"], &allowed["for_seconds"]), (&"for".into(), &600.into()));
    agent.succeed("wait").await;
    assert!(!agent.succeed("cat got").await.contains("error"));
    assert_eq!(next().await["event"], "over");
    let (what, hint) = stack.run(&format!("approvals deny {id}")).failed(1);
    assert!(
        what.contains("no such request waits") && hint.contains("ravi-broker approvals"),
        "{what}: {hint}"
    );
    stack.run(&format!("approvals allow {id} --for 2d")).failed(1);

    until(async || std::fs::read_to_string(&told).is_ok_and(|text| text.matches('|').count() == 3)).await;
    let text = std::fs::read_to_string(&told).unwrap();
    let parts: Vec<&str> = text.split('|').collect();
    assert_eq!(parts[..2], ["--app-name=test", "ravi-broker: approval needed"], "{text}");
    assert!(parts[2].starts_with("asking: secret:read secret/OPENAI_API_KEY (pid "), "{text}");
    assert!(!text.contains("be quick"), "the agent's words are in a notification");
    bounded(watching.kill()).await.unwrap();

    // A refusal is told to the agent with its code and what to do.
    agent.succeed("ravi-broker get secret/OPENAI_ORG_ID >got 2>&1 & pid=$!").await;
    until(async || !stack.admin().await.approvals().await.unwrap().approvals.is_empty()).await;
    let waiting = stack.admin().await.approvals().await.unwrap().approvals;
    stack.run(&format!("approvals deny {}", waiting[0].approval_id)).good();
    let ended = agent.run("wait $pid").await;
    assert_eq!(ended.status, 4);
    assert!(agent.succeed("cat got").await.contains("the operator refused this request"));
}
