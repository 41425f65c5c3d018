//! Arguments of the credential helpers: programs of others start these, and ask in their own protocols.

use clap::{Args, ValueEnum};

use super::OneCall;
use super::parse::ArgumentError;
use crate::cli::helper::{Binding, PromptKey};
use crate::types::{Field, Reference, Resource};

/// Which hosts a helper answers for.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bound {
    /// Answer for this host and no other (may be repeated); =REF names the credential where it is not
    /// password/HOST: ravi://password/DOMAIN[/USERNAME] or ravi://secret/KEY
    #[arg(long = "host", value_name = "HOST[:PORT][=REF]")]
    pub(crate) hosts: Vec<Binding>,
}

/// What git asks of a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GitVerb {
    // Print user name and password.
    Get,
    // The password was right.
    Store,
    // The password was wrong.
    Erase,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Configure it for one host; git then asks it for nothing else:

  git config --global credential.https://github.com.helper \\
    '!ravi-broker git-credential --role notes-agent --host github.com'

git's request is read from standard input. Only https is answered; without --host, only the usual
port. `store` changes nothing unless --allow-store is given, which lets a password that you typed
replace that of the entry; `erase` ends the lease and deletes nothing.

Example:
  echo url=https://github.com | git -c credential.helper='!ravi-broker git-credential' \\
    credential fill | wc -l")]
pub(crate) struct GitCredential {
    /// What git adds to the line of its configuration
    #[arg(value_enum, value_name = "VERB")]
    pub(crate) verb: GitVerb,
    #[command(flatten)]
    pub(crate) bound: Bound,
    /// Let `store` replace the password of the entry
    #[arg(long)]
    pub(crate) allow_store: bool,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

/// What docker asks of a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DockerVerb {
    // Print user name and password of a server.
    Get,
    // Keep a password.
    Store,
    // Forget a password.
    Erase,
    // Name the servers.
    List,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Docker starts a program of the name docker-credential-ravi: make that name, and write it into
~/.docker/config.json for each registry. The program takes its session from
RAVI_BROKER_SESSION_FILE, or the role from RAVI_BROKER_ROLE:

  ln -s \"$(command -v ravi-broker)\" ~/.local/bin/docker-credential-ravi
  { \"credHelpers\": { \"ghcr.io\": \"ravi\" } }

A server without a port has the entry password/HOST; that of Docker Hub is password/docker.io.
`store` keeps nothing, and says so if the password is another one, unless --allow-store is given;
`erase` ends the lease and deletes nothing; `list` names the servers of --host.

Example:
  echo ghcr.io | ravi-broker docker-credential get --role notes-agent | wc -c")]
pub(crate) struct DockerCredential {
    /// What docker adds
    #[arg(value_enum, value_name = "VERB")]
    pub(crate) verb: DockerVerb,
    #[command(flatten)]
    pub(crate) bound: Bound,
    /// Let `store` replace the password of the entry
    #[arg(long)]
    pub(crate) allow_store: bool,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Configure it in ~/.aws/config:

  [profile notes]
  credential_process = ravi-broker aws-credentials --role notes-agent (and so on, in one line)

The program asks again when the first of the leases ends.

Example:
  ravi-broker aws-credentials --role notes-agent \\
    --access-key-id ravi://secret/AWS_ACCESS_KEY_ID \\
    --secret-access-key ravi://secret/AWS_SECRET_ACCESS_KEY | wc -c")]
pub(crate) struct AwsCredentials {
    /// The access key's id
    #[arg(long, value_name = "REF")]
    pub(crate) access_key_id: Reference,
    /// The access key itself
    #[arg(long, value_name = "REF")]
    pub(crate) secret_access_key: Reference,
    /// The session token of temporary credentials
    #[arg(long, value_name = "REF")]
    pub(crate) session_token: Option<Reference>,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "\
For Claude Code, in ~/.claude/settings.json:

  { \"apiKeyHelper\": \"ravi-broker api-key ravi://secret/ANTHROPIC_API_KEY --role notes-agent\" }

Example:
  ravi-broker api-key ravi://secret/ANTHROPIC_API_KEY --role notes-agent | wc -c")]
pub(crate) struct ApiKey {
    /// The key
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "\
ssh starts the program that SSH_ASKPASS names with its question as the one argument. Write a script:

  #!/bin/sh
  exec ravi-broker ssh-askpass --role deploy --host build.example.com -- \"$1\"

and start ssh with SSH_ASKPASS=/path/of/the/script SSH_ASKPASS_REQUIRE=force. It answers the
question for the password of USER at a host of --host, from password/HOST/USER, and for the
passphrase of a key of --key. It answers no other question: whether a host is to be trusted is not
for it to say. Use OpenSSH 8.5 or later.

Example:
  ravi-broker ssh-askpass --role deploy --host build.example.com -- \\
    \"ci@build.example.com's password: \" | wc -c")]
pub(crate) struct SshAskpass {
    #[command(flatten)]
    pub(crate) bound: Bound,
    /// Answer for the passphrase of the key in this file (may be repeated)
    #[arg(long = "key", value_name = "PATH=REF")]
    pub(crate) keys: Vec<PromptKey>,
    /// ssh's question
    #[arg(last = true, required = true, value_name = "PROMPT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

/// A reference, or a resource as the other commands write it.
pub(super) fn credential(text: &str) -> Result<Reference, ArgumentError> {
    if text.starts_with("ravi://") {
        return Ok(text.parse()?);
    }
    Ok(Reference { resource: text.parse::<Resource>()?, field: Field::Value })
}
