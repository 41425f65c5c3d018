//! The end of agents. One thread waits for the processes of all sessions. It takes the access of all that
//! ended before it writes the record of any, and it is none of the runtime's, in whose queue the end of one
//! agent would come after the requests of all others.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::Broker;
use super::error::{BrokerError, Result};
use super::session::Ended;
use crate::peer::Pidfd;
use crate::session::{End, OpenError, Session};
use crate::sys::exits::Exits;
use crate::types::SessionId;

/// The processes that sessions live and die with.
#[derive(Default)]
pub(super) struct Deaths {
    /// What the thread waits on; `None` until the first session.
    exits: Mutex<Option<Arc<Exits>>>,
    /// By the key that tells of it. Bounded by the sessions: each is taken out when it ends.
    watched: Mutex<HashMap<u64, (SessionId, Pidfd)>>,
    /// Ended and not yet recorded. Locked while one of them is recorded: who finds it empty knows that all are.
    /// Bounded by the sessions that end while one record is written.
    unrecorded: Mutex<VecDeque<Ended>>,
}

impl Broker {
    /// The session ends when the kernel says that its process has. A child with the anchor of its parent
    /// ends with that.
    pub(super) fn end_with_process(self: &Arc<Self>, session: &Session) -> Result<()> {
        let anchor = session.anchor();
        let parent = session.parent.and_then(|parent| self.sessions.find(parent));
        if parent.is_some_and(|parent| parent.anchor() == anchor) {
            return Ok(());
        }
        let gone = if session.parent.is_some() { OpenError::NoProcess } else { OpenError::NoAnchor };
        let process = Pidfd::open(anchor).ok_or(gone)?;
        let watched = self.exits().and_then(|exits| self.deaths.watch(&exits, session.id, process));
        watched.map_err(|error| {
            tracing::error!(%error, "no session can be opened: the end of its process cannot be waited for");
            BrokerError::Internal
        })
    }

    /// Writes what is left to be written of sessions whose process has ended.
    pub(super) fn record_deaths(&self) {
        while self.record_death() {}
    }

    /// Starts the thread, if it does not run yet. It ends with the broker.
    fn exits(self: &Arc<Self>) -> io::Result<Arc<Exits>> {
        let mut started = lock(&self.deaths.exits);
        if let Some(exits) = &*started {
            return Ok(exits.clone());
        }
        let exits = Arc::new(Exits::new()?);
        let (broker, waited) = (Arc::downgrade(self), exits.clone());
        thread::Builder::new().name("deaths".to_owned()).spawn(move || wait(&broker, &waited))?;
        Ok(started.insert(exits).clone())
    }

    /// Takes the access of the session whose process has ended.
    fn process_ended(&self, key: u64) {
        let session = lock(&self.deaths.watched).get(&key).map(|(session, _)| *session);
        let Some(session) = session else { return };
        let ended = self.forget_all(self.sessions.end(session, End::ProcessEnded));
        lock(&self.deaths.unrecorded).extend(ended);
    }

    /// Writes the records of one session. True: there are more.
    fn record_death(&self) -> bool {
        let mut unrecorded = lock(&self.deaths.unrecorded);
        if let Some(ended) = unrecorded.pop_front() {
            self.record_ended(&ended);
        }
        !unrecorded.is_empty()
    }
}

/// Until the broker is gone. Between two records it looks whether somebody has ended meanwhile.
fn wait(broker: &Weak<Broker>, exits: &Exits) {
    let mut longest = None;
    loop {
        let ended = match exits.wait(longest) {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(error) => {
                // A token is judged at its use all the same: none works without its process.
                tracing::error!(%error, "sessions no longer end with their processes, but by their time alone");
                return;
            }
        };
        let Some(broker) = broker.upgrade() else { return };
        ended.into_iter().for_each(|key| broker.process_ended(key));
        longest = broker.record_death().then_some(Duration::ZERO);
    }
}

impl Deaths {
    fn watch(&self, exits: &Exits, session: SessionId, process: Pidfd) -> io::Result<()> {
        let key = key(session);
        let mut watched = lock(&self.watched);
        if watched.contains_key(&key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        exits.add(process.as_fd(), key)?;
        watched.insert(key, (session, process));
        Ok(())
    }

    /// A session that is over. Closes the pidfd, so that its end is not told any more.
    pub(super) fn forget(&self, session: SessionId) {
        lock(&self.watched).remove(&key(session));
    }
}

impl Drop for Deaths {
    fn drop(&mut self) {
        if let Some(exits) = &*lock(&self.exits) {
            exits.stop();
        }
    }
}

/// Half of its random bits: enough to tell sessions apart that live at the same time.
fn key(session: SessionId) -> u64 {
    session.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes) >> 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
