//! Counts the calls of both sockets: how long each method takes until its answer begins, and the reasons that callers
//! are given; puts what is logged meanwhile into the caller's trace, and leaves a span of each call where spans are
//! exported. It stands outside of the edge, so it sees what that refuses as well. Imports `metrics`, `telemetry` and
//! `status`.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{Join, Map, Ready, join, ready};
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Extensions};
use tower::{Layer, Service};
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};

use super::status;
use crate::clock::{BootInstant, Clock};
use crate::metrics::{Counter, Exposition, Family, Kind, Latency, OTHER, Words};
use crate::pb::ErrorReason;
use crate::telemetry::{self, Spans};
use crate::types::TraceParent;

/// Methods that are told apart: those of the API, and of the health service. Any other path is `other`.
const METHODS: usize = 128;
const OF_THE_API: &str = env!("RAVI_BROKER_METHODS");
const API: &str = "/ravi.broker.v1.";
/// W3C Trace Context.
const TRACE: &str = "traceparent";
const OF_HEALTH: [&str; 2] = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];

/// What calls took and how they failed. One for the daemon.
pub struct CallMeters {
    clock: Arc<dyn Clock>,
    methods: Family<&'static str, Latency, METHODS>,
    errors: Words<ErrorReason, Counter>,
    spans: Option<Arc<Spans>>,
}

/// Where a call whose span is kept notes its role, once it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct OfRole(Arc<OnceLock<Box<str>>>);

impl OfRole {
    /// `label` is asked for the role as metrics label it, if the span is kept.
    pub(super) fn note<'a>(extensions: &Extensions, label: impl FnOnce() -> &'a str) {
        if let Some(Self(role)) = extensions.get() {
            role.get_or_init(|| label().into());
        }
    }
}

impl CallMeters {
    /// No call was made yet. Each will leave a span in `spans`.
    pub fn new(clock: Arc<dyn Clock>, spans: Option<Arc<Spans>>) -> Arc<Self> {
        let (methods, errors) = (Family::default(), Words::default());
        for method in OF_THE_API.split(' ').chain(OF_HEALTH) {
            methods.admit(method);
        }
        Arc::new(Self { clock, methods, errors, spans })
    }

    /// Writes them down.
    pub fn write(&self, page: &mut Exposition) {
        let methods = self.methods.all().into_iter().filter(|(_, latency)| latency.count() > 0);
        let help =
            "How long calls took until their answer began, waits for messages and for the operator included.";
        page.latencies("ravi_broker_call_duration_seconds", help, "method", methods);
        let name = "ravi_broker_call_errors_total";
        page.family(name, Kind::Counter, "Calls that were answered with an error, by its reason.");
        for (reason, counter) in self.errors.used() {
            page.sample(name, &[("reason", status::name(reason))], counter.value());
        }
    }

    fn begin(self: &Arc<Self>, request: &mut Request<Body>) -> Begun {
        let path = request.uri().path();
        let method = self.methods.place(path.strip_prefix(API).unwrap_or(path.trim_start_matches('/')));
        let trace = trace_of(request.headers());
        let span = trace.map_or_else(Span::none, |trace| within(&trace, self.methods.name(method)));
        let kept = self.spans.as_ref().map(|spans| {
            let role = OfRole::default();
            request.extensions_mut().insert(role.clone());
            Kept { span: self.started(spans, trace, method), role }
        });
        Begun { meters: self.clone(), at: self.clock.now(), method, span, kept }
    }

    /// The span of a call that begins now. The caller does not decide whether it is kept: the flags of its trace are
    /// passed on, and hide nothing from the operator.
    fn started(&self, spans: &Spans, trace: Option<TraceParent>, method: Option<usize>) -> telemetry::Span {
        let (own, id) = spans.ids();
        let (trace, parent) = trace.map_or((own, None), |trace| {
            let (trace, step, flags) = trace.ids();
            (trace, Some((step, flags)))
        });
        let method = self.methods.admitted(method).copied().unwrap_or(OTHER);
        let start = u64::try_from(self.clock.wall().as_nanosecond()).unwrap_or_default();
        // As long as there is no answer, whoever goes has cancelled it.
        let status = Code::Cancelled.into();
        telemetry::Span { trace, id, parent, method, role: None, status, error: None, start, end: start }
    }
}

/// The trace of the caller, if it names one: in the one form there is, and once. It is the caller's word, and
/// correlates logs and spans alone.
fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    let mut given = headers.get_all(TRACE).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return None };
    given.to_str().ok().and_then(TraceParent::read)
}

/// What is logged meanwhile says to which trace it belongs.
fn within(trace: &TraceParent, method: &str) -> Span {
    let (trace_id, parent_id) = (trace.trace_id(), trace.span_id());
    tracing::info_span!(target: "ravi_broker::call", "call", method, trace_id, parent_id)
}

/// The span of a call under way.
struct Kept {
    span: telemetry::Span,
    role: OfRole,
}

/// A call under way. It is over when this is dropped, also where nobody waits for it any more.
pub struct Begun {
    meters: Arc<CallMeters>,
    at: BootInstant,
    method: Option<usize>,
    span: Span,
    kept: Option<Kept>,
}

impl Begun {
    fn answered(&mut self, answer: &Response<Body>) {
        let reason = status::reason_of(answer.headers());
        if let Some(Kept { span, .. }) = &mut self.kept {
            span.status = status::code_of(answer).into();
            span.error = reason.map(status::name);
        }
        let counter = reason.and_then(|reason| self.meters.errors.at(reason, reason as usize));
        if let Some(counter) = counter {
            counter.one();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let (meters, took) = (&self.meters, self.meters.clock.now().since(self.at));
        meters.methods.of(self.method).took(took);
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let method = meters.methods.name(self.method);
        // Within it, not under it: the journal looks for the span that is entered.
        self.span.in_scope(|| tracing::debug!(target: "ravi_broker::call", method, duration_us, "call"));
        if let (Some(Kept { mut span, role }), Some(spans)) = (self.kept.take(), &meters.spans) {
            span.end = span.start.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            span.role = role.0.get().cloned();
            spans.add(span);
        }
    }
}

/// The layer.
#[derive(Clone)]
pub struct Meter(pub Arc<CallMeters>);

/// A service whose calls are counted.
#[derive(Clone)]
pub struct Metered<S>(S, Arc<CallMeters>);

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, service: S) -> Metered<S> {
        Metered(service, self.0.clone())
    }
}

type Answer = Result<Response<Body>, Infallible>;
type Finish = fn((Answer, Begun)) -> Answer;

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<Join<Instrumented<S::Future>, Ready<Begun>>, Finish>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let begun = self.1.begin(&mut request);
        let span = begun.span.clone();
        // What is done at once is within the trace as well.
        let answering = span.in_scope(|| self.0.call(request));
        join(answering.instrument(span), ready(begun)).map(finish as Finish)
    }
}

fn finish((answer, mut begun): (Answer, Begun)) -> Answer {
    answer.inspect(|answer| begun.answered(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerError;
    use crate::clock::SystemClock;

    async fn page_after(paths: &[&str]) -> String {
        let meters = CallMeters::new(Arc::new(SystemClock), None);
        let service = tower::service_fn(|request: Request<Body>| {
            let refused = tonic::Status::from(BrokerError::ResourceNotAvailable).into_http();
            let answer = if request.uri().path().ends_with("ReadLease") {
                refused
            } else {
                Response::new(Body::empty())
            };
            ready(Ok::<_, Infallible>(answer))
        });
        let mut service = Meter(meters.clone()).layer(service);
        for path in paths {
            service.call(Request::post(*path).body(Body::empty()).unwrap()).await.unwrap();
        }
        let mut page = Exposition::default();
        meters.write(&mut page);
        page.into_text()
    }

    #[tokio::test]
    async fn calls_count_by_method_and_errors_by_reason() {
        let text = page_after(&[
            "/ravi.broker.v1.LeaseService/AcquireLease",
            "/ravi.broker.v1.LeaseService/AcquireLease",
            "/ravi.broker.v1.LeaseService/ReadLease",
            "/ravi.broker.v1.LeaseService/../../secret",
            "/grpc.health.v1.Health/Check",
        ])
        .await;
        for line in [
            r#"ravi_broker_call_duration_seconds_count{method="LeaseService/AcquireLease"} 2"#,
            r#"ravi_broker_call_duration_seconds_count{method="LeaseService/ReadLease"} 1"#,
            r#"ravi_broker_call_duration_seconds_count{method="grpc.health.v1.Health/Check"} 1"#,
            r#"ravi_broker_call_duration_seconds_count{method="other"} 1"#,
            r#"ravi_broker_call_errors_total{reason="RESOURCE_NOT_AVAILABLE"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_counts_as_well() {
        let meters = CallMeters::new(Arc::new(SystemClock), None);
        let never = tower::service_fn(|_: Request<Body>| std::future::pending::<Answer>());
        let mut service = Meter(meters.clone()).layer(never);
        drop(
            service
                .call(Request::post("/ravi.broker.v1.InboxService/AwaitCode").body(Body::empty()).unwrap()),
        );
        assert_eq!(meters.methods.at("InboxService/AwaitCode").count(), 1);
    }

    #[test]
    fn every_method_and_every_reason_has_a_place() {
        let meters = CallMeters::new(Arc::new(SystemClock), None);
        assert!(OF_THE_API.split(' ').count() > 40);
        assert!(OF_THE_API.split(' ').chain(OF_HEALTH).all(|method| meters.methods.knows(method)));
        let reasons = (0..crate::metrics::MOST_WORDS)
            .filter_map(|number| ErrorReason::try_from(i32::try_from(number).unwrap()).ok());
        assert!(reasons.count() > 30);
        let next = i32::try_from(crate::metrics::MOST_WORDS).unwrap();
        assert!((next..next + 1000).all(|number| ErrorReason::try_from(number).is_err()));
    }
}
