//! The daemon's command line: the one definition of its flags.

use std::path::PathBuf;

use clap::Parser;

use super::settings::{ConfigFile, Settings};
use crate::config::{Environment, Overrides};

const EXAMPLES: &str = "\
Examples:
  ravi-brokerd                          the configuration from its usual place
  ravi-brokerd --config ./broker.toml
  ravi-brokerd --sandbox                try it without an account: two roles for your own user

Signals: SIGTERM and SIGINT drain and end it, SIGHUP reads the roles again.
Log filter: RAVI_BROKER_LOG (for example debug).";

/// Holds the Ravi keys and leases credentials to agents. Runs in the foreground.
#[derive(Parser, Clone, Debug)]
#[command(name = "ravi-brokerd", version = crate::types::VERSION, after_help = EXAMPLES)]
pub struct Args {
    /// Configuration file, in place of the usual one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where Ravi is, in place of `upstream.base_url`.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Certificates to trust for it, in place of `upstream.ca_file`.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The agents' socket, in place of `listen.agent_socket`.
    #[arg(long, value_name = "PATH")]
    pub agent_socket: Option<PathBuf>,
    /// The operator's socket, in place of `listen.admin_socket`.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The audit trail, in place of `audit.file`.
    #[arg(long, value_name = "FILE")]
    pub audit_file: Option<PathBuf>,
    /// Socket of an attestor that runs as a service of its own, in place of a child: where /proc hides processes.
    #[arg(long, value_name = "PATH")]
    pub attestor: Option<PathBuf>,
    /// Be such an attestor: look into processes for the owner of the socket that the service manager passes.
    #[arg(long, exclusive = true)]
    pub attest: bool,
    /// Start a stand-in for Ravi in this process and use it: nothing leaves the machine.
    #[cfg(feature = "sandbox")]
    #[arg(long, conflicts_with_all = ["base_url", "ca_file"])]
    pub sandbox: bool,
}

impl Args {
    /// What the daemon is to run with.
    pub fn settings(self, environment: Environment) -> Settings {
        let file = self.config.map_or(ConfigFile::Usual, ConfigFile::Named);
        let overrides = Overrides {
            base_url: self.base_url,
            ca_file: self.ca_file,
            agent_socket: self.agent_socket,
            admin_socket: self.admin_socket,
            audit_file: self.audit_file,
        };
        Settings { environment, overrides, file, upstream_ca: None }
    }
}
