//! Rate limits: how often, by governor (GCRA).
//!
//! A role's `rate` bounds all of its sessions together, so that a limit cannot be reset by opening
//! another session; a session may have a lower one of its own, so that it cannot take it all. Every
//! authenticated request takes from both before policy is asked, allowed or not: guessing names costs the
//! guesser. May import layers 0 and 1, and `policy`.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::Clock as GovernorClock;
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::{BootInstant, Clock};
use crate::config::{Config, Rate};
use crate::metrics::Counter;
use crate::policy::Role;
use crate::types::{IdentityUuid, RoleName, SessionId};
use crate::upstream::Budget;

/// Refused requests of one user that are written into the audit trail one by one. A caller whom nothing
/// else limits must not fill the disk: a trail that cannot be written stops everybody.
const REFUSALS: Rate = Rate { count: 30, per: Duration::from_secs(60) };

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Reads, lists and leases.
    Read,
    /// Writes and sends.
    Send,
}

const CLASSES: [Class; 2] = [Class::Read, Class::Send];

/// A request came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Until the next request fits.
    pub retry_after: Duration,
}

/// Whose requests a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// Those of all sessions of a role.
    Role,
    /// Those of one session.
    Session,
}

/// One limit, for a session that asks what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Whose requests.
    pub share: Share,
    /// Which class.
    pub class: Class,
    /// As configured.
    pub rate: Rate,
    /// Requests that would be let through now.
    pub requests: u32,
    /// Until the limit is whole again.
    pub resets_in: Duration,
}

/// The limits on agents: per role, session and class, and per user on opening sessions and on records
/// of refusals.
///
/// Concurrency: any thread. Bounded by the number of roles, live sessions and users; [`Limits::prune`]
/// drops what is idle.
pub struct Limits {
    clock: Arc<dyn Clock>,
    roles: DashMap<(RoleName, Class), Arc<Meter>>,
    sessions: DashMap<(SessionId, Class), Arc<Meter>>,
    open: Keyed<u32>,
    refusals: Keyed<u32>,
    unrecorded: AtomicU64,
}

impl Limits {
    /// No role has used anything yet.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let (open, refusals) = (Keyed::new(config.limits.open, &clock), Keyed::new(REFUSALS, &clock));
        Self {
            clock,
            roles: DashMap::new(),
            sessions: DashMap::new(),
            open,
            refusals,
            unrecorded: AtomicU64::new(0),
        }
    }

    /// Takes one request out of the session's limit, then out of the role's.
    pub fn take(&self, role: &Role, session: SessionId, class: Class) -> Result<(), (Share, Limited)> {
        let of_session = self.session_meter(role, session, class);
        of_session.map_or(Ok(()), |meter| meter.take()).map_err(|limited| (Share::Session, limited))?;
        self.role_meter(role, class).take().map_err(|limited| (Share::Role, limited))
    }

    /// Takes one `OpenSession` out of the user's limit.
    pub fn take_open(&self, uid: u32) -> Result<(), Limited> {
        self.open.take(&uid)
    }

    /// Whether a refusal of this user's request is to be recorded, and then how many were not since the
    /// last that was.
    pub fn take_refusal(&self, uid: u32) -> Option<u64> {
        if self.refusals.take(&uid).is_ok() {
            return Some(self.unrecorded.swap(0, Ordering::Relaxed));
        }
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// What is left of the role's limits, and of the session's own where it has any.
    pub fn remaining(&self, role: &Role, session: SessionId) -> Vec<Remaining> {
        let of_role = CLASSES.map(|class| self.role_meter(role, class).remaining(Share::Role, class));
        let own = |class| Some(self.session_meter(role, session, class)?.remaining(Share::Session, class));
        of_role.into_iter().chain(CLASSES.into_iter().filter_map(own)).collect()
    }

    /// Forgets a session that ended.
    pub fn forget(&self, session: SessionId) {
        for class in CLASSES {
            self.sessions.remove(&(session, class));
        }
    }

    /// Forgets users who are back at a full limit. Called by the housekeeping task.
    pub fn prune(&self) {
        self.open.prune();
        self.refusals.prune();
    }

    /// Forgets the roles that are not in `keep`. Called on reload.
    pub fn retain_roles(&self, keep: impl Fn(&RoleName) -> bool) {
        self.roles.retain(|(role, _), _| keep(role));
    }

    fn role_meter(&self, role: &Role, class: Class) -> Arc<Meter> {
        let rate = match class {
            Class::Read => role.bounds.read_rate,
            Class::Send => role.bounds.send_rate,
        };
        meter(&self.roles, (role.name().clone(), class), rate, &self.clock)
    }

    /// `None`: the session may take all that its role may.
    fn session_meter(&self, role: &Role, session: SessionId, class: Class) -> Option<Arc<Meter>> {
        let (own, of_role) = match class {
            Class::Read => (role.bounds.session_read_rate, role.bounds.read_rate),
            Class::Send => (role.bounds.session_send_rate, role.bounds.send_rate),
        };
        (own != of_role).then(|| meter(&self.sessions, (session, class), own, &self.clock))
    }
}

/// The meter of a key, begun afresh if its rate has changed.
fn meter<K: Hash + Eq>(
    meters: &DashMap<K, Arc<Meter>>,
    key: K,
    rate: Rate,
    clock: &Arc<dyn Clock>,
) -> Arc<Meter> {
    if let Some(meter) = meters.get(&key)
        && meter.rate == rate
    {
        return meter.clone();
    }
    let mut slot = meters.entry(key).or_insert_with(|| Arc::new(Meter::new(rate, clock)));
    if slot.rate != rate {
        *slot = Arc::new(Meter::new(rate, clock));
    }
    slot.clone()
}

/// The bound on calls to Ravi, in all and for each identity.
pub struct UpstreamBudget {
    all: Meter,
    identities: Keyed<IdentityUuid>,
    refused: Counter,
}

impl UpstreamBudget {
    /// A whole budget.
    pub fn new(all: Rate, identity: Rate, clock: &Arc<dyn Clock>) -> Self {
        Self { all: Meter::new(all, clock), identities: Keyed::new(identity, clock), refused: Counter::new() }
    }

    /// What may be sent, in how long, and how much of that would be let through now.
    pub fn left(&self) -> (Rate, u32) {
        (self.all.rate, self.all.left())
    }

    /// Calls that were held back, by either bound.
    pub fn refused(&self) -> u64 {
        self.refused.value()
    }

    /// Forgets identities that are back at a full budget. Called by the housekeeping task.
    pub fn prune(&self) {
        self.identities.prune();
    }
}

impl Budget for UpstreamBudget {
    fn take(&self, identity: Option<IdentityUuid>) -> Result<(), Duration> {
        let of_identity = identity.map_or(Ok(()), |identity| self.identities.take(&identity));
        let taken = of_identity.and_then(|()| self.all.take());
        taken.inspect_err(|_| self.refused.one()).map_err(|limited| limited.retry_after)
    }
}

/// Governor's view of our clock.
#[derive(Clone)]
struct BootClock(Arc<dyn Clock>);

impl GovernorClock for BootClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.now().as_nanos())
    }
}

type Direct = RateLimiter<NotKeyed, InMemoryState, BootClock, StateInformationMiddleware>;

/// One limit and what was left of it when it was last asked.
struct Meter {
    rate: Rate,
    clock: BootClock,
    limiter: Direct,
    last: Mutex<(u32, BootInstant)>,
}

impl Meter {
    fn new(rate: Rate, clock: &Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let clock = BootClock(clock.clone());
        let limiter = RateLimiter::direct_with_clock(quota(rate), clock.clone()).with_middleware();
        Self { rate, clock, limiter, last: Mutex::new((rate.count, now)) }
    }

    fn take(&self) -> Result<(), Limited> {
        let outcome = self.limiter.check();
        let left = outcome.as_ref().map_or(0, |state| state.remaining_burst_capacity());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (left, self.clock.0.now());
        outcome
            .map(|_| ())
            .map_err(|until| Limited { retry_after: until.wait_time_from(GovernorClock::now(&self.clock)) })
    }

    /// Requests that would be let through now.
    fn left(&self) -> u32 {
        let (left, at) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = self.clock.0.now().since(at).as_nanos() / self.interval().as_nanos().max(1);
        left.saturating_add(u32::try_from(refilled).unwrap_or(u32::MAX)).min(self.rate.count)
    }

    fn interval(&self) -> Duration {
        self.rate.per / self.rate.count.max(1)
    }

    fn remaining(&self, share: Share, class: Class) -> Remaining {
        let requests = self.left();
        let resets_in = self.interval() * (self.rate.count - requests);
        Remaining { share, class, rate: self.rate, requests, resets_in }
    }
}

/// The same limit for each of many keys.
struct Keyed<K: Hash + Eq + Clone> {
    clock: BootClock,
    limiter: RateLimiter<K, DashMapStateStore<K>, BootClock, NoOpMiddleware<Nanos>>,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(rate: Rate, clock: &Arc<dyn Clock>) -> Self {
        let clock = BootClock(clock.clone());
        let store = DashMapStateStore::default();
        Self { limiter: RateLimiter::new(quota(rate), store, clock.clone()), clock }
    }

    fn take(&self, key: &K) -> Result<(), Limited> {
        self.limiter
            .check_key(key)
            .map_err(|until| Limited { retry_after: until.wait_time_from(GovernorClock::now(&self.clock)) })
    }

    fn prune(&self) {
        self.limiter.retain_recent();
    }
}

/// A burst of the whole count, refilled evenly over the period.
fn quota(rate: Rate) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    let interval = (rate.per / count.get()).max(Duration::from_nanos(1));
    Quota::with_period(interval).map_or_else(|| Quota::per_second(count), |quota| quota.allow_burst(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;

    fn meter(count: u32, per: u64) -> (ManualClock, Meter) {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        (clock, Meter::new(Rate { count, per: Duration::from_secs(per) }, &shared))
    }

    #[test]
    fn a_burst_of_the_whole_count_passes_and_the_next_request_waits_one_interval() {
        let (clock, meter) = meter(3, 60);
        for _ in 0..3 {
            meter.take().unwrap();
        }
        assert_eq!(meter.take().unwrap_err().retry_after, Duration::from_secs(20));
        clock.advance(Duration::from_secs(20));
        meter.take().unwrap();
        meter.take().unwrap_err();
    }

    #[test]
    fn what_is_left_is_told_without_taking_any() {
        let (clock, meter) = meter(3, 60);
        assert_eq!(meter.remaining(Share::Role, Class::Read).requests, 3);
        meter.take().unwrap();
        assert_eq!(meter.remaining(Share::Role, Class::Read).requests, 2);
        assert_eq!(meter.remaining(Share::Role, Class::Read).resets_in, Duration::from_secs(20));
        clock.advance(Duration::from_secs(20));
        assert_eq!(meter.remaining(Share::Role, Class::Read).requests, 3);
    }

    #[test]
    fn one_identity_cannot_use_up_the_budget_of_another() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let minute = Duration::from_secs(60);
        let budget =
            UpstreamBudget::new(Rate { count: 10, per: minute }, Rate { count: 2, per: minute }, &clock);
        let identity = |n| Some(IdentityUuid(uuid::Uuid::from_u128(n)));
        assert!(budget.take(identity(1)).is_ok());
        assert!(budget.take(identity(1)).is_ok());
        assert!(budget.take(identity(1)).is_err());
        assert!(budget.take(identity(2)).is_ok());
    }
}
