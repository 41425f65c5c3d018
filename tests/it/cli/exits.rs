//! Every exit code, each provoked for real, and what is said with it.

use std::fs;

use ravi_broker::sandbox::{Answer, Fault};
use serde_json::Value;

use super::{Run, Shell};
use crate::support::{Stack, bounded, without_ids};

const SECRETS: &str = "/api/secrets/";

/// Runs a command in both forms: the code and the reason.
#[track_caller]
fn assert_ends(stack: &Stack, line: &str, code: i32, reason: &str) -> (String, String) {
    let Run { code: found, err, .. } = stack.run(&format!("{line} --format json"));
    let error: Value = serde_json::from_str(&err).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert_eq!((found, error["error"]["reason"].as_str()), (Some(code), Some(reason)), "{line}");
    let (what, hint) = stack.run(line).failed(code);
    assert_eq!(error["error"]["message"], what.as_str(), "{line}");
    (what, hint)
}

const GET: &str = "get secret/OPENAI_API_KEY --role notes";

#[tokio::test(flavor = "multi_thread")]
async fn exit_0_is_done() {
    let stack = Stack::start().await;
    stack.run(GET).good();
    stack.run("--help").good();
    stack.run("--version").good();
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_1_is_what_no_other_code_says() {
    let stack = Stack::start().await;
    stack.rewrite(|text| text.replace("version = 1", "version = 9"));
    let run = stack.run("reload");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(stack.run("config check").code, Some(1));
    stack.run("audit verify /nonexistent/audit.jsonl").failed(1);
    fs::remove_file(&stack.setup.config_file).unwrap();
    let (what, hint) = stack.run("config show").failed(1);
    assert!(what.contains("no configuration file") && hint.contains("config example"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_2_is_a_command_line_or_an_argument_that_cannot_be() {
    let stack = Stack::start().await;
    stack.run("gte secret/A").failed(2);
    stack.run("get secret/../A --role notes").failed(2);
    // The broker's own word: the grammar of scopes is known to it alone.
    let open = "session open --role notes --scopes secret:raed";
    assert_ends(&stack, open, 2, "ARGUMENT_INVALID");
    // Two entries of one domain.
    let (what, _) = assert_ends(&stack, "get password/github.com --role notes", 2, "ARGUMENT_INVALID");
    assert!(what.contains("password/<domain>/<username>"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_3_is_a_broker_that_is_not_there() {
    let mut stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success());
    for line in [GET, "status", "lock", "audit tail", "reload", "login"] {
        let (what, hint) = assert_ends(&stack, line, 3, "BROKER_UNREACHABLE");
        assert!(what.contains("(no such socket)") && hint.contains("ravi-brokerd"), "{line}: {what}");
    }
    shell.run("ravi-broker lease list").failed(3);
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_4_is_what_the_caller_may_not() {
    let stack = Stack::start().await;
    assert_ends(&stack, "get secret/STRIPE_API_KEY --role notes", 4, "RESOURCE_NOT_AVAILABLE");
    let forbidden = stack.run("get secret/STRIPE_API_KEY --role notes");
    let absent = stack.run("get secret/OPENAI_ABSENT --role notes");
    let [of_forbidden, of_absent] = [&forbidden.err, &absent.err].map(|text| without_ids(text));
    assert_eq!((forbidden.code, of_forbidden), (absent.code, of_absent), "they must look the same");
    assert_ne!(forbidden.err, absent.err, "but for the id");
    assert_ends(&stack, "get secret/A --role nobody", 4, "ROLE_NOT_AVAILABLE");
    assert_ends(&stack, "session open --role notes --scopes secret:write", 4, "SCOPE_NOT_GRANTED");
    assert_ends(&stack, "whoami", 4, "SESSION_REQUIRED");
    let mut shell = Shell::under(&stack, "notes");
    let foreign = "ravi-broker lease release lea_aaaaaaaaaaaaaaaaaaaaaaaaaa";
    shell.run(foreign).failed(4);
    stack.run("lock").good();
    assert_ends(&stack, GET, 4, "BROKER_LOCKED");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_5_is_too_much_at_once() {
    let stack = Stack::with(|setup| {
        setup.roles =
            setup.roles.replace("max_live = 32", "max_live = 1").replace("600/min\" }\n\n", "1/h\" }\n\n");
        setup.sections = "[limits]\nsessions = 4\n".into();
    })
    .await;
    // More leases than the role may have.
    let mut shell = Shell::under(&stack, "notes");
    shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY").good();
    let (what, hint) = shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY").failed(5);
    assert!(what.contains("limit: ") && hint.contains("release"), "{what}");
    // More sessions than the daemon holds.
    let shells: Vec<Shell> = (0..3).map(|_| Shell::under(&stack, "notes")).collect();
    assert_ends(&stack, GET, 5, "CAPACITY_REACHED");
    shells.into_iter().for_each(Shell::leave);
    shell.run("ravi-broker session close").good();
    shell.leave();
    bounded(async { while stack.admin().await.status().await.unwrap().sessions > 0 {} }).await;

    // More requests than the role's rate.
    stack.rewrite(|text| text.replacen("read = \"6000/min\"", "read = \"1/h\"", 1));
    stack.run("reload").good();
    stack.run(GET).good();
    let (what, hint) = assert_ends(&stack, GET, 5, "RATE_LIMITED");
    assert!(what.ends_with("(limit: rate.read)") && hint.starts_with("in 3"), "{what}\n{hint}");
    let limited = stack.run(&format!("{GET} --format json"));
    let error: Value = serde_json::from_str(&limited.err).unwrap();
    let wait = error["error"]["retry_after_seconds"].as_u64().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_5_is_also_when_ravi_asks_to_slow_down() {
    let stack = Stack::start().await;
    let throttled = Answer::Throttled { retry_after_seconds: Some(1700), retry_after: None };
    stack.control().add_fault(Fault::new(SECRETS, throttled)).unwrap();
    let (_, hint) = assert_ends(&stack, GET, 5, "UPSTREAM_THROTTLED");
    assert!(hint.starts_with("in 1"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_6_is_what_has_expired_or_was_revoked() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let lease = "ravi-broker lease acquire secret/OPENAI_API_KEY --ttl 1s --format json";
    let expired = shell.run(lease).json()["lease_id"].as_str().unwrap().to_owned();
    bounded(async { while stack.audited("lease.expired").is_empty() {} }).await;
    let (what, hint) = shell.run(&format!("ravi-broker lease read {expired}")).failed(6);
    assert!(what.contains("ran out") && hint.contains("acquire a new lease"), "{what}");
    let released = shell.run(lease).json()["lease_id"].as_str().unwrap().to_owned();
    shell.run(&format!("ravi-broker lease release {released}")).good();
    shell.run(&format!("ravi-broker lease renew {released}")).failed(6);
    stack.run("revoke --all").good();
    let (what, hint) = shell.run("ravi-broker session show").failed(6);
    assert!(what.contains("was ended") && hint.contains("session open --role"), "{what}");
    shell.leave();

    let mut shell = Shell::start(&stack);
    shell.run("eval \"$(ravi-broker session open --role notes --ttl 1s 2>/dev/null)\"").good();
    bounded(async { while stack.audited("session.expired").is_empty() {} }).await;
    let (what, _) = shell.run("ravi-broker session show").failed(6);
    assert!(what.contains("reached its end"), "{what}");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_7_is_ravi() {
    let stack = Stack::start().await;
    // Whose rows are whose is learned at first sight.
    stack.run("get secret/OPENAI_ORG_ID --role notes").good();
    for (answer, reason) in [
        (Answer::Status(503), "UPSTREAM_UNAVAILABLE"),
        (Answer::Reset, "UPSTREAM_UNAVAILABLE"),
        (Answer::Html(200), "UPSTREAM_INVALID"),
        (Answer::Empty(200), "UPSTREAM_INVALID"),
        (Answer::WrongIdentity, "UPSTREAM_INVALID"),
        (Answer::LegacyEncrypted, "UPSTREAM_INVALID"),
        (Answer::Redirect("https://elsewhere.example/".into()), "UPSTREAM_INVALID"),
        (Answer::Status(403), "UPSTREAM_REFUSED"),
        (Answer::Status(402), "UPSTREAM_PLAN_REQUIRED"),
    ] {
        stack.control().clear_faults();
        stack.control().add_fault(Fault::new(SECRETS, answer)).unwrap();
        assert_ends(&stack, GET, 7, reason);
    }
    stack.control().clear_faults();
    let lost = Fault::new(SECRETS, Answer::Reset).on("POST").taking_effect();
    stack.control().add_fault(lost).unwrap();
    let run = stack.run_with("set secret/LOST --role deploy", "value");
    let (what, hint) = run.failed(7);
    assert!(what.contains("unknown") && hint.contains("ravi-broker list"), "{what}\n{hint}");
    stack.control().clear_faults();
    stack.control().revoke_management_key();
    // Refused once, the key is not used again.
    for expected in ["does not accept the key", "holds no key"] {
        let (what, hint) = stack.run(GET).failed(7);
        assert!(what.contains(expected) && hint.contains("ravi-broker login"), "{what}\n{hint}");
    }
    assert_ends(&stack, GET, 7, "LOGIN_REQUIRED");
}
