//! SIGHUP and `Reload`: roles change at once and all together; a bad file changes nothing and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use ravi_broker::client::{BrokerError, ClientError, ErrorReason};

use super::reason;
use crate::support::{Daemon, Stack, bounded};

/// A role of the notes agent, open to whoever runs the tests.
fn role(name: &str, scopes: &str) -> String {
    let uid = nix::unistd::geteuid();
    format!(
        "[role.{name}]\nidentity = \"assistant-notes-agent\"\nmatch = {{ uid = {uid} }}\nscopes = [{scopes}]\n\
         rate = {{ read = \"60000/min\" }}\n"
    )
}

/// The configuration with other roles.
fn with_roles(text: &str, roles: &str) -> String {
    let end = text.find("[role.").expect("there are roles");
    let audit = &text[text.find("[audit]").expect("there is a trail")..];
    format!("{}{roles}{audit}", &text[..end])
}

/// Signals, and waits until the daemon says that it has dealt with it. Returns the status it tells.
async fn hang_up(stack: &Stack) -> String {
    stack.daemon.signal(Signal::SIGHUP);
    let begun = stack.daemon.any_notification().await;
    let stamp = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{begun}"));
    assert!(stamp.trim().parse::<u64>().unwrap() > 0);
    let done = stack.daemon.any_notification().await;
    let status = done.strip_prefix("READY=1\nSTATUS=").unwrap_or_else(|| panic!("{done}"));
    status.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_added_changed_and_removed_at_once() {
    let stack = Stack::start().await;
    let stranger = stack.stranger().await;
    let open = |name: &str| stranger.open_session(ravi_broker::client::OpenSession::role(name));
    assert_eq!(reason(open("extra").await.map(drop)), ErrorReason::RoleNotAvailable);
    let (notes, deploy) = (stack.agent("notes").await, stack.agent("deploy").await);
    let mut events = deploy.watch_leases().await.unwrap();
    deploy.acquire("secret/STRIPE_API_KEY", None, "").await.unwrap();
    notes.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();

    let roles = role("notes", "\"secret:read:STRIPE_*\"") + &role("extra", "\"secret:read:OPENAI_*\"");
    stack.rewrite(|text| with_roles(text, &roles));
    assert_eq!(hang_up(&stack).await, "serving");

    // Added.
    stack.agent("extra").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    // Changed, for a session that was open before too.
    notes.acquire("secret/STRIPE_API_KEY", None, "").await.unwrap();
    let denied = notes.acquire("secret/OPENAI_API_KEY", None, "").await;
    assert_eq!(reason(denied), ErrorReason::ResourceNotAvailable);
    // Removed: its sessions, leases and streams have ended.
    assert_eq!(reason(deploy.list_leases().await), ErrorReason::SessionRevoked);
    let end = bounded(async {
        loop {
            match events.next().await.expect("an end with a reason") {
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    });
    assert_eq!(end.await.reason(), Some(ErrorReason::SessionRevoked));
    assert_eq!(reason(open("deploy").await.map(drop)), ErrorReason::RoleNotAvailable);
    let ended = &stack.audited("session.revoked")[0];
    assert_eq!((&ended["cause"], &ended["role"]), (&"reload".into(), &"deploy".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_under_a_scope_that_is_gone_is_neither_read_nor_renewed() {
    let stack = Stack::start().await;
    let notes = stack.agent("notes").await;
    let (lease, _) = notes.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    stack.rewrite(|text| with_roles(text, &role("notes", "\"secret:list\"")));
    stack.admin().await.reload().await.unwrap();
    assert_eq!(reason(notes.read(lease.lease_id).await), ErrorReason::ResourceNotAvailable);
    assert_eq!(reason(notes.renew(lease.lease_id, None).await), ErrorReason::ResourceNotAvailable);
    notes.release(lease.lease_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_process_no_longer_matches_ends() {
    let stack = Stack::start().await;
    let notes = stack.agent("notes").await;
    let uid = format!("uid = {}", nix::unistd::geteuid());
    stack.rewrite(|text| text.replacen(&uid, &format!("{uid}, exe = \"/usr/bin/other-agent\""), 1));
    assert_eq!(stack.admin().await.reload().await.unwrap().sessions_ended, 1);
    assert_eq!(reason(notes.describe_session().await), ErrorReason::SessionRevoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_rate_counts_for_sessions_that_are_open() {
    let stack = Stack::start().await;
    let notes = stack.agent("notes").await;
    stack.rewrite(|text| text.replace("read = \"6000/min\"", "read = \"1/h\""));
    stack.admin().await.reload().await.unwrap();
    let described = notes.describe_session().await.unwrap();
    let limit = described.limits.iter().find(|limit| limit.name == "read").unwrap();
    assert_eq!((limit.rate.as_str(), limit.remaining), ("1/h", 0));
    assert_eq!(reason(notes.list_leases().await), ErrorReason::RateLimited);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_said_and_not_done() {
    let stack = Stack::start().await;
    let elsewhere = stack.setup.directory().join("run/elsewhere.sock");
    stack.rewrite(|text| text.replace("broker.sock", "elsewhere.sock"));
    assert_eq!(hang_up(&stack).await, "serving");
    assert!(stack.daemon.log().contains("need a restart"), "{}", stack.daemon.log());
    assert!(!elsewhere.exists());
    stack.agent("notes").await.describe_session().await.unwrap();
}

/// A bad file, and what has to be said of it, with its line where it has one.
type Bad = (&'static str, fn(&str) -> String, &'static [&'static str]);

const BAD: [Bad; 8] = [
    ("an unknown key", |text| text.replace("budget = ", "bugdet = "), &["line 5: ", "unknown key `bugdet`"]),
    ("a duplicate key", |text| format!("version = 1\n{text}"), &["line 2: ", "given twice"]),
    ("a duplicate role", |text| format!("{text}{}", role("notes", "")), &["line 28: ", "given twice"]),
    (
        "a file cut off within a text",
        |text| text[..text.find("secret:list").expect("a scope") + 3].to_owned(),
        &["line "],
    ),
    (
        "a bad scope",
        |text| text.replacen("secret:read:OPENAI_*", "secrt:read", 1),
        &["line ", "\"secrt:read\""],
    ),
    (
        "a role without an identity",
        |text| text.replacen("identity = \"deploy-agent\"\n", "", 1),
        &["identity"],
    ),
    ("another version", |text| text.replacen("version = 1", "version = 2", 1), &["line 1: "]),
    ("no text at all", |_| "\u{0}\u{1}".repeat(10), &["line 1: "]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_every_problem_is_told_with_its_line() {
    let stack = Stack::start().await;
    let (notes, admin) = (stack.agent("notes").await, stack.admin().await);
    let good = fs::read_to_string(&stack.setup.config_file).unwrap();
    let before = notes.describe_session().await.unwrap().session.scopes;
    for (what, spoil, expected) in BAD {
        let bad = spoil(&good);
        assert_ne!(bad, good, "{what}");
        fs::write(&stack.setup.config_file, bad).unwrap();
        // To whoever asked for it.
        let Err(ClientError::Broker(BrokerError { reason, message, problems, .. })) = admin.reload().await
        else {
            panic!("{what} was accepted")
        };
        assert_eq!(reason, ErrorReason::ConfigurationInvalid, "{what}");
        assert!(message.contains(stack.setup.config_file.to_str().unwrap()), "{what}: {message}");
        let told = problems.join("\n");
        assert!(expected.iter().all(|text| told.contains(text)), "{what}: {told}");
        stack.daemon.notification("STATUS=serving; the last reload failed").await;
        // And to the log, where nobody did.
        let lines = stack.daemon.log().lines().count();
        assert_eq!(hang_up(&stack).await, "serving; the last reload failed", "{what}");
        let log = stack.daemon.log();
        let logged = log.lines().skip(lines).collect::<Vec<_>>().join("\n");
        assert!(logged.contains("the old configuration stays in force"), "{what}: {logged}");
        assert!(expected.iter().all(|text| logged.contains(text)), "{what}: {logged}");
        // Nothing has changed.
        assert_eq!(notes.describe_session().await.unwrap().session.scopes, before, "{what}");
        assert_eq!(admin.status().await.unwrap().roles, ["deploy", "notes"], "{what}");
    }
    let refused = stack.audited("admin.reload");
    assert_eq!(refused.len(), 2 * BAD.len());
    assert!(refused.iter().all(|record| record["outcome"] == "failed"));
    fs::write(&stack.setup.config_file, good).unwrap();
    assert_eq!(hang_up(&stack).await, "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_or_not_to_be_trusted_changes_nothing() {
    let stack = Stack::start().await;
    let (notes, admin) = (stack.agent("notes").await, stack.admin().await);
    let good = fs::read_to_string(&stack.setup.config_file).unwrap();
    let refused = async |expected: &str| {
        let Err(ClientError::Broker(error)) = admin.reload().await else { panic!("it was accepted") };
        assert_eq!(error.reason, ErrorReason::ConfigurationInvalid);
        assert!(error.message.contains(expected), "{}", error.message);
        assert!(stack.daemon.log().contains(expected), "{}", stack.daemon.log());
        notes.describe_session().await.unwrap();
    };
    fs::set_permissions(&stack.setup.config_file, fs::Permissions::from_mode(0o620)).unwrap();
    refused("its group or everyone may write it").await;
    fs::remove_file(&stack.setup.config_file).unwrap();
    refused("no configuration file").await;
    fs::create_dir(&stack.setup.config_file).unwrap();
    refused("it is not a regular file").await;
    fs::remove_dir(&stack.setup.config_file).unwrap();
    fs::write(&stack.setup.config_file, vec![b'#'; 2 << 20]).unwrap();
    fs::set_permissions(&stack.setup.config_file, fs::Permissions::from_mode(0o600)).unwrap();
    refused("larger than 1 MiB").await;
    fs::write(&stack.setup.config_file, good).unwrap();
    admin.reload().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_without_end_are_told_as_far_as_they_fit() {
    let stack = Stack::start().await;
    let many: String = (0..500).map(|number| format!("mistake_{number:030} = 1\n")).collect();
    stack.rewrite(|text| many + text);
    let Err(ClientError::Broker(error)) = stack.admin().await.reload().await else {
        panic!("it was accepted, or its answer was lost")
    };
    assert!(error.problems[0].starts_with("line 1: "), "{:?}", error.problems);
    assert!(error.problems.last().unwrap().starts_with("and "), "{:?}", error.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_under_load_show_the_old_or_the_new_and_nothing_between() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let generation = |word: &str| -> (String, Vec<String>) {
        let names = (0..20).map(|number| format!("{word}{number}"));
        let scopes = ["OPENAI_API_KEY", "STRIPE_API_KEY"].map(|key| format!("secret:read:{key}"));
        let own = format!("secret:list:{}_*", word.to_uppercase());
        let text = format!("\"{}\", \"{}\", \"{own}\"", scopes[0], scopes[1]);
        let roles: String = names.clone().map(|name| role(&name, "")).collect();
        (role("notes", &text) + &roles, names.chain(["notes".to_owned()]).collect())
    };
    let generations = ["even", "odd"].map(generation);
    stack.rewrite(|text| with_roles(text, &generations[0].0));
    admin.reload().await.unwrap();
    let agent = stack.agent("notes").await;
    let done = Arc::new(AtomicBool::new(false));

    let looking = {
        let (done, admin) = (done.clone(), stack.admin().await);
        let mut valid = generations.clone().map(|(_, mut names)| {
            names.sort();
            names
        });
        valid.sort();
        tokio::spawn(async move {
            let mut rounds = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let roles = admin.status().await.unwrap().roles;
                assert!(valid.contains(&roles), "{roles:?}");
                let scopes = agent.describe_session().await.unwrap().session.scopes;
                let own: Vec<_> = scopes.iter().filter(|scope| scope.starts_with("secret:list:")).collect();
                assert!(scopes.len() == 3 && own.len() == 1, "{scopes:?}");
                // Allowed by the old and by the new.
                let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
                agent.release(lease.lease_id).await.unwrap();
                rounds += 1;
            }
            rounds
        })
    };
    for round in 1..=50 {
        stack.rewrite(|text| with_roles(text, &generations[round % 2].0));
        if round % 5 == 0 {
            stack.daemon.signal(Signal::SIGHUP);
            stack.daemon.notification("RELOADING=1").await;
            stack.daemon.notification("READY=1").await;
        } else {
            assert_eq!(admin.reload().await.unwrap().sessions_ended, 0);
            stack.daemon.notification("READY=1").await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let rounds = bounded(looking).await.expect("it saw nothing between");
    assert!(rounds > 10, "{rounds}");
    assert!(stack.audited("session.revoked").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_a_sign_of_life_for_as_long_as_it_runs() {
    let (setup, sandbox) = Stack::prepared(|_| {}).await;
    let daemon = Daemon::start_with(&setup, |command| {
        command.env("WATCHDOG_USEC", "100000");
    })
    .await;
    let mut stack = Stack::of(daemon, setup, sandbox);
    for _ in 0..5 {
        stack.daemon.notification("WATCHDOG=1").await;
    }
    stack.daemon.signal(Signal::SIGTERM);
    stack.daemon.notification("STOPPING=1").await;
    assert!(stack.daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_of_another_process_is_not_fed() {
    let (setup, sandbox) = Stack::prepared(|_| {}).await;
    let daemon = Daemon::start_with(&setup, |command| {
        command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    })
    .await;
    let mut stack = Stack::of(daemon, setup, sandbox);
    // Nothing comes between these but a sign of life that nobody asked for.
    for _ in 0..20 {
        hang_up(&stack).await;
    }
    stack.daemon.signal(Signal::SIGTERM);
    assert!(stack.daemon.any_notification().await.starts_with("STOPPING=1\nSTATUS=draining"));
    assert!(stack.daemon.ended().await.success());
}
