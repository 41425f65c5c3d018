//! The adapter's session with the broker: opened by the first call that needs it, opened again once
//! when the broker ended it or was restarted, closed at the end. What it may do is kept beside it, for whoever
//! wants to know or to be told of a change.
//!
//! The session is bound to this process and not to a connection. Each call gets a connection of its own,
//! which ends with it: the buffers of an open one keep what has gone through them, values and token too.

use std::future::Future;
use std::mem::take;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::timeout;

use super::access::Access;
use super::rights::Rights;
use crate::client::{
    AgentClient, ClientError, ErrorReason, HeldSession, OpenSession, SessionDescription, SessionFile,
    SessionFileError, link,
};
use crate::types::TraceParent;

/// For the audit trail.
const REASON: &str = "MCP adapter";
/// The host is not kept waiting at the end; the session ends with this process anyway.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// One opened session, or one that is being opened. Callers that find it being opened wait for it, so
/// that a burst of first calls opens one session.
type Generation = OnceCell<HeldSession>;

/// A connection, or why there is none, and the session that it is for.
type Connected = (Arc<Generation>, Result<AgentClient, ClientError>);

/// What a call that failed may still try.
struct Chances {
    /// Another connection, where the first was lost.
    reconnect: bool,
    /// Another session, where the first has ended.
    reopen: bool,
}

/// The session, shared by all calls.
pub(super) struct BrokerSession {
    access: Access,
    sockets: Vec<PathBuf>,
    /// Replaced by whoever finds that it has ended.
    current: Mutex<Arc<Generation>>,
    /// What the session may do, as far as it is known; written by whoever learns it.
    rights: watch::Sender<Option<Rights>>,
    /// A call was made.
    pub(super) used: Notify,
    /// A call was refused for want of a right, which a reload may have taken.
    pub(super) refused: Notify,
}

/// Why there is no answer of the broker.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// Neither a role nor a session file was named.
    #[error("no role was named")]
    NoRole,
    /// The session file cannot be used.
    #[error(transparent)]
    SessionFile(#[from] SessionFileError),
    /// The call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

tokio::task_local! {
    /// The trace of the host's call that is being answered.
    pub(super) static TRACE: Option<TraceParent>;
}

fn trace() -> Option<TraceParent> {
    TRACE.try_with(|trace| *trace).ok().flatten()
}

impl BrokerSession {
    pub(super) fn new(access: Access, sockets: Vec<PathBuf>) -> Self {
        let (rights, _) = watch::channel(None);
        let (used, refused) = (Notify::new(), Notify::new());
        Self { access, sockets, current: Mutex::default(), rights, used, refused }
    }

    /// The role that the session is opened for, if it is opened here.
    pub(super) fn role(&self) -> Option<&str> {
        match &self.access {
            Access::Role(role) => Some(role.as_str()),
            Access::SessionFile(_) | Access::Unset => None,
        }
    }

    /// Makes a call that changes nothing upstream, so that it may be made again: on a new connection if
    /// the first was lost, and under a new session if the first has ended.
    pub(super) async fn read<T, F, A>(&self, call: F) -> Result<T, CallError>
    where
        F: Fn(AgentClient) -> A,
        A: Future<Output = Result<T, ClientError>>,
    {
        self.call(true, call).await
    }

    /// Makes a call that creates, sends or mints. It is made again only where the broker has not taken the
    /// first: nobody answered, or the session had ended.
    pub(super) async fn write<T, F, A>(&self, call: F) -> Result<T, CallError>
    where
        F: Fn(AgentClient) -> A,
        A: Future<Output = Result<T, ClientError>>,
    {
        self.call(false, call).await
    }

    /// The session as the broker sees it.
    pub(super) async fn describe(&self) -> Result<SessionDescription, CallError> {
        let description = self.read(|client| async move { client.describe_session().await }).await?;
        self.learn(&description.session.scopes);
        Ok(description)
    }

    /// What the session may do, asked for if it is not known. `None`: it cannot be known now.
    pub(super) async fn rights(&self) -> Option<Rights> {
        if let Some(known) = self.known_rights() {
            return Some(known);
        }
        let generation = Arc::clone(&self.current());
        // Opening one tells; one that somebody else opened has to be asked.
        generation.get_or_try_init(|| self.open()).await.ok()?;
        if self.known_rights().is_none() {
            self.describe().await.ok()?;
        }
        self.known_rights()
    }

    /// The same as of now, for a list of tools. Opens the session, and keeps to what was known if that fails.
    pub(super) async fn fresh_rights(&self) -> Option<Rights> {
        let generation = Arc::clone(&self.current());
        let was_open = generation.initialized();
        let opened = generation.get_or_try_init(|| self.open()).await.is_ok();
        // Opening one tells what it may do; one that was open, or that somebody else opened, has to be asked.
        if opened && (was_open || self.role().is_none()) {
            let _ = self.describe().await;
        }
        self.known_rights()
    }

    /// Asks again what the session may do, if one is open. One that has ended is not opened for this.
    pub(super) async fn refresh(&self) {
        let generation = Arc::clone(&self.current());
        let Some(held) = generation.get() else { return };
        let Ok(client) = held.connect().await else { return };
        if let Ok(description) = client.describe_session().await {
            self.learn(&description.session.scopes);
        }
    }

    /// What is known now.
    pub(super) fn known_rights(&self) -> Option<Rights> {
        self.rights.borrow().clone()
    }

    /// Tells of every change of what is known.
    pub(super) fn rights_changes(&self) -> watch::Receiver<Option<Rights>> {
        self.rights.subscribe()
    }

    fn learn(&self, scopes: &[String]) {
        let rights = Some(Rights::new(scopes.to_vec()));
        self.rights.send_if_modified(|known| {
            let changed = *known != rights;
            *known = rights;
            changed
        });
    }

    async fn call<T, F, A>(&self, may_reconnect: bool, call: F) -> Result<T, CallError>
    where
        F: Fn(AgentClient) -> A,
        A: Future<Output = Result<T, ClientError>>,
    {
        let mut chances = Chances { reconnect: may_reconnect, reopen: true };
        loop {
            let (generation, connected) = self.connect().await?;
            let result = match connected {
                Ok(client) => call(client).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(error) => self.look_again(error, &generation, &mut chances)?,
            }
        }
    }

    /// A connection under the session, which is opened if there is none. Boxed, so that it is compiled once and
    /// not into every tool.
    fn connect(&self) -> BoxFuture<'_, Result<Connected, CallError>> {
        Box::pin(async {
            let generation = Arc::clone(&self.current());
            let held = generation.get_or_try_init(|| self.open()).await?;
            let connected = held.connect().await.map(|client| client.within(trace()));
            Ok((generation, connected))
        })
    }

    /// Whether a call that failed is made again; its error if not.
    fn look_again(
        &self,
        error: ClientError,
        generation: &Arc<Generation>,
        chances: &mut Chances,
    ) -> Result<(), CallError> {
        match error {
            ClientError::Lost if take(&mut chances.reconnect) => Ok(()),
            error if ends_session(&error) => {
                self.forget(generation);
                if !take(&mut chances.reopen) {
                    return Err(error.into());
                }
                tracing::info!("the session with the broker has ended, opening another");
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Ends a session that this adapter opened.
    pub(super) async fn close(&self) {
        let generation = take(&mut *self.current());
        if let (Access::Role(_), Some(held)) = (&self.access, generation.get()) {
            let _ = timeout(CLOSE_DEADLINE, async { held.connect().await?.close_session().await }).await;
        }
    }

    async fn open(&self) -> Result<HeldSession, CallError> {
        match &self.access {
            Access::Role(role) => {
                let client = AgentClient::connect(&self.sockets).await?;
                let open = OpenSession { reason: REASON.into(), ..OpenSession::role(role.as_str()) };
                let (session, token) = client.open_session(open).await?;
                self.learn(&session.scopes);
                tracing::info!(session = %session.session_id, "opened a session with the broker");
                Ok(HeldSession::new(client.socket(), &token))
            }
            Access::SessionFile(path) => match (SessionFile::read(path), self.linked()) {
                (Ok(file), _) => Ok(HeldSession::new(&file.socket, &file.token)),
                (Err(_), Some(linked)) => Ok(linked),
                (Err(error), None) => Err(error.into()),
            },
            Access::Unset => self.linked().ok_or(CallError::NoRole),
        }
    }

    /// The session of a link, if a launcher has left one open.
    fn linked(&self) -> Option<HeldSession> {
        let socket = self.sockets.first().filter(|_| link::is_there())?;
        Some(HeldSession::linked(socket))
    }

    /// Makes room for another session, unless another call has done so already.
    fn forget(&self, generation: &Arc<Generation>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current, generation) {
            *current = Arc::default();
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<Generation>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True where only another session can help. A daemon that is not there any more has taken the session
/// with it.
fn ends_session(error: &ClientError) -> bool {
    use ErrorReason::{SessionExpired, SessionInvalid, SessionRequired, SessionRevoked};

    match error {
        ClientError::Unreachable { .. } => true,
        error => {
            matches!(error.reason(), Some(SessionRequired | SessionInvalid | SessionExpired | SessionRevoked))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::client::fake::FakeDaemon;

    /// Makes a call whose first `losses` attempts are lost. Returns the result and how many were made.
    async fn losing(session: &BrokerSession, again: bool, losses: u32) -> (Result<(), CallError>, u32) {
        let attempts = AtomicU32::new(0);
        let call = |_| {
            let lost = attempts.fetch_add(1, Ordering::SeqCst) < losses;
            async move { if lost { Err(ClientError::Lost) } else { Ok(()) } }
        };
        let result = if again { session.read(call).await } else { session.write(call).await };
        (result, attempts.into_inner())
    }

    #[tokio::test]
    async fn a_lost_call_is_made_again_once_and_under_the_same_session() {
        let daemon = FakeDaemon::serving();
        let access = Access::Role("notes-agent".parse().unwrap());
        let session = BrokerSession::new(access, vec![daemon.path()]);
        assert!(matches!(losing(&session, true, 1).await, (Ok(()), 2)));
        let lost = losing(&session, true, 2).await;
        assert!(matches!(lost, (Err(CallError::Client(ClientError::Lost)), 2)));
        assert_eq!(daemon.opened(), 1);
    }

    #[tokio::test]
    async fn a_lost_call_that_changes_something_is_not_made_again() {
        let daemon = FakeDaemon::serving();
        let access = Access::Role("notes-agent".parse().unwrap());
        let session = BrokerSession::new(access, vec![daemon.path()]);
        let lost = losing(&session, false, 1).await;
        assert!(matches!(lost, (Err(CallError::Client(ClientError::Lost)), 1)));
        daemon.end_session("SESSION_EXPIRED");
        let set = |client: AgentClient| async move {
            client.set_secret("API_KEY", &crate::secret::Secret::copy_of("x"), "").await
        };
        assert!(session.write(set).await.is_ok(), "a session that had ended took nothing");
        assert_eq!(daemon.opened(), 2);
    }
}
