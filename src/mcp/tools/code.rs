//! Waiting for a code or a sign-in link. One tool with two steps, since a watch has to be open before the
//! service is made to send: what came earlier never counts. A wait that is cancelled closes its watch.

use std::time::Duration;

use rmcp::model::Tool;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::timeout;

use super::schema::{Effect, tool};
use super::{Answer, Call, Failure, or_null, parse, structured};
use crate::client::{AgentClient, Code, CodeKind, OpenWatch};
use crate::mcp::output::WaitOutput;
use crate::mcp::rights::Rights;
use crate::mcp::session::BrokerSession;
use crate::types::{Channel, Reason, WatchId};

/// Hosts give a call 60 seconds; the broker waits at most 50.
const LONGEST_WAIT: u32 = 50;
const DEFAULT_WAIT: u32 = 45;
/// How often the host is told that the wait goes on.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// A watch that cannot be closed in this time ends by its own.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
const MAX_FROM_BYTES: usize = 256;

pub(super) fn wait_tool(_: Option<&Rights>) -> Tool {
    tool::<WaitForCode, WaitOutput<'static>>(
        Effect::ReadsStrangers,
        "ravi_wait_for_code",
        "Wait for a code",
        "Returns the code or the sign-in link that a service sends you. Two steps. First, BEFORE you have \
         the service send it, call with channel and from: you get a watch. Then trigger the message, and \
         call again with that watch: it waits until the code is there. What came before the watch was opened \
         never counts. If the answer has no code yet, call again with the same watch; do not have the \
         service send again before the watch ends. Changes nothing, and never invents a code.",
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WaitForCode {
    /// The watch that the first call returned. Leave it out in the first call.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 64))]
    watch: String,
    /// First call: how the service will send it, email or sms.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(with = "ChannelName")]
    channel: Option<ChannelName>,
    /// First call: who will send it: a domain such as github.com, an address, or a number. Without it anybody
    /// could send you a code.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    from: String,
    /// First call: code, link, or any (if you leave it out) for whichever comes.
    #[serde(default, deserialize_with = "or_null")]
    kind: KindName,
    /// Second call: how long to wait, at most 50 seconds; 45 if you leave it out.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(schema_with = "wait_seconds")]
    wait_seconds: u32,
    /// First call: why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ChannelName {
    Email,
    Sms,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum KindName {
    #[default]
    Any,
    Code,
    Link,
}

fn wait_seconds(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": LONGEST_WAIT })
}

/// Opens a watch, or waits with one.
pub(super) async fn wait(mut call: Call<'_>) -> Answer {
    let expected = "expected channel (email or sms), and optionally from, kind (code, link or any) and reason; \
                    or watch, and optionally wait_seconds (1 to 50)";
    let arguments = std::mem::take(&mut call.arguments);
    let WaitForCode { watch, channel, from, kind, wait_seconds, reason } = parse(arguments, expected)?;
    if watch.is_empty() {
        let channel = channel.ok_or(Failure::Arguments(expected))?;
        return tokio::select! {
            answer = open(call.session, channel, from, kind, &reason) => answer,
            () = call.cancelled.cancelled() => Err(Failure::Cancelled),
        };
    }
    let seconds = if wait_seconds == 0 { DEFAULT_WAIT } else { wait_seconds.min(LONGEST_WAIT) };
    wait_with(&call, watch.parse()?, seconds).await
}

async fn open(
    session: &BrokerSession,
    channel: ChannelName,
    from: String,
    kind: KindName,
    reason: &str,
) -> Answer {
    if from.len() > MAX_FROM_BYTES {
        return Err(Failure::Arguments("from is a domain, an address or a number"));
    }
    let reason: Reason = reason.parse()?;
    let open = OpenWatch {
        channel: match channel {
            ChannelName::Email => Channel::Email,
            ChannelName::Sms => Channel::Sms,
        },
        from,
        kind: match kind {
            KindName::Any => CodeKind::Any,
            KindName::Code => CodeKind::Code,
            KindName::Link => CodeKind::Link,
        },
        purpose: reason.to_string(),
        ttl: None,
    };
    let from_anybody = open.from.is_empty();
    let call = |client: AgentClient| {
        let open = open.clone();
        async move { client.open_watch(open).await }
    };
    // A watch that was opened for a lost answer ends by its time.
    let watch = session.write(call).await?;
    Ok(structured(&WaitOutput::watching(watch, from_anybody)))
}

async fn wait_with(call: &Call<'_>, id: WatchId, seconds: u32) -> Answer {
    let wait = Some(Duration::from_secs(seconds.into()));
    let waiting = call.session.read(|client| async move { client.await_code(id, wait).await });
    tokio::select! {
        code = waiting => Ok(answer(id, code?)),
        // Says how it goes on, and never ends.
        () = report(call, seconds) => Err(Failure::Cancelled),
        () = call.cancelled.cancelled() => {
            close(call.session, id).await;
            Err(Failure::Cancelled)
        }
        () = call.ended.cancelled() => Err(Failure::Cancelled),
    }
}

fn answer(id: WatchId, code: Option<Code>) -> rmcp::model::CallToolResult {
    match code {
        Some(code) => structured(&WaitOutput::arrived(&code)),
        None => structured(&WaitOutput::waiting(id)),
    }
}

async fn report(call: &Call<'_>, seconds: u32) {
    let Some(progress) = &call.progress else { return std::future::pending().await };
    let mut waited = Duration::ZERO;
    loop {
        progress.tell(waited.as_secs(), seconds.into(), "Waiting for the message").await;
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        waited += PROGRESS_INTERVAL;
    }
}

async fn close(session: &BrokerSession, id: WatchId) {
    let closing = session.read(|client| async move { client.close_watch(id).await });
    // One that stays ends by its time.
    let _ = timeout(CLOSE_DEADLINE, closing).await;
}
