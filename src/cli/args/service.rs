//! Arguments of `service`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Install the systemd units and start the daemon; shows each step
    #[command(after_help = "\
The system's daemon serves the agents of all users under a user of its own; it takes root, and programs
that root alone may change. With --user, it is one for your own agents. A Debian package brings the
units along; there this command is not needed.

Example:
  sudo ravi-broker service install --dry-run
  ravi-broker service install --user")]
    Install(ServiceChange),
    /// Show whether the units are there, of this version, and running
    #[command(after_help = "Example:\n  ravi-broker service status --user")]
    Status(ServicePlace),
    /// Stop the daemon and remove what `install` wrote; configuration, state and user stay
    #[command(after_help = "Example:\n  sudo ravi-broker service uninstall")]
    Uninstall(ServiceChange),
}

#[derive(Args, Debug)]
pub(crate) struct ServiceChange {
    #[command(flatten)]
    pub(crate) place: ServicePlace,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ServicePlace {
    /// The instance of your own user, in place of the system's
    #[arg(long)]
    pub(crate) user: bool,
}
