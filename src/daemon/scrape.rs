//! `GET /metrics` over plain HTTP on a loopback address, for scrapers: the text that `ravi-broker metrics` prints, and
//! nothing else.
//!
//! Whoever can connect can read it, so it says nothing that not every user of the machine may know, and takes nothing:
//! few connections, one request each, a small head, no body, all of it in seconds. A request that names another host
//! is a web page's that looks around, and is refused. May import `grpc`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::StartError;
use crate::clock::Clock;
use crate::grpc::Admin;

/// At once. The next ones wait in the kernel's backlog.
const CONNECTIONS: usize = 8;
/// For a request and its answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// For the head of a request, in bytes; hyper takes no less.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
/// After `accept` failed, as it does for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
const PATH: &str = "/metrics";
const FORM: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A port that is listened on, and not yet served.
#[derive(Debug)]
pub(super) struct Scrape(TcpListener);

impl Scrape {
    /// To be called before the process is confined.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map(Self).map_err(|source| StartError::Metrics { address, source })
    }

    /// What serves until `stop`.
    pub(super) fn serve(
        self,
        admin: Admin,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send, StartError> {
        let listener = tokio::net::TcpListener::from_std(self.0)?;
        tracing::info!(address = %listener.local_addr()?, "metrics are served over HTTP");
        Ok(accept(listener, admin, clock, stop))
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    admin: Admin,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            clock.sleep_until(clock.now() + PAUSE).await;
            continue;
        };
        let (admin, clock, stop) = (admin.clone(), clock.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, admin) => {}
                () = clock.sleep_until(clock.now() + DEADLINE) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// One request. What goes wrong with it is the scraper's own business.
async fn serve(stream: TcpStream, admin: Admin) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let answer = match refusal(&request) {
                Some(status) => refused(status),
                None => page(admin.metrics().await.into_text()),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Why it is not answered with metrics, if it is not. hyper sends no body to HEAD.
fn refusal<B>(request: &Request<B>) -> Option<StatusCode> {
    if !is_local(request.headers()) {
        return Some(StatusCode::MISDIRECTED_REQUEST);
    }
    if request.uri().path() != PATH || request.uri().query().is_some() {
        return Some(StatusCode::NOT_FOUND);
    }
    (!matches!(*request.method(), Method::GET | Method::HEAD)).then_some(StatusCode::METHOD_NOT_ALLOWED)
}

/// Whether it was sent to this machine by an address or `localhost`: a name that leads here may be anybody's.
fn is_local(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let host = host.host().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn page(text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    answer.headers_mut().insert(CONTENT_TYPE, FORM);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: Method, path: &str, hosts: &[&str]) -> Option<StatusCode> {
        let mut request = Request::builder().method(method).uri(path);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        refusal(&request.body(()).unwrap())
    }

    #[test]
    fn only_a_request_for_metrics_that_names_this_machine_is_answered() {
        for host in ["127.0.0.1:9464", "localhost:9464", "[::1]:9464", "127.0.0.2", "localhost"] {
            assert_eq!(judged(Method::GET, PATH, &[host]), None, "{host}");
        }
        assert_eq!(judged(Method::HEAD, PATH, &["localhost"]), None);
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for hosts in [
            &["evil.example:9464"][..],
            &["127.0.0.1.evil.example"],
            &["10.0.0.1"],
            &["a b"],
            &[""],
            &[],
            &["localhost", "evil.example"],
        ] {
            assert_eq!(judged(Method::GET, PATH, hosts), misdirected, "{hosts:?}");
        }
        for path in ["/", "/metrics/", "/metrics?x=1", "/Metrics", "/debug"] {
            assert_eq!(judged(Method::GET, path, &["localhost"]), Some(StatusCode::NOT_FOUND), "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            assert_eq!(judged(method, PATH, &["localhost"]), Some(StatusCode::METHOD_NOT_ALLOWED));
        }
    }
}
