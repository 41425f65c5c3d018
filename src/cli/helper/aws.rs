//! `aws-credentials` (the AWS SDKs' `credential_process`) and `api-key` (Claude Code's `apiKeyHelper`).

use serde::Serialize;

use super::{leased, one_line, refuse_terminal};
use crate::cli::args::{ApiKey, AwsCredentials};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::output::moment;

/// The one version there is. Borrowed; has no `Debug` (invariant I6).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
}

pub(in crate::cli) async fn credentials(
    context: &mut Context,
    args: &AwsCredentials,
) -> Result<(), CliError> {
    refuse_terminal(context)?;
    let AwsCredentials { access_key_id, secret_access_key, session_token, session } = args;
    let references = [Some(access_key_id), Some(secret_access_key), session_token.as_ref()];
    let references: Vec<_> = references.into_iter().flatten().collect();
    let leased = leased(context, session, &references, "aws-credentials").await?;
    let answer = Answer {
        version: 1,
        access_key_id: leased.value(access_key_id)?,
        secret_access_key: leased.value(secret_access_key)?,
        session_token: session_token.as_ref().map(|token| leased.value(token)).transpose()?,
        expiration: leased.ends_at().map(moment),
    };
    context.out.secret_document(&answer).map_err(CliError::Output)
}

pub(in crate::cli) async fn api_key(context: &mut Context, args: &ApiKey) -> Result<(), CliError> {
    refuse_terminal(context)?;
    let leased = leased(context, &args.session, &[&args.reference], "api-key").await?;
    let key = one_line(leased.value(&args.reference)?)?;
    context.out.pieces(&[key, "\n"]).map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_aws_documents() {
        let answer = |session_token, expiration| {
            let (access_key_id, secret_access_key) = ("id", "key");
            let answer = Answer { version: 1, access_key_id, secret_access_key, session_token, expiration };
            serde_json::to_string(&answer).unwrap()
        };
        assert_eq!(
            answer(Some("token"), Some("2026-11-23T13:00:00Z".into())),
            r#"{"Version":1,"AccessKeyId":"id","SecretAccessKey":"key","SessionToken":"token","Expiration":"2026-11-23T13:00:00Z"}"#
        );
        assert_eq!(answer(None, None), r#"{"Version":1,"AccessKeyId":"id","SecretAccessKey":"key"}"#);
    }
}
