//! `CLOCK_BOOTTIME` and timers on it, which tokio's timers (`CLOCK_MONOTONIC`) do not offer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::ClockId as Clock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Where no timer can be had (descriptor limit), the wait becomes a poll of the clock.
const FALLBACK_POLL: std::time::Duration = std::time::Duration::from_millis(100);

/// Nanoseconds since boot, suspend included (`clock_gettime(CLOCK_BOOTTIME)`, Linux 2.6.39).
///
/// The call cannot fail for this clock on a kernel that the crate supports; if it does, time reads
/// as the end of time, so that every lease counts as expired.
pub fn boot_nanos() -> u64 {
    let nanos = Clock::CLOCK_BOOTTIME.now().ok().and_then(|now| {
        let seconds = u64::try_from(now.tv_sec()).ok()?;
        let nanos = u64::try_from(now.tv_nsec()).ok()?;
        seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
    });
    nanos.unwrap_or(u64::MAX)
}

/// Waits until so many nanoseconds after boot.
pub async fn sleep_until(deadline: u64) {
    // A clock that fails reads as the end of time: then no wait may return at once, again and again.
    if boot_nanos() == u64::MAX {
        tokio::time::sleep(FALLBACK_POLL).await;
    }
    while boot_nanos() < deadline {
        match arm(deadline) {
            Ok(timer) => {
                let _ = timer.readable().await;
            }
            Err(_) => tokio::time::sleep(FALLBACK_POLL).await,
        }
    }
}

fn arm(deadline: u64) -> std::io::Result<AsyncFd<OwnedFd>> {
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let seconds = i64::try_from(deadline / NANOS_PER_SECOND).unwrap_or(i64::MAX);
    let nanos = i64::try_from(deadline % NANOS_PER_SECOND).unwrap_or(0);
    timer.set(Expiration::OneShot(TimeSpec::new(seconds, nanos)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
    register(OwnedFd::from(timer), Interest::READABLE)
}

/// Watches a descriptor that the `AsyncFd` owns together with others.
pub(crate) fn register_shared(
    fd: Arc<OwnedFd>,
    interest: Interest,
) -> std::io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: as in `register`; the clone in the `AsyncFd` keeps the descriptor open.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Watches a descriptor that the `AsyncFd` owns.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` names one open descriptor and closes it when dropped, which is after the
    // `AsyncFd` around it has deregistered. The safe constructor is deprecated because it cannot know that.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
