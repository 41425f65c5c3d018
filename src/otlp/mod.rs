//! Metrics and spans for an OpenTelemetry collector, by OTLP over gRPC.
//!
//! One task, one export at a time, each with a deadline. A collector that is gone or hangs costs that task some time
//! and nobody else any: metrics that could not be sent are told by the next ones, spans are tried once more and then
//! dropped, and the pause between tries grows to a minute. It is logged when that begins and when it ends. What is
//! sent is what [`Exposition`] and [`Span`] hold. Imports `clock`, `config`, `metrics`, `telemetry`, `types`, and
//! from `upstream` what TLS trusts.

mod channel;
mod encode;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::channel::{Channel, Fault};
use self::encode::Period;
use crate::clock::{BootInstant, Clock};
use crate::config::OtlpConfig;
use crate::metrics::Exposition;
use crate::telemetry::{Exported, Exports, Signal, Span, Spans};
use crate::upstream::{SettingsError, collector_tls};

/// For one export, from the look-up of the name to the end of the answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// For the last one of each signal, when the daemon ends.
pub const LAST_DEADLINE: Duration = Duration::from_millis(500);
/// Between two exports of spans, unless many wait.
pub const SPANS_EVERY: Duration = Duration::from_secs(5);
/// Spans of one export.
const BATCH: usize = 512;
/// After a failure, doubled by each further one up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Writes down what there is to measure.
pub type Pages = Box<dyn Fn() -> BoxFuture<'static, Exposition> + Send + Sync>;

/// Tells the collector, as [`Exporter::run`].
pub struct Exporter {
    channel: Channel,
    interval: Duration,
    pages: Pages,
    spans: Option<Arc<Spans>>,
    exports: Arc<Exports>,
    clock: Arc<dyn Clock>,
    /// Since when what is counted was counted.
    started: u64,
    /// Spans that were tried once.
    held: Vec<Span>,
    failures: u32,
    not_before: BootInstant,
    /// Whether the last export came through; `None` before the first.
    reached: Option<bool>,
}

/// What an exporter works with.
pub struct Parts {
    /// What there is to measure.
    pub pages: Pages,
    /// Where calls leave their spans, if they do.
    pub spans: Option<Arc<Spans>>,
    /// Where exports are counted.
    pub exports: Arc<Exports>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When the process began to count.
    pub started_at: Timestamp,
}

impl Exporter {
    /// Tells the collector that is configured; `None` if none is. `ca_pem` is what `ca_file` holds.
    ///
    /// # Errors
    /// A `ca_file` without usable certificates.
    pub fn new(
        config: &OtlpConfig,
        ca_pem: Option<&[u8]>,
        parts: Parts,
    ) -> Result<Option<Self>, SettingsError> {
        let (Some(endpoint), Some(port)) = (config.endpoint.clone(), config.port()) else { return Ok(None) };
        let Parts { pages, spans, exports, clock, started_at } = parts;
        let channel = Channel::new(endpoint, port, collector_tls(ca_pem)?, clock.clone());
        Ok(Some(Self {
            channel,
            interval: config.interval,
            pages,
            spans,
            exports,
            started: nanos(started_at),
            held: Vec::new(),
            failures: 0,
            not_before: clock.now(),
            reached: None,
            clock,
        }))
    }

    /// Exports until `stop`, and then once more, unless the collector was not there the last time.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut metrics_at = self.clock.now();
        let mut spans_at = metrics_at + SPANS_EVERY;
        while !stop.is_cancelled() {
            let next = if self.spans.is_some() { metrics_at.min(spans_at) } else { metrics_at };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep_until(self.not_before) => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep_until(next) => {}
                () = many(self.spans.as_deref()) => spans_at = self.clock.now(),
            }
            let now = self.clock.now();
            let exporting = async {
                if metrics_at <= now {
                    self.export_metrics(DEADLINE).await;
                    metrics_at = now + self.interval;
                }
                if spans_at <= now && self.not_before <= now {
                    self.export_spans(DEADLINE).await;
                    spans_at = self.clock.now() + SPANS_EVERY;
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = exporting => {}
            }
        }
        // The first one may have been cut off by the stop.
        if self.reached != Some(false) {
            self.export_metrics(LAST_DEADLINE).await;
            self.export_spans(LAST_DEADLINE).await;
        }
    }

    async fn export_metrics(&mut self, within: Duration) {
        let page = (self.pages)().await;
        let period = Period { start: self.started, now: nanos(self.clock.wall()) };
        let outcome = self.channel.call(messages::METRICS, encode::metrics(&page, period), within).await;
        self.note(Signal::Metrics, outcome);
    }

    /// All that wait, a batch at a time, until one is not taken.
    async fn export_spans(&mut self, within: Duration) {
        let Some(spans) = self.spans.clone() else { return };
        loop {
            let tried = !self.held.is_empty();
            if !tried {
                self.held = spans.take(BATCH);
            }
            if self.held.is_empty() {
                return;
            }
            let outcome = self.channel.call(messages::TRACES, encode::spans(&self.held), within).await;
            let again = !tried && outcome.is_err_and(Fault::may_pass);
            if !again {
                let taken = std::mem::take(&mut self.held).len();
                let refused =
                    outcome.map_or(taken, |rejected| usize::try_from(rejected).unwrap_or(0).min(taken));
                self.exports.gave_up(refused);
            }
            self.note(Signal::Traces, outcome);
            if outcome.is_err() {
                return;
            }
        }
    }

    fn note(&mut self, signal: Signal, outcome: Result<i64, Fault>) {
        let end = match outcome {
            Ok(0) => Exported::Accepted,
            Ok(_) => Exported::Partial,
            Err(_) => Exported::Failed,
        };
        self.exports.ended(signal, end);
        let reached = outcome.is_ok();
        if self.reached.replace(reached) != Some(reached) {
            match outcome {
                Ok(_) => tracing::info!("the OpenTelemetry collector takes what is exported"),
                Err(fault) => {
                    tracing::warn!(
                        fault = fault.name(),
                        "the OpenTelemetry collector takes nothing; trying on"
                    );
                }
            }
        }
        let now = self.clock.now();
        if reached {
            self.failures = 0;
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
    }
}

async fn many(spans: Option<&Spans>) {
    match spans {
        Some(spans) => spans.many().await,
        None => std::future::pending().await,
    }
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}
