//! Every call there is, with every way to fail, from generated clients. What comes back is a canary too.
//!
//! `rest::every_call_leaves_nothing_behind` fails until a new call is driven; those of the inbox are in `inbox`, those
//! that send in `sending`.

use futures_util::StreamExt;
use ravi_broker::pb::{self, revoke_request::Target};
use ravi_broker::sandbox::{Answer, Behaviour, Fault};
use ravi_broker::secret::Secret;
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use crate::canary::{Canary, Kind};
use crate::stage::Stage;
use crate::support::{DEPLOY, NOTES, bounded, until};
use crate::wire::{Calls, Wire};

/// The agents' connections, which stay open.
pub(crate) struct Driven {
    pub(crate) calls: Calls,
    pub(crate) notes: Wire,
    pub(crate) deploy: Wire,
    pub(crate) few: Wire,
    _watch: tonic::Streaming<pb::WatchLeasesResponse>,
    /// A write to Ravi that is never answered; it ends at the deadline of calls.
    unanswered: JoinHandle<bool>,
}

impl Driven {
    /// What agents can do and what can go wrong with it.
    pub(crate) async fn agents(stage: &mut Stage) -> Self {
        let calls = Calls::default();
        let notes = open(stage, &calls, "notes").await;
        let deploy = open(stage, &calls, "deploy").await;
        let few = open(stage, &calls, "few").await;
        let unanswered = unanswered(stage, &calls).await;
        let watch = notes.leases().watch_leases(notes.request(pb::WatchLeasesRequest {})).await;
        let _watch = watch.unwrap().into_inner();
        let driven = Self { calls, notes, deploy, few, _watch, unanswered };
        driven.leases(stage).await;
        driven.writes(stage).await;
        driven.passwords(stage).await;
        driven.sign_in(stage).await;
        driven.inbox(stage).await;
        driven.sending(stage).await;
        driven.rotations(stage).await;
        driven.refusals(stage).await;
        driven.faults(stage).await;
        driven.cancellations(stage).await;
        driven
    }

    /// Waits for the write that Ravi does not answer.
    pub(crate) async fn timed_out(&mut self) {
        assert!(!(&mut self.unanswered).await.unwrap(), "Ravi has answered after all");
    }

    async fn acquire(&self, wire: &Wire, resource: &str) -> Result<(String, Secret), Status> {
        let (resource, reason) = (resource.to_owned(), "residue".to_owned());
        let message = pb::AcquireLeaseRequest { resource, reason, ..Default::default() };
        let answer = wire.leases().acquire_lease(wire.request(message)).await?.into_inner();
        Ok((answer.lease.unwrap().lease_id, Secret::new(answer.credential.unwrap().value)))
    }

    async fn leases(&self, stage: &mut Stage) {
        let wire = &self.notes;
        let value = stage.plant_secret("CANARY");
        stage.plant_password(NOTES, "github.com", "notes-agent");
        stage.plant_password(NOTES, "example.com", "assistant-notes-agent@agents.sandbox.example");
        let (lease_id, read) = self.acquire(wire, "secret/CANARY").await.unwrap();
        assert!(read.expose() == value.expose(), "another value");
        for resource in
            ["password/example.com", "password/github.com/notes-agent", "identity/email", "identity/phone"]
        {
            self.acquire(wire, resource).await.unwrap();
        }
        let mut leases = wire.leases();
        let read = pb::ReadLeaseRequest { lease_id: lease_id.clone() };
        leases.read_lease(wire.request(read)).await.unwrap();
        let renew = pb::RenewLeaseRequest { lease_id: lease_id.clone(), ttl: None };
        leases.renew_lease(wire.request(renew)).await.unwrap();
        let listed = leases.list_leases(wire.request(pb::ListLeasesRequest {})).await.unwrap();
        assert_eq!(listed.into_inner().leases.len(), 5);
        leases.release_lease(wire.request(pb::ReleaseLeaseRequest { lease_id })).await.unwrap();
        let describe = pb::DescribeSessionRequest {};
        wire.sessions().describe_session(wire.request(describe)).await.unwrap();
        let renew = pb::RenewSessionRequest { ttl: None };
        wire.sessions().renew_session(wire.request(renew)).await.unwrap();
        let delegate = pb::DelegateSessionRequest::default();
        let child = wire.sessions().delegate_session(wire.request(delegate)).await.unwrap().into_inner();
        stage.saw(Kind::SessionToken, Secret::new(child.token).expose());
        let mut identities = wire.identities();
        identities.get_identity(wire.request(pb::GetIdentityRequest {})).await.unwrap();
    }

    async fn set(
        &self,
        wire: &Wire,
        key: &str,
        value: &Secret,
    ) -> Result<Response<pb::SetSecretResponse>, Status> {
        let (key, value, reason) = (key.to_owned(), value.expose().to_owned(), String::new());
        wire.vault().set_secret(wire.request(pb::SetSecretRequest { key, value, reason })).await
    }

    async fn writes(&self, stage: &mut Stage) {
        let wire = &self.notes;
        for _ in 0..2 {
            let value = stage.fresh(Kind::Written);
            self.set(wire, "WRITTEN", &value).await.unwrap();
        }
        self.acquire(wire, "secret/WRITTEN").await.unwrap();
        let long = long(stage);
        self.set(wire, "LONG", &long).await.unwrap();
        self.acquire(wire, "secret/LONG").await.unwrap();
        let list = pb::ListSecretsRequest::default();
        wire.vault().list_secrets(wire.request(list)).await.unwrap();
        let delete = pb::DeleteSecretRequest { key: "WRITTEN".to_owned(), reason: String::new() };
        wire.vault().delete_secret(wire.request(delete)).await.unwrap();
    }

    async fn passwords(&self, stage: &mut Stage) {
        let wire = &self.notes;
        let create = |domain: &str| pb::CreatePasswordRequest {
            domain: domain.to_owned(),
            username: "canary".to_owned(),
            length: 40,
            reason: String::new(),
        };
        let mut vault = wire.vault();
        vault.create_password(wire.request(create("canary.example"))).await.unwrap();
        let resource = "password/canary.example/canary".to_owned();
        let generated = self.acquire(wire, &resource).await.unwrap().1;
        stage.saw(Kind::Generated, generated.expose());
        let update = |password: &str, length| pb::UpdatePasswordRequest {
            resource: resource.clone(),
            password: password.to_owned(),
            length,
            reason: String::new(),
        };
        let written = stage.fresh(Kind::Written);
        vault.update_password(wire.request(update(written.expose(), 0))).await.unwrap();
        vault.update_password(wire.request(update("", 40))).await.unwrap();
        let generated = self.acquire(wire, &resource).await.unwrap().1;
        stage.saw(Kind::Generated, generated.expose());
        let list = pb::ListPasswordsRequest::default();
        vault.list_passwords(wire.request(list)).await.unwrap();
        let delete = pb::DeletePasswordRequest { resource, reason: String::new() };
        vault.delete_password(wire.request(delete)).await.unwrap();
    }

    async fn sign_in(&self, stage: &mut Stage) {
        let (_, token) = self.acquire(&self.deploy, "sso/token").await.unwrap();
        stage.saw(Kind::SignInToken, token.expose());
        let minted =
            stage.stack.control().identity_key(DEPLOY).expect("signing in takes a key of the identity");
        stage.saw(Kind::IdentityKey, minted.expose());
        self.acquire(&self.deploy, "secret/STRIPE_API_KEY").await.unwrap();
    }

    /// At Ravi the value becomes another; the broker finds out when its own is no longer fresh.
    async fn rotations(&self, stage: &mut Stage) {
        let value = stage.plant_secret("CANARY");
        until(async || {
            self.acquire(&self.notes, "secret/CANARY").await.unwrap().1.expose() == value.expose()
        })
        .await;
    }

    async fn refusals(&self, stage: &mut Stage) {
        for resource in ["secret/ABSENT", "password/absent.example", "secret/../CANARY", "nothing", ""] {
            self.acquire(&self.notes, resource).await.err().unwrap();
        }
        self.acquire(&self.few, "secret/STRIPE_API_KEY").await.err().unwrap();
        let value = stage.fresh(Kind::Written);
        self.set(&self.few, "FORBIDDEN", &value).await.unwrap_err();
        let value = stage.fresh(Kind::Written);
        self.set(&self.notes, "not a key", &value).await.unwrap_err();
        let too_long = Secret::new(stage.fresh(Kind::Written).expose().repeat(2000));
        self.set(&self.notes, "TOO_LONG", &too_long).await.unwrap_err();
        let (lease_id, ttl) = ("lea_mfrggzdfmztwq2lknnwg23tpoa".to_owned(), None);
        let (wire, mut leases) = (&self.notes, self.notes.leases());
        let read = pb::ReadLeaseRequest { lease_id: lease_id.clone() };
        leases.read_lease(wire.request(read)).await.unwrap_err();
        let renew = pb::RenewLeaseRequest { lease_id: lease_id.clone(), ttl };
        leases.renew_lease(wire.request(renew)).await.unwrap_err();
        leases.release_lease(wire.request(pb::ReleaseLeaseRequest { lease_id })).await.unwrap_err();
        // With a token that nobody issued, and with none.
        let stray = Canary::key(Kind::SessionToken);
        let socket = stage.stack.setup.agent_socket.clone();
        let stranger = Wire::connect(&socket, &self.calls).await.with_token(stray.value());
        stage.canaries.push(stray);
        let value = stage.fresh(Kind::Written);
        self.set(&stranger, "STRANGE", &value).await.unwrap_err();
        let nobody = Wire::connect(&socket, &self.calls).await;
        let value = stage.fresh(Kind::Written);
        self.set(&nobody, "NOBODY", &value).await.unwrap_err();
    }

    async fn faults(&self, stage: &mut Stage) {
        let control = stage.stack.control();
        let answers = [
            Answer::Html(502),
            Answer::Truncated,
            Answer::LegacyEncrypted,
            Answer::WrongIdentity,
            Answer::Oversized(2_000_000),
            Answer::Redirect("https://elsewhere.example/".to_owned()),
            Answer::Status(400),
            Answer::Reset,
        ];
        for (number, answer) in answers.into_iter().enumerate() {
            let key = format!("FAULTY_{number}");
            stage.plant_secret(&key);
            control.add_fault(Fault::new("/api/secrets/", answer.clone())).unwrap();
            self.acquire(&self.notes, &format!("secret/{key}")).await.err().unwrap();
            let value = stage.fresh(Kind::Written);
            let _ = self.set(&self.notes, "FAULTY", &value).await;
            control.clear_faults();
        }
        // More of a value than the broker takes.
        let long = Secret::new(stage.fresh(Kind::Secret).expose().repeat(50_000));
        control.set_secret(NOTES, "ENDLESS", long).unwrap();
        self.acquire(&self.notes, "secret/ENDLESS").await.err().unwrap();
        control.remove_secret(NOTES, "ENDLESS").unwrap();
    }

    /// Clients that go away, and clients whose own deadline comes, while Ravi is being asked.
    async fn cancellations(&self, stage: &mut Stage) {
        let control = stage.stack.control();
        stage.plant_secret("LEFT");
        control.add_fault(Fault::new("/api/secrets/", Answer::Held)).unwrap();
        let asked = control.requests("GET", "/api/secrets/");
        let message =
            |resource: &str| pb::AcquireLeaseRequest { resource: resource.to_owned(), ..Default::default() };
        let mut leases = self.notes.leases();
        let left = self.notes.request(message("secret/LEFT"));
        let left = tokio::spawn(async move { leases.acquire_lease(left).await.is_ok() });
        bounded(control.reached("GET", "/api/secrets/", asked + 1)).await;
        left.abort();
        assert!(left.await.is_err_and(|error| error.is_cancelled()), "the call had ended");
        let mut late = self.notes.request(message("secret/LATE"));
        late.set_timeout(std::time::Duration::from_millis(50));
        self.notes.leases().acquire_lease(late).await.unwrap_err();
        let mut late = self.notes.vault();
        let value = stage.fresh(Kind::Written).expose().to_owned();
        let set = pb::SetSecretRequest { key: "LATE".to_owned(), value, reason: String::new() };
        let mut set = self.notes.request(set);
        set.set_timeout(std::time::Duration::from_millis(50));
        late.set_secret(set).await.unwrap_err();
        control.clear_faults();
        control.release();
    }

    /// What the operator can do, up to the lock.
    pub(crate) async fn operator(&mut self, stage: &mut Stage) {
        let socket = stage.stack.setup.admin_socket.clone();
        let wire = Wire::connect(&socket, &self.calls).await;
        let mut admin = wire.admin();
        admin.get_status(pb::GetStatusRequest {}).await.unwrap();
        admin.get_metrics(pb::GetMetricsRequest {}).await.unwrap();
        let unknown = pb::ExplainRequest { denial_id: format!("den_{}", "a".repeat(26)) };
        admin.explain(unknown).await.unwrap_err();
        let sessions = admin.list_sessions(pb::ListSessionsRequest {}).await.unwrap().into_inner().sessions;
        let leases = admin
            .list_leases(pb::AdminServiceListLeasesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .leases;
        let mut tail =
            admin.tail_audit(pb::TailAuditRequest { lines: 100, follow: true }).await.unwrap().into_inner();
        tail.next().await.unwrap().unwrap();
        self.keys(stage, &wire).await;
        admin.list_dispatches(pb::ListDispatchesRequest::default()).await.unwrap();
        admin.list_approvals(pb::ListApprovalsRequest {}).await.unwrap();
        let watching = admin.watch_approvals(pb::WatchApprovalsRequest {}).await.unwrap();
        watching.into_inner().next().await.unwrap().unwrap();
        let deny = Some(pb::decide_approval_request::Decision::Deny(true));
        let unknown =
            pb::DecideApprovalRequest { approval_id: format!("apr_{}", "a".repeat(26)), decision: deny };
        admin.decide_approval(unknown).await.unwrap_err();
        let retry = pb::retry_dispatch_request::Target::AllDead(true);
        admin.retry_dispatch(pb::RetryDispatchRequest { target: Some(retry) }).await.unwrap();
        let unknown = pb::drop_dispatch_request::Target::DispatchId(format!("dsp_{}", "a".repeat(26)));
        admin.drop_dispatch(pb::DropDispatchRequest { target: Some(unknown) }).await.unwrap_err();
        self.operators_personas(stage, &wire).await;
        admin.reload(pb::ReloadRequest {}).await.unwrap();
        let revoke = |target| pb::RevokeRequest { target: Some(target), reason: "residue".to_owned() };
        admin.revoke(revoke(Target::LeaseId(leases[0].lease_id.clone()))).await.unwrap();
        let of_few = sessions.iter().find(|session| session.role == "few").unwrap();
        admin.revoke(revoke(Target::SessionId(of_few.session_id.clone()))).await.unwrap();
        admin.revoke(revoke(Target::Role("deploy".to_owned()))).await.unwrap();
        let close = self.notes.request(pb::CloseSessionRequest {});
        self.notes.sessions().close_session(close).await.unwrap();
        admin.revoke(revoke(Target::All(true))).await.unwrap();
        admin.lock(pb::LockRequest::default()).await.unwrap();
        admin.unlock(pb::UnlockRequest {}).await.unwrap();
        let again = open(stage, &self.calls, "notes").await;
        self.acquire(&again, "secret/CANARY").await.unwrap();
    }

    /// Keys that come in: by a login, and from the operator's hand, good ones and bad ones.
    async fn keys(&self, stage: &mut Stage, wire: &Wire) {
        let control = stage.stack.control();
        let mut admin = wire.admin();
        control.set_behaviour(Behaviour { device_interval: 1, ..control.behaviour() });
        let mut login = admin.login(pb::LoginRequest {}).await.unwrap().into_inner();
        login.next().await.unwrap().unwrap();
        assert_eq!(control.approve_login(None), 1);
        login.next().await.unwrap().unwrap();
        let import = |management: &str, identity: &str| pb::ImportKeysRequest {
            management_key: management.to_owned(),
            identity_key: identity.to_owned(),
            identity_uuid: if identity.is_empty() {
                String::new()
            } else {
                ravi_broker::sandbox::seed::NOTES_AGENT.uuid.to_string()
            },
        };
        let (unknown, formless) = (Canary::key(Kind::ManagementKey), Canary::fresh(Kind::Written));
        admin.import_keys(import(unknown.value(), "")).await.unwrap_err();
        admin.import_keys(import(formless.value(), "")).await.unwrap_err();
        stage.canaries.extend([unknown, formless]);
        let key = control.identity_key(NOTES).unwrap();
        admin.import_keys(import("", key.expose())).await.unwrap();
        stage.saw(Kind::IdentityKey, key.expose());
        let key = control.management_key().unwrap();
        stage.saw(Kind::ManagementKey, key.expose());
        admin.import_keys(import(key.expose(), "")).await.unwrap();
        // As it is handed over to be sealed, which takes a pipe, and forgotten.
        admin.seal_key(pb::SealKeyRequest {}).await.unwrap_err();
        admin.logout(pb::LogoutRequest {}).await.unwrap();
        admin.import_keys(import(key.expose(), "")).await.unwrap();
    }
}

pub(crate) async fn open(stage: &mut Stage, calls: &Calls, role: &str) -> Wire {
    let wire = Wire::connect(&stage.stack.setup.agent_socket, calls).await;
    let message = pb::OpenSessionRequest { role: role.to_owned(), ..Default::default() };
    let token = wire.sessions().open_session(message).await.unwrap().into_inner().token;
    stage.saw(Kind::SessionToken, &token);
    let stranger = pb::OpenSessionRequest { role: "nobody".to_owned(), ..Default::default() };
    wire.sessions().open_session(stranger).await.unwrap_err();
    wire.with_token(&token)
}

/// A value that takes several frames, with a canary at its end.
fn long(stage: &mut Stage) -> Secret {
    let canary = stage.fresh(Kind::Written);
    Secret::new(format!("{}{}", "-".repeat(40_000), canary.expose()))
}

/// Begins a write that Ravi never answers.
async fn unanswered(stage: &mut Stage, calls: &Calls) -> JoinHandle<bool> {
    let wire = open(stage, calls, "deploy").await;
    let value = stage.fresh(Kind::Written).expose().to_owned();
    let control = stage.stack.control();
    let fault = Fault::new("/api/secrets/", Answer::Hang).on("POST").times(1);
    control.add_fault(fault).unwrap();
    let before = control.requests("POST", "/api/secrets/");
    let set = pb::SetSecretRequest { key: "UNANSWERED".to_owned(), value, reason: String::new() };
    let set = wire.request(set);
    let hung = tokio::spawn(async move { wire.vault().set_secret(set).await.is_ok() });
    bounded(control.reached("POST", "/api/secrets/", before + 1)).await;
    hung
}
