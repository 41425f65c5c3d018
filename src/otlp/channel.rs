//! One call to the collector, on a connection of its own: gRPC over HTTP/2, in the clear to a loopback address and
//! over TLS to any other.
//!
//! All of it, from the look-up of the name on, is over at the deadline, and nothing that it began outlives it. No
//! redirect is followed, no proxy and no variable is looked at. Imports `clock`, `types` and its neighbours.

use std::future::{Future, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use tower::{ServiceExt, service_fn};

use super::messages::Answer;
use crate::clock::Clock;
use crate::types::BaseUrl;

/// Of an answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
const MAX_HEADERS: u32 = 16 * 1024;
/// What a connection reads ahead.
const WINDOW: u32 = 64 * 1024;
const H2: &[u8] = b"h2";

/// The way to the collector.
pub(super) struct Channel {
    endpoint: BaseUrl,
    port: u16,
    tls: Arc<ClientConfig>,
    clock: Arc<dyn Clock>,
}

/// Why the collector did not take it. No word of it is the collector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody accepts there, or TLS fails.
    Unreachable,
    /// It took too long.
    TimedOut,
    /// It answered so.
    Refused(Code),
}

impl Fault {
    /// Whether the same may be sent once more (OTLP 1.x, "Failures").
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::Unreachable | Self::TimedOut => true,
            Self::Refused(code) => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }

    /// For the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "nobody answers there",
            Self::TimedOut => "no answer in time",
            Self::Refused(code) => code.description(),
        }
    }
}

impl Channel {
    pub(super) fn new(endpoint: BaseUrl, port: u16, mut tls: ClientConfig, clock: Arc<dyn Clock>) -> Self {
        tls.alpn_protocols = vec![H2.to_vec()];
        Self { endpoint, port, tls: Arc::new(tls), clock }
    }

    /// Sends it once. `Ok` says how many of what was sent were rejected.
    pub(super) async fn call<M: Message + 'static>(
        &self,
        method: &'static str,
        message: M,
        within: Duration,
    ) -> Result<i64, Fault> {
        let end = self.clock.now() + within;
        let tasks = Tasks::default();
        let _ended = Ended(tasks.clone());
        tokio::select! {
            answer = self.exchange(method, message, within, tasks) => answer,
            () = self.clock.sleep_until(end) => Err(Fault::TimedOut),
        }
    }

    async fn exchange<M: Message + 'static>(
        &self,
        method: &'static str,
        message: M,
        within: Duration,
        tasks: Tasks,
    ) -> Result<i64, Fault> {
        let io = self.connect().await?;
        let mut http = http2::Builder::new(tasks.clone());
        http.max_header_list_size(MAX_HEADERS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let (mut sender, connection) = http.handshake(io).await.map_err(|_| Fault::Unreachable)?;
        tasks.execute(async move {
            let _ = connection.await;
        });
        let service = service_fn(move |request| sender.send_request(request));
        let mut grpc =
            Grpc::with_origin(service, self.endpoint.uri().clone()).max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|_| Fault::Unreachable)?;
        let mut request = Request::new(message);
        request.set_timeout(within);
        let (path, codec) = (PathAndQuery::from_static(method), ProstCodec::<M, Answer>::default());
        let answer =
            grpc.unary(request, path, codec).await.map_err(|status| Fault::Refused(status.code()))?;
        Ok(answer.into_inner().partial_success.map_or(0, |partial| partial.rejected))
    }

    async fn connect(&self) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, Fault> {
        let mut stream = Some(self.reach().await?);
        // It is connected already; the address is given for the name in it, which TLS checks.
        let connected = service_fn(move |_: http::Uri| {
            let stream = stream.take().map(TokioIo::new).ok_or(io::ErrorKind::NotConnected);
            ready(stream.map_err(io::Error::from))
        });
        let tls = HttpsConnector::from((connected, self.tls.clone()));
        tls.oneshot(self.endpoint.uri().clone()).await.map_err(|_| Fault::Unreachable)
    }

    async fn reach(&self) -> Result<TcpStream, Fault> {
        let host = self.endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        let literal = match host {
            // Whatever the resolver says: what goes there is not encrypted.
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        };
        let addresses: Vec<SocketAddr> = match literal {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => {
                let found = lookup_host((host, self.port)).await.map_err(|_| Fault::Unreachable)?;
                found.take(MAX_ADDRESSES).collect()
            }
        };
        for address in addresses {
            if let Ok(stream) = TcpStream::connect(address).await {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(Fault::Unreachable)
    }
}

/// What a connection has begun.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            future.await;
        });
    }
}

/// Ends what was begun: a connection whose other side hangs would wait for it.
struct Ended(Tasks);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
