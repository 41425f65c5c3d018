//! The listening side: accepts on loopback, speaks TLS or plain HTTP/1.1, hands each request to the
//! control endpoints or, through the faults, to the API. Connections, headers, bodies and waits are
//! bounded.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::clock::{Clock, SystemClock};

use super::behaviour::Behaviour;
use super::control::Control;
use super::control_http;
use super::fault::{self, Reset};
use super::random::NoRandomness;
use super::reply::Refusal;
use super::routes;
use super::seed::{self, Seed};
use super::state::{Api, Shared};
use super::tls::{self, NoCertificates, Tls};

const MAX_CONNECTIONS: usize = 256;
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 64 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Also closes connections that idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a sandbox is started with.
pub struct SandboxConfig {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Plain HTTP instead of TLS.
    pub http: bool,
    /// The keys of the account.
    pub seed: Seed,
    /// The switches at the start.
    pub behaviour: Behaviour,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http: false,
            seed: Seed::default(),
            behaviour: Behaviour::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Why a sandbox does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Choose 127.0.0.1 or ::1.
    #[error("the sandbox listens on loopback addresses only")]
    NotLoopback,
    /// Choose another port, or 0.
    #[error("cannot listen on {0}: {kind}", kind = .1.kind())]
    Listen(SocketAddr, std::io::Error),
    /// A supplied key cannot be one.
    #[error("a supplied key is not of the form ravi_mgmt_… or ravi_id_…")]
    WrongKeyForm,
    /// No certificates.
    #[error(transparent)]
    Certificates(#[from] NoCertificates),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// A running sandbox. Dropping it ends it as [`Sandbox::shutdown`] does, without waiting.
pub struct Sandbox {
    address: SocketAddr,
    api: Api,
    ca_pem: Option<String>,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Sandbox {
    /// Binds, makes the certificates and serves until shut down.
    pub async fn start(config: SandboxConfig) -> Result<Self, StartError> {
        if !config.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback);
        }
        config.seed.check().map_err(|_| StartError::WrongKeyForm)?;
        let seed = config.seed.completed()?;
        let world = seed::world(&seed, config.behaviour.clone(), config.clock.wall())?;
        // Clients judge certificates by the real time, whatever clock the account lives by.
        let tls = if config.http { None } else { Some(tls::make(SystemClock.wall())?) };
        let listeners = Listeners::bind(config.listen).await?;
        let origins = listeners.origins(if config.http { "http" } else { "https" });
        let api = Arc::new(Shared::new(config.clock, origins, seed, config.behaviour, world));
        Ok(Self::spawn(listeners, api, tls))
    }

    fn spawn(listeners: Listeners, api: Api, tls: Option<Tls>) -> Self {
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let front = |ravi, control| {
            let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.config.clone()));
            Arc::new(Front { tls, ravi, control, api: api.clone() })
        };
        let main = front(routes::router(api.clone()), Some(control_http::router(api.clone())));
        let storage = front(routes::storage(api.clone()), None);
        let Listeners { main: (listener, address), storage: (storage_listener, _) } = listeners;
        connections.spawn(accept(listener, main, stop.clone(), connections.clone()));
        connections.spawn(accept(storage_listener, storage, stop.clone(), connections.clone()));
        Self { address, api, ca_pem: tls.map(|tls| tls.ca_pem), stop, connections }
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.api.origin
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that clients must trust; `None` over plain HTTP.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The handle that steers it.
    pub fn control(&self) -> Control {
        Control::new(self.api.clone())
    }

    /// Closes every connection and waits until all are gone.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The API's, and that of the storage, which plays a host of its own.
struct Listeners {
    main: (TcpListener, SocketAddr),
    storage: (TcpListener, SocketAddr),
}

impl Listeners {
    async fn bind(listen: SocketAddr) -> Result<Self, StartError> {
        let free = SocketAddr::new(listen.ip(), 0);
        Ok(Self { main: bind(listen).await?, storage: bind(free).await? })
    }

    fn origins(&self, scheme: &str) -> (String, String) {
        let origin = |address| format!("{scheme}://{address}");
        (origin(self.main.1), origin(self.storage.1))
    }
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::Listen(listen, error);
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// What the connections of one listener share.
struct Front {
    tls: Option<TlsAcceptor>,
    ravi: Router,
    /// The storage has none.
    control: Option<Router>,
    api: Api,
}

async fn accept(listener: TcpListener, front: Arc<Front>, stop: CancellationToken, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let (front, stop) = (front.clone(), stop.clone());
                    tasks.spawn(async move {
                        stop.run_until_cancelled(front.connection(socket, peer)).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or a peer that left: neither ends the server, nor may it spin.
                Err(_) => {
                    let clock = &front.api.clock;
                    clock.sleep_until(clock.now() + ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(next).await;
}

impl Front {
    /// One connection, from the handshake to the end. Nobody is told how it ended.
    async fn connection(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let _ = socket.set_nodelay(true);
        let reset = Arc::new(AtomicBool::new(false));
        let socket = Resettable { socket, reset: reset.clone() };
        match self.tls.clone() {
            None => self.http(socket, peer, reset).await,
            Some(tls) => {
                if let Ok(Ok(socket)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
                    self.http(socket, peer, reset).await;
                }
            }
        }
    }

    async fn http<S>(self: Arc<Self>, socket: S, peer: SocketAddr, reset: Arc<AtomicBool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let (front, reset) = (self.clone(), reset.clone());
            async move {
                let answer = front.answer(peer, request.map(Body::new)).await;
                reset.store(answer.is_err(), Ordering::Relaxed);
                answer
            }
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(socket), service)
            .await;
    }

    async fn answer(&self, peer: SocketAddr, request: Request<Body>) -> Result<Response, Reset> {
        let control =
            self.control.as_ref().filter(|_| request.uri().path().starts_with(control_http::PREFIX));
        let Some(control) = control else {
            return fault::serve(&self.api, self.ravi.clone(), request).await;
        };
        if !control_http::may_steer(peer.ip(), request.headers()) {
            return Ok(Refusal::detail(StatusCode::FORBIDDEN, "Loopback only.").into_response());
        }
        let answer = control.clone().oneshot(request).await;
        Ok(answer.unwrap_or_else(|never: Infallible| match never {}))
    }
}

/// A socket that ends in RST instead of FIN when told so.
struct Resettable {
    socket: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
