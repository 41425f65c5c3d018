//! `[telemetry.otlp]`: what an OpenTelemetry collector is told, read with the types of those who define OTLP, and what
//! happens without one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{metrics, steady};
use crate::support::{Setup, Stack, bounded, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ravi-broker");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CUMULATIVE: i32 = 2;
const SERVER: i32 = 2;

/// A collector that keeps what it is told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// The newest export.
    metrics: Vec<Metric>,
    spans: Vec<Span>,
    /// Everything, as text.
    all: String,
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let request = request.into_inner();
        let mut told = self.0.lock().unwrap();
        told.all += &format!("{request:?}");
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        told.metrics = scopes.flat_map(|scope| scope.metrics).collect();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut told = self.0.lock().unwrap();
        told.all += &format!("{request:?}");
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        told.spans.extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let server = Server::builder()
            .add_service(MetricsServiceServer::new(self.clone()))
            .add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(
            async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() },
        )
    }

    /// The spans of the test's own trace, by name.
    fn spans(&self) -> BTreeMap<String, Span> {
        let spans = self.0.lock().unwrap().spans.clone();
        let own = spans.into_iter().filter(|span| hex(&span.trace_id) == TRACE);
        own.map(|span| (span.name.clone(), span)).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    attributes.iter().map(|attribute| (attribute.key.as_str(), text(attribute))).collect()
}

/// What was exported, as a page of Prometheus says it.
fn page(metrics: &[Metric]) -> String {
    let mut lines = Vec::new();
    let labels = |attributes: &[KeyValue], more: Option<String>| {
        let named = attributes.iter().map(|label| format!("{}={:?}", label.key, text(label)));
        let all: Vec<String> = named.chain(more.map(|bound| format!("le={bound:?}"))).collect();
        if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
    };
    let number = |point: &NumberDataPoint| match point.value {
        Some(Number::AsInt(number)) => number.to_string(),
        Some(Number::AsDouble(number)) => number.to_string(),
        None => panic!("no number: {point:?}"),
    };
    for Metric { name, data, description, .. } in metrics {
        assert!(!description.is_empty(), "{name}");
        match data.as_ref().expect("a metric has data") {
            Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    assert_eq!(point.start_time_unix_nano, 0, "{name}");
                    lines.push(format!("{name}{} {}", labels(&point.attributes, None), number(point)));
                }
            }
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE, "{name}");
                for point in &sum.data_points {
                    assert!((1..point.time_unix_nano).contains(&point.start_time_unix_nano), "{name}");
                    lines.push(format!("{name}{} {}", labels(&point.attributes, None), number(point)));
                }
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, CUMULATIVE, "{name}");
                for point in &histogram.data_points {
                    assert!((1..point.time_unix_nano).contains(&point.start_time_unix_nano), "{name}");
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1, "{name}");
                    let bounds = point.explicit_bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                    let mut up_to = 0;
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        up_to += count;
                        lines
                            .push(format!("{name}_bucket{} {up_to}", labels(&point.attributes, Some(bound))));
                    }
                    let labels = labels(&point.attributes, None);
                    lines.push(format!("{name}_sum{labels} {}", point.sum.expect("a sum")));
                    lines.push(format!("{name}_count{labels} {}", point.count));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    lines.join("\n")
}

fn exporting_to(address: SocketAddr) -> impl FnOnce(&mut Setup) {
    let section = "interval = \"1s\"\ntraces = \"calls\"";
    move |setup| setup.sections = format!("[telemetry.otlp]\nendpoint = \"http://{address}\"\n{section}")
}

fn whoami(setup: &Setup, flags: &str) {
    let mut command = Command::new(PROGRAM);
    command.args(["whoami", "--role", "notes", "--socket"]).arg(&setup.agent_socket);
    command.env_clear().env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-{flags}")).stdin(Stdio::null());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn exports(page: &str, signal: &str, outcome: &str) -> u64 {
    let series = format!("ravi_broker_otlp_exports_total{{signal=\"{signal}\",outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_else(|| panic!("{page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_what_the_operator_is_told() {
    let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    collector.serve(listener);
    let stack = Stack::with(exporting_to(address)).await;
    let agent = stack.agent("notes").await;
    let (lease, credential) = agent.acquire("secret/OPENAI_API_KEY", None, "to-canary").await.unwrap();
    agent.acquire("secret/STRIPE_API_KEY", None, "").await.err().unwrap();
    let stranger = stack.stranger().await;
    stranger.open_session(ravi_broker::client::OpenSession::role("invented")).await.err().unwrap();
    let same = async || {
        let exported = steady(&page(&collector.0.lock().unwrap().metrics));
        let shown = steady(&metrics(&stack));
        exported.len() > 50 && exported == shown
    };
    until(same).await;
    let denied = async || {
        let told = collector.0.lock().unwrap();
        let denied = told.spans.iter().filter(|span| span.name == "ravi.broker.v1.LeaseService/AcquireLease");
        let denied: Vec<_> = denied.map(|span| attributes(&span.attributes)).collect();
        denied.iter().any(|span| {
            let said = |key, value: &str| span.get(key).is_some_and(|told| told == value);
            said("rpc.grpc.status_code", "7")
                && said("error.type", "RESOURCE_NOT_AVAILABLE")
                && said("ravi_broker.role", "notes")
        })
    };
    until(denied).await;
    let told = collector.0.lock().unwrap();
    assert!(told.all.contains("service.name") && told.all.contains("ravi_broker_audit_records_total"));
    let session = stack.audited("session.opened").remove(0)["session"].as_str().unwrap().to_owned();
    let lease = lease.lease_id.to_string();
    for kept in
        [credential.value.expose(), &session, &lease, "OPENAI", "STRIPE", "canary", "invented", "assistant-"]
    {
        assert!(!told.all.contains(kept), "{kept} was exported");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_in_the_trace_of_its_caller() {
    let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    collector.serve(listener);
    let stack = Stack::with(exporting_to(address)).await;
    // Not even a caller that wants no trace hides its calls.
    whoami(&stack.setup, "00");
    let names = ["SessionService/OpenSession", "IdentityService/GetIdentity", "SessionService/CloseSession"];
    let names = names.map(|name| format!("ravi.broker.v1.{name}"));
    until(async || names.iter().all(|name| collector.spans().contains_key(name))).await;
    let spans = collector.spans();
    for name in names {
        let span = &spans[&name];
        assert_eq!((hex(&span.parent_span_id), span.kind), (PARENT.to_owned(), SERVER), "{span:?}");
        assert_eq!(span.flags & 0xff, 0, "{span:?}");
        assert!(span.span_id.len() == 8 && hex(&span.span_id) != PARENT, "{span:?}");
        assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
        let (service, method) = name.split_once('/').unwrap();
        let expected = [
            ("ravi_broker.role", "notes"),
            ("rpc.grpc.status_code", "0"),
            ("rpc.method", method),
            ("rpc.service", service),
            ("rpc.system", "grpc"),
        ];
        let expected = expected.map(|(key, value)| (key, value.to_owned()));
        assert_eq!(attributes(&span.attributes), BTreeMap::from(expected));
    }
    let ids: std::collections::BTreeSet<_> = spans.values().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len());
}

/// Takes TLS off, in front of a collector. Returns its address and the certificate that it shows.
async fn behind_tls(collector: SocketAddr) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let mut plain = TcpStream::connect(collector).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    (address, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_collector_that_can_prove_its_name_is_told() {
    let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (address, certificate) = behind_tls(listener.local_addr().unwrap()).await;
    collector.serve(listener);
    let section =
        |more: &str| format!("[telemetry.otlp]\nendpoint = \"https://localhost:{}\"\n{more}", address.port());
    // Not vouched for by anybody that the daemon trusts.
    let stack = Stack::with(|setup| setup.sections = section("interval = \"1s\"")).await;
    until(async || exports(&metrics(&stack), "metrics", "failed") > 0).await;
    assert!(collector.0.lock().unwrap().metrics.is_empty());
    let stack = Stack::with(|setup| {
        let file = setup.directory().join("collector.pem");
        std::fs::write(&file, &certificate).unwrap();
        setup.sections = section(&format!("ca_file = {file:?}"));
    })
    .await;
    until(async || exports(&metrics(&stack), "metrics", "accepted") > 0).await;
    assert!(!collector.0.lock().unwrap().metrics.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_late_costs_nobody_anything_and_is_told_then() {
    // Bound, so that nobody else gets it, and not listening: who connects is refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let stack = Stack::with(exporting_to(socket.local_addr().unwrap())).await;
    until(async || exports(&metrics(&stack), "metrics", "failed") > 1).await;
    whoami(&stack.setup, "01");
    assert_eq!(stack.daemon.log().matches("collector takes nothing").count(), 1, "{}", stack.daemon.log());
    let collector = Collector::default();
    collector.serve(socket.listen(16).unwrap());
    until(async || collector.spans().len() >= 3).await;
    until(async || exports(&metrics(&stack), "metrics", "accepted") > 1).await;
    let log = stack.daemon.log();
    assert_eq!(log.matches("collector takes what is exported").count(), 1, "{log}");
    assert_eq!(log.matches("collector takes nothing").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_is_given_up_on_and_holds_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stack = Stack::with(exporting_to(listener.local_addr().unwrap())).await;
    let (mut first, _) = bounded(listener.accept()).await.unwrap();
    // It is being waited for now.
    let agent = stack.agent("notes").await;
    for _ in 0..100 {
        let (lease, _) = agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
        agent.release(lease.lease_id).await.unwrap();
    }
    assert_eq!(exports(&metrics(&stack), "metrics", "failed"), 0, "the wait is over already");
    let (_second, _) = bounded(listener.accept()).await.unwrap();
    // One at a time: the first is over, and nothing of it is left.
    let mut rest = Vec::new();
    let _ = bounded(first.read_to_end(&mut rest)).await;
    assert_eq!(exports(&metrics(&stack), "metrics", "failed"), 1);
    // A stop does not wait for it either.
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success(), "{}", stack.daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_calls_before_a_stop_are_told_as_well() {
    let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    collector.serve(listener);
    let mut stack = Stack::with(exporting_to(address)).await;
    until(async || !collector.0.lock().unwrap().metrics.is_empty()).await;
    whoami(&stack.setup, "01");
    stack.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stack.daemon.ended().await.success(), "{}", stack.daemon.log());
    let told = collector.spans().len();
    assert!(told >= 3, "{told} spans; {}", stack.daemon.log());
}
