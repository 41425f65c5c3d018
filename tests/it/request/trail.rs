//! The audit trail of the request path: one record for each decision, there before the value is; and no
//! value without it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use futures_util::future;
use ravi_broker::audit::verify_path;
use ravi_broker::client::{
    AgentClient, ClientError, CreatePassword, DelegateSession, ErrorReason, OpenSession, RevokeTarget,
    UpdatePassword,
};

use ravi_broker::inbox::store::Store;
use ravi_broker::sandbox::{Answer, Fault};
use ravi_broker::secret::Secret;
use ravi_broker::types::LeaseId;

use super::{reason, refusal};
use crate::support::{Setup, Shell, Stack, bounded, until};

const KEY: &str = "secret/OPENAI_API_KEY";

/// Makes a call and returns what it left in the trail by the time of its answer: event, outcome, cause.
async fn left<T>(
    stack: &Stack,
    call: impl Future<Output = Result<T, ClientError>>,
) -> (Result<T, ClientError>, Vec<String>) {
    let before = stack.audit().len();
    let outcome = call.await;
    let word =
        |record: &serde_json::Value, field: &str| record[field].as_str().unwrap_or_default().to_owned();
    let line = |record: &serde_json::Value| {
        let words = ["event", "outcome", "cause"].map(|field| word(record, field));
        words.join(" ").trim_end().to_owned()
    };
    (outcome, stack.audit()[before..].iter().map(line).collect())
}

fn update(resource: &str) -> UpdatePassword {
    let resource = resource.to_owned();
    UpdatePassword { resource, password: None, length: None, reason: String::new() }
}

fn create(domain: &str) -> CreatePassword {
    CreatePassword { domain: domain.into(), username: "x".into(), length: None, reason: String::new() }
}

/// I9.
#[tokio::test(flavor = "multi_thread")]
async fn every_act_that_is_allowed_leaves_one_record_before_its_answer() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let stranger = stack.stranger().await;
    let value = Secret::copy_of("value");
    macro_rules! leaves {
        ($call:expr, $($record:literal),*) => {{
            let (outcome, records) = left(&stack, $call).await;
            assert_eq!(records, [$($record),*]);
            outcome.unwrap()
        }};
    }
    let (session, token) =
        leaves!(stranger.open_session(OpenSession::role("deploy")), "session.opened allowed");
    let agent = stack.holder(&token).await;
    let (lease, _) = leaves!(agent.acquire(KEY, None, ""), "lease.acquired allowed");
    leaves!(agent.read(lease.lease_id), "lease.read allowed");
    leaves!(agent.renew(lease.lease_id, None), "lease.renewed allowed");
    leaves!(agent.release(lease.lease_id), "lease.released allowed");
    leaves!(agent.list_secrets(), "vault.list allowed");
    leaves!(agent.list_passwords(), "vault.list allowed");
    leaves!(agent.set_secret("FRESH", &value, ""), "vault.set allowed");
    leaves!(agent.delete_secret("FRESH", ""), "vault.delete allowed");
    leaves!(agent.create_password(create("a.example")), "vault.create allowed");
    leaves!(agent.update_password(update("password/a.example")), "vault.update allowed");
    leaves!(agent.delete_password("password/a.example", ""), "vault.delete allowed");
    leaves!(agent.identity(), "identity.read allowed");
    leaves!(agent.acquire("sso/token", None, ""), "key.minted allowed", "lease.acquired allowed");
    leaves!(agent.close_session(), "session.closed allowed", "lease.revoked allowed session_ended");
    let (lease, _) = stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    leaves!(
        admin.revoke(RevokeTarget::Lease(lease.lease_id), ""),
        "admin.revoke allowed",
        "lease.revoked allowed operator"
    );
    leaves!(admin.reload(), "admin.reload allowed");
    let locked = leaves!(admin.lock(""), "session.revoked allowed locked", "admin.lock allowed");
    assert_eq!(locked.sessions, 1);
    leaves!(admin.unlock(), "admin.unlock allowed");
    // Who: the kernel's word, and the session it has led to.
    let opened = &stack.audited("session.opened")[0];
    assert_eq!(opened["session"], session.session_id.to_string());
    assert_eq!(opened["pid"], std::process::id());
    assert_eq!(opened["exe"], std::env::current_exe().unwrap().to_str().unwrap());
    assert!(verify_path(&stack.setup.audit_file).unwrap().is_whole());
}

/// A script that lets no file grow beyond so many KiB, which POSIX counts in blocks of 512 bytes. A write
/// that passes it then fails with `EFBIG` instead of ending the process.
/// What the inbox remembers is made before that.
fn little_room(setup: &mut Setup, kib: u32) {
    let state = setup.audit_file.parent().unwrap();
    DirBuilder::new().recursive(true).mode(0o700).create(state).unwrap();
    drop(Store::open(&state.join("inbox.db")).unwrap());
    setup.wrapper = Some(format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", kib * 2));
}

/// Fills what is left of the room with the shortest record there is.
async fn fill(stack: &Stack) {
    let admin = stack.admin().await;
    let full = bounded(async {
        loop {
            if let Err(error) = admin.reload().await {
                return refusal::<()>(Err(error));
            }
        }
    });
    assert_eq!(full.await.reason, ErrorReason::AuditUnavailable);
}

/// I9: the kill switch works on a full disk, and the door stays shut until its opening can be recorded.
#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_does_not_need_the_disk_and_its_undoing_does() {
    let stack = Stack::with(|setup| little_room(setup, 4)).await;
    let (agent, admin) = (stack.agent("notes").await, stack.admin().await);
    agent.acquire(KEY, None, "").await.unwrap();
    fill(&stack).await;
    assert_eq!(reason(admin.lock("leak").await), ErrorReason::AuditUnavailable);
    let status = admin.status().await.unwrap();
    assert!(status.locked && !status.management_key_held && status.sessions == 0);
    assert_eq!(reason(admin.unlock().await), ErrorReason::AuditUnavailable);
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::BrokerLocked);
    stack.daemon.make_room();
    admin.unlock().await.unwrap();
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
}

/// I9: a trail that somebody else writes to is not added to.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_trail_is_disturbed_no_value_leaves() {
    let stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    agent.acquire(KEY, None, "").await.unwrap();
    let mut trail = OpenOptions::new().append(true).open(&stack.setup.audit_file).unwrap();
    let whole = trail.metadata().unwrap().len();
    trail.write_all(b"{}\n").unwrap();
    assert_eq!(reason(agent.acquire(KEY, None, "").await), ErrorReason::AuditUnavailable);
    assert!(!stack.admin().await.status().await.unwrap().audit_head.healthy);
    trail.set_len(whole).unwrap();
    agent.acquire(KEY, None, "").await.unwrap();
    assert!(verify_path(&stack.setup.audit_file).unwrap().is_whole());
}

/// Some of everything: allowed, denied, failed, absent.
async fn busy(agent: &AgentClient, rounds: usize) {
    for round in 0..rounds {
        if let Ok((lease, _)) = agent.acquire(KEY, None, "busy").await {
            let _ = agent.read(lease.lease_id).await;
            let _ = agent.renew(lease.lease_id, None).await;
            let _ = agent.release(lease.lease_id).await;
        }
        let _ = agent.acquire("secret/STRIPE_API_KEY", Some(Duration::from_millis(1)), "").await;
        let _ = agent.acquire("secret/ABSENT", None, "").await;
        let _ = agent.read(LeaseId([round as u8; 16])).await;
        let _ = agent.list_secrets().await;
        let _ = agent.set_secret(&format!("KEY_{}", round % 3), &Secret::copy_of("value"), "").await;
    }
    let _ = agent.close_session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_busy_daemon_is_whole() {
    let stack = Stack::with(|setup| {
        setup.sections = format!("[audit]\nfile = {:?}\nmax_bytes = 65536\n", setup.audit_file);
    })
    .await;
    let admin = stack.admin().await;
    let mut agents = Vec::new();
    for role in ["notes", "deploy", "deploy", "deploy", "notes", "deploy"] {
        agents.push(stack.agent(role).await);
    }
    let operator = async {
        for _ in 0..10 {
            for lease in admin.leases(None).await.unwrap().iter().take(1) {
                let _ = admin.revoke(RevokeTarget::Lease(lease.lease_id), "busy").await;
            }
            admin.reload().await.unwrap();
            assert!(verify_path(&stack.setup.audit_file).unwrap().is_whole(), "while it is written");
        }
        admin.revoke(RevokeTarget::Role("notes".into()), "").await.unwrap();
    };
    future::join(future::join_all(agents.iter().map(|agent| busy(agent, 12))), operator).await;
    let report = verify_path(&stack.setup.audit_file).unwrap();
    assert!(report.is_whole() && report.first() == 1 && report.files.len() > 1, "{report}");
    let head = admin.status().await.unwrap().audit_head;
    assert_eq!((head.sequence, head.hash), (report.head.sequence, report.head.hash.to_string()));
    assert!(report.head.sequence > 400);
}

/// I10: the operator reads which rule refused, where the agent is told less.
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_leaves_one_record_with_its_rule() {
    let stack = Stack::with(|setup| {
        setup.sections.push_str("[limits]\nopen = \"11/h\"\n");
        setup.roles = setup.roles.replace("lease = { max_live = 2000 }", "lease = { max_live = 1 }");
        for (name, rest) in [
            ("foreign", "match = { uid = 4242 }\nscopes = [\"secret:read\"]"),
            ("slow", "match = { uid = UID }\nscopes = [\"secret:read\"]\nrate = { read = \"1/h\", send = \"1/h\" }"),
            ("single", "match = { uid = UID }\nscopes = [\"secret:read\"]\nsession = { max_live = 1 }"),
        ] {
            setup.roles.push_str(&format!("[role.{name}]\nidentity = \"deploy-agent\"\n{rest}\n"));
        }
    })
    .await;
    let stranger = stack.stranger().await;
    let value = Secret::copy_of("value");
    macro_rules! leaves {
        ($call:expr, $reason:ident, $record:literal) => {{
            let (outcome, records) = left(&stack, $call).await;
            assert_eq!((reason(outcome), records), (ErrorReason::$reason, vec![$record.to_owned()]));
        }};
    }
    let open = |role: &str| stranger.open_session(OpenSession::role(role));
    leaves!(open("absent"), RoleNotAvailable, "session.denied denied role_unknown");
    leaves!(open("foreign"), RoleNotAvailable, "session.denied denied role_mismatch");
    let wider = OpenSession { scopes: vec!["sso:mint".into()], ..OpenSession::role("notes") };
    leaves!(stranger.open_session(wider), ScopeNotGranted, "session.denied denied scope_not_granted");
    open("single").await.unwrap();
    leaves!(open("single"), CapacityReached, "session.denied denied capacity_reached");
    leaves!(stranger.acquire(KEY, None, ""), SessionRequired, "session.denied denied token_missing");
    let unknown = stack.holder(&value).await;
    leaves!(unknown.acquire(KEY, None, ""), SessionInvalid, "session.denied denied token_unknown");

    let notes = stack.agent("notes").await;
    leaves!(
        notes.acquire("secret/STRIPE_API_KEY", None, ""),
        ResourceNotAvailable,
        "lease.denied denied scope_missing"
    );
    leaves!(
        notes.acquire("secret/OPENAI_ABSENT", None, ""),
        ResourceNotAvailable,
        "lease.denied failed absent"
    );
    leaves!(notes.set_secret("A", &value, ""), ResourceNotAvailable, "vault.set denied scope_missing");
    leaves!(notes.delete_secret("A", ""), ResourceNotAvailable, "vault.delete denied scope_missing");
    leaves!(notes.create_password(create("a.b")), ResourceNotAvailable, "vault.create denied scope_missing");
    leaves!(
        notes.update_password(update("password/a.b")),
        ResourceNotAvailable,
        "vault.update denied scope_missing"
    );
    leaves!(
        notes.delete_password("password/a.b", ""),
        ResourceNotAvailable,
        "vault.delete denied scope_missing"
    );
    let scopes = vec!["secret:read:OPENAI_ORG_ID".to_owned()];
    let (_, narrow) = stack.opened(OpenSession { scopes, ..OpenSession::role("notes") }).await;
    leaves!(narrow.acquire(KEY, None, ""), ResourceNotAvailable, "lease.denied denied scope_not_granted");
    leaves!(narrow.list_secrets(), ResourceNotAvailable, "vault.list denied scope_not_granted");
    leaves!(narrow.identity(), ResourceNotAvailable, "identity.read denied scope_not_granted");

    let deploy = stack.agent("deploy").await;
    let (lease, _) = deploy.acquire(KEY, None, "").await.unwrap();
    leaves!(deploy.acquire(KEY, None, ""), CapacityReached, "lease.denied denied capacity_reached");
    leaves!(notes.read(lease.lease_id), LeaseNotAvailable, "request.denied denied lease_foreign");
    leaves!(notes.renew(lease.lease_id, None), LeaseNotAvailable, "request.denied denied lease_foreign");
    leaves!(notes.release(lease.lease_id), LeaseNotAvailable, "request.denied denied lease_foreign");
    leaves!(notes.read(LeaseId([7; 16])), LeaseNotAvailable, "request.denied denied lease_unknown");
    deploy.release(lease.lease_id).await.unwrap();
    leaves!(deploy.read(lease.lease_id), LeaseRevoked, "request.denied denied lease_over");
    leaves!(deploy.renew(lease.lease_id, None), LeaseRevoked, "request.denied denied lease_over");
    leaves!(deploy.release(lease.lease_id), LeaseRevoked, "request.denied denied lease_over");

    let slow = stack.agent("slow").await;
    slow.list_leases().await.unwrap();
    leaves!(slow.acquire(KEY, None, ""), RateLimited, "request.denied denied rate_limited");
    notes.close_session().await.unwrap();
    leaves!(notes.acquire(KEY, None, ""), SessionRevoked, "session.denied denied session_over");
    while stack.stranger().await.open_session(OpenSession::role("deploy")).await.is_ok() {}
    leaves!(open("deploy"), RateLimited, "session.denied denied rate_limited");

    stack.control().add_fault(Fault::new("/api/", Answer::Status(500))).unwrap();
    leaves!(
        deploy.acquire("secret/A", None, ""),
        UpstreamUnavailable,
        "lease.denied failed upstream_unavailable"
    );
    let trail = stack.audited("request.denied");
    let foreign = trail.iter().find(|record| record["cause"] == "lease_foreign").expect("it is there");
    assert_eq!((&foreign["role"], &foreign["target"]), (&"notes".into(), &lease.lease_id.to_string().into()));
}

/// I9, on a disk that is full: nothing is released or changed, access can still be ended, and with room
/// all goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_record_no_value_leaves() {
    let stack = Stack::with(|setup| little_room(setup, 8)).await;
    let (agent, other, admin) =
        (stack.agent("deploy").await, stack.agent("notes").await, stack.admin().await);
    let short = Duration::from_secs(60);
    let (lease, _) = agent.acquire(KEY, Some(short), "").await.unwrap();
    other.acquire(KEY, None, "").await.unwrap();
    fill(&stack).await;
    let writes = stack.control().total_requests();
    let refused = ErrorReason::AuditUnavailable;
    assert_eq!(reason(agent.acquire(KEY, None, "").await), refused);
    assert_eq!(reason(agent.read(lease.lease_id).await), refused);
    assert_eq!(reason(agent.renew(lease.lease_id, Some(10 * short)).await), refused);
    assert_eq!(reason(agent.list_secrets().await), refused);
    assert_eq!(reason(agent.set_secret("FRESH", &Secret::copy_of("value"), "").await), refused);
    assert_eq!(reason(agent.delete_secret("OPENAI_API_KEY", "").await), refused);
    assert_eq!(reason(stack.stranger().await.open_session(OpenSession::role("notes")).await), refused);
    assert_eq!(reason(agent.acquire("secret/ABSENT", None, "").await), ErrorReason::ResourceNotAvailable);
    let listed = agent.list_leases().await.unwrap();
    assert_eq!((listed.len(), listed[0].lease_id), (1, lease.lease_id), "a refused value leaves no lease");
    assert!(listed[0].expires_in <= short, "and a refused renewal moves nothing");
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.audit_head.healthy), (2, false));
    assert_eq!(stack.control().total_requests(), writes + 1, "the absent secret alone was looked for");

    // What takes access away does not wait for the disk; that it is not recorded is said.
    assert_eq!(reason(admin.revoke(RevokeTarget::Role("notes".into()), "").await), refused);
    assert_eq!(reason(other.describe_session().await), ErrorReason::SessionRevoked);
    assert_eq!(admin.status().await.unwrap().sessions, 1);

    stack.daemon.make_room();
    let (_, credential) = agent.read(lease.lease_id).await.unwrap();
    assert_eq!(credential.value.expose(), "sandbox-openai-deploy-e2a6c9");
    assert!(admin.status().await.unwrap().audit_head.healthy);
    let report = verify_path(&stack.setup.audit_file).unwrap();
    assert!(report.is_whole() && report.unfinished == 0, "{report}");
}

/// All records of the trail, those of files that were set aside included, oldest first.
fn records(stack: &Stack) -> Vec<serde_json::Value> {
    let report = verify_path(&stack.setup.audit_file).unwrap();
    assert!(report.is_whole() && report.first() == 1, "{report}");
    let text = report.files.iter().map(|file| fs::read_to_string(&file.path).unwrap());
    text.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The end of a session and of its leases is written in one go, over as many files as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_many_leases_is_recorded_whole_over_a_change_of_files() {
    const LEASES: usize = 300;
    let stack = Stack::with(|setup| {
        setup.sections = format!("[audit]\nfile = {:?}\nmax_bytes = 65536\n", setup.audit_file);
    })
    .await;
    let agent = stack.agent("deploy").await;
    for _ in 0..LEASES {
        agent.acquire(KEY, None, "").await.unwrap();
    }
    let files = verify_path(&stack.setup.audit_file).unwrap().files.len();
    assert_eq!(agent.close_session().await.unwrap(), u32::try_from(LEASES).unwrap());
    let after = verify_path(&stack.setup.audit_file).unwrap().files.len();
    assert!(after > files, "{files} files before, {after} after: nothing was changed in the middle");
    let records = records(&stack);
    let closed = records.iter().position(|record| record["event"] == "session.closed").expect("it is there");
    assert_eq!(records[closed]["ended_leases"], LEASES);
    let ended = records[closed + 1..].iter().filter(|record| record["event"] != "audit.rotated");
    let revoked: HashSet<_> = ended
        .inspect(|record| {
            assert_eq!(
                (&record["event"], &record["cause"]),
                (&"lease.revoked".into(), &"session_ended".into())
            )
        })
        .map(|record| record["lease"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(revoked.len(), LEASES, "each once");
    agent.close_session().await.unwrap_err();
    stack.agent("deploy").await.acquire(KEY, None, "").await.unwrap();
    assert!(verify_path(&stack.setup.audit_file).unwrap().is_whole());
}

/// What ends by itself ends on a full disk as well: by its process, by its time, and all below it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_sessions_ends_without_room_for_its_records() {
    let stack = Stack::with(|setup| little_room(setup, 16)).await;
    let admin = stack.admin().await;
    let mut shell = Shell::start(&stack);
    shell.succeed("ravi-broker session open --role notes --file ./session").await;
    shell.succeed("ravi-broker session delegate --session-file ./session --file ./child").await;
    for _ in 0..3 {
        shell.succeed("ravi-broker lease acquire secret/OPENAI_API_KEY --session-file ./child").await;
    }
    let root = stack.agent("deploy").await;
    let (_, token) = root.delegate_session(DelegateSession::default()).await.unwrap();
    let child = stack.holder(&token).await;
    let (lease, _) = child.acquire(KEY, None, "").await.unwrap();
    fill(&stack).await;
    let refused = root.renew_session(Some(Duration::from_secs(60))).await;
    assert_eq!(reason(refused), ErrorReason::AuditUnavailable);
    let left = root.describe_session().await.unwrap().session.expires_in;
    assert!(left > Duration::from_secs(3600), "a refused renewal moves nothing");
    let refused = root.delegate_session(DelegateSession::default()).await;
    assert_eq!(reason(refused), ErrorReason::AuditUnavailable);
    assert_eq!(admin.status().await.unwrap().sessions, 4, "a refused child is not there");

    shell.kill().await;
    until(async || admin.status().await.unwrap().sessions == 2).await;
    assert_eq!(admin.status().await.unwrap().leases, 1);
    assert_eq!(root.close_session().await.unwrap(), 1);
    assert_eq!(reason(child.read(lease.lease_id).await), ErrorReason::SessionRevoked);
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.leases, status.audit_head.healthy), (0, 0, false));
    stack.daemon.make_room();
    stack.agent("notes").await.acquire(KEY, None, "").await.unwrap();
    let report = verify_path(&stack.setup.audit_file).unwrap();
    assert!(report.is_whole() && report.unfinished == 0, "{report}");
}
