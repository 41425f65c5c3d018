//! Where secrets are not: the process's environment and command line, its log at `trace`, the audit
//! trail, and every file that the daemon has written. Searched for as they are, in base64 and in hex.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use ravi_broker::client::{ClientError, CreatePassword, ErrorReason, OpenSession, UpdatePassword};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use crate::support::{DEPLOY, NOTES, Stack};

/// Forms in which a value could lie somewhere.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    let wide: Vec<u8> = bytes.iter().flat_map(|byte| [*byte, 0]).collect();
    let mut forms = vec![bytes.to_vec(), reversed, wide];
    forms.push(HEXLOWER.encode(bytes).into_bytes());
    forms.push(HEXUPPER.encode(bytes).into_bytes());
    // In base64 a text looks different at each of three offsets; its edges mix with its neighbours.
    for skipped in 0..3 {
        let padded = [&b"xx"[..skipped], bytes].concat();
        let whole = padded.len() / 3 * 3;
        let text = BASE64.encode(&padded[..whole]);
        let from = if skipped == 0 { 0 } else { 4 };
        forms.push(text.as_bytes()[from..].to_vec());
        forms.push(text[from..].replace('+', "-").replace('/', "_").into_bytes());
    }
    forms
}

fn found(haystack: &[u8], values: &[(&str, String)]) -> Option<String> {
    for (name, value) in values {
        for form in forms(value) {
            assert!(form.len() >= 12, "{name} is too short to be told from chance");
            if haystack.windows(form.len()).any(|window| window == form) {
                return Some((*name).to_owned());
            }
        }
    }
    None
}

/// Every file below, but those that the test itself has written secrets into.
fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() && path.file_name().unwrap() != "credentials" {
            files(&path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

fn assert_clean(stack: &Stack, values: &[(&str, String)]) {
    for name in ["environ", "cmdline"] {
        match fs::read(format!("/proc/{}/{name}", stack.daemon.pid())) {
            Ok(text) => assert_eq!(found(&text, values), None, "{name} of the process"),
            // Not dumpable: the owner may not look either.
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    }
    let mut all = Vec::new();
    files(stack.setup.directory(), &mut all);
    for expected in ["log", "audit.jsonl", "config.toml"] {
        assert!(all.iter().any(|path| path.ends_with(expected)), "{expected} was not searched");
    }
    for path in all {
        assert_eq!(found(&fs::read(&path).unwrap(), values), None, "{}", path.display());
    }
}

#[test]
fn the_search_finds_every_form() {
    let canary = [("canary", "canary-8f31d0c27e5b-value".to_owned())];
    for form in forms(&canary[0].1) {
        let hidden = [b"before".as_slice(), &form, b"after"].concat();
        assert_eq!(found(&hidden, &canary).as_deref(), Some("canary"));
    }
    for before in ["", "a", "ab", "abc"] {
        let text = BASE64.encode(format!("{before}{}{before}", canary[0].1).as_bytes());
        assert!(found(text.as_bytes(), &canary).is_some(), "{before}");
    }
    assert_eq!(found(b"nothing to see here", &canary), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_and_no_value_is_left_outside_the_memory_of_the_daemon() {
    let mut stack = Stack::start().await;
    let control = stack.control();
    let mut values = vec![("management key", control.management_key().unwrap().expose().to_owned())];
    let mut canary = |name: &'static str| {
        let value = format!("canary-of-{name}-41f8c05d9a");
        values.push((name, value.clone()));
        value
    };
    let secret = canary("secret");
    control.set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(&secret)).unwrap();
    let password = canary("password");
    control.set_password(DEPLOY, "github.com", "deploy-agent", Secret::copy_of(&password)).unwrap();
    let (set, updated) = (canary("set"), canary("updated"));
    let (notes, deploy) = (stack.agent("notes").await, stack.stranger().await);
    let (_, token) = deploy.open_session(OpenSession::role("deploy")).await.unwrap();
    let session_token = token.expose().to_owned();
    let deploy = deploy.with_token(token);

    // Served, set and changed.
    let (lease, credential) = notes.acquire("secret/OPENAI_API_KEY", None, "why").await.unwrap();
    assert_eq!(credential.value.expose(), secret);
    notes.read(lease.lease_id).await.unwrap();
    let (_, credential) = deploy.acquire("password/github.com", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), password);
    deploy.set_secret("CANARY_SET", &Secret::copy_of(&set), "").await.unwrap();
    let resource = "password/github.com/deploy-agent".to_owned();
    let new = Some(Secret::copy_of(&updated));
    let update = UpdatePassword { resource, password: new, length: None, reason: String::new() };
    deploy.update_password(update).await.unwrap();
    let (domain, username) = ("canary.example".to_owned(), "canary".to_owned());
    let create = CreatePassword { domain, username, length: Some(40), reason: String::new() };
    let created = deploy.create_password(create).await.unwrap();
    let (_, generated) = deploy.acquire(&created.resource, None, "").await.unwrap();
    let (_, sso) = deploy.acquire("sso/token", None, "").await.unwrap();
    let identity_key = control.identity_key(DEPLOY).unwrap();
    for (name, value) in [
        ("generated password", generated.value.expose()),
        ("sign-in token", sso.value.expose()),
        ("identity key", identity_key.expose()),
        ("session token", &session_token),
    ] {
        values.push((name, value.to_owned()));
    }

    // Refused and failed, in every way that might quote something.
    let planted = format!("secret/{}", "CANARY_OF_A_NAME");
    notes.acquire(&planted, None, "").await.err().unwrap();
    for (answer, expected) in [
        (Answer::Html(502), ErrorReason::UpstreamUnavailable),
        (Answer::Truncated, ErrorReason::UpstreamInvalid),
        (Answer::LegacyEncrypted, ErrorReason::UpstreamInvalid),
        (Answer::WrongIdentity, ErrorReason::UpstreamInvalid),
        (Answer::Oversized(2_000_000), ErrorReason::UpstreamInvalid),
    ] {
        control.add_fault(Fault::new("/api/secrets/", answer.clone())).unwrap();
        let failed = deploy.acquire("secret/STRIPE_API_KEY", None, "").await;
        let Err(ClientError::Broker(error)) = failed else { panic!("{answer:?} was accepted") };
        assert_eq!(error.reason, expected, "{answer:?}");
        control.clear_faults();
    }
    stack.stranger().await.with_token(Secret::copy_of(&session_token[1..])).list_leases().await.unwrap_err();
    stack.rewrite(|text| text.replace("version = 1", "version = 3"));
    stack.admin().await.reload().await.unwrap_err();
    stack.admin().await.lock("drill").await.unwrap();

    assert_clean(&stack, &values);
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    stack.daemon.notification("STOPPING=1").await;
    assert!(stack.daemon.ended().await.success());
    let mut all = Vec::new();
    files(stack.setup.directory(), &mut all);
    for path in all {
        assert_eq!(found(&fs::read(&path).unwrap(), &values), None, "{} at the end", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_daemon_can_be_dumped_or_traced() {
    let stack = Stack::start().await;
    let proc = format!("/proc/{}", stack.daemon.pid());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // A process that is not dumpable has its /proc entries owned by root.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(format!("{proc}/environ")).unwrap().uid(), 0);
}
