//! Where attachments are uploaded to: a host that Ravi names, which need not be Ravi's.
//!
//! Invariants: nothing here has a key or can be given one. `https` alone, the same roots, no redirect. The host is the
//! origin of Ravi itself or on the public internet, by name and by what the name resolves to, so that an answer of
//! Ravi's steers no request into this network; with Ravi on loopback, which is a test, loopback too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use zeroize::Zeroizing;

use super::call::Keep;
use super::exchange::{Room, exchange};
use super::http::{AGENT, CONNECT, Settings};
use super::resolve::{Reach, Resolver};
use super::retry;
use super::tls::{self, SettingsError};
use super::wire::MALFORMED;
use super::{AnswerFault, Budget, Result, UpstreamError};
use crate::clock::{BootInstant, Clock};
use crate::types::{BaseUrl, IdentityUuid, LOCALHOST};

/// One upload in all.
const DEADLINE: Duration = Duration::from_secs(60);
/// Uploads under way at once: each holds a file.
const MAX_UPLOADS: usize = 4;
/// Longest address that is gone to, in bytes: it carries a signature.
const MAX_ADDRESS: usize = 8192;

/// Takes files. Shared by all callers.
pub(super) struct Storage {
    ravi: BaseUrl,
    tls: Arc<ClientConfig>,
    budget: Arc<dyn Budget>,
    clock: Arc<dyn Clock>,
    under_way: Semaphore,
    sent: AtomicU64,
}

/// A file on its way.
pub(super) struct Upload {
    /// Who pays.
    pub(super) identity: IdentityUuid,
    pub(super) content_type: HeaderValue,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Storage {
    pub(super) fn new(
        settings: &Settings,
        budget: Arc<dyn Budget>,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, SettingsError> {
        let ravi = settings.base_url.clone();
        let tls = Arc::new(tls::client_config(settings.ca_pem.as_deref())?);
        let (under_way, sent) = (Semaphore::new(MAX_UPLOADS), AtomicU64::new(0));
        Ok(Self { ravi, tls, budget, clock, under_way, sent })
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Puts the file where the address says. Tried once. A file whose upload is in doubt is in no mail, so what is
    /// in doubt counts as not done.
    pub(super) async fn put(&self, address: &str, upload: Upload) -> Result<()> {
        let target = Target::parse(address, &self.ravi).ok_or(MALFORMED)?;
        let end = self.clock.now() + DEADLINE;
        let _permit = self.within(end, self.under_way.acquire()).await.ok_or(UpstreamError::Unavailable)?;
        let over = |retry_after| UpstreamError::BudgetReached { retry_after };
        self.budget.take(Some(upload.identity)).map_err(over)?;
        let started = self.clock.now();
        let outcome = self.send(target, upload, end).await;
        tracing::debug!(
            ok = outcome.is_ok(),
            duration_ms = u64::try_from(self.clock.now().since(started).as_millis()).unwrap_or(u64::MAX),
            "upload"
        );
        outcome
    }

    async fn send(&self, target: Target, upload: Upload, end: BootInstant) -> Result<()> {
        let connecting = self.connector(target.reach).oneshot(target.origin.uri().clone());
        let connection = self.within(end, connecting).await.and_then(std::result::Result::ok);
        let connection = connection.ok_or(UpstreamError::Unavailable)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let request = Request::put(target.path)
            .header(HOST, target.origin.authority())
            .header(CONTENT_TYPE, upload.content_type)
            .header(CONTENT_LENGTH, upload.bytes.len())
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from_owner(upload.bytes)))
            .map_err(|_| MALFORMED)?;
        let sending = exchange(connection, request, |_| Keep::Nothing, Room::USUAL);
        let reply = self.within(end, sending).await.and_then(std::result::Result::ok);
        let reply = reply.ok_or(UpstreamError::Unavailable)?;
        match reply.status.as_u16() {
            200..=299 => Ok(()),
            300..=399 => Err(UpstreamError::Answer(AnswerFault::Redirect)),
            401 | 403 => Err(UpstreamError::Refused),
            429 => Err(UpstreamError::Throttled { retry_after: retry::throttle(None, reply.retry_after) }),
            400..=499 => Err(UpstreamError::Invalid),
            _ => Err(UpstreamError::Unavailable),
        }
    }

    fn connector(&self, reach: Reach) -> HttpsConnector<HttpConnector<Resolver>> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(reach));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        HttpsConnector::from((tcp, self.tls.clone()))
    }

    async fn within<F: Future>(&self, end: BootInstant, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.clock.sleep_until(end) => None,
        }
    }
}

struct Target {
    origin: BaseUrl,
    path: Uri,
    reach: Reach,
}

impl Target {
    /// `None`: no address that a file is taken to.
    fn parse(address: &str, ravi: &BaseUrl) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\' | b'"' | b'<' | b'>');
        if address.len() > MAX_ADDRESS || !address.bytes().all(plain) {
            return None;
        }
        let rest = address.strip_prefix("https://")?;
        let (authority, _) = rest.split_once('/')?;
        let origin: BaseUrl = format!("https://{authority}").parse().ok()?;
        let path = rest[authority.len()..].parse().ok()?;
        let reach = match (ravi.uri().host()?, origin.uri().host()?) {
            _ if origin == *ravi => Reach::All,
            (ravi, host) if is_loopback(ravi) && is_loopback(host) => Reach::Loopback,
            (_, host) if literal(host).map_or(!is_loopback(host), |ip| Reach::Public.covers(ip)) => {
                Reach::Public
            }
            _ => return None,
        };
        Some(Self { origin, path, reach })
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

fn is_loopback(host: &str) -> bool {
    literal(host).map_or(host == LOCALHOST, |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(address: &str, ravi: &str) -> bool {
        Target::parse(address, &ravi.parse().unwrap()).is_some()
    }

    #[test]
    fn a_file_goes_to_ravi_or_to_the_public_internet() {
        let ravi = "https://api.ravi.id";
        assert!(goes("https://bucket.s3.example.com/a/b?X-Signature=1%2F2&x=~", ravi));
        assert!(goes("https://api.ravi.id/upload/1", ravi));
        assert!(goes("https://8.8.8.8/x", ravi));
        assert!(goes("https://[2606:4700::1]:8443/x", ravi));
        assert!(goes("https://10.0.0.5/x", "https://10.0.0.5"), "where the keys go as well");
        assert!(goes("https://127.0.0.1:4444/x", "https://127.0.0.1:3333"));
        assert!(goes("https://localhost:4444/x", "http://127.0.0.1:3333"));
    }

    #[test]
    fn a_file_goes_nowhere_else_under_no_spelling() {
        for address in [
            "http://bucket.s3.example.com/x",
            "HTTPS://bucket.s3.example.com/x",
            "https://bucket.s3.example.com",
            "https:///x",
            "https://user@bucket.s3.example.com/x",
            "https://bucket.s3.example.com/x y",
            "https://bucket.s3.example.com/x\r\nAuthorization: Bearer x",
            "https://bucket.s3.example.com/x#y",
            "https://bucket.s3.example.com\\@10.0.0.1/x",
            "https://127.0.0.1/x",
            "https://localhost/x",
            "https://10.1.2.3/x",
            "https://172.16.0.1/x",
            "https://192.168.0.1/x",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.100.100.200/x",
            "https://0.0.0.0/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://127.1/x",
            "https://[::1]/x",
            "https://[::]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[64:ff9b::7f00:1]/x",
            "https://[fd00:ec2::254]/x",
            "https://[fe80::1]/x",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!goes(address, "https://api.ravi.id"), "{address:?}");
        }
        assert!(!goes("https://10.0.0.6/x", "https://10.0.0.5"), "a neighbour of Ravi's");
        assert!(!goes("https://10.0.0.6/x", "https://127.0.0.1"));
    }
}
