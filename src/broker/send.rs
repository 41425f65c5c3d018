//! Sending as the session's own identity: once, to whom policy allows, within the identity's day, on the record.
//!
//! Guards, in this order: policy, before any call and again once all recipients are known; the day's budget; the
//! audit record; that nothing ended meanwhile. Then the message is handed over, once. What then cannot be known is said
//! to be unknown, and can be asked for ([`Broker::check_send`]).

use super::error::{BrokerError, Result};
use super::{Admitted, Broker, Purpose};
use crate::approval::Fingerprint;
use crate::audit::{Event, Target, Verb};
use crate::inbox::budget::{Budgets, Standing, TakeError, Taken};
use crate::inbox::letter::{MAX_RECIPIENTS, addresses_of, holds_secret, is_own, sender_of, without_doubles};
use crate::inbox::sends::{Candidate, Fate, Recipients, Unknown};
use crate::policy::{Action, Grant};
use crate::secret::Secret;
use crate::types::{
    Channel, EmailAddress, EntryUuid, IdentityUuid, MessageRef, PhoneNumber, Reason, SendId, Subject,
};
use crate::upstream::{AnswerFault, Answering, Direction, Draft, Mail, NewAttachment, Sent, UpstreamError};

/// Mails that are looked through for one that was sent: Ravi's longest page.
const LOOKED_THROUGH: usize = 200;

/// A message that went out.
#[derive(Clone, Copy, Debug)]
pub struct Dispatched {
    /// Its name.
    pub message: MessageRef,
    /// What is left of the identity's day.
    pub budget: Standing,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The sender.
    Sender,
    /// Everybody whom the mail names.
    All,
}

/// What is handed over.
enum Out {
    New(Draft),
    Reply(i64, Answered, Answering),
    Forward(i64, EmailAddress, Answering),
    Text(PhoneNumber, Secret),
}

impl Broker {
    /// Sends a mail.
    pub async fn send_email(
        &self,
        admitted: &Admitted,
        draft: Draft,
        reason: Option<Reason>,
    ) -> Result<Dispatched> {
        let action = Action::SendEmail(with_copies(vec![draft.to.clone()], &draft.rest)?);
        self.may(admitted, action.clone())?;
        self.own_files(admitted, &draft.rest)?;
        let content = Some(self.content_of(draft.subject.expose(), &draft.rest));
        let grant = self.permit(admitted, action, Purpose { reason: reason.as_ref(), content }).await?;
        let identity = self.sender(admitted, &grant).await?;
        let subject = Secret::copy_of(draft.subject.expose());
        self.hand_over(admitted, identity, grant, Out::New(draft), &subject, reason).await
    }

    /// Answers a mail that came in.
    pub async fn reply_email(
        &self,
        admitted: &Admitted,
        mail: i64,
        answered: Answered,
        answer: Answering,
        reason: Option<Reason>,
    ) -> Result<Dispatched> {
        let grant = self.authorize(admitted, Action::Send(Channel::Email))?;
        self.own_files(admitted, &answer)?;
        let identity = self.sender(admitted, &grant).await?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let original = async { Ok(self.mailbox.read_mail(identity, mail).await?) };
        let original = self.while_open(&admitted.session, original).await.inspect_err(failed)?;
        let to = self.whom(identity, &original, answered).await.inspect_err(failed)?;
        // Ravi may quote the original: whom the agent adds is shown it.
        if !(answer.cc.is_empty() && answer.bcc.is_empty()) {
            self.may_show(admitted, &original)?;
        }
        let action = Action::SendEmail(with_copies(to, &answer)?);
        let content = Some(self.content_of(&mail.to_string(), &answer));
        let grant = self.permit(admitted, action, Purpose { reason: reason.as_ref(), content }).await?;
        let out = Out::Reply(mail, answered, answer);
        self.hand_over(admitted, identity, grant, out, &original.subject, reason).await
    }

    /// Sends a mail on, with what it says.
    pub async fn forward_email(
        &self,
        admitted: &Admitted,
        mail: i64,
        to: EmailAddress,
        answer: Answering,
        reason: Option<Reason>,
    ) -> Result<Dispatched> {
        let action = Action::SendEmail(with_copies(vec![to.clone()], &answer)?);
        self.may(admitted, action.clone())?;
        self.authorize(admitted, Action::ReadMessages(Channel::Email))?;
        self.own_files(admitted, &answer)?;
        let content = Some(self.content_of(&mail.to_string(), &answer));
        let grant = self.permit(admitted, action, Purpose { reason: reason.as_ref(), content }).await?;
        let identity = self.sender(admitted, &grant).await?;
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let original = async { Ok(self.mailbox.read_mail(identity, mail).await?) };
        let original = self.while_open(&admitted.session, original).await.inspect_err(failed)?;
        self.may_show(admitted, &original)?;
        let out = Out::Forward(mail, to, answer);
        self.hand_over(admitted, identity, grant, out, &original.subject, reason).await
    }

    /// Sends a text message.
    pub async fn send_sms(
        &self,
        admitted: &Admitted,
        to: PhoneNumber,
        text: Secret,
        reason: Option<Reason>,
    ) -> Result<Dispatched> {
        let content = Some(self.fingerprint(&[text.expose()]));
        let purpose = Purpose { reason: reason.as_ref(), content };
        let grant = self.permit(admitted, Action::SendSms(to.clone()), purpose).await?;
        let identity = self.sender(admitted, &grant).await?;
        let subject = Secret::copy_of("");
        self.hand_over(admitted, identity, grant, Out::Text(to, text), &subject, reason).await
    }

    /// Whether the session may attach files to mail at all. To be asked before one is taken in.
    pub fn may_attach(&self, admitted: &Admitted) -> Result<()> {
        self.authorize(admitted, Action::Send(Channel::Email)).map(drop)
    }

    /// Keeps a file at Ravi that mails of this session can have attached.
    pub async fn attach_file(&self, admitted: &Admitted, file: NewAttachment) -> Result<EntryUuid> {
        let session = &admitted.session;
        let grant = self.authorize(admitted, Action::Send(Channel::Email))?;
        let identity = self.sender(admitted, &grant).await?;
        self.must_record(&Event::of(Verb::MessageAttached, &session.actor).identity(identity))?;
        self.ensure_open(session)?;
        let kept = self.mailbox.attach(identity, file).await.map_err(|error| match error {
            // What is in doubt is in no mail: it can be tried again.
            UpstreamError::OutcomeUnknown => UpstreamError::Unavailable.into(),
            error => BrokerError::from(error),
        });
        let kept = kept.inspect_err(|error| self.record_failed(admitted, grant.action(), error))?;
        self.sends.add_file(session.id, kept);
        self.forget_sends_if_over(admitted);
        self.still_open(session)?;
        Ok(kept)
    }

    /// What became of a send of this session whose outcome is unknown.
    pub async fn check_send(&self, admitted: &Admitted, id: SendId) -> Result<Fate> {
        let session = &admitted.session;
        let Some(unknown) = self.sends.find(session.id, id) else {
            self.refuse_form(admitted);
            return Err(BrokerError::ResourceNotAvailable);
        };
        self.may(admitted, unknown.recipients.action())?;
        let subject = Subject::Send(id);
        let event = Event::of(Verb::InboxList, &session.actor).identity(unknown.identity);
        self.must_record(&event.target(Target::Subject(&subject)))?;
        let failed = |error: &BrokerError| self.record_failed(admitted, &unknown.recipients.action(), error);
        let candidates = async { Ok(self.look_for(&unknown).await?) };
        let candidates = self.while_open(session, candidates).await.inspect_err(failed)?;
        self.may(admitted, unknown.recipients.action())?;
        self.still_open(session)?;
        Ok(self.sends.judge(&unknown, &candidates))
    }

    /// What the identity may still send today.
    pub async fn budget(&self, identity: IdentityUuid, channel: Channel) -> Result<Standing> {
        Ok(self.budgets.standing(identity, channel).await?)
    }

    async fn look_for(&self, unknown: &Unknown) -> crate::upstream::Result<Vec<Candidate>> {
        Ok(match unknown.channel() {
            Channel::Email => {
                let since = Some(unknown.not_before());
                unknown.among_mail(&self.mailbox.list_mail(unknown.identity, since, LOOKED_THROUGH).await?)
            }
            Channel::Sms => unknown.among_texts(&self.mailbox.list_texts(unknown.identity, None).await?),
        })
    }

    /// The identity that a session sends as.
    async fn sender(&self, admitted: &Admitted, grant: &Grant) -> Result<IdentityUuid> {
        let identity = self.identity_of(&admitted.session, grant.role());
        let identity = self.while_open(&admitted.session, identity).await;
        identity.inspect_err(|error| self.record_failed(admitted, grant.action(), error))
    }

    /// Whom an answer goes to, by what the mail says. Only what came in is answered: for what the identity sent itself,
    /// Ravi alone decides.
    async fn whom(
        &self,
        identity: IdentityUuid,
        original: &Mail,
        answered: Answered,
    ) -> Result<Vec<EmailAddress>> {
        let unclear = || BrokerError::Argument {
            field: "message",
            problem: "its sender or recipients are not plain addresses; send a new mail instead",
        };
        if original.direction != Direction::Incoming {
            return Err(BrokerError::Argument { field: "message", problem: "expected a mail that came in" });
        }
        let sender = sender_of(&original.from).ok_or_else(unclear)?;
        if answered == Answered::Sender {
            return Ok(vec![sender]);
        }
        let mut all = vec![sender];
        for line in [&original.to, &original.cc] {
            all.extend(addresses_of(line).ok_or_else(unclear)?);
        }
        let own = self.vault.card(identity).await?.identity.email;
        let own: Option<EmailAddress> = own.and_then(|own| own.parse().ok());
        all.retain(|address| own.as_ref().is_none_or(|own| !is_own(address, own)));
        if all.is_empty() { Err(unclear()) } else { Ok(all) }
    }

    /// The rule of reading: a code in it is for those who may wait for codes.
    fn may_show(&self, admitted: &Admitted, original: &Mail) -> Result<()> {
        self.authorize(admitted, Action::ReadMessages(Channel::Email))?;
        if holds_secret(original) {
            self.authorize(admitted, Action::AwaitCode(Channel::Email))?;
        }
        Ok(())
    }

    fn own_files(&self, admitted: &Admitted, answer: &Answering) -> Result<()> {
        if self.sends.has_files(admitted.session.id, &answer.attachments) {
            return Ok(());
        }
        self.refuse_form(admitted);
        Err(BrokerError::Argument {
            field: "attachments",
            problem: "not a file that this session attached; attach it again",
        })
    }

    /// Budget, record, then the one call.
    async fn hand_over(
        &self,
        admitted: &Admitted,
        identity: IdentityUuid,
        grant: Grant,
        out: Out,
        subject: &Secret,
        reason: Option<Reason>,
    ) -> Result<Dispatched> {
        let recipients = Recipients::of(grant.action()).ok_or(BrokerError::Internal)?;
        let channel = recipients.channel();
        let failed = |error: &BrokerError| self.record_failed(admitted, grant.action(), error);
        let taken = self.budgets.take(identity, channel).await.map_err(|error| match error {
            TakeError::Spent { retry_after } => {
                BrokerError::Quota { budget: Budgets::name(channel), retry_after }
            }
            TakeError::Store(error) => error.into(),
        });
        let taken = taken.inspect_err(failed)?;
        let ready =
            self.record_performed(&admitted.session, grant.action(), reason.as_ref()).and_then(|()| {
                // A reload, a revocation or a lock may have come meanwhile.
                self.again(admitted, &grant)?;
                self.ensure_open(&admitted.session)
            });
        if let Err(error) = ready {
            self.give_back(taken).await;
            return Err(error);
        }
        let (at, content) = (self.clock.wall(), out.content());
        let unknown = Unknown::of(identity, recipients, at, subject.expose(), content.expose());
        match self.send_once(identity, &out).await {
            Ok(Sent { message }) => {
                self.sends.know(identity, message);
                self.count_served();
                Ok(Dispatched { message, budget: taken.standing })
            }
            Err(error) if in_doubt(&error) => {
                let id = self.sends.keep(admitted.session.id, unknown).ok_or(BrokerError::Internal)?;
                self.forget_sends_if_over(admitted);
                Err(BrokerError::SendUnknown(id)).inspect_err(failed)
            }
            Err(error) => {
                self.give_back(taken).await;
                if let UpstreamError::Throttled { retry_after } = error {
                    let closed = self.budgets.throttled(taken, retry_after).await;
                    let _ =
                        closed.inspect_err(|error| tracing::error!(%error, "a wait of Ravi's is not noted"));
                }
                Err(BrokerError::from(error)).inspect_err(failed)
            }
        }
    }

    /// What the operator's word about a mail is bound to.
    fn content_of(&self, subject: &str, answer: &Answering) -> Fingerprint {
        let files: Vec<String> = answer.attachments.iter().map(ToString::to_string).collect();
        let mut parts = vec![subject, answer.content.expose()];
        parts.extend(files.iter().map(String::as_str));
        self.fingerprint(&parts)
    }

    async fn send_once(&self, identity: IdentityUuid, out: &Out) -> crate::upstream::Result<Sent> {
        let mailbox = &self.mailbox;
        match out {
            Out::New(draft) => mailbox.compose(identity, draft).await,
            Out::Reply(mail, Answered::Sender, answer) => mailbox.reply(identity, *mail, answer).await,
            Out::Reply(mail, Answered::All, answer) => mailbox.reply_all(identity, *mail, answer).await,
            Out::Forward(mail, to, answer) => mailbox.forward(identity, *mail, to, answer).await,
            Out::Text(to, text) => mailbox.send_text(identity, to, text).await,
        }
    }

    /// Where that fails, the identity may send one less today.
    async fn give_back(&self, taken: Taken) {
        if let Err(error) = self.budgets.give_back(taken).await {
            tracing::error!(%error, "a send that was not made stays counted");
        }
    }

    /// A session that ended while it sent has been forgotten already.
    fn forget_sends_if_over(&self, admitted: &Admitted) {
        if admitted.session.end().is_some() {
            self.sends.forget(admitted.session.id);
        }
    }
}

impl Out {
    fn content(&self) -> &Secret {
        match self {
            Self::New(draft) => &draft.rest.content,
            Self::Reply(.., answer) | Self::Forward(.., answer) => &answer.content,
            Self::Text(_, text) => text,
        }
    }
}

impl Recipients {
    fn of(action: &Action) -> Option<Self> {
        match action {
            Action::SendEmail(addresses) => Some(Self::Addresses(addresses.clone())),
            Action::SendSms(number) => Some(Self::Number(number.clone())),
            _ => None,
        }
    }

    fn action(&self) -> Action {
        match self {
            Self::Addresses(addresses) => Action::SendEmail(addresses.clone()),
            Self::Number(number) => Action::SendSms(number.clone()),
        }
    }
}

/// Everybody whom a mail reaches.
fn with_copies(mut to: Vec<EmailAddress>, answer: &Answering) -> Result<Vec<EmailAddress>> {
    to.extend(answer.cc.iter().chain(&answer.bcc).cloned());
    let all = without_doubles(to);
    if all.len() > MAX_RECIPIENTS {
        return Err(BrokerError::Argument {
            field: "content",
            problem: "expected at most 50 recipients in all",
        });
    }
    Ok(all)
}

/// Whether it may have gone out. A page that was asked for before, and could not be read, is no answer to the send; a
/// redirect can be.
fn in_doubt(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::OutcomeUnknown | UpstreamError::Answer(AnswerFault::Redirect))
}
