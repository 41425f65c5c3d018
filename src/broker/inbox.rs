//! Messages: list, read, wait for a code, be told of new ones. No verb here changes anything at Ravi.

use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::error::{BrokerError, Result};
use super::lease::explained_end;
use super::{Admitted, Broker, Purpose};
use crate::audit::Cause;
use crate::clock::BootInstant;
use crate::inbox::code::Wanted;
use crate::inbox::message::{Message, Shown};
use crate::inbox::poll::{Arrived, Attention, Inbox, LookError};
use crate::inbox::sender::SenderPattern;
use crate::inbox::watch::{Given, Waiting, WatchError};
use crate::policy::{Action, Decision};
use crate::types::{Channel, IdentityUuid, MessageRef, Reason, SessionId, WatchId};
use crate::upstream::{Mail, Mailbox, Text};
use crate::vault::VaultError;

/// Messages of one page.
pub const PAGE: usize = 50;
/// A wait for a code ends after this long at the latest; the caller asks again.
pub const LONGEST_WAIT: Duration = Duration::from_secs(50);
/// How long a watch lives, if nothing is said, and at most.
const WATCH_TTL: Duration = Duration::from_secs(300);
const LONGEST_WATCH: Duration = Duration::from_secs(1800);

/// A message, and what of it the session may see.
pub struct Read {
    /// The message.
    pub message: Message,
    /// Its texts.
    pub shown: Shown,
}

/// One page of messages, the newest first.
pub struct Page {
    /// The messages.
    pub messages: Vec<Read>,
    /// How many of each channel come before the next page; `None`: there is none.
    pub next: Option<[usize; 2]>,
}

/// How a watch for a code is opened.
pub struct WatchOpening {
    /// By which way.
    pub channel: Channel,
    /// From whom; `None`: anybody.
    pub from: Option<SenderPattern>,
    /// A code, a link, or either.
    pub wanted: Wanted,
    /// For the audit trail.
    pub purpose: Option<Reason>,
    /// At most half an hour.
    pub ttl: Option<Duration>,
}

/// The new messages of a session's identity, until the session ends.
pub struct InboxWatch {
    arrivals: broadcast::Receiver<Arc<Arrived>>,
    identity: IdentityUuid,
    channels: Vec<Channel>,
    broker: Weak<Broker>,
    admitted: Admitted,
    stopping: CancellationToken,
    _attention: Vec<Attention>,
}

/// What a stream of new messages saw.
pub enum Came {
    /// A message.
    Message(Arc<Arrived>, Shown),
    /// Some were dropped: the reader is slow.
    Missed,
    /// No more.
    Ended(BrokerError),
}

impl Broker {
    /// The messages of the channels, `before` of each left out. `None`: of every channel that may be read.
    pub async fn list_messages(
        &self,
        admitted: &Admitted,
        channel: Option<Channel>,
        before: [usize; 2],
        count: usize,
    ) -> Result<Page> {
        let mut found = Vec::new();
        for channel in self.readable(admitted, channel)? {
            let left_out = before[place(channel)];
            let mailbox = self.mailbox.clone();
            let list = move |_, identity| async move {
                newest(&*mailbox, identity, channel, left_out, count + 1).await
            };
            found.extend(
                self.perform(admitted, Action::ReadMessages(channel), Purpose::default(), list).await?.1,
            );
        }
        found.sort_by_key(|message| std::cmp::Reverse((message.created, message.name)));
        let more = found.len() > count;
        found.truncate(count);
        let mut next = before;
        found.iter().for_each(|message| next[place(message.name.channel)] += 1);
        let messages = self.read(admitted, found).await?;
        Ok(Page { messages, next: more.then_some(next) })
    }

    /// One message.
    pub async fn read_message(&self, admitted: &Admitted, name: MessageRef) -> Result<Read> {
        let mailbox = self.mailbox.clone();
        let fetch = move |_, identity| async move { one(&*mailbox, identity, name).await };
        let (_, message) =
            self.perform(admitted, Action::ReadMessage(name), Purpose::default(), fetch).await?;
        self.read(admitted, vec![message]).await?.pop().ok_or(BrokerError::Internal)
    }

    /// Begins to wait for a code. Returns when it counts: what comes in from now on is an answer.
    pub async fn open_code_watch(
        &self,
        admitted: &Admitted,
        opening: WatchOpening,
    ) -> Result<(WatchId, BootInstant)> {
        let session = &admitted.session;
        let WatchOpening { channel, from, wanted, purpose, ttl } = opening;
        let asked = Purpose::of(purpose.as_ref());
        let grant = self.permit(admitted, Action::AwaitCode(channel), asked).await?;
        let approval = grant.approval().cloned();
        let id = WatchId(random().ok_or(BrokerError::Internal)?);
        let mut untold = Untold { inbox: self.inbox.clone(), session: session.id, watch: Some(id) };
        let ttl = ttl.unwrap_or(WATCH_TTL).min(LONGEST_WATCH);
        let ends_at = (self.clock.now() + ttl).min(session.expires_at());
        let (inbox, of) = (self.inbox.clone(), session.id);
        let open = move |_, identity| async move {
            let waiting = Waiting { identity, channel, from, wanted, session: of, ends_at, approval };
            if let Err(error) = inbox.watches.open(id, waiting) {
                return Ok(Err(watch_error(error)));
            }
            Ok(inbox.arm(identity, channel, id).await.map_err(look_error))
        };
        let opened = self.perform_granted(admitted, grant, purpose.as_ref(), open).await;
        // The session may have ended before there was a watch to end with it.
        let opened = opened.and_then(|(_, opened)| opened).and_then(|()| self.ensure_open(session));
        opened?;
        untold.watch = None;
        Ok((id, ends_at))
    }

    /// The code that a watch was given, or `None` if none came within `wait`.
    pub async fn await_code(
        &self,
        admitted: &Admitted,
        id: WatchId,
        wait: Duration,
    ) -> Result<Option<Given>> {
        let session = &admitted.session;
        let until = self.clock.now() + wait.min(LONGEST_WAIT);
        loop {
            let known = self.inbox.watches.changes(id);
            let (changed, ends_at) =
                known.ok_or(WatchError::Unknown).map_err(|error| self.refuse_watch(admitted, id, error))?;
            let told = changed.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let given = self.inbox.watches.look(session.id, id, self.clock.now());
            match given.map_err(|error| self.refuse_watch(admitted, id, error))? {
                Some(given) => return self.release_code(admitted, given).map(Some),
                None if self.clock.now() >= until => return Ok(None),
                None => {}
            }
            tokio::select! {
                () = told => {}
                () = self.clock.sleep_until(until.min(ends_at)) => {}
                () = session.ended() => {}
                () = self.stopping.cancelled() => return Err(BrokerError::Draining),
            }
            self.ensure_open(session)?;
        }
    }

    /// Policy as it is now, the record, and the last check: as for any value.
    fn release_code(&self, admitted: &Admitted, given: Given) -> Result<Given> {
        let session = &admitted.session;
        self.under(admitted, Action::AwaitCode(given.message.channel), given.approval.as_ref())?;
        self.record_claimed(session, &given)?;
        self.still_open(session)?;
        Ok(given)
    }

    /// Ends a watch.
    pub fn close_code_watch(&self, admitted: &Admitted, id: WatchId) -> Result<()> {
        let closed = self.inbox.watches.close(admitted.session.id, id);
        closed.map_err(|error| self.refuse_watch(admitted, id, error))
    }

    /// The messages that come in from now on.
    pub async fn watch_inbox(&self, admitted: &Admitted, channel: Option<Channel>) -> Result<InboxWatch> {
        let arrivals = self.inbox.arrivals();
        let (mut channels, mut attention, mut whose) = (Vec::new(), Vec::new(), None);
        for channel in self.readable(admitted, channel)? {
            let inbox = self.inbox.clone();
            let attend =
                move |_, identity| async move { Ok((identity, inbox.attend(identity, channel).await)) };
            let (identity, attended) =
                self.perform(admitted, Action::ReadMessages(channel), Purpose::default(), attend).await?.1;
            channels.push(channel);
            attention.push(attended);
            whose = Some(identity);
        }
        let identity = whose.ok_or(BrokerError::ResourceNotAvailable)?;
        let admitted = admitted.for_stream();
        let (broker, stopping) = (self.me.clone(), self.stopping.clone());
        Ok(InboxWatch { arrivals, identity, channels, broker, admitted, stopping, _attention: attention })
    }

    /// The one that was asked for, or those that the session may read. It has to be at least one.
    fn readable(&self, admitted: &Admitted, channel: Option<Channel>) -> Result<Vec<Channel>> {
        let Some(channel) = channel else {
            let may = |channel: &Channel| self.decision(admitted, Action::ReadMessages(*channel)).is_some();
            let readable: Vec<Channel> = Channel::ALL.into_iter().filter(may).collect();
            if readable.is_empty() {
                self.may(admitted, Action::ReadMessages(Channel::Email))?;
            }
            return Ok(readable);
        };
        Ok(vec![channel])
    }

    /// What the session may see of messages.
    async fn read(&self, admitted: &Admitted, messages: Vec<Message>) -> Result<Vec<Read>> {
        let with_codes = Channel::ALL.map(|channel| (channel, self.may_be_given_codes(admitted, channel)));
        let read = move |message: Message| {
            let shown = message.shown(with_codes.contains(&(message.name.channel, true)));
            Read { message, shown }
        };
        let read = look_through(move || messages.into_iter().map(read).collect()).await?;
        self.still_open(&admitted.session)?;
        Ok(read)
    }

    fn may_be_given_codes(&self, admitted: &Admitted, channel: Channel) -> bool {
        self.allows(admitted, Action::AwaitCode(channel))
    }

    /// Asks policy without a refusal that would be recorded. What the operator would have to be asked about is not
    /// allowed yet.
    fn allows(&self, admitted: &Admitted, action: Action) -> bool {
        matches!(self.decision(admitted, action), Some(Decision::Granted(_)))
    }

    fn decision(&self, admitted: &Admitted, action: Action) -> Option<Decision> {
        let session = &admitted.session;
        self.policy.load().authorize(&session.role, session.narrowed.as_ref(), action).ok()
    }

    fn refuse_watch(&self, admitted: &Admitted, id: WatchId, error: WatchError) -> BrokerError {
        match error {
            WatchError::Unknown => self.refuse_watch_handle(admitted, id, Cause::WatchUnknown),
            WatchError::Foreign => self.refuse_watch_handle(admitted, id, Cause::WatchForeign),
            _ => {}
        }
        explained_end(&admitted.session).unwrap_or_else(|| watch_error(error))
    }
}

impl InboxWatch {
    /// The next message. After [`Came::Ended`] there is none.
    pub async fn next(&mut self) -> Came {
        loop {
            let arrived = tokio::select! {
                arrived = self.arrivals.recv() => arrived,
                () = self.admitted.session.ended() => {
                    let end = self.admitted.session.end();
                    return Came::Ended(end.map_or(BrokerError::SessionRevoked, BrokerError::from));
                }
                () = self.stopping.cancelled() => return Came::Ended(BrokerError::Draining),
            };
            match arrived {
                Ok(arrived) => {
                    let is_own = arrived.identity == self.identity;
                    if is_own && self.channels.contains(&arrived.message.name.channel) {
                        let shown = self.show(arrived.clone()).await;
                        return shown.map_or_else(Came::Ended, |shown| Came::Message(arrived, shown));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Came::Missed,
                Err(broadcast::error::RecvError::Closed) => return Came::Ended(BrokerError::Draining),
            }
        }
    }

    /// By the rights of now: a reload may have taken some since the stream began.
    async fn show(&self, arrived: Arc<Arrived>) -> Result<Shown> {
        let broker = self.broker.upgrade().ok_or(BrokerError::Draining)?;
        let channel = arrived.message.name.channel;
        broker.may(&self.admitted, Action::ReadMessages(channel))?;
        let with_codes = broker.may_be_given_codes(&self.admitted, channel);
        let shown = look_through(move || arrived.message.shown(with_codes)).await?;
        broker.still_open(&self.admitted.session)?;
        Ok(shown)
    }
}

/// Off the workers: a mail can have megabytes, and a list fifty mails.
async fn look_through<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(look).await.map_err(|_| BrokerError::Internal)
}

/// A watch that nobody was told of yet. Whoever opens one can go away before it counts, and it would take a code for
/// nobody.
struct Untold {
    inbox: Arc<Inbox>,
    session: SessionId,
    /// `None`: it was told.
    watch: Option<WatchId>,
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            let _ = self.inbox.watches.close(self.session, watch);
        }
    }
}

async fn newest(
    mailbox: &dyn Mailbox,
    identity: IdentityUuid,
    channel: Channel,
    left_out: usize,
    count: usize,
) -> std::result::Result<Vec<Message>, VaultError> {
    match channel {
        Channel::Email => {
            let mails = mailbox.newest_mail(identity, left_out, count).await.map_err(VaultError::Upstream)?;
            Ok(mails.into_iter().map(<Message as From<Mail>>::from).collect())
        }
        Channel::Sms => {
            let texts = mailbox.list_texts(identity, None).await.map_err(VaultError::Upstream)?;
            Ok(texts.into_iter().skip(left_out).take(count).map(<Message as From<Text>>::from).collect())
        }
    }
}

async fn one(
    mailbox: &dyn Mailbox,
    identity: IdentityUuid,
    name: MessageRef,
) -> std::result::Result<Message, VaultError> {
    let read = match name.channel {
        Channel::Email => mailbox.read_mail(identity, name.id).await.map(Message::from),
        Channel::Sms => mailbox.read_text(identity, name.id).await.map(Message::from),
    };
    read.map_err(VaultError::Upstream)
}

fn place(channel: Channel) -> usize {
    match channel {
        Channel::Email => 0,
        Channel::Sms => 1,
    }
}

fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok().map(|()| bytes)
}

fn watch_error(error: WatchError) -> BrokerError {
    match error {
        WatchError::Unknown | WatchError::Foreign => BrokerError::WatchNotAvailable,
        WatchError::Expired => BrokerError::WatchExpired,
        WatchError::Capacity(bound) => BrokerError::Capacity(bound),
        WatchError::NoRoom => BrokerError::Capacity("memory for secrets"),
    }
}

fn look_error(error: LookError) -> BrokerError {
    match error {
        LookError::Upstream(error) => error.into(),
        LookError::Store(_) => BrokerError::StateUnavailable,
        LookError::OutboxFull => BrokerError::Capacity("messages that wait for their dispatch"),
        LookError::Stopping => BrokerError::Draining,
    }
}
