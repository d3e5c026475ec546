//! Large writes: the number under way at once, and those whose answers are lost.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::Gate;
use testkit::lab::{Lab, id, post, settle};
use tokio::time::sleep;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};
use tower_idempotency_shared::Kind;

use super::slow_link::answering;
use crate::world::{LEASE, Store, two};

const MIB: usize = 1024 * 1024;

/// A server whose handlers answer with `size` bytes, once the gate lets them.
fn gated(store: &Store, size: usize, gate: &Gate) -> Lab {
    let (gate, layer) = (gate.clone(), IdempotencyLayer::new(store.clone()).max_response_body(4 * MIB));
    Lab::new(layer, move |_| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            vec![b'x'; size]
        }
    })
}

// Seeded faults: two calls have large writes; a claim waits for them.
#[tokio::test(start_paused = true)]
async fn one_call_at_a_time_has_large_writes_and_claims_do_not_wait_for_it() {
    let [(here, one), _] = two().await;
    let gate = Gate::default();
    let server = gated(&one, MIB, &gate);
    let answers: Vec<_> = (0..4).map(|n| server.spawn(post(&format!("k{n}"), "a"))).collect();
    settle().await;
    let held = here.hold(Call::Put);
    gate.open();
    settle().await;
    assert_eq!(held.held(), 1, "large writes");
    let claim = server.spawn(post("new", "a"));
    held.wait_until_held(2).await;
    held.release();
    for answer in join_all(answers).await {
        assert_eq!(answer.unwrap().body.len(), MIB);
    }
    assert_eq!(claim.await.unwrap().body.len(), MIB);
}

// Seeded fault: a copy that does not arrive counts as done.
#[tokio::test(start_paused = true)]
async fn a_large_write_that_never_arrived_is_sent_again() {
    let [(here, one), (_, other)] = two().await;
    let large = answering(&one, MIB);
    let held = here.hold(Call::Put);
    let answer = large.spawn(post("k", "a"));
    held.wait_until_held(1).await;
    here.fail_next(Call::Put, Fault::LoseCall);
    held.release();
    assert_eq!(answer.await.unwrap().body.len(), MIB);
    assert!(answering(&other, MIB).post("k", "a").await.is_replay());
}

// Seeded fault: a large write whose answer is lost counts as done once its row is visible.
#[tokio::test(start_paused = true)]
async fn a_large_write_that_a_restart_has_made_visible_counts_only_when_it_is_durable() {
    let [(here, one), (_, other)] = two().await;
    let large = answering(&one, MIB);
    let held = here.hold_answers(Call::Put);
    let answer = large.spawn(post("k", "a"));
    held.wait_until_held(1).await;
    // The claim is durable. The outcome is written, and its standby never gets it.
    here.database().replication(Replication::Awaited);
    held.release();
    settle().await;
    here.database().restart();
    let is_visible = |backend: &MemoryBackend| {
        backend.database().rows("").iter().any(|row| row.id == id("k") && row.kind == Kind::Completed)
    };
    assert!(is_visible(&here));
    // This is long enough for the store to send it again.
    sleep(Duration::from_secs(4)).await;
    assert!(!answer.is_finished(), "nothing is durable yet");
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    assert!(!is_visible(&here), "it is lost");
    sleep(LEASE).await;
    assert_eq!(answer.await.unwrap().body.len(), MIB);
    let replay = answering(&other, MIB).post("k", "a").await;
    assert!(replay.is_replay(), "it was written once more: {:?}", replay.status);
}

// Seeded fault: a large write whose answer is lost counts as done once its row is visible.
#[tokio::test(start_paused = true)]
async fn a_large_write_that_a_failover_has_lost_is_written_again_though_it_was_seen_before() {
    let [(here, one), (_, other)] = two().await;
    let large = answering(&one, MIB);
    let held = here.hold_answers(Call::Put);
    let answer = large.spawn(post("k", "a"));
    held.wait_until_held(1).await;
    here.database().replication(Replication::Awaited);
    held.release();
    settle().await;
    let held = here.hold(Call::Put);
    here.database().restart();
    // The next copy arrives, and the one after it is held up.
    held.wait_until_held(1).await;
    assert!(held.release_one());
    held.wait_until_held(1).await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    held.release();
    assert_eq!(answer.await.unwrap().body.len(), MIB);
    sleep(LEASE).await;
    assert!(answering(&other, MIB).post("k", "a").await.is_replay());
}
