//! The connection that the program inherits, for sandboxes that let it make none of its own.

use std::os::fd::OwnedFd;

use super::session::LauncherSession;

/// Names the inherited descriptor; a number, no secret.
pub(super) const VARIABLE: &str = "RAVI_BROKER_CHANNEL_FD";

/// A channel to the daemon under this session. `None`: the daemon offers none.
pub(super) fn open(_session: &LauncherSession) -> Option<OwnedFd> {
    None
}
