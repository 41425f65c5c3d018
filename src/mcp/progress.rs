//! Where a long call says how it goes on, if its host asked for that.

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};

/// The host and the token that it gave with its call.
pub(super) struct Progress {
    peer: Peer<RoleServer>,
    token: ProgressToken,
}

impl Progress {
    /// `None`: the host did not ask.
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Option<Self> {
        let token = context.meta.get_progress_token()?;
        Some(Self { peer: context.peer.clone(), token })
    }

    /// Tells the host. One that cannot be told is about to go.
    #[expect(clippy::cast_precision_loss, reason = "seconds of a wait are far below 2^52")]
    pub(super) async fn tell(&self, done: u64, total: u64, message: &str) {
        let progress = ProgressNotificationParam::new(self.token.clone(), done as f64)
            .with_total(total as f64)
            .with_message(message);
        let _ = self.peer.notify_progress(progress).await;
    }
}
