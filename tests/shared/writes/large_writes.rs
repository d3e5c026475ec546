//! Large writes: the number under way at once, and the writes whose answers are lost.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::Gate;
use testkit::lab::{Lab, id, post, settle};
use tokio::time::sleep;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::store::shared::Kind;
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};

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

// A seeded fault: the number under way at once is the number of calls.
#[tokio::test(start_paused = true)]
async fn large_writes_that_are_under_way_at_once_have_four_mebibytes_at_most() {
    for (size, at_once) in [(MIB, 3), (MIB * 3 / 2, 2), (MIB * 5 / 2, 1)] {
        let [(here, one), _] = two().await;
        let gate = Gate::default();
        let server = gated(&one, size, &gate);
        let answers: Vec<_> = (0..4).map(|n| server.spawn(post(&format!("k{n}"), "a"))).collect();
        settle().await;
        let held = here.hold(Call::Put);
        gate.open();
        settle().await;
        assert_eq!(held.held(), at_once, "of {size} bytes");
        held.release();
        for answer in join_all(answers).await {
            assert_eq!(answer.unwrap().body.len(), size);
        }
    }
}

// Seeded faults: they go three at a time though they were late; one at a time though they are not late any more.
#[tokio::test(start_paused = true)]
async fn large_writes_go_one_at_a_time_after_one_that_was_late_until_one_is_quick() {
    let [(here, one), _] = two().await;
    let gate = Gate::default();
    let server = gated(&one, MIB / 2, &gate);
    let answers: Vec<_> = (0..9).map(|n| server.spawn(post(&format!("k{n}"), "a"))).collect();
    settle().await;
    let first = here.hold(Call::Put);
    gate.open();
    settle().await;
    assert_eq!(first.held(), 3, "one of the four calls is left for small writes");
    // Longer than a call with small writes may take.
    sleep(Duration::from_secs(3)).await;
    let next = here.hold(Call::Put);
    first.release();
    settle().await;
    assert_eq!(next.held(), 1, "those were late");
    assert!(next.release_one());
    settle().await;
    assert_eq!(next.held(), 3, "that one was quick");
    next.release();
    for answer in join_all(answers).await {
        assert_eq!(answer.unwrap().body.len(), MIB / 2);
    }
}

/// The bytes that the process has sent so far.
fn sent(backend: &MemoryBackend) -> usize {
    usize::try_from(backend.counts().bytes).unwrap()
}

// Seeded fault: it is sent again.
#[tokio::test(start_paused = true)]
async fn a_large_write_whose_answer_is_lost_is_not_sent_again() {
    let [(here, one), (_, other)] = two().await;
    let large = answering(&one, MIB);
    let before = sent(&here);
    let held = here.hold(Call::Put);
    let answer = large.spawn(post("k", "a"));
    held.wait_until_held(1).await;
    // The claim; the next put has the outcome.
    here.fail_next(Call::Put, Fault::LoseAnswer);
    held.release();
    assert_eq!(answer.await.unwrap().body.len(), MIB);
    assert!(sent(&here) - before < MIB * 3 / 2, "{} bytes", sent(&here) - before);
    assert!(answering(&other, MIB).post("k", "a").await.is_replay());
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

// "A resend recognised without a write." Seeded faults: a visible row counts as durable; a barrier of another server
// counts.
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
    // This is long enough for the store to ask for the state of its row.
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

// Seeded fault: a barrier that another server has written counts.
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
    // The question for the state of its row is answered; the write after it is held up.
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
