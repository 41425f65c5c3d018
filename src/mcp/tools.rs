//! The tools: name, description, schemas and the one call of the broker behind each. The descriptions
//! are written for a model: when to use the tool, and what it will not do.

use std::sync::Arc;

use rmcp::handler::server::common::schema_for_empty_input;
use rmcp::model::{CallToolResult, JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::advice;
use super::output::{IdentityOutput, PasswordList, PasswordOutput, SecretList, SecretOutput, Whoami};
use super::session::{BrokerSession, CallError};
use crate::client::{AgentClient, Credential, Lease};
use crate::types::{Domain, NameError, PasswordName, Reason, Resource, SecretKey, Username};

/// All tools, in the order that hosts show them.
pub(super) fn list() -> Vec<Tool> {
    vec![
        tool_without_arguments::<Whoami>(
            "broker_whoami",
            "Who am I and what may I do",
            "Shows the role and the Ravi identity you act as, the scopes you were granted, and what is \
             left of your rate limits. Call it first, and when another tool refused. Shows no credential.",
        ),
        tool_without_arguments::<IdentityOutput>(
            "ravi_identity_get",
            "My Ravi identity",
            "Returns your own mail address, phone number and name, and the name of the person who owns \
             the account. Use these when you sign up somewhere or introduce yourself. Shows no other \
             identity and no credential.",
        ),
        tool_without_arguments::<PasswordList>(
            "passwords_list",
            "List my passwords",
            "Lists the sites and user names of the passwords you may use. Shows names only, never a \
             password: use passwords_get for one.",
        ),
        tool::<PasswordsGet, PasswordOutput<'static>>(
            "passwords_get",
            "Get one password",
            "Returns the password for one site. Use it at the moment you sign in and not before. The value \
             becomes part of this conversation: do not repeat it in answers, files or logged commands. \
             Returns one entry only; if a site has several, name the user. Creates and changes nothing.",
        ),
        tool_without_arguments::<SecretList>(
            "secrets_list",
            "List my secrets",
            "Lists the keys of the secrets you may use, such as API keys. Shows keys only, never a value: \
             use secrets_get for one.",
        ),
        tool::<SecretsGet, SecretOutput<'static>>(
            "secrets_get",
            "Get one secret",
            "Returns the value of one secret, such as an API key. Use it at the moment you need it and not \
             before. The value becomes part of this conversation: do not repeat it in answers, files or \
             logged commands. Creates and changes nothing.",
        ),
    ]
}

/// Calls a tool. `None`: there is no such tool.
pub(super) async fn call(
    session: &BrokerSession,
    name: &str,
    arguments: JsonObject,
) -> Option<CallToolResult> {
    let result = match name {
        "broker_whoami" => whoami(session).await,
        "ravi_identity_get" => identity(session).await,
        "passwords_list" => passwords_list(session).await,
        "passwords_get" => passwords_get(session, arguments).await,
        "secrets_list" => secrets_list(session).await,
        "secrets_get" => secrets_get(session, arguments).await,
        _ => return None,
    };
    Some(result.unwrap_or_else(|failure| failure.result()))
}

/// Why a tool did not succeed.
enum Failure {
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
        }
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordsGet {
    /// The site's host name, for example github.com: no scheme, port or path.
    #[schemars(length(min = 1, max = 253))]
    domain: String,
    /// The account name. Needed where the site has several entries; passwords_list shows them.
    #[serde(default, deserialize_with = "text_or_null")]
    #[schemars(length(max = 256))]
    username: String,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "text_or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SecretsGet {
    /// The secret's key, for example OPENAI_API_KEY.
    #[schemars(length(min = 1, max = 128))]
    key: String,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "text_or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

/// Models send an empty text or null where they mean nothing.
fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

async fn passwords_get(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let expected = "expected domain, and optionally username and reason, as texts";
    let PasswordsGet { domain, username, reason } = parse(arguments, expected)?;
    let domain: Domain = domain.parse()?;
    let username = if username.is_empty() { None } else { Some(username.parse::<Username>()?) };
    let resource = Resource::Password(PasswordName { domain, username });
    let (lease, credential) = read_once(session, &resource, reason).await?;
    Ok(structured(&PasswordOutput {
        username: credential.username.as_deref(),
        password: credential.value.expose(),
        lease: lease.into(),
    }))
}

async fn secrets_get(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let SecretsGet { key, reason } = parse(arguments, "expected key, and optionally reason, as texts")?;
    let resource = Resource::Secret(key.parse::<SecretKey>()?);
    let (lease, credential) = read_once(session, &resource, reason).await?;
    Ok(structured(&SecretOutput { value: credential.value.expose(), lease: lease.into() }))
}

async fn passwords_list(session: &BrokerSession) -> Answer {
    let names = session.read(|client| async move { client.list_passwords().await }).await?;
    Ok(structured(&PasswordList::from(names)))
}

async fn secrets_list(session: &BrokerSession) -> Answer {
    let names = session.read(|client| async move { client.list_secrets().await }).await?;
    Ok(structured(&SecretList::from(names)))
}

async fn identity(session: &BrokerSession) -> Answer {
    let identity = session.read(|client| async move { client.identity().await }).await?;
    Ok(structured(&IdentityOutput::from(identity)))
}

async fn whoami(session: &BrokerSession) -> Answer {
    let description = session.read(|client| async move { client.describe_session().await }).await?;
    Ok(structured(&Whoami::from(description)))
}

/// One reading: the lease is given back at once, since a model never comes back to one and leases that
/// pile up would end at the role's `lease.max_live`.
async fn read_once(
    session: &BrokerSession,
    resource: &Resource,
    reason: String,
) -> Result<(Lease, Credential), Failure> {
    let reason: Reason = reason.parse()?;
    let request: Arc<(String, Reason)> = Arc::new((resource.to_string(), reason));
    let call = |client: AgentClient| {
        let request = Arc::clone(&request);
        async move {
            let (lease, credential) = client.acquire(&request.0, None, request.1.as_str()).await?;
            // If giving it back fails, it ends by its time.
            let _ = client.release(lease.lease_id).await;
            Ok((lease, credential))
        }
    };
    Ok(session.read(call).await?)
}

/// The parser's own error would quote the arguments.
fn parse<T: DeserializeOwned>(arguments: JsonObject, expected: &'static str) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments)).map_err(|_| Failure::Arguments(expected))
}

/// The same content twice, as the protocol asks: structured, and as text for hosts that know no better.
fn structured(output: &impl Serialize) -> CallToolResult {
    CallToolResult::structured(serde_json::to_value(output).unwrap_or_default())
}

fn tool<I, O>(name: &'static str, title: &'static str, description: &'static str) -> Tool
where
    I: JsonSchema + 'static,
    O: JsonSchema + 'static,
{
    tool_without_arguments::<O>(name, title, description).with_input_schema::<I>()
}

/// Such a tool ignores what a model sends all the same.
fn tool_without_arguments<O>(name: &'static str, title: &'static str, description: &'static str) -> Tool
where
    O: JsonSchema + 'static,
{
    let annotations = ToolAnnotations::with_title(title)
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    Tool::new(name, description, schema_for_empty_input())
        .with_title(title)
        .with_output_schema::<O>()
        .with_annotations(annotations)
}
