//! The one definition of the command line. Help and usage errors come from it.
//!
//! Arguments are parsed into types that cannot be wrong before anything else happens. A value of a
//! secret is never an argument: other processes can read those.

mod agent;
mod approvals;
mod doctor;
mod helper;
mod inbox;
mod inject;
mod manual;
mod messages;
mod operator;
mod parse;
mod run;
mod service;
mod setup;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use agent::{
    AcquireLease, CreatePassword, DelegateSession, DeleteEntry, DeletePassword, FieldName, GetValue,
    LeaseCommand, ListCommand, OneCall, OneLease, OpenSession, PasswordCommand, Purpose, ReadLease,
    RenewLease, RenewSession, SessionCommand, SetSecret, Shown, UnderSession, UpdatePassword,
};
pub(crate) use approvals::{AllowApproval, Approvals, ApprovalsCommand, WatchApprovals};
pub(crate) use doctor::Doctor;
#[cfg(test)]
pub(crate) use helper::Bound;
pub(crate) use helper::{
    ApiKey, AwsCredentials, DockerCredential, DockerVerb, GitCredential, GitVerb, SshAskpass,
};
pub(crate) use inbox::{InboxCommand, KindName, ListInbox, ShowMessage, WaitCode, WatchInbox};
pub(crate) use inject::Inject;
pub(crate) use manual::{Completions, ManualPages, Shell, SkillCommand, SkillPlace};
pub(crate) use messages::{CheckSend, Contacts, Content, Forward, Reply, SendCommand, SendEmail, SendSms};
pub(crate) use operator::{
    AuditCommand, ConfigCommand, CreateIdentity, DispatchCommand, Explain, IdentityCommand, ListDispatches,
    Login, Revoke, RevokeTarget, ShowConfig, StateName, TailAudit, Top, VerifyAudit, WhichDispatches,
};
pub(crate) use run::{MAX_DESCRIPTOR, Named, Numbered, Run};
pub(crate) use service::{ServiceChange, ServiceCommand, ServicePlace};
pub(crate) use setup::{HostName, Setup};

/// Keys, passwords and sign-in tokens for AI agents: leased for minutes, by role, on the record.
#[derive(Debug, Parser)]
#[command(name = "ravi-broker", version = crate::types::VERSION, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done, 1 other, 2 usage, 3 broker unreachable, 4 denied, 5 rate limited,
6 expired or revoked, 7 upstream.

Example:
  eval \"$(ravi-broker session open --role notes-agent)\"
  ravi-broker get secret/OPENAI_API_KEY | some-tool --key-from-stdin")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Text for people, or JSON documents for programs (durations in seconds)
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
    /// Colours in text; `auto` means on a terminal and without NO_COLOR
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
    /// The daemon's agent socket [env: RAVI_BROKER_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The daemon's admin socket, for the operator's commands [env: RAVI_BROKER_ADMIN_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// The configuration file [env: RAVI_BROKER_CONFIG]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// How results are written.
// The variants' comments are none of clap's: it would make every `--help` twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Tables and sentences.
    Human,
    // One JSON document, or one per line from commands that stream.
    Json,
}

/// When text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    // On a terminal, unless NO_COLOR is set.
    Auto,
    // Also into a pipe.
    Always,
    // Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print one value, and nothing else
    Get(GetValue),
    /// Hold access to one credential for a while
    #[command(subcommand, after_help = "Example:\n  ravi-broker lease acquire secret/OPENAI_API_KEY")]
    Lease(LeaseCommand),
    /// Show the names that the session may see, never values
    #[command(subcommand, after_help = "Example:\n  ravi-broker list secrets")]
    List(ListCommand),
    /// Store a secret; its value comes from standard input or a hidden prompt
    Set(SetSecret),
    /// Create, change and delete password entries
    #[command(subcommand, after_help = "Example:\n  ravi-broker password create github.com")]
    Password(PasswordCommand),
    /// Delete a secret
    Delete(DeleteEntry),
    /// Assume a role for this shell and what it starts
    #[command(subcommand, after_help = "Example:\n  eval \"$(ravi-broker session open --role notes-agent)\"")]
    Session(SessionCommand),
    /// Run a program under a session of its own, with values injected and masked
    Run(Box<Run>),
    /// Read the mail and the text messages of the session's identity
    #[command(subcommand, after_help = "Example:\n  ravi-broker inbox list --channel email")]
    Inbox(InboxCommand),
    /// Wait for the code or link that a service sends, and print it
    WaitCode(Box<WaitCode>),
    /// Send a mail or a text message as the session's identity, once
    #[command(
        subcommand,
        after_help = "Example:\n  ravi-broker send sms --to +15550100001 --text \"Running late\""
    )]
    Send(SendCommand),
    /// Answer a mail that came in
    Reply(Reply),
    /// Send a mail on, with what it says
    Forward(Forward),
    /// Ask what became of a send whose outcome is unknown
    CheckSend(CheckSend),
    /// Look for whom the identity knows
    Contacts(Contacts),
    /// Fill values into a template
    Inject(Inject),
    /// Answer git, which asks for the password of a host
    GitCredential(GitCredential),
    /// Answer docker, which asks for the password of a registry
    DockerCredential(DockerCredential),
    /// Answer programs that use AWS, as a `credential_process`
    AwsCredentials(AwsCredentials),
    /// Answer Claude Code, as an `apiKeyHelper`, and others that run a command for their key
    ApiKey(ApiKey),
    /// Answer ssh, which asks for a password or a passphrase
    SshAskpass(SshAskpass),
    /// Show the session and the Ravi identity behind it
    #[command(after_help = "Example:\n  ravi-broker whoami --format json")]
    Whoami(OneCall),
    /// Sign the daemon in to Ravi; the key stays in the daemon
    Login(Login),
    /// Have the daemon forget its keys, also for its next start
    #[command(after_help = "Example:\n  sudo ravi-broker logout")]
    Logout,
    /// Show the daemon, its protections and its sessions
    #[command(after_help = "Example:\n  ravi-broker status")]
    Status,
    /// Watch the daemon live: sessions, leases, requests that wait for you
    Top(Top),
    /// Print what the daemon counts, in the form that Prometheus reads
    #[command(after_help = "\
Numbers under labels of closed lists, and names of roles: no name of a secret, no handle, no value. The
daemon opens no port for it; a timer can hand the text to the textfile collector of node_exporter, which
wants a file that appears whole.

Example:
  ravi-broker metrics > ravi.prom.new && mv ravi.prom.new /var/lib/node_exporter/ravi.prom")]
    Metrics,
    /// Find what is wrong with the setup, and say what to do about it
    Doctor(Doctor),
    /// Tell why a call was refused: the rule that decided, and what it looked at
    Explain(Explain),
    /// Decide requests that wait for you, and see alarms
    Approvals(Approvals),
    /// End access: of one lease, one session, a role, or everybody
    Revoke(Revoke),
    /// Show and create the identities of the account
    #[command(subcommand, after_help = "Example:\n  ravi-broker identity list")]
    Identity(IdentityCommand),
    /// Kill switch: revoke everything, forget every secret, refuse all requests
    #[command(after_help = "Example:\n  ravi-broker lock --reason \"laptop stolen\"")]
    Lock(Purpose),
    /// Serve again after `lock`
    #[command(after_help = "Example:\n  ravi-broker unlock")]
    Unlock,
    /// Have the daemon read its configuration again; a bad one changes nothing
    #[command(after_help = "Example:\n  ravi-broker config check && ravi-broker reload")]
    Reload,
    /// See what callbacks are to be told of messages, try it again, or drop it
    #[command(subcommand, after_help = "Example:\n  ravi-broker dispatch list --state dead")]
    Dispatch(DispatchCommand),
    /// Check and show the configuration, without the daemon
    #[command(subcommand, after_help = "Example:\n  ravi-broker config check")]
    Config(ConfigCommand),
    /// Read the audit trail, or prove that nobody changed it
    #[command(subcommand, after_help = "Example:\n  ravi-broker audit tail --follow")]
    Audit(AuditCommand),
    /// Give a host of agents a role of its own, or take it out again
    Setup(Box<Setup>),
    /// Put the daemon under systemd, or take it away
    #[command(subcommand, after_help = "Example:\n  ravi-broker service install --user")]
    Service(ServiceCommand),
    /// Teach an agent that has a shell to use this program
    #[command(subcommand, after_help = "Example:\n  ravi-broker skill install")]
    Skill(SkillCommand),
    /// Print what a shell needs to complete the commands
    Completions(Completions),
    /// Write manual pages: one for each command
    Man(ManualPages),
    /// See the broker at work: real daemon, two agents, a stand-in for Ravi
    #[command(after_help = "Example:\n  ravi-broker demo")]
    Demo,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_ends_with_an_example() {
        let mut root = Cli::command();
        root.build();
        let mut left = vec![root];
        while let Some(mut command) = left.pop() {
            left.extend(command.get_subcommands().cloned());
            let help = command.render_long_help().to_string();
            let (_, example) = help.rsplit_once("Example:\n").unwrap_or_default();
            assert!(example.trim_start().contains("ravi-broker"), "{}", command.get_name());
        }
    }

    #[test]
    fn global_options_are_understood_after_the_command() {
        let cli = parsed("ravi-broker status --format json --admin-socket /run/x.sock").unwrap();
        assert_eq!(cli.global.format, Format::Json);
        assert_eq!(cli.global.admin_socket.unwrap().to_str(), Some("/run/x.sock"));
    }

    #[test]
    fn a_value_of_a_secret_is_not_an_argument() {
        assert!(parsed("ravi-broker set secret/A").is_ok());
        assert!(parsed("ravi-broker set secret/A value").is_err());
        assert!(parsed("ravi-broker set secret/A --value value").is_err());
        assert!(parsed("ravi-broker password create github.com --password value").is_err());
    }

    #[test]
    fn revoke_wants_exactly_one_target() {
        assert!(parsed("ravi-broker revoke").is_err());
        assert!(parsed("ravi-broker revoke --all").is_ok());
        assert!(parsed("ravi-broker revoke --role a --reason done").is_ok());
        assert!(parsed("ravi-broker revoke --all --role a").is_err());
    }

    #[test]
    fn hostile_names_end_at_the_edge() {
        for name in ["secret/../A", "secret/A%41", "password/gith\u{443}b.com", "sso/token/", "SECRET/A"] {
            assert!(Cli::try_parse_from(["ravi-broker", "get", name]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_travels_only_in_json_when_a_lease_is_acquired() {
        assert!(parsed("ravi-broker lease acquire secret/A --with-value --format json").is_ok());
        assert!(parsed("ravi-broker lease acquire secret/A").is_ok());
    }

    #[test]
    fn a_role_and_a_session_file_exclude_each_other() {
        assert!(parsed("ravi-broker get secret/A --role a --session-file /run/f").is_err());
    }
}
