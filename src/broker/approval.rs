//! What policy says to an action, and what the operator does where policy asks for that.
//!
//! A call that waits holds nothing: no value is fetched for it, nothing is counted against the day of its identity.
//! Afterwards all is asked again, since the session, the program, the role and the gate may have changed meanwhile.

use aws_lc_rs::{hmac, rand};

use super::error::{BrokerError, Result};
use super::inbox::LONGEST_WAIT;
use super::{Admitted, Broker};
use crate::approval::{
    Approval, AskError, Asked, Decision as Said, Fingerprint, Lapsed, Pending, Request, Verdict, Waiter,
};
use crate::audit::{Actor, Cause, Event, Verb};
use crate::config::UseBy;
use crate::peer::{Executable, Peer, ProcessId};
use crate::policy::{Action, Conditional, Decision, Denied, Grant, Role};
use crate::types::{ApprovalId, Delivery, Reason};

/// What a call says about itself to the operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purpose<'a> {
    /// In its own words.
    pub reason: Option<&'a Reason>,
    /// Of what it writes or sends.
    pub content: Option<Fingerprint>,
}

impl<'a> Purpose<'a> {
    /// Of a call that carries nothing.
    pub fn of(reason: Option<&'a Reason>) -> Self {
        Self { reason, content: None }
    }
}

impl Broker {
    /// The first act of a verb: policy, and the operator where the role says so. This may wait, for a bounded time.
    pub(super) async fn permit(
        &self,
        admitted: &Admitted,
        action: Action,
        purpose: Purpose<'_>,
    ) -> Result<Grant> {
        if let Some(resource) = action.resource().filter(|_| self.is_trap(&action)) {
            self.spring(admitted, &action, &resource);
            return Err(self.look_in_vain(admitted, &action).await);
        }
        let held = match self.consult(admitted, action)? {
            Decision::Granted(grant) => return self.handed_to(admitted, grant),
            Decision::Ask(held) => held,
        };
        self.check_program(admitted, held.role(), held.action())?;
        let approval = self.ask(admitted, &held, purpose).await?;
        self.under(admitted, held.action().clone(), Some(&approval))
    }

    /// The same for an action that was permitted: the role may have changed since.
    pub(super) fn again(&self, admitted: &Admitted, grant: &Grant) -> Result<Grant> {
        self.under(admitted, grant.action().clone(), grant.approval())
    }

    /// Policy alone, for what does not wait. What the operator would have to be asked about is refused.
    pub(super) fn authorize(&self, admitted: &Admitted, action: Action) -> Result<Grant> {
        self.under(admitted, action, None)
    }

    /// Policy as it is now, with what the operator has said before.
    pub(super) fn under(
        &self,
        admitted: &Admitted,
        action: Action,
        approval: Option<&Approval>,
    ) -> Result<Grant> {
        let held = match self.consult(admitted, action)? {
            Decision::Granted(grant) => return self.handed_to(admitted, grant),
            Decision::Ask(held) => held,
        };
        let granted = match approval {
            Some(approval) => held.approved(approval),
            None => Err(held),
        };
        match granted {
            Ok(grant) => self.handed_to(admitted, grant),
            Err(held) => {
                self.refuse_held(admitted, held.action(), Cause::ApprovalRequired);
                Err(BrokerError::ResourceNotAvailable)
            }
        }
    }

    /// Whether policy lets the session do this at all. Whether the operator was to be asked is of no interest: it is
    /// done already.
    pub(super) fn may(&self, admitted: &Admitted, action: Action) -> Result<()> {
        self.consult(admitted, action).map(drop)
    }

    /// The answer of [`crate::policy::Policy::authorize`]. A refusal is recorded with its rule; the agent is not told
    /// which, except that another way of delivery would do.
    fn consult(&self, admitted: &Admitted, action: Action) -> Result<Decision> {
        let session = &admitted.session;
        if let Some(resource) = action.resource().filter(|_| self.is_trap(&action)) {
            self.spring(admitted, &action, &resource);
            return Err(BrokerError::ResourceNotAvailable);
        }
        let decided = self.policy.load().authorize(&session.role, session.narrowed.as_ref(), action.clone());
        decided.map_err(|denied| {
            self.refuse_action(admitted, &action, denied);
            match denied {
                Denied::Delivery => BrokerError::DeliveryNotAllowed,
                _ => BrokerError::ResourceNotAvailable,
            }
        })
    }

    fn handed_to(&self, admitted: &Admitted, grant: Grant) -> Result<Grant> {
        self.check_program(admitted, grant.role(), grant.action())?;
        Ok(grant)
    }

    /// A value that is not to be shown goes to our own programs, unless the role says otherwise.
    fn check_program(&self, admitted: &Admitted, role: &Role, action: &Action) -> Result<()> {
        let shown = match action {
            Action::Acquire(_, delivery) => *delivery == Delivery::Shown,
            _ => true,
        };
        if shown || role.use_by == UseBy::Any || self.programs.include(&admitted.peer) {
            return Ok(());
        }
        Err(self.refuse_program(admitted, action))
    }

    async fn ask(&self, admitted: &Admitted, held: &Conditional, purpose: Purpose<'_>) -> Result<Approval> {
        let (session, action) = (&admitted.session, held.action());
        let executable = runs(admitted);
        let request = Request {
            session: session.id,
            role: session.role.clone(),
            uid: admitted.peer.uid,
            pid: admitted.peer.process.map(|process| process.pid),
            executable: executable.clone(),
            wish: held.wish(),
            content: purpose.content,
            reason: purpose.reason.cloned(),
        };
        let asked = self.approvals.ask(request, held.role().approval).map_err(|error| match error {
            AskError::Full(full) => BrokerError::Capacity(full.0),
            AskError::NoRandom => BrokerError::Internal,
        });
        let verdict = match asked.inspect_err(|error| self.record_failed(admitted, action, error))? {
            Asked::Settled(verdict) => Some(verdict),
            Asked::Waits(waiter) => self.wait_for(admitted, waiter, purpose).await?,
        };
        // A session that ended explains best why nothing was allowed.
        self.ensure_open(session)?;
        let (cause, error) = match verdict {
            Some(Verdict::Allowed(approval)) if runs(admitted) == executable => return Ok(approval),
            Some(Verdict::Allowed(_)) => (Cause::RoleMismatch, BrokerError::ApprovalDenied),
            Some(Verdict::Denied) => (Cause::ApprovalDenied, BrokerError::ApprovalDenied),
            Some(Verdict::Expired) => (Cause::ApprovalExpired, BrokerError::ApprovalExpired),
            None => (Cause::ApprovalExpired, BrokerError::ApprovalPending),
        };
        self.refuse_held(admitted, action, cause);
        Err(error)
    }

    /// `None`: the call's time is up, and the question waits on.
    async fn wait_for(
        &self,
        admitted: &Admitted,
        mut waiter: Waiter<'_>,
        purpose: Purpose<'_>,
    ) -> Result<Option<Verdict>> {
        let session = &admitted.session;
        if waiter.is_new {
            let event = Event::of(Verb::ApprovalAsked, &session.actor).approval(waiter.id);
            let pending = self.approvals.find(waiter.id);
            let about = pending.as_ref().map(|pending| &pending.request.wish);
            let recorded = self.must_record(&event.wish(about).reason(purpose.reason));
            recorded.inspect_err(|_| self.approvals.withdraw(waiter.id))?;
            tracing::info!(approval = %waiter.id, role = %session.role, "a request waits for the operator");
        }
        let longest = self.clock.now() + LONGEST_WAIT;
        let until = admitted.answer_by.map_or(longest, |by| longest.min(by));
        tokio::select! {
            biased;
            () = session.ended() => Ok(Some(Verdict::Expired)),
            () = self.stopping.cancelled() => Err(BrokerError::Draining),
            // Whatever is answered: nobody listens, and nothing was begun.
            () = admitted.left.cancelled() => Ok(None),
            verdict = waiter.decided(until) => Ok(verdict),
        }
    }

    /// Tells one content from another.
    pub(super) fn fingerprint(&self, parts: &[&str]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.fingerprints);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut print = [0; 32];
        print.copy_from_slice(context.sign().as_ref());
        Fingerprint(print)
    }

    /// The questions that wait for the operator, oldest first.
    pub fn list_approvals(&self) -> Vec<Pending> {
        self.approvals.list()
    }

    /// Told whenever [`Broker::list_approvals`] has changed.
    pub fn approval_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.approvals.changes()
    }

    /// What the operator says to a question. To allow something is recorded first, or does not happen.
    pub fn decide_approval(&self, operator: &Peer, id: ApprovalId, said: Said) -> Result<()> {
        let gone = BrokerError::Argument {
            field: "approval_id",
            problem: "no such question waits; it was decided, has ended, or its session has",
        };
        let pending = self.approvals.find(id).ok_or(gone.clone())?;
        let verb = if said == Said::Deny { Verb::ApprovalDenied } else { Verb::ApprovalAllowed };
        let actor = asker(&pending.request);
        let event = Event::of(verb, &actor).approval(id).wish(Some(&pending.request.wish));
        let event = event.operator(operator.uid, operator.process.map(|process| process.pid));
        let recorded = self.must_record(&match said {
            Said::For(time) => event.ttl(time),
            Said::Once | Said::Deny => event,
        });
        if said != Said::Deny {
            recorded.clone()?;
        }
        let decided = self.approvals.decide(id, said).map_err(|_| BrokerError::Internal)?;
        decided.ok_or(gone)?;
        recorded.map_err(|_| BrokerError::Unrecorded)
    }

    /// Ends questions whose time is up. Runs until dropped.
    pub async fn expire_approvals(self: std::sync::Arc<Self>) {
        loop {
            let lapsed = self.approvals.due().await;
            lapsed.iter().for_each(|lapsed| self.record_lapsed(lapsed, Cause::ApprovalExpired));
        }
    }

    pub(super) fn record_lapsed(&self, lapsed: &Lapsed, cause: Cause) {
        let actor = asker(&lapsed.request);
        let event = Event::of(Verb::ApprovalExpired, &actor).approval(lapsed.id);
        self.try_record(&event.wish(Some(&lapsed.request.wish)).because(cause));
    }
}

pub(super) fn fingerprint_key() -> hmac::Key {
    let mut key = [0; 32];
    // Without random numbers nothing else of the daemon works either; no content is told by this.
    let _ = rand::fill(&mut key);
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

/// What the calling process runs, as of now.
fn runs(admitted: &Admitted) -> Option<Executable> {
    admitted.peer.process.and_then(ProcessId::executable)
}

fn asker(request: &Request) -> Actor {
    Actor {
        session: Some(request.session),
        role: Some(request.role.clone()),
        uid: Some(request.uid),
        pid: request.pid.and_then(|pid| i32::try_from(pid).ok()),
        exe: request.executable.as_ref().map(|file| file.path.as_path().into()),
        ..Actor::default()
    }
}
