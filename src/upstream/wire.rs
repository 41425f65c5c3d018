//! The JSON of Ravi's API (docs/ravi-api.md §2 and §3), and the way from it to the domain's types.
//!
//! `null` and `""` both mean absent, unknown fields are ignored, doubled ones refused. Values go into a
//! `Secret` as they are parsed. Texts that people see are bounded and lose their control characters.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{AnswerFault, Identity, Owner, PasswordEntry, Result, SecretEntry, SsoToken, UpstreamError};
use crate::secret::Secret;
use crate::types::{EntryUuid, IdentityUuid, SecretKey};

/// Longest name, address or domain that is kept, in characters.
const MAX_TEXT: usize = 256;
/// Longest key or token that is kept, in bytes.
const MAX_KEY: usize = 4096;
/// How a value of the retired end-to-end encryption begins.
const LEGACY: &str = "e2e::";

pub(super) const MALFORMED: UpstreamError = UpstreamError::Answer(AnswerFault::Malformed);

/// A list: a bare array, or an object with `results` and a `next` link.
pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    pub(super) next: Option<String>,
    /// How many rows there are on all pages. `None`: a bare array, or not said.
    pub(super) count: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct IdentityRow {
    pub(super) uuid: IdentityUuid,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    inbox: String,
    #[serde(default, deserialize_with = "text")]
    phone: String,
}

#[derive(Deserialize)]
pub(super) struct PhoneRow {
    #[serde(deserialize_with = "text")]
    pub(super) phone_number: String,
}

#[derive(Deserialize)]
pub(super) struct EmailRow {
    #[serde(deserialize_with = "text")]
    pub(super) email: String,
}

#[derive(Deserialize)]
pub(super) struct OwnerBody {
    #[serde(default, deserialize_with = "text")]
    first_name: String,
    #[serde(default, deserialize_with = "text")]
    last_name: String,
}

#[derive(Deserialize)]
pub(super) struct PasswordRow {
    pub(super) uuid: EntryUuid,
    pub(super) identity: i64,
    #[serde(deserialize_with = "text")]
    domain: String,
    #[serde(default, deserialize_with = "text")]
    username: String,
    #[serde(deserialize_with = "value")]
    password: Secret,
}

#[derive(Deserialize)]
pub(super) struct SecretRow {
    pub(super) uuid: EntryUuid,
    pub(super) identity: i64,
    #[serde(deserialize_with = "text")]
    key: String,
    #[serde(deserialize_with = "value")]
    value: Secret,
}

#[derive(Deserialize)]
pub(super) struct GeneratedPassword {
    pub(super) password: Secret,
}

#[derive(Deserialize)]
pub(super) struct MintedKey {
    pub(super) key: Secret,
    pub(super) identity_uuid: IdentityUuid,
}

#[derive(Deserialize)]
pub(super) struct SsoBody {
    token: Secret,
    expires_at: String,
}

/// The body of a 429.
#[derive(Deserialize)]
pub(super) struct Throttle {
    pub(super) retry_after_seconds: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct NewPasswordBody<'a> {
    pub(super) domain: &'a str,
    pub(super) username: &'a str,
    pub(super) password: &'a str,
}

#[derive(Serialize)]
pub(super) struct PasswordChange<'a> {
    pub(super) password: &'a str,
}

#[derive(Serialize)]
pub(super) struct NewSecretBody<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

#[derive(Serialize)]
pub(super) struct SecretChange<'a> {
    pub(super) value: &'a str,
}

#[derive(Serialize)]
pub(super) struct MintBody<'a> {
    pub(super) identity_uuid: IdentityUuid,
    pub(super) label: &'a str,
}

impl From<IdentityRow> for Identity {
    fn from(row: IdentityRow) -> Self {
        let present = |text: String| (!text.is_empty()).then_some(text);
        Self { uuid: row.uuid, name: row.name, email: present(row.inbox), phone: present(row.phone) }
    }
}

impl From<OwnerBody> for Owner {
    fn from(body: OwnerBody) -> Self {
        Self { first_name: body.first_name, last_name: body.last_name }
    }
}

impl TryFrom<PasswordRow> for PasswordEntry {
    type Error = UpstreamError;

    fn try_from(row: PasswordRow) -> Result<Self> {
        refuse_legacy(&row.username)?;
        refuse_legacy(row.password.expose())?;
        let PasswordRow { uuid, domain, username, password, .. } = row;
        Ok(Self { uuid, domain, username, password })
    }
}

impl SecretRow {
    /// The row's key; `None` if no resource name can mean it.
    pub(super) fn key(&self) -> Option<SecretKey> {
        self.key.parse().ok()
    }

    /// The entry under a key that was read from this row.
    pub(super) fn entry(self, key: SecretKey) -> Result<SecretEntry> {
        refuse_legacy(self.value.expose())?;
        Ok(SecretEntry { uuid: self.uuid, key, value: self.value })
    }
}

impl TryFrom<SsoBody> for SsoToken {
    type Error = UpstreamError;

    fn try_from(body: SsoBody) -> Result<Self> {
        let expires_at: Timestamp = body.expires_at.parse().map_err(|_| MALFORMED)?;
        Ok(Self { token: checked_key(body.token, "rvt_")?, expires_at })
    }
}

/// A key or token of the expected kind: the prefix and then something, all of it fit for a header.
pub(super) fn checked_key(key: Secret, prefix: &str) -> Result<Secret> {
    let rest = key.expose().strip_prefix(prefix).unwrap_or_default();
    let fits = !rest.is_empty() && key.len() <= MAX_KEY && rest.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(key) } else { Err(MALFORMED) }
}

/// A value that is stored must come back: the retired form would be refused then.
pub(super) fn is_legacy(value: &str) -> bool {
    value.starts_with(LEGACY)
}

fn refuse_legacy(value: &str) -> Result<()> {
    if is_legacy(value) { Err(UpstreamError::Answer(AnswerFault::LegacyEncrypted)) } else { Ok(()) }
}

/// A text for people, bounded, without characters that hide or reorder others.
pub(super) fn clean(text: &str) -> String {
    clean_up_to(text, MAX_TEXT)
}

/// The same with another bound, in characters.
pub(super) fn clean_up_to(text: &str, most: usize) -> String {
    let hidden = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(|c| !hidden(c)).take(most).collect()
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    let text: Option<std::borrow::Cow<'de, str>> = Option::deserialize(deserializer)?;
    Ok(clean(&text.unwrap_or_default()))
}

fn value<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Secret, D::Error> {
    let value: Option<Secret> = Option::deserialize(deserializer)?;
    Ok(value.unwrap_or_else(|| Secret::copy_of("")))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Page<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(PageVisitor(PhantomData))
    }
}

/// By hand: serde's untagged enums would keep a second copy of every value while they choose.
struct PageVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PageVisitor<T> {
    type Value = Page<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array, or an object with results")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> std::result::Result<Page<T>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = array.next_element()? {
            rows.push(row);
        }
        Ok(Page { rows, next: None, count: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<Page<T>, A::Error> {
        let (mut rows, mut next, mut count) = (None, None, None);
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "results" if rows.is_none() => rows = Some(object.next_value()?),
                "next" if next.is_none() => next = object.next_value::<Option<String>>()?,
                "count" if count.is_none() => count = object.next_value()?,
                "results" | "next" | "count" => return Err(serde::de::Error::custom("a doubled field")),
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        let rows = rows.ok_or_else(|| serde::de::Error::missing_field("results"))?;
        Ok(Page { rows, next: next.filter(|link: &String| !link.is_empty()), count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1c2a34-0b7e-4c3d-9a55-0e8d3f0c1b2a";

    fn secret_row(fields: &str) -> std::result::Result<SecretRow, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"uuid":"{UUID}","identity":7,{fields}}}"#))
    }

    #[test]
    fn null_and_the_empty_text_both_mean_absent() {
        for field in ["null", "\"\""] {
            let row =
                format!(r#"{{"uuid":"{UUID}","name":{field},"inbox":{field},"phone":{field},"new":1}}"#);
            let identity: Identity = serde_json::from_str::<IdentityRow>(&row).unwrap().into();
            assert_eq!((identity.name.as_str(), identity.email, identity.phone), ("", None, None));
            let row = secret_row(&format!(r#""key":"A","value":{field}"#)).unwrap();
            assert!(row.value.is_empty());
        }
    }

    #[test]
    fn a_value_must_be_there_and_only_once() {
        assert!(secret_row(r#""key":"A""#).is_err());
        assert!(secret_row(r#""key":"A","value":"x","value":"y""#).is_err());
        assert!(secret_row(r#""key":"A","value":7"#).is_err());
        assert!(
            serde_json::from_str::<SecretRow>(&format!(r#"{{"uuid":"{UUID}","key":"A","value":"x"}}"#))
                .is_err()
        );
    }

    #[test]
    fn escapes_in_a_value_are_read() {
        let row = secret_row(r#""key":"A","value":"a\"b\\c\u00e9\n""#).unwrap();
        assert_eq!(row.entry("A".parse().unwrap()).unwrap().value.expose(), "a\"b\\cé\n");
    }

    #[test]
    fn a_value_of_the_retired_encryption_is_refused() {
        let error = UpstreamError::Answer(AnswerFault::LegacyEncrypted);
        let row = secret_row(r#""key":"A","value":"e2e::AAAA""#).unwrap();
        assert_eq!(row.entry("A".parse().unwrap()).err(), Some(error.clone()));
        for (username, password) in [("e2e::A", "x"), ("x", "e2e::A")] {
            let row = format!(
                r#"{{"uuid":"{UUID}","identity":7,"domain":"a.b","username":"{username}","password":"{password}"}}"#
            );
            let row: PasswordRow = serde_json::from_str(&row).unwrap();
            assert_eq!(PasswordEntry::try_from(row).err(), Some(error.clone()));
        }
    }

    #[test]
    fn a_list_is_an_array_or_a_page() {
        let rows =
            |text: &str| serde_json::from_str::<Page<u8>>(text).map(|page| (page.rows, page.next)).ok();
        assert_eq!(rows("[1,2]"), Some((vec![1, 2], None)));
        assert_eq!(rows(r#"{"count":2,"next":null,"results":[1,2]}"#), Some((vec![1, 2], None)));
        assert_eq!(
            rows(r#"{"results":[1],"next":"/x/?offset=1"}"#),
            Some((vec![1], Some("/x/?offset=1".into())))
        );
        assert_eq!(rows(r#"{"next":null}"#), None);
        assert_eq!(rows(r#"{"results":[1],"results":[2]}"#), None);
        assert_eq!(rows("null"), None);
    }

    #[test]
    fn texts_for_people_are_bounded_and_plain() {
        assert_eq!(clean("a\u{1b}[31m\r\nb\u{202e}c"), "a[31mbc");
        assert_eq!(clean(&"é".repeat(1000)).chars().count(), MAX_TEXT);
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let checked = |text: &str| checked_key(Secret::copy_of(text), "ravi_id_").is_ok();
        assert!(checked("ravi_id_abc"));
        for wrong in ["", "ravi_id_", "ravi_mgmt_abc", "abc", "ravi_id_a b", "ravi_id_a\r\nX: y", "ravi_id_é"]
        {
            assert!(!checked(wrong), "{wrong:?}");
        }
        assert!(!checked(&format!("ravi_id_{}", "a".repeat(MAX_KEY))));
    }

    #[test]
    fn a_sign_in_token_has_its_prefix_and_a_time() {
        let token = |token: &str, expires_at: &str| {
            let body = format!(r#"{{"token":"{token}","expires_at":"{expires_at}"}}"#);
            SsoToken::try_from(serde_json::from_str::<SsoBody>(&body).unwrap()).is_ok()
        };
        assert!(token("rvt_a.b.c", "2026-11-23T12:00:00Z"));
        assert!(!token("jwt_a.b.c", "2026-11-23T12:00:00Z"));
        assert!(!token("rvt_a.b.c", "tomorrow"));
    }
}
