//! Passwords and secrets. Where the role may use a value and not show it, the answer is a reference: it is
//! made from the name alone, and its type has no place for a value.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool};
use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::{Effect, or_else, tool, tool_without_arguments};
use super::{Answer, Failure, or_null, parse, structured};
use crate::client::{AgentClient, CreatePassword, Credential, Lease};
use crate::mcp::output::{
    CreatedPassword, PasswordList, PasswordOutput, ReferenceOutput, SecretList, SecretOutput, SetSecret,
};
use crate::mcp::rights::{Rights, Showing};
use crate::mcp::session::BrokerSession;
use crate::secret::Secret;
use crate::types::{Domain, PasswordName, Reason, Resource, SecretKey, Username};

pub(super) fn passwords_list_tool(_: Option<&Rights>) -> Tool {
    tool_without_arguments::<PasswordList>(
        Effect::Reads,
        "passwords_list",
        "List my passwords",
        "Lists the sites and user names of the passwords you may use. Shows names only, never a \
         password: use passwords_get for one.",
    )
}

pub(super) fn passwords_get_tool(rights: Option<&Rights>) -> Tool {
    let (name, title) = ("passwords_get", "Get one password");
    let shows = || {
        tool::<PasswordsGet, PasswordOutput<'static>>(
            Effect::Reads,
            name,
            title,
            "Returns the password for one site. Use it at the moment you sign in and not before. The value \
             becomes part of this conversation: do not repeat it in answers, files or logged commands. \
             Where you may use a password and not see it, you get a reference and how to use it. Returns \
             one entry only; if a site has several, name the user. Creates and changes nothing.",
        )
    };
    match forms(rights, "password") {
        Forms::Value => shows(),
        Forms::Either => or_else::<ReferenceOutput>(shows()),
        Forms::Reference => tool::<PasswordsGet, ReferenceOutput>(
            Effect::Reads,
            name,
            title,
            "Returns a reference to the password for one site, and how to run a program that gets the \
             password by it. The password itself you never see: it goes to that program. If a site has \
             several entries, name the user. Creates and changes nothing.",
        ),
    }
}

pub(super) fn passwords_create_tool(_: Option<&Rights>) -> Tool {
    tool::<PasswordsCreate, CreatedPassword>(
        Effect::Creates,
        "passwords_create",
        "Create a password",
        "Creates a password entry with a strong password that Ravi generates. Use it when you sign up \
         somewhere, before you fill in the form; then fetch the password with passwords_get. Returns the \
         name only, never a password. Does not change an entry that is there, and calling it twice makes \
         two entries.",
    )
}

pub(super) fn secrets_list_tool(_: Option<&Rights>) -> Tool {
    tool_without_arguments::<SecretList>(
        Effect::Reads,
        "secrets_list",
        "List my secrets",
        "Lists the keys of the secrets you may use, such as API keys. Shows keys only, never a value: \
         use secrets_get for one.",
    )
}

pub(super) fn secrets_get_tool(rights: Option<&Rights>) -> Tool {
    let (name, title) = ("secrets_get", "Get one secret");
    let shows = || {
        tool::<SecretsGet, SecretOutput<'static>>(
            Effect::Reads,
            name,
            title,
            "Returns the value of one secret, such as an API key. Use it at the moment you need it and not \
             before. The value becomes part of this conversation: do not repeat it in answers, files or \
             logged commands. Where you may use a secret and not see it, you get a reference and how to use \
             it. Creates and changes nothing.",
        )
    };
    match forms(rights, "secret") {
        Forms::Value => shows(),
        Forms::Either => or_else::<ReferenceOutput>(shows()),
        Forms::Reference => tool::<SecretsGet, ReferenceOutput>(
            Effect::Reads,
            name,
            title,
            "Returns a reference to one secret, such as an API key, and how to run a program that gets the \
             value by it. The value itself you never see: it goes to that program. Creates and changes \
             nothing.",
        ),
    }
}

pub(super) fn secrets_set_tool(_: Option<&Rights>) -> Tool {
    tool::<SecretsSet, SetSecret>(
        Effect::Replaces,
        "secrets_set",
        "Keep a secret",
        "Stores a value under a key, for example an API key that a site just gave you. Replaces what was \
         under the key, which cannot be brought back: look with secrets_list first. Returns the key only, \
         never a value. Do not use it for a person's passwords or for notes.",
    )
}

/// Which forms an answer can have.
enum Forms {
    Value,
    Reference,
    Either,
}

fn forms(rights: Option<&Rights>, kind: &str) -> Forms {
    let Some(rights) = rights else { return Forms::Either };
    match (rights.touch(&format!("{kind}:read")), rights.touch(&format!("{kind}:use"))) {
        (true, true) => Forms::Either,
        (false, true) => Forms::Reference,
        (_, false) => Forms::Value,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordsGet {
    /// The site's host name, for example github.com: no scheme, port or path.
    #[schemars(length(min = 1, max = 253))]
    domain: String,
    /// The account name. Needed where the site has several entries; passwords_list shows them.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    username: String,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordsCreate {
    /// The site's host name, for example github.com: no scheme, port or path.
    #[schemars(length(min = 1, max = 253))]
    domain: String,
    /// The account name, often your mail address.
    #[schemars(length(min = 1, max = 256))]
    username: String,
    /// Length of the password, where the site limits it; 24 if you leave it out.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(schema_with = "password_length")]
    length: u32,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

fn password_length(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 16, "maximum": 64 })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SecretsGet {
    /// The secret's key, for example OPENAI_API_KEY.
    #[schemars(length(min = 1, max = 128))]
    key: String,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SecretsSet {
    /// The secret's key, for example OPENAI_API_KEY: capital letters, digits and underscores.
    #[schemars(length(min = 1, max = 128))]
    key: String,
    /// The value, exactly as it is to be used.
    #[schemars(with = "String", length(min = 1, max = 49152))]
    value: Secret,
    /// Why you need it, in a few words. Goes to the operator's audit trail.
    #[serde(default, deserialize_with = "or_null")]
    #[schemars(length(max = 256))]
    reason: String,
}

pub(super) async fn passwords_list(session: &BrokerSession) -> Answer {
    let names = session.read(|client| async move { client.list_passwords().await }).await?;
    Ok(structured(&PasswordList::from(names)))
}

pub(super) async fn secrets_list(session: &BrokerSession) -> Answer {
    let names = session.read(|client| async move { client.list_secrets().await }).await?;
    Ok(structured(&SecretList::from(names)))
}

pub(super) async fn passwords_get(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let expected = "expected domain, and optionally username and reason, as texts";
    let PasswordsGet { domain, username, reason } = parse(arguments, expected)?;
    let name = password_name(&domain, &username)?;
    let reason: Reason = reason.parse()?;
    let resource = Resource::Password(name.clone());
    let showing = |rights: &Rights| rights.password(&name);
    let Some((lease, credential)) = shown(session, &resource, &reason, showing).await? else {
        return Ok(reference(session, &resource));
    };
    Ok(structured(&PasswordOutput {
        username: credential.username.as_deref(),
        password: credential.value.expose(),
        lease: lease.into(),
    }))
}

pub(super) async fn secrets_get(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let SecretsGet { key, reason } = parse(arguments, "expected key, and optionally reason, as texts")?;
    let key: SecretKey = key.parse()?;
    let reason: Reason = reason.parse()?;
    let resource = Resource::Secret(key.clone());
    let showing = |rights: &Rights| rights.secret(&key);
    let Some((lease, credential)) = shown(session, &resource, &reason, showing).await? else {
        return Ok(reference(session, &resource));
    };
    Ok(structured(&SecretOutput { value: credential.value.expose(), lease: lease.into() }))
}

pub(super) async fn passwords_create(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let expected = "expected domain and username, and optionally length (16 to 64) and reason";
    let PasswordsCreate { domain, username, length, reason } = parse(arguments, expected)?;
    let PasswordName { domain, .. } = password_name(&domain, &username)?;
    let username = username.parse::<Username>()?;
    let reason: Reason = reason.parse()?;
    let create = CreatePassword {
        domain: domain.to_string(),
        username: username.to_string(),
        length: Some(length).filter(|length| *length > 0),
        reason: reason.to_string(),
    };
    let call = |client: AgentClient| {
        let create = create.clone();
        async move { client.create_password(create).await }
    };
    Ok(structured(&CreatedPassword::from(session.write(call).await?)))
}

pub(super) async fn secrets_set(session: &BrokerSession, arguments: JsonObject) -> Answer {
    let SecretsSet { key, value, reason } =
        parse(arguments, "expected key and value, and optionally reason, as texts")?;
    let key: SecretKey = key.parse()?;
    let reason: Reason = reason.parse()?;
    let request = Arc::new((key, value, reason));
    let call = |client: AgentClient| {
        let request = Arc::clone(&request);
        async move { client.set_secret(request.0.as_str(), &request.1, request.2.as_str()).await }
    };
    let (name, created) = session.write(call).await?;
    Ok(structured(&SetSecret { key: name.key, created }))
}

fn password_name(domain: &str, username: &str) -> Result<PasswordName, Failure> {
    let domain: Domain = domain.parse()?;
    let username = if username.is_empty() { None } else { Some(username.parse::<Username>()?) };
    Ok(PasswordName { domain, username })
}

/// The value, under a lease. `None`: it may be used and not shown, so that nothing was asked for.
async fn shown(
    session: &BrokerSession,
    resource: &Resource,
    reason: &Reason,
    showing: impl Fn(&Rights) -> Showing,
) -> Result<Option<(Lease, Credential)>, Failure> {
    let use_only = |rights: Option<Rights>| rights.is_some_and(|rights| showing(&rights) == Showing::UseOnly);
    if use_only(session.rights().await) {
        return Ok(None);
    }
    let refused = match read_once(session, resource, reason).await {
        Ok(granted) => return Ok(Some(granted)),
        Err(failure) => failure,
    };
    // A reload may have taken the right to see it and left the one to use it.
    if refused.wants_a_right() {
        session.refresh().await;
        if use_only(session.known_rights()) {
            return Ok(None);
        }
    }
    Err(refused)
}

/// One reading: the lease is given back at once, since a model never comes back to one and leases that
/// pile up would end at the role's `lease.max_live`.
async fn read_once(
    session: &BrokerSession,
    resource: &Resource,
    reason: &Reason,
) -> Result<(Lease, Credential), Failure> {
    let request: Arc<(String, Reason)> = Arc::new((resource.to_string(), reason.clone()));
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

fn reference(session: &BrokerSession, resource: &Resource) -> rmcp::model::CallToolResult {
    structured(&ReferenceOutput::new(resource, session.role()))
}
