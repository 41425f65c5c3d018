//! Callbacks: the tasks that tell them, and what the operator can do about what waits.

use std::sync::Arc;

use super::Broker;
use super::error::{BrokerError, Result};
use crate::audit::{Event, NOBODY, Target, Verb};
use crate::inbox::dispatch::post::Post;
use crate::inbox::dispatch::{Backlog, Dispatcher, Dispatches, Means};
use crate::inbox::store::StoreError;
use crate::inbox::store::outbox::{Chosen, Delivery, State};
use crate::upstream::SettingsError;

impl Broker {
    /// The rules in force and the queue.
    pub fn dispatches(&self) -> &Arc<Dispatches> {
        &self.dispatches
    }

    /// What tells callbacks; runs until the broker drains.
    pub fn dispatcher(&self) -> std::result::Result<Dispatcher, SettingsError> {
        let means = Means {
            mailbox: self.mailbox.clone(),
            audit: self.audit.clone(),
            post: Post::new(self.clock.clone())?,
            serving: self.serving(),
            stopping: self.stopping(),
        };
        Ok(Dispatcher::new(self.dispatches.clone(), means))
    }

    /// Has the inboxes looked at that callbacks are told of. Runs until the broker drains.
    pub async fn attend_dispatches(self: Arc<Self>) {
        let (vault, inbox) = (self.vault.clone(), self.inbox.clone());
        self.dispatches.clone().attend(vault, inbox, self.serving(), self.stopping()).await;
    }

    /// One page of deliveries, oldest first, from behind the sequence `after`.
    pub async fn list_dispatches(
        &self,
        state: Option<State>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        self.dispatches.list(state, after, limit).await.map_err(unstored)
    }

    /// How much waits. Zeros where the store cannot be read, which the log tells.
    pub async fn backlog(&self) -> Backlog {
        self.dispatches.backlog().await.map_err(unstored).unwrap_or_default()
    }

    /// Has deliveries tried again. How many.
    pub async fn retry_dispatches(&self, chosen: Chosen) -> Result<usize> {
        self.record_dispatch(chosen)?;
        found(chosen, self.dispatches.retry(chosen).await)
    }

    /// Drops deliveries: nobody is told. How many.
    pub async fn drop_dispatches(&self, chosen: Chosen) -> Result<usize> {
        self.record_dispatch(chosen)?;
        found(chosen, self.dispatches.drop_chosen(chosen).await)
    }

    fn record_dispatch(&self, chosen: Chosen) -> Result<()> {
        let target = match chosen {
            Chosen::One(id) => Target::Dispatch(id),
            Chosen::AllDead => Target::All,
        };
        self.must_record(&Event::of(Verb::AdminDispatch, &NOBODY).target(target))
    }
}

fn found(chosen: Chosen, done: std::result::Result<usize, StoreError>) -> Result<usize> {
    match (chosen, done.map_err(unstored)?) {
        (Chosen::One(_), 0) => Err(BrokerError::Argument {
            field: "dispatch_id",
            problem: "no such delivery is pending or dead",
        }),
        (_, count) => Ok(count),
    }
}

fn unstored(error: StoreError) -> BrokerError {
    tracing::error!(%error, "the queue of dispatches");
    BrokerError::Internal
}
