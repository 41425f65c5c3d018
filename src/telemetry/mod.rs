//! Logs: to journald if that is where our standard error leads, else to standard error.
//!
//! Fields of events are numbers, ids and fixed words; no secret has a `Display` that could end up
//! here. Other crates are not that careful: at `debug` their HTTP and TLS layers print headers, which
//! carry tokens. So whatever the filter asks for, only our own targets go beyond `info`.
//! Spans that wait for an export are in `spans`. Imports `metrics`.

mod panics;
mod spans;

use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use thiserror::Error;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, FilterFn, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};

pub use panics::report_panics_without_their_text;
pub use spans::{Exported, Exports, MAX_SPANS, Signal, Span, Spans};

/// Fields of events and of the spans around them are `RAVI_ROLE`, `RAVI_TRACE_ID` and so on in the journal.
const JOURNAL_PREFIX: &str = "RAVI";
const DEFAULT_FILTER: &str = "info";
/// Our targets: the library, and what is named after a program.
const OWN: &str = "ravi_";

/// Starts logging for the whole process and keeps panics from printing their text. To be called once.
///
/// `filter` is the value of `RAVI_BROKER_LOG`, in the form of tracing's `EnvFilter`
/// (`info,ravi_broker::session=debug`); absent or empty means `info`.
///
/// # Errors
/// A filter that cannot be parsed, or a second call.
pub fn init(filter: Option<&str>) -> Result<(), TelemetryError> {
    let subscriber = tracing_subscriber::registry().with(sink().with_filter(parse(filter)?.and(cap())));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Started)?;
    report_panics_without_their_text();
    Ok(())
}

fn parse(filter: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = filter.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::builder().with_regex(false).parse(text).map_err(|_| TelemetryError::Filter)
}

fn cap() -> FilterFn {
    filter_fn(is_within_cap)
}

fn is_within_cap(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with(OWN)
}

fn sink<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if leads_to_journal(std::env::var("JOURNAL_STREAM").ok().as_deref())
        && let Ok(journal) = tracing_journald::layer()
    {
        return journal.with_field_prefix(Some(JOURNAL_PREFIX.to_owned())).boxed();
    }
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    fmt::layer().with_writer(stderr).with_ansi(colours).boxed()
}

/// `JOURNAL_STREAM` names the device and inode of the journal's stream (`systemd.exec(5)`). It is
/// inherited by everything a service starts, so it counts only if our standard error is that stream.
fn leads_to_journal(stream: Option<&str>) -> bool {
    let named = stream.and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    named.is_some() && named == stderr_file()
}

fn stderr_file() -> Option<(u64, u64)> {
    let file = File::from(stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Why logging did not start: what happened, then what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error(
        "the log filter in RAVI_BROKER_LOG cannot be understood\nset it to error, warn, info, debug or trace, or to target=level pairs"
    )]
    Filter,
    /// Logging had been started before.
    #[error("logging was started twice\nreport this as a defect")]
    Started,
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let filtered = layer.with_filter(parse(Some(filter)).unwrap().and(cap()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filtered), log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn other_crates_are_capped_whatever_the_filter_says() {
        for filter in ["trace", "h2=trace,hyper=debug", "debug,rustls=trace,tonic=trace,hyper_util=trace"] {
            let text = logged(filter, || {
                tracing::debug!(target: "h2::codec", "canary");
                tracing::trace!(target: "hyper::proto", "canary");
                tracing::debug!(target: "hyper_util::client", "canary");
                tracing::debug!(target: "tonic::transport", "canary");
                tracing::trace!(target: "rustls::conn", "canary");
                tracing::trace_span!(target: "h2", "canary").in_scope(|| tracing::error!("in a span"));
            });
            assert!(!text.contains("canary"), "{filter}: {text}");
        }
    }

    #[test]
    fn our_own_debug_output_follows_the_filter() {
        let log = || tracing::debug!(target: "ravi_broker::session", "opened");
        assert!(logged("debug", log).contains("opened"));
        assert!(!logged("info", log).contains("opened"));
        assert!(logged("info,ravi_broker::session=debug", log).contains("opened"));
        assert!(logged("info", || tracing::info!(target: "h2", "passes")).contains("passes"));
    }

    #[test]
    fn a_broken_filter_is_refused_and_an_empty_one_is_the_default() {
        assert_eq!(parse(Some("info,=,x=loud")).unwrap_err(), TelemetryError::Filter);
        assert_eq!(parse(Some(" ")).unwrap().to_string(), DEFAULT_FILTER);
        assert_eq!(parse(None).unwrap().to_string(), DEFAULT_FILTER);
    }

    #[test]
    fn the_journal_is_used_only_if_our_own_stream_is_named() {
        let (device, inode) = stderr_file().unwrap();
        assert!(leads_to_journal(Some(&format!("{device}:{inode}"))));
        assert!(!leads_to_journal(Some(&format!("{device}:{}", inode + 1))));
        assert!(!leads_to_journal(Some("no stream")));
        assert!(!leads_to_journal(None));
    }
}
