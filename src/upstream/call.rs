//! One request as the endpoints describe it, before a key or a connection is known.
//!
//! Invariant: a call for an identity names it in the query, and its path ends in `/`.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use super::exchange::Room;
use super::retry::Effect;
use super::{Result, paths};
use crate::types::IdentityUuid;

/// Which key a call goes out with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// No key at all.
    Keyless,
    /// The management key alone.
    Management,
    /// The identity's key alone.
    Identity(IdentityUuid),
    /// The identity's key if it is held, else the management key.
    Either(IdentityUuid),
}

/// A request to be sent.
pub(super) struct Call {
    pub(super) method: Method,
    /// The path with holes, for logs: names no object.
    pub(super) template: &'static str,
    path: String,
    query: String,
    pub(super) auth: Auth,
    /// Whose budget pays. `None`: the operator's.
    pub(super) identity: Option<IdentityUuid>,
    body: Bytes,
    /// How much of the answer is held.
    pub(super) room: Room,
    refusal_is_answer: bool,
    may_be_absent: bool,
}

impl Call {
    pub(super) fn get(template: &'static str) -> Self {
        Self::new(Method::GET, template)
    }

    pub(super) fn post(template: &'static str) -> Self {
        Self::new(Method::POST, template)
    }

    pub(super) fn patch(template: &'static str) -> Self {
        Self::new(Method::PATCH, template)
    }

    pub(super) fn delete(template: &'static str) -> Self {
        Self::new(Method::DELETE, template)
    }

    fn new(method: Method, template: &'static str) -> Self {
        let (path, query, body) = (template.to_owned(), String::new(), Bytes::new());
        let (auth, identity) = (Auth::Keyless, None);
        let (room, refusal_is_answer, may_be_absent) = (Room::USUAL, false, false);
        Self { method, template, path, query, auth, identity, body, room, refusal_is_answer, may_be_absent }
    }

    /// Names the object that the template's hole stands for.
    pub(super) fn object(mut self, name: &str) -> Result<Self> {
        self.path = paths::fill(self.template, name)?;
        Ok(self)
    }

    /// Adds a parameter.
    pub(super) fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        paths::push_pair(&mut self.query, name, value);
        self
    }

    /// For the resources of one identity. The identity is named with either key: a management key
    /// would otherwise see the whole account, and a mismatched identity key is then refused.
    pub(super) fn of(self, identity: IdentityUuid) -> Self {
        self.query("identity", identity).with_either_key(identity)
    }

    /// The identity's key, else the management key, without naming the identity.
    pub(super) fn with_either_key(mut self, identity: IdentityUuid) -> Self {
        (self.auth, self.identity) = (Auth::Either(identity), Some(identity));
        self
    }

    /// The identity's key and no other.
    pub(super) fn with_identity_key(mut self, identity: IdentityUuid) -> Self {
        (self.auth, self.identity) = (Auth::Identity(identity), Some(identity));
        self
    }

    /// The management key. `identity` pays.
    pub(super) fn with_management_key(mut self, identity: Option<IdentityUuid>) -> Self {
        (self.auth, self.identity) = (Auth::Management, identity);
        self
    }

    /// A JSON body in a buffer of its exact size, wiped after use.
    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        let mut size = Size(0);
        serde_json::to_writer(&mut size, body).expect("a struct of texts always serialises");
        let mut buffer = Zeroizing::new(Vec::with_capacity(size.0));
        serde_json::to_writer(&mut *buffer, body).expect("a struct of texts always serialises");
        self.body = Bytes::from_owner(buffer);
        self
    }

    /// A 400 is an answer of its own.
    pub(super) fn refusal_is_answer(mut self) -> Self {
        self.refusal_is_answer = true;
        self
    }

    /// Another bound on the answer than the usual one.
    pub(super) fn with_room(mut self, room: Room) -> Self {
        self.room = room;
        self
    }

    /// A 404 says that nothing was found, although the path names no object.
    pub(super) fn may_be_absent(mut self) -> Self {
        self.may_be_absent = true;
        self
    }

    /// The same call for the page that a `next` link names, or `None` if it leads elsewhere.
    pub(super) fn next_page(mut self, link: &str, origin: &str, own_query: &str) -> Option<Self> {
        self.query = paths::next_query(link, origin, &self.path, own_query)?;
        Some(self)
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        format!("{}{}", self.path, self.query)
    }

    pub(super) fn own_query(&self) -> &str {
        &self.query
    }

    /// Shares the buffer; the last user wipes it.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn effect(&self) -> Effect {
        if self.method == Method::GET { Effect::Read } else { Effect::Write }
    }

    /// True if a 404 can mean that the named object is absent; elsewhere it means the wrong host.
    pub(super) fn names_object(&self) -> bool {
        self.may_be_absent || self.path != self.template
    }

    /// What is read of an answer with this status.
    pub(super) fn keeps(&self, status: StatusCode) -> Keep {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Keep::Hint,
            StatusCode::BAD_REQUEST if self.refusal_is_answer => Keep::Hint,
            status if status.is_success() && self.method != Method::DELETE => Keep::Answer,
            _ => Keep::Nothing,
        }
    }
}

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// All of it: it is the answer.
    Answer,
    /// A little, if it can be had: a number or a code of an error.
    Hint,
    /// Nothing.
    Nothing,
}

struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_call_names_its_identity() {
        let identity = IdentityUuid(uuid::Uuid::from_u128(1));
        let call = Call::get("/api/secrets/").of(identity).query("key", "A+B");
        let target = "/api/secrets/?identity=00000000-0000-0000-0000-000000000001&key=A%2BB";
        assert_eq!(call.target(), target);
        assert_eq!(call.auth, Auth::Either(identity));
        assert_eq!(call.identity, Some(identity));
    }

    #[test]
    fn only_a_get_is_a_read() {
        assert_eq!(Call::get("/").effect(), Effect::Read);
        for call in [Call::post("/"), Call::patch("/"), Call::delete("/")] {
            assert_eq!(call.effect(), Effect::Write);
        }
    }

    #[test]
    fn the_text_of_an_error_is_not_read() {
        let call = Call::post("/api/secrets/");
        for status in [301, 400, 401, 403, 404, 409, 500, 503] {
            assert_eq!(call.keeps(StatusCode::from_u16(status).unwrap()), Keep::Nothing, "{status}");
        }
        assert_eq!(call.keeps(StatusCode::CREATED), Keep::Answer);
    }
}
