//! The time for which a process believes that the others take it for alive.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::post;
use http::Request;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend};
use tower_idempotency_shared::Kind;

use crate::world::{LEASE, database, process};

/// Compares, again and again for three leases, the time until which the process believes to have its lease with the
/// time since which its row has its token: another process counts from then. Returns how often the row was written.
async fn watch(context: IdempotencyContext, backend: MemoryBackend) -> usize {
    let (begin, mut written, mut last, mut since) = (Instant::now(), 0, None, None);
    while begin.elapsed() < LEASE * 3 {
        let left = context.lease_left().expect("others share the store");
        let rows = backend.database().rows("");
        let session = rows.iter().find(|row| row.kind == Kind::Session).expect("it has one");
        if last.replace(session.token) != Some(session.token) {
            written += usize::from(since.replace(Instant::now()).is_some());
        }
        // At the first look the age of the row's token is not known.
        if let Some(since) = since.filter(|_| written > 0) {
            let believed = since.elapsed() + left;
            assert!(believed <= LEASE, "{believed:?} are believed from when another process sees the row change");
        }
        sleep(Duration::from_millis(50)).await;
    }
    written
}

/// Lets a run watch while `disturb` disturbs the calls of its process.
async fn while_watched(disturb: impl AsyncFnOnce(&MemoryBackend)) -> usize {
    let backend = database();
    let store = process(&backend).await;
    let watching = backend.another_process();
    let looks = move |context: IdempotencyContext| async move { watch(context, watching).await.to_string() };
    let app = Router::new().route("/", post(looks)).layer(IdempotencyLayer::new(store));
    let request = Request::post("/").header("idempotency-key", "k").body(Body::empty()).unwrap();
    let answer = tokio::spawn(app.oneshot(request));
    // The claim was answered, and the next puts are renewals.
    sleep(Duration::from_secs(1)).await;
    disturb(&backend).await;
    let body = to_bytes(answer.await.unwrap().unwrap().into_body(), 1_000).await.unwrap();
    std::str::from_utf8(&body).unwrap().parse().unwrap()
}

// Seeded faults: a lease is counted from the copy of the renewal that is answered; from its answer.
#[tokio::test(start_paused = true)]
async fn trap_101_no_lease_is_believed_for_longer_than_the_renewal_that_was_carried_out_makes_it() {
    let undisturbed = while_watched(async |_| {}).await;
    assert!(undisturbed >= 9, "it is renewed three times in a lease: {undisturbed}");
    for fault in [Fault::LoseAnswer, Fault::LoseCall, Fault::Late, Fault::Double] {
        let written = while_watched(async |backend| {
            // Several in a row: the pauses between them grow to a second.
            (0..12).for_each(|_| backend.fail_next(Call::Put, fault));
            sleep(LEASE).await;
            backend.deliver_late();
        });
        let written = written.await;
        assert!(written >= 4, "{fault:?}: {written}");
    }
    // An answer that takes its time, and less than a call may take.
    let written = while_watched(async |backend| {
        let held = backend.hold_answers(Call::Put);
        held.wait_until_held(1).await;
        sleep(Duration::from_secs(1)).await;
        held.release();
    });
    assert!(written.await >= 4);
}
