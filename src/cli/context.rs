//! What a command works with: where its results go, and how it reaches the daemon.
//!
//! A command of an agent runs under a session: the one of a session file, or one that is opened with
//! `--role` for this call and closed after it. Imports `client` and `clock`.

use std::path::{Path, PathBuf};

use super::args::{Global, OneCall, UnderSession};
use super::config;
use super::error::CliError;
use super::notes::Notes;
use super::output::{Document, Output};
use crate::client::{self, AdminClient, AgentClient, OpenSession, SessionFile, locate};
use crate::clock::SystemClock;
use crate::config::ConfigError;
use crate::types::{Reason, RoleName, TraceParent};

/// As other tools hand a trace on (OpenTelemetry, "Environment Variables as Context Propagation Carriers").
const TRACE_VARIABLE: &str = "TRACEPARENT";

/// The surroundings of one command.
pub(crate) struct Context {
    /// The options that every command understands.
    pub(crate) global: Global,
    /// Results.
    pub(crate) out: Output,
    /// Everything else that is said.
    pub(crate) notes: Notes,
    /// Time, for waits that a person watches.
    pub(crate) clock: SystemClock,
}

impl Context {
    /// Writes one result.
    pub(crate) fn show(&mut self, document: &impl Document) -> Result<(), CliError> {
        self.out.show(document).map_err(CliError::Output)
    }

    /// Connects to the admin socket.
    pub(crate) async fn admin(&self) -> Result<AdminClient, CliError> {
        let flag = self.global.admin_socket.as_deref();
        let candidates = if is_named(flag, locate::ADMIN_SOCKET_VARIABLE) {
            locate::admin_sockets(flag)
        } else {
            let [_, configured] = config::named_sockets(&self.global)?;
            configured.map_or_else(|| locate::admin_sockets(None), |path| vec![path])
        };
        Ok(AdminClient::connect(&candidates).await?)
    }

    /// Connects to the agent socket, without a session.
    pub(crate) async fn agent(&self) -> Result<AgentClient, CliError> {
        Ok(AgentClient::connect(&self.agent_sockets()?).await?.within(trace()))
    }

    /// The agent socket, where the command line, the environment or the configuration names one.
    pub(crate) fn named_agent_socket(&self) -> Result<Option<PathBuf>, CliError> {
        let flag = self.global.socket.as_deref();
        if is_named(flag, locate::AGENT_SOCKET_VARIABLE) {
            let named = locate::agent_sockets(flag).into_iter().next();
            return Ok(named.map(|path| std::path::absolute(&path).unwrap_or(path)));
        }
        match config::named_sockets(&self.global) {
            Ok([configured, _]) => Ok(configured),
            // It may be there later.
            Err(CliError::Config(ConfigError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn agent_sockets(&self) -> Result<Vec<PathBuf>, CliError> {
        let flag = self.global.socket.as_deref();
        if is_named(flag, locate::AGENT_SOCKET_VARIABLE) {
            return Ok(locate::agent_sockets(flag));
        }
        let [configured, _] = config::named_sockets(&self.global)?;
        Ok(configured.map_or_else(|| locate::agent_sockets(None), |path| vec![path]))
    }

    /// Connects under the session of a session file. Also returns the file's path.
    pub(crate) async fn session(&self, under: &UnderSession) -> Result<(AgentClient, PathBuf), CliError> {
        let path = session_path(under.session_file.clone());
        let read = path.as_ref().map(|path| SessionFile::read(path));
        if !matches!(read, Some(Ok(_))) && client::link::is_there() {
            // The link is of a session already: no token is needed, and no file.
            let client = AgentClient::connect_linked(&self.agent_sockets()?).await?;
            return Ok((client.within(trace()), path.unwrap_or_default()));
        }
        let path = path.ok_or(CliError::NoSession)?;
        let SessionFile { socket, token, .. } = SessionFile::read(&path)?;
        let socket = self.global.socket.clone().unwrap_or(socket);
        let client = AgentClient::connect(&[socket]).await?;
        Ok((client.within(trace()).with_token(token), path))
    }

    /// Runs `call` under the session of `one_call`, or under one that lasts as long as the call.
    pub(crate) async fn under<T>(
        &self,
        one_call: &OneCall,
        reason: Option<&Reason>,
        call: impl AsyncFnOnce(&AgentClient) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let Some(role) = &one_call.role else {
            let under = UnderSession { session_file: one_call.session_file.clone() };
            let (client, _) = self.session(&under).await?;
            return call(&client).await;
        };
        let client = self.open(role, reason).await?;
        let result = call(&client).await;
        // The session is bound to this process and ends with it anyway.
        let _ = client.close_session().await;
        result
    }

    async fn open(&self, role: &RoleName, reason: Option<&Reason>) -> Result<AgentClient, CliError> {
        let client = self.agent().await?;
        let open = OpenSession { reason: text(reason), ..OpenSession::role(role.as_str()) };
        let (_, token) = client.open_session(open).await?;
        Ok(client.with_token(token))
    }
}

/// True if the command line or the environment names a socket: stronger than the configuration.
fn is_named(flag: Option<&Path>, variable: &str) -> bool {
    flag.is_some() || std::env::var_os(variable).is_some_and(|path| !path.is_empty())
}

/// The trace that whoever started this program says it belongs to.
fn trace() -> Option<TraceParent> {
    TraceParent::read(std::env::var_os(TRACE_VARIABLE)?.to_str()?)
}

/// The session file: as named, else as the environment says.
fn session_path(named: Option<PathBuf>) -> Option<PathBuf> {
    let variable = || std::env::var_os(locate::SESSION_FILE_VARIABLE).filter(|path| !path.is_empty());
    named.or_else(|| variable().map(PathBuf::from))
}

/// A reason as the API takes it: empty if none was given.
pub(crate) fn text(reason: Option<&Reason>) -> String {
    reason.map(Reason::to_string).unwrap_or_default()
}
