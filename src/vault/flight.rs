//! Single flight: callers that miss the same key share one fetch (invariant I4).
//!
//! The fetch runs in a task of its own, so a caller that goes away, the first one included, cancels
//! nothing for the others. No map guard is held over `.await`.

use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::FutureExt;
use futures_util::future::Shared;

type Landing<V> = Shared<Pin<Box<dyn Future<Output = Option<V>> + Send>>>;

/// Fetches under way, by key. Bounded by the number of waiting callers; each removes itself.
pub(crate) struct Flights<K, V> {
    airborne: Arc<DashMap<K, Landing<V>>>,
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// None under way.
    pub(crate) fn new() -> Self {
        Self { airborne: Arc::new(DashMap::new()) }
    }

    /// Joins the fetch of this key, or starts it. `None`: the fetch panicked.
    pub(crate) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.board(key, start).await
    }

    /// Starts the fetch of this key if none is under way, without waiting for it.
    pub(super) fn launch<F>(&self, key: K, start: impl FnOnce() -> F)
    where
        F: Future<Output = V> + Send + 'static,
    {
        drop(self.board(key, start));
    }

    fn board<F>(&self, key: K, start: impl FnOnce() -> F) -> Landing<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        match self.airborne.entry(key) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(slot) => {
                let landed = Landed { airborne: self.airborne.clone(), key: slot.key().clone() };
                let fetch = start();
                let task = tokio::spawn(async move {
                    let _landed = landed;
                    fetch.await
                });
                let landing: Landing<V> = async move { task.await.ok() }.boxed().shared();
                slot.insert(landing.clone());
                landing
            }
        }
    }
}

/// Takes the flight off the map when its task ends, a panic included.
struct Landed<K: Eq + Hash, V: Clone> {
    airborne: Arc<DashMap<K, Landing<V>>>,
    key: K,
}

impl<K: Eq + Hash, V: Clone> Drop for Landed<K, V> {
    fn drop(&mut self) {
        self.airborne.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    fn fetch(
        calls: &Arc<AtomicUsize>,
        gate: &Arc<Semaphore>,
    ) -> impl FnOnce() -> Pin<Box<dyn Future<Output = usize> + Send>> + use<> {
        let (calls, gate) = (calls.clone(), gate.clone());
        move || {
            Box::pin(async move {
                let _pass = gate.acquire().await;
                calls.fetch_add(1, Ordering::SeqCst) + 1
            })
        }
    }

    #[tokio::test]
    async fn a_thousand_callers_of_one_key_make_one_fetch() {
        let flights = Flights::new();
        let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let caller = |_| Box::pin(flights.join("key", fetch(&calls, &gate)));
        let mut callers: Vec<_> = (0..1000).map(caller).collect();
        for caller in &mut callers {
            assert!(futures_util::poll!(caller).is_pending());
        }
        gate.add_permits(1);
        for caller in callers {
            assert_eq!(caller.await, Some(1));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(flights.airborne.is_empty());
    }

    #[tokio::test]
    async fn the_first_caller_leaving_harms_nobody() {
        let flights = Arc::new(Flights::new());
        let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let mut first = Box::pin(flights.join("key", fetch(&calls, &gate)));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.join("key", fetch(&calls, &gate)));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        gate.add_permits(1);
        assert_eq!(second.await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_ends_the_flight_for_all_and_leaves_the_key_free() {
        let flights: Flights<&str, usize> = Flights::new();
        let outcome = flights.join("key", || async { panic!("a defect") }).await;
        assert_eq!(outcome, None);
        assert_eq!(flights.join("key", || async { 2 }).await, Some(2));
    }
}
