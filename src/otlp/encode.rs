//! From pages of metrics and spans to the messages of OTLP. Pure. Names and labels are those that Prometheus reads.
//! Imports `metrics`, `telemetry` and its neighbours.

use super::messages::{
    AnyValue, Attribute, CUMULATIVE, Data, ERROR, ExportMetrics, ExportSpans, Gauge, Histogram,
    HistogramPoint, Metric, NumberPoint, NumberValue, Resource, ResourceMetrics, ResourceSpans, SERVER,
    Scope, ScopeMetrics, ScopeSpans, SpanMessage, SpanStatus, Sum, Value,
};
use crate::metrics::{Exposition, Kind, Measured, Number, OTHER, Sample, Series, Spread, bounds};
use crate::telemetry::Span;

const SERVICE: &str = "ravi-broker";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Before the methods of the API, whose labels leave it out.
const PACKAGE: &str = "ravi.broker.v1.";
/// What a parent's flags are marked with: it is another process's.
const REMOTE: u32 = 0x300;
/// Codes that are the server's fault: unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// From when to when numbers were counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Period {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// A page as it was at `period.now`.
pub(super) fn metrics(page: &Exposition, period: Period) -> ExportMetrics {
    let metrics = page.families().iter().map(|family| metric(family, period)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics }];
    ExportMetrics { resource_metrics: vec![ResourceMetrics { resource: Some(resource()), scope_metrics }] }
}

/// Spans in the order in which they ended.
pub(super) fn spans(spans: &[Span]) -> ExportSpans {
    let spans = spans.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans }];
    ExportSpans { resource_spans: vec![ResourceSpans { resource: Some(resource()), scope_spans }] }
}

fn metric(family: &Measured, period: Period) -> Metric {
    let data = match &family.series {
        Series::Numbers(Kind::Gauge, samples) => {
            // What is now has not begun anywhere.
            let period = Period { start: 0, ..period };
            Data::Gauge(Gauge { data_points: samples.iter().map(|sample| number(sample, period)).collect() })
        }
        Series::Numbers(Kind::Counter, samples) => Data::Sum(Sum {
            data_points: samples.iter().map(|sample| number(sample, period)).collect(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Series::Latencies(spreads) => Data::Histogram(Histogram {
            data_points: spreads.iter().map(|spread| histogram(spread, period)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    let unit = if family.name.ends_with("_seconds") { "s" } else { "" };
    Metric { name: family.name.into(), description: family.help.into(), unit: unit.into(), data: Some(data) }
}

fn number(sample: &Sample, Period { start, now }: Period) -> NumberPoint {
    let value = match sample.value {
        Number::Whole(number) => NumberValue::Whole(i64::try_from(number).unwrap_or(i64::MAX)),
        Number::Fraction(number) => NumberValue::Fraction(number),
    };
    let attributes = sample.labels.iter().map(|(name, value)| text(name, value)).collect();
    NumberPoint { start_time_unix_nano: start, time_unix_nano: now, value: Some(value), attributes }
}

fn histogram(spread: &Spread, Period { start, now }: Period) -> HistogramPoint {
    HistogramPoint {
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: spread.buckets.iter().sum(),
        sum: Some(seconds(spread.micros)),
        bucket_counts: spread.buckets.clone(),
        explicit_bounds: bounds().iter().copied().map(seconds).collect(),
        attributes: vec![text(spread.label.0, &spread.label.1)],
    }
}

#[expect(clippy::cast_precision_loss, reason = "285 years of microseconds are exact")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn span(span: &Span) -> SpanMessage {
    let name = match span.method {
        OTHER => OTHER.to_owned(),
        // Another service is labelled with its package.
        method if method.split_once('/').is_some_and(|(service, _)| service.contains('.')) => {
            method.to_owned()
        }
        method => format!("{PACKAGE}{method}"),
    };
    let mut attributes = vec![text("rpc.system", "grpc")];
    if let Some((service, method)) = name.split_once('/') {
        attributes.extend([text("rpc.service", service), text("rpc.method", method)]);
    }
    attributes.push(Attribute {
        key: "rpc.grpc.status_code".into(),
        value: Some(AnyValue { value: Some(Value::Whole(span.status.into())) }),
    });
    attributes.extend(span.role.as_deref().map(|role| text("ravi_broker.role", role)));
    attributes.extend(span.error.map(|reason| text("error.type", reason)));
    let (parent, flags) =
        span.parent.map_or((Vec::new(), 0), |(id, flags)| (id.to_vec(), u32::from(flags) | REMOTE));
    SpanMessage {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: parent,
        name,
        kind: SERVER,
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes,
        status: FAULTS.contains(&span.status).then_some(SpanStatus { code: ERROR }),
        flags,
    }
}

fn resource() -> Resource {
    Resource { attributes: vec![text("service.name", SERVICE), text("service.version", VERSION)] }
}

fn scope() -> Scope {
    Scope { name: SERVICE.into(), version: VERSION.into() }
}

fn text(key: &str, value: &str) -> Attribute {
    Attribute { key: key.into(), value: Some(AnyValue { value: Some(Value::Text(value.into())) }) }
}
