//! What an agent's shell does: sessions, values, leases, names, changes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{PROGRAM, Shell, assert_fields, assert_lines_up, on_terminal};
use crate::support::{DEPLOY, Stack, bounded};

const OPENAI: &str = "sandbox-openai-notes-7c1f20\n";
const SESSION: [&str; 8] =
    ["session_id", "role", "identity", "scopes", "expires_at", "expires_in", "binding", "parent_session_id"];
const LEASE: [&str; 7] =
    ["lease_id", "resource", "expires_at", "expires_in", "renewable_for", "revocable", "uses"];

/// A time as the command line writes it: whole seconds, UTC.
#[track_caller]
pub(super) fn assert_moment(value: &Value) {
    let text = value.as_str().unwrap();
    assert_eq!((text.len(), text.as_bytes()[10], text.as_bytes()[19]), (20, b'T', b'Z'), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_opens_a_session_and_what_it_starts_may_use_it() {
    let stack = Stack::start().await;
    let get = "ravi-broker get secret/OPENAI_API_KEY";
    let script = format!(
        r#"eval "$(ravi-broker session open --role notes --reason test)"; {get}; ({get}); sh -c '{get}'"#
    );
    let run = stack.shell(&script);
    assert!(run.err.starts_with("Session ses_") && run.err.ends_with(" as notes, for 12h.\n"), "{}", run.err);
    assert_eq!(run.good(), OPENAI.repeat(3));
    // It was the shell's, and ended with it.
    bounded(async { while stack.audited("session.revoked").is_empty() {} }).await;
    assert_eq!(stack.audited("session.revoked")[0]["cause"], "peer_exited");
    assert_eq!(stack.audited("session.opened").len(), 1);
    assert_eq!(stack.audited("session.opened")[0]["reason"], "test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_file_is_private_and_worthless_elsewhere() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let path = shell.run("echo \"$RAVI_BROKER_SESSION_FILE\"").good();
    let path = path.trim();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(path).unwrap().contains("\"token\""));
    // This process did not open the session, and does not descend from who did.
    let (what, hint) = stack.run(&format!("whoami --session-file {path}")).failed(4);
    assert!(what.contains("not valid for this process") && hint.contains("open one here"), "{what}");
    shell.run("ravi-broker whoami").good();
    let closed = shell.run("ravi-broker session close").good();
    assert!(closed.starts_with("The session is closed"), "{closed}");
    assert!(!fs::exists(path).unwrap());
    let (what, hint) = shell.run("ravi-broker session show").failed(4);
    assert!(what.contains("there is no session file") && hint.contains("session open --role"), "{what}");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_file_that_is_planted_here_is_not_used() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    for name in
        ["session.json", ".ravi-broker/session.json", ".ravi/session.json", "ravi-broker/session.json"]
    {
        let planted = stack.setup.directory().join(name);
        fs::create_dir_all(planted.parent().unwrap()).unwrap();
        shell.run(&format!("cp -p \"$RAVI_BROKER_SESSION_FILE\" {}", planted.display())).good();
    }
    // Below the shell, so that the token itself would do.
    let (what, _) = shell.run("unset RAVI_BROKER_SESSION_FILE; ravi-broker whoami").failed(4);
    assert_eq!(what, "there is no session");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_printed_alone_in_every_form_that_was_asked_for() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "deploy");
    let mut get = |rest: &str| shell.run(&format!("ravi-broker get {rest}"));
    assert_eq!(get("secret/STRIPE_API_KEY").good(), "sandbox-stripe-deploy-58f0d1\n");
    assert_eq!(get("secret/STRIPE_API_KEY -n; echo '|'").good(), "sandbox-stripe-deploy-58f0d1|\n");
    assert_eq!(get("password/github.com").good(), "sandbox-github-deploy-6f98\n");
    assert_eq!(get("password/github.com --field username").good(), "deploy-agent\n");
    assert_eq!(get("password/github.com/deploy-agent").good(), "sandbox-github-deploy-6f98\n");
    assert_eq!(get("ravi://secret/STRIPE_API_KEY").good(), "sandbox-stripe-deploy-58f0d1\n");
    assert_eq!(get("ravi://password/github.com#username").good(), "deploy-agent\n");
    assert_eq!(get("ravi://password/github.com/deploy-agent").good(), "sandbox-github-deploy-6f98\n");
    assert_eq!(get("identity/email").good(), "deploy-agent@agents.sandbox.example\n");
    assert_eq!(get("identity/phone").good(), "+12025550122\n");
    assert!(get("sso/token").good().starts_with("rvt_"));
    let document = get("password/github.com --format json").json();
    let expected = json!({
        "resource": "password/github.com/deploy-agent", "value": "sandbox-github-deploy-6f98",
        "username": "deploy-agent",
    });
    assert_eq!(document, expected);
    assert_eq!(get("secret/STRIPE_API_KEY --format json").json()["username"], Value::Null);
    let (what, _) = get("secret/STRIPE_API_KEY --field username").failed(1);
    assert!(what.contains("no user name"), "{what}");
    // Each was given back at once, except where giving back is not possible.
    assert_eq!(shell.run("ravi-broker lease list").good(), "No leases.\n");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_under_a_role_leaves_no_session() {
    let stack = Stack::start().await;
    assert_eq!(stack.run("get secret/OPENAI_API_KEY --role notes --reason nightly").good(), OPENAI);
    assert_eq!(stack.admin().await.sessions().await.unwrap(), []);
    assert_eq!(stack.audited("session.closed").len(), 1);
    assert_eq!(stack.audited("lease.acquired")[0]["reason"], "nightly");
    // As it is with a call that fails.
    stack.run("get secret/ABSENT --role notes").failed(4);
    assert_eq!(stack.audited("session.closed").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_refused_before_anything_is_fetched() {
    let stack = Stack::start().await;
    let get = |more: &[&str]| {
        let mut command = stack.surrounded(PROGRAM);
        command.args(["get", "secret/OPENAI_API_KEY", "--role", "notes"]).args(more);
        on_terminal(command, "", "")
    };
    for more in [&[][..], &["--format", "json"], &["--no-newline"]] {
        let (shown, code) = get(more);
        assert_eq!(code, Some(2), "{shown}");
        assert!(shown.contains("--reveal") && !shown.contains("sandbox-openai"), "{shown}");
    }
    assert!(stack.audited("session.opened").is_empty() && stack.audited("lease.acquired").is_empty());
    assert_eq!(stack.control().total_requests(), 0);
    let (shown, code) = get(&["--reveal"]);
    assert_eq!((code, shown.as_str()), (Some(0), "sandbox-openai-notes-7c1f20\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_goes_from_acquire_to_release() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let shown = shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY --ttl 10m").good();
    for line in [
        "Lease          lea_",
        "Resource       secret/OPENAI_API_KEY",
        "Ends in        10m",
        "Renewable for  1h",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!shown.contains("sandbox-openai"), "{shown}");
    let lease = shell.run("ravi-broker lease acquire secret/OPENAI_API_KEY --format json").json();
    assert_fields(&lease, &LEASE);
    assert_moment(&lease["expires_at"]);
    assert_eq!((&lease["expires_in"], &lease["uses"]), (&299.into(), &1.into()));
    assert_eq!((&lease["revocable"], &lease["resource"]), (&false.into(), &"secret/OPENAI_API_KEY".into()));
    let id = lease["lease_id"].as_str().unwrap();

    let table = shell.run("ravi-broker lease list").good();
    assert_lines_up(&table);
    assert_eq!(table.lines().count(), 3, "{table}");
    let list = shell.run("ravi-broker lease list --format json").json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_fields(&list[0], &LEASE);

    let renewed = shell.run(&format!("ravi-broker lease renew {id} --ttl 20m --format json")).json();
    assert_fields(&renewed, &LEASE);
    assert_eq!((&renewed["lease_id"], &renewed["expires_in"]), (&id.into(), &1199.into()));
    assert!(
        shell.run(&format!("ravi-broker lease renew {id} --ttl 30m")).good().contains("Ends in        30m")
    );
    // Past the role's maximum it is cut, not refused.
    let cut = shell.run(&format!("ravi-broker lease renew {id} --ttl 2d --format json")).json();
    assert!(cut["expires_in"].as_u64().unwrap() <= 3600, "{cut}");
    assert_eq!(shell.run(&format!("ravi-broker lease read {id}")).good(), OPENAI);
    let read = shell.run(&format!("ravi-broker lease read {id} --format json")).json();
    assert_fields(&read, &["resource", "value", "username"]);

    assert_eq!(shell.run(&format!("ravi-broker lease release {id}")).good(), "The lease is given back.\n");
    for verb in ["release", "renew", "read"] {
        let (what, _) = shell.run(&format!("ravi-broker lease {verb} {id}")).failed(6);
        assert!(what.contains("revoked or released"), "{verb}: {what}");
    }
    let other = list.as_array().unwrap().iter().find(|other| other["lease_id"] != id).unwrap();
    let release = format!("ravi-broker lease release {} --format json", other["lease_id"].as_str().unwrap());
    assert_eq!(shell.run(&release).json(), json!({ "lease_id": other["lease_id"] }));
    assert_eq!(shell.run("ravi-broker lease list --format json").json(), json!([]));
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_the_document_of_a_lease_only_when_it_was_asked_for() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "deploy");
    let with = shell.run("ravi-broker lease acquire sso/token --with-value --format json").json();
    let promised = [&LEASE[..], &["value", "username"]].concat();
    assert_fields(&with, &promised);
    assert!(with["value"].as_str().unwrap().starts_with("rvt_"));
    assert_eq!(with["revocable"], true);
    let (what, _) = shell.run("ravi-broker lease acquire sso/token --with-value").failed(2);
    assert!(what.contains("JSON"), "{what}");
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_leases_sees_them_end() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let file = shell.run("echo \"$RAVI_BROKER_SESSION_FILE\"").good();
    // A process below the shell, whose output is ours to read.
    let fifo = stack.setup.directory().join("events");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    shell.run(&format!("ravi-broker lease watch --format json > {} & :", fifo.display())).good();
    let events = fs::File::open(&fifo).unwrap();
    bounded(async { while stack.admin().await.status().await.unwrap().connections == 0 {} }).await;
    let acquire = "ravi-broker lease acquire secret/OPENAI_API_KEY --format json";
    let mut revoked = Vec::new();
    let mut lines = BufReader::new(events).lines();
    // Until the watch stands, events pass unseen: revoke leases until one is seen.
    let (sender, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let line = loop {
        let id = shell.run(acquire).json()["lease_id"].as_str().unwrap().to_owned();
        stack.run(&format!("revoke --lease {id}")).good();
        revoked.push(id);
        if let Ok(line) = seen.try_recv() {
            break line;
        }
    };
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_fields(&event, &["event", "lease_id", "resource"]);
    assert_eq!((&event["event"], &event["resource"]), (&"revoked".into(), &"secret/OPENAI_API_KEY".into()));
    assert!(revoked.contains(&event["lease_id"].as_str().unwrap().to_owned()), "{event}");
    assert!(!file.is_empty());
    stack.run("revoke --role notes").good();
    // The end of the session ends the watch, and with it its output.
    bounded(async { while !matches!(seen.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {} })
        .await;
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_and_values_are_not() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "deploy");
    let secrets = shell.run("ravi-broker list secrets").good();
    assert_eq!(secrets, "secret/OPENAI_API_KEY\nsecret/REGISTRY_TOKEN\nsecret/STRIPE_API_KEY\n");
    let secrets = shell.run("ravi-broker list secrets --format json").json();
    assert_eq!(secrets[0], json!({ "resource": "secret/OPENAI_API_KEY", "key": "OPENAI_API_KEY" }));
    let passwords = shell.run("ravi-broker list passwords").good();
    assert!(passwords.contains("password/github.com/deploy-agent\n"), "{passwords}");
    let passwords = shell.run("ravi-broker list passwords --format json").json();
    assert!(passwords.as_array().unwrap().contains(&json!({
        "resource": "password/github.com/deploy-agent", "domain": "github.com", "username": "deploy-agent",
    })));
    shell.leave();
    // Through the eye of a role that may see less.
    assert_eq!(
        stack.run("list secrets --role notes").good(),
        "secret/OPENAI_API_KEY\nsecret/OPENAI_ORG_ID\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_set_from_standard_input_replaced_and_deleted() {
    let stack = Stack::start().await;
    let set = "set secret/FRESH --role deploy";
    assert_eq!(stack.run_with(set, "first value\n").good(), "secret/FRESH: created.\n");
    assert_eq!(stack.run("get secret/FRESH --role deploy").good(), "first value\n");
    let replaced = stack.run_with(&format!("{set} --format json"), "second\n").json();
    assert_eq!(replaced, json!({ "resource": "secret/FRESH", "did": "replaced" }));
    assert_eq!(stack.run("get secret/FRESH --role deploy").good(), "second\n");
    stack.run_with(&format!("{set} --keep-newline"), "two\nlines\n").good();
    assert_eq!(stack.run("get secret/FRESH --role deploy").good(), "two\nlines\n\n");
    let gone = stack.run("delete secret/FRESH --role deploy --format json").json();
    assert_eq!(gone, json!({ "resource": "secret/FRESH", "did": "deleted" }));
    stack.run("get secret/FRESH --role deploy").failed(4);
    stack.run("delete secret/FRESH --role deploy").failed(4);
    stack.run_with("set secret/FRESH --role notes", "denied").failed(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_set_from_a_hidden_prompt() {
    let stack = Stack::start().await;
    let mut command = stack.surrounded(PROGRAM);
    command.args(["set", "secret/TYPED", "--role", "deploy"]);
    let (shown, code) = on_terminal(command, "Value of secret/TYPED: ", "typed-canary\r");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("created") && !shown.contains("canary"), "{shown}");
    assert_eq!(stack.run("get secret/TYPED --role deploy").good(), "typed-canary\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_created_changed_and_deleted_without_being_shown() {
    let stack = Stack::start().await;
    let create = "password create fresh.example --username bob --length 20 --role deploy --format json";
    let created = stack.run(create).json();
    assert_eq!(created, json!({ "resource": "password/fresh.example/bob", "did": "created" }));
    let name = "password/fresh.example/bob --role deploy";
    let first = stack.run(&format!("get {name}")).good();
    assert_eq!(first.trim_end().len(), 20, "{first}");
    let updated = stack.run(&format!("password update {name}")).good();
    assert_eq!(updated, "password/fresh.example/bob: replaced.\n");
    let second = stack.run(&format!("get {name}")).good();
    assert_ne!(first, second);
    stack.run_with(&format!("password update {name} --stdin"), "chosen by hand\n").good();
    assert_eq!(stack.run(&format!("get {name}")).good(), "chosen by hand\n");
    let gone = stack.run(&format!("password delete {name} --format json")).json();
    assert_eq!(gone, json!({ "resource": "password/fresh.example/bob", "did": "deleted" }));
    stack.run(&format!("get {name}")).failed(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_tells_what_it_is_and_what_is_left() {
    let stack = Stack::start().await;
    let open =
        "ravi-broker session open --role deploy --ttl 1h --scopes secret:read,identity:read --format json";
    let mut shell = Shell::start(&stack);
    let opened = shell.run(open).json();
    assert_fields(&opened, &["session", "session_file"]);
    assert_fields(&opened["session"], &SESSION);
    assert_moment(&opened["session"]["expires_at"]);
    assert_eq!(opened["session"]["scopes"], json!(["secret:read", "identity:read"]));
    let file = opened["session_file"].as_str().unwrap();
    shell.run(&format!("export RAVI_BROKER_SESSION_FILE='{file}'")).good();

    let shown = shell.run("ravi-broker session show --format json").json();
    assert_fields(&shown, &["session", "limits", "live_leases", "max_live_leases"]);
    assert_eq!(shown["session"]["session_id"], opened["session"]["session_id"]);
    assert_fields(&shown["limits"][0], &["name", "rate", "remaining", "resets_in"]);
    let page = shell.run("ravi-broker session show").good();
    assert!(
        page.contains("Ends in    1h\n") && page.contains("Scopes     secret:read, identity:read\n"),
        "{page}"
    );
    assert_lines_up(page.split_once("\n\n").unwrap().1);

    let me = shell.run("ravi-broker whoami --format json").json();
    assert_fields(&me, &["session", "identity"]);
    assert_fields(&me["identity"], &["uuid", "name", "email", "phone", "owner"]);
    assert_eq!((&me["identity"]["name"], &me["identity"]["owner"]), (&DEPLOY.into(), &"Sandy Box".into()));
    assert!(shell.run("ravi-broker whoami").good().contains("Mail   deploy-agent@agents.sandbox.example"));
    // What was given up is denied.
    shell.run("ravi-broker get sso/token").failed(4);
    let closed = shell.run("ravi-broker session close --format json").json();
    assert_eq!(closed, json!({ "leases_revoked": 0 }));
    shell.leave();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_environment_and_in_no_output() {
    let stack = Stack::start().await;
    let script = r#"
        ravi-broker session open --role notes > "$HOME/line" 2>&1
        eval "$(ravi-broker session open --role notes 2>&1 | grep ^export)"
        env; cat "$HOME/line"; ravi-broker session show; ravi-broker whoami --format json
        echo "@token $(cat "$RAVI_BROKER_SESSION_FILE")""#;
    // The first session is not the shell's own, but that does not matter here.
    let mut command = stack.surrounded("/bin/sh");
    let output = command.args(["-c", script]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (said, file) = said.split_once("@token ").unwrap();
    let stored: Value = serde_json::from_str(file.trim()).unwrap();
    let token = stored["token"].as_str().unwrap();
    assert!(said.contains("RAVI_BROKER_SESSION_FILE="), "{said}");
    assert!(token.len() > 40 && !said.contains(token) && !said.contains(&token[token.len() - 20..]));
}

/// For a subagent: a session file of its own, which says less.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_delegated_and_selected_like_one_that_was_opened() {
    let stack = Stack::start().await;
    let mut shell = Shell::under(&stack, "notes");
    let parent = shell.run("ravi-broker session show --format json").json();
    let delegate = "ravi-broker session delegate --scopes secret:read:OPENAI_API_KEY,identity:read --ttl 10m";
    let run = shell.run(&format!("{delegate} --reason 'a subagent'"));
    assert!(run.err.starts_with("Session ses_") && run.err.ends_with(" as notes, for 10m.\n"), "{run:?}");
    let line = run.good();
    assert!(line.starts_with("export RAVI_BROKER_SESSION_FILE='/"), "{line}");
    let within = format!("( eval {}; ", super::quoted(&line));
    let shown = shell.run(&format!("{within} ravi-broker session show --format json )")).json();
    assert_fields(&shown["session"], &SESSION);
    assert_eq!(shown["session"]["scopes"], json!(["secret:read:OPENAI_API_KEY", "identity:read"]));
    assert_eq!(shown["session"]["parent_session_id"], parent["session"]["session_id"]);
    assert_eq!(parent["session"]["parent_session_id"], Value::Null);
    assert_eq!(shown["session"]["binding"], "subtree");
    let get = shell.run(&format!("{within} ravi-broker get secret/OPENAI_API_KEY )")).good();
    assert_eq!(get, "sandbox-openai-notes-7c1f20\n");
    shell.run(&format!("{within} ravi-broker get secret/OPENAI_ORG_ID )")).failed(4);
    shell.run("ravi-broker get secret/OPENAI_ORG_ID").good();
    let page = shell.run(&format!("{within} ravi-broker session show )")).good();
    assert!(page.contains("\nWorks for     one process and what it starts\n"), "{page}");
    assert!(page.contains("\nDelegated by  ses_"), "{page}");

    let opened = shell.run(&format!("{delegate} --scope secret:read:OPENAI_ORG_ID --format json")).json();
    assert_fields(&opened, &["session", "session_file"]);
    let (what, hint) = shell.run("ravi-broker session delegate --scopes sso:mint").failed(4);
    assert!(what.contains("goes beyond") && hint.contains("`ravi-broker explain den_"), "{what} {hint}");
    let (what, _) = shell.run("ravi-broker session delegate --pid 1").failed(2);
    assert!(what.starts_with("pid: no living process"), "{what}");
    assert_eq!(shell.run("ravi-broker session close").good().matches("it: 1").count(), 0);
    shell.run(&format!("{within} ravi-broker session show )")).failed(6);
    shell.leave();
}

/// The file says when it may be removed, so it has to know.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_renewed_and_its_file_knows() {
    let stack = Stack::start().await;
    let mut shell = Shell::start(&stack);
    shell.run("eval \"$(ravi-broker session open --role notes --ttl 1m 2>/dev/null)\"").good();
    let file = shell.run("echo \"$RAVI_BROKER_SESSION_FILE\"").good();
    let ends = || {
        let text = fs::read_to_string(file.trim()).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        file["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let before = ends();
    assert_eq!(shell.run("ravi-broker session renew --ttl 1h").good(), "The session ends in 1h.\n");
    let moved = ends().duration_since(before);
    assert!(moved.as_mins() == 59 || moved.as_mins() == 58, "{moved:?}");
    let renewed = shell.run("ravi-broker session renew --format json").json();
    assert_fields(&renewed, &["session"]);
    assert!(renewed["session"]["expires_in"].as_u64().unwrap() > 3600);
    shell.run("ravi-broker whoami").good();
    shell.run("ravi-broker session close").good();
    shell.leave();
}
