//! Sending from an agent's shell, and the operator's identities.

use std::fs;

use ravi_broker::sandbox::{Answer, Fault};
use serde_json::json;

use super::agent::assert_moment;
use super::{Shell, assert_fields, assert_lines_up};
use crate::support::{NOTES, Stack};

const COMPOSE: &str = "/api/email-messages/compose/";
const ROLES: &str = r#"
[role.notes]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:send:*@example.org", "email:read", "sms:send", "identity:read"]
rate = { read = "60000/min", send = "60000/min" }
"#;

async fn start() -> Stack {
    Stack::with(|setup| setup.roles = ROLES.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_sent_from_standard_input_with_a_file() {
    let stack = start().await;
    fs::write(stack.setup.directory().join("minutes.pdf"), b"%PDF-1.7").unwrap();
    let line = "send email --role notes --to kim@example.org --cc lee@example.org --subject Minutes --attach minutes.pdf";
    let run = stack.run_with(line, "<b>Hello</b>\n");
    assert!(run.good().starts_with("Sent: email/"));
    let sent = stack.control().sent();
    assert_eq!((sent[0].to.as_str(), sent[0].cc.len(), sent[0].attachments.len()), ("kim@example.org", 1, 1));
    let sent = stack.run(&format!("{line} --text Hello --format json")).json();
    assert_fields(&sent, &["message", "budget"]);
    assert_fields(&sent["budget"], &["limit", "used", "resets_at"]);
    assert_eq!((&sent["budget"]["limit"], &sent["budget"]["used"]), (&json!(100), &json!(2)));
    assert_moment(&sent["budget"]["resets_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_answered_and_sent_on_and_a_text_message_sent() {
    let stack = start().await;
    let mut shell = Shell::under(&stack, "notes");
    for line in [
        "reply email/502 --text Yes",
        "reply email/502 --all --html --text '<p>Yes</p>'",
        "forward email/502 --to lee@example.org --text See",
        "send sms --to +12025550177 --text Late",
    ] {
        assert!(shell.run(&format!("ravi-broker {line}")).good().starts_with("Sent: "), "{line}");
    }
    assert_eq!(stack.control().sent().len(), 4);
    shell.run("ravi-broker forward email/504 --to lee@example.org --text See").failed(4);
    shell.run("ravi-broker send email --to x@evil.test --subject S --text T").failed(4);
    shell.run("ravi-broker reply sms/1 --text T").failed(2);
    let (what, hint) =
        shell.run("ravi-broker send email --to kim@example.org --subject S < /dev/null").failed(2);
    assert!(what.contains("nothing to send") && hint.contains("--text"), "{what} {hint}");
    shell.run("ravi-broker send sms --to 12025550177 --text T").failed(2);
    let contacts = shell.run("ravi-broker contacts kim --format json").json();
    contacts.as_array().unwrap().iter().for_each(|row| {
        assert_fields(row, &["name", "email", "phone", "trusted"]);
    });
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_in_doubt_names_the_command_that_looks() {
    let stack = start().await;
    let lost = || Fault::new(COMPOSE, Answer::Reset).on("POST").times(1).taking_effect();
    let mut shell = Shell::under(&stack, "notes");
    stack.control().add_fault(lost()).unwrap();
    let line = "ravi-broker send email --to kim@example.org --subject One --text T";
    let (what, hint) = shell.run(line).failed(7);
    assert!(what.contains("its outcome is unknown"), "{what}");
    let (_, check) = hint.split_once(": ").unwrap();
    assert!(check.starts_with("ravi-broker check-send snd_"), "{hint}");
    let state = shell.run(&format!("{check} --format json")).json();
    let name = format!("email/{}", stack.control().sent()[0].id);
    assert_eq!(state, json!({ "state": "sent", "message": name }));
    assert_eq!(shell.run(check).good(), format!("It was sent: {name}\n"));
    shell.run("ravi-broker check-send snd_aaaaaaaaaaaaaaaaaaaaaaaaaa").failed(4);
    shell.leave();
    // A session for the one call is over before it could be asked: it asks by itself.
    stack.control().add_fault(lost()).unwrap();
    let line = "send email --role notes --to kim@example.org --subject Two --text T --format json";
    let sent = stack.run(line).json();
    assert_eq!(sent["message"], format!("email/{}", stack.control().sent()[1].id));
    assert_eq!(sent["budget"], json!(null));
    stack.control().add_fault(Fault::new(COMPOSE, Answer::Reset).on("POST").times(1)).unwrap();
    let run = stack.run("send email --role notes --to kim@example.org --subject Three --text T");
    let (_, hint) = run.failed(7);
    assert!(!hint.contains("check-send"), "{hint}");
    assert_eq!(stack.control().requests("POST", COMPOSE), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_that_is_used_up_is_told_with_the_time_that_is_left() {
    let stack = Stack::with(|setup| {
        setup.roles = ROLES.to_owned();
        setup.sections = "[inbox]\nsms_per_day = 1\n".to_owned();
    })
    .await;
    let line = "send sms --role notes --to +12025550177 --text Late";
    stack.run(line).good();
    let (what, hint) = stack.run(line).failed(5);
    assert!(what.contains("inbox.sms_per_day") && hint.starts_with("in "), "{what} {hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_lists_shows_and_creates_identities() {
    let stack = start().await;
    let admin = format!("--admin-socket {}", stack.setup.admin_socket.display());
    assert_lines_up(&stack.run(&format!("identity list {admin}")).good());
    let listed = stack.run(&format!("identity list {admin} --format json")).json();
    let info = ["name", "uuid", "email", "phone", "roles", "key_held"];
    assert_fields(&listed[0], &info);
    assert_eq!((&listed[0]["name"], &listed[0]["roles"]), (&json!(NOTES), &json!(["notes"])));
    let shown = stack.run(&format!("identity show {NOTES} {admin} --format json")).json();
    assert_fields(&shown, &[&info[..], &["email_budget", "sms_budget"]].concat());
    assert_eq!(shown["email_budget"]["limit"], 100);
    assert!(stack.run(&format!("identity show {NOTES} {admin}")).good().contains("0 of 100 today"));
    stack.run(&format!("identity show nobody {admin}")).failed(1);
    let created =
        stack.run(&format!("identity create second --phone --country CA {admin} --format json")).json();
    assert_fields(&created, &["name", "uuid", "email", "phone", "phone_failure"]);
    assert!(created["phone"].is_string() && created["phone_failure"].is_null(), "{created}");
    let (what, hint) = stack.run(&format!("identity create second {admin}")).failed(7);
    assert!(what.contains("there already") && hint.contains("identity list"), "{what} {hint}");
    stack.run(&format!("identity create third --country CA {admin}")).failed(2);
    stack.control().add_fault(Fault::new("/api/identities/", Answer::Reset).on("POST").times(1)).unwrap();
    let (what, hint) = stack.run(&format!("identity create third {admin}")).failed(7);
    assert!(what.contains("may or may not") && hint.contains("identity list"), "{what} {hint}");
}
