//! Request bodies: bounded, decoded from JSON, form or multipart, and read field by field the way
//! Django REST framework validates: unknown and read-only fields are ignored, every wrong field is
//! reported. Imports `reply`, `query`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value, json};

use crate::secret::Secret;

use super::query::Params;
use super::reply::Refusal;
use super::state::Api;

/// A value of 64 KiB may take twice that in JSON, and notes come beside it.
pub(super) const MAX_BODY: usize = 256 * 1024;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Most items of a list.
pub(super) const MAX_ITEMS: usize = 50;

/// Longest value of any text field, in bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// The fields of a body, and what was wrong with those read so far.
pub(super) struct Fields {
    given: Map<String, Value>,
    errors: Map<String, Value>,
}

impl FromRequest<Api> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        Ok(Self { given: decode(&parts.headers, &bytes)?, errors: Map::new() })
    }
}

/// Reads a body under the size and time limits.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    read_up_to(body, MAX_BODY).await
}

/// As [`read`], with a limit of the caller's own.
pub(super) async fn read_up_to(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let collected = tokio::time::timeout(READ_TIMEOUT, Limited::new(body, limit).collect()).await;
    let too_large = || Refusal::detail(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large.");
    let timed_out = || Refusal::detail(StatusCode::REQUEST_TIMEOUT, "Request body was not received in time.");
    let body = collected.map_err(|_| timed_out())?.map_err(|_| too_large())?;
    Ok(Vec::from(body.to_bytes()))
}

fn decode(headers: &HeaderMap, bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media.as_str() {
        "application/json" => decode_json(bytes),
        "application/x-www-form-urlencoded" => Ok(as_map(Params::parse(as_text(bytes)?).into_pairs())),
        "multipart/form-data" => decode_multipart(content_type, as_text(bytes)?),
        _ => Err(Refusal::detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type in request.")),
    }
}

fn decode_json(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Refusal::field(
            "non_field_errors",
            "Invalid data. Expected a dictionary, but got another type.",
        )),
        Err(_) => Err(Refusal::bad_request("JSON parse error")),
    }
}

/// Text parts alone; that is all any of the endpoints takes.
fn decode_multipart(content_type: &str, text: &str) -> Result<Map<String, Value>, Refusal> {
    let wrong = || Refusal::bad_request("Multipart form parse error");
    let (_, boundary) = content_type.split_once("boundary=").ok_or_else(wrong)?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut pairs = Vec::new();
    for part in text.split(delimiter.as_str()).skip(1).take_while(|part| !part.starts_with("--")) {
        let (head, value) = part.split_once("\r\n\r\n").ok_or_else(wrong)?;
        let (_, name) = head.split_once("name=\"").ok_or_else(wrong)?;
        let (name, _) = name.split_once('"').ok_or_else(wrong)?;
        pairs.push((name.to_owned(), value.strip_suffix("\r\n").unwrap_or(value).to_owned()));
    }
    Ok(as_map(pairs))
}

fn as_text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::bad_request("Request body is not UTF-8."))
}

fn as_map(pairs: Vec<(String, String)>) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
}

impl Fields {
    /// A text of at most [`MAX_TEXT`] bytes, if given.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.given.remove(name)? {
            Value::String(text) if text.len() > MAX_TEXT => {
                self.wrong(name, &format!("Ensure this field has no more than {MAX_TEXT} characters."))
            }
            Value::String(text) if text.contains('\0') => {
                self.wrong(name, "Null characters are not allowed.")
            }
            Value::String(text) => Some(text),
            Value::Null => self.wrong(name, "This field may not be null."),
            _ => self.wrong(name, "Not a valid string."),
        }
    }

    /// As [`Fields::text`], kept as a secret.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    /// A text that must be given and not be blank. What is missing is reported by [`Fields::finish`].
    pub(super) fn required(&mut self, name: &str) -> String {
        let absent = !self.given.contains_key(name);
        let text = self.text(name);
        if absent {
            self.wrong(name, "This field is required.");
        } else if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            self.wrong(name, "This field may not be blank.");
        }
        text.unwrap_or_default()
    }

    /// A text where blank counts as not given.
    pub(super) fn filled(&mut self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.trim().is_empty())
    }

    /// False if not given. Forms write truth as text.
    pub(super) fn truth(&mut self, name: &str) -> bool {
        match self.given.remove(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(truth)) => truth,
            Some(Value::String(text)) if matches!(text.as_str(), "true" | "True" | "1") => true,
            Some(Value::String(text)) if matches!(text.as_str(), "false" | "False" | "0" | "") => false,
            Some(_) => self.wrong(name, "Must be a valid boolean.").is_some(),
        }
    }

    /// A whole number that must be given. Forms write it as text.
    pub(super) fn whole(&mut self, name: &str) -> usize {
        let whole = match self.given.remove(name) {
            None => {
                self.wrong(name, "This field is required.");
                return 0;
            }
            Some(Value::Number(number)) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        if whole.is_none() {
            self.wrong(name, "A valid integer is required.");
        }
        whole.unwrap_or_default()
    }

    /// Texts in a list; empty if not given. A text in its place is not a list of one.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let items = match self.given.remove(name) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.wrong(name, "Expected a list of items.");
                return Vec::new();
            }
        };
        if items.len() > MAX_ITEMS {
            self.wrong(name, &format!("Ensure this field has no more than {MAX_ITEMS} elements."));
            return Vec::new();
        }
        let texts: Option<Vec<String>> =
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            self.wrong(name, "Not a valid string.");
        }
        texts.unwrap_or_default()
    }

    /// Whether the body names it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Adds a fault of the caller's own finding.
    pub(super) fn wrong(&mut self, name: &str, text: &str) -> Option<String> {
        self.errors.entry(name).or_insert_with(|| json!([text]));
        None
    }

    /// Every fault found, as one 400.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        match self.errors.is_empty() {
            true => Ok(()),
            false => Err(Refusal::fields(std::mem::take(&mut self.errors))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multipart_body_is_read_part_by_part() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"device_code\"\r\n\r\nabc\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"wait\"\r\n\r\ntrue\r\n--x--\r\n";
        let map = decode_multipart("multipart/form-data; boundary=x", body).ok().unwrap();
        assert_eq!(map["device_code"], "abc");
        assert_eq!(map["wait"], "true");
    }
}
