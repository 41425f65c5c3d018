//! Arguments of the commands that an agent uses: they go to the agent socket, under a session.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::helper::credential;
use super::parse::{duration, password_resource, scope, secret_resource};
use crate::types::{
    Domain, LeaseId, PasswordName, Reason, Reference, Resource, RoleName, SecretKey, Username,
};

/// Why something is done: written to the audit trail.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Purpose {
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<Reason>,
}

/// The session a command runs under, when it has to be there already.
#[derive(Args, Clone, Debug)]
pub(crate) struct UnderSession {
    /// The file that `session open` wrote [env: RAVI_BROKER_SESSION_FILE]
    #[arg(long, value_name = "PATH")]
    pub(crate) session_file: Option<PathBuf>,
}

/// The session a command runs under; without one, `--role` opens a session for this one call.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneCall {
    /// Open a session with this role for this one call, and close it afterwards
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<RoleName>,
    /// The file that `session open` wrote [env: RAVI_BROKER_SESSION_FILE]
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    pub(crate) session_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The value is followed by a newline unless --no-newline is given. It is written to a pipe or a file;
a terminal gets it only with --reveal. The JSON document has `resource`, `value` and `username`.

Example:
  ravi-broker get password/github.com --field username
  ravi-broker get ravi://password/github.com#username
  ravi-broker get secret/OPENAI_API_KEY | some-tool --key-from-stdin")]
pub(crate) struct GetValue {
    /// secret/KEY, password/DOMAIN[/USERNAME], sso/token, identity/email or identity/phone; or a reference,
    /// such as ravi://secret/KEY or ravi://password/DOMAIN#username
    #[arg(value_parser = credential, value_name = "RESOURCE")]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) shown: Shown,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

/// How a value is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shown {
    /// Which part of the credential to print; a user name belongs to a password
    #[arg(long, value_enum, default_value_t = FieldName::Value)]
    pub(crate) field: FieldName,
    /// Print no newline after the value
    #[arg(short, long)]
    pub(crate) no_newline: bool,
    /// Print the value even to a terminal
    #[arg(long)]
    pub(crate) reveal: bool,
}

/// A part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FieldName {
    // The secret itself.
    #[value(alias = "password")]
    Value,
    // The account name of a password entry.
    Username,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Start a lease and show its terms; the value is not printed
    #[command(after_help = "\
Example:
  ravi-broker lease acquire secret/OPENAI_API_KEY --ttl 10m
  ravi-broker lease acquire sso/token --with-value --format json | my-agent")]
    Acquire(AcquireLease),
    /// Print the value of a live lease, for instance after a rotation
    #[command(after_help = "Example:\n  ravi-broker lease read lea_mfrggzdfmztwq2lknnwg23tpoa | some-tool")]
    Read(ReadLease),
    /// Move the end of a live lease, up to the role's maximum
    #[command(after_help = "Example:\n  ravi-broker lease renew lea_mfrggzdfmztwq2lknnwg23tpoa --ttl 10m")]
    Renew(RenewLease),
    /// Give a lease back before its time
    #[command(after_help = "Example:\n  ravi-broker lease release lea_mfrggzdfmztwq2lknnwg23tpoa")]
    Release(OneLease),
    /// Show the session's live leases
    #[command(after_help = "Example:\n  ravi-broker lease list")]
    List(UnderSession),
    /// Follow what happens to the session's leases: rotated, expiring, expired, revoked
    #[command(after_help = "Example:\n  ravi-broker lease watch --format json")]
    Watch(UnderSession),
}

#[derive(Args, Debug)]
pub(crate) struct AcquireLease {
    /// secret/KEY, password/DOMAIN[/USERNAME], sso/token, identity/email or identity/phone
    pub(crate) resource: Resource,
    /// How long, such as 90s, 10m or 1h; the role's default if absent, cut to its maximum
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Put the value into the JSON document (needs --format json)
    #[arg(long)]
    pub(crate) with_value: bool,
    /// Let --with-value write to a terminal
    #[arg(long, requires = "with_value")]
    pub(crate) reveal: bool,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Args, Debug)]
pub(crate) struct ReadLease {
    /// The lease, as `lease acquire` printed it
    pub(crate) lease: LeaseId,
    #[command(flatten)]
    pub(crate) shown: Shown,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Args, Debug)]
pub(crate) struct RenewLease {
    /// The lease, as `lease acquire` printed it
    pub(crate) lease: LeaseId,
    /// How long from now; the role's default if absent
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Args, Debug)]
pub(crate) struct OneLease {
    /// The lease, as `lease acquire` printed it
    pub(crate) lease: LeaseId,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Keys of the secrets
    #[command(after_help = "Example:\n  ravi-broker list secrets")]
    Secrets(OneCall),
    /// Domains and user names of the passwords
    #[command(after_help = "Example:\n  ravi-broker list passwords --format json")]
    Passwords(OneCall),
}

#[derive(Args, Debug)]
#[command(after_help = "\
The value is read from standard input; on a terminal a prompt asks for it and shows nothing. One
newline at its end is dropped unless --keep-newline is given. It cannot be given as an argument:
other processes can read those.

Example:
  ravi-broker set secret/OPENAI_API_KEY < key.txt")]
pub(crate) struct SetSecret {
    /// secret/KEY
    #[arg(value_parser = secret_resource, value_name = "RESOURCE")]
    pub(crate) key: SecretKey,
    /// Store the value with the newline at its end
    #[arg(long)]
    pub(crate) keep_newline: bool,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ravi-broker delete secret/OLD_API_KEY --reason \"rotated\"")]
pub(crate) struct DeleteEntry {
    /// secret/KEY
    #[arg(value_parser = secret_resource, value_name = "RESOURCE")]
    pub(crate) key: SecretKey,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PasswordCommand {
    /// Create an entry with a generated password; `get` prints it afterwards
    #[command(after_help = "Example:\n  ravi-broker password create github.com --username alice")]
    Create(CreatePassword),
    /// Replace the password of an entry by a generated one, or by one from standard input
    #[command(after_help = "\
Example:
  ravi-broker password update password/github.com/alice
  ravi-broker password update password/github.com --stdin < new-password.txt")]
    Update(UpdatePassword),
    /// Delete an entry
    #[command(after_help = "Example:\n  ravi-broker password delete password/github.com/alice")]
    Delete(DeletePassword),
}

#[derive(Args, Debug)]
pub(crate) struct CreatePassword {
    /// The site's domain, such as github.com
    pub(crate) domain: Domain,
    /// The account name
    #[arg(long)]
    pub(crate) username: Option<Username>,
    /// Length of the generated password
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=64))]
    pub(crate) length: Option<u32>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
pub(crate) struct UpdatePassword {
    /// password/DOMAIN[/USERNAME]
    #[arg(value_parser = password_resource, value_name = "RESOURCE")]
    pub(crate) name: PasswordName,
    /// Read the new password from standard input, or from a hidden prompt on a terminal
    #[arg(long, conflicts_with = "length")]
    pub(crate) stdin: bool,
    /// Length of the generated password
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=64))]
    pub(crate) length: Option<u32>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Args, Debug)]
pub(crate) struct DeletePassword {
    /// password/DOMAIN[/USERNAME]
    #[arg(value_parser = password_resource, value_name = "RESOURCE")]
    pub(crate) name: PasswordName,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Open a session for the calling shell and print the line that selects it
    Open(OpenSession),
    /// Open a session below this one, for a subagent: at most its rights, at most its life
    Delegate(DelegateSession),
    /// Show who the session is, what it may do, and what is left of its limits
    #[command(after_help = "Example:\n  ravi-broker session show")]
    Show(UnderSession),
    /// Move the end of the session, up to what its role allows
    #[command(after_help = "Example:\n  ravi-broker session renew --ttl 1h")]
    Renew(RenewSession),
    /// End the session, its leases and the sessions below it
    #[command(after_help = "Example:\n  ravi-broker session close")]
    Close(UnderSession),
}

#[derive(Args, Debug)]
#[command(after_help = "\
The session lives and dies with the process that ran this command: the calling shell. Its token is
kept in a file that only you can read, in the runtime directory; what is printed is the file's name.

Example:
  eval \"$(ravi-broker session open --role notes-agent --ttl 1h)\"")]
pub(crate) struct OpenSession {
    /// A role of the daemon's configuration
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: RoleName,
    /// Fewer rights than the role has, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = scope, value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// How long, such as 30m or 8h; the role's default if absent, cut to its maximum
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Where to write the session file
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The new session ends with this one at the latest, and shares its rate limits. Its token is kept in a
file of its own; what is printed is the line that selects it. With --pid, it works for that process
and what it starts, and for nothing else; without, for the processes that this session works for.

Example:
  (eval \"$(ravi-broker session delegate --scopes 'secret:read:OPENAI_*' --ttl 10m)\"; my-subagent)")]
pub(crate) struct DelegateSession {
    /// Fewer rights than the session has, separated by commas; all of them if absent
    #[arg(long, alias = "scope", value_delimiter = ',', value_parser = scope, value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// How long, such as 10m or 1h; as long as this session if absent, cut to its end
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Bind it to this process: one that runs, and that this session works for
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Where to write the session file
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}

#[derive(Args, Debug)]
pub(crate) struct RenewSession {
    /// How long from now, such as 30m or 8h; the role's default if absent, cut to its maximum
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) session: UnderSession,
}
