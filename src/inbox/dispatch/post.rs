//! One POST and its answer, on a connection of its own.
//!
//! The address that is connected to decides, not the name: unless the rule allows other machines, it is a loopback
//! one. No redirect is followed, no proxy and no variable is looked at, all of it takes 10 s at most, and of the
//! answer 4 KiB are read. Imports `clock`, `types` and from `upstream` what TLS trusts.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tower::{ServiceExt, service_fn};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::types::CallbackUrl;
use crate::upstream::{SettingsError, public_tls};

/// From the look-up of the name to the end of the answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Of an answer that is read.
pub const MAX_ANSWER: usize = 4096;
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
const AGENT: &str = concat!("ravi-broker/", env!("CARGO_PKG_VERSION"));

/// Posts to callbacks. Shared by all deliveries.
pub struct Post {
    tls: Arc<ClientConfig>,
    clock: Arc<dyn Clock>,
}

/// What is posted.
pub struct Parcel<'a> {
    /// Where to.
    pub to: &'a CallbackUrl,
    /// Not only to this machine.
    pub allow_remote: bool,
    /// Besides those of every request.
    pub headers: HeaderMap,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What it says.
    pub body: Zeroizing<Vec<u8>>,
}

/// An answer, judged by nobody yet.
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// `Retry-After`, where it is a number of seconds.
    pub retry_after: Option<Duration>,
    /// Its beginning: up to 4 KiB, as far as it came in time.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The name has no address on this machine, and others are not allowed.
    Elsewhere,
    /// Nobody accepts there, or the name cannot be looked up.
    Unreachable,
    /// It ended without an answer, or the answer is no HTTP.
    Lost,
    /// It took too long.
    TimedOut,
}

impl Post {
    /// Trusts the built-in roots.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Ok(Self { tls: Arc::new(public_tls()?), clock })
    }

    /// Sends it once. From the moment that it is written the callback may have taken it, whatever comes back.
    pub async fn send(&self, parcel: Parcel<'_>) -> Result<Reply, PostError> {
        let end = self.clock.now() + DEADLINE;
        let mut elapsed = self.clock.sleep_until(end);
        let Parcel { to, allow_remote, headers, content_type, body } = parcel;
        let connected = tokio::select! {
            connected = self.connect(to, allow_remote) => connected?,
            () = &mut elapsed => return Err(PostError::TimedOut),
        };
        let mut request = Request::post(to.path())
            .header(HOST, to.origin().authority())
            .header(CONTENT_TYPE, content_type)
            .header(CONTENT_LENGTH, body.len())
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from_owner(body)))
            .map_err(|_| PostError::Lost)?;
        request.headers_mut().extend(headers);
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let (mut sender, connection) = http.handshake(connected).await.map_err(|_| PostError::Lost)?;
        let answer = async move {
            let response = tokio::select! {
                response = sender.send_request(request) => response.map_err(|_| PostError::Lost)?,
                () = &mut elapsed => return Err(PostError::TimedOut),
            };
            let (head, body) = response.into_parts();
            let mut kept = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
            // The status has told what there is to know: a body that does not end changes nothing.
            tokio::select! {
                () = read(body, &mut kept) => {}
                () = &mut elapsed => {}
            }
            Ok(Reply { status: head.status.as_u16(), retry_after: retry_after(&head.headers), body: kept })
        };
        match select(std::pin::pin!(answer), std::pin::pin!(connection)).await {
            Either::Left((reply, _)) => reply,
            // The connection is done; what it received is still to be taken out.
            Either::Right((_, answer)) => answer.await,
        }
    }

    async fn connect(
        &self,
        to: &CallbackUrl,
        allow_remote: bool,
    ) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, PostError> {
        let mut stream = Some(reach(to, allow_remote).await?);
        // It is connected already; the address is given for the name in it, which TLS checks.
        let connected = service_fn(move |_: Uri| {
            let stream = stream.take().map(TokioIo::new).ok_or(io::ErrorKind::NotConnected);
            ready(stream.map_err(io::Error::from))
        });
        let tls = HttpsConnector::from((connected, self.tls.clone()));
        tls.oneshot(to.origin().uri().clone()).await.map_err(|_| PostError::Unreachable)
    }
}

/// Connects to one of the addresses that may be reached.
async fn reach(to: &CallbackUrl, allow_remote: bool) -> Result<TcpStream, PostError> {
    let allowed = |address: &SocketAddr| allow_remote || address.ip().is_loopback();
    let found: Vec<SocketAddr> = match to.literal() {
        Some(address) => vec![SocketAddr::new(address, to.port())],
        None => {
            let found = lookup_host((to.host(), to.port())).await.map_err(|_| PostError::Unreachable)?;
            found.collect()
        }
    };
    let mut outcome = Err(if found.is_empty() { PostError::Unreachable } else { PostError::Elsewhere });
    for address in found.into_iter().filter(allowed).take(MAX_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) if stream.peer_addr().is_ok_and(|peer| allowed(&peer)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            _ => outcome = Err(PostError::Unreachable),
        }
    }
    outcome
}

async fn read(mut body: Incoming, kept: &mut Vec<u8>) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = MAX_ANSWER - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() >= room {
            return;
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
