//! Credential helpers: the programs that people have ask for a password in their own protocols.
//!
//! A helper reads who is asked for from its input, judges that before it asks the broker, and answers for
//! exactly that and nothing else ([`target`]). Values are leased with `Delivery::Helper` and go to standard
//! output, which may not be a terminal. Nothing here deletes an entry. Imports `client`, `secret`, `types`.

mod askpass;
mod aws;
mod docker;
mod git;
mod git_request;
mod target;

use std::path::Path;

use thiserror::Error;

pub(super) use self::askpass::{PromptKey, ask as ssh_askpass};
pub(super) use self::aws::{api_key, credentials as aws_credentials};
pub(super) use self::docker::run as docker_credential;
pub(super) use self::git::run as git_credential;
pub(super) use self::target::Binding;
use super::args::OneCall;
use super::context::Context;
use super::error::CliError;
use super::leased::Leased;
use crate::client::{self, AgentClient, Delivery, UpdatePassword, locate};
use crate::secret::Secret;
use crate::types::{Field, Reason, Reference, Resource};

/// Names a role for helpers that can be given no arguments.
const ROLE_VARIABLE: &str = "RAVI_BROKER_ROLE";

/// Longest question of another program.
const MAX_REQUEST: usize = 64 * 1024;

/// Why a question was not answered. Both lines; neither quotes the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum RequestError {
    #[error("the request is not in the form of its protocol\nsee that the right program started the helper")]
    Form,
    #[error("the request holds a control character\nsomebody may have tampered with the address: look at it")]
    Control,
    #[error("the request says something twice\nsomebody may have tampered with the address: look at it")]
    Twice,
    #[error("passwords are given over https only\nuse the https address")]
    NotHttps,
    #[error(
        "the request names no host that could be meant\nwrite it as github.com or github.com:8443, without user, escape or xn--"
    )]
    Host,
    #[error(
        "the question is not one that this helper answers\nbind it to a host with --host, or a key with --key"
    )]
    NotOurs,
    #[error(
        "the password was not kept: it is another one than the broker has\nchange it with `ravi-broker password update`, or give --allow-store"
    )]
    NotStored,
    #[error("the host has no password entry of its own\nchange what it is bound to where it is kept")]
    NotPassword,
}

/// Answers go to a program.
fn refuse_terminal(context: &Context) -> Result<(), CliError> {
    if context.out.is_terminal() { Err(CliError::HelperTerminal) } else { Ok(()) }
}

/// The session as the command line has it, else the environment: helpers are started without arguments.
fn session_of(one_call: &OneCall) -> Result<OneCall, CliError> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = one_call.role.is_some() || one_call.session_file.is_some();
    if named || set(locate::SESSION_FILE_VARIABLE).is_some() || client::link::is_there() {
        return Ok(one_call.clone());
    }
    let Some(role) = set(ROLE_VARIABLE) else { return Ok(one_call.clone()) };
    let refused =
        || CliError::Usage(format!("{ROLE_VARIABLE} names no role"), "correct it, or unset it".into());
    Ok(OneCall { role: Some(role.parse().map_err(|_| refused())?), session_file: None })
}

/// Leases what a helper was asked for.
async fn leased(
    context: &Context,
    one_call: &OneCall,
    references: &[&Reference],
    who: &'static str,
) -> Result<Leased, CliError> {
    let one_call = session_of(one_call)?;
    let reason: Option<Reason> = who.parse().ok();
    context
        .under(&one_call, reason.as_ref(), async |client| {
            let leased = Leased::acquire(client, references.iter().copied(), who, Delivery::Helper).await?;
            if one_call.role.is_none() {
                leased.replace_older(client).await;
            }
            Ok(leased)
        })
        .await
}

/// The program did not want it after all: ends its leases. A session for this one call has none.
async fn give_back(context: &Context, one_call: &OneCall, resource: &Resource) -> Result<(), CliError> {
    let one_call = session_of(one_call)?;
    if one_call.role.is_some() {
        return Ok(());
    }
    context
        .under(&one_call, None, async |client| {
            for lease in client.list_leases().await? {
                let named = lease.resource.parse().is_ok_and(|leased| covers(resource, &leased));
                if named && lease.delivery == Delivery::Helper {
                    client.release(lease.lease_id).await?;
                }
            }
            Ok(())
        })
        .await
}

/// Whether a lease is of what was asked for, perhaps without a user name.
fn covers(asked: &Resource, leased: &Resource) -> bool {
    match (asked, leased) {
        (Resource::Password(asked), Resource::Password(leased)) => {
            asked.domain == leased.domain && (asked.username.is_none() || asked.username == leased.username)
        }
        _ => asked == leased,
    }
}

/// Keeps a password that a person typed, if it is another one and `allowed`.
async fn keep(
    context: &Context,
    one_call: &OneCall,
    resource: Resource,
    password: Secret,
    allowed: bool,
) -> Result<(), CliError> {
    if !matches!(resource, Resource::Password(_)) {
        return Err(RequestError::NotPassword.into());
    }
    let one_call = session_of(one_call)?;
    let who = "credential store";
    let reason: Option<Reason> = who.parse().ok();
    context
        .under(&one_call, reason.as_ref(), async |client| {
            let reference = whole(resource);
            let held = Leased::acquire(client, [&reference], who, Delivery::Helper).await?;
            if held.value(&reference)? == password.expose() {
                return Ok(());
            }
            if !allowed {
                return Err(RequestError::NotStored.into());
            }
            update(client, &reference.resource, password, who).await
        })
        .await
}

async fn update(client: &AgentClient, entry: &Resource, value: Secret, who: &str) -> Result<(), CliError> {
    let (resource, reason) = (entry.to_string(), who.to_owned());
    client.update_password(UpdatePassword { resource, password: Some(value), length: None, reason }).await?;
    Ok(())
}

/// The value of a resource.
fn whole(resource: Resource) -> Reference {
    Reference { resource, field: Field::Value }
}

/// Refuses a value that a protocol of lines would read as several.
fn one_line(value: &str) -> Result<&str, CliError> {
    let breaks = value.bytes().any(|b| matches!(b, b'\n' | b'\r' | 0));
    if breaks { Err(CliError::NotOneLine) } else { Ok(value) }
}

/// The command line of a program that was started under the name that docker gives its helpers.
pub(super) fn by_name(mut arguments: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let name = arguments.first().and_then(|name| Path::new(name).file_name()?.to_str());
    if name == Some("docker-credential-ravi") {
        arguments.splice(..1, ["ravi-broker".into(), "docker-credential".into()]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_docker_gives_its_helpers_is_a_command() {
        let line = |words: &[&str]| by_name(words.iter().map(Into::into).collect());
        assert_eq!(
            line(&["/usr/bin/docker-credential-ravi", "get"]),
            ["ravi-broker", "docker-credential", "get"]
        );
        assert_eq!(line(&["/usr/bin/ravi-broker", "status"]), ["/usr/bin/ravi-broker", "status"]);
        assert!(line(&[]).is_empty());
    }

    #[test]
    fn a_value_of_several_lines_is_no_answer() {
        assert!(one_line("a b=c").is_ok());
        for value in ["a\nb", "a\r", "a\0b"] {
            assert!(one_line(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_lease_is_given_back_for_its_own_host_and_user() {
        let names = |asked: &str, leased: &str| covers(&asked.parse().unwrap(), &leased.parse().unwrap());
        assert!(names("password/a.example", "password/a.example/x"));
        assert!(names("password/a.example/x", "password/a.example/x"));
        assert!(!names("password/a.example/y", "password/a.example/x"));
        assert!(!names("password/b.example", "password/a.example/x"));
        assert!(!names("secret/A", "secret/B"));
    }
}
