//! The session of the launcher: opened, kept in a file, renewed while the program runs, opened again when the
//! daemon was away, closed at the end.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::say::Say;
use crate::cli::args::Run;
use crate::cli::context::{Context, text};
use crate::cli::error::CliError;
use crate::cli::output::span;
use crate::client::{
    AgentClient, Anchor, ClientError, ErrorReason, Events, LeaseEvent, OpenSession, Session, SessionFile,
    link,
};
use crate::clock::{BootInstant, Clock, SystemClock};

/// Between attempts to reach a daemon that went away: the first wait and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];
/// With less than this left, a renewal is not tried again.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// The end of the program must not wait for long for the daemon.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A session that belongs to this process and what it starts.
pub(super) struct LauncherSession {
    client: AgentClient,
    request: OpenSession,
    session: Session,
    file: OwnFile,
    /// For the program, until it has it; or why there is none.
    link: Option<Result<OwnedFd, ClientError>>,
    clock: SystemClock,
    wait: Duration,
}

/// A session file that goes when this is dropped.
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = SessionFile::remove(&self.0);
    }
}

/// How it stands with the renewal of a session.
struct Renewal {
    /// When the session ends without it.
    end: BootInstant,
    /// The user knows that it failed.
    told: bool,
}

impl Renewal {
    fn of(session: &LauncherSession) -> Self {
        Self { end: session.clock.now() + session.session.expires_in, told: false }
    }
}

/// Why a session is not watched any more.
enum Over {
    /// There is no daemon, or it knows nothing of the session: it was started again.
    Gone,
    /// It was ended.
    Ended(ClientError),
}

impl LauncherSession {
    /// Opens the session and writes its file.
    pub(super) async fn open(context: &Context, args: &Run) -> Result<Self, CliError> {
        let client = context.agent().await?;
        let request = OpenSession {
            role: args.role.to_string(),
            scopes: args.scopes.clone(),
            ttl: args.ttl,
            reason: text(args.purpose.reason.as_ref()),
            anchor: Anchor::Caller,
        };
        let (session, token) = client.open_session(request.clone()).await?;
        let file = SessionFile::new(client.socket(), &session, token);
        let kept = SessionFile::default_path(session.session_id).map(OwnFile);
        let kept = kept.and_then(|kept| file.write(&kept.0).map(|()| kept));
        // Without one the program reaches the daemon by its socket, unless a sandbox forbids that.
        let link = Some(link::make(client.socket(), &file.token).await);
        let client = client.with_token(file.token);
        match kept {
            Ok(file) => {
                Ok(Self { client, request, session, file, link, clock: context.clock, wait: WAITS[0] })
            }
            Err(error) => {
                // It ends with this process in any case.
                let _ = client.close_session().await;
                Err(error.into())
            }
        }
    }

    /// For calls under the session.
    pub(super) fn client(&self) -> &AgentClient {
        &self.client
    }

    /// The link for the program. Says why if there is none.
    pub(super) fn take_link(&mut self, say: &Say<'_>) -> Option<OwnedFd> {
        let told = |error: &ClientError| {
            say.note(format_args!(
                "no link was made, so a program that may use no sockets cannot reach the broker: {error}"
            ));
        };
        self.link.take()?.inspect_err(told).ok()
    }

    /// Of the session file.
    pub(super) fn path(&self) -> &Path {
        &self.file.0
    }

    /// Renews the session at half its life, and opens another one when the daemon comes back.
    pub(super) async fn keep(&mut self, say: &Say<'_>) -> Infallible {
        loop {
            match self.watch(say).await {
                Over::Gone => say.note(
                    "the broker went away; the program goes on, and gets a new session when it is back",
                ),
                Over::Ended(error) => {
                    say.note(format_args!("the session is over, the program goes on without it: {error}"));
                    return std::future::pending().await;
                }
            }
            if let Err(error) = self.open_again().await {
                let what = error.report().message;
                say.note(format_args!("the broker is back and gave no new session: {what}"));
                return std::future::pending().await;
            }
            say.note("the broker is back, and the program has a new session");
        }
    }

    /// Ends the session and removes its file.
    pub(super) async fn close(self) {
        // It ends with this process in any case.
        let _ = timeout(CLOSE_DEADLINE, self.client.close_session()).await;
    }

    async fn watch(&mut self, say: &Say<'_>) -> Over {
        let mut events = match self.client.watch_leases().await {
            Ok(events) => Some(events),
            Err(error) => match verdict(error) {
                Ok(over) => return over,
                // Then the next renewal finds out.
                Err(_) => None,
            },
        };
        let mut renewal = Renewal::of(self);
        let mut next = Some(self.half_life());
        loop {
            tokio::select! {
                error = failure(&mut events) => match verdict(error) {
                    Ok(over) => return over,
                    Err(_) => events = None,
                },
                () = until(self.clock, next) => match self.renew(say, &mut renewal).await {
                    Ok(later) => next = later,
                    Err(over) => return over,
                },
            }
        }
    }

    fn half_life(&self) -> BootInstant {
        self.clock.now() + self.session.expires_in / 2
    }

    /// Returns when to renew again; nothing if there is no use in it. `renewal` is told of its first failure.
    async fn renew(&mut self, say: &Say<'_>, renewal: &mut Renewal) -> Result<Option<BootInstant>, Over> {
        let left = renewal.end.since(self.clock.now());
        let refused = match self.client.renew_session(self.request.ttl).await {
            Ok(session) if session.expires_in > left => {
                self.session = session;
                self.wait = WAITS[0];
                *renewal = Renewal::of(self);
                return Ok(Some(self.half_life()));
            }
            Ok(_) => None,
            Err(error) => match verdict(error) {
                Ok(over) => return Err(over),
                Err(error) => Some(error),
            },
        };
        if !std::mem::replace(&mut renewal.told, true) {
            let why = refused.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            say.note(format_args!("the session was not renewed and ends in {}{why}", span(left)));
        }
        let again = refused.is_some_and(|error| is_passing(&error)) && left > SHORTEST_LIFE;
        Ok(again.then(|| self.clock.now() + left / 2))
    }

    async fn open_again(&mut self) -> Result<(), CliError> {
        loop {
            self.clock.sleep_until(self.clock.now() + self.wait).await;
            self.wait = (self.wait * 2).min(WAITS[1]);
            match self.try_again().await {
                Err(CliError::Client(error)) if is_passing(&error) => {}
                result => return result,
            }
        }
    }

    async fn try_again(&mut self) -> Result<(), CliError> {
        let client = AgentClient::connect(&[self.client.socket().to_owned()]).await?;
        let (session, token) = client.open_session(self.request.clone()).await?;
        let file = SessionFile::new(client.socket(), &session, token);
        file.write(&self.file.0)?;
        self.client = client.with_token(file.token);
        self.session = session;
        Ok(())
    }
}

/// What an error says about the session. `Err`: nothing.
fn verdict(error: ClientError) -> Result<Over, ClientError> {
    use ErrorReason as R;
    match (&error, error.reason()) {
        (ClientError::Lost | ClientError::TimedOut | ClientError::Unreachable { .. }, _) => Ok(Over::Gone),
        (_, Some(R::BrokerDraining | R::SessionInvalid)) => Ok(Over::Gone),
        (_, Some(R::SessionExpired | R::SessionRevoked | R::BrokerLocked)) => Ok(Over::Ended(error)),
        _ => Err(error),
    }
}

/// Whether a new session may be had later.
fn is_passing(error: &ClientError) -> bool {
    use ErrorReason as R;
    let lasting = [R::RoleNotAvailable, R::ScopeNotGranted, R::ArgumentInvalid, R::MethodUnknown];
    !matches!(error, ClientError::Protocol) && !error.reason().is_some_and(|reason| lasting.contains(&reason))
}

/// Waits for the end of the stream.
async fn failure(events: &mut Option<Events<LeaseEvent>>) -> ClientError {
    let Some(events) = events else { return std::future::pending().await };
    loop {
        match events.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => return ClientError::Lost,
        }
    }
}

async fn until(clock: SystemClock, deadline: Option<BootInstant>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
