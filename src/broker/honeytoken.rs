//! Names that no honest agent asks for. To the agent such a name is absent, like any other; its session is over.
//!
//! Access is taken and one record written before the answer, which is what a refusal costs too; the other records
//! follow it. Where the session could have had the name, it is looked for as an absent one would be.

use super::error::{BrokerError, Result};
use super::{Admitted, Broker};
use crate::policy::Action;
use crate::session::{End, actor_of};
use crate::types::Resource;

impl Broker {
    /// Whether this act names a honeytoken. To list names is none.
    pub(super) fn is_trap(&self, action: &Action) -> bool {
        action.resource().is_some_and(|resource| self.policy.load().is_honeytoken(&resource))
    }

    /// The same for what a name turned out to mean.
    pub(super) fn check_found(&self, admitted: &Admitted, action: &Action, found: &Resource) -> Result<()> {
        if !self.policy.load().is_honeytoken(found) {
            return Ok(());
        }
        self.spring(admitted, action, found);
        Err(BrokerError::ResourceNotAvailable)
    }

    /// Ends the session with all above and below it, and tells the operator.
    pub(super) fn spring(&self, admitted: &Admitted, action: &Action, resource: &Resource) {
        let session = &admitted.session;
        let ended = self.forget_all(self.sessions.end(session.root, End::Honeytoken));
        self.refuse_trapped(admitted, action);
        let actor = crate::audit::Actor {
            session: Some(session.id),
            ..actor_of(&admitted.peer, Some(&session.role))
        };
        self.alarms.raise(self.clock.wall(), actor, resource.clone());
        self.approvals.changed();
        self.record_later(ended);
        tracing::warn!(
            session = %session.id, role = %session.role, %resource,
            "a honeytoken was touched: the session was ended; see `ravi-broker approvals`"
        );
    }

    /// What a session is told that could have had the name: as if it were absent, after as long.
    pub(super) async fn look_in_vain(&self, admitted: &Admitted, action: &Action) -> BrokerError {
        let session = &admitted.session;
        let policy = self.policy.load_full();
        let allowed = policy.authorize(&session.role, session.narrowed.as_ref(), action.clone()).is_ok();
        let (Some(resource), Some(role), true) = (action.resource(), policy.role(&session.role), allowed)
        else {
            return BrokerError::ResourceNotAvailable;
        };
        let looked = async {
            let identity = self.vault.resolve(role.identity()).await?;
            self.vault.credential(identity, &resource).await.map(drop)
        };
        match looked.await {
            Ok(()) => BrokerError::ResourceNotAvailable,
            Err(error) => error.into(),
        }
    }
}
