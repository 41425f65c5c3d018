//! Wake-up: a message that fits a rule is told to a callback, which starts an agent on it.
//!
//! At least once, in order for each target, with one id for all attempts of a delivery. What is queued lies in the
//! store and is numbers and names; the message is fetched from Ravi again for each attempt. `rules` says who is told,
//! `attempt` is one try, `envelope` what is sent, `post` the connection, `backoff` what is tried again, `attend` has the
//! inbox looked at. Nothing is sent while the broker is locked, or its trail cannot be written. May import layers 0
//! and 1, `audit` and its neighbours in `inbox`.

pub mod attempt;
mod attend;
pub mod backoff;
pub mod envelope;
mod keys;
pub mod post;
pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::rand;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rusqlite::Transaction;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::attempt::{Fault, Step};
use self::keys::HookKeys;
use self::post::Post;
pub use self::rules::Rules;
use super::poll::{Arrived, Enqueue, OutboxFull};
use super::store::outbox::{self, Chosen, Counts, Delivery, New, State};
use super::store::{self, Store};
use crate::audit::{AuditFile, Cause, Event, NOBODY, Verb};
use crate::clock::{BootInstant, Clock};
use crate::types::{DispatchId, IdentityUuid};
use crate::upstream::Mailbox;
use crate::vault::arena::Arena;
use crate::vault::keyfile::KeyError;

/// Deliveries under way at once; of one target there is one.
const MAX_UNDER_WAY: usize = 8;
/// The queue is looked at again at least so often: the wall clock may have been set.
const LOOK: Duration = Duration::from_secs(60);
/// Between two rounds that forget what was settled long ago, and after so many that were settled.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
const PRUNE_AFTER: u32 = 256;
/// What Ravi did not let us fetch for so long is given up.
const TOO_LATE: Duration = Duration::from_secs(7 * 86_400);

/// The rules in force and the queue. Shared by whoever looks for messages, the dispatcher and the operator.
pub struct Dispatches {
    store: Store,
    /// Replaced by a reload; read for a copy.
    rules: RwLock<Arc<Rules>>,
    keys: HookKeys,
    clock: Arc<dyn Clock>,
    /// There may be something to do.
    wake: Notify,
    /// Changes with the rules.
    reloaded: watch::Sender<()>,
    /// The queue took nothing in when it was last asked to.
    full: AtomicBool,
}

/// What the operator sees of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// To be tried.
    pub pending: u32,
    /// Given up.
    pub dead: u32,
    /// How long the oldest pending one has waited.
    pub oldest_pending: Option<Duration>,
    /// New messages are held back: there is no room for them.
    pub full: bool,
}

impl Dispatches {
    /// Nothing is sent yet. Reads the keys that the rules name; what is queued goes where they point to now.
    pub fn open(
        store: Store,
        arena: Arc<Arena>,
        rules: Rules,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        let new = Self {
            store,
            rules: RwLock::default(),
            keys: HookKeys::new(arena),
            clock,
            wake: Notify::new(),
            reloaded: watch::Sender::new(()),
            full: AtomicBool::new(false),
        };
        new.keys.load(&rules)?;
        new.put(rules)?;
        Ok(Arc::new(new))
    }

    /// Reads the keys of new rules, before these are put in force.
    pub fn prepare(&self, rules: &Rules) -> Result<(), KeyError> {
        self.keys.load(rules)
    }

    /// Puts new rules in force. Not to be called on a worker of the runtime.
    pub fn put(&self, rules: Rules) -> store::Result<()> {
        let now = self.now();
        self.store.change_now(|tx| retarget(tx, &rules, now))?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.reloaded.send_replace(());
        self.wake.notify_one();
        Ok(())
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For [`Inbox::dispatch_by`](super::poll::Inbox::dispatch_by).
    pub fn enqueue(self: &Arc<Self>) -> Enqueue {
        let own = self.clone();
        Arc::new(move |tx, identity, arrived| own.take_in(tx, identity, arrived))
    }

    fn take_in(
        &self,
        tx: &Transaction<'_>,
        identity: IdentityUuid,
        arrived: &[Arc<Arrived>],
    ) -> rusqlite::Result<Result<(), OutboxFull>> {
        let (rules, mut news) = (self.rules(), Vec::new());
        for arrived in arrived {
            let message = arrived.message.name;
            let sender = arrived.message.sender();
            for rule in rules.fitting(identity, message.channel, sender.as_ref()) {
                let (rule, target) = (rule.config.name.clone(), rule.target.clone());
                news.push(New { id: random_id()?, rule, target, identity, message });
            }
        }
        if news.is_empty() {
            return Ok(Ok(()));
        }
        let added = outbox::add(tx, &news, self.now())?;
        if self.full.swap(added.is_err(), Ordering::SeqCst) != added.is_err() && added.is_err() {
            tracing::error!(
                pending = outbox::MAX_PENDING,
                "the queue of dispatches is full: new messages are held back until callbacks take some, or the \
                 operator drops some (`ravi-broker dispatch list`)"
            );
        }
        // It waits for the store until this transaction is done.
        self.wake.notify_one();
        Ok(added.map(drop).map_err(|outbox::Full| OutboxFull))
    }

    /// One page of deliveries, oldest first, from behind the sequence `after`.
    pub async fn list(&self, state: Option<State>, after: i64, limit: usize) -> store::Result<Vec<Delivery>> {
        self.store.change(move |tx| outbox::list(tx, state, after, limit)).await
    }

    /// Has deliveries tried again at once, with all their attempts. How many.
    pub async fn retry(&self, chosen: Chosen) -> store::Result<usize> {
        let (rules, now) = (self.rules(), self.now());
        let retried = self.store.change(move |tx| {
            let retried = outbox::retry(tx, chosen, now)?;
            retarget(tx, &rules, now)?;
            Ok(retried)
        });
        let retried = retried.await?;
        self.wake.notify_one();
        Ok(retried)
    }

    /// Drops deliveries: nobody is told. How many.
    pub async fn drop_chosen(&self, chosen: Chosen) -> store::Result<usize> {
        let now = self.now();
        let dropped = self.store.change(move |tx| outbox::drop_chosen(tx, chosen, now)).await?;
        self.wake.notify_one();
        Ok(dropped)
    }

    /// How much waits.
    pub async fn backlog(&self) -> store::Result<Backlog> {
        let Counts { pending, dead, oldest_pending } = self.store.change(outbox::counts).await?;
        let waited = |queued_at: i64| u64::try_from(self.now() - queued_at).unwrap_or_default();
        Ok(Backlog {
            pending,
            dead,
            oldest_pending: oldest_pending.map(|at| Duration::from_millis(waited(at))),
            full: self.full.load(Ordering::SeqCst) && i64::from(pending) >= outbox::MAX_PENDING / 2,
        })
    }

    fn now(&self) -> i64 {
        self.clock.wall().as_millisecond()
    }
}

/// Why dispatches cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A key or token.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The queue.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

fn retarget(tx: &Transaction<'_>, rules: &Rules, now: i64) -> rusqlite::Result<()> {
    let targets = rules.iter().map(|rule| (rule.config.name.as_str(), rule.target.as_str()));
    outbox::retarget(tx, targets, &Fault::RuleGone.to_string(), now)
}

fn random_id() -> rusqlite::Result<DispatchId> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| rusqlite::Error::InvalidQuery)?;
    Ok(DispatchId(bytes))
}

/// Empties the queue: one task, which tells callbacks.
pub struct Dispatcher {
    shared: Arc<Dispatches>,
    mailbox: Arc<dyn Mailbox>,
    audit: Arc<AuditFile>,
    clock: Arc<dyn Clock>,
    post: Post,
    /// False while the broker is locked or its trail cannot be written.
    serving: watch::Receiver<bool>,
    stopping: CancellationToken,
    settled: AtomicU32,
}

/// What the dispatcher needs besides the queue.
pub struct Means {
    /// Where messages come from.
    pub mailbox: Arc<dyn Mailbox>,
    /// The trail.
    pub audit: Arc<AuditFile>,
    /// The connections.
    pub post: Post,
    /// Whether the broker serves.
    pub serving: watch::Receiver<bool>,
    /// Told to stop.
    pub stopping: CancellationToken,
}

type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, String>>;

/// The targets that are being told, each with the row that it is told of: a reload can give the row another target
/// meanwhile, which is not told of it as well.
type Busy = HashMap<String, i64>;

impl Dispatcher {
    /// For the queue.
    pub fn new(shared: Arc<Dispatches>, means: Means) -> Self {
        let Means { mailbox, audit, post, serving, stopping } = means;
        let clock = shared.clock.clone();
        Self { shared, mailbox, audit, clock, post, serving, stopping, settled: AtomicU32::new(0) }
    }

    /// Delivers until it is told to stop; what is under way then may end. Locked, it drops what is under way, and goes
    /// on after the unlock.
    pub async fn run(self) {
        let mut serving = self.serving.clone();
        let (mut under_way, mut busy) = (UnderWay::new(), Busy::new());
        let mut prune_at = self.clock.now();
        loop {
            let serves = *serving.borrow_and_update();
            if self.stopping.is_cancelled() {
                break;
            }
            if !serves {
                under_way.clear();
                busy.clear();
            } else if self.clock.now() >= prune_at || self.settled.load(Ordering::Relaxed) >= PRUNE_AFTER {
                prune_at = self.clock.now() + PRUNE_EVERY;
                self.prune().await;
            }
            let next = match serves {
                true => self.begin(&mut under_way, &mut busy).await,
                false => self.clock.now() + LOOK,
            };
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => break,
                changed = serving.changed() => if changed.is_err() { break },
                Some(target) = under_way.next() => drop(busy.remove(&target)),
                () = self.shared.wake.notified() => {}
                () = self.clock.sleep_until(next) => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Begins what is due and may begin. When to look again.
    async fn begin<'a>(&'a self, under_way: &mut UnderWay<'a>, busy: &mut Busy) -> BootInstant {
        let look = self.clock.now() + LOOK;
        let rules = self.shared.rules();
        let targets: BTreeSet<String> = rules.iter().map(|rule| rule.target.clone()).collect();
        let heads = self.shared.store.change(move |tx| outbox::heads(tx, targets.iter().map(String::as_str)));
        let Ok(mut heads) = heads.await else {
            tracing::error!("the queue of dispatches cannot be read");
            return look;
        };
        heads.sort_by_key(|head| head.next_at);
        let (now, mut next) = (self.shared.now(), look);
        heads.retain(|head| {
            !busy.contains_key(&head.new.target) && !busy.values().any(|row| *row == head.sequence)
        });
        for head in heads {
            // Nothing waits longer than this; if it seems so, the wall clock was set back.
            let wait = u64::try_from(head.next_at - now).map_or(Duration::ZERO, Duration::from_millis);
            if !wait.is_zero() && wait <= backoff::LONGEST {
                next = next.min(self.clock.now() + wait);
            } else if under_way.len() < MAX_UNDER_WAY {
                busy.insert(head.new.target.clone(), head.sequence);
                under_way.push(self.deliver(head).boxed());
            }
        }
        next
    }

    /// One attempt and what is noted of it. Returns the target, which is free again.
    async fn deliver(&self, delivery: Delivery) -> String {
        let target = delivery.new.target.clone();
        let step = self.attempt(&delivery).await;
        let after = self.after(delivery, step);
        let noted = after.clone();
        match self.shared.store.change(move |tx| outbox::settle(tx, &noted)).await {
            Ok(true) => self.tell(&after, step),
            Ok(false) => tracing::info!(id = %after.new.id, "the operator settled a dispatch under way"),
            Err(error) => {
                tracing::error!(%error, id = %after.new.id, "what came of a dispatch is not noted; it is made again");
                self.clock.sleep_until(self.clock.now() + backoff::FIRST).await;
            }
        }
        target
    }

    /// The row after this step.
    fn after(&self, delivery: Delivery, step: Step) -> Delivery {
        let now = self.shared.now();
        let attempts = delivery.attempts + 1;
        let rules = self.shared.rules();
        let most = rules.named(&delivery.new.rule).map_or(0, |rule| rule.config.max_attempts);
        let in_time =
            |pause: Duration| now.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        let late = now - delivery.queued_at > i64::try_from(TOO_LATE.as_millis()).unwrap_or(i64::MAX);
        let (state, attempts, next_at, fault) = match step {
            Step::Delivered => (State::Delivered, attempts, now, String::new()),
            Step::Again(fault, asked) if attempts < most => {
                let next = in_time(backoff::pause(attempts, asked, chance()));
                (State::Pending, attempts, next, fault.to_string())
            }
            Step::Later(fault, pause) if !late => {
                (State::Pending, delivery.attempts, in_time(pause), fault.to_string())
            }
            Step::Later(fault, _) => (State::Dead, delivery.attempts, now, fault.to_string()),
            Step::Again(fault, _) | Step::Never(fault) => (State::Dead, attempts, now, fault.to_string()),
            Step::Dropped(fault) => (State::Dropped, attempts, now, fault.to_string()),
        };
        Delivery { state, attempts, next_at, fault, ..delivery }
    }

    /// The end goes into the trail; failures on the way there are counted.
    fn tell(&self, after: &Delivery, step: Step) {
        let Delivery { new, state, attempts, fault, .. } = after;
        let (id, rule, message) = (new.id, new.rule.as_str(), new.message);
        let event = |verb| Event::of(verb, &NOBODY).identity(new.identity).delivery(id, message, *attempts);
        let event = match state {
            State::Pending => {
                return tracing::warn!(%id, rule, %message, attempts, fault, "a dispatch was not taken; it is tried again");
            }
            State::Delivered => {
                tracing::info!(%id, rule, %message, attempts, "dispatched");
                event(Verb::DispatchDelivered)
            }
            State::Dropped => {
                tracing::info!(%id, rule, %message, fault, "a message is not dispatched");
                event(Verb::DispatchDead).denied(Cause::SenderUntrusted)
            }
            State::Dead => {
                tracing::error!(%id, rule, %message, attempts, fault, "a dispatch is given up; see `ravi-broker dispatch list`");
                event(Verb::DispatchDead).failed(cause(step))
            }
        };
        self.settled.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.audit.record(&event) {
            tracing::error!(%error, %id, "the end of a dispatch is not recorded");
        }
    }

    async fn prune(&self) {
        self.settled.store(0, Ordering::Relaxed);
        let now = self.shared.now();
        if let Err(error) = self.shared.store.change(move |tx| outbox::prune(tx, now)).await {
            tracing::error!(%error, "settled dispatches are not forgotten");
        }
    }
}

fn cause(step: Step) -> Cause {
    match step {
        Step::Never(Fault::MessageGone) => Cause::Absent,
        Step::Never(Fault::RuleGone) => Cause::Reload,
        Step::Later(..) | Step::Again(Fault::MessageUnreadable, _) => Cause::UpstreamUnavailable,
        _ => Cause::CallbackFailed,
    }
}

fn chance() -> u8 {
    let mut byte = [0];
    // Without random numbers pauses are whole.
    let _ = rand::fill(&mut byte);
    byte[0]
}
