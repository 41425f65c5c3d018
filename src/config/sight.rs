//! `[metrics]` and `[telemetry.otlp]`: who is told what the daemon counts, and how.
//!
//! From the file to what applies, in one place, as no flag and no variable touches it. Imports `types` and its
//! neighbours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::origin::{Origin, Origins};
use super::raw::{Set, seconds};
use super::reader::{Table, Value};
use super::report::Report;
use super::units::duration_text;
use super::values::{base_url, duration, one_of, path};
use crate::types::BaseUrl;

const INTERVAL: Duration = Duration::from_secs(30);
const TRACES: [(&str, Traces); 2] = [("off", Traces::Off), ("calls", Traces::Calls)];

/// Who may read metrics besides the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// `listen`: a loopback address and a port for `GET /metrics`. Every process of this machine can read it.
    /// Default: none.
    pub listen: Option<SocketAddr>,
}

/// Which OpenTelemetry collector is told, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// `endpoint`: `http://` with a loopback address, or `https://`; OTLP over gRPC. Default: none, and nothing
    /// is exported.
    pub endpoint: Option<BaseUrl>,
    /// `ca_file`: PEM certificates trusted in place of the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// `interval`: between two exports of metrics. Default `30s`.
    pub interval: Duration,
    /// `traces`. Default `off`.
    pub traces: Traces,
}

/// Which spans are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traces {
    /// `off`: none.
    #[default]
    Off,
    /// `calls`: one for each call that was served.
    Calls,
}

impl MetricsConfig {
    pub(super) fn shown(self) -> Vec<(&'static str, String)> {
        vec![("metrics.listen", text(self.listen))]
    }
}

impl OtlpConfig {
    /// The port that is connected to.
    pub fn port(&self) -> Option<u16> {
        let uri = self.endpoint.as_ref()?.uri();
        let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        Some(uri.port_u16().unwrap_or(usual))
    }

    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let traces = TRACES.iter().find(|(_, traces)| *traces == self.traces).map(|(word, _)| *word);
        vec![
            ("telemetry.otlp.endpoint", text(self.endpoint.as_ref())),
            ("telemetry.otlp.ca_file", text(self.ca_file.as_ref().map(|path| path.display()))),
            ("telemetry.otlp.interval", duration_text(self.interval)),
            ("telemetry.otlp.traces", text(traces)),
        ]
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) struct RawSight {
    listen: Set<SocketAddr>,
    endpoint: Set<BaseUrl>,
    ca_file: Set<PathBuf>,
    interval: Set<Duration>,
    traces: Set<Traces>,
}

pub(super) fn read(file: &mut Table<'_>) -> RawSight {
    let mut metrics = file.table("metrics");
    let mut telemetry = file.table("telemetry");
    let mut otlp = telemetry.table("otlp");
    refuse_unbuilt(&otlp, cfg!(feature = "otlp"));
    let sight = RawSight {
        listen: metrics.read("listen", loopback),
        endpoint: otlp.read("endpoint", |value| base_url(value.text()?)),
        ca_file: otlp.read("ca_file", path),
        interval: otlp.read("interval", duration(seconds(1)..=seconds(3600))),
        traces: otlp.read("traces", |value| one_of(&TRACES, value)),
    };
    [otlp, telemetry, metrics].into_iter().for_each(Table::finish);
    sight
}

/// An empty section asks for nothing.
fn refuse_unbuilt(otlp: &Table<'_>, built: bool) {
    if otlp.left() > 0 && !built {
        otlp.refuse(
            "this ravi-broker cannot export to OpenTelemetry: it was built without the feature `otlp`",
        );
    }
}

fn loopback(value: &Value<'_>) -> Result<SocketAddr, String> {
    let address = value.text()?.parse::<SocketAddr>();
    let address = address.map_err(|_| "expected an address and a port, as \"127.0.0.1:9464\"".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("expected a loopback address (127.0.0.1 or [::1]): nothing encrypts it, and whoever connects can read it"
        .to_owned())
}

impl RawSight {
    pub(super) fn resolve(self, report: &Report, origins: &mut Origins) -> (MetricsConfig, OtlpConfig) {
        let Self { listen, endpoint, ca_file, interval, traces } = self;
        let tracing = traces.as_ref().filter(|traces| traces.value == Traces::Calls);
        if let Some(traces) = tracing.filter(|_| endpoint.is_none()) {
            report.add(traces.line, "telemetry.otlp.traces: expected an endpoint beside it");
        }
        let metrics = MetricsConfig { listen: noted("metrics.listen", listen, origins) };
        let otlp = OtlpConfig {
            endpoint: noted("telemetry.otlp.endpoint", endpoint, origins),
            ca_file: noted("telemetry.otlp.ca_file", ca_file, origins),
            interval: noted("telemetry.otlp.interval", interval, origins).unwrap_or(INTERVAL),
            traces: noted("telemetry.otlp.traces", traces, origins).unwrap_or_default(),
        };
        (metrics, otlp)
    }
}

fn noted<T>(key: &str, set: Set<T>, origins: &mut Origins) -> Option<T> {
    let set = set?;
    origins.note(key, Origin::File(set.line));
    Some(set.value)
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn problems(text: &str, built: bool) -> Vec<(u32, String)> {
        let report = Report::of(text);
        let (document, _) = DeTable::parse_recoverable(text);
        let mut file = Table::root(&report, document.get_ref());
        refuse_unbuilt(&file.table("telemetry").table("otlp"), built);
        report.into_problems().into_iter().map(|problem| (problem.line, problem.message)).collect()
    }

    #[test]
    fn a_build_that_cannot_export_says_so_where_it_is_asked_to() {
        let asked = "\n[telemetry.otlp]\nendpoint = \"http://127.0.0.1:4317\"\n";
        let refused = problems(asked, false);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].0, 2);
        assert!(refused[0].1.contains("without the feature `otlp`"), "{refused:?}");
        assert_eq!(problems(asked, true), []);
        assert_eq!(problems("[telemetry.otlp]\n", false), []);
    }
}
