//! `login`: the device flow, approved on the sandbox's side, and keys that are imported.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ravi_broker::client::{ClientError, ErrorReason, ImportKeys};
use ravi_broker::sandbox::Behaviour;
use ravi_broker::secret::Secret;
use serde_json::{Value, json};

use super::{PROGRAM, Run, assert_fields};
use crate::support::{DEPLOY, Daemon, NOTES, Stack, bounded};

/// A daemon without a key, whose logins need no patience. With `kept`, keys are also written to a file.
async fn logged_out(kept: bool) -> Stack {
    let stack = Stack::with(|setup| {
        setup.logged_in = false;
        setup.key_file = kept.then(|| setup.directory().join("stored-key"));
    })
    .await;
    let behaviour = Behaviour { device_interval: 1, ..stack.control().behaviour() };
    stack.control().set_behaviour(behaviour);
    stack
}

/// A login that waits for approval, and what it has shown.
struct Waiting {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Waiting {
    fn start(stack: &Stack, arguments: &[&str]) -> Self {
        let mut command = stack.surrounded(PROGRAM);
        command.arg("login").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("another line").unwrap()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The rest of what it says.
    fn ended(mut self) -> Run {
        let out = self.lines.map(|line| line.unwrap() + "\n").collect();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Run { code: self.child.wait().unwrap().code(), out, err }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_approved_by_a_person_and_the_key_stays_in_the_daemon() {
    let stack = logged_out(true).await;
    let (what, hint) = stack.run("get secret/OPENAI_API_KEY --role notes").failed(7);
    assert!(what.contains("holds no key") && hint.contains("ravi-broker login"), "{what}");
    let mut login = Waiting::start(&stack, &[]);
    let url = login.line();
    let code = login.line().split_once("Code   ").unwrap().1.to_owned();
    assert_eq!(url, format!("Open   {}/device?user_code={code}", stack.setup.base_url));
    assert!(login.line().contains("it is good for 15m"));
    assert_eq!(stack.control().pending_logins(), [code.as_str()]);
    assert_eq!(stack.control().approve_login(Some(&code)), 1);
    let Run { code, out, err } = login.ended();
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let said = format!("The broker holds the key.\nIdentities: {NOTES}, {DEPLOY}\nThe key is also in");
    // A file is not what a sealed key is, and that is said.
    assert!(out.starts_with(&said) && out.contains("in plain text"), "{out}");
    stack.run("get secret/OPENAI_API_KEY --role notes").good();

    // It is kept for the next start, for its owner alone.
    let kept = stack.setup.directory().join("stored-key");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&kept).unwrap();
    assert!(key.starts_with("ravi_mgmt_") && !out.contains(key.trim()));
    let mut stack = stack;
    stack.restart().await;
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    assert_eq!(stack.audited("admin.login").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_in_json_is_a_prompt_and_then_the_end() {
    let stack = logged_out(false).await;
    let mut login = Waiting::start(&stack, &["--format", "json"]);
    let prompt = login.json();
    assert_fields(&prompt, &["event", "verification_url", "user_code", "expires_in"]);
    assert_eq!((&prompt["event"], &prompt["expires_in"]), (&"prompt".into(), &900.into()));
    stack.control().approve_login(prompt["user_code"].as_str());
    let done = login.json();
    assert_eq!(
        done,
        json!({ "event": "done", "identities": [NOTES, DEPLOY], "persisted": false, "sealed": null })
    );
    let end = login.ended();
    assert_eq!((end.code, end.out.as_str(), end.err.as_str()), (Some(0), "", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_file_it_is_said_that_the_key_does_not_last() {
    let stack = logged_out(false).await;
    let login = Waiting::start(&stack, &[]);
    bounded(async { while stack.control().approve_login(None) == 0 {} }).await;
    let end = login.ended();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.out.ends_with(
        "It is kept in memory only. To keep it over a restart, run this as root with the system's daemon, which seals \
         it, or name upstream.management_key_file.\n"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_denied_or_forgotten_says_so_and_changes_nothing() {
    let stack = logged_out(false).await;
    let login = Waiting::start(&stack, &[]);
    bounded(async { while stack.control().deny_login(None) == 0 {} }).await;
    let end = login.ended();
    assert_eq!(end.code, Some(7), "{end:?}");
    assert_eq!(end.err.lines().next(), Some("error: the sign-in was denied on Ravi's page"), "{}", end.err);

    let behaviour = Behaviour { device_expires_in: 2, ..stack.control().behaviour() };
    stack.control().set_behaviour(behaviour);
    let end = Waiting::start(&stack, &[]).ended();
    assert_eq!(end.code, Some(1), "{end:?}");
    let lines: Vec<&str> = end.err.lines().collect();
    assert!(
        lines[0].contains("nobody approved it in time") && lines[1].contains("ravi-broker login"),
        "{}",
        end.err
    );
    assert!(!stack.admin().await.status().await.unwrap().management_key_held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_login_at_once_is_turned_away() {
    let stack = logged_out(false).await;
    let mut first = Waiting::start(&stack, &[]);
    first.line();
    let (what, _) = stack.run("login").failed(5);
    assert!(what.contains("logins at once"), "{what}");
    stack.control().approve_login(None);
    assert_eq!(first.ended().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_left_is_given_up() {
    let stack = logged_out(false).await;
    let mut first = Waiting::start(&stack, &[]);
    first.line();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let second = bounded(async {
        loop {
            let mut next = Waiting::start(&stack, &[]);
            // Until the daemon has noticed, the first one stands in the way.
            if next.lines.next().is_some() {
                break next;
            }
        }
    })
    .await;
    let codes = stack.control().pending_logins();
    stack.control().approve_login(codes.last().map(String::as_str));
    assert_eq!(second.ended().code, Some(0));
}

fn write(stack: &Stack, name: &str, content: &str) -> PathBuf {
    let path = stack.setup.directory().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_ravis_own_command_line_are_taken_over_once() {
    let stack = logged_out(true).await;
    let key = stack.control().management_key().unwrap().expose().to_owned();
    let path = write(&stack, ".ravi/config.json", &json!({ "management_key": key }).to_string());
    let Run { code, out, err } = stack.run("login --import");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with(&format!("The broker holds the key.\nIdentities: {NOTES}, {DEPLOY}\n")), "{out}");
    assert!(err.starts_with("Now delete management_key") && err.contains(path.to_str().unwrap()), "{err}");
    assert!(!out.contains(&key) && !err.contains(&key));
    // Once: the file may go.
    fs::remove_file(&path).unwrap();
    stack.run("lock").good();
    stack.run("unlock").good();
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    let named = write(&stack, "elsewhere.json", &json!({ "management_key": key }).to_string());
    let done = stack.run(&format!("login --import {} --format json", named.display())).json();
    assert_eq!(
        done,
        json!({ "event": "done", "identities": [NOTES, DEPLOY], "persisted": true, "sealed": null })
    );
    assert_eq!(stack.audited("admin.import").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_one_identity_is_enough_for_that_identity() {
    let stack = logged_out(false).await;
    let key = stack.control().identity_key(NOTES).unwrap();
    let uuid = "6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a";
    let keys = json!({ "identity_key": key.expose(), "identity_uuid": uuid, "identity_name": NOTES });
    let path = write(&stack, ".ravi/config.json", &keys.to_string());
    let said = stack.run(&format!("login --import {}", path.display())).good();
    assert!(!said.contains("Identities") && said.contains("identity-key.UUID"), "{said}");
    let status = stack.run("status").good();
    assert!(status.contains("\nKeys           1 identity key\n"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_to_be_trusted_is_refused_before_the_daemon_is_asked() {
    let stack = logged_out(false).await;
    let key = stack.control().management_key().unwrap().expose().to_owned();
    let good = json!({ "management_key": key }).to_string();
    let refused = |name: &str, expected: &str| {
        let run = stack.run(&format!("login --import {}", stack.setup.directory().join(name).display()));
        let (what, hint) = run.failed(1);
        assert!(format!("{what}\n{hint}").contains(expected), "{name}: {what}\n{hint}");
        assert!(!what.contains(&key) && !hint.contains(&key));
    };
    for mode in [0o644, 0o640, 0o604] {
        let path = write(&stack, "open.json", &good);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refused("open.json", "chmod 600");
    }
    std::os::unix::fs::symlink(
        write(&stack, "target.json", &good),
        stack.setup.directory().join("link.json"),
    )
    .unwrap();
    refused("link.json", "is not a regular file");
    let bound = json!({ "identity_uuid": "x", "bound_access_token": key, "bound_refresh_token": key });
    write(&stack, "bound.json", &bound.to_string());
    refused("bound.json", "old version of Ravi's command line");
    write(&stack, "old/auth.json", &json!({ "access_token": key, "refresh_token": key }).to_string());
    refused("old/config.json", "old version of Ravi's command line");
    write(&stack, "none.json", "{}");
    refused("none.json", "holds no keys");
    write(&stack, "half.json", &good[..good.len() - 2]);
    refused("half.json", "is not a file of Ravi's command line");
    refused("absent.json", "there is no file");
    assert!(stack.audited("admin.import").is_empty());
    assert!(!stack.admin().await.status().await.unwrap().management_key_held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_ravi_does_not_know_is_not_kept() {
    let stack = logged_out(true).await;
    let canary = "ravi_mgmt_canary5d1c8e7a";
    write(&stack, ".ravi/config.json", &json!({ "management_key": canary }).to_string());
    let (what, hint) = stack.run("login --import").failed(7);
    assert!(!what.contains("canary") && hint.contains("ravi-broker login"), "{what}\n{hint}");
    assert!(!stack.admin().await.status().await.unwrap().management_key_held);
    assert!(!stack.setup.directory().join("stored-key").exists());
    write(&stack, ".ravi/config.json", &json!({ "management_key": "not a key of that kind" }).to_string());
    let (what, hint) = stack.run("login --import").failed(1);
    assert!(what.contains("begins with ravi_mgmt_") && hint.contains("ravi-broker login"), "{what}\n{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_forgets_the_keys_and_an_unlock_brings_none_back() {
    let stack = Stack::with(|setup| setup.key_file = Some(setup.directory().join("stored-key"))).await;
    let (key, kept) = (stack.control().management_key().unwrap(), stack.setup.directory().join("stored-key"));
    let admin = stack.admin().await;
    let import = || ImportKeys { management_key: Some(Secret::copy_of(key.expose())), identity_key: None };
    assert!(admin.import_keys(import()).await.unwrap().persisted && kept.exists());
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    let said = stack.run("logout").good();
    assert!(said.contains("holds no key") && said.contains("The key file is removed"), "{said}");
    assert!(!kept.exists());
    let refused = |stack: &Stack| {
        let (what, _) = stack.run("get secret/OPENAI_API_KEY --role notes").failed(7);
        assert!(what.contains("holds no key"), "{what}");
    };
    refused(&stack);
    // The credential that systemd gave for this start is still in its place.
    assert!(stack.setup.credentials().join("management-key").exists());
    admin.lock("").await.unwrap();
    assert!(!admin.unlock().await.unwrap().management_key_held);
    refused(&stack);
    admin.import_keys(import()).await.unwrap();
    stack.run("get secret/OPENAI_API_KEY --role notes").good();
    assert_eq!(stack.audited("admin.logout").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_to_be_sealed_goes_into_a_pipe_of_the_state_directory_for_root_alone() {
    let (setup, sandbox) = Stack::prepared(|_| {}).await;
    let state = setup.directory().join("state");
    let daemon = Daemon::start_with(&setup, |command| {
        command.env("STATE_DIRECTORY", &state);
    })
    .await;
    let stack = Stack::of(daemon, setup, sandbox);
    let admin = stack.admin().await;
    let refused = |outcome: Result<(), ClientError>| {
        assert_eq!(outcome.unwrap_err().reason(), Some(ErrorReason::ArgumentInvalid));
    };
    // There is no pipe.
    refused(admin.seal_key().await);
    let pipe = state.join("sealing");
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Nobody reads.
    refused(admin.seal_key().await);
    let mut reader = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    let mut read = String::new();
    if nix::unistd::geteuid().is_root() {
        admin.seal_key().await.unwrap();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, stack.control().management_key().unwrap().expose());
        assert_eq!(stack.audited("admin.seal").len(), 3, "and none of them has the key");
        assert!(!fs::read_to_string(&stack.setup.audit_file).unwrap().contains(&read));
    } else {
        refused(admin.seal_key().await);
        assert_eq!(reader.read_to_string(&mut read).unwrap(), 0);
        assert!(stack.audited("admin.seal").is_empty());
    }
}
