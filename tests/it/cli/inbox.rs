//! `inbox` and `wait-code`, as an agent's shell uses them.

use ravi_broker::sandbox::{NewMail, NewSms};

use super::{PROGRAM, Shell, assert_fields, on_terminal};
use crate::support::{NOTES, Stack};

const ROLES: &str = r#"
[role.notes]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:read", "email:await", "sms:read", "sms:await"]

[role.reader]
identity = "assistant-notes-agent"
match = { uid = UID }
scopes = ["email:read", "sms:read"]
"#;

const SUMMARY: [&str; 8] =
    ["message", "channel", "from", "to", "subject", "created_at", "outgoing", "attachments"];

async fn stack() -> Stack {
    Stack::with(|setup| setup.roles = ROLES.into()).await
}

fn sms(body: &str) -> NewSms {
    NewSms { identity: NOTES.into(), from: "+15559876543".into(), body: body.into(), ..NewSms::default() }
}

fn mail(subject: &str, text: &str) -> NewMail {
    let (from, subject, text) = ("a@example.com".into(), subject.into(), text.into());
    NewMail { identity: NOTES.into(), from, subject, text, ..NewMail::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_waited_for_around_the_command_that_triggers_it() {
    let stack = stack().await;
    // The trigger is a program that ends only when the test has seen that the watch is open.
    let script = "ravi-broker wait-code --role notes --channel sms --from +15559876543 -- sh -c 'echo > asked; cat gate'";
    let gate = stack.setup.directory().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let (run, ()) = std::thread::scope(|scope| {
        let run = scope.spawn(|| stack.shell(script));
        // Opening it waits for the trigger to do so, too.
        let opened = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
        stack.control().deliver_sms(sms("Your verification code is 739214")).unwrap();
        drop(opened);
        (run.join().unwrap(), ())
    });
    assert_eq!(run.err, "Waiting for the code.\n");
    assert_eq!(run.good(), "739214\n");
    assert_eq!(stack.audited("code.claimed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_opened_first_and_asked_later() {
    let stack = stack().await;
    let mut shell = Shell::under(&stack, "notes");
    shell.run("watch=$(ravi-broker wait-code --channel email --from example.com --open)").good();
    let watch = shell.run("echo $watch").good();
    assert!(watch.starts_with("wat_"), "{watch}");
    stack.control().deliver_mail(mail("Your code", "Your verification code is 739214.")).unwrap();
    let document = shell.run("ravi-broker wait-code --watch $watch --format json").json();
    assert_fields(&document, &["value", "kind", "message", "from", "created_at", "link_host"]);
    assert_eq!((&document["value"], &document["kind"]), (&"739214".into(), &"code".into()));
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_or_is_not_triggered_is_an_error_that_says_what_to_do() {
    let stack = stack().await;
    let run = stack.run("wait-code --role notes --channel sms --timeout 1s");
    assert_eq!(run.code, Some(6), "{run:?}");
    assert!(
        run.err.contains("the watch ended before a code came") || run.err.contains("no code came"),
        "{}",
        run.err
    );
    let run = stack.run("wait-code --role notes --channel sms -- false");
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""));
    assert!(run.err.contains("the command that was to trigger the code failed"), "{}", run.err);
    let (what, _) = stack.run("wait-code --role reader --channel sms --open").failed(2);
    assert!(what.contains("exclude each other"), "{what}");
    let run = stack.run("wait-code --role reader --channel sms");
    assert_eq!(run.code, Some(4), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_no_code_unasked() {
    let stack = stack().await;
    let mut command = stack.surrounded(PROGRAM);
    command.args(["wait-code", "--role", "notes", "--channel", "sms"]);
    let (shown, code) = on_terminal(command, "", "");
    assert_eq!(code, Some(2));
    assert!(shown.contains("would be shown on this terminal"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_listed_and_shown_as_text_that_steers_no_terminal() {
    let stack = stack().await;
    let hostile = "Hello\u{1b}[2J\u{202e} world";
    let id = stack.control().deliver_mail(mail(hostile, "line one\n\u{1b}]0;x\u{7}line two")).unwrap();
    stack.control().deliver_sms(sms("Your verification code is 739214")).unwrap();
    let listed = stack.run("inbox list --role notes --limit 2 --format json").json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    listed.iter().for_each(|summary| assert_fields(summary, &SUMMARY));
    let table = stack.run("inbox list --role notes").good();
    assert!(table.starts_with("MESSAGE") && table.contains(&format!("email/{id}")), "{table}");
    let shown = stack.run(&format!("inbox show email/{id} --role notes")).good();
    assert!(shown.contains("line one") && !shown.contains('\x1b') && !shown.contains('\u{7}'), "{shown}");
    let (what, _) = stack.run("inbox show email/999999 --role notes").failed(4);
    assert!(what.contains("no such resource"), "{what}");
    let texts = stack.run("inbox list --role reader --channel sms --format json").json();
    let name = texts[0]["message"].as_str().unwrap();
    let left = stack.run(&format!("inbox show {name} --role reader --format json")).json();
    assert_eq!(left["redacted"], true);
    assert!(!left["text"].as_str().unwrap().contains("739214"));
}
