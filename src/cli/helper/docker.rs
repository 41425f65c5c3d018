//! `docker-credential`: docker's helper protocol (docker/docker-credential-helpers).
//!
//! Docker reads a failure from standard output, and knows one by its text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::target::{Target, resource_for};
use super::{MAX_REQUEST, RequestError, give_back, keep, leased, refuse_terminal, whole};
use crate::cli::args::{DockerCredential, DockerVerb};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::input;
use crate::client::ErrorReason;
use crate::secret::Secret;
use crate::types::{Domain, Resource, Username};

/// What docker takes for "there is none", and goes on without.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// How docker calls its own registry: a name, the API and the registry.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A credential for docker. Borrowed; has no `Debug` (invariant I6).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// A credential from docker. Has no `Debug` (invariant I6).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: Secret,
}

pub(in crate::cli) async fn run(context: &mut Context, args: &DockerCredential) -> Result<(), CliError> {
    let error = match answer(context, args).await {
        Err(CliError::Client(error)) if error.reason() == Some(ErrorReason::ResourceNotAvailable) => {
            CliError::Client(error)
        }
        Err(error) => {
            // Docker shows what is on standard output.
            let told = error.report().message;
            context.out.text(&format!("{told}\n")).map_err(CliError::Output)?;
            return Err(error);
        }
        Ok(true) => return Ok(()),
        Ok(false) => CliError::Found,
    };
    context.out.text(&format!("{NOT_FOUND}\n")).map_err(CliError::Output)?;
    if matches!(error, CliError::Client(_)) {
        context.notes.error(&error.report());
    }
    Err(CliError::Found)
}

/// False: there is none.
async fn answer(context: &mut Context, args: &DockerCredential) -> Result<bool, CliError> {
    match args.verb {
        DockerVerb::Get => get(context, args).await,
        DockerVerb::Store => store(context, args).await,
        DockerVerb::Erase => {
            let server = server_url()?;
            if let Some(resource) = resource(args, &target(&server)?, None) {
                give_back(context, &args.session, &resource).await?;
            }
            Ok(true)
        }
        DockerVerb::List => list(context, args).await,
    }
}

async fn get(context: &mut Context, args: &DockerCredential) -> Result<bool, CliError> {
    refuse_terminal(context)?;
    let server = server_url()?;
    let Some(resource) = resource(args, &target(&server)?, None) else { return Ok(false) };
    let reference = whole(resource);
    let leased = leased(context, &args.session, &[&reference], "docker-credential").await?;
    let username = leased.username().ok_or(CliError::NoUsernameOf)?;
    let answer = Answer { server_url: &server, username, secret: leased.value(&reference)? };
    context.out.secret_document(&answer).map_err(CliError::Output)?;
    Ok(true)
}

async fn store(context: &mut Context, args: &DockerCredential) -> Result<bool, CliError> {
    let input = input::request(MAX_REQUEST)?;
    // The parser's own error could quote the password.
    let given: Given = serde_json::from_slice(&input).map_err(|_| RequestError::Form)?;
    let username: Username = given.username.parse().map_err(|_| RequestError::Form)?;
    let Some(resource) = resource(args, &target(&given.server_url)?, Some(&username)) else {
        return Err(RequestError::NotOurs.into());
    };
    keep(context, &args.session, resource, given.secret, args.allow_store).await?;
    Ok(true)
}

/// The servers that the helper is bound to, and whose names the session may see. Docker may ask for all that is
/// listed: one that is bound to none lists none.
async fn list(context: &mut Context, args: &DockerCredential) -> Result<bool, CliError> {
    let mut servers = BTreeMap::new();
    if !args.bound.hosts.is_empty() {
        let session = super::session_of(&args.session)?;
        let entries =
            context.under(&session, None, async |client| Ok(client.list_passwords().await?)).await?;
        for binding in &args.bound.hosts {
            let Some(asked) = resource(args, &binding.target, None) else { continue };
            let is_it = |entry: &Resource| super::covers(&asked, entry);
            if let Some(entry) =
                entries.iter().find(|entry| entry.resource.parse().is_ok_and(|entry| is_it(&entry)))
            {
                servers.insert(binding.target.to_string(), entry.username.clone());
            }
        }
    }
    // Names are no secrets; the writer is the one for documents of others' forms.
    context.out.secret_document(&servers).map_err(CliError::Output)?;
    Ok(true)
}

fn resource(args: &DockerCredential, target: &Target, username: Option<&Username>) -> Option<Resource> {
    resource_for(&args.bound.hosts, target, username)
}

/// One line of standard input.
fn server_url() -> Result<String, CliError> {
    let input = input::request(MAX_REQUEST)?;
    let text = std::str::from_utf8(&input).map_err(|_| RequestError::Form)?;
    Ok(text.strip_suffix('\n').unwrap_or(text).to_owned())
}

/// `HOST[:PORT]` or a URL of the registry's API, over TLS.
fn target(server: &str) -> Result<Target, RequestError> {
    if server.chars().any(char::is_control) {
        return Err(RequestError::Control);
    }
    let rest = match server.split_once("://") {
        Some(("https", rest)) => rest,
        Some(_) => return Err(RequestError::NotHttps),
        None => server,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !["", "v1", "v1/", "v2", "v2/"].contains(&path) {
        return Err(RequestError::Host);
    }
    let target: Target = authority.parse().map_err(|_| RequestError::Host)?;
    let is_hub = HUB.iter().any(|name| target.to_string() == *name);
    let hub: Option<Domain> = if is_hub { HUB[0].parse().ok() } else { None };
    Ok(hub.map_or(target, Target::of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(server: &str) -> Result<String, RequestError> {
        target(server).map(|target| target.to_string())
    }

    #[test]
    fn a_server_has_one_form() {
        for (asked, is) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("https://GHCR.io/v2/", "ghcr.io"),
            ("registry.example.com:5000", "registry.example.com:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            assert_eq!(read(asked).as_deref(), Ok(is));
        }
    }

    #[test]
    fn a_server_that_could_be_another_is_refused() {
        for server in ["http://ghcr.io", "ftp://ghcr.io", "HTTPS://ghcr.io", "://ghcr.io"] {
            assert_eq!(read(server), Err(RequestError::NotHttps), "{server}");
        }
        for server in ["ghcr.io\nevil.example", "ghcr.io\r", "ghcr.io\0"] {
            assert_eq!(read(server), Err(RequestError::Control), "{server:?}");
        }
        for server in [
            "",
            "https://",
            "https:///ghcr.io",
            "https://ghcr.io@evil.example",
            "https://evil.example\\@ghcr.io",
            "https://ghcr.io/v2/../../x",
            "https://ghcr.io/v2/?x",
            "https://ghcr.io#x",
            "https://xn--ghr-lma.io",
            "https://https://ghcr.io",
            " ghcr.io",
        ] {
            assert_eq!(read(server), Err(RequestError::Host), "{server:?}");
        }
    }
}
