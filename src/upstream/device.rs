//! The device-code login (docs/ravi-api.md §2.3): what the answers mean. Pure.
//!
//! The page that a person is sent to is never taken as it came: the API returns an internal path.

use std::time::Duration;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::wire::{IdentityRow, MALFORMED, checked_key, clean, text};
use super::{DeviceLogin, DevicePoll, Result, UpstreamError, paths};
use crate::secret::Secret;

/// Hosts of Ravi itself; their people sign in at [`HOSTED_PAGE`].
const HOSTED: [&str; 6] =
    ["api.ravi.id", "ravi.id", "www.ravi.id", "api.ravi.app", "ravi.app", "www.ravi.app"];
const HOSTED_PAGE: &str = "https://ravi.id/device";
const INTERNAL_PATH: &str = "/api/auth/device/verify";
const PAGE_PATH: &str = "/device";
/// Interval when none is given, in seconds (RFC 8628 §3.2).
const DEFAULT_INTERVAL: u64 = 5;
const MAX_INTERVAL: u64 = 60;
const MAX_LIFE: u64 = 3600;

#[derive(Deserialize)]
pub(super) struct Started {
    device_code: Secret,
    #[serde(deserialize_with = "text")]
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct PollBody<'a> {
    pub(super) device_code: &'a str,
    pub(super) wait: bool,
}

#[derive(Deserialize)]
pub(super) struct Approved {
    management_key: Secret,
    identities: Option<Vec<IdentityRow>>,
}

#[derive(Deserialize)]
pub(super) struct NotApproved {
    error: String,
}

impl TryFrom<Started> for DeviceLogin {
    type Error = UpstreamError;

    fn try_from(started: Started) -> Result<Self> {
        if started.device_code.is_empty() || started.user_code.is_empty() {
            return Err(MALFORMED);
        }
        let verification_url = page(&started.verification_uri, &started.user_code).ok_or(MALFORMED)?;
        let interval = started.interval.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_INTERVAL);
        Ok(Self {
            device_code: started.device_code,
            user_code: started.user_code,
            verification_url,
            expires_in: Duration::from_secs(started.expires_in.clamp(1, MAX_LIFE)),
            interval: Duration::from_secs(interval.min(MAX_INTERVAL)),
        })
    }
}

impl TryFrom<Approved> for DevicePoll {
    type Error = UpstreamError;

    fn try_from(approved: Approved) -> Result<Self> {
        let management_key = checked_key(approved.management_key, "ravi_mgmt_")?;
        let identities = approved.identities.unwrap_or_default().into_iter().map(Into::into).collect();
        Ok(Self::Approved { management_key, identities })
    }
}

impl TryFrom<NotApproved> for DevicePoll {
    type Error = UpstreamError;

    fn try_from(answer: NotApproved) -> Result<Self> {
        match answer.error.as_str() {
            "authorization_pending" => Ok(Self::Pending),
            "slow_down" => Ok(Self::SlowDown),
            "access_denied" => Ok(Self::Denied),
            "expired_token" | "invalid_grant" => Ok(Self::Expired),
            _ => Err(UpstreamError::Invalid),
        }
    }
}

/// The page for a person: `https`, or `http` on this machine, without the server's own query.
fn page(verification_uri: &str, user_code: &str) -> Option<String> {
    let plain = verification_uri == clean(verification_uri) && !verification_uri.contains(['@', '\\']);
    let uri: Uri = verification_uri.parse().ok().filter(|_| plain)?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let code = paths::encode(user_code);
    if HOSTED.contains(&authority.host().to_ascii_lowercase().as_str()) {
        return Some(format!("{HOSTED_PAGE}?user_code={code}"));
    }
    let origin: crate::types::BaseUrl = format!("{scheme}://{authority}").parse().ok()?;
    let path = uri.path().trim_end_matches('/');
    let path = if path == INTERNAL_PATH { PAGE_PATH } else { path };
    Some(format!("{origin}{path}?user_code={code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_sent_to_the_page_of_ravi_for_every_host_of_ravi() {
        for host in HOSTED {
            let uri = format!("https://{host}/api/auth/device/verify/");
            assert_eq!(page(&uri, "AB-12").unwrap(), "https://ravi.id/device?user_code=AB-12");
        }
    }

    #[test]
    fn another_host_keeps_its_origin() {
        let sent = |uri: &str| page(uri, "A B");
        let url = Some("https://127.0.0.1:8443/device?user_code=A%20B".to_owned());
        assert_eq!(sent("https://127.0.0.1:8443/api/auth/device/verify/"), url);
        assert_eq!(sent("https://127.0.0.1:8443/api/auth/device/verify?x=1"), url);
        assert_eq!(sent("https://127.0.0.1:8443/device/"), url);
    }

    #[test]
    fn a_page_that_could_mislead_is_refused() {
        for uri in [
            "",
            "/device",
            "javascript:alert(1)",
            "http://evil.example/device",
            "https://ravi.id@evil.example/device",
            "https://evil.example\\@ravi.id/device",
            "https://e\u{202e}vil.example/device",
            "https://ravi.id\n/device",
        ] {
            assert_eq!(page(uri, "A"), None, "{uri:?}");
        }
        assert_eq!(page("https://RAVI.id:8443/x", "A").unwrap(), "https://ravi.id/device?user_code=A");
    }

    #[test]
    fn times_are_bounded() {
        let started = |expires_in: u64, interval: &str| {
            let body = format!(
                r#"{{"device_code":"d","user_code":"A","verification_uri":"https://ravi.id/x",
                    "expires_in":{expires_in},"interval":{interval}}}"#
            );
            let login = DeviceLogin::try_from(serde_json::from_str::<Started>(&body).unwrap()).unwrap();
            (login.expires_in.as_secs(), login.interval.as_secs())
        };
        assert_eq!(started(900, "5"), (900, 5));
        assert_eq!(started(300, "0"), (300, 5));
        assert_eq!(started(0, "null"), (1, 5));
        assert_eq!(started(u64::MAX, "99999"), (3600, 60));
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        let poll = |error: &str| DevicePoll::try_from(NotApproved { error: error.into() });
        assert!(matches!(poll("authorization_pending"), Ok(DevicePoll::Pending)));
        assert!(matches!(poll("slow_down"), Ok(DevicePoll::SlowDown)));
        assert!(matches!(poll("access_denied"), Ok(DevicePoll::Denied)));
        assert!(matches!(poll("expired_token"), Ok(DevicePoll::Expired)));
        assert!(matches!(poll("invalid_grant"), Ok(DevicePoll::Expired)));
        assert!(matches!(poll("something else"), Err(UpstreamError::Invalid)));
    }

    #[test]
    fn only_a_management_key_approves() {
        let approved = |body: &str| DevicePoll::try_from(serde_json::from_str::<Approved>(body).unwrap());
        assert!(matches!(
            approved(r#"{"management_key":"ravi_mgmt_x","identity_key":"ravi_id_y"}"#),
            Ok(DevicePoll::Approved { .. })
        ));
        assert!(approved(r#"{"management_key":"ravi_id_x"}"#).is_err());
    }
}
