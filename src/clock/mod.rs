//! Time as a parameter. Nothing else in the crate reads a clock.
//!
//! Deadlines are counted by `CLOCK_BOOTTIME`, which goes on while the machine is suspended: closing
//! the lid of a laptop must not extend a lease. The wall clock is for people only. May import `sys`.

mod deadlines;

use std::future::Future;
use std::ops::Add;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;

pub use deadlines::Deadlines;

/// A point on the boot-time clock, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(u64);

impl BootInstant {
    /// A point `nanoseconds` after boot.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// A wait on a clock.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The clock that is handed to everything that needs the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, for deadlines.
    fn now(&self) -> BootInstant;

    /// Now, for people and for timestamps that leave the machine.
    fn wall(&self) -> Timestamp;

    /// Waits until `deadline`, time in suspend included. Done at once if it has passed.
    fn sleep_until(&self, deadline: BootInstant) -> Sleep;

    /// The wall-clock time of a boot-time deadline, as seen now.
    fn wall_at(&self, deadline: BootInstant) -> Timestamp {
        let left = deadline.since(self.now());
        self.wall().checked_add(left).unwrap_or(Timestamp::MAX)
    }
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> BootInstant {
        BootInstant(crate::sys::time::boot_nanos())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, deadline: BootInstant) -> Sleep {
        Box::pin(crate::sys::time::sleep_until(deadline.0))
    }
}

/// A clock that stands still until a test moves it.
#[cfg(test)]
pub(crate) mod manual {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;

    /// Starts at one hour after boot.
    #[derive(Clone)]
    pub(crate) struct ManualClock(Arc<watch::Sender<BootInstant>>);

    impl ManualClock {
        pub(crate) fn new() -> Self {
            let start = BootInstant::from_nanos(3_600_000_000_000);
            Self(Arc::new(watch::Sender::new(start)))
        }

        /// Moves time on and wakes the sleepers whose deadline has come.
        pub(crate) fn advance(&self, by: Duration) {
            self.0.send_modify(|now| *now = *now + by);
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> BootInstant {
            *self.0.borrow()
        }

        fn wall(&self) -> Timestamp {
            let since_boot = Duration::from_nanos(self.now().as_nanos());
            Timestamp::UNIX_EPOCH + since_boot
        }

        fn sleep_until(&self, deadline: BootInstant) -> Sleep {
            let mut now = self.0.subscribe();
            Box::pin(async move {
                let _ = now.wait_for(|now| *now >= deadline).await;
            })
        }
    }
}
