//! What is told to an OpenTelemetry collector, where the configuration names one: counted here, sent by `otlp`.
//!
//! Without the feature `otlp` a configuration that names one is refused, and nothing is done here. May import `config`,
//! `grpc`, `metrics`, `otlp` and `telemetry`.

use std::sync::Arc;

use super::error::StartError;
use crate::config::{OtlpConfig, Traces};
use crate::metrics::Exposition;
use crate::telemetry::{Exports, Spans};

/// What waits for the collector, and how exports ended.
pub(super) struct Export {
    /// `None`: no collector is named.
    exports: Option<Arc<Exports>>,
    spans: Option<Arc<Spans>>,
    #[cfg(feature = "otlp")]
    ca_pem: Option<Vec<u8>>,
}

impl Export {
    /// Reads what is to be trusted.
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, StartError> {
        let named = config.endpoint.is_some();
        let spans = (named && config.traces == Traces::Calls).then(Arc::default);
        Ok(Self {
            exports: named.then(Arc::default),
            spans,
            #[cfg(feature = "otlp")]
            ca_pem: ca_pem(config)?,
        })
    }

    /// Where calls leave their spans.
    pub(super) fn spans(&self) -> Option<Arc<Spans>> {
        self.spans.clone()
    }

    pub(super) fn write(&self, page: &mut Exposition) {
        if let Some(exports) = &self.exports {
            exports.write(self.spans.as_deref(), page);
        }
    }
}

#[cfg(feature = "otlp")]
pub(super) use running::Exporting;

#[cfg(feature = "otlp")]
fn ca_pem(config: &OtlpConfig) -> Result<Option<Vec<u8>>, StartError> {
    let Some(path) = config.ca_file.clone() else { return Ok(None) };
    let pem = std::fs::read(&path).map_err(|source| StartError::CollectorCa { path, source })?;
    // Judged now: a daemon that cannot do what it was told does not start.
    crate::upstream::collector_tls(Some(&pem)).map_err(StartError::Collector)?;
    Ok(Some(pem))
}

#[cfg(feature = "otlp")]
mod running {
    use jiff::Timestamp;
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;

    use super::{Export, OtlpConfig, StartError};
    use crate::clock::Clock;
    use crate::grpc::Admin;
    use crate::otlp::{Exporter, LAST_DEADLINE, Parts};
    use std::sync::Arc;

    /// The task that exports.
    pub(in crate::daemon) struct Exporting {
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Exporting {
        /// Begins, where a collector is named.
        pub(in crate::daemon) fn start(
            config: &OtlpConfig,
            export: &Export,
            admin: Admin,
            clock: Arc<dyn Clock>,
            started_at: Timestamp,
        ) -> Result<Option<Self>, StartError> {
            let Some(exports) = export.exports.clone() else { return Ok(None) };
            let pages = Box::new(move || {
                let admin = admin.clone();
                Box::pin(async move { admin.metrics().await }) as _
            });
            let parts = Parts { pages, spans: export.spans(), exports, clock, started_at };
            let exporter =
                Exporter::new(config, export.ca_pem.as_deref(), parts).map_err(StartError::Collector)?;
            let stop = CancellationToken::new();
            let running = |exporter: Exporter| {
                let task = tokio::spawn(exporter.run(stop.clone()));
                Self { stop, task }
            };
            Ok(exporter.map(running))
        }

        /// Exports once more, and ends.
        pub(in crate::daemon) async fn end(self) {
            self.stop.cancel();
            let abort = self.task.abort_handle();
            if tokio::time::timeout(2 * LAST_DEADLINE, self.task).await.is_err() {
                abort.abort();
            }
        }
    }
}
