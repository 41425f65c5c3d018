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

use super::arrival::{Batch, Delivered, NewMail, NewSms};
use super::body::{self, Fields};
use super::control::{Control, ControlError};
use super::fault::Fault;
use super::outbox::SentKind;
use super::reply::{Refusal, typed};
use super::state::Api;

/// Where the control endpoints live.
pub(super) const PREFIX: &str = "/__sandbox__/";

/// Room for an attachment or a batch.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// The list of operations, as shown by `GET /__sandbox__/` and by `--help`.
pub(super) const OPERATIONS: &str = "\
Under /__sandbox__/, bodies in JSON, `?` marks what may be left out:
  GET    requests/        {total, requests: [{method, path, count}]}
  POST   faults/          arm: {path_prefix, method?, times?, delay_ms?, takes_effect?, answer}
  GET    faults/          those armed; DELETE disarms all
  POST   release/         lets requests go that the answer \"held\" holds
  POST   mail/            deliver: {identity, from, subject, text, html?, thread_id?, to?, cc?: [],
                          message_id?, created_dt?, attachments?: [{filename, content_type,
                          content (base64), is_inline?}]}
  POST   sms/             deliver: {identity, from, body, created_dt?}
  POST   batch/           deliver all or none: {mail?: [as above], sms?: [as above]}
  GET    sent/            {mail, sms, messages: [{kind, id, identity, to, cc, bcc, attachments}]}
  POST   budgets/reset/   begins the day and the hour of sending and uploading anew
  GET    storage/         {keys_received}: requests with a key at the host that takes uploads
  GET    device/          user codes that wait for a decision
  POST   device/approve/  {user_code?}, without it all; device/deny/ likewise
  POST   secrets/         set past the API: {identity, key, value}; DELETE: {identity, key}
  POST   passwords/       set past the API: {identity, domain, username, password}
  POST   keys/revoke/     {identity}: its keys; {}: the management key
  GET    behaviour/       switches; PATCH changes some
  POST   reset/           everything as at the start
Answers of a fault:
  \"real\" \"held\" \"truncated\" \"wrong_identity\" \"hang\" \"reset\" \"legacy_encrypted\"
  {\"status\": 503} {\"html\": 502} {\"empty\": 200} {\"oversized\": 2000000}
  {\"redirect\": \"https://other.example/\"}
  {\"throttled\": {\"retry_after_seconds\": 3, \"retry_after\": \"3\"}}
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
        .route("/__sandbox__/batch/", post(batch))
        .route("/__sandbox__/sent/", get(sent))
        .route("/__sandbox__/budgets/reset/", post(reset_budgets))
        .route("/__sandbox__/storage/", get(storage))
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
    let bytes = body::read_up_to(request.into_body(), MAX_BODY).await.map_err(|_| wrong())?;
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

async fn batch(State(api): State<Api>, request: Request) -> Result<Json<Delivered>, ControlError> {
    let batch: Batch = parsed(request).await?;
    Control::new(api).deliver(batch).map(Json)
}

async fn sent(State(api): State<Api>) -> Json<Value> {
    let messages = Control::new(api).sent();
    let count = |kind| messages.iter().filter(|sent| sent.kind == kind).count();
    let (mail, sms) = (count(SentKind::Mail), count(SentKind::Sms));
    Json(json!({ "mail": mail, "sms": sms, "messages": messages }))
}

async fn reset_budgets(State(api): State<Api>) -> Answer {
    Control::new(api).reset_budgets();
    done()
}

async fn storage(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "keys_received": Control::new(api).keys_at_storage() }))
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
    let control = Control::new(api);
    let changed = control.behaviour().changed(parsed(request).await?);
    control.set_behaviour(changed.ok_or(ControlError::Invalid("no such switch or setting"))?);
    Ok(Json(json!(control.behaviour())))
}

async fn reset(State(api): State<Api>) -> Answer {
    Control::new(api).reset()?;
    done()
}
