//! One attempt: fetch the message again, judge it by the rules of now, wrap it, post it.
//!
//! What it says lives as long as the attempt. Nothing is written here; what came of it is a `Step`.

use std::fmt;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::Dispatcher;
use super::backoff::{LONGEST, Meaning, meaning};
use super::envelope::{Letter, NoRandom, signature};
use super::post::{MAX_ANSWER, Parcel, PostError, Reply};
use super::rules::Rule;
use crate::audit::{Event, NOBODY, Verb};
use crate::config::{Form, IdentityRef};
use crate::inbox::message::Message;
use crate::inbox::sender::Sender;
use crate::inbox::store::outbox::Delivery;
use crate::secret::Secret;
use crate::types::{Channel, DispatchId};
use crate::upstream::{ContactAddress, UpstreamError};

const ID: HeaderName = HeaderName::from_static("ravi-broker-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("ravi-broker-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("ravi-broker-signature");
/// While Ravi, a key file or the audit trail is what is missing.
const LATER: Duration = Duration::from_secs(60);

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The callback took it.
    Delivered,
    /// The callback did not, and may later. Counts.
    Again(Fault, Option<Duration>),
    /// It was not the callback's fault. Does not count.
    Later(Fault, Duration),
    /// It will never be taken.
    Never(Fault),
    /// Nobody is to be told.
    Dropped(Fault),
}

/// Why a message was not delivered. Closed words, as the queue and the operator see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody accepts there.
    Unreachable,
    /// The address is of another machine.
    NotLoopback,
    /// No answer in 10 s.
    TimedOut,
    /// The connection ended without an answer.
    NoAnswer,
    /// It answered with a redirect.
    Redirect,
    /// It answered with another status than one of success.
    Status(u16),
    /// The session that is spoken to is busy.
    Busy,
    /// Ravi could not be asked for the message.
    RaviUnavailable,
    /// Ravi has no such message any more.
    MessageGone,
    /// Ravi's answer was discarded.
    MessageUnreadable,
    /// No rule of that name is in force.
    RuleGone,
    /// The file with the key or token cannot be used.
    KeyUnusable,
    /// The audit record could not be written.
    AuditUnavailable,
    /// The rule does not list the sender any more.
    SenderNotListed,
    /// The owner does not trust the sender.
    SenderUntrusted,
    /// The identity sent it itself.
    Outgoing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::NotLoopback => "not_loopback",
            Self::TimedOut => "timed_out",
            Self::NoAnswer => "no_answer",
            Self::Redirect => "redirect",
            Self::Status(status) => return write!(f, "status_{status}"),
            Self::Busy => "busy",
            Self::RaviUnavailable => "ravi_unavailable",
            Self::MessageGone => "message_gone",
            Self::MessageUnreadable => "message_unreadable",
            Self::RuleGone => "rule_gone",
            Self::KeyUnusable => "key_unusable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::SenderNotListed => "sender_not_listed",
            Self::SenderUntrusted => "sender_untrusted",
            Self::Outgoing => "outgoing",
        })
    }
}

impl Dispatcher {
    pub(super) async fn attempt(&self, delivery: &Delivery) -> Step {
        match self.try_once(delivery).await {
            Ok(reply) => reply,
            Err(step) => step,
        }
    }

    async fn try_once(&self, delivery: &Delivery) -> Result<Step, Step> {
        let rules = self.shared.rules();
        let rule = rules.named(&delivery.new.rule).ok_or(Step::Never(Fault::RuleGone))?;
        if delivery.attempts == 0 && delivery.fault.is_empty() {
            let event = Event::of(Verb::DispatchAttempted, &NOBODY).identity(delivery.new.identity);
            let event = event.delivery(delivery.new.id, delivery.new.message, 0);
            let later = |_| Step::Later(Fault::AuditUnavailable, LATER);
            self.audit.record(&event).map_err(later)?;
        }
        let (message, oversized) = self.fetch(delivery).await?;
        self.judge(rule, delivery, &message).await?;
        let key = self.shared.keys.open(&rule.config.form).map_err(|error| {
            tracing::error!(%error, rule = rule.config.name, "a key or token of a dispatch cannot be read");
            Step::Later(Fault::KeyUnusable, LATER)
        })?;
        let (body, content_type) = wrap(rule.clone(), delivery.clone(), message, oversized).await?;
        let headers = headers(delivery.new.id, self.clock.wall().as_second(), &rule.config.form, key, &body);
        let headers = headers.ok_or(Step::Later(Fault::KeyUnusable, LATER))?;
        let (to, allow_remote) = (&rule.config.to, rule.config.allow_remote);
        let sent = self.post.send(Parcel { to, allow_remote, headers, content_type, body }).await;
        Ok(judged(sent, &rule.config.form))
    }

    /// The message, and whether it was too large to be fetched whole.
    async fn fetch(&self, delivery: &Delivery) -> Result<(Message, bool), Step> {
        let (identity, name) = (delivery.new.identity, delivery.new.message);
        match name.channel {
            Channel::Email => {
                let mail = self.mailbox.read_mail(identity, name.id).await.map_err(not_read)?;
                let oversized = mail.oversized;
                Ok((Message::from(mail), oversized))
            }
            Channel::Sms => {
                let text = self.mailbox.read_text(identity, name.id).await.map_err(not_read)?;
                Ok((Message::from(text), false))
            }
        }
    }

    /// By the rules as they are now. The owner's trust is asked for each time.
    async fn judge(&self, rule: &Rule, delivery: &Delivery, message: &Message) -> Result<(), Step> {
        if message.outgoing {
            return Err(Step::Dropped(Fault::Outgoing));
        }
        let sender = message.sender();
        if !rule.admits(sender.as_ref()) {
            return Err(Step::Dropped(Fault::SenderNotListed));
        }
        if !rule.config.trusted {
            return Ok(());
        }
        let untrusted = Step::Dropped(Fault::SenderUntrusted);
        let address = sender.as_ref().and_then(contact).ok_or(untrusted)?;
        let contact = self.mailbox.find_contact(delivery.new.identity, &address).await;
        match contact {
            Ok(Some(contact)) if contact.is_trusted => Ok(()),
            Ok(_) | Err(UpstreamError::NotFound) => Err(untrusted),
            Err(error) => Err(not_read(error)),
        }
    }
}

fn not_read(error: UpstreamError) -> Step {
    match error {
        UpstreamError::NotFound => Step::Never(Fault::MessageGone),
        UpstreamError::Answer(_) | UpstreamError::Invalid => Step::Again(Fault::MessageUnreadable, None),
        UpstreamError::Throttled { retry_after } | UpstreamError::BudgetReached { retry_after } => {
            Step::Later(Fault::RaviUnavailable, retry_after.clamp(Duration::from_secs(1), LONGEST))
        }
        _ => Step::Later(Fault::RaviUnavailable, LATER),
    }
}

/// How the owner's contacts know the sender. A short code or a name is nobody's.
fn contact(sender: &Sender) -> Option<ContactAddress> {
    match sender {
        Sender::Mail { local, domain } => format!("{local}@{domain}").parse().ok().map(ContactAddress::Email),
        Sender::Phone(number) => number.parse().ok().map(ContactAddress::Phone),
        Sender::ShortCode(_) | Sender::Name(_) => None,
    }
}

/// Off the workers: a mail can have megabytes.
async fn wrap(
    rule: Rule,
    delivery: Delivery,
    message: Message,
    oversized: bool,
) -> Result<(Zeroizing<Vec<u8>>, &'static str), Step> {
    let wrapped = tokio::task::spawn_blocking(move || {
        let mut shown = message.shown(rule.config.reveal);
        shown.truncated |= oversized;
        let name = match &rule.config.identity {
            IdentityRef::Name(name) => name.as_str(),
            IdentityRef::Uuid(_) => "",
        };
        let letter = Letter {
            id: delivery.new.id,
            attempt: delivery.attempts + 1,
            rule: &rule.config.name,
            identity: delivery.new.identity,
            name,
            message: message.name,
            from: &message.from,
            shown: &shown,
            received: message.created,
        };
        match &rule.config.form {
            Form::Assistant { .. } => {
                let text = letter.text()?;
                Ok((Zeroizing::new(text.as_bytes().to_vec()), "text/plain; charset=utf-8"))
            }
            Form::AssistantTurn { session, .. } => Ok((letter.turn(session)?, "application/json")),
            Form::Json { .. } => Ok((letter.document()?, "application/json")),
        }
    });
    let wrapped: Result<_, NoRandom> = wrapped.await.unwrap_or(Err(NoRandom));
    wrapped.map_err(|NoRandom| Step::Later(Fault::MessageUnreadable, LATER))
}

/// `None`: the key is missing, or not to be sent.
fn headers(id: DispatchId, now: i64, form: &Form, key: Option<Secret>, body: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ID, HeaderValue::try_from(id.to_string()).ok()?);
    match (form, key) {
        (Form::Json { .. }, Some(key)) => {
            headers.insert(TIMESTAMP, HeaderValue::from(now));
            headers.insert(SIGNATURE, HeaderValue::try_from(signature(&key, id, now, body)).ok()?);
        }
        (Form::Json { .. }, None) => return None,
        (_, Some(token)) => {
            let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
            let mut bearer = HeaderValue::from_str(&bearer).ok()?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        (_, None) => {}
    }
    Some(headers)
}

fn judged(sent: Result<Reply, PostError>, form: &Form) -> Step {
    let reply = match sent {
        Ok(reply) => reply,
        Err(PostError::Elsewhere) => return Step::Never(Fault::NotLoopback),
        Err(PostError::Unreachable) => return Step::Again(Fault::Unreachable, None),
        Err(PostError::Lost) => return Step::Again(Fault::NoAnswer, None),
        Err(PostError::TimedOut) => return Step::Again(Fault::TimedOut, None),
    };
    let turn = matches!(form, Form::AssistantTurn { .. });
    match (meaning(reply.status), reply.status) {
        (Meaning::Taken, _) if turn && is_busy(&reply.body) => Step::Again(Fault::Busy, None),
        (Meaning::Taken, _) => Step::Delivered,
        (Meaning::Again, status) => Step::Again(Fault::Status(status), reply.retry_after),
        (Meaning::Never, 300..=399) => Step::Never(Fault::Redirect),
        (Meaning::Never, status) => Step::Never(Fault::Status(status)),
    }
}

/// kcosr/assistant says 200 to a message that a busy session does not take, and puts `"status":"busy"` into the
/// answer, or into its `result`.
fn is_busy(body: &[u8]) -> bool {
    let answer: serde_json::Value = match serde_json::from_slice(body) {
        Ok(answer) if body.len() < MAX_ANSWER => answer,
        _ => return false,
    };
    [&answer["status"], &answer["result"]["status"]].iter().any(|status| *status == "busy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Result<Reply, PostError> {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Ok(Reply { status, retry_after: Some(Duration::from_secs(9)), body })
    }

    #[test]
    fn a_busy_session_of_the_assistant_has_not_taken_the_message() {
        let turn = Form::AssistantTurn { session: "a".into(), token_file: None };
        let plain = Form::Assistant { token_file: None };
        for body in [r#"{"status":"busy"}"#, r#"{"ok":true,"result":{"status":"busy","sessionId":"a"}}"#] {
            assert_eq!(judged(reply(200, body), &turn), Step::Again(Fault::Busy, None), "{body}");
            assert_eq!(judged(reply(200, body), &plain), Step::Delivered);
        }
        for body in ["", "{", r#"{"status":"started"}"#, r#"["busy"]"#] {
            assert_eq!(judged(reply(200, body), &turn), Step::Delivered, "{body}");
        }
    }

    #[test]
    fn an_answer_decides_what_comes_next() {
        let json = Form::Json { secret_file: "/k".into() };
        assert_eq!(judged(reply(410, ""), &json), Step::Never(Fault::Status(410)));
        assert_eq!(judged(reply(307, ""), &json), Step::Never(Fault::Redirect));
        let again = Step::Again(Fault::Status(429), Some(Duration::from_secs(9)));
        assert_eq!(judged(reply(429, ""), &json), again);
        assert_eq!(judged(Err(PostError::Elsewhere), &json), Step::Never(Fault::NotLoopback));
    }

    #[test]
    fn a_document_without_a_key_is_not_sent_and_a_token_is_not_shown() {
        let json = Form::Json { secret_file: "/k".into() };
        assert!(headers(DispatchId([1; 16]), 0, &json, None, b"").is_none());
        let plain = Form::Assistant { token_file: Some("/t".into()) };
        let sent = headers(DispatchId([1; 16]), 0, &plain, Some(Secret::copy_of("canary")), b"").unwrap();
        assert_eq!(sent[AUTHORIZATION], "Bearer canary");
        assert!(!format!("{sent:?}").contains("canary"));
    }
}
