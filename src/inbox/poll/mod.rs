//! Looks for new messages, as often as somebody needs them and no oftener.
//!
//! One task for each channel of each identity in use. It looks every two seconds while a watch is open, rarely while
//! only a stream or a dispatch needs it, and sleeps otherwise. Whoever opens a watch asks for a look of its own, so
//! that it is known what is there already; who asks at the same time shares it. A message counts as new in the look
//! that saw it first: a number that was not seen before, above where the cursor stood.
//!
//! The cursor is saved, with what is to be dispatched, before anybody is told. May import `upstream` and its
//! neighbours in `inbox`. `line` is one channel of one identity.

mod line;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use rusqlite::Transaction;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::line::Line;
use super::message::Message;
use super::store::{Store, StoreError};
use super::watch::Watches;
use crate::clock::Clock;
use crate::config::InboxConfig;
use crate::types::{Channel, IdentityUuid, WatchId};
use crate::upstream::{Mailbox, UpstreamError};

/// Until an event stream that ended is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(30);
/// Asks that wait for a look. Beyond it, who asks waits to be heard.
const WAITING: usize = 256;
/// Messages that a slow reader of a stream may be behind.
const TOLD: usize = 256;

/// Where new messages are looked for, and who is told of them.
pub struct Inbox {
    mailbox: Arc<dyn Mailbox>,
    store: Store,
    clock: Arc<dyn Clock>,
    settings: InboxConfig,
    /// Who waits for a code.
    pub watches: Watches,
    /// Bounded by the identities of the roles and rules.
    lines: DashMap<(IdentityUuid, Channel), mpsc::Sender<Ask>>,
    standing: Mutex<Vec<Standing>>,
    /// Identities whose event stream is listened to.
    listening: Mutex<HashSet<IdentityUuid>>,
    outbox: Mutex<Option<Enqueue>>,
    told: broadcast::Sender<Arc<Arrived>>,
    stopping: CancellationToken,
}

/// A message that came in, for whoever is told of it. It holds no code.
pub struct Arrived {
    /// Whose.
    pub identity: IdentityUuid,
    /// The message. What of it is shown is a matter of who asks.
    pub message: Message,
}

/// What is dispatched of new messages, in the transaction that moves the cursor.
pub type Enqueue = Arc<
    dyn Fn(&Transaction<'_>, IdentityUuid, &[Arc<Arrived>]) -> rusqlite::Result<Result<(), OutboxFull>>
        + Send
        + Sync,
>;

/// The outbox takes no more: the cursor stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

/// Somebody other than a watch who needs the messages of a channel.
struct Standing {
    identity: IdentityUuid,
    channel: Channel,
    count: usize,
}

/// Needs the messages of a channel for as long as it lives.
pub struct Attention {
    inbox: Arc<Inbox>,
    identity: IdentityUuid,
    channel: Channel,
}

/// What a look came to.
pub type Looked = Result<(), LookError>;

/// Why a look failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookError {
    /// Ravi did not answer as it should.
    Upstream(UpstreamError),
    /// The store did not take it.
    Store(StoreError),
    /// Too much waits to be dispatched.
    OutboxFull,
    /// The daemon stops.
    Stopping,
}

#[derive(Default)]
struct Ask {
    /// Look now, and not only see how often it is needed.
    look: bool,
    arm: Option<WatchId>,
    done: Option<oneshot::Sender<Looked>>,
}

impl Inbox {
    /// Looks at nothing yet.
    pub fn new(
        mailbox: Arc<dyn Mailbox>,
        store: Store,
        watches: Watches,
        settings: InboxConfig,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            mailbox,
            store,
            clock,
            settings,
            watches,
            lines: DashMap::new(),
            standing: Mutex::default(),
            listening: Mutex::default(),
            outbox: Mutex::default(),
            told: broadcast::Sender::new(TOLD),
            stopping,
        })
    }

    /// Arms a watch: returns once a look that began after this call has seen what is there already.
    pub async fn arm(self: &Arc<Self>, identity: IdentityUuid, channel: Channel, watch: WatchId) -> Looked {
        let (done, looked) = oneshot::channel();
        self.ask(identity, channel, Ask { look: true, arm: Some(watch), done: Some(done) }).await?;
        looked.await.unwrap_or(Err(LookError::Stopping))
    }

    /// Has the channel looked at, rarely, for as long as the answer lives.
    pub async fn attend(self: &Arc<Self>, identity: IdentityUuid, channel: Channel) -> Attention {
        self.stand(identity, channel, |count| count + 1);
        // Wakes the task, which then sees that it is needed; one that stops needs no waking.
        let _ = self.ask(identity, channel, Ask::default()).await;
        Attention { inbox: self.clone(), identity, channel }
    }

    /// New messages from now on.
    pub fn arrivals(&self) -> broadcast::Receiver<Arc<Arrived>> {
        self.told.subscribe()
    }

    /// Sets what is dispatched of new messages.
    pub fn dispatch_by(&self, enqueue: Enqueue) {
        *self.outbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(enqueue);
    }

    fn line(self: &Arc<Self>, identity: IdentityUuid, channel: Channel) -> mpsc::Sender<Ask> {
        let line = self.lines.entry((identity, channel)).or_insert_with(|| {
            let (line, asks) = mpsc::channel(WAITING);
            tokio::spawn(Line::new(self.clone(), identity, channel, asks).run());
            self.listen_to(identity);
            line
        });
        line.value().clone()
    }

    async fn ask(self: &Arc<Self>, identity: IdentityUuid, channel: Channel, ask: Ask) -> Looked {
        let line = self.line(identity, channel);
        line.send(ask).await.map_err(|_| LookError::Stopping)
    }

    /// Where it is switched on: Ravi's event stream says when a look is worth it. Once for each identity.
    fn listen_to(self: &Arc<Self>, identity: IdentityUuid) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.settings.events || !listening.insert(identity) {
            return;
        }
        tokio::spawn(self.clone().listen(identity));
    }

    async fn listen(self: Arc<Self>, identity: IdentityUuid) {
        let stopping = self.stopping.clone();
        let listen = async {
            loop {
                let ended = self.mailbox.listen(identity, &|channel| self.nudge(identity, channel)).await;
                tracing::debug!(%identity, ?ended, "the event stream has ended");
                self.clock.sleep_until(self.clock.now() + LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = listen => {}
            () = stopping.cancelled() => {}
        }
    }

    /// Has a channel looked at that somebody needs. One that is asked already is not asked again.
    fn nudge(&self, identity: IdentityUuid, channel: Option<Channel>) {
        for channel in Channel::ALL.into_iter().filter(|one| channel.is_none_or(|channel| channel == *one)) {
            if self.interval(identity, channel).is_some()
                && let Some(line) = self.lines.get(&(identity, channel))
            {
                let _ = line.try_send(Ask { look: true, ..Ask::default() });
            }
        }
    }

    fn stand(&self, identity: IdentityUuid, channel: Channel, change: impl Fn(usize) -> usize) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |one: &Standing| (one.identity, one.channel) == (identity, channel);
        match standing.iter_mut().find(|one| own(one)) {
            Some(one) => one.count = change(one.count),
            None => standing.push(Standing { identity, channel, count: change(0) }),
        }
        standing.retain(|one| one.count > 0);
    }

    /// How often the channel is to be looked at; `None`: not at all.
    fn interval(&self, identity: IdentityUuid, channel: Channel) -> Option<Duration> {
        if self.watches.wanted(identity, self.clock.now()).contains(&channel) {
            return Some(self.settings.poll);
        }
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let attended = standing.iter().any(|one| (one.identity, one.channel) == (identity, channel));
        attended.then_some(self.settings.idle_poll)
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.inbox.stand(self.identity, self.channel, |count| count.saturating_sub(1));
    }
}
