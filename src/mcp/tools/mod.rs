//! The tools: which there are, who is shown them, and where a call of one goes. The descriptions are written
//! for a model: when to use the tool, and what it will not do.
//!
//! A tool is listed where a scope of the session is for it. That saves a model vain attempts and guards
//! nothing: every call goes to the broker, which judges it.

mod code;
mod identity;
mod inbox;
mod schema;
mod send;
mod vault;

use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::model::{CallToolResult, JsonObject, Tool};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(super) use schema::count;

use super::advice;
use super::progress::Progress;
use super::rights::Rights;
use super::session::{BrokerSession, CallError};
use crate::client::{BrokerError, ClientError, ErrorReason};
use crate::types::NameError;

/// One tool.
struct Entry {
    name: &'static str,
    /// Kinds and verbs any of which is for it; none: it is everybody's.
    rights: &'static [&'static str],
    /// What is shown of it, to who may do this or is not known.
    shown: fn(Option<&Rights>) -> Tool,
}

/// All tools, in the order that hosts show them.
const TOOLS: [Entry; 16] = [
    entry("broker_whoami", &[], identity::whoami_tool),
    entry("ravi_identity_get", &["identity:read"], identity::get_tool),
    entry("ravi_identity_create", &["identity:create"], identity::create_tool),
    entry("passwords_list", &["password:list"], vault::passwords_list_tool),
    entry("passwords_get", &["password:read", "password:use"], vault::passwords_get_tool),
    entry("passwords_create", &["password:create"], vault::passwords_create_tool),
    entry("secrets_list", &["secret:list"], vault::secrets_list_tool),
    entry("secrets_get", &["secret:read", "secret:use"], vault::secrets_get_tool),
    entry("secrets_set", &["secret:write"], vault::secrets_set_tool),
    entry("ravi_wait_for_code", &["email:await", "sms:await"], code::wait_tool),
    entry("ravi_read_email", &["email:read"], inbox::email_tool),
    entry("ravi_read_sms", &["sms:read"], inbox::sms_tool),
    entry("ravi_send_email", &["email:send"], send::email_tool),
    entry("ravi_reply_email", &["email:send"], send::reply_tool),
    entry("ravi_send_sms", &["sms:send"], send::sms_tool),
    entry("ravi_sso_token", &["sso:mint"], identity::sso_tool),
];

const fn entry(
    name: &'static str,
    rights: &'static [&'static str],
    shown: fn(Option<&Rights>) -> Tool,
) -> Entry {
    Entry { name, rights, shown }
}

/// The tools for who may do this. All of them while that is not known: a host that asks once, while the
/// daemon is down, would never see one.
pub(super) fn list(rights: Option<&Rights>) -> Vec<Tool> {
    let is_for = |entry: &&Entry| match rights {
        Some(rights) => entry.rights.is_empty() || entry.rights.iter().any(|right| rights.touch(right)),
        None => true,
    };
    TOOLS.iter().filter(is_for).map(|entry| (entry.shown)(rights)).collect()
}

/// A tool by its name, whoever may use it.
pub(super) fn find(name: &str, rights: Option<&Rights>) -> Option<Tool> {
    TOOLS.iter().find(|entry| entry.name == name).map(|entry| (entry.shown)(rights))
}

/// What a call comes with.
pub(super) struct Call<'a> {
    pub(super) session: &'a BrokerSession,
    pub(super) arguments: JsonObject,
    /// Done when nobody waits for the answer: the call was cancelled, or the adapter ends.
    pub(super) cancelled: CancellationToken,
    /// Done when the host has gone; short calls are answered all the same.
    pub(super) ended: CancellationToken,
    /// Where to say how it goes on, if the host wants to know.
    pub(super) progress: Option<Progress>,
}

/// How a call ended.
pub(super) enum Called {
    Answered(CallToolResult),
    /// There is no such tool.
    Unknown,
    /// Nobody waits for an answer.
    Cancelled,
}

/// Calls a tool.
pub(super) async fn call(name: &str, call: Call<'_>) -> Called {
    let (session, cancelled) = (call.session, call.cancelled.clone());
    // What waits for long has something to clear away when it is cancelled.
    let answer = if name == "ravi_wait_for_code" {
        code::wait(call).await
    } else {
        tokio::select! {
            answer = short(name, session, call.arguments) => answer,
            // Says that it goes on, and never ends.
            () = report(call.progress.as_ref()) => Err(Failure::Cancelled),
            () = cancelled.cancelled() => Err(Failure::Cancelled),
        }
    };
    session.used.notify_one();
    match answer {
        Ok(result) => Called::Answered(result),
        Err(Failure::Unknown) => Called::Unknown,
        Err(Failure::Cancelled) => Called::Cancelled,
        Err(failure) => {
            if failure.wants_a_right() {
                session.refused.notify_one();
            }
            Called::Answered(failure.result())
        }
    }
}

/// What takes longer than this waits for something: for the operator, where the role has to ask.
const FIRST_PROGRESS: Duration = Duration::from_secs(2);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The broker answers a call that waits for the operator after so long.
const LONGEST_WAIT: u64 = 50;

async fn report(progress: Option<&Progress>) {
    let Some(progress) = progress else { return std::future::pending().await };
    let (mut pause, mut waited) = (FIRST_PROGRESS, Duration::ZERO);
    loop {
        tokio::time::sleep(pause).await;
        waited += pause;
        let text = "Waiting for the broker; the operator may have to approve this";
        progress.tell(waited.as_secs(), LONGEST_WAIT, text).await;
        pause = PROGRESS_INTERVAL;
    }
}

/// Each tool in a box of its own: in one state machine they would be compiled into each other, to thrice the size.
async fn short(name: &str, session: &BrokerSession, arguments: JsonObject) -> Answer {
    let answer: BoxFuture<'_, Answer> = match name {
        "broker_whoami" => Box::pin(identity::whoami(session)),
        "ravi_identity_get" => Box::pin(identity::get(session)),
        "ravi_identity_create" => Box::pin(identity::create(session, arguments)),
        "ravi_sso_token" => Box::pin(identity::sso_token(session, arguments)),
        "passwords_list" => Box::pin(vault::passwords_list(session)),
        "passwords_get" => Box::pin(vault::passwords_get(session, arguments)),
        "passwords_create" => Box::pin(vault::passwords_create(session, arguments)),
        "secrets_list" => Box::pin(vault::secrets_list(session)),
        "secrets_get" => Box::pin(vault::secrets_get(session, arguments)),
        "secrets_set" => Box::pin(vault::secrets_set(session, arguments)),
        "ravi_read_email" => Box::pin(inbox::read_email(session, arguments)),
        "ravi_read_sms" => Box::pin(inbox::read_sms(session, arguments)),
        "ravi_send_email" => Box::pin(send::email(session, arguments)),
        "ravi_reply_email" => Box::pin(send::reply(session, arguments)),
        "ravi_send_sms" => Box::pin(send::sms(session, arguments)),
        _ => return Err(Failure::Unknown),
    };
    answer.await
}

/// Why a tool did not succeed.
enum Failure {
    Unknown,
    Cancelled,
    Arguments(&'static str),
    Name(NameError),
    Call(CallError),
}

impl Failure {
    fn result(&self) -> CallToolResult {
        match self {
            Self::Arguments(expected) => advice::refused_arguments(expected),
            Self::Name(error) => advice::refused_arguments(&error.to_string()),
            Self::Call(error) => advice::failed(error),
            Self::Unknown | Self::Cancelled => advice::refused_arguments("there is no such tool"),
        }
    }

    /// Whether a right was missing, which a reload may have taken.
    fn wants_a_right(&self) -> bool {
        use ErrorReason::{DeliveryNotAllowed, ResourceNotAvailable, RoleNotAvailable, ScopeNotGranted};

        let Self::Call(CallError::Client(ClientError::Broker(BrokerError { reason, .. }))) = self else {
            return false;
        };
        matches!(reason, ScopeNotGranted | ResourceNotAvailable | DeliveryNotAllowed | RoleNotAvailable)
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

type Answer = Result<CallToolResult, Failure>;

/// Models send an empty text or null where they mean nothing.
fn or_null<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The parser's own error would quote the arguments.
fn parse<T: DeserializeOwned>(arguments: JsonObject, expected: &'static str) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments)).map_err(|_| Failure::Arguments(expected))
}

/// The same content twice, as the protocol asks: structured, and as text for hosts that know no better.
fn structured(output: &impl Serialize) -> CallToolResult {
    CallToolResult::structured(serde_json::to_value(output).unwrap_or_default())
}
