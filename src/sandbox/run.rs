//! The program `ravi-sandbox`, minus its `main`: arguments, key file, CA file, the line that says it is
//! ready. Imports `secret`.

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use thiserror::Error;

use crate::secret::Secret;

use super::behaviour::Behaviour;
use super::control_http;
use super::seed::Seed;
use super::server::{Sandbox, SandboxConfig, StartError};

const MAX_KEY_FILE: u64 = 4096;
/// Name of the certificate within `--ca-dir`.
const CA_FILE: &str = "ca.pem";

/// A stand-in for Ravi's API on loopback, for demos and tests. Keeps everything in memory.
#[derive(Parser, Debug)]
#[command(name = "ravi-sandbox", version, after_long_help = examples())]
pub struct Args {
    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Plain HTTP instead of TLS.
    #[arg(long)]
    pub http: bool,
    /// Directory for ca.pem, the certificate that clients must trust. No private key is ever written.
    #[arg(long, default_value = "certs/dev", value_name = "DIR")]
    pub ca_dir: PathBuf,
    /// File (mode 0600) with the management key of the account. Without it the key is random, and a
    /// device login is the way to get it.
    #[arg(long, value_name = "FILE")]
    pub management_key_file: Option<PathBuf>,
    /// Approve device logins at once.
    #[arg(long)]
    pub auto_approve: bool,
    /// Sets a switch of the behaviour (GET /__sandbox__/behaviour/ lists them); may be repeated.
    #[arg(long = "switch", value_name = "NAME=VALUE", value_parser = parse_switch)]
    pub switches: Vec<(String, Value)>,
    /// Form of the line on standard output that says the sandbox is ready.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Form of the ready line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `listening on https://127.0.0.1:PORT, CA certs/dev/ca.pem`
    Text,
    /// `{"base_url":"https://127.0.0.1:PORT","ca":"certs/dev/ca.pem"}`
    Json,
}

/// A value is JSON, else text.
fn parse_switch(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

fn examples() -> String {
    format!(
        "\
Examples:
  ravi-sandbox --listen 127.0.0.1:8443 --auto-approve

  With curl, from a device login to the secrets of one identity:
    curl --cacert certs/dev/ca.pem -X POST https://127.0.0.1:8443/api/auth/device/
    curl --cacert certs/dev/ca.pem -H 'Content-Type: application/json' -d '{{\"device_code\":\"…\"}}' \\
      https://127.0.0.1:8443/api/auth/device/token/
    (write \"Authorization: Bearer ravi_mgmt_…\" to the file key-header)
    curl --cacert certs/dev/ca.pem -H @key-header \\
      'https://127.0.0.1:8443/api/secrets/?identity=UUID'

  With Ravi's own command line:
  (it reads lists of mail as arrays: start the sandbox with --switch email_messages=array)
    SSL_CERT_FILE=certs/dev/ca.pem RAVI_API_URL=https://127.0.0.1:8443 ravi auth login

Control endpoints (not Ravi's; no key; loopback only):
{}",
        control_http::OPERATIONS
    )
}

/// Why the program ends early.
#[derive(Debug, Error)]
pub enum RunError {
    /// The sandbox does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A switch is unknown or its value is.
    #[error("--switch names no switch or no setting of it")]
    Switch,
    /// The file cannot be read.
    #[error("cannot read the management key from {path}: {kind}", path = .0.display(), kind = .1.kind())]
    KeyFile(PathBuf, std::io::Error),
    /// Others than the owner may read it.
    #[error("{path} can be read by others", path = .0.display())]
    KeyFileOpen(PathBuf),
    /// The file holds no key.
    #[error("{path} holds no management key", path = .0.display())]
    KeyFileForm(PathBuf),
    /// The certificate cannot be written.
    #[error("cannot write {path}: {kind}", path = .0.display(), kind = .1.kind())]
    CaFile(PathBuf, std::io::Error),
    /// Nobody takes the ready line.
    #[error("cannot write to standard output: {kind}", kind = .0.kind())]
    Ready(std::io::Error),
}

impl RunError {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Start(StartError::NotLoopback) => "use --listen 127.0.0.1:0",
            Self::Start(StartError::Listen(..)) => "choose another port, or port 0 for a free one",
            Self::Start(StartError::WrongKeyForm) | Self::KeyFileForm(_) => {
                "the file must hold one line that begins with ravi_mgmt_"
            }
            Self::Start(StartError::Certificates(_) | StartError::Randomness(_)) => "try again",
            Self::Switch => "GET /__sandbox__/behaviour/ lists the switches",
            Self::KeyFile(..) => "check the path given to --management-key-file",
            Self::KeyFileOpen(_) => "run chmod 600 on it",
            Self::CaFile(..) => "choose a directory you may write to with --ca-dir, or use --http",
            Self::Ready(_) => "keep standard output open until the sandbox is ready",
        }
    }
}

/// Starts a sandbox, writes the CA file, says it is ready on `out`, and serves until `stop` is done.
pub async fn run(args: Args, stop: impl Future<Output = ()>, out: &mut impl Write) -> Result<(), RunError> {
    let management_key = args.management_key_file.as_deref().map(read_key).transpose()?;
    let behaviour = Behaviour { auto_approve: args.auto_approve, ..Behaviour::default() };
    let behaviour = behaviour.changed(args.switches.into_iter().collect()).ok_or(RunError::Switch)?;
    let sandbox = Sandbox::start(SandboxConfig {
        listen: args.listen,
        http: args.http,
        seed: Seed { management_key, ..Seed::default() },
        behaviour,
        ..SandboxConfig::default()
    })
    .await?;
    let ca = sandbox.ca_pem().map(|pem| write_ca(&args.ca_dir, pem)).transpose()?;
    announce(&sandbox, ca.as_deref(), args.format, out).map_err(RunError::Ready)?;
    stop.await;
    sandbox.shutdown().await;
    Ok(())
}

fn read_key(path: &Path) -> Result<Secret, RunError> {
    let failed = |error| RunError::KeyFile(path.to_owned(), error);
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(RunError::KeyFileOpen(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    let key = Secret::copy_of(text.trim_end());
    if !key.expose().starts_with(super::auth::MANAGEMENT_PREFIX) {
        return Err(RunError::KeyFileForm(path.to_owned()));
    }
    Ok(key)
}

/// Writes the certificate to `ca.pem` in that directory, which is made if absent, and returns the path.
/// Replaces the file in one step, so that nobody reads half of it.
pub fn write_ca(dir: &Path, pem: &str) -> Result<PathBuf, RunError> {
    let path = dir.join(CA_FILE);
    let draft = dir.join(format!(".{CA_FILE}.{}", std::process::id()));
    let failed = |error| RunError::CaFile(path.clone(), error);
    fs::create_dir_all(dir).map_err(failed)?;
    let mut options = fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .and_then(|()| fs::rename(&draft, &path));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(failed(error));
    }
    Ok(path)
}

fn announce(
    sandbox: &Sandbox,
    ca: Option<&Path>,
    format: Format,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let base_url = sandbox.base_url();
    let ca = ca.map(|path| path.display().to_string());
    match (format, ca) {
        (Format::Json, ca) => writeln!(out, "{}", json!({ "base_url": base_url, "ca": ca }))?,
        (Format::Text, Some(ca)) => writeln!(out, "listening on {base_url}, CA {ca}")?,
        (Format::Text, None) => writeln!(out, "listening on {base_url}")?,
    }
    out.flush()
}
