//! Races and bounds of the request path, on a stand-in for Ravi and a real audit file.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::clock::manual::ManualClock;
use crate::config::{self, Environment, Overrides, Source, Variable};
use crate::inbox::dispatch::Rules;
use crate::limit::UpstreamBudget;
use crate::secret::Secret;
use crate::session::{Anchor, Delegation, Opening};
use crate::types::{Delivery, DenialId, IdentityUuid};
use crate::upstream::stub::Stub;
use crate::upstream::{self, HttpUpstream, Identity, KeyId, UpstreamError};
use crate::vault::arena::Arena;
use crate::vault::keyring::Keyring;

const IDENTITY: u128 = 7;

/// A broker with one role, `agent`, that this process may assume.
struct Bench {
    broker: Arc<Broker>,
    ravi: Arc<Stub>,
    peer: Arc<Peer>,
    clock: ManualClock,
    /// Keeps the audit trail.
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let directory = tempfile::Builder::new().permissions(private()).tempdir().unwrap();
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let mut config = configuration(IDENTITY, SCOPES, more);
        // The mark of a lock lies beside it.
        config.audit.file = directory.path().join("audit.jsonl");
        let ravi = Stub::new();
        let arena = Arc::new(Arena::new(crate::config::MemoryTier::Locked).unwrap());
        let keyring = Arc::new(Keyring::new(arena.clone()));
        keyring.insert(KeyId::Management, &Secret::copy_of("ravi_mgmt_good"));
        let _ = ravi.keys.set(keyring.clone());
        let vault = Vault::new(ravi.clone(), arena.clone(), keyring, shared.clone(), config.vault.clone());
        // Nothing here gets as far as a message.
        let (to, budget) =
            (&config.upstream, UpstreamBudget::new(config.upstream.budget, config.upstream.budget, &shared));
        let to = upstream::Settings { base_url: to.base_url.clone(), ca_pem: None };
        let mailbox = HttpUpstream::new(to, vault.keyring().clone(), Arc::new(budget), shared.clone());
        let mailbox = Arc::new(mailbox.unwrap());
        let audit = AuditFile::open(&config.audit.file, 1 << 30, shared.clone()).unwrap();
        let store = Store::open(&directory.path().join("inbox.db")).unwrap();
        let (rules, queue) = (Rules::default(), store.clone());
        let dispatches = Dispatches::open(queue, arena.clone(), rules, shared.clone()).unwrap();
        let parts = Parts {
            policy: Policy::compile(&config).unwrap(),
            vault,
            arena: arena.clone(),
            upstream: ravi.clone(),
            mailbox,
            store,
            dispatches,
            keys: KeySource::default(),
            programs: OwnPrograms::default(),
            audit: Arc::new(audit),
            clock: shared,
        };
        let broker = Broker::new(&config, parts);
        Self { broker, ravi, peer: own_peer(), clock, _directory: directory }
    }

    fn open(&self) -> Opened {
        let role = "agent".parse().unwrap();
        let opened = self.broker.open_session(self.caller(None), &role, opening(&[]));
        // Nothing is hashed for this role, so there is nothing to wait for.
        let opened = opened.now_or_never().expect("it is done at once");
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    fn caller<'a>(&'a self, token: Option<&'a str>) -> Caller<'a> {
        Caller { peer: &self.peer, token, linked: None, denial: DenialId([7; 16]) }
    }

    fn admit(&self, opened: &Opened) -> Admitted {
        let caller = self.caller(Some(opened.token.expose()));
        self.broker.admit(caller, Class::Read).unwrap_or_else(|error| panic!("{error}"))
    }

    async fn acquire(&self, opened: &Opened, resource: &str) -> Result<Leased> {
        let resource = resource.parse().unwrap();
        self.broker.acquire(&self.admit(opened), resource, Delivery::Shown, None, None).await
    }

    fn reload(&self, identity: u128, scopes: &str, more: &str) -> usize {
        let policy = Policy::compile(&configuration(identity, scopes, more)).unwrap();
        self.broker.reload(policy).unwrap()
    }

    fn records(&self) -> u64 {
        self.broker.audit.head().0.sequence
    }
}

fn private() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

const SCOPES: &str = r#""secret:read", "secret:list", "secret:write", "sso:mint""#;

fn configuration(identity: u128, scopes: &str, more: &str) -> Config {
    let uid = nix::unistd::geteuid();
    let identity = uuid::Uuid::from_u128(identity);
    let text = format!(
        "version = 1\n[role.agent]\nidentity = \"{identity}\"\nmatch = {{ uid = {uid} }}\n\
         scopes = [{scopes}]\n{more}\n"
    );
    let home = [(Variable::Home, "/home/agent"), (Variable::XdgRuntimeDir, "/run/user/1")];
    let environment = Environment::of(uid.as_raw(), home);
    let source = Source::of("broker.toml", &text);
    config::read(&source, &environment, &Overrides::default()).unwrap().finish(Vec::new()).unwrap()
}

fn own_peer() -> Arc<Peer> {
    let (socket, _other) = UnixStream::pair().unwrap();
    let credentials = crate::sys::peer::credentials(&socket).unwrap();
    Arc::new(Peer::attest(&socket, credentials))
}

fn opening(scopes: &[&str]) -> Opening {
    let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    Opening { scopes, ttl: None, reason: None, anchor: Anchor::Caller }
}

fn value(leased: Result<Leased>) -> String {
    leased.unwrap_or_else(|error| panic!("{error}")).credential.value.expose().to_owned()
}

#[tokio::test]
async fn a_session_leases_a_value() {
    let bench = Bench::new();
    let opened = bench.open();
    assert_eq!(value(bench.acquire(&opened, "secret/KEY").await), "one");
}

#[tokio::test]
async fn values_beyond_the_memory_for_them_give_way_to_the_newest() {
    let bench = Bench::new();
    let opened = bench.open();
    *bench.ravi.value.lock().unwrap() = "x".repeat(1 << 20);
    for number in 0..20 {
        let leased = bench.acquire(&opened, &format!("secret/KEY_{number}")).await;
        assert!(leased.is_ok_and(|leased| leased.credential.value.len() == 1 << 20), "{number}");
    }
}

#[tokio::test]
async fn a_value_larger_than_all_the_memory_is_refused_and_drops_no_other() {
    let bench = Bench::new();
    let opened = bench.open();
    assert!(bench.acquire(&opened, "secret/SMALL").await.is_ok());
    *bench.ravi.value.lock().unwrap() = "x".repeat(8 << 20);
    let refused = bench.acquire(&opened, "secret/LARGE").await.err();
    assert_eq!(refused, Some(BrokerError::Capacity("memory for secrets")));
    let reads = bench.ravi.reads();
    assert!(bench.acquire(&opened, "secret/SMALL").await.is_ok());
    assert_eq!(bench.ravi.reads(), reads, "it was fetched again");
}

#[tokio::test]
async fn a_caller_without_a_session_cannot_fill_the_audit_trail() {
    let bench = Bench::new();
    let guess = || bench.broker.admit(bench.caller(Some("rbt_guess")), Class::Read);
    let before = bench.records();
    for _ in 0..1000 {
        assert!(guess().is_err());
    }
    let written = bench.records() - before;
    assert!((1..=60).contains(&written), "{written}");
    bench.clock.advance(Duration::from_secs(60));
    assert!(guess().is_err());
    let unrecorded = format!("\"unrecorded\":{}", 1000 - written);
    assert!(bench.broker.audit.tail(1)[0].contains(&unrecorded));
}

#[tokio::test]
async fn a_session_over_its_rate_cannot_fill_the_audit_trail() {
    let bench = Bench::with("rate = { read = \"1/h\" }");
    let opened = bench.open();
    let caller = bench.caller(Some(opened.token.expose()));
    let before = bench.records();
    for _ in 0..1000 {
        let _ = bench.broker.admit(caller, Class::Read);
    }
    assert!((1..=60).contains(&(bench.records() - before)));
}

#[tokio::test]
async fn an_agent_cannot_have_identity_keys_minted_without_end() {
    let bench = Bench::new();
    let opened = bench.open();
    *bench.ravi.accepts_identity_keys.lock().unwrap() = false;
    for _ in 0..10 {
        assert!(bench.acquire(&opened, "sso/token").await.is_err());
    }
    assert_eq!(bench.ravi.mints(), 2);
    bench.broker.vault.forget();
    *bench.ravi.accepts_identity_keys.lock().unwrap() = true;
    assert_eq!(value(bench.acquire(&opened, "sso/token").await), "rvt_token");
}

#[tokio::test]
async fn an_answer_of_the_account_before_a_login_is_not_kept() {
    let bench = Bench::new();
    let opened = bench.open();
    bench.ravi.hold_next();
    let early = bench.acquire(&opened, "secret/KEY");
    let login = async {
        bench.ravi.kept_back().await;
        *bench.ravi.value.lock().unwrap() = "of the new account".into();
        bench.broker.vault.forget();
        bench.ravi.let_go();
    };
    let (early, ()) = tokio::join!(early, login);
    assert_eq!(early.err(), Some(BrokerError::Upstream(UpstreamError::Unavailable)));
    assert_eq!(value(bench.acquire(&opened, "secret/KEY").await), "of the new account");
}

#[tokio::test]
async fn a_key_is_sealed_for_root_alone_and_not_for_our_own_user() {
    let bench = Bench::new();
    let refused = |uid| match bench.broker.seal_key(uid) {
        Err(BrokerError::Argument { field: "sealing", problem }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(1000), "a key is sealed for root alone");
    assert!(refused(0).contains("no private pipe"), "root is asked for the pipe");
}

#[tokio::test]
async fn a_session_that_a_reload_overtakes_while_it_opens_does_not_live() {
    let bench = Bench::new();
    let role = bench.broker.policy.load().assume(&"agent".parse().unwrap(), &bench.peer).unwrap();
    let nobody = configuration(IDENTITY, SCOPES, "").roles.into_iter().map(|mut role| {
        role.matchers[0].uid = Some(nix::unistd::geteuid().as_raw() + 1);
        role
    });
    let config = Config { roles: nobody.collect(), ..configuration(IDENTITY, SCOPES, "") };
    bench.broker.reload(Policy::compile(&config).unwrap()).unwrap();
    let (session, _) = bench.broker.sessions.open(&role, &bench.peer, opening(&[])).ok().unwrap();
    assert_eq!(bench.broker.establish(bench.caller(None), &session), Err(BrokerError::RoleNotAvailable));
    assert!(bench.broker.sessions.is_empty());
}

#[tokio::test]
async fn a_session_that_ends_while_it_opens_leaves_no_book_behind() {
    let bench = Bench::new();
    let role = bench.broker.policy.load().assume(&"agent".parse().unwrap(), &bench.peer).unwrap();
    let (session, _) = bench.broker.sessions.open(&role, &bench.peer, opening(&[])).ok().unwrap();
    bench.broker.revoke(&Revocation::All, None).unwrap();
    assert_eq!(bench.broker.establish(bench.caller(None), &session), Err(BrokerError::SessionRevoked));
    assert!(bench.broker.leases.watch(session.id).is_err());
}

#[tokio::test]
async fn only_one_key_is_tried_at_a_time() {
    let bench = Bench::new();
    let import = |key| bench.broker.import_keys(Some(Secret::copy_of(key)), None);
    bench.ravi.hold_next();
    let second = async {
        bench.ravi.kept_back().await;
        let second = import("ravi_mgmt_second").await;
        bench.ravi.let_go();
        second
    };
    let (first, second) = tokio::join!(import("ravi_mgmt_first"), second);
    assert_eq!(first, Err(BrokerError::Upstream(UpstreamError::KeyRejected)));
    assert_eq!(second, Err(BrokerError::Capacity("logins at once")));
    assert!(bench.broker.vault.keyring().holds(KeyId::Management));
}

#[test]
fn a_lock_and_an_unlock_at_once_leave_either_all_open_or_all_shut() {
    let bench = Bench::new();
    for _ in 0..1000 {
        bench.broker.lock(None).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| bench.broker.unlock().unwrap());
            scope.spawn(|| bench.broker.lock(None).unwrap());
        });
        let takes_keys = bench.broker.vault.keyring().insert(KeyId::Management, &Secret::copy_of("key"));
        assert_eq!(takes_keys, !bench.broker.gate.is_locked());
        bench.broker.unlock().unwrap();
    }
}

#[tokio::test]
async fn a_value_that_has_no_life_left_is_not_released() {
    let bench = Bench::new();
    let opened = bench.open();
    *bench.ravi.sso_ends_at.lock().unwrap() = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(bench.acquire(&opened, "sso/token").await.err(), Some(BrokerError::LeaseExpired));
}

#[tokio::test]
async fn a_lease_above_the_bound_costs_no_upstream_call_and_is_recorded() {
    let bench = Bench::with("lease = { max_live = 1 }");
    let opened = bench.open();
    assert_eq!(value(bench.acquire(&opened, "secret/A").await), "one");
    let denied = bench.acquire(&opened, "secret/B").await.err();
    assert_eq!(denied, Some(BrokerError::Capacity("lease.max_live")));
    assert_eq!(bench.ravi.reads(), 1);
    assert!(bench.broker.audit.tail(1)[0].contains("capacity_reached"));
}

#[tokio::test]
async fn a_session_does_not_live_on_under_another_identity() {
    let bench = Bench::new();
    let opened = bench.open();
    assert_eq!(bench.reload(IDENTITY + 1, SCOPES, ""), 1);
    let caller = bench.caller(Some(opened.token.expose()));
    assert_eq!(bench.broker.admit(caller, Class::Read).err(), Some(BrokerError::SessionRevoked));
}

#[tokio::test]
async fn an_answer_from_before_a_write_does_not_replace_what_was_written() {
    let bench = Bench::new();
    let opened = bench.open();
    bench.ravi.hold_next();
    let early = bench.acquire(&opened, "secret/KEY");
    let write = async {
        bench.ravi.kept_back().await;
        let (key, new) = ("KEY".parse().unwrap(), Secret::copy_of("two"));
        bench.broker.set_secret(&bench.admit(&opened), key, new, None).await.unwrap();
        bench.ravi.let_go();
    };
    let (early, ()) = tokio::join!(early, write);
    assert_eq!(value(early), "two", "it may have been joined after the change");
    assert_eq!(value(bench.acquire(&opened, "secret/KEY").await), "two");
}

#[tokio::test]
async fn a_narrowed_session_is_shown_only_what_the_role_still_grants() {
    let bench = Bench::new();
    let scopes = opening(&["secret:read:OPENAI_*", "secret:write"]);
    let role = "agent".parse().unwrap();
    let opened = bench.broker.open_session(bench.caller(None), &role, scopes).await.ok().unwrap();
    bench.reload(IDENTITY, r#""secret:read:OPENAI_API_*", "secret:list""#, "");
    let described = bench.broker.describe_session(&bench.admit(&opened)).unwrap();
    assert_eq!(described.scopes, ["secret:read:OPENAI_API_*"]);
}

#[tokio::test]
async fn a_renewal_keeps_to_the_maximum_of_today() {
    let bench = Bench::new();
    let opened = bench.open();
    let leased = bench.acquire(&opened, "secret/KEY").await.ok().unwrap();
    bench.reload(IDENTITY, SCOPES, "lease = { max_ttl = \"10m\" }");
    let hour = Some(Duration::from_secs(3600));
    let renewed = bench.broker.renew(&bench.admit(&opened), leased.lease.id, hour).unwrap();
    assert_eq!(renewed.terms.expires_at, renewed.terms.granted_at + Duration::from_secs(600));
}

#[tokio::test]
async fn a_login_that_waits_does_not_hold_up_the_end() {
    let bench = Bench::new();
    let (progress, mut events) = tokio::sync::mpsc::channel(4);
    let login = tokio::spawn(bench.broker.clone().login(progress));
    assert!(matches!(events.recv().await, Some(LoginEvent::Prompt { .. })));
    bench.broker.drain();
    let ended = tokio::time::timeout(Duration::from_secs(5), login).await;
    assert_eq!(ended.unwrap().unwrap(), Err(BrokerError::Draining));
}

#[tokio::test]
async fn identity_keys_of_another_account_do_not_outlive_a_login() {
    let bench = Bench::new();
    let keyring = bench.broker.vault.keyring();
    let [kept, foreign] = [1, 2].map(|number| IdentityUuid(uuid::Uuid::from_u128(number)));
    for identity in [kept, foreign] {
        keyring.insert(KeyId::Identity(identity), &Secret::copy_of("ravi_id_key"));
    }
    let listed = Identity { uuid: kept, name: "kept".into(), email: None, phone: None };
    bench.ravi.identities.lock().unwrap().push(listed);
    bench.broker.import_keys(Some(Secret::copy_of("ravi_mgmt_good")), None).await.unwrap();
    assert!(keyring.holds(KeyId::Identity(kept)) && !keyring.holds(KeyId::Identity(foreign)));
}

#[tokio::test]
async fn a_value_that_was_given_back_was_seen_all_the_same() {
    let bench = Bench::new();
    let opened = bench.open();
    let leased = bench.acquire(&opened, "secret/KEY").await.ok().unwrap();
    bench.broker.release(&bench.admit(&opened), leased.lease.id).unwrap();
    assert!(bench.broker.audit.tail(1)[0].contains("\"exposed\":true"));
    let revoked = bench.broker.revoke(&Revocation::Session(opened.described.id), None).unwrap();
    assert_eq!(revoked.exposed, ["secret/KEY".parse().unwrap()]);
}

#[tokio::test]
async fn the_answer_of_a_write_counts_only_for_the_key_that_was_written() {
    let bench = Bench::new();
    let opened = bench.open();
    assert_eq!(value(bench.acquire(&opened, "secret/KEY").await), "one");
    let (other, new) = ("OTHER".parse().unwrap(), Secret::copy_of("two"));
    // The stand-in answers every change as one of KEY.
    let set = bench.broker.set_secret(&bench.admit(&opened), other, new, None).await;
    assert_eq!(set, Err(BrokerError::Upstream(UpstreamError::OutcomeUnknown)));
    assert_eq!(value(bench.acquire(&opened, "secret/KEY").await), "one");
}

/// The order to stop may come between the end of a process and its record, and the runtime that would write it ends.
#[tokio::test]
async fn a_process_that_ends_before_the_end_of_the_daemon_is_recorded_all_the_same() {
    let bench = Bench::new();
    let parent = bench.open();
    let mut child = tokio::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let delegation = Delegation { scopes: Vec::new(), ttl: None, reason: None, pid: child.id() };
    bench
        .broker
        .delegate_session(&bench.admit(&parent), delegation)
        .unwrap_or_else(|error| panic!("{error}"));
    let before = bench.records();
    child.start_kill().unwrap();
    while bench.broker.sessions.len() == 2 {
        tokio::task::yield_now().await;
    }
    bench.broker.shut();
    // Of the child, and of the one that was still live.
    assert_eq!(bench.records(), before + 2);
}
