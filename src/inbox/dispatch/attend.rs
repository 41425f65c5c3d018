//! Has the inbox looked at for as long as a rule needs it: also while nobody is there to wait.
//!
//! Names of identities are looked up here, and again from time to time: after a login they may be others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Dispatches;
use crate::inbox::poll::{Attention, Inbox};
use crate::vault::Vault;

/// After a name that could not be looked up: doubled up to the second.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// Otherwise.
const AGAIN: Duration = Duration::from_secs(600);

impl Dispatches {
    /// Runs until it is told to stop.
    pub async fn attend(
        self: Arc<Self>,
        vault: Arc<Vault>,
        inbox: Arc<Inbox>,
        mut serving: watch::Receiver<bool>,
        stopping: CancellationToken,
    ) {
        let mut reloaded = self.reloaded.subscribe();
        let (mut pause, mut _attentions) = (FIRST, Vec::new());
        loop {
            let serves = *serving.borrow_and_update();
            reloaded.borrow_and_update();
            let wait = if serves {
                let (all, attentions) = self.look_up(&vault, &inbox).await;
                // Those of before go when these are there.
                _attentions = attentions;
                pause = if all { FIRST } else { LONGEST.min(2 * pause) };
                if all { AGAIN } else { pause }
            } else {
                AGAIN
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = serving.changed() => if changed.is_err() { return },
                _ = reloaded.changed() => pause = FIRST,
                () = self.clock.sleep_until(self.clock.now() + wait) => {}
            }
        }
    }

    /// What is attended to from now on, and whether that is all.
    async fn look_up(&self, vault: &Arc<Vault>, inbox: &Arc<Inbox>) -> (bool, Vec<Attention>) {
        let (rules, mut all, mut attentions) = (self.rules(), true, Vec::new());
        for (identity, channels) in rules.wants() {
            match vault.resolve(&identity).await {
                Ok(uuid) => {
                    rules.note(&identity, uuid);
                    for channel in channels {
                        attentions.push(inbox.attend(uuid, channel).await);
                    }
                }
                Err(error) => {
                    tracing::warn!(%identity, %error, "the identity of a dispatch is not known yet");
                    all = false;
                }
            }
        }
        (all, attentions)
    }
}
