//! Attachments (docs/ravi-api.md §3.6): announced to the API, uploaded to the storage, then named in a mail.
//!
//! The storage stands for a host that is not Ravi's: its address carries a signature, it takes no key, and an
//! `Authorization` header is refused and counted. Its own answers (XML, as object stores have it) and the
//! life of what was never sent are invented. Sizes count from the announcement on, so that all of it is bounded.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::SignedDuration;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::auth::Call;
use super::behaviour::StorageHost;
use super::body::{self, Fields};
use super::query::Params;
use super::random;
use super::reply::{Refusal, Reply, typed, with_status};
use super::state::{Api, Attachment, MAX_ATTACHED_BYTES, MAX_ATTACHMENTS, World};

/// Where the storage's objects live.
pub(super) const STORAGE: &str = "/storage/";
const FOLDER: &str = "email-attachments/";
const MAX_SIZE: usize = 10_485_760;
const MAX_NAME: usize = 255;
/// What is in no mail by then is dropped.
const UNSENT_LIFE: SignedDuration = SignedDuration::from_hours(24);

const BLOCKED: [&str; 44] = [
    "exe", "dll", "scr", "com", "pif", "cpl", "sys", "bat", "cmd", "ps1", "vbs", "vbe", "wsf", "wsh", "wsc",
    "sct", "shb", "msi", "msp", "mst", "cab", "msc", "inf", "reg", "rgs", "ins", "isp", "chm", "hta", "lnk",
    "url", "scf", "iso", "img", "vhd", "vhdx", "dmg", "apk", "app", "action", "jar", "ade", "adp", "mde",
];

/// `POST /api/email-attachments/presign/`. A management key need not name an identity here.
pub(super) async fn presign(State(api): State<Api>, call: Call, mut fields: Fields) -> Reply {
    let mut world = api.world();
    let identity = call.fence(&world)?;
    let filename = fields.required("filename");
    if filename.len() > MAX_NAME || filename.contains(['/', '\\']) || filename.contains(char::is_control) {
        fields.wrong("filename", "Enter a valid file name.");
    } else if is_blocked(&filename) {
        fields.wrong("filename", "This file type is not allowed.");
    }
    let content_type = fields.required("content_type");
    if !is_media_type(&content_type) {
        fields.wrong("content_type", "Enter a valid content type.");
    }
    let size = fields.whole("size");
    if !(1..=MAX_SIZE).contains(&size) {
        fields.wrong("size", "Ensure this value is between 1 and 10485760.");
    }
    fields.finish()?;
    let limit = world.behaviour.uploads_per_hour;
    let now = api.wall();
    world.attachments.retain(|row| row.is_used || now.duration_since(row.created) < UNSENT_LIFE);
    if !has_room(&world, 1, size) {
        return Err(Refusal::bad_request("The storage is full."));
    }
    world.budgets.upload(limit, now)?;
    let attachment = Attachment {
        uuid: random::uuid()?,
        identity,
        filename,
        content_type,
        size,
        is_inline: false,
        signature: random::key("")?,
        content: None,
        is_used: false,
        created: now,
    };
    let answer = json!({
        "uuid": attachment.uuid.to_string(),
        "upload_url": address(&api, &world, &attachment),
        "storage_key": format!("{FOLDER}{}", attachment.uuid),
    });
    world.attachments.push(attachment);
    with_status(StatusCode::CREATED, &answer)
}

fn is_blocked(filename: &str) -> bool {
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| BLOCKED.contains(&extension.as_str()))
}

fn is_media_type(text: &str) -> bool {
    text.len() <= MAX_NAME && text.contains('/') && HeaderValue::from_str(text).is_ok()
}

/// Whether that many more attachments, of that size together, fit.
pub(super) fn has_room(world: &World, count: usize, size: usize) -> bool {
    let taken: usize = world.attachments.iter().map(|row| row.size).sum();
    world.attachments.len() + count <= MAX_ATTACHMENTS && taken.saturating_add(size) <= MAX_ATTACHED_BYTES
}

fn address(api: &Api, world: &World, attachment: &Attachment) -> String {
    let origin = match world.behaviour.storage {
        StorageHost::Same => &api.origin,
        StorageHost::Other => &api.storage_origin,
    };
    let signature = attachment.signature.expose();
    format!("{origin}{STORAGE}{FOLDER}{}?signature={signature}", attachment.uuid)
}

/// Those named, if the identity may send all of them. What is not there is reported as a wrong field.
pub(super) fn named(fields: &mut Fields, world: &World, identity: i64) -> Vec<Uuid> {
    let texts = fields.list("attachment_uuids");
    let find = |text: &String| {
        let uuid = Uuid::try_parse(text).ok()?;
        let row = world.attachments.iter().find(|row| row.uuid == uuid)?;
        let is_own = row.identity.is_none_or(|owner| owner == identity);
        (is_own && row.content.is_some()).then_some(uuid)
    };
    let found: Option<Vec<Uuid>> = texts.iter().map(find).collect();
    found.unwrap_or_else(|| {
        fields.wrong("attachment_uuids", "An attachment does not exist or was not uploaded.");
        Vec::new()
    })
}

/// How attachments of a mail look on the wire.
pub(super) fn attachments_json(api: &Api, world: &World, uuids: &[Uuid]) -> Value {
    let row = |uuid: &Uuid| world.attachments.iter().find(|row| row.uuid == *uuid);
    let wire = |row: &Attachment| {
        json!({
            "uuid": row.uuid.to_string(),
            "filename": row.filename,
            "content_type": row.content_type,
            "size": row.size,
            "is_inline": row.is_inline,
            "download_url": address(api, world, row),
        })
    };
    uuids.iter().filter_map(row).map(wire).collect()
}

/// Why the storage says no.
#[derive(Clone, Copy)]
enum Denial {
    /// An `Authorization` header.
    Key,
    /// No such object, or not its signature, or sent already.
    Address,
    /// Another type or length than was announced.
    Announcement,
    NoLength,
    Incomplete,
    Busy,
    NoObject,
    Method,
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::Key => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            Self::Address => (StatusCode::FORBIDDEN, "AccessDenied"),
            Self::Announcement => (StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
            Self::NoLength => (StatusCode::LENGTH_REQUIRED, "MissingContentLength"),
            Self::Incomplete => (StatusCode::BAD_REQUEST, "IncompleteBody"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Self::NoObject => (StatusCode::NOT_FOUND, "NoSuchKey"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        };
        let prolog = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        typed(status, "application/xml", format!("{prolog}\n<Error><Code>{code}</Code></Error>\n"))
    }
}

/// The storage, whichever host it is reached by.
pub(super) async fn storage(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = stored(&api, &parts, body).await;
    answer.unwrap_or_else(Denial::into_response)
}

async fn stored(api: &Api, parts: &Parts, body: Body) -> Result<Response, Denial> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        api.world().keys_at_storage += 1;
        return Err(Denial::Key);
    }
    let uuid = signed(api, parts).ok_or(Denial::Address)?;
    match parts.method {
        Method::PUT => upload(api, uuid, &parts.headers, body).await,
        Method::GET => download(api, uuid),
        _ => Err(Denial::Method),
    }
}

/// The object that the path names, if the signature is its own.
fn signed(api: &Api, parts: &Parts) -> Option<Uuid> {
    let name = parts.uri.path().strip_prefix(STORAGE)?.strip_prefix(FOLDER)?;
    let uuid = Uuid::try_parse(name).ok()?;
    let params = Params::parse(parts.uri.query().unwrap_or(""));
    let presented = params.given("signature")?;
    let world = api.world();
    let row = world.attachments.iter().find(|row| row.uuid == uuid)?;
    bool::from(row.signature.expose().as_bytes().ct_eq(presented.as_bytes())).then_some(uuid)
}

async fn upload(api: &Api, uuid: Uuid, headers: &HeaderMap, body: Body) -> Result<Response, Denial> {
    let size = announced(api, uuid, headers)?;
    let _turn = api.uploads.acquire().await.map_err(|_| Denial::Busy)?;
    let bytes = body::read_up_to(body, size).await.map_err(|_| Denial::Incomplete)?;
    if bytes.len() != size {
        return Err(Denial::Incomplete);
    }
    let mut world = api.world();
    let row = world.attachments.iter_mut().find(|row| row.uuid == uuid && !row.is_used);
    row.ok_or(Denial::Address)?.content = Some(Bytes::from(bytes));
    Ok(typed(StatusCode::OK, "application/xml", ""))
}

/// The size, if type and length are those that were signed.
fn announced(api: &Api, uuid: Uuid, headers: &HeaderMap) -> Result<usize, Denial> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(length) = text(header::CONTENT_LENGTH) else {
        return Err(Denial::NoLength);
    };
    let world = api.world();
    let row = world.attachments.iter().find(|row| row.uuid == uuid);
    let row = row.filter(|row| {
        length == row.size.to_string() && text(header::CONTENT_TYPE) == Some(row.content_type.as_str())
    });
    row.map(|row| row.size).ok_or(Denial::Announcement)
}

fn download(api: &Api, uuid: Uuid) -> Result<Response, Denial> {
    let world = api.world();
    let row = world.attachments.iter().find(|row| row.uuid == uuid);
    let found = row.and_then(|row| Some((row.content.clone()?, row.content_type.as_str())));
    let (content, media) = found.ok_or(Denial::NoObject)?;
    let mut response = typed(StatusCode::OK, "application/octet-stream", content);
    if let Ok(media) = HeaderValue::from_str(media) {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    Ok(response)
}
