//! `/__sandbox__/…`: the operations of [`Control`] over HTTP, for clients in other processes and other
//! languages. No key is asked for; only peers on loopback get an answer, and no web page of another
//! origin does.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::secret::Secret;

use super::body::{self, Fields};
use super::control::{Control, ControlError, NewMail, NewSms};
use super::fault::Fault;
use super::reply::{Refusal, typed};
use super::state::Api;

/// Where the control endpoints live.
pub(super) const PREFIX: &str = "/__sandbox__/";

/// The list of operations, as shown by `GET /__sandbox__/` and by `--help`.
pub(super) const OPERATIONS: &str = "\
GET    /__sandbox__/requests/        counts: {\"total\", \"requests\": [{\"method\", \"path\", \"count\"}]}
POST   /__sandbox__/faults/          arm: {\"path_prefix\", \"method\"?, \"times\"?, \"delay_ms\"?, \"takes_effect\"?, \"answer\"}
                                     answer: \"real\" | \"held\" | \"truncated\" | \"wrong_identity\" | \"hang\" | \"reset\" |
                                     \"legacy_encrypted\" | {\"status\": 503} | {\"html\": 502} | {\"empty\": 200} |
                                     {\"oversized\": 2000000} | {\"redirect\": \"https://other.example/\"} |
                                     {\"throttled\": {\"retry_after_seconds\": 3, \"retry_after\": \"3\"}}
GET    /__sandbox__/faults/          armed faults         DELETE: disarm all
POST   /__sandbox__/release/         let held requests go
POST   /__sandbox__/mail/            deliver: {\"identity\", \"from\", \"subject\", \"text\", \"html\"?, \"thread_id\"?}
POST   /__sandbox__/sms/             deliver: {\"identity\", \"from\", \"body\"}
GET    /__sandbox__/device/          user codes that wait for a decision
POST   /__sandbox__/device/approve/  {\"user_code\"?}; without it, all       /device/deny/ likewise
POST   /__sandbox__/secrets/         set past the API: {\"identity\", \"key\", \"value\"}    DELETE: {\"identity\", \"key\"}
POST   /__sandbox__/passwords/       set past the API: {\"identity\", \"domain\", \"username\", \"password\"}
POST   /__sandbox__/keys/revoke/     {\"identity\"}: its keys; {}: the management key
GET    /__sandbox__/behaviour/       switches             PATCH: change some
POST   /__sandbox__/reset/           everything as at the start
";

/// True for a peer and a request that may steer the sandbox.
pub(super) fn may_steer(peer: IpAddr, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let own_name = matches!(name, "127.0.0.1" | "localhost" | "[::1]");
    let own_page = |origin: &str| origin.split_once("://").is_some_and(|(_, origin)| origin == host);
    peer.is_loopback()
        && own_name
        && (!headers.contains_key(header::ORIGIN) || text(header::ORIGIN).is_some_and(own_page))
}

/// The routes. Whoever mounts them asks [`may_steer`] first.
pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/__sandbox__/", get(async || OPERATIONS))
        .route("/__sandbox__/requests/", get(requests))
        .route("/__sandbox__/faults/", get(faults).post(add_fault).delete(clear_faults))
        .route("/__sandbox__/release/", post(release))
        .route("/__sandbox__/mail/", post(mail))
        .route("/__sandbox__/sms/", post(sms))
        .route("/__sandbox__/device/", get(logins))
        .route("/__sandbox__/device/approve/", post(approve))
        .route("/__sandbox__/device/deny/", post(deny))
        .route("/__sandbox__/secrets/", post(set_secret).delete(remove_secret))
        .route("/__sandbox__/passwords/", post(set_password))
        .route("/__sandbox__/keys/revoke/", post(revoke))
        .route("/__sandbox__/behaviour/", get(behaviour).patch(set_behaviour))
        .route("/__sandbox__/reset/", post(reset))
        .with_state(api)
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoSuchIdentity | Self::NoSuchEntry => StatusCode::NOT_FOUND,
            Self::NoAddress | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
            Self::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::detail(status, &self.to_string()).into_response()
    }
}

type Answer = Result<Json<Value>, ControlError>;

fn done() -> Answer {
    Ok(Json(json!({})))
}

/// A body in JSON, strictly typed.
async fn parsed<T: DeserializeOwned>(request: Request) -> Result<T, ControlError> {
    let wrong = || ControlError::Invalid("the body is not as documented at /__sandbox__/");
    let bytes = body::read(request.into_body()).await.map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

async fn requests(State(api): State<Api>) -> Json<Value> {
    let control = Control::new(api);
    Json(json!({ "total": control.total_requests(), "requests": control.request_counts() }))
}

async fn faults(State(api): State<Api>) -> Json<Vec<Fault>> {
    Json(Control::new(api).faults())
}

async fn add_fault(State(api): State<Api>, request: Request) -> Answer {
    let fault = parsed(request).await?;
    Control::new(api).add_fault(fault)?;
    done()
}

async fn clear_faults(State(api): State<Api>) -> Answer {
    Control::new(api).clear_faults();
    done()
}

async fn release(State(api): State<Api>) -> Answer {
    Control::new(api).release();
    done()
}

async fn mail(State(api): State<Api>, request: Request) -> Answer {
    let mail: NewMail = parsed(request).await?;
    let id = Control::new(api).deliver_mail(mail)?;
    Ok(Json(json!({ "id": id })))
}

async fn sms(State(api): State<Api>, request: Request) -> Answer {
    let sms: NewSms = parsed(request).await?;
    let id = Control::new(api).deliver_sms(sms)?;
    Ok(Json(json!({ "id": id })))
}

async fn logins(State(api): State<Api>) -> Json<Vec<String>> {
    Json(Control::new(api).pending_logins())
}

/// Also what the form of the login page sends.
async fn approve(State(api): State<Api>, fields: Fields) -> Result<Response, Refusal> {
    decided(fields, |code| Control::new(api).approve_login(code), "approved")
}

async fn deny(State(api): State<Api>, fields: Fields) -> Result<Response, Refusal> {
    decided(fields, |code| Control::new(api).deny_login(code), "denied")
}

fn decided(
    mut fields: Fields,
    decide: impl FnOnce(Option<&str>) -> usize,
    word: &str,
) -> Result<Response, Refusal> {
    let user_code = fields.filled("user_code");
    fields.finish()?;
    let count = decide(user_code.as_deref());
    let status = if count == 0 { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Ok(typed(status, "application/json", json!({ word: count }).to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetSecret {
    identity: String,
    key: String,
    value: Secret,
}

async fn set_secret(State(api): State<Api>, request: Request) -> Answer {
    let SetSecret { identity, key, value } = parsed(request).await?;
    Control::new(api).set_secret(&identity, &key, value)?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSecret {
    identity: String,
    key: String,
}

async fn remove_secret(State(api): State<Api>, request: Request) -> Answer {
    let NamedSecret { identity, key } = parsed(request).await?;
    Control::new(api).remove_secret(&identity, &key)?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetPassword {
    identity: String,
    domain: String,
    username: String,
    password: Secret,
}

async fn set_password(State(api): State<Api>, request: Request) -> Answer {
    let SetPassword { identity, domain, username, password } = parsed(request).await?;
    Control::new(api).set_password(&identity, &domain, &username, password)?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    #[serde(default)]
    identity: Option<String>,
}

async fn revoke(State(api): State<Api>, request: Request) -> Answer {
    let Revoke { identity } = parsed(request).await?;
    let control = Control::new(api);
    match identity {
        Some(identity) => control.revoke_identity_keys(&identity)?,
        None => control.revoke_management_key(),
    }
    done()
}

async fn behaviour(State(api): State<Api>) -> Json<Value> {
    Json(json!(Control::new(api).behaviour()))
}

async fn set_behaviour(State(api): State<Api>, request: Request) -> Answer {
    let changes: serde_json::Map<String, Value> = parsed(request).await?;
    let control = Control::new(api);
    let mut merged = json!(control.behaviour());
    for (name, value) in changes {
        merged[name] = value;
    }
    let wrong = |_| ControlError::Invalid("no such switch or setting");
    control.set_behaviour(serde_json::from_value(merged).map_err(wrong)?);
    Ok(Json(json!(control.behaviour())))
}

async fn reset(State(api): State<Api>) -> Answer {
    Control::new(api).reset()?;
    done()
}
