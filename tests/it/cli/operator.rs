//! What the operator does: look, revoke, lock, reload, read the trail.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::agent::assert_moment;
use super::{PROGRAM, Run, Shell, assert_fields, assert_lines_up};
use crate::support::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_daemon_its_protections_and_who_uses_it() {
    let stack = Stack::start().await;
    let page = stack.run("status").good();
    assert!(page.starts_with("Broker         serving\n"), "{page}");
    assert!(page.contains("\nKeys           management key\n"), "{page}");
    assert!(page.contains("\nAudit          1 record, head "), "{page}");
    assert!(page.ends_with("\nNo sessions.\n"), "{page}");
    let version = page.lines().find(|line| line.starts_with("Version")).unwrap();
    let (_, since) = version.split_once(&format!("pid {}, since ", stack.daemon.pid())).unwrap();
    assert_moment(&since.into());
    let table = page.split("\n\n").nth(1).unwrap();
    assert!(table.starts_with("PROTECTION"), "{page}");
    assert_lines_up(table);

    let mut shell = Shell::start(&stack);
    shell
        .run("eval \"$(ravi-broker session open --role notes --reason 'to take notes' 2>/dev/null)\"")
        .good();
    shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY").good();
    shell.run("ravi-broker lease acquire password/github.com/notes-agent").good();
    let page = stack.run("status").good();
    let tree: Vec<&str> = page.split("\n\n").nth(2).unwrap().lines().collect();
    assert!(
        tree[0].starts_with("notes  ses_") && tree[0].ends_with("  as assistant-notes-agent  ends in 12h"),
        "{page}"
    );
    assert!(tree[1].contains("opened by /") && tree[1].ends_with(": \"to take notes\""), "{page}");
    assert!(tree[2].starts_with("├─ lea_") && tree[2].ends_with(", 1 use"), "{page}");
    assert!(tree[3].starts_with("└─ lea_"), "{page}");

    let status = stack.run("status --format json").json();
    assert_fields(
        &status,
        &[
            "version",
            "pid",
            "started_at",
            "locked",
            "upstream_url",
            "management_key_held",
            "identity_keys_held",
            "connections",
            "requests_served",
            "requests_denied",
            "upstream_calls",
            "audit",
            "config_path",
            "roles",
            "protections",
            "dispatches",
            "approvals",
            "sessions",
        ],
    );
    assert_moment(&status["started_at"]);
    assert_fields(&status["audit"], &["sequence", "hash", "healthy"]);
    assert_fields(&status["protections"][0], &["name", "tier", "full"]);
    let session = &status["sessions"][0];
    assert_fields(
        session,
        &[
            "session_id",
            "role",
            "identity",
            "uid",
            "pid",
            "executable",
            "reason",
            "age",
            "expires_in",
            "parent_session_id",
            "binding",
            "leases",
        ],
    );
    assert_fields(&session["leases"][0], &["lease_id", "resource", "expires_in", "revocable", "uses"]);
    assert_eq!(
        (&session["reason"], session["leases"].as_array().unwrap().len()),
        (&"to take notes".into(), 2)
    );
    assert_eq!(status["upstream_url"], stack.setup.base_url);
    // The moment of the start does not move with the moment of the question.
    assert_eq!(stack.run("status --format json").json()["started_at"], status["started_at"]);
    shell.leave();
}

/// A shell with a session as `notes`, and the ids of the session and of one lease.
fn at_work(stack: &Stack) -> (Shell, String, String) {
    let mut shell = Shell::under(stack, "notes");
    let lease = shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY --format json").json();
    let session = shell.run("ravi-broker session show --format json").json();
    let id = |value: &Value| value.as_str().unwrap().to_owned();
    (shell, id(&session["session"]["session_id"]), id(&lease["lease_id"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn access_ends_for_a_lease_a_session_a_role_or_everybody() {
    let stack = Stack::start().await;
    let exposed = "These values were shown; rotate them:\n  secret/OPENAI_API_KEY\n";
    let (mut shell, session, lease) = at_work(&stack);
    let said = stack.run(&format!("revoke --lease {lease} --reason leaked")).good();
    assert_eq!(said, format!("Ended: sessions 0, leases 1.\n{exposed}"));
    let (what, _) = shell.run(&format!("ravi-broker lease read {lease}")).failed(6);
    assert!(what.contains("revoked"), "{what}");
    shell.run("ravi-broker whoami").good();

    // What the session had seen under the lease that ended before counts as well.
    let said = stack.run(&format!("revoke --session {session} --format json")).json();
    assert_eq!(said, json!({ "sessions": 1, "leases": 0, "exposed_resources": ["secret/OPENAI_API_KEY"] }));
    shell.run("ravi-broker whoami").failed(6);
    // What was asked for is so already.
    shell.run("ravi-broker session close").good();
    shell.leave();

    for target in ["--role notes", "--all"] {
        let (mut shell, _, _) = at_work(&stack);
        let said = stack.run(&format!("revoke {target}")).good();
        assert_eq!(said, format!("Ended: sessions 1, leases 1.\n{exposed}"));
        shell.run("ravi-broker whoami").failed(6);
        shell.leave();
    }
    let reasons = stack.audited("admin.revoke");
    assert_eq!((&reasons[0]["reason"], reasons.len()), (&"leaked".into(), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_revokes_what_is_not_there_is_told_so() {
    let stack = Stack::start().await;
    let (what, hint) = stack.run("revoke --lease lea_aaaaaaaaaaaaaaaaaaaaaaaaaa").failed(1);
    assert_eq!(what, "no lease of that id is live");
    assert!(hint.contains("ravi-broker status"), "{hint}");
    let (what, _) = stack.run("revoke --session ses_aaaaaaaaaaaaaaaaaaaaaaaaaa").failed(1);
    assert_eq!(what, "no session of that id is live");
    // A role without sessions is no error, and not to be taken for a success.
    let said = stack.run("revoke --role ntoes").good();
    assert!(said.starts_with("Nothing was live there"), "{said}");
    let (what, _) = stack.run("revoke --lease not-an-id").failed(2);
    assert!(!what.contains("not-an-id"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_broker_forgets_everything_and_serves_again() {
    let stack = Stack::start().await;
    let (mut shell, _, _) = at_work(&stack);
    let said = stack.run("lock --reason drill").good();
    assert_eq!(said, "The broker is locked and holds no secret.\nEnded: sessions 1, leases 1.\n");
    let page = stack.run("status").good();
    assert!(
        page.starts_with("Broker         locked\n") && page.contains("Keys           none: forgotten"),
        "{page}"
    );
    let (what, hint) = shell.run("ravi-broker whoami").failed(4);
    assert!(what.contains("locked") && hint.contains("ravi-broker unlock"), "{what}");
    stack.run("get secret/OPENAI_API_KEY --role notes").failed(4);
    let again = stack.run("lock --format json").json();
    assert_eq!(again, json!({ "locked": true, "sessions": 0, "leases": 0 }));
    assert_eq!(stack.run("unlock").good(), "The broker serves again.\n");
    let again = stack.run("unlock --format json").json();
    assert_eq!(again, json!({ "locked": false, "management_key_held": true }));
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlocked_broker_without_a_key_says_how_to_get_one() {
    let stack = Stack::with(|setup| setup.logged_in = false).await;
    stack.run("lock").good();
    let said = stack.run("unlock").good();
    assert!(said.contains("ravi-broker login"), "{said}");
    assert!(stack.run("status").good().contains("Keys           none: run `ravi-broker login`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_what_is_in_force() {
    let stack = Stack::start().await;
    let (shell, _, _) = at_work(&stack);
    stack.rewrite(|text| text.replace("[role.notes]", "[role.other]"));
    let said = stack.run("reload").good();
    assert_eq!(said, "The new configuration is in force.\nRoles: deploy, other\nSessions that ended: 1\n");
    assert_eq!(
        stack.run("reload --format json").json(),
        json!({ "roles": ["deploy", "other"], "sessions_ended": 0 })
    );
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_and_a_check_name_the_same_mistakes() {
    let stack = Stack::start().await;
    assert!(stack.run("config check").good().ends_with(" is good.\n"));
    let good = stack.run("config check --format json").json();
    assert_eq!((&good["valid"], &good["problems"]), (&true.into(), &json!([])));
    stack.rewrite(|text| {
        text.replacen("secret:read:OPENAI_*", "secrt:read", 1).replace("budget = ", "bugdet = ")
    });
    let check = stack.run("config check --format json");
    assert_eq!(check.code, Some(1), "{check:?}");
    let check: Value = serde_json::from_str(&check.out).unwrap();
    assert_fields(&check, &["path", "valid", "problems"]);
    let problems = check["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 3, "{check}");
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("line {}: {}", problem["line"], problem["message"].as_str().unwrap()))
        .collect();
    assert!(lines[2].contains("unknown kind"), "{check}");

    let Run { code, out, err } = stack.run("reload");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    let shown: Vec<&str> = err.lines().collect();
    assert!(shown[0].starts_with("error: ") && shown[0].contains("3 mistakes"), "{err}");
    assert_eq!(shown[1..4], lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>());
    assert!(shown[4].starts_with("hint: ") && shown.len() == 5, "{err}");
    let refused = stack.run("reload --format json");
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(
        (&error["error"]["reason"], &error["error"]["problems"]),
        (&"CONFIGURATION_INVALID".into(), &json!(lines))
    );

    let Run { code, out, .. } = stack.run("config check");
    assert_eq!(code, Some(1));
    assert!(lines.iter().all(|line| out.contains(line)), "{out}");
    // A configuration with mistakes is not shown as if it were in force.
    assert_eq!(stack.run("config show").code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_with_where_they_come_from() {
    let stack = Stack::start().await;
    let settings = stack.run("config show --format json").json();
    let settings = settings.as_array().unwrap();
    settings.iter().for_each(|setting| assert_fields(setting, &["key", "value", "origin"]));
    let of = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(of("upstream.base_url")["value"], stack.setup.base_url);
    let file = stack.setup.config_file.to_str().unwrap();
    assert_eq!(of("upstream.base_url")["origin"], format!("{file}:3"));
    assert_eq!(of("vault.fresh_for")["origin"], "default");
    let table = stack.run("config show --origin").good();
    assert_lines_up(&table);
    assert!(table.lines().next().unwrap().ends_with("ORIGIN"), "{table}");
    let table = stack.run("config show").good();
    assert_lines_up(&table);
    assert!(!table.contains("ORIGIN"), "{table}");
    let mut overridden = stack.surrounded(PROGRAM);
    overridden.args(["config", "show", "--origin"]).env("RAVI_API_URL", "https://elsewhere.example");
    let table = Run::of(&overridden.output().unwrap()).good();
    let line = table.lines().find(|line| line.starts_with("upstream.base_url")).unwrap();
    assert!(line.contains("https://elsewhere.example") && line.ends_with("RAVI_API_URL"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_shown_as_lines_for_people_and_as_it_is_for_programs() {
    let stack = Stack::start().await;
    stack.run("get secret/OPENAI_API_KEY --role notes --reason nightly").good();
    stack.run("get secret/STRIPE_API_KEY --role notes").failed(4);
    let records = fs::read_to_string(&stack.setup.audit_file).unwrap();
    assert_eq!(stack.run("audit tail -n 1000 --format json").good(), records);
    let last = records.lines().last().unwrap();
    assert_eq!(stack.run("audit tail -n 1 --format json").good(), format!("{last}\n"));
    assert_eq!(stack.run("audit tail -n 0").good(), "");
    let shown = stack.run("audit tail -n 1000").good();
    assert_eq!(shown.lines().count(), records.lines().count());
    let denied = shown.lines().find(|line| line.contains("lease.denied")).unwrap();
    assert!(denied.contains("denied   notes  secret/STRIPE_API_KEY"), "{denied}");
    assert!(denied.ends_with("(no_scope)") || denied.ends_with("(scope_missing)"), "{denied}");
    assert!(shown.contains("allowed  notes  secret/OPENAI_API_KEY  ses_"), "{shown}");
    assert!(shown.contains("\"nightly\""), "{shown}");
    // The event, its outcome and what it is about each begin at one place.
    for line in shown.lines() {
        assert_eq!((&line[6..8], &line[28..30]), ("  ", "  "), "{shown}");
        assert!(line[30..].starts_with(|c: char| c.is_ascii_lowercase()) && !line.ends_with(' '), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_what_comes_and_is_told_of_the_end() {
    let mut stack = Stack::start().await;
    let mut command = stack.surrounded(PROGRAM);
    command.args(["audit", "tail", "-n", "1", "--follow", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["event"], "daemon.started");
    stack.run("lock --reason drill").good();
    let next: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&next["event"], &next["reason"]), (&"admin.lock".into(), &"drill".into()));
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let output = child.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &error["error"]["reason"]),
        (Some(3), &"BROKER_DRAINING".into()),
        "{rest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_checked_while_the_daemon_writes_and_after_it_ended() {
    let mut stack = Stack::start().await;
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    let trail = stack.setup.audit_file.clone();
    let path = trail.to_str().unwrap();
    // Found by the configuration, and by its name.
    let report = stack.run("audit verify --format json").json();
    assert_fields(&report, &["valid", "first", "last", "hash", "unfinished", "files", "breach"]);
    assert_fields(&report["files"][0], &["path", "first", "last"]);
    let records = fs::read_to_string(&trail).unwrap();
    let newest: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    assert_eq!((&report["last"], &report["hash"]), (&newest["seq"], &newest["hash"]));
    assert_eq!((&report["valid"], &report["breach"]), (&true.into(), &Value::Null));
    let status = stack.run("status --format json").json();
    assert_eq!((&status["audit"]["sequence"], &status["audit"]["hash"]), (&newest["seq"], &newest["hash"]));
    assert!(stack.run(&format!("audit verify {path}")).good().starts_with("whole: "));

    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success());
    let whole = fs::read_to_string(&trail).unwrap();
    assert!(stack.run("audit verify").good().starts_with("whole: "));
    let two = whole.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    for (what, tampered, expected) in [
        (
            "edited",
            whole.replacen("secret/OPENAI_API_KEY", "secret/OPENAI_API_KEX", 1),
            "the record was changed",
        ),
        ("cut", two, "the end is missing"),
        (
            "a record removed",
            whole
                .lines()
                .filter(|line| !line.contains("session.opened"))
                .map(|line| format!("{line}\n"))
                .collect(),
            "missing",
        ),
    ] {
        fs::write(&trail, tampered).unwrap();
        let Run { code, out, err } = stack.run("audit verify");
        assert_eq!((code, err.as_str()), (Some(1), ""), "{what}");
        assert!(out.starts_with("broken: ") && out.contains(expected), "{what}: {out}");
        let run = stack.run("audit verify --format json");
        let report: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!((run.code, &report["valid"]), (Some(1), &false.into()), "{what}");
        assert_fields(&report["breach"], &["path", "line", "message"]);
    }
    fs::write(&trail, whole).unwrap();
    stack.run("audit verify").good();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_was_delegated_below_its_parent() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY").good();
    let child = shell.run("ravi-broker session delegate --ttl 1h --format json").json();
    let file = child["session_file"].as_str().unwrap();
    shell.run(&format!("ravi-broker lease acquire secret/OPENAI_API_KEY --session-file {file}")).good();
    let page = stack.run("status").good();
    let tree: Vec<&str> = page.split("\n\n").nth(2).unwrap().lines().collect();
    let [root, owner, lease, below, of_below, its_lease] = tree[..] else { panic!("{page}") };
    assert!(root.starts_with("notes  ses_"), "{page}");
    let bound = format!("   subtree of {}, uid ", shell.child.id());
    assert!(owner.starts_with(&bound) && of_below.starts_with(&format!("   {bound}")), "{page}");
    assert!(lease.starts_with("├─ lea_") && its_lease.starts_with("   └─ lea_"), "{page}");
    let id = child["session"]["session_id"].as_str().unwrap();
    assert!(below.starts_with(&format!("└─ notes  {id}  as ")) && below.ends_with("ends in 1h"), "{page}");
    let sessions = &stack.run("status --format json").json()["sessions"];
    assert_eq!(sessions[0]["parent_session_id"], Value::Null);
    assert_eq!(sessions[1]["parent_session_id"], sessions[0]["session_id"]);
    assert_eq!(sessions[1]["binding"], format!("subtree of {}", shell.child.id()));
    shell.leave();
}

/// The caller hands the id on; the operator asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_explained_to_the_operator() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let (what, hint) = shell.run("ravi-broker get secret/STRIPE_API_KEY").failed(4);
    assert!(!format!("{what}{hint}").contains("scope"), "the caller is not told: {what} {hint}");
    let command =
        hint.split('`').find(|word| word.starts_with("ravi-broker explain den_")).expect("a command");
    let page = stack.run(command.strip_prefix("ravi-broker ").unwrap()).good();
    assert!(page.contains("\nRule       scope_missing: no scope of the role allows it\n"), "{page}");
    assert!(page.contains("\nAsked for  secret/STRIPE_API_KEY\n"), "{page}");
    assert!(page.contains("\nRole       notes\n") && page.contains("\nSession    ses_"), "{page}");
    assert!(page.contains("\n\n  scope of the role: secret:read:OPENAI_*\n"), "{page}");
    assert_lines_up(page.split("\n\n").next().unwrap());

    let run = shell.run("ravi-broker get secret/STRIPE_API_KEY --format json");
    let error: Value = serde_json::from_str(&run.err).unwrap();
    assert_fields(&error["error"], &["reason", "message", "hint", "denial_id"]);
    let id = error["error"]["denial_id"].as_str().unwrap();
    let explained = stack.run(&format!("explain {id} --format json")).json();
    assert_fields(
        &explained,
        &[
            "denial_id",
            "denied_at",
            "rule",
            "asked",
            "session_id",
            "role",
            "uid",
            "pid",
            "executable",
            "tier",
            "selectors",
        ],
    );
    assert_moment(&explained["denied_at"]);
    assert_eq!((&explained["denial_id"], &explained["rule"]), (&id.into(), &"scope_missing".into()));
    assert_eq!(explained["executable"], fs::canonicalize(PROGRAM).unwrap().to_str().unwrap());
    let (what, hint) = stack.run("explain den_aaaaaaaaaaaaaaaaaaaaaaaaaa").failed(1);
    assert!(what.contains("does not remember") && hint.contains("audit trail"), "{what} {hint}");
    // It is no socket for agents.
    shell.run(&format!("RAVI_BROKER_ADMIN_SOCKET=$RAVI_BROKER_SOCKET ravi-broker explain {id}")).failed(1);
    shell.leave();
}
