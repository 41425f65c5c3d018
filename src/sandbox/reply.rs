//! Answers in the form that Django REST framework gives them. Bodies of refusals are fixed text: they
//! never quote a request. Imports `random`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::random::NoRandomness;

/// What a handler returns.
pub(super) type Reply = Result<Response, Refusal>;

/// 200 with a JSON body.
pub(super) fn ok(body: &impl Serialize) -> Reply {
    with_status(StatusCode::OK, body)
}

/// A JSON body with another status.
pub(super) fn with_status(status: StatusCode, body: &impl Serialize) -> Reply {
    let bytes = serde_json::to_vec(body).map_err(|_| Refusal::broken())?;
    Ok(typed(status, "application/json", bytes))
}

/// 204.
pub(super) fn no_content() -> Reply {
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) fn html(status: StatusCode, body: impl Into<Body>) -> Response {
    typed(status, "text/html; charset=utf-8", body)
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What Django shows for a path that no route matches.
pub(super) fn no_such_page() -> Response {
    const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<head><title>Not Found</title></head>\n\
        <body><h1>Not Found</h1><p>The requested resource was not found on this server.</p></body>\n</html>\n";
    html(StatusCode::NOT_FOUND, PAGE)
}

/// An error answer.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    body: Value,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// The normal form: `{"detail": …}`.
    pub(super) fn detail(status: StatusCode, text: &str) -> Self {
        Self { status, body: json!({ "detail": text }), header: None }
    }

    /// Missing or invalid key.
    pub(super) fn unauthenticated() -> Self {
        Self::detail(StatusCode::UNAUTHORIZED, "Authentication credentials were not provided.")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(super) fn not_found() -> Self {
        Self::detail(StatusCode::NOT_FOUND, "Not found.")
    }

    pub(super) fn bad_request(text: &str) -> Self {
        Self::detail(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn plan_required(text: &str) -> Self {
        Self::detail(StatusCode::PAYMENT_REQUIRED, text)
    }

    /// 429, in the body and in the header.
    pub(super) fn throttled(seconds: u64) -> Self {
        let body = json!({ "detail": "Request was throttled.", "retry_after_seconds": seconds });
        let refusal = Self { status: StatusCode::TOO_MANY_REQUESTS, body, header: None };
        refusal.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Our own failure.
    pub(super) fn broken() -> Self {
        Self::detail(StatusCode::INTERNAL_SERVER_ERROR, "A server error occurred.")
    }

    /// One invalid field: `{"field": ["…"]}`.
    pub(super) fn field(name: &str, text: &str) -> Self {
        Self::fields(Map::from_iter([(name.to_owned(), json!([text]))]))
    }

    /// Every invalid field at once.
    pub(super) fn fields(errors: Map<String, Value>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: Value::Object(errors), header: None }
    }

    /// The form of RFC 8628 and RFC 6749: `{"error", "error_description"}`.
    pub(super) fn oauth(error: &str, description: &str) -> Self {
        let body = json!({ "error": error, "error_description": description });
        Self { status: StatusCode::BAD_REQUEST, body, header: None }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<NoRandomness> for Refusal {
    fn from(_: NoRandomness) -> Self {
        Self::broken()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = typed(self.status, "application/json", self.body.to_string());
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
