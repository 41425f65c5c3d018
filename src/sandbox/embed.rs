//! The sandbox within another program: on a thread of its own, until that program ends.

use std::io;
use std::thread;

use thiserror::Error;

use super::server::{Sandbox, SandboxConfig, StartError};
use crate::secret::Secret;

/// A running sandbox and how to reach it.
pub struct Embedded {
    /// `https://127.0.0.1:PORT`.
    pub base_url: String,
    /// The certificate to trust.
    pub ca_pem: Vec<u8>,
    /// The account's key.
    pub management_key: Secret,
}

/// Why it does not run.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The sandbox does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No thread or runtime.
    #[error("no thread for the sandbox: {0}")]
    Thread(#[from] io::Error),
    /// It ended before it was ready.
    #[error("the sandbox ended before it was ready")]
    Ended,
}

/// Starts a sandbox that lives as long as the process.
pub fn embed() -> Result<Embedded, EmbedError> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("sandbox".into()).spawn(move || {
        runtime.block_on(async {
            let sandbox = match Sandbox::start(SandboxConfig::default()).await {
                Ok(sandbox) => sandbox,
                Err(error) => return drop(ready.send(Err(EmbedError::Start(error)))),
            };
            let reached = describe(&sandbox).ok_or(EmbedError::Ended);
            if ready.send(reached).is_ok() {
                std::future::pending::<()>().await;
            }
        });
    })?;
    started.recv().unwrap_or(Err(EmbedError::Ended))
}

fn describe(sandbox: &Sandbox) -> Option<Embedded> {
    let ca_pem = sandbox.ca_pem()?.as_bytes().to_vec();
    let management_key = sandbox.control().management_key()?;
    Some(Embedded { base_url: sandbox.base_url().to_owned(), ca_pem, management_key })
}

impl Embedded {
    /// A configuration with a role for each seeded identity, open to the current user.
    pub fn example_config(&self) -> String {
        let uid = nix::unistd::geteuid();
        format!(
            r#"version = 1
[role.notes-agent]
identity = "assistant-notes-agent"
match = {{ uid = {uid} }}
scopes = ["secret:read:OPENAI_*", "secret:list", "password:read:github.com", "password:list", "identity:read"]
[role.deploy-agent]
identity = "deploy-agent"
match = {{ uid = {uid} }}
scopes = ["secret:read", "secret:list", "secret:write", "password:read", "password:list", "password:write", "password:create", "identity:read", "sso:mint"]
"#
        )
    }
}
