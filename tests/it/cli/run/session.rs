//! The session of the program: there while it runs, gone with it, and there again after the daemon was away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{KEY, Signal, fs, stack, text};
use crate::support::{Stack, bounded, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_program_has_a_session_that_ends_with_it() {
    let stack = stack().await;
    let script = r#"
        stat -c %a "$RAVI_BROKER_SESSION_FILE"; echo "$RAVI_BROKER_SESSION_FILE"; echo "$RAVI_BROKER_SOCKET"
        ravi-broker whoami --format json | grep -c ses_
        sh -c 'ravi-broker get secret/OPENAI_ORG_ID' > /dev/null"#;
    let out = stack.launch(&["--reason", "a test", "--ttl", "10m"], script).good();
    let [mode, path, socket, who] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert_eq!((mode, Path::new(socket), who), ("600", stack.setup.agent_socket.as_path(), "1"));
    assert!(path.ends_with(".json") && !Path::new(path).exists());
    assert_eq!(stack.audited("session.opened")[0]["reason"], "a test");
    assert_eq!(stack.audited("session.closed").len(), 1);
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scopes_of_the_program_can_be_fewer_than_the_roles() {
    let stack = stack().await;
    let script = "ravi-broker get secret/OPENAI_ORG_ID";
    stack.launch(&["--scopes", "secret:read:OPENAI_ORG_ID"], script).good();
    let run = stack.launch(&["--scope", "secret:read:OPENAI_API_KEY"], script);
    assert_eq!(run.code, Some(4), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_a_launcher_that_is_killed() {
    let stack = stack().await;
    let mut launched = stack.started(&[], "echo ready; exec cat > /dev/null");
    launched.hear();
    launched.signal(Signal::SIGKILL);
    launched.child.wait().unwrap();
    bounded(async { while stack.audited("session.revoked").is_empty() {} }).await;
    assert_eq!(stack.audited("session.revoked")[0]["cause"], "peer_exited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_restarts_is_survived_with_a_new_session() {
    let mut stack = stack().await;
    let file = format!("F={KEY}");
    let script = r#"
        trap 'ravi-broker get secret/OPENAI_ORG_ID > /dev/null && echo served' USR1
        trap 'exit 0' TERM
        cp "$RAVI_BROKER_SESSION_FILE" "$XDG_RUNTIME_DIR/before"
        echo "$RAVI_BROKER_SESSION_FILE"
        while :; do sleep 0.05; done"#;
    let mut launched = stack.started(&["--file", &file], script);
    let path = launched.hear();
    let before = fs::read(stack.setup.directory().join("before")).unwrap();
    stack.restart().await;
    until(async || fs::read(&path).unwrap_or_default() != before).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    launched.signal(Signal::SIGUSR1);
    assert_eq!(launched.hear(), "served");
    launched.signal(Signal::SIGTERM);
    let run = launched.ended();
    assert_eq!(run.code, Some(0), "{run:?}");
    let [away, back] = run.err.lines().collect::<Vec<_>>()[..] else { panic!("{}", run.err) };
    assert!(away.contains("went away") && back.contains("is back"), "{}", run.err);
    assert!(!Path::new(&path).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_operator_revokes_is_not_opened_again() {
    let stack = stack().await;
    let mut launched = stack.started(&[], "echo ready; trap 'exit 0' TERM; while :; do sleep 0.05; done");
    launched.hear();
    until(async || stack.admin().await.status().await.unwrap().sessions == 1).await;
    stack.run("revoke --role notes").good();
    let mut said = [0; 1];
    std::io::Read::read_exact(launched.child.stderr.as_mut().unwrap(), &mut said).unwrap();
    launched.signal(Signal::SIGTERM);
    let run = launched.ended();
    let err = text(&said).to_owned() + &run.err;
    assert!(err.contains("the session is over"), "{err}");
    assert_eq!((run.code, err.lines().count()), (Some(0), 1));
    assert_eq!(stack.audited("session.opened").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_renewed_while_the_program_runs() {
    let stack = stack().await;
    let script =
        "echo ready; trap 'ravi-broker whoami > /dev/null; exit 0' TERM; while :; do sleep 0.05; done";
    let mut launched = stack.started(&["--ttl", "2s"], script);
    launched.hear();
    // Each is a second after the one before it.
    until(async || stack.audited("session.renewed").len() >= 3).await;
    launched.signal(Signal::SIGTERM);
    let run = launched.ended();
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(stack.audited("session.opened").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_renewed_is_told_of_once_and_the_program_goes_on() {
    // The one request lets the launcher watch the session.
    let stack = Stack::with(|setup| setup.roles = setup.roles.replacen("6000/min", "1/h", 1)).await;
    let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let mut launched = stack.started(&["--ttl", "4s"], script);
    let mut errors = std::io::BufReader::new(launched.child.stderr.take().unwrap());
    let mut said = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
        line
    };
    let first = said();
    assert!(first.contains("was not renewed and ends in 2s"), "{first}");
    let second = said();
    assert!(second.contains("the session is over, the program goes on"), "{second}");
    launched.signal(Signal::SIGTERM);
    assert_eq!(launched.child.wait().unwrap().code(), Some(0));
    assert_eq!(stack.audited("session.opened").len(), 1);
}
