//! The sandbox against the contract sheet of Ravi's API, line by line, over real TLS with a client that
//! knows nothing of our own upstream client.

#![cfg(feature = "sandbox")]

mod attachments;
mod budgets;
mod contacts;
mod delivery;
mod events;
mod faults;
mod login;
mod program;
mod provisioning;
mod reading;
mod sending;
mod vault;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use ravi_broker::clock::{BootInstant, Clock, Sleep};
use ravi_broker::sandbox::seed::{DEPLOY_AGENT, NOTES_AGENT};
use ravi_broker::sandbox::{
    Absent, Answer, Behaviour, Control, Fault, ListShape, ListValues, MintStatus, MismatchStatus, NewMail,
    NewSms, Sandbox, SandboxConfig, SecretLookup, Seed, StartError, Visible, WithoutIdentity,
};
use ravi_broker::secret::Secret;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::watch;

use login::start_login;

const SECRETS: &str = "/api/secrets/";

// ---------------------------------------------------------------- the client

#[derive(Clone)]
struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

type Failed = Box<dyn Error + Send + Sync>;

impl Http {
    fn new(base: &str, ca_pem: Option<&str>) -> Self {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = ca_pem {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Self { client, base: base.to_owned() }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Got, Failed> {
        let answer = self.client.request(request).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        request.body(Full::new(body)).unwrap()
    }
}

/// A sandbox, a client and one key of the caller's choice.
struct Bench {
    sandbox: Sandbox,
    control: Control,
    http: Http,
    management: String,
    notes: String,
}

impl Bench {
    async fn start() -> Self {
        Self::with(SandboxConfig::default()).await
    }

    async fn with(config: SandboxConfig) -> Self {
        let sandbox = Sandbox::start(config).await.unwrap();
        let control = sandbox.control();
        let http = Http::new(sandbox.base_url(), sandbox.ca_pem());
        let management = control.management_key().unwrap().expose().to_owned();
        let notes = control.identity_key(NOTES_AGENT.name).unwrap().expose().to_owned();
        Self { sandbox, control, http, management, notes }
    }

    async fn call(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Got {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let key = Some(key).filter(|key| !key.is_empty());
        self.http.send(self.http.request(method, path, key, body)).await.unwrap()
    }

    /// With the identity key of the notes agent.
    async fn get(&self, path: &str) -> Got {
        self.call("GET", path, &self.notes, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Got {
        self.call("POST", path, &self.notes, Some(body)).await
    }

    async fn managed(&self, method: &str, path: &str, body: Option<Value>) -> Got {
        self.call(method, path, &self.management, body).await
    }

    async fn anonymous(&self, path: &str, body: Value) -> Got {
        self.call("POST", path, "", Some(body)).await
    }

    fn switch(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.control.behaviour();
        change(&mut behaviour);
        self.control.set_behaviour(behaviour);
    }

    fn fault(&self, fault: Fault) {
        self.control.add_fault(fault).unwrap();
    }
}

/// Stands still until moved.
#[derive(Clone)]
struct StillClock(Arc<watch::Sender<BootInstant>>);

impl StillClock {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BootInstant::from_nanos(1_800_000_000_000_000_000))))
    }

    fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = *now + by);
    }
}

impl Clock for StillClock {
    fn now(&self) -> BootInstant {
        *self.0.borrow()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_nanos(self.now().as_nanos())
    }

    fn sleep_until(&self, deadline: BootInstant) -> Sleep {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let _ = now.wait_for(|now| *now >= deadline).await;
        })
    }
}

fn with_clock(clock: &StillClock) -> SandboxConfig {
    SandboxConfig { clock: Arc::new(clock.clone()), ..SandboxConfig::default() }
}

fn keys_of(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn texts<'a>(rows: &'a Value, field: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[field].as_str().unwrap()).collect()
}

fn as_notes(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}identity={}", NOTES_AGENT.uuid)
}

// ---------------------------------------------------------------- keys, 2.1 and 2.2

#[tokio::test]
async fn a_missing_or_wrong_key_gets_401_before_anything_else() {
    let bench = Bench::start().await;
    for key in ["", "ravi_mgmt_wrong", "ravi_id_", &bench.management[..20]] {
        for (method, path) in [("GET", "/api/secrets/"), ("POST", "/api/secrets/"), ("DELETE", "/api/phone/")]
        {
            let got = bench.call(method, path, key, None).await;
            assert_eq!(
                (got.status, got.detail().as_str()),
                (401, "Authentication credentials were not provided.")
            );
            assert!(got.headers.contains_key(WWW_AUTHENTICATE));
        }
    }
    assert!(bench.management.starts_with("ravi_mgmt_") && bench.notes.starts_with("ravi_id_"));
}

#[tokio::test]
async fn keys_differ_at_every_start_unless_given() {
    let (one, two) = (Bench::start().await, Bench::start().await);
    assert_ne!(one.management, two.management);
    assert_ne!(one.notes, two.notes);
    let seed = Seed { management_key: Some(Secret::copy_of("ravi_mgmt_given")), ..Seed::default() };
    let given = Bench::with(SandboxConfig { seed, ..SandboxConfig::default() }).await;
    assert_eq!(given.management, "ravi_mgmt_given");
    let seed = Seed { management_key: Some(Secret::copy_of("ravi_id_swapped")), ..Seed::default() };
    let refused = Sandbox::start(SandboxConfig { seed, ..SandboxConfig::default() }).await;
    assert!(matches!(refused.err(), Some(StartError::WrongKeyForm)));
}

#[tokio::test]
async fn an_identity_key_is_minted_with_the_management_key() {
    let bench = Bench::start().await;
    let path = "/api/auth/keys/identity/";
    let body = json!({ "identity_uuid": DEPLOY_AGENT.uuid.to_string(), "label": "cli" });
    let got = bench.managed("POST", path, Some(body.clone())).await;
    assert_eq!(got.status, 201);
    let minted = got.json();
    assert_eq!(keys_of(&minted), ["identity_uuid", "key", "label"]);
    assert_eq!((&minted["identity_uuid"], &minted["label"]), (&body["identity_uuid"], &body["label"]));
    let key = minted["key"].as_str().unwrap();
    assert!(key.starts_with("ravi_id_"));
    let rows = bench.call("GET", "/api/email/", key, None).await.json();
    assert_eq!(texts(&rows, "email"), [DEPLOY_AGENT.email]);

    let unknown = json!({ "identity_uuid": "00000000-0000-0000-0000-000000000000", "label": "cli" });
    let got = bench.managed("POST", path, Some(unknown)).await;
    assert_eq!((got.status, got.detail().as_str()), (400, "Identity not found"));
    assert_eq!(bench.post(path, body.clone()).await.status, 403);
    let superseded =
        bench.managed("POST", path, Some(json!({ "identity": NOTES_AGENT.uuid.to_string() }))).await;
    assert_eq!(
        (superseded.status, &superseded.json()["identity_uuid"]),
        (400, &json!(["This field is required."]))
    );
    bench.switch(|behaviour| behaviour.mint_status = MintStatus::Ok);
    assert_eq!(bench.managed("POST", path, Some(body)).await.status, 200);
    let listed = bench.get(path).await.json();
    assert_eq!(keys_of(&listed[0]), ["created_dt", "identity_uuid", "label"]);
    assert_eq!(texts(&listed, "identity_uuid"), [NOTES_AGENT.uuid.to_string()]);
}

#[tokio::test]
async fn a_revoked_key_is_no_key() {
    let bench = Bench::start().await;
    bench.control.revoke_identity_keys(NOTES_AGENT.name).unwrap();
    assert_eq!(bench.get("/api/secrets/").await.status, 401);
    assert_eq!(bench.managed("GET", "/api/identities/", None).await.status, 200);
    bench.control.revoke_management_key();
    assert_eq!(bench.managed("GET", "/api/identities/", None).await.status, 401);
    assert!(bench.control.management_key().is_none());
}

#[tokio::test]
async fn an_identity_key_cannot_name_another_identity() {
    let bench = Bench::start().await;
    let foreign = format!("/api/secrets/?identity={}", DEPLOY_AGENT.uuid);
    assert_eq!(bench.get(&as_notes("/api/secrets/")).await.status, 200);
    for (switch, status) in
        [(MismatchStatus::Forbidden, 403), (MismatchStatus::BadRequest, 400), (MismatchStatus::NotFound, 404)]
    {
        bench.switch(|behaviour| behaviour.mismatch_status = switch);
        assert_eq!(bench.get(&foreign).await.status, status);
        assert_eq!(bench.managed("GET", "/api/secrets/?identity=nobody", None).await.status, status);
    }
}

#[tokio::test]
async fn a_management_key_without_identity_sees_the_whole_account() {
    let bench = Bench::start().await;
    let phones = bench.managed("GET", "/api/phone/", None).await.json();
    assert_eq!(texts(&phones, "phone_number"), [DEPLOY_AGENT.phone, NOTES_AGENT.phone]);
    let emails = bench.managed("GET", "/api/email/", None).await.json();
    assert_eq!(texts(&emails, "email"), [DEPLOY_AGENT.email, NOTES_AGENT.email]);
    for path in ["/api/secrets/", "/api/passwords/"] {
        let rows = bench.managed("GET", path, None).await.json();
        let owners: Vec<i64> =
            rows.as_array().unwrap().iter().map(|row| row["identity"].as_i64().unwrap()).collect();
        assert!(owners.contains(&NOTES_AGENT.id) && owners.contains(&DEPLOY_AGENT.id));
        let fenced = bench.managed("GET", &as_notes(path), None).await.json();
        assert!(fenced.as_array().unwrap().iter().all(|row| row["identity"] == NOTES_AGENT.id));
        assert_eq!(fenced, bench.get(path).await.json());
    }
    bench.switch(|behaviour| behaviour.without_identity = WithoutIdentity::Refused);
    assert_eq!(bench.managed("GET", "/api/phone/", None).await.status, 400);
}

#[tokio::test]
async fn a_write_with_the_management_key_must_name_the_identity() {
    let bench = Bench::start().await;
    for (path, body) in [
        ("/api/secrets/", json!({ "key": "A", "value": "b" })),
        ("/api/passwords/", json!({ "domain": "example.org" })),
    ] {
        let got = bench.managed("POST", path, Some(body.clone())).await;
        assert_eq!((got.status, got.detail().as_str()), (400, "Identity is required."));
        let got = bench.managed("POST", &as_notes(path), Some(body)).await;
        assert_eq!((got.status, &got.json()["identity"]), (201, &json!(NOTES_AGENT.id)));
        let uuid = got.json()["uuid"].as_str().unwrap().to_owned();
        assert_eq!(bench.managed("DELETE", &format!("{path}{uuid}/"), None).await.status, 400);
        assert_eq!(bench.managed("DELETE", &as_notes(&format!("{path}{uuid}/")), None).await.status, 204);
    }
}

// ---------------------------------------------------------------- identities and account, 3.1 and 3.2

#[tokio::test]
async fn identities_are_listed_and_read() {
    let bench = Bench::start().await;
    let rows = bench.managed("GET", "/api/identities/", None).await.json();
    assert_eq!(texts(&rows, "uuid"), [NOTES_AGENT.uuid.to_string(), DEPLOY_AGENT.uuid.to_string()]);
    assert_eq!(keys_of(&rows[0]), ["created_dt", "inbox", "name", "phone", "updated_dt", "uuid"]);
    assert_eq!(
        (&rows[0]["inbox"], &rows[0]["phone"]),
        (&json!(NOTES_AGENT.email), &json!(NOTES_AGENT.phone))
    );
    let created = rows[0]["created_dt"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.parse::<Timestamp>().is_ok());

    let own = format!("/api/identities/{}/", NOTES_AGENT.uuid);
    let other = format!("/api/identities/{}/", DEPLOY_AGENT.uuid);
    assert_eq!(bench.managed("GET", &own, None).await.json(), rows[0]);
    assert_eq!(texts(&bench.get("/api/identities/").await.json(), "name"), [NOTES_AGENT.name]);
    assert_eq!((bench.get(&own).await.status, bench.get(&other).await.status), (200, 404));
    bench.switch(|behaviour| behaviour.identities_visible = Visible::All);
    assert_eq!(bench.get("/api/identities/").await.json().as_array().unwrap().len(), 2);
    assert_eq!(bench.get(&other).await.status, 200);
    for method in ["PUT", "PATCH", "DELETE"] {
        let got = bench.managed(method, &own, None).await;
        assert_eq!(got.status, 405);
        assert!(got.headers.contains_key(ALLOW));
    }
}

#[tokio::test]
async fn a_new_identity_comes_with_its_key_once() {
    let bench = Bench::start().await;
    let got = bench.managed("POST", "/api/identities/", Some(json!({}))).await;
    assert_eq!(got.status, 201);
    let made = got.json();
    assert_eq!(keys_of(&made), ["api_key", "created_dt", "inbox", "name", "phone", "updated_dt", "uuid"]);
    assert_eq!(made["phone"], Value::Null);
    let key = made["api_key"].as_str().unwrap();
    let own = bench.call("GET", "/api/identities/", key, None).await.json();
    assert_eq!(texts(&own, "uuid"), [made["uuid"].as_str().unwrap()]);
    assert!(own[0].get("api_key").is_none());
    assert_eq!(bench.call("GET", "/api/phone/", key, None).await.json(), json!([]));
    bench.switch(|behaviour| behaviour.absent = Absent::Empty);
    assert_eq!(bench.call("GET", "/api/identities/", key, None).await.json()[0]["phone"], json!(""));
}

#[tokio::test]
async fn an_identity_is_created_with_either_form_of_address() {
    let bench = Bench::start().await;
    let path = "/api/identities/";
    let newest = json!({ "name": "Ops", "email_identifier": "ops.one", "provision_phone": true, "uuid": "" });
    let got = bench.managed("POST", path, Some(newest)).await.json();
    assert_eq!((&got["name"], &got["inbox"]), (&json!("Ops"), &json!("ops.one@agents.sandbox.example")));
    assert!(got["phone"].as_str().unwrap().starts_with("+1202555"));
    for email in ["ops-two", "ops-three@agents.sandbox.example"] {
        assert_eq!(bench.managed("POST", path, Some(json!({ "email": email }))).await.status, 201);
    }
    let got = bench.managed("POST", path, Some(json!({ "email": "ops-two" }))).await;
    assert_eq!(got.status, 409);
    for bad in [
        json!({ "domain": "agents.sandbox.example" }),
        json!({ "email_identifier": "a..b" }),
        json!({ "name": 7 }),
    ] {
        assert_eq!(bench.managed("POST", path, Some(bad)).await.status, 400);
    }
    assert_eq!(bench.post(path, json!({})).await.status, 403);
    bench.switch(|behaviour| behaviour.paid_plan = false);
    let got = bench.managed("POST", path, Some(json!({}))).await;
    assert_eq!((got.status, got.detail().as_str()), (402, "A paid plan is required."));
}

#[tokio::test]
async fn a_phone_is_provisioned_once() {
    let bench = Bench::start().await;
    let made = bench.managed("POST", "/api/identities/", Some(json!({}))).await.json();
    let path = format!("/api/identities/{}/provision-phone/", made["uuid"].as_str().unwrap());
    assert_eq!(bench.managed("POST", &path, Some(json!({ "country_code": "XX" }))).await.status, 400);
    let got = bench.managed("POST", &path, Some(json!({ "country_code": "US" }))).await;
    assert_eq!((got.status, got.json()["phone"].is_string()), (201, true));
    let got = bench.managed("POST", &path, None).await;
    assert_eq!((got.status, got.detail().as_str()), (409, "This identity already has a phone number."));
    assert_eq!(bench.post(&path, json!({})).await.status, 403);
}

#[tokio::test]
async fn phone_mail_owner_and_domains_have_the_documented_fields() {
    let bench = Bench::start().await;
    let phones = bench.get("/api/phone/").await.json();
    assert_eq!(keys_of(&phones[0]), ["created_dt", "id", "phone_number", "provider"]);
    assert_eq!((&phones[0]["id"], &phones[0]["provider"]), (&json!(NOTES_AGENT.phone_id), &json!("twilio")));
    let emails = bench.get("/api/email/").await.json();
    assert_eq!(keys_of(&emails[0]), ["created_dt", "email", "id"]);
    assert_eq!(emails[0]["id"], json!(NOTES_AGENT.inbox_id));
    assert_eq!(keys_of(&bench.get("/api/master/").await.json()), ["first_name", "last_name"]);
    let domains = bench.managed("GET", "/api/domains/", None).await.json();
    assert_eq!(keys_of(&domains[0]), ["created_dt", "domain", "is_platform", "is_verified", "uuid"]);
    assert_eq!(bench.get("/api/domains/").await.status, 403);
}

// ---------------------------------------------------------------- sign-in tokens, 3.11

#[tokio::test]
async fn a_sign_in_token_is_reusable_for_five_minutes() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let got = bench.call("POST", "/api/sso/token/", &bench.notes, None).await;
    assert_eq!((got.status, keys_of(&got.json())), (201, vec!["expires_at", "token"]));
    let minted = got.json();
    let token = minted["token"].as_str().unwrap();
    assert!(token.starts_with("rvt_") && token.split('.').count() == 3);
    let expires: Timestamp = minted["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires.duration_since(clock.wall()).as_secs(), 300);
    clock.advance(Duration::from_secs(299));
    for _ in 0..2 {
        let got = bench.anonymous("/api/sso/verify/", json!({ "token": token })).await;
        assert_eq!(got.status, 200);
        assert_eq!(
            keys_of(&got.json()),
            ["created_at", "identity_email", "identity_name", "identity_phone", "identity_uuid", "owner"]
        );
        assert_eq!(got.json()["identity_uuid"], json!(NOTES_AGENT.uuid.to_string()));
        assert_eq!(keys_of(&got.json()["owner"]), ["email", "name"]);
    }
    let forged = format!("{}A", &token[..token.len() - 2]);
    clock.advance(Duration::from_secs(1));
    for bad in [token, &forged, "rvt_", "x"] {
        let got = bench.anonymous("/api/sso/verify/", json!({ "token": bad })).await;
        assert_eq!((got.status, keys_of(&got.json())), (400, vec!["detail"]));
    }
}

#[tokio::test]
async fn a_forged_sign_in_token_is_refused_while_the_real_one_is_good() {
    let bench = Bench::start().await;
    let minted = bench.call("POST", "/api/sso/token/", &bench.notes, None).await.json();
    let token = minted["token"].as_str().unwrap();
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let mut claims: Value =
        serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    claims["identity_uuid"] = json!(DEPLOY_AGENT.uuid.to_string());
    let forged = format!("{head}.{}.{signature}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    assert_eq!(bench.anonymous("/api/sso/verify/", json!({ "token": forged })).await.status, 400);
    assert_eq!(bench.anonymous("/api/sso/verify/", json!({ "token": token })).await.status, 200);
}

#[tokio::test]
async fn a_sign_in_token_needs_an_identity_key_and_a_plan() {
    let bench = Bench::start().await;
    let got = bench.managed("POST", &as_notes("/api/sso/token/"), None).await;
    assert_eq!((got.status, got.detail().as_str()), (403, "Identity-scoped key required."));
    bench.switch(|behaviour| behaviour.paid_plan = false);
    let got = bench.call("POST", "/api/sso/token/", &bench.notes, None).await;
    assert_eq!((got.status, got.detail().as_str()), (402, "Active subscription required."));
}

// ---------------------------------------------------------------- the wire, 1 and 3.0

#[tokio::test]
async fn paths_end_in_a_slash() {
    let bench = Bench::start().await;
    let got = bench.get("/api/secrets?key=A").await;
    assert_eq!((got.status, got.headers[LOCATION].to_str().unwrap()), (301, "/api/secrets/?key=A"));
    let before = bench.get("/api/secrets/").await.json();
    let got = bench.post("/api/secrets", json!({ "key": "A", "value": "v" })).await;
    assert_eq!(got.status, 404);
    assert_eq!(bench.get("/api/secrets/").await.json(), before, "nothing was made");
    for path in ["/", "/api/", "/api/vault/", "/api/v1/me/", "/api/feedback/", "/api/auth/keys/management/"] {
        let got = bench.get(path).await;
        assert_eq!(
            (got.status, got.headers[CONTENT_TYPE].to_str().unwrap()),
            (404, "text/html; charset=utf-8")
        );
    }
}

#[tokio::test]
async fn malformed_bodies_are_refused_without_being_quoted() {
    let bench = Bench::start().await;
    for (content_type, body, status) in [
        ("application/json", "{\"key\": CANARY", 400),
        ("application/json", "[\"CANARY\"]", 400),
        ("application/json", "{\"key\": \"CANARY CANARY\", \"value\": \"CANARY\"}", 400),
        ("text/plain", "CANARY", 415),
        ("multipart/form-data", "CANARY", 400),
    ] {
        let mut request = bench.http.request(Method::POST, "/api/secrets/", Some(&bench.notes), None);
        request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        *request.body_mut() = Full::new(Bytes::from(body));
        let got = bench.http.send(request).await.unwrap();
        assert_eq!(got.status, status, "{content_type} {body}");
        assert!(!String::from_utf8_lossy(&got.body).contains("CANARY"));
    }
}

#[tokio::test]
async fn only_a_client_that_trusts_the_ca_gets_through() {
    let bench = Bench::start().await;
    let other = Bench::start().await;
    let stranger = Http::new(bench.sandbox.base_url(), other.sandbox.ca_pem());
    let request = stranger.request(Method::GET, "/api/identities/", Some(&bench.management), None);
    assert!(stranger.send(request).await.is_err());
    assert_eq!(bench.control.total_requests(), 0);
}

#[tokio::test]
async fn it_speaks_plain_http_if_told_so_and_listens_on_loopback_only() {
    let bench = Bench::with(SandboxConfig { http: true, ..SandboxConfig::default() }).await;
    assert!(bench.sandbox.base_url().starts_with("http://127.0.0.1:") && bench.sandbox.ca_pem().is_none());
    assert_eq!(bench.get("/api/secrets/").await.status, 200);
    let everywhere = SandboxConfig { listen: "0.0.0.0:0".parse().unwrap(), ..SandboxConfig::default() };
    assert!(matches!(Sandbox::start(everywhere).await.err(), Some(StartError::NotLoopback)));
    let address = bench.sandbox.address();
    bench.sandbox.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

// ---------------------------------------------------------------- control

#[tokio::test]
async fn requests_are_counted_by_method_and_path() {
    let bench = Bench::start().await;
    bench.get("/api/secrets/?key=A").await;
    bench.get(SECRETS).await;
    bench.post(SECRETS, json!({})).await;
    assert_eq!((bench.control.requests("GET", SECRETS), bench.control.requests("POST", SECRETS)), (2, 1));
    let seen = bench.call("GET", "/__sandbox__/requests/", "", None).await.json();
    assert_eq!(
        seen,
        json!({ "total": 3, "requests": [
            { "method": "GET", "path": SECRETS, "count": 2 },
            { "method": "POST", "path": SECRETS, "count": 1 },
        ]})
    );
}

async fn steer(bench: &Bench, method: &str, path: &str, body: Value) -> (u16, Value) {
    let got = bench.call(method, &format!("/__sandbox__/{path}"), "", Some(body)).await;
    (got.status, got.json())
}

#[tokio::test]
async fn every_control_has_an_endpoint() {
    let bench = Bench::start().await;
    let empty = (200, json!({}));
    let arm = json!({ "path_prefix": "/api/", "times": 1, "answer": { "throttled": { "retry_after_seconds": 3 } } });
    assert_eq!(steer(&bench, "POST", "faults/", arm).await, empty);
    assert_eq!(steer(&bench, "GET", "faults/", json!({})).await.1.as_array().unwrap().len(), 1);
    assert_eq!(bench.get(SECRETS).await.json()["retry_after_seconds"], json!(3));
    let hang = json!({ "path_prefix": "/api/", "answer": "hang" });
    assert_eq!(steer(&bench, "POST", "faults/", hang).await, empty);
    assert_eq!(steer(&bench, "DELETE", "faults/", json!({})).await, empty);
    assert_eq!(steer(&bench, "POST", "release/", json!({})).await, empty);

    let mail = json!({ "identity": "deploy-agent", "from": "a@example.org", "subject": "S", "text": "T" });
    assert_eq!(steer(&bench, "POST", "mail/", mail).await.0, 200);
    let sms = json!({ "identity": DEPLOY_AGENT.uuid.to_string(), "from": "+12025550155", "body": "B" });
    assert_eq!(steer(&bench, "POST", "sms/", sms).await.0, 200);
    let value = json!({ "identity": "assistant-notes-agent", "key": "OPENAI_API_KEY", "value": "rotated" });
    assert_eq!(steer(&bench, "POST", "secrets/", value).await, empty);
    assert_eq!(texts(&bench.get("/api/secrets/?key=OPENAI_API_KEY").await.json(), "value"), ["rotated"]);
    let gone = json!({ "identity": "assistant-notes-agent", "key": "OPENAI_API_KEY" });
    assert_eq!(steer(&bench, "DELETE", "secrets/", gone.clone()).await, empty);
    assert_eq!(steer(&bench, "DELETE", "secrets/", gone).await.0, 404);
    let password = json!({
        "identity": "assistant-notes-agent", "domain": "github.com", "username": "notes-agent", "password": "new",
    });
    assert_eq!(steer(&bench, "POST", "passwords/", password).await, empty);
    assert_eq!(bench.get("/api/passwords/").await.json()[0]["password"], json!("new"));

    let login = start_login(&bench).await;
    assert_eq!(steer(&bench, "GET", "device/", json!({})).await.1, json!([login["user_code"]]));
    assert_eq!(steer(&bench, "POST", "device/deny/", json!({})).await, (200, json!({ "denied": 1 })));
    assert_eq!(steer(&bench, "POST", "device/approve/", json!({})).await.0, 404, "nothing is pending");
    let switched = steer(&bench, "PATCH", "behaviour/", json!({ "email_messages": "array" })).await;
    assert_eq!((switched.0, &switched.1["mint_status"]), (200, &json!("created")));
    assert!(bench.get("/api/email-messages/").await.json().is_array());
    assert_eq!(steer(&bench, "PATCH", "behaviour/", json!({ "nonsense": 1 })).await.0, 400);

    assert_eq!(steer(&bench, "POST", "keys/revoke/", json!({ "identity": "nobody" })).await.0, 404);
    assert_eq!(steer(&bench, "POST", "keys/revoke/", json!({ "identity": NOTES_AGENT.name })).await, empty);
    assert_eq!(steer(&bench, "POST", "keys/revoke/", json!({})).await, empty);
    assert_eq!(
        (bench.get(SECRETS).await.status, bench.managed("GET", SECRETS, None).await.status),
        (401, 401)
    );
    assert_eq!(steer(&bench, "POST", "reset/", json!({})).await, empty);
    let again = bench.get("/api/secrets/?key=OPENAI_API_KEY").await.json();
    assert_eq!(texts(&again, "value"), ["sandbox-openai-notes-7c1f20"]);
    assert_eq!(bench.control.behaviour(), Behaviour::default());
    assert_eq!(bench.control.total_requests(), 1);
}

#[tokio::test]
async fn control_answers_no_other_host_name_and_no_web_page() {
    let bench = Bench::start().await;
    for (name, value) in [
        (HOST, "evil.example"),
        (HOST, "127.0.0.1.evil.example:80"),
        (ORIGIN, "https://evil.example"),
        (ORIGIN, "null"),
    ] {
        let mut request = bench.http.request(Method::POST, "/__sandbox__/reset/", None, Some(json!({})));
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(bench.http.send(request).await.unwrap().status, 403);
    }
}
