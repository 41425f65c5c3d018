//! The looks at one channel of one identity: when, what is new in them, and who gets it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Arrived, Ask, Inbox, LookError, Looked, OutboxFull};
use crate::clock::BootInstant;
use crate::inbox::code::{Found, Wanted};
use crate::inbox::message::Message;
use crate::inbox::store::cursors::Cursor;
use crate::inbox::store::{claims, cursors};
use crate::inbox::watch::{Fit, Offer};
use crate::types::{Channel, IdentityUuid};
use crate::upstream::{Mail, UpstreamError};

/// Between two looks at least, whoever asks for them.
const GAP: Duration = Duration::from_secs(1);
/// After failures, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Mail is asked for again from so long before the newest one: what Ravi files late is not missed.
const OVERLAP: Duration = Duration::from_secs(120);
/// Messages in one answer.
const PAGE: usize = 100;
/// Bytes of texts from which on an answer may have been cut.
const HEAVY: usize = 256 * 1024;
/// Answers in one look; what is left is seen in the next one.
const PAGES: usize = 10;
/// Messages that wait for room in the outbox; with more, nothing is looked at until there is some.
const HELD: usize = 256;
/// Numbers that are remembered as seen.
const REMEMBERED: usize = 2_048;

/// One channel of one identity.
pub(super) struct Line {
    inbox: Arc<Inbox>,
    identity: IdentityUuid,
    channel: Channel,
    asks: mpsc::Receiver<Ask>,
    /// `None`: not looked at since the start of the daemon.
    seen: Option<Seen>,
    /// Seen, and not in the outbox yet, which was full. The saved cursor stands before them.
    held: Vec<Arc<Arrived>>,
    /// The last look did not come to the end.
    crowded: bool,
    failures: u32,
}

/// What was seen so far.
struct Seen {
    newest: Cursor,
    /// What is not above it was there before we began to look.
    floor: i64,
    recent: BTreeSet<i64>,
    /// When the newest one was seen first.
    at: BootInstant,
}

impl Line {
    /// Not looked at yet.
    pub(super) fn new(
        inbox: Arc<Inbox>,
        identity: IdentityUuid,
        channel: Channel,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        Self { inbox, identity, channel, asks, seen: None, held: Vec::new(), crowded: false, failures: 0 }
    }

    /// Looks until the daemon stops.
    pub(super) async fn run(mut self) {
        let stopping = self.inbox.stopping.clone();
        let mut next = None;
        while let Some(asks) = self.wait(next, &stopping).await {
            let began = self.inbox.clock.now();
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = stopping.cancelled() => Err(LookError::Stopping),
            };
            for Ask { arm, done, .. } in asks {
                if let (Some(watch), Ok(())) = (arm, &looked) {
                    self.inbox.watches.arm(watch);
                }
                if let Some(done) = done {
                    let _ = done.send(looked.clone());
                }
            }
            next = Some(Next { not_before: began + self.pause(&looked), began });
        }
    }

    /// Until a look is due: those who asked for it. `None`: the daemon stops.
    async fn wait(&mut self, next: Option<Next>, stopping: &CancellationToken) -> Option<Vec<Ask>> {
        let (clock, mut asks) = (self.inbox.clock.clone(), Vec::new());
        while asks.is_empty() {
            let interval = self.inbox.interval(self.identity, self.channel);
            let due = interval.map(|interval| match next {
                Some(next) => next.not_before.max(next.began + jittered(interval)),
                None => clock.now(),
            });
            let elapsed = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ask = self.asks.recv() => asks.push(ask?),
                () = elapsed => return Some(Vec::new()),
                () = stopping.cancelled() => return None,
            }
            // Only woken, to see how often it is needed now.
            asks.retain(|ask| ask.look);
        }
        if let Some(next) = next {
            tokio::select! {
                () = clock.sleep_until(next.not_before) => {}
                () = stopping.cancelled() => return None,
            }
        }
        while let Ok(ask) = self.asks.try_recv() {
            asks.push(ask);
        }
        Some(asks)
    }

    /// After a look, until the next one at the earliest.
    fn pause(&mut self, looked: &Looked) -> Duration {
        let Err(error) = looked else {
            self.failures = 0;
            return GAP;
        };
        self.failures = self.failures.saturating_add(1);
        let (identity, channel) = (self.identity, self.channel);
        tracing::warn!(%identity, %channel, ?error, failures = self.failures, "the inbox was not looked at");
        let doubled = self.inbox.settings.poll * 2_u32.saturating_pow(self.failures.min(8));
        match error {
            LookError::Upstream(
                UpstreamError::Throttled { retry_after } | UpstreamError::BudgetReached { retry_after },
            ) => doubled.max(*retry_after).min(LONGEST_PAUSE.max(*retry_after)),
            _ => doubled.min(LONGEST_PAUSE),
        }
    }

    async fn look(&mut self) -> Looked {
        if self.seen.is_none() {
            self.seen = Some(self.begin().await?);
        }
        self.let_go().await?;
        let mut after = self.start();
        for _ in 0..PAGES {
            let Fetched { messages, next } = self.fetch(after).await.map_err(LookError::Upstream)?;
            for arrived in self.note(messages).await? {
                self.tell(&arrived).await;
            }
            self.crowded = next.is_some();
            after = match next {
                Some(next) => Some(next),
                None => break,
            };
        }
        Ok(())
    }

    /// From where mail is asked for. The overlap must not take all of a look.
    fn start(&self) -> Option<Timestamp> {
        let seen = self.seen.as_ref()?;
        let recent = self.inbox.clock.now() < seen.at + OVERLAP && !self.crowded;
        let overlap = if recent { OVERLAP } else { Duration::ZERO };
        let after = seen.newest.created.checked_sub(overlap).unwrap_or(Timestamp::UNIX_EPOCH);
        (after > Timestamp::UNIX_EPOCH).then_some(after)
    }

    /// Where a former run stood, or else at the newest message there is: what came before is nobody's news.
    async fn begin(&self) -> Result<Seen, LookError> {
        let (identity, channel) = (self.identity, self.channel);
        let known = self.inbox.store.change(move |tx| cursors::read(tx, identity, channel)).await;
        if let Some(cursor) = known.map_err(LookError::Store)? {
            return Ok(self.seen_up_to(cursor));
        }
        let mailbox = &self.inbox.mailbox;
        let newest = match channel {
            Channel::Email => mailbox.newest_mail(identity, 0, 1).await.map(|mails| {
                mails
                    .iter()
                    .map(|mail| Cursor { id: mail.id, created: mail.created })
                    .max_by_key(|cursor| cursor.id)
            }),
            Channel::Sms => mailbox.list_texts(identity, None).await.map(|texts| {
                texts
                    .iter()
                    .map(|text| Cursor { id: text.id, created: text.created })
                    .max_by_key(|cursor| cursor.id)
            }),
        };
        let newest = newest.map_err(LookError::Upstream)?;
        let cursor = newest.unwrap_or(Cursor { id: 0, created: Timestamp::UNIX_EPOCH });
        let saved = self.inbox.store.change(move |tx| cursors::save(tx, identity, channel, cursor)).await;
        saved.map_err(LookError::Store)?;
        Ok(self.seen_up_to(cursor))
    }

    fn seen_up_to(&self, newest: Cursor) -> Seen {
        Seen { newest, floor: newest.id, recent: BTreeSet::new(), at: self.inbox.clock.now() }
    }

    async fn fetch(&self, after: Option<Timestamp>) -> Result<Fetched, UpstreamError> {
        let Some(seen) = &self.seen else { return Ok(Fetched { messages: Vec::new(), next: None }) };
        match self.channel {
            Channel::Email => {
                let mails = self.inbox.mailbox.list_mail(self.identity, after, PAGE).await?;
                let next = next_page(&mails, after);
                Ok(Fetched { messages: mails.into_iter().map(Message::from).collect(), next })
            }
            Channel::Sms => {
                let texts = self.inbox.mailbox.list_texts(self.identity, Some(seen.newest.id)).await?;
                Ok(Fetched { messages: texts.into_iter().map(Message::from).collect(), next: None })
            }
        }
    }

    /// Saves how far was read, and what is to be dispatched. Who waits for a code does not wait for the outbox.
    async fn note(&mut self, messages: Vec<Message>) -> Result<Vec<Arc<Arrived>>, LookError> {
        let (identity, channel) = (self.identity, self.channel);
        let Some(seen) = &mut self.seen else { return Ok(Vec::new()) };
        let mut fresh: Vec<Message> =
            messages.into_iter().filter(|message| seen.is_new(message.name.id)).collect();
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        fresh.sort_by_key(|message| (message.created, message.name.id));
        let ids: Vec<i64> = fresh.iter().map(|message| message.name.id).collect();
        let newest = fresh.iter().fold(seen.newest, |newest, message| Cursor {
            id: newest.id.max(message.name.id),
            created: newest.created.max(message.created),
        });
        let came_in = fresh.into_iter().filter(|message| !message.outgoing);
        let news: Vec<Arc<Arrived>> =
            came_in.map(|message| Arc::new(Arrived { identity, message })).collect();
        let waiting: Vec<Arc<Arrived>> = self.held.iter().chain(&news).cloned().collect();
        if save(&self.inbox, (identity, channel), newest, waiting.clone()).await? == Saved::Full {
            if waiting.len() > HELD {
                return Err(LookError::OutboxFull);
            }
            tracing::error!(%identity, %channel, held = waiting.len(), "too much waits to be dispatched: see `ravi-broker dispatch list`");
            self.held = waiting;
        } else {
            self.held.clear();
        }
        seen.take(newest, ids, self.inbox.clock.now());
        Ok(news)
    }

    /// Once there is room again, what was held goes into the outbox.
    async fn let_go(&mut self) -> Result<(), LookError> {
        let (Some(seen), false) = (&self.seen, self.held.is_empty()) else { return Ok(()) };
        let whose = (self.identity, self.channel);
        if save(&self.inbox, whose, seen.newest, self.held.clone()).await? == Saved::All {
            self.held.clear();
        }
        Ok(())
    }

    async fn tell(&self, arrived: &Arc<Arrived>) {
        self.offer(arrived).await;
        // Nobody may be listening.
        let _ = self.inbox.told.send(arrived.clone());
    }

    /// Gives the code in a message to the first watch that it fits. The claim is written before.
    async fn offer(&self, arrived: &Arc<Arrived>) {
        let message = &arrived.message;
        let sender = message.sender();
        let offer = Offer { identity: self.identity, message: message.name, sender: sender.as_ref() };
        let (watches, clock) = (&self.inbox.watches, &self.inbox.clock);
        let fitting = || watches.fitting(&offer, clock.now());
        let Some(mut found) = found(arrived.clone(), &fitting()).await else {
            return tracing::error!(message = %message.name, "a message was not looked through");
        };
        // Those of now: a watch may have ended meanwhile.
        for Fit { watch, session, wanted } in fitting() {
            let Some(at) = found.iter().position(|(looked_for, _)| *looked_for == wanted) else { continue };
            let (_, found) = found.swap_remove(at);
            let (identity, name, at) = (self.identity, message.name, clock.wall().as_second());
            let claimed =
                self.inbox.store.change(move |tx| claims::claim(tx, identity, name, (watch, session), at));
            match claimed.await {
                Ok(true) => drop(watches.give(watch, found, name, &message.from, message.created)),
                // It was somebody's before a restart.
                Ok(false) => {}
                Err(error) => tracing::error!(%error, message = %name, "a code is given to nobody"),
            }
            return;
        }
    }
}

/// What the message holds of what is waited for, off the workers: to look through a long one takes time. `None`: the look
/// broke off.
async fn found(arrived: Arc<Arrived>, fitting: &[Fit]) -> Option<Vec<(Wanted, Found)>> {
    let kinds = kinds(fitting);
    if kinds.is_empty() {
        return Some(Vec::new());
    }
    let look =
        move || kinds.into_iter().filter_map(|kind| Some((kind, arrived.message.find(kind)?))).collect();
    tokio::task::spawn_blocking(look).await.ok()
}

/// What is waited for, each once, however many wait.
fn kinds(fitting: &[Fit]) -> Vec<Wanted> {
    let mut kinds = Vec::new();
    for Fit { wanted, .. } in fitting {
        if !kinds.contains(wanted) {
            kinds.push(*wanted);
        }
    }
    kinds
}

impl Seen {
    fn is_new(&self, id: i64) -> bool {
        id > self.floor && !self.recent.contains(&id)
    }

    fn take(&mut self, newest: Cursor, ids: Vec<i64>, now: BootInstant) {
        if newest != self.newest {
            (self.newest, self.at) = (newest, now);
        }
        self.recent.extend(ids);
        while self.recent.len() > REMEMBERED {
            // What is forgotten must not become new again.
            self.floor = self.recent.pop_first().unwrap_or(self.floor).max(self.floor);
        }
    }
}

/// Moves the saved cursor and enqueues what is to be dispatched, or neither.
async fn save(
    inbox: &Inbox,
    (identity, channel): (IdentityUuid, Channel),
    newest: Cursor,
    arrived: Vec<Arc<Arrived>>,
) -> Result<Saved, LookError> {
    let enqueue = inbox.outbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let saved = inbox.store.change(move |tx| {
        if let Some(enqueue) = enqueue
            && enqueue(tx, identity, &arrived)? == Err(OutboxFull)
        {
            return Ok(Saved::Full);
        }
        cursors::save(tx, identity, channel, newest)?;
        Ok(Saved::All)
    });
    saved.await.map_err(LookError::Store)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    All,
    /// The outbox took nothing.
    Full,
}

/// One answer.
struct Fetched {
    messages: Vec<Message>,
    /// From where the next one is asked for, if there may be more.
    next: Option<Timestamp>,
}

/// A full answer may be followed by another; a heavy one may hold less than was asked for. Those of the last moment
/// are asked for again, as not all of them need be in this answer.
fn next_page(mails: &[Mail], after: Option<Timestamp>) -> Option<Timestamp> {
    let weight: usize = mails.iter().map(|mail| mail.text.len() + mail.html.len()).sum();
    let may_be_cut = mails.len() >= PAGE || weight > HEAVY || mails.iter().any(|mail| mail.oversized);
    let last = mails.iter().map(|mail| mail.created).max().filter(|_| may_be_cut)?;
    let before = last.checked_sub(Duration::from_micros(1)).unwrap_or(last);
    let onwards = |from: &Timestamp| after.is_none_or(|after| *from > after);
    Some(before).filter(onwards).or(Some(last).filter(onwards))
}

#[derive(Clone, Copy)]
struct Next {
    began: BootInstant,
    not_before: BootInstant,
}

/// Up to a tenth more or less, so that many daemons do not ask in step.
fn jittered(interval: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 2_001;
    let share = 0.9 + 0.2 * (random as f64 / 2_000.0);
    interval.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::types::{SessionId, WatchId};
    use crate::upstream::Direction;

    fn mail(id: i64, micros: i64, text: &str) -> Mail {
        let nothing = || Secret::new(String::new());
        Mail {
            id,
            created: at(micros),
            direction: Direction::Incoming,
            from: String::new(),
            to: String::new(),
            cc: String::new(),
            subject: nothing(),
            text: Secret::copy_of(text),
            html: nothing(),
            thread: String::new(),
            message_id: String::new(),
            is_read: false,
            attachments: Vec::new(),
            oversized: false,
        }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    fn page(created: impl Fn(usize) -> i64) -> Vec<Mail> {
        (0..PAGE).map(|number| mail(1, created(number), "")).collect()
    }

    #[test]
    fn a_full_answer_is_followed_by_one_that_begins_with_its_last_moment() {
        let full = page(|number| 1_000 + number as i64);
        assert_eq!(next_page(&full, Some(at(500))), Some(at(1_098)));
        assert_eq!(next_page(&full[..PAGE - 1], Some(at(500))), None);
        assert_eq!(next_page(&[], None), None);
    }

    #[test]
    fn an_answer_of_one_moment_does_not_come_again_and_again() {
        let full = page(|_| 1_000);
        assert_eq!(next_page(&full, Some(at(999))), Some(at(1_000)));
        assert_eq!(next_page(&full, Some(at(1_000))), None);
    }

    #[test]
    fn a_heavy_answer_may_have_been_cut() {
        let heavy = [mail(1, 1_000, &"x".repeat(HEAVY + 1))];
        assert_eq!(next_page(&heavy, None), Some(at(999)));
    }

    #[test]
    fn a_message_is_looked_through_once_for_each_kind_however_many_wait() {
        let fit = |wanted| Fit { watch: WatchId([1; 16]), session: SessionId([1; 16]), wanted };
        let waiting = [Wanted::Either, Wanted::Code, Wanted::Either, Wanted::Link].map(fit).repeat(100);
        assert_eq!(kinds(&waiting), [Wanted::Either, Wanted::Code, Wanted::Link]);
        assert_eq!(kinds(&[]), []);
    }
}
