//! What happens without a request: deadlines, rotations, and the dropping of what is stale.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use super::Broker;

/// Between two rounds of housekeeping.
const ROUND: Duration = Duration::from_secs(5);

impl Broker {
    /// Ends sessions whose time is up. Runs until dropped.
    pub async fn expire_sessions(self: Arc<Self>) {
        loop {
            for id in self.sessions.due().await {
                let ended = self.forget_all(self.sessions.expire(id));
                self.record_all_ended(&ended);
            }
        }
    }

    /// Warns of and ends leases whose time is up. Runs until dropped.
    pub async fn expire_leases(self: Arc<Self>) {
        loop {
            for due in self.leases.due().await {
                if let Some(lease) = self.leases.act(due) {
                    self.record_expired(&lease);
                }
            }
            // A storm of deadlines is handed out in batches; requests come between them.
            tokio::task::yield_now().await;
        }
    }

    /// Tells the holders of leases that a value changed. Runs until dropped.
    pub async fn announce_rotations(self: Arc<Self>) {
        let mut changes = self.vault.changes();
        loop {
            match changes.recv().await {
                Ok(changed) => self.leases.rotated(changed.identity, &changed.resource),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "rotations were not announced"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Keeps the head of the audit trail with its records. Runs until dropped.
    pub async fn keep_trail(self: Arc<Self>) {
        self.audit.keep_head().await;
    }

    /// Drops what is stale, and fetches again what somebody watches, so that a rotation is noticed. Runs
    /// until dropped.
    pub async fn keep_house(self: Arc<Self>) {
        loop {
            self.clock.sleep_until(self.clock.now() + ROUND).await;
            let watched = self.leases.watched();
            self.vault.prune(&watched);
            self.limits.prune();
            self.approvals.prune();
            self.inbox.watches.prune(self.clock.now());
            for (identity, resource) in &watched {
                self.vault.refresh_ahead(*identity, resource);
            }
        }
    }
}
