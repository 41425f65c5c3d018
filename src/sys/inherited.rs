//! Descriptors that a service manager handed over at start (`sd_listen_fds(3)`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over the descriptors meant for this process (`LISTEN_PID`), each with its name from
/// `LISTEN_FDNAMES`. They do not survive an exec. Empty if there are none.
///
/// The variables stay, since the environment may not be changed once threads run; a child ignores
/// them because `LISTEN_PID` is not its own. Only the first call gets the descriptors; a later one is
/// an error of kind `AlreadyExists`.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let inherited = sd_notify::listen_fds_with_names()?;
    let own = |(number, name)| {
        // SAFETY: the protocol makes these descriptors ours, `listen_fds` has found each of them open,
        // and the latch above lets no second owner be made. No safe call takes a number over.
        (name, unsafe { OwnedFd::from_raw_fd(number) })
    };
    Ok(inherited.map(own).collect())
}
