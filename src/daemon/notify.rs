//! Tells the service manager how the daemon is (`sd_notify(3)`), if there is one.
//!
//! Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` and changes none of them: the environment
//! may not be changed once threads run. A message that cannot be sent is logged and otherwise ignored,
//! as the manager then acts by its own timeouts. May import `clock`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Clock;

/// Where the manager listens: a path, or an abstract name after an at sign.
const MANAGER: &str = "NOTIFY_SOCKET";
/// Longest status text, in characters.
const STATUS_LIMIT: usize = 120;

/// The sockets accept and the configuration holds. Also ends a reload.
pub fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(text))]);
}

/// A reload has begun; [`ready`] must follow whether it succeeded or not. Carries the monotonic time
/// that systemd 253 and later demand of `Type=notify-reload`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager was not told of the reload"),
    }
}

/// The daemon drains and will end.
pub fn stopping(text: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&one_line(text))]);
}

/// What `systemctl status` shows. For numbers and fixed words only: anyone may read it.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// The time within which the manager wants a sign of life. `None`: it wants none of this process.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// True if the manager listens under an abstract name.
pub fn manager_is_abstract() -> bool {
    std::env::var_os(MANAGER).is_some_and(|manager| manager.as_bytes().starts_with(b"@"))
}

/// Gives a sign of life twice within each `limit`, for as long as `healthy` says so. Runs until it is
/// dropped. As it runs among the daemon's other tasks, a runtime that hangs is noticed as well.
pub async fn feed_watchdog(clock: &dyn Clock, limit: Duration, healthy: impl Fn() -> bool) {
    loop {
        if healthy() {
            send(&[NotifyState::Watchdog]);
        }
        clock.sleep_until(clock.now() + limit / 2).await;
    }
}

fn send(states: &[NotifyState<'_>]) {
    let Some(manager) = std::env::var_os(MANAGER) else { return };
    if let Err(error) = send_to(&manager, states) {
        tracing::warn!(%error, "the service manager cannot be told how the daemon is");
    }
}

/// Without waiting, unlike the crate's own: a manager that does not read must not hold up a reload.
fn send_to(manager: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match manager.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(manager)?,
    };
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.as_bytes(), &address).map(drop)
}

/// A line break would start another assignment of the protocol.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let told =
            (0..10_000).take_while(|_| send_to(path.as_os_str(), &[NotifyState::Ready]).is_ok()).count();
        assert!(told < 10_000, "the queue of a socket has an end");
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
    }

    #[test]
    fn an_abstract_socket_is_told_as_well() {
        let name = format!("ravi-broker-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send_to(OsStr::new(&format!("@{name}")), &[NotifyState::Stopping]).unwrap();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1\n");
    }

    #[test]
    fn a_status_cannot_smuggle_in_another_assignment() {
        assert_eq!(one_line("ready\nMAINPID=1\r\0"), "ready MAINPID=1  ");
        assert_eq!(one_line(&"x".repeat(500)).len(), STATUS_LIMIT);
    }
}
