//! Why the daemon did not start: what happened, then what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::listen::{AdoptError, BindError};
use crate::audit::AuditError;
use crate::config::{ConfigError, MemoryTier};
use crate::inbox::dispatch::OpenError;
use crate::inbox::store::StoreError;
use crate::sys::locked::Shortfall;
use crate::upstream::SettingsError;
use crate::vault::keyfile::KeyError;

/// Every way the start can fail.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error("{0}\nmend or remove the file, or run `ravi-broker login` once the daemon is up")]
    Key(#[from] KeyError),
    /// The audit trail.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What the inbox remembers.
    #[error(transparent)]
    Inbox(#[from] StoreError),
    /// The key or token of a dispatch.
    #[error("{0}\nmend the file that a [[dispatch]] names, or name another")]
    Hook(KeyError),
    /// The directory of the audit trail.
    #[error("cannot make {}: {source}\nmake it and give it to the daemon's user, or set audit.file", path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The upstream client.
    #[error("{0}\nlook at [upstream] in the configuration")]
    Upstream(#[from] SettingsError),
    /// `upstream.ca_file`.
    #[error("cannot read upstream.ca_file {}: {source}\nname a file of PEM certificates, or remove the setting", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `telemetry.otlp.ca_file` holds no certificates.
    #[error("{0}\nlook at [telemetry.otlp] in the configuration")]
    Collector(SettingsError),
    /// `telemetry.otlp.ca_file`.
    #[error("cannot read telemetry.otlp.ca_file {}: {source}\nname a file of PEM certificates, or remove the setting", path.display())]
    CollectorCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `metrics.listen`.
    #[error(
        "cannot listen on {address} for metrics: {source}\nend what listens there, or change or remove metrics.listen"
    )]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Inherited sockets are not as they should be.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The runtime, a signal handler or a listener.
    #[error("cannot start: {0}\nlook at the limits of processes and descriptors")]
    Runtime(#[from] io::Error),
    /// `memory.require` is not met.
    #[error(
        "memory.require is \"{required}\", and {} was reached: {shortfall}\n{}, or lower memory.require",
        reached.map_or("less".to_owned(), |tier| format!("only \"{tier}\"")),
        remedy(*shortfall)
    )]
    Memory {
        /// What is required.
        required: MemoryTier,
        /// What was reached; `None`: not even `locked`.
        reached: Option<MemoryTier>,
        /// What is in the way.
        shortfall: Shortfall,
    },
    /// `listen.require` is not met.
    #[error(
        "listen.require asks for callers that are better known than this kernel can tell\nrun Linux 6.5 or later, let no filter refuse SO_PEERPIDFD, or lower listen.require"
    )]
    Callers,
    /// The attestor is gone, so nobody could be identified any more.
    #[error(
        "the attestor, the daemon's child, has ended; every value and key was wiped\nstart the daemon again, and find out who ended its child"
    )]
    AttestorEnded,
    /// No random numbers.
    #[error("the system's random source or memory failed\nlook at the limits of the process")]
    NoRandom,
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Key(error) => Self::Hook(error),
            OpenError::Store(error) => Self::Inbox(error),
        }
    }
}

/// What the operator can do about memory that is less protected than wanted, in one line.
pub(super) fn remedy(shortfall: Shortfall) -> &'static str {
    match shortfall {
        Shortfall::MemlockLimit => "raise the limit to 8 MiB (LimitMEMLOCK=8M) or grant CAP_IPC_LOCK",
        Shortfall::LockRefused => "let the sandbox of the service permit mlock and mlock2",
        Shortfall::Dumped | Shortfall::Inherited => "run a kernel of Linux 4.14 or later",
        Shortfall::NoSecretMemory => {
            "run a kernel with memfd_secret: Linux 5.14 or later with CONFIG_SECRETMEM, before 6.5 also secretmem.enable=1"
        }
        Shortfall::SecretMemoryRefused => "let the sandbox of the service permit memfd_secret",
    }
}
