//! `git-credential`: git's helper protocol.

use super::target::resource_for;
use super::{MAX_REQUEST, git_request, give_back, keep, leased, one_line, refuse_terminal, whole};
use crate::cli::args::{GitCredential, GitVerb};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::input;

pub(in crate::cli) async fn run(context: &mut Context, args: &GitCredential) -> Result<(), CliError> {
    if args.verb == GitVerb::Get {
        refuse_terminal(context)?;
    }
    let request = git_request::parse(&input::request(MAX_REQUEST)?)?;
    // Not ours: silence, and git asks the next helper.
    let found = resource_for(&args.bound.hosts, &request.target, request.username.as_ref());
    let Some(resource) = found else { return Ok(()) };
    match (args.verb, request.password) {
        (GitVerb::Get, _) => {
            let reference = whole(resource);
            let leased = leased(context, &args.session, &[&reference], "git-credential").await?;
            let asked = request.username.as_ref().map(|username| username.as_str());
            let username = leased.username().or(asked).map(one_line).transpose()?;
            let password = one_line(leased.value(&reference)?)?;
            let ends = leased.ends_at().map(|end| end.as_second().to_string());
            let mut line = |name: &str, value: Option<&str>| match value {
                Some(value) => context.out.pieces(&[name, "=", value, "\n"]),
                None => Ok(()),
            };
            line("username", username)
                .and_then(|()| line("password", Some(password)))
                .and_then(|()| line("password_expiry_utc", ends.as_deref()))
                .map_err(CliError::Output)
        }
        (GitVerb::Store, Some(password)) if args.allow_store => {
            keep(context, &args.session, resource, password, true).await
        }
        (GitVerb::Store, _) => Ok(()),
        (GitVerb::Erase, _) => give_back(context, &args.session, &resource).await,
    }
}
