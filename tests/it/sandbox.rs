//! The sandbox against the contract sheet of Ravi's API, line by line, over real TLS with a client that
//! knows nothing of our own upstream client.

#![cfg(feature = "sandbox")]

mod attachments;
mod budgets;
mod contacts;
mod delivery;
mod events;
mod provisioning;
mod sending;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
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

// ---------------------------------------------------------------- device login, 2.3

async fn start_login(bench: &Bench) -> Value {
    let got = bench.call("POST", "/api/auth/device/", "", None).await;
    assert_eq!(got.status, 200);
    got.json()
}

async fn poll(bench: &Bench, login: &Value, wait: bool) -> Got {
    let body = json!({ "device_code": login["device_code"], "wait": wait });
    bench.anonymous("/api/auth/device/token/", body).await
}

async fn poll_error(bench: &Bench, login: &Value) -> String {
    let got = poll(bench, login, false).await;
    assert_eq!(got.status, 400);
    assert_eq!(keys_of(&got.json()), ["error", "error_description"]);
    got.json()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_login_is_pending_then_pays_out_once() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let login = start_login(&bench).await;
    assert_eq!(keys_of(&login), ["device_code", "expires_in", "interval", "user_code", "verification_uri"]);
    assert_eq!((&login["expires_in"], &login["interval"]), (&json!(900), &json!(5)));
    let verification = format!("{}/api/auth/device/verify/", bench.sandbox.base_url());
    assert_eq!(login["verification_uri"], json!(verification));
    let user_code = login["user_code"].as_str().unwrap();
    assert_eq!((user_code.len(), &user_code[4..5]), (9, "-"));

    assert_eq!(poll_error(&bench, &login).await, "authorization_pending");
    assert_eq!(poll_error(&bench, &login).await, "slow_down");
    clock.advance(Duration::from_secs(9));
    assert_eq!(poll_error(&bench, &login).await, "slow_down", "each slow_down adds five seconds");
    clock.advance(Duration::from_secs(15));
    assert_eq!(poll_error(&bench, &login).await, "authorization_pending");

    assert_eq!(bench.control.pending_logins(), [user_code]);
    assert_eq!(bench.control.approve_login(Some("WRNG-2222")), 0);
    assert_eq!(bench.control.approve_login(Some(user_code)), 1);
    let got = poll(&bench, &login, false).await;
    assert_eq!(got.status, 200);
    let paid = got.json();
    assert_eq!(keys_of(&paid), ["identities", "management_key", "user"]);
    assert_eq!(keys_of(&paid["user"]), ["email", "first_name", "id", "last_name"]);
    assert_eq!(paid["management_key"], json!(bench.management));
    assert_eq!(texts(&paid["identities"], "name"), [NOTES_AGENT.name, DEPLOY_AGENT.name]);
    assert_eq!(poll_error(&bench, &login).await, "invalid_grant", "the code is used up");
}

#[tokio::test]
async fn a_device_login_ends_by_denial_expiry_or_a_wrong_code() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let denied = start_login(&bench).await;
    assert_eq!(bench.control.deny_login(None), 1);
    assert_eq!(poll_error(&bench, &denied).await, "access_denied");
    let expired = start_login(&bench).await;
    clock.advance(Duration::from_secs(900));
    assert_eq!(bench.control.approve_login(None), 0, "too late");
    assert_eq!(poll_error(&bench, &expired).await, "expired_token");
    assert_eq!(poll_error(&bench, &json!({ "device_code": "made-up" })).await, "invalid_grant");
    let got = bench.anonymous("/api/auth/device/token/", json!({})).await;
    assert_eq!((got.status, &got.json()["device_code"]), (400, &json!(["This field is required."])));
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_the_approval_or_after_the_hold() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let login = start_login(&bench).await;
    let decide = async {
        bench.control.reached("POST", "/api/auth/device/token/", 1).await;
        bench.control.approve_login(None)
    };
    let (got, approved) = tokio::join!(poll(&bench, &login, true), decide);
    assert_eq!((got.status, approved), (200, 1));

    let login = start_login(&bench).await;
    let pass_time = async {
        bench.control.reached("POST", "/api/auth/device/token/", 2).await;
        // The deadline is set some moment after the arrival: move time until the answer is there.
        loop {
            clock.advance(Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
    };
    let before = clock.now();
    let got = tokio::select! { got = poll(&bench, &login, true) => got, () = pass_time => unreachable!() };
    assert_eq!((got.status, &got.json()["error"]), (400, &json!("authorization_pending")));
    assert!(clock.now().since(before) >= Duration::from_secs(25));
}

#[tokio::test]
async fn a_device_token_is_asked_for_in_json_form_or_multipart() {
    let bench = Bench::with(SandboxConfig {
        behaviour: Behaviour { auto_approve: true, ..Behaviour::default() },
        ..SandboxConfig::default()
    })
    .await;
    let multipart = "--q\r\nContent-Disposition: form-data; name=\"device_code\"\r\n\r\nCODE\r\n--q--\r\n";
    for (content_type, body) in [
        ("application/json", "{\"device_code\":\"CODE\",\"wait\":false}"),
        ("application/x-www-form-urlencoded", "device_code=CODE&wait=true"),
        ("multipart/form-data; boundary=q", multipart),
    ] {
        let login = start_login(&bench).await;
        let body = body.replace("CODE", login["device_code"].as_str().unwrap());
        let mut request = bench.http.request(Method::POST, "/api/auth/device/token/", None, None);
        request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        *request.body_mut() = Full::new(Bytes::from(body));
        assert_eq!(bench.http.send(request).await.unwrap().status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn a_person_decides_on_the_page_behind_the_verification_address() {
    let bench = Bench::start().await;
    let login = start_login(&bench).await;
    let user_code = login["user_code"].as_str().unwrap();
    for path in ["/api/auth/device/verify/", "/device/"] {
        let page = bench.call("GET", &format!("{path}?user_code={user_code}"), "", None).await;
        assert_eq!(page.status, 200);
        assert!(String::from_utf8_lossy(&page.body).contains(user_code));
        let hostile = bench.call("GET", &format!("{path}?user_code=%22%3E%3Cscript"), "", None).await;
        assert!(!String::from_utf8_lossy(&hostile.body).contains("<script"));
    }
    let body = format!("user_code={user_code}");
    let mut request = bench.http.request(Method::POST, "/__sandbox__/device/approve/", None, None);
    request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
    *request.body_mut() = Full::new(Bytes::from(body));
    assert_eq!(bench.http.send(request).await.unwrap().json(), json!({ "approved": 1 }));
    assert_eq!(poll(&bench, &login, false).await.status, 200);
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

// ---------------------------------------------------------------- SMS and mail, 3.3 to 3.6

#[tokio::test]
async fn sms_are_grouped_by_conversation() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/sms-inbox/").await.json();
    assert_eq!(
        keys_of(&rows[0]),
        [
            "conversation_id",
            "from_number",
            "latest_message_dt",
            "message_count",
            "phone",
            "phone_number",
            "preview",
            "unread_count"
        ]
    );
    assert_eq!(texts(&rows, "conversation_id"), ["1_+12025550188", "1_+12025550177"]);
    assert_eq!((&rows[1]["message_count"], &rows[1]["unread_count"]), (&json!(2), &json!(1)));
    let talk = bench.get("/api/sms-inbox/1_%2B12025550177/").await.json();
    assert_eq!(keys_of(&talk), ["conversation_id", "from_number", "message_count", "messages", "phone"]);
    assert_eq!(keys_of(&talk["messages"][0]), ["body", "created_dt", "direction", "id", "is_read"]);
    assert_eq!(texts(&talk["messages"], "direction"), ["incoming", "outgoing"]);
    assert_eq!(bench.get("/api/sms-inbox/2_%2B12025550188/").await.status, 404, "another identity's");
    bench.switch(|behaviour| behaviour.reading_marks_read = true);
    bench.get("/api/sms-inbox/1_%2B12025550177/").await;
    let unread = bench.get("/api/sms-inbox/?has_unread=true").await.json();
    assert_eq!(texts(&unread, "from_number"), ["+12025550188"]);
}

#[tokio::test]
async fn sms_are_listed_flat_and_new_ones_come_first() {
    let bench = Bench::start().await;
    let sms = NewSms {
        identity: NOTES_AGENT.uuid.to_string(),
        from: "+12025550199".into(),
        body: "Hello".into(),
        ..NewSms::default()
    };
    let id = bench.control.deliver_sms(sms).unwrap();
    let rows = bench.get("/api/messages/").await.json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["id"]), (4, &json!(id)));
    let got = bench.get(&format!("/api/messages/{id}/")).await.json();
    assert_eq!(got, rows[0]);
    assert_eq!(
        keys_of(&got),
        [
            "body",
            "created_dt",
            "direction",
            "from_number",
            "id",
            "is_read",
            "message_sid",
            "phone",
            "to_number",
            "url"
        ]
    );
    assert_eq!((&got["from_number"], &got["to_number"]), (&json!("+12025550199"), &json!(NOTES_AGENT.phone)));
    assert_eq!(got["is_read"], json!(false), "reading does not mark");
    assert_eq!(bench.get("/api/messages/?is_read=false").await.json().as_array().unwrap().len(), 3);
    assert_eq!(bench.get("/api/messages/804/").await.status, 404, "another identity's");
    assert_eq!(bench.get("/api/messages/sms/").await.status, 404, "a path of the past");
}

#[tokio::test]
async fn mail_is_grouped_by_thread() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/email-inbox/").await.json();
    assert_eq!(
        keys_of(&rows[0]),
        [
            "from_email",
            "inbox",
            "latest_message_dt",
            "message_count",
            "oldest_message_dt",
            "preview",
            "subject",
            "thread_id",
            "unread_count"
        ]
    );
    assert_eq!(texts(&rows, "subject"), ["Your sign-in code", "Plan for Thursday", "Welcome aboard"]);
    let thread = bench.get("/api/email-inbox/%3Cplan-7%40people.example.org%3E/").await.json();
    assert_eq!(keys_of(&thread), ["message_count", "messages", "subject", "thread_id"]);
    assert_eq!(texts(&thread["messages"], "direction"), ["incoming", "outgoing"], "oldest first");
    assert_eq!(
        keys_of(&thread["messages"][0]),
        [
            "attachments",
            "cc",
            "created_dt",
            "direction",
            "from_email",
            "html_content",
            "id",
            "is_read",
            "subject",
            "text_content",
            "to_email"
        ]
    );
    assert_eq!(bench.get("/api/email-inbox/%3Calert-9%40status.example.net%3E/").await.status, 404);
    let inbox = |id: i64| format!("/api/email-inbox/?inbox={id}");
    assert_eq!(bench.get(&inbox(NOTES_AGENT.inbox_id)).await.json().as_array().unwrap().len(), 3);
    assert_eq!(bench.get(&inbox(DEPLOY_AGENT.inbox_id)).await.json(), json!([]));
}

fn mail_for_notes(subject: &str) -> NewMail {
    NewMail {
        identity: NOTES_AGENT.name.into(),
        from: "service@example.net".into(),
        subject: subject.into(),
        text: "Hello".into(),
        ..NewMail::default()
    }
}

#[tokio::test]
async fn mail_is_paged_oldest_first_with_a_cursor_of_time() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    let path = "/api/email-messages/";
    let all = bench.get(path).await.json();
    assert_eq!(keys_of(&all), ["count", "next", "previous", "results"]);
    assert_eq!((&all["count"], &all["next"], &all["previous"]), (&json!(4), &Value::Null, &Value::Null));
    assert_eq!(all["results"][0]["subject"], json!("Welcome aboard"));
    let detail = bench.get(&format!("{path}{}/", all["results"][0]["id"])).await.json();
    assert_eq!(detail, all["results"][0]);
    assert!(["message_id", "thread_id", "url"].iter().all(|field| detail[field].is_string()));
    assert_eq!(bench.get("/api/email-messages/505/").await.status, 404, "another identity's");

    let first = bench.get("/api/email-messages/?limit=3").await.json();
    let next = first["next"].as_str().unwrap().strip_prefix(bench.sandbox.base_url()).unwrap().to_owned();
    let second = bench.get(&next).await.json();
    assert_eq!(
        (first["results"].as_array().unwrap().len(), second["results"].as_array().unwrap().len()),
        (3, 1)
    );
    assert!(second["previous"].is_string() && second["next"].is_null());

    let cursor = clock.wall();
    clock.advance(Duration::from_secs(1));
    bench.control.deliver_mail(mail_for_notes("New")).unwrap();
    let after = bench.get(&format!("{path}?created_after={cursor}&direction=incoming")).await.json();
    assert_eq!(texts(&after["results"], "subject"), ["New"]);
    let sent = bench.get("/api/email-messages/?direction=outgoing").await.json();
    assert_eq!(texts(&sent["results"], "subject"), ["Re: Plan for Thursday"]);
    assert_eq!(bench.get("/api/email-messages/?created_after=yesterday").await.status, 400);
    bench.switch(|behaviour| behaviour.email_messages = ListShape::Array);
    let array = bench.get(path).await.json();
    assert_eq!(array[0]["subject"], json!("New"), "newest first");
}

#[tokio::test]
async fn a_page_of_mail_has_at_most_200() {
    let bench = Bench::start().await;
    for index in 0..210 {
        bench.control.deliver_mail(mail_for_notes(&index.to_string())).unwrap();
    }
    for (query, expected) in [("", 50), ("?limit=500", 200), ("?limit=0", 50)] {
        let page = bench.get(&format!("/api/email-messages/{query}")).await.json();
        assert_eq!(page["results"].as_array().unwrap().len(), expected);
    }
}

// ---------------------------------------------------------------- passwords, 3.7

/// The whole structure, as Ravi's command line posts it.
fn cli_password(domain: &str) -> Value {
    json!({
        "uuid": "", "identity": 0, "domain": domain, "username": "u", "password": "p", "notes": "",
        "created_dt": "", "updated_dt": "",
    })
}

#[tokio::test]
async fn a_password_is_created_read_changed_and_deleted() {
    let bench = Bench::start().await;
    let got = bench.post("/api/passwords/", cli_password("https://mail.google.com/inbox")).await;
    assert_eq!(got.status, 201);
    let row = got.json();
    assert_eq!(
        keys_of(&row),
        ["created_dt", "domain", "identity", "notes", "password", "updated_dt", "username", "uuid"]
    );
    assert_eq!((&row["domain"], &row["identity"]), (&json!("google.com"), &json!(NOTES_AGENT.id)));
    let path = format!("/api/passwords/{}/", row["uuid"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), row);
    let patched = bench.call("PATCH", &path, &bench.notes, Some(json!({ "password": "q" }))).await;
    assert_eq!((patched.status, &patched.json()["password"]), (200, &json!("q")));
    assert_eq!(patched.json()["username"], json!("u"));
    let other = bench.managed("GET", &format!("{path}?identity={}", DEPLOY_AGENT.uuid), None).await;
    assert_eq!(other.status, 404);
    let gone = bench.call("DELETE", &path, &bench.notes, None).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    let got = bench.get(&path).await;
    assert_eq!((got.status, got.detail().as_str()), (404, "No PasswordEntry matches the given query."));
}

#[tokio::test]
async fn a_list_of_passwords_carries_the_values_and_may_repeat_a_domain() {
    let bench = Bench::start().await;
    let rows = bench.get("/api/passwords/").await.json();
    assert_eq!(texts(&rows, "domain"), ["github.com", "github.com", "example.com"]);
    assert_eq!(texts(&rows, "username")[..2], ["notes-agent", "notes-agent-ci"]);
    assert_eq!(rows[0]["password"], json!("sandbox-github-notes-a81c"));
    bench.switch(|behaviour| behaviour.list_values = ListValues::Omitted);
    assert!(bench.get("/api/passwords/").await.json()[0].get("password").is_none());
}

#[tokio::test]
async fn a_password_not_given_is_generated_and_bad_fields_are_all_named() {
    let bench = Bench::start().await;
    let got = bench.post("/api/passwords/", json!({ "domain": "example.org" })).await.json();
    assert_eq!(got["password"].as_str().unwrap().len(), 16);
    let got = bench.post("/api/passwords/", json!({ "username": 5, "notes": null })).await;
    assert_eq!(got.status, 400);
    assert_eq!(
        got.json(),
        json!({
            "domain": ["This field is required."],
            "username": ["Not a valid string."],
            "notes": ["This field may not be null."],
        })
    );
    for domain in ["", "two words", "https:///"] {
        assert_eq!(bench.post("/api/passwords/", json!({ "domain": domain })).await.status, 400);
    }
}

#[tokio::test]
async fn a_password_is_generated_to_order() {
    let bench = Bench::start().await;
    let path = "/api/passwords/generate-password/";
    let got = bench.get(path).await.json();
    assert_eq!((keys_of(&got), got["password"].as_str().unwrap().len()), (vec!["password"], 16));
    let plain =
        bench.get(&format!("{path}?length=40&special=false&uppercase=false&exclude_chars=abc")).await.json();
    let plain = plain["password"].as_str().unwrap();
    assert!(plain.len() == 40 && plain.chars().all(|c| c.is_ascii_digit() || ('d'..='z').contains(&c)));
    for query in ["?length=7", "?length=129", "?length=many"] {
        assert_eq!(bench.get(&format!("{path}{query}")).await.status, 400);
    }
}

// ---------------------------------------------------------------- secrets, 3.8

#[tokio::test]
async fn a_secret_is_created_read_changed_and_deleted() {
    let bench = Bench::start().await;
    let cli = json!({
        "uuid": "", "identity": 0, "key": "npm_token", "value": "v1", "notes": "n", "created_dt": "", "updated_dt": "",
    });
    let got = bench.post("/api/secrets/", cli).await;
    assert_eq!(got.status, 201);
    let row = got.json();
    assert_eq!(keys_of(&row), ["created_dt", "identity", "key", "notes", "updated_dt", "uuid", "value"]);
    assert_eq!((&row["key"], &row["value"]), (&json!("NPM_TOKEN"), &json!("v1")));
    let path = format!("/api/secrets/{}/", row["uuid"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.json(), row);
    assert_eq!(bench.get("/api/secrets/?key=NPM_TOKEN").await.json(), json!([row]));
    let patched = bench.call("PATCH", &path, &bench.notes, Some(json!({ "value": "v2" }))).await.json();
    assert_eq!(
        (&patched["value"], &patched["key"], &patched["notes"]),
        (&json!("v2"), &json!("NPM_TOKEN"), &json!("n"))
    );
    assert_eq!(bench.call("DELETE", &path, &bench.notes, None).await.status, 204);
    let got = bench.call("DELETE", &path, &bench.notes, None).await;
    assert_eq!((got.status, got.detail().as_str()), (404, "No SecretEntry matches the given query."));
    assert_eq!(bench.get("/api/secrets/?key=NPM_TOKEN").await.json(), json!([]));
}

#[tokio::test]
async fn a_secret_key_is_unique_within_its_identity() {
    let bench = Bench::start().await;
    let duplicate = bench.post("/api/secrets/", json!({ "key": "openai_api_key", "value": "v" })).await;
    assert_eq!((duplicate.status, keys_of(&duplicate.json())), (400, vec!["key"]));
    let other = format!("/api/secrets/?identity={}", DEPLOY_AGENT.uuid);
    let body = json!({ "key": "OPENAI_ORG_ID", "value": "v" });
    assert_eq!(bench.managed("POST", &other, Some(body)).await.status, 201);
    let rows = bench.get("/api/secrets/?key=STRIPE_API_KEY").await.json();
    let path = format!("/api/secrets/{}/", rows[0]["uuid"].as_str().unwrap());
    for (key, status) in [("OPENAI_API_KEY", 400), ("stripe_api_key", 200), ("1ST", 400)] {
        let got = bench.call("PATCH", &path, &bench.notes, Some(json!({ "key": key }))).await;
        assert_eq!(got.status, status, "{key}");
    }
    assert_eq!(bench.get("/api/secrets/?key=openai_api_key").await.json(), json!([]), "exact");
    bench.switch(|behaviour| behaviour.secret_lookup = SecretLookup::AnyCase);
    assert_eq!(bench.get("/api/secrets/?key=openai_api_key").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_secret_value_has_up_to_64_kib() {
    let bench = Bench::start().await;
    let largest = "x".repeat(65_536);
    let got = bench.post("/api/secrets/", json!({ "key": "BIG", "value": largest })).await;
    assert_eq!(got.status, 201);
    let got = bench.post("/api/secrets/", json!({ "key": "BIGGER", "value": format!("{largest}x") })).await;
    assert_eq!((got.status, keys_of(&got.json())), (400, vec!["value"]));
    let got = bench.post("/api/secrets/", json!({ "key": "HUGE", "value": "x".repeat(300_000) })).await;
    assert_eq!(got.status, 413);
    for key in ["", "9A", "A-B", "A B", "É"] {
        assert_eq!(
            bench.post("/api/secrets/", json!({ "key": key, "value": "v" })).await.status,
            400,
            "{key}"
        );
    }
    assert_eq!(bench.post("/api/secrets/", json!({ "key": "NO_VALUE" })).await.status, 400);
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

// ---------------------------------------------------------------- faults

const SECRETS: &str = "/api/secrets/";

#[tokio::test]
async fn throttling_says_when_to_come_back_in_body_header_or_neither() {
    let bench = Bench::start().await;
    for (seconds, header) in [(Some(7), None), (None, Some("9")), (Some(1), Some("soon")), (None, None)] {
        let retry_after = header.map(str::to_owned);
        bench
            .fault(Fault::new("/", Answer::Throttled { retry_after_seconds: seconds, retry_after }).times(1));
        let got = bench.get(SECRETS).await;
        assert_eq!((got.status, got.detail().as_str()), (429, "Request was throttled."));
        assert_eq!(got.json().get("retry_after_seconds").and_then(Value::as_u64), seconds);
        assert_eq!(got.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap()), header);
    }
    assert_eq!(bench.get(SECRETS).await.status, 200, "each served its one turn");
}

#[tokio::test]
async fn answers_are_replaced_by_errors_html_nothing_or_a_redirect() {
    let bench = Bench::start().await;
    let elsewhere = "https://elsewhere.example/api/secrets/";
    for answer in [
        Answer::Status(503),
        Answer::Html(200),
        Answer::Empty(200),
        Answer::Redirect(elsewhere.into()),
        Answer::Oversized(3_000_000),
    ] {
        bench.fault(Fault::new(SECRETS, answer).on("GET").times(1));
    }
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, keys_of(&got.json())), (503, vec!["detail"]));
    let got = bench.get(SECRETS).await;
    assert!(got.status == 200 && got.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, got.body.len()), (200, 0));
    let got = bench.get(SECRETS).await;
    assert_eq!((got.status, got.headers[LOCATION].to_str().unwrap()), (302, elsewhere));
    let got = bench.get(SECRETS).await;
    assert!(got.status == 200 && got.body.len() > 3_000_000);
    assert_eq!(bench.post(SECRETS, json!({ "key": "A", "value": "v" })).await.status, 201, "GET alone");
    assert_eq!(bench.get(SECRETS).await.status, 200);
}

#[tokio::test]
async fn a_truncated_or_reset_answer_is_an_error_of_the_connection() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Truncated).times(1));
    let request = bench.http.request(Method::GET, SECRETS, Some(&bench.notes), None);
    let answer = bench.http.client.request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let declared: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert!(declared > 100);
    assert!(answer.into_body().collect().await.is_err());

    bench.fault(Fault::new(SECRETS, Answer::Reset).times(1));
    let request = bench.http.request(Method::GET, SECRETS, Some(&bench.notes), None);
    let failed = bench.http.send(request).await.err().unwrap();
    let mut cause: Option<&(dyn Error + 'static)> = Some(failed.as_ref());
    let mut kinds = Vec::new();
    while let Some(error) = cause {
        kinds.extend(error.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
        cause = error.source();
    }
    assert!(kinds.contains(&std::io::ErrorKind::ConnectionReset), "{kinds:?}");
}

#[tokio::test]
async fn rows_of_another_identity_and_encrypted_values_can_be_served() {
    let bench = Bench::start().await;
    let rows = bench.get(SECRETS).await.json();
    let own = format!("{SECRETS}{}/", rows[0]["uuid"].as_str().unwrap());
    bench.fault(Fault::new("/api/", Answer::WrongIdentity));
    for path in [
        "/api/secrets/",
        "/api/secrets/?key=OPENAI_API_KEY",
        "/api/secrets/?key=OPENAI_ORG_ID",
        "/api/passwords/",
    ] {
        let rows = bench.managed("GET", &as_notes(path), None).await.json();
        assert!(!rows.as_array().unwrap().is_empty());
        assert!(rows.as_array().unwrap().iter().all(|row| row["identity"] == DEPLOY_AGENT.id), "{path}");
    }
    let one = bench.get(&own).await;
    assert_eq!((one.status, &one.json()["identity"]), (200, &json!(DEPLOY_AGENT.id)));
    let identity = bench.get(&format!("/api/identities/{}/", NOTES_AGENT.uuid)).await.json();
    assert_eq!(identity["uuid"], json!(DEPLOY_AGENT.uuid.to_string()));
    assert_eq!(bench.get("/api/phone/").await.json()[0]["phone_number"], json!(DEPLOY_AGENT.phone));
    let written = bench.post(SECRETS, json!({ "key": "A", "value": "v" })).await;
    assert_eq!((written.status, &written.json()["identity"]), (201, &json!(DEPLOY_AGENT.id)));
    let body = json!({ "identity_uuid": NOTES_AGENT.uuid.to_string(), "label": "x" });
    let minted = bench.managed("POST", "/api/auth/keys/identity/", Some(body)).await.json();
    assert_eq!(minted["identity_uuid"], json!(DEPLOY_AGENT.uuid.to_string()));

    bench.control.clear_faults();
    assert_eq!(bench.get("/api/secrets/?key=A").await.json()[0]["identity"], json!(NOTES_AGENT.id));
    bench.fault(Fault::new("/api/", Answer::LegacyEncrypted));
    assert!(bench.get(SECRETS).await.json()[0]["value"].as_str().unwrap().starts_with("e2e::"));
    let rows = bench.get("/api/passwords/").await.json();
    assert!(rows[0]["password"].as_str().unwrap().starts_with("e2e::"));
}

#[tokio::test]
async fn a_delay_lasts_as_long_as_told_and_a_hang_until_the_client_goes() {
    let clock = StillClock::new();
    let bench = Bench::with(with_clock(&clock)).await;
    bench.fault(Fault::new(SECRETS, Answer::Real).times(1).delayed(Duration::from_secs(40)));
    let mut slow = Box::pin(bench.get(SECRETS));
    tokio::select! {
        _ = &mut slow => panic!("answered before its time"),
        () = bench.control.reached("GET", SECRETS, 1) => {}
    }
    clock.advance(Duration::from_secs(40));
    // The deadline may have been set after the first move.
    let got = loop {
        tokio::select! {
            got = &mut slow => break got,
            () = tokio::task::yield_now() => clock.advance(Duration::from_secs(1)),
        }
    };
    assert_eq!(got.status, 200);

    drop(slow);
    bench.fault(Fault::new(SECRETS, Answer::Hang).times(1));
    tokio::select! {
        _ = bench.get(SECRETS) => panic!("answered"),
        () = bench.control.reached("GET", SECRETS, 2) => {}
    }
    assert_eq!(bench.get(SECRETS).await.status, 200);
    bench.sandbox.shutdown().await;
}

#[tokio::test]
async fn held_requests_go_on_when_released() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Held));
    let release = async {
        bench.control.reached("GET", SECRETS, 2).await;
        bench.control.release();
    };
    let (one, two, ()) = tokio::join!(bench.get(SECRETS), bench.get(SECRETS), release);
    assert_eq!((one.status, two.status), (200, 200));
}

#[tokio::test]
async fn a_write_can_take_effect_although_its_answer_is_lost() {
    let bench = Bench::start().await;
    bench.fault(Fault::new(SECRETS, Answer::Status(502)).on("POST").times(1));
    assert_eq!(bench.post(SECRETS, json!({ "key": "LOST", "value": "v" })).await.status, 502);
    assert_eq!(bench.get("/api/secrets/?key=LOST").await.json(), json!([]));
    bench.fault(Fault::new(SECRETS, Answer::Status(502)).on("POST").times(1).taking_effect());
    assert_eq!(bench.post(SECRETS, json!({ "key": "LOST", "value": "v" })).await.status, 502);
    assert_eq!(texts(&bench.get("/api/secrets/?key=LOST").await.json(), "value"), ["v"]);
}

#[tokio::test]
async fn a_fault_that_cannot_be_is_refused() {
    let bench = Bench::start().await;
    for fault in [
        Fault::new("api/", Answer::Hang),
        Fault::new("/", Answer::Hang).times(0),
        Fault::new("/", Answer::Status(99)),
        Fault::new("/", Answer::Oversized(usize::MAX)),
        Fault::new("/", Answer::Redirect("a\nb".into())),
        Fault::new("/", Answer::Real).delayed(Duration::MAX),
    ] {
        assert!(bench.control.add_fault(fault).is_err());
    }
    assert!(bench.control.faults().is_empty());
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

// ---------------------------------------------------------------- the program

struct Program(Child);

impl Program {
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ravi-sandbox"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line)
    }

    fn end(mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let ca_dir = dir.path().join("dev");
    let key_file = dir.path().join("management-key");
    std::fs::write(&key_file, "ravi_mgmt_from_file\n").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = [
        "--format=json",
        "--auto-approve",
        "--switch=email_messages=array",
        "--switch=device_interval=0",
        "--ca-dir",
        ca_dir.to_str().unwrap(),
        "--management-key-file",
        key_file.to_str().unwrap(),
    ];
    let (program, line) = Program::start(&arguments);
    assert!(!line.contains("ravi_mgmt_"));
    let ready: Value = serde_json::from_str(&line).unwrap();
    let pem = std::fs::read_to_string(ready["ca"].as_str().unwrap()).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"));
    assert_eq!(std::fs::read_dir(&ca_dir).unwrap().count(), 1, "the certificate and nothing else");
    let http = Http::new(ready["base_url"].as_str().unwrap(), Some(&pem));
    let request = http.request(Method::GET, "/api/identities/", Some("ravi_mgmt_from_file"), None);
    assert_eq!(http.send(request).await.unwrap().status, 200);
    let login = http.send(http.request(Method::POST, "/api/auth/device/", None, None)).await.unwrap().json();
    assert_eq!(login["interval"], json!(0));
    let body = json!({ "device_code": login["device_code"] });
    let paid =
        http.send(http.request(Method::POST, "/api/auth/device/token/", None, Some(body))).await.unwrap();
    assert_eq!(paid.json()["management_key"], json!("ravi_mgmt_from_file"));
    assert_eq!(program.end(nix::sys::signal::SIGTERM), Some(0));
}

#[test]
fn the_program_speaks_plain_text_and_plain_http_too() {
    let (program, line) = Program::start(&["--http"]);
    assert!(line.starts_with("listening on http://127.0.0.1:") && !line.contains("CA"), "{line}");
    assert_eq!(program.end(nix::sys::signal::SIGINT), Some(0));
}

#[test]
fn the_program_refuses_a_key_file_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("management-key");
    std::fs::write(&key_file, "ravi_mgmt_from_file").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ravi-sandbox"))
        .args(["--http", "--management-key-file", key_file.to_str().unwrap()])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 2));
    assert!(
        message.contains("can be read by others")
            && message.contains("chmod 600")
            && !message.contains("ravi_mgmt")
    );
}
