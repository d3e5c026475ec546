//! Operations that an operator forgets while the process of their run is cut off.

use std::time::Duration;

use axum::response::Response;
use testkit::Gate;
use testkit::lab::post;
use tokio::time::sleep;
use tower_idempotency::engine::{Reconciled, Reconciler, Resolved};
use tower_idempotency::{IdempotencyLayer, OnInFlight, Resolution};

use crate::world::{DEATH, Effects, two};

// The handler is dropped before the lease ends, and its process records that when the store is back.
#[tokio::test(start_paused = true)]
async fn what_an_operator_has_forgotten_runs_again_also_where_its_run_was_dropped() {
    let [(here, one), (_, other)] = two().await;
    let layer = |store| {
        let reconciler = Reconciler::<Response>::new(|_| async { Reconciled::StillUnknown });
        IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).reconcile_with(reconciler)
    };
    let (effects, gate) = (Effects::default(), Gate::default());
    let own = layer(one);
    let server = effects.behind(own.clone(), &gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    sleep(DEATH * 2).await;
    let operator = layer(other);
    let listed = operator.interrupted(9).await.unwrap();
    let settled = operator.resolve(listed[0].id, listed[0].fence, Resolution::Release).await.unwrap();
    assert_eq!(settled, Resolved::Settled);
    gate.open();
    here.mend();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(own.interrupted(9).await.unwrap(), [], "nothing is left to settle");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}
