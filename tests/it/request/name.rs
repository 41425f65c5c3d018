//! Hostile names: one canonical form or a refusal, and no call to Ravi. And a canary: where a value must
//! never be seen.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt;
use ravi_broker::client::{
    ClientError, CreatePassword, ErrorReason, OpenSession, RevokeTarget, UpdatePassword,
};
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;

use super::{reason, refusal};
use crate::support::{DEPLOY, Stack, bounded};

/// None of these is a resource; every one resembles one that is there.
const HOSTILE: [&str; 34] = [
    "",
    "/",
    "secret",
    "secret/",
    "secret//OPENAI_API_KEY",
    "/secret/OPENAI_API_KEY",
    "secret/OPENAI_API_KEY/",
    "secret/../secret/OPENAI_API_KEY",
    "secret/./OPENAI_API_KEY",
    "../secret/OPENAI_API_KEY",
    "Secret/OPENAI_API_KEY",
    "SECRET/OPENAI_API_KEY",
    "secret/OPENAI_API_KEY ",
    " secret/OPENAI_API_KEY",
    "secret/OPENAI_API_KEY\n",
    "secret/OPENAI_API_KEY\0",
    "secret/OPENAI_API_KEY\0.txt",
    "secret/OPENAI%5FAPI_KEY",
    "secret/OPENAI_API_KEY%00",
    "secret%2FOPENAI_API_KEY",
    "secret/OPENAI_API_KEY?identity=b3d857e0-94c1-4f62-8e07-d21a65f9c4b8",
    "secret/OPENAI_API_KEY&key=STRIPE_API_KEY",
    "secret/OPENAI_API_KEY#",
    "secret/OPENAI_*",
    "secret/\u{41e}PENAI_API_KEY",
    "secret/OPENAI_API_KEY\u{200b}",
    "secret/\u{202e}YEK_IPA_IANEPO",
    "secret/ＯＰＥＮＡＩ_API_KEY",
    "secret/OPENAI_API_\u{212a}EY",
    "password/github.com.",
    "password/https://github.com",
    "password/gith\u{443}b.com",
    "password/github.com/",
    "sso/token/../../identities",
];

/// I7: none of them costs a call; and what is refused is not said back.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_resource_name_is_refused_at_the_edge() {
    let stack = Stack::start().await;
    for role in ["notes", "deploy"] {
        let agent = stack.agent(role).await;
        for name in HOSTILE {
            let refused = refusal(agent.acquire(name, None, "").await);
            assert_eq!(refused.reason, ErrorReason::ResourceNameInvalid, "{name:?}");
            assert!(!refused.message.contains("OPENAI_"), "{name:?} is quoted");
        }
    }
    let agent = stack.agent("deploy").await;
    let long = format!("secret/{}", "A".repeat(60_000));
    assert_eq!(reason(agent.acquire(&long, None, "").await), ErrorReason::ResourceNameInvalid);
    assert_eq!(stack.control().total_requests(), 0);
    assert!(stack.audited("lease.acquired").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_another_case_is_the_one_resource() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    for (asked, canonical) in [
        ("secret/openai_api_key", "secret/OPENAI_API_KEY"),
        ("secret/OpenAI_Api_Key", "secret/OPENAI_API_KEY"),
        ("password/GitHub.COM/notes-agent", "password/github.com/notes-agent"),
    ] {
        let (lease, _) = agent.acquire(asked, None, "").await.unwrap();
        assert_eq!(lease.resource, canonical);
    }
    // One secret, one cached answer, whichever way it is written.
    assert_eq!(stack.control().requests("GET", "/api/secrets/"), 1);
    // Nor does another case lead around a scope.
    for forbidden in ["secret/stripe_api_key", "password/EXAMPLE.com"] {
        assert_eq!(reason(agent.acquire(forbidden, None, "").await), ErrorReason::ResourceNotAvailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_in_changes_and_purposes_are_refused_at_the_edge() {
    let stack = Stack::start().await;
    let agent = stack.agent("deploy").await;
    let value = Secret::copy_of("value");
    let invalid = ErrorReason::ResourceNameInvalid;
    for key in ["", "../A", "A\0", "A B", "1A", "_A", "A%41", "\u{410}", "secret/A", &"A".repeat(129)] {
        assert_eq!(reason(agent.set_secret(key, &value, "").await), invalid, "{key:?}");
        assert_eq!(reason(agent.delete_secret(key, "").await), invalid, "{key:?}");
    }
    let create = async |domain: &str, username: &str| {
        let (domain, username) = (domain.to_owned(), username.to_owned());
        agent.create_password(CreatePassword { domain, username, length: None, reason: String::new() }).await
    };
    for domain in ["", "a.b/../c", "https://a.b", "a.b:443", "a..b", "a%2eb", "a.b\0", "\u{430}.b", "-a.b"] {
        assert_eq!(reason(create(domain, "x").await), invalid, "{domain:?}");
    }
    for username in [" x", "x\n", "x\0", "x\u{202e}y", "\u{200b}", &"x".repeat(257)] {
        assert_eq!(reason(create("a.b", username).await), invalid, "{username:?}");
    }
    for resource in ["password/a.b/", "password/", "Password/a.b", "password/a.b/x\0"] {
        let (resource, reason_text) = (resource.to_owned(), String::new());
        let update = UpdatePassword { resource, password: None, length: None, reason: reason_text };
        assert_eq!(reason(agent.update_password(update).await), invalid);
    }
    let other_kind = agent.delete_password("secret/OPENAI_API_KEY", "").await;
    assert_eq!(reason(other_kind), ErrorReason::ArgumentInvalid);
    for purpose in ["a\nb", "a\u{1b}[2J", "a\u{202e}b", &"x".repeat(257)] {
        let refused = agent.acquire("secret/OPENAI_API_KEY", None, purpose).await;
        assert_eq!(reason(refused), ErrorReason::ArgumentInvalid, "{purpose:?}");
        let reason_text = purpose.to_owned();
        let open = OpenSession { reason: reason_text, ..OpenSession::role("notes") };
        assert_eq!(reason(stack.stranger().await.open_session(open).await), ErrorReason::ArgumentInvalid);
    }
    assert_eq!(stack.control().total_requests(), 0);
}

const CANARY: &str = "canary-c41e9a07";

fn canary(of: &str) -> Secret {
    Secret::new(format!("{CANARY}-{of}-\"\\\u{e9}-{}", "0123456789abcdef".repeat(40)))
}

/// I1, I6: what the daemon writes and says of a value is the value in its answer, and nothing else. Every
/// verb is called, and every way of failing that has a value in its hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_its_answer_and_nowhere_else() {
    let stack = Stack::start().await;
    let (control, admin) = (stack.control(), stack.admin().await);
    control.set_secret(DEPLOY, "OPENAI_API_KEY", canary("secret")).unwrap();
    control.set_password(DEPLOY, "grafana.net", "deploy-agent", canary("password")).unwrap();
    let (_, token) = stack.stranger().await.open_session(OpenSession::role("deploy")).await.unwrap();
    let agent = stack.holder(&token).await;
    let mut said = String::new();
    let mut note = |text: &dyn std::fmt::Debug| said.push_str(&format!("{text:?}\n"));

    let mut events = agent.watch_leases().await.unwrap();
    let (lease, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert_eq!(credential.value.expose(), canary("secret").expose());
    note(&lease);
    agent.acquire("password/grafana.net", None, "").await.unwrap();
    let (_, sign_in) = agent.acquire("sso/token", None, "").await.unwrap();
    note(&agent.list_secrets().await);
    note(&agent.list_passwords().await);
    note(&agent.set_secret("OPENAI_API_KEY", &canary("set"), "").await);
    note(&bounded(events.next()).await);
    let resource = "password/grafana.net".to_owned();
    let password = Some(canary("update"));
    let update = UpdatePassword { resource, password, length: None, reason: String::new() };
    note(&agent.update_password(update).await);
    note(&agent.set_secret("FRESH", &canary("created"), "").await);

    let wrong = |answer| Fault::new("/api/", answer).taking_effect();
    for (number, answer) in [
        Answer::Truncated,
        Answer::WrongIdentity,
        Answer::Html(200),
        Answer::Status(500),
        Answer::LegacyEncrypted,
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("COLD_{number}");
        control.set_secret(DEPLOY, &key, canary("cold")).unwrap();
        control.add_fault(wrong(answer)).unwrap();
        note(&agent.acquire(&format!("secret/{key}"), None, "").await.map(drop));
        note(&agent.set_secret(&key, &canary("failed"), "").await);
        control.clear_faults();
    }
    let told_too_much = |outcome: Result<_, ClientError>| refusal(outcome.map(|(name, _)| drop(name)));
    note(&told_too_much(agent.set_secret(canary("key").expose(), &canary("value"), "").await));
    note(&refusal(agent.acquire(&format!("secret/{CANARY}"), None, "").await));
    note(&refusal(agent.acquire("secret/OPENAI_API_KEY", None, &format!("{CANARY}\n")).await));
    let made_up = Secret::new(format!("rbt_{CANARY}-token"));
    note(&refusal(stack.holder(&made_up).await.describe_session().await));
    note(&admin.status().await);
    note(&admin.sessions().await);
    note(&admin.leases(None).await);
    note(&admin.revoke(RevokeTarget::Lease(lease.lease_id), "").await);
    agent.acquire("identity/email", Some(Duration::from_millis(1)), "").await.unwrap();
    note(&admin.reload().await);
    note(&admin.lock("").await);

    let process = format!("/proc/{}", stack.daemon.pid());
    let of_process = |name: &str| {
        fs::read(format!("{process}/{name}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let written = [
        ("an answer", said),
        ("the log", stack.daemon.log()),
        ("the trail", fs::read_to_string(&stack.setup.audit_file).unwrap()),
        ("the environment", of_process("environ").unwrap_or_default()),
        ("the command line", of_process("cmdline").unwrap()),
    ];
    let key = control.management_key().expect("the account has one");
    let id_key = control.identity_key(DEPLOY).expect("one was minted");
    assert!(written[1].1.contains("upstream"), "the log is a trace");
    for (place, text) in &written {
        for (what, secret) in [
            ("a value", CANARY),
            ("the session's token", token.expose()),
            ("the sign-in token", sign_in.value.expose()),
            ("the management key", key.expose()),
            ("the identity key", id_key.expose()),
            ("a bearer", "Bearer "),
        ] {
            // Not even how it goes on after the first characters.
            assert!(!text.contains(secret), "{what} is in {place}");
            assert!(secret.len() < 24 || !text.contains(&secret[8..24]), "a part of {what} is in {place}");
        }
    }
}
