//! Who the agent is: its session, its identity, and tokens that prove it.

use rmcp::model::{JsonObject, Tool};
use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::{Effect, tool, tool_without_arguments};
use super::{Answer, or_null, parse, structured};
use crate::client::AgentClient;
use crate::mcp::output::{CreatedIdentity, IdentityOutput, TokenOutput, Whoami};
use crate::mcp::rights::Rights;
use crate::mcp::session::BrokerSession;
use crate::types::{IdentityName, Reason};

pub(super) fn whoami_tool(_: Option<&Rights>) -> Tool {
    tool_without_arguments::<Whoami>(
        Effect::Reads,
        "broker_whoami",
        "Who am I and what may I do",
        "Shows the role and the Ravi identity you act as, the scopes you were granted, and what is \
         left of your rate limits. Call it first, and when another tool refused. Shows no credential.",
    )
}

pub(super) fn get_tool(_: Option<&Rights>) -> Tool {
    tool_without_arguments::<IdentityOutput>(
        Effect::Reads,
        "ravi_identity_get",
        "My Ravi identity",
        "Returns your own mail address, phone number and name, and the name of the person who owns \
         the account. Use these when you sign up somewhere or introduce yourself. Shows no other \
         identity and no credential.",
    )
}

pub(super) fn create_tool(_: Option<&Rights>) -> Tool {
    tool::<IdentityCreate, CreatedIdentity>(
        Effect::Creates,
        "ravi_identity_create",
        "Create a Ravi identity",
        "Creates another Ravi identity beside your own, with a mail address of its own. Use it only when \
         the person you work for asked for one. You do not become it: the operator gives it a role first. \
         Returns its name and address, never a credential. It cannot be undone from here, and calling it \
         again does not repeat it: a name that is taken is refused.",
    )
}

pub(super) fn sso_tool(_: Option<&Rights>) -> Tool {
    tool::<SsoToken, TokenOutput<'static>>(
        Effect::Creates,
        "ravi_sso_token",
        "Get a sign-in token",
        "Returns a token that proves to a service that accepts Ravi sign-in who you are. It is worth five \
         minutes: get it at the moment you sign in. It becomes part of this conversation: give it to that \
         service and to nobody else. Changes nothing, and signs you in nowhere by itself.",
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IdentityCreate {
    /// What it is to be called, for example support-bot: 1 to 128 printable characters.
    #[schemars(length(min = 1, max = 128))]
    name: String,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SsoToken {
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

pub(super) async fn whoami(session: &BrokerSession) -> Answer {
    Ok(structured(&Whoami::from(session.describe().await?)))
}

pub(super) async fn get(session: &BrokerSession) -> Answer {
    let identity = session.read(|client| async move { client.identity().await }).await?;
    Ok(structured(&IdentityOutput::from(identity)))
}

pub(super) async fn create(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let IdentityCreate { name, reason } = parse(arguments, "expected name, and optionally reason, as texts")?;
    let name: IdentityName = name.parse()?;
    let reason: Reason = reason.parse()?;
    let call = |client: AgentClient| {
        let (name, reason) = (name.clone(), reason.clone());
        async move { client.create_identity(name.as_str(), reason.as_str()).await }
    };
    Ok(structured(&CreatedIdentity::from(session.write(call).await?)))
}

pub(super) async fn sso_token(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let SsoToken { reason } = parse(arguments, "expected optionally reason, as a text")?;
    let reason: Reason = reason.parse()?;
    let call = |client: AgentClient| {
        let reason = reason.clone();
        async move {
            let (lease, credential) = client.mint_sso_token(reason.as_str()).await?;
            // If giving it back fails, it ends by its time.
            let _ = client.release(lease.lease_id).await;
            Ok((lease, credential))
        }
    };
    let (lease, credential) = session.write(call).await?;
    Ok(structured(&TokenOutput {
        token: credential.value.expose(),
        expires_at: lease.expires_at.to_string(),
        lease: lease.into(),
    }))
}
