//! The client: as many callers as are asked for, each with a session of its own, over as many connections.
//!
//! Closed loop: each sends its next call when the last is answered. Open loop (`--rate`): calls have a time at which
//! they are due, and their latency counts from that, so that a server that stalls is charged for every call that it
//! made wait (coordinated omission).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use hyper_util::rt::TokioIo;
use ravi_broker::pb;
use ravi_broker::pb::lease_service_client::LeaseServiceClient;
use ravi_broker::pb::session_service_client::SessionServiceClient;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::process::Process;

/// What is sent.
#[derive(Args, Clone)]
pub(crate) struct Drive {
    /// The server's socket
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// The role that each caller assumes
    #[arg(long, default_value = "bench")]
    role: String,
    #[arg(long, value_enum, default_value = "acquire")]
    verb: Verb,
    /// What is leased
    #[arg(long, default_value = "secret/OPENAI_API_KEY")]
    resource: String,
    /// Callers at once
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: usize,
    /// Connections that they share; 0: one each
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Calls of each caller. The leases of one session are bounded by the role
    #[arg(long, default_value_t = 2000)]
    pub(crate) calls: usize,
    /// End after so many seconds, whatever is left of the calls
    #[arg(long)]
    duration: Option<f64>,
    /// Calls a second of all callers together (open loop)
    #[arg(long)]
    rate: Option<f64>,
    /// Calls of each caller before what counts
    #[arg(long, default_value_t = 50)]
    warmup: usize,
    /// One thread for the client
    #[arg(long)]
    single: bool,
    /// Keep the sessions after the result was printed, until standard input ends
    #[arg(long)]
    hold: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Acquire,
    List,
    /// A lease that the role does not allow.
    Refused,
}

/// One line of JSON. Latencies in microseconds, memory in KiB.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    verb: Verb,
    clients: usize,
    connections: usize,
    open_loop: bool,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    seconds: f64,
    pub(crate) throughput: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Of the server, for each call.
    pub(crate) server_cpu: f64,
    pub(crate) server_resident: u64,
}

/// One caller's part.
struct Caller {
    client: LeaseServiceClient<Channel>,
    sessions: SessionServiceClient<Channel>,
    token: MetadataValue<Ascii>,
}

struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
}

impl Drive {
    pub(crate) fn run(self) {
        let mut builder = if self.single {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        builder.enable_all().build().unwrap().block_on(self.measured());
    }

    async fn measured(self) {
        let server = Process::behind(&self.socket);
        let connections = if self.connections == 0 { self.clients } else { self.connections };
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(connect(&self.socket).await);
        }
        let mut callers = Vec::new();
        for number in 0..self.clients {
            callers.push(Caller::open(channels[number % connections].clone(), &self.role).await);
        }
        self.all(&mut callers, Pace::closed(self.warmup)).await;
        let (cpu, began) = (server.cpu(), Instant::now());
        let tally = self.all(&mut callers, self.pace(began)).await;
        let (took, cpu) = (began.elapsed(), server.cpu().saturating_sub(cpu));
        let resident = server.resident();
        let calls = tally.latencies.len();
        let micros = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let outcome = Outcome {
            verb: self.verb,
            clients: self.clients,
            connections,
            open_loop: self.rate.is_some(),
            calls,
            errors: tally.errors,
            seconds: took.as_secs_f64(),
            throughput: calls as f64 / took.as_secs_f64(),
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p999: micros(0.999),
            max: tally.latencies.max() as f64 / 1e3,
            server_cpu: cpu.as_secs_f64() * 1e6 / calls as f64,
            server_resident: resident,
        };
        println!("{}", serde_json::to_string(&outcome).unwrap());
        if self.hold {
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        for caller in &mut callers {
            caller.close().await;
        }
    }

    fn pace(&self, began: Instant) -> Pace {
        let every = self.rate.map(|rate| Duration::from_secs_f64(self.clients as f64 / rate));
        let until = self.duration.map(|seconds| began + Duration::from_secs_f64(seconds));
        Pace { calls: self.calls, began, every, until, of: self.clients }
    }

    /// Lets all callers make their calls at once.
    async fn all(&self, callers: &mut Vec<Caller>, pace: Pace) -> Tally {
        let each = std::mem::take(callers).into_iter().enumerate().map(|(number, mut caller)| {
            let (request, verb, pace) = (self.request(), self.verb, pace.clone());
            tokio::spawn(async move {
                let tally = caller.call(verb, &request, &pace, number).await;
                (caller, tally)
            })
        });
        let mut all = Tally::new();
        for one in each.collect::<Vec<_>>() {
            let (caller, tally) = one.await.unwrap();
            callers.push(caller);
            all.latencies.add(tally.latencies).unwrap();
            all.errors += tally.errors;
        }
        all
    }

    fn request(&self) -> pb::AcquireLeaseRequest {
        let resource = match self.verb {
            Verb::Refused => "secret/NOT_FOR_THIS_ROLE".to_owned(),
            Verb::Acquire | Verb::List => self.resource.clone(),
        };
        pb::AcquireLeaseRequest { resource, ..Default::default() }
    }
}

/// When each caller sends.
#[derive(Clone)]
struct Pace {
    calls: usize,
    began: Instant,
    every: Option<Duration>,
    until: Option<Instant>,
    of: usize,
}

impl Pace {
    fn closed(calls: usize) -> Self {
        Self { calls, began: Instant::now(), every: None, until: None, of: 1 }
    }

    /// When this caller's call is due; the callers take turns.
    async fn due(&self, caller: usize, call: usize) -> Instant {
        let Some(every) = self.every else { return Instant::now() };
        let due = self.began + every.mul_f64(call as f64 + caller as f64 / self.of as f64);
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

impl Caller {
    async fn open(channel: Channel, role: &str) -> Self {
        let mut sessions = SessionServiceClient::new(channel.clone());
        let request = pb::OpenSessionRequest { role: role.to_owned(), ..Default::default() };
        let token = match sessions.open_session(request).await {
            Ok(answer) => answer.into_inner().token,
            // The floor has no sessions. A token is as long there.
            Err(status) if status.code() == Code::Unimplemented => format!("rbs_{}", "0".repeat(64)),
            Err(status) => panic!("the role cannot be assumed: {}", status.message()),
        };
        let token = format!("Bearer {token}").parse().expect("a token is ASCII");
        Self { client: LeaseServiceClient::new(channel), sessions, token }
    }

    async fn call(
        &mut self,
        verb: Verb,
        request: &pb::AcquireLeaseRequest,
        pace: &Pace,
        number: usize,
    ) -> Tally {
        let mut tally = Tally::new();
        for call in 0..pace.calls {
            let due = pace.due(number, call).await;
            if pace.until.is_some_and(|until| due >= until) {
                break;
            }
            let answered = self.once(verb, request).await;
            tally.latencies.saturating_record(due.elapsed().as_nanos().try_into().unwrap());
            tally.errors += u64::from(answered.is_err() != (verb == Verb::Refused));
        }
        tally
    }

    async fn once(&mut self, verb: Verb, request: &pb::AcquireLeaseRequest) -> Result<(), Status> {
        match verb {
            Verb::Acquire | Verb::Refused => {
                self.client.acquire_lease(with(&self.token, request.clone())).await.map(drop)
            }
            Verb::List => {
                self.client.list_leases(with(&self.token, pb::ListLeasesRequest {})).await.map(drop)
            }
        }
    }

    async fn close(&mut self) {
        let _ = self.sessions.close_session(with(&self.token, pb::CloseSessionRequest {})).await;
    }
}

fn with<T>(token: &MetadataValue<Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.clone());
    request
}

impl Tally {
    fn new() -> Self {
        Self { latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap(), errors: 0 }
    }
}

async fn connect(socket: &Path) -> Channel {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.expect("it accepts")
}
