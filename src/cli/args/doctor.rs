//! Arguments of `doctor`.

use clap::Args;

use crate::types::RoleName;

#[derive(Args, Debug)]
#[command(after_help = "\
It looks at the configuration, the kernel, the hosts that were set up, the daemon, its sockets, the
session of this shell, the roles and Ravi, as far as this process may, and says what to do about
each thing that is wrong. The exit code is 0 only if nothing is. It opens and closes a session of
each role, which is recorded.

Example:
  ravi-broker doctor
  ravi-broker doctor --role notes-agent --format json")]
pub(crate) struct Doctor {
    /// A role that this process should be able to assume (may be repeated)
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<RoleName>,
}
