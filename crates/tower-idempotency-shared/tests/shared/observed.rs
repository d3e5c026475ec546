//! What only happens over a shared store, as an observer learns of it: the lease, the circuit breaker, and disputes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use testkit::Gate;
use testkit::lab::events::Events;
use testkit::lab::listed::interrupted;
use testkit::lab::operator::Operated as _;
use testkit::lab::post;
use tower_idempotency::operations::Action;
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency::{IdempotencyLayer, Observer, OnInterrupted};

use super::world::{Effects, LEASE, Store, two, until_over};

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_and_lost_and_a_disputed_outcome_are_observed() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate, events) = (Effects::default(), Gate::default(), Events::default());
    one.observe(events.clone()).unwrap();
    let layer = IdempotencyLayer::new(one);
    tokio::time::sleep(LEASE).await;
    let renewals = events.take();
    assert!(!renewals.is_empty() && renewals.iter().all(|event| event == "lease renewed"), "{renewals:?}");
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    until_over().await;
    let listed = interrupted(&other, 9).await.remove(0);
    let elsewhere = IdempotencyLayer::new(other);
    let _settled = elsewhere.resolve(listed.id, listed.fence, Action::Release).await.unwrap();
    here.mend();
    tokio::time::sleep(LEASE).await;
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    let (seen, stats) = (events.take(), layer.stats());
    for event in ["breaker open", "breaker closed", "lease lost", "disputed", "interrupted lease"] {
        assert_eq!(seen.iter().filter(|seen| **seen == event).count(), 1, "{event} in {seen:?}");
    }
    assert_eq!((stats.lease_losses, stats.breaker_openings, stats.disputed), (1, 1, 1));
    assert!(stats.lease_renewals > 1);
}

/// An observer that asks for the health of its store.
struct Asks(Store, Arc<Mutex<Vec<Health>>>);

impl Observer for Asks {
    fn breaker(&self, _: bool) {
        self.1.lock().push(self.0.health());
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_ask_for_the_health_of_the_store() {
    let [(here, one), _] = two().await;
    let seen = Arc::<Mutex<_>>::default();
    one.observe(Asks(one.clone(), Arc::clone(&seen))).unwrap();
    let server = Effects::default().server(&one, OnInterrupted::Refuse);
    here.cut();
    for number in 0..9 {
        server.post(&format!("k{number}"), "a").await;
    }
    here.mend();
    tokio::time::sleep(Duration::from_secs(30)).await;
    server.post("k", "a").await;
    let seen = seen.lock();
    assert!(matches!(seen[..], [Health::Away { .. }, Health::Good]), "{seen:?}");
}
