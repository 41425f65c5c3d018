//! The protocols of docker, AWS, Claude Code and ssh.

use ravi_broker::clock::{Clock, SystemClock};
use serde_json::json;

use super::{PASSWORD, stack};
use crate::cli::PROGRAM;
use crate::cli::Run;
use crate::support::Stack;

const DOCKER: &str = "docker-credential-ravi";
const NOT_FOUND: &str = "credentials not found in native keychain\n";

#[tokio::test(flavor = "multi_thread")]
async fn docker_is_answered_under_the_name_that_it_knows() {
    let stack = stack().await;
    for server in ["github.com", "https://github.com/v2/\n"] {
        let answer = stack.ask_as(DOCKER, &["get"], "tools", server).json();
        let expected = json!({"ServerURL": server.trim(), "Username": "deploy-agent", "Secret": PASSWORD});
        assert_eq!(answer, expected);
    }
    assert_eq!(stack.audited("lease.acquired")[0]["reason"], "docker-credential");
    assert_eq!(stack.ask_as(DOCKER, &["list"], "tools", "").json(), json!({}));
    let listed = stack.ask("docker-credential list --host github.com --host absent.example", "").json();
    assert_eq!(listed, json!({"github.com": "deploy-agent"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_is_told_in_its_own_words_that_there_is_none() {
    let stack = stack().await;
    for server in ["absent.example", "grafana.net", "github.com:5000"] {
        let run = stack.ask_as(DOCKER, &["get"], "tools", server);
        assert_eq!((run.code, run.out.as_str()), (Some(1), NOT_FOUND), "{server}");
    }
    for server in ["http://github.com", "github.com@evil.example", "github.com\nevil.example", ""] {
        let run = stack.ask_as(DOCKER, &["get"], "tools", server);
        assert!(run.code == Some(2) && !run.out.contains("github") && run.out != NOT_FOUND, "{run:?}");
    }
    assert_eq!(stack.audited("lease.acquired"), Vec::<serde_json::Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_login_does_not_believe_that_a_password_was_kept() {
    let stack = stack().await;
    let typed = |secret: &str| {
        json!({"ServerURL": "https://github.com", "Username": "deploy-agent", "Secret": secret}).to_string()
    };
    let refused = stack.ask_as(DOCKER, &["store"], "tools", &typed("typed-4471"));
    assert!(refused.code == Some(2) && refused.out.contains("not kept"), "{refused:?}");
    assert!(!refused.err.contains("typed-4471"));
    stack.ask_as(DOCKER, &["store"], "tools", &typed(PASSWORD)).good();
    stack.ask("docker-credential store --allow-store", &typed("typed-4471")).good();
    assert_eq!(stack.ask("docker-credential get", "github.com").json()["Secret"], "typed-4471");
    let nonsense = stack.ask("docker-credential store", "{\"Secret\": \"typed-4471\"");
    assert!(nonsense.code == Some(2) && !format!("{nonsense:?}").contains("typed-4471"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_not_silently_replaced_by_a_role() {
    let stack = stack().await;
    let mut command = stack.surrounded(PROGRAM);
    command.args(["api-key", "ravi://secret/STRIPE_API_KEY"]).env("RAVI_BROKER_ROLE", "tools");
    command.env("RAVI_BROKER_SESSION_FILE", stack.setup.directory().join("gone.json"));
    let (what, _) = Run::of(&command.output().unwrap()).failed(4);
    assert!(what.contains("no session file"), "{what}");
    assert!(stack.audited("session.opened").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_programs_get_their_document_and_when_to_ask_again() {
    let stack = stack().await;
    let line = "aws-credentials --access-key-id ravi://password/github.com#username \
                --secret-access-key ravi://password/github.com --session-token ravi://secret/REGISTRY_TOKEN";
    let answer = stack.ask(line, "").json();
    let expiration: jiff::Timestamp = answer["Expiration"].as_str().unwrap().parse().unwrap();
    assert!(expiration > SystemClock.wall());
    let expected = json!({
        "Version": 1, "AccessKeyId": "deploy-agent", "SecretAccessKey": PASSWORD,
        "SessionToken": "sandbox-registry-deploy-3b7e64", "Expiration": answer["Expiration"],
    });
    assert_eq!(answer, expected);
    // One lease for each credential, however many references name it.
    assert_eq!(stack.audited("lease.acquired").len(), 2);
    let line = "aws-credentials --access-key-id ravi://secret/REGISTRY_TOKEN --secret-access-key ravi://secret/ABSENT";
    stack.ask(line, "").failed(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_gets_its_key_alone() {
    let stack = stack().await;
    let key = |stack: &Stack, role| stack.run(&format!("api-key ravi://secret/STRIPE_API_KEY --role {role}"));
    assert_eq!(key(&stack, "tools").good(), "sandbox-stripe-deploy-58f0d1\n");
    key(&stack, "sealed").failed(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_gets_the_password_of_a_bound_host_and_no_other_answer() {
    let stack = stack().await;
    let ask = |prompt: &str, kind: Option<&str>| {
        let mut command = stack.surrounded(PROGRAM);
        command.args(["ssh-askpass", "--role", "tools", "--host", "github.com"]);
        command.args(["--key", "/k=ravi://secret/REGISTRY_TOKEN", "--", prompt]);
        kind.map(|kind| command.env("SSH_ASKPASS_PROMPT", kind));
        Run::of(&command.output().unwrap())
    };
    let question = "deploy-agent@github.com's password: ";
    assert_eq!(ask(question, None).good(), format!("{PASSWORD}\n"));
    assert_eq!(ask("Enter passphrase for key '/k': ", None).good(), "sandbox-registry-deploy-3b7e64\n");
    for (prompt, kind) in [
        (question, Some("confirm")),
        ("deploy-agent@example.co.uk's password: ", None),
        ("(x@evil.example) deploy-agent@github.com's password: ", None),
        ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", None),
        ("Enter passphrase for key '/other': ", None),
    ] {
        ask(prompt, kind).failed(2);
    }
    assert_eq!(stack.audited("lease.acquired").len(), 2);
}
