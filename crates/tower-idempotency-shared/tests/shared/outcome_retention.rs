//! Between `retention` and `outcome_retention`: what is seen of a run elsewhere, and what this process has in memory.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::post;
use tokio::time::sleep;
use tower_idempotency::{IdempotencyLayer, OnInFlight};

use crate::world::{Effects, two};

const MOMENT: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

// A seeded fault: what the waiter has read is passed on as it is.
#[tokio::test(start_paused = true)]
async fn a_waiter_elsewhere_gets_the_status_of_an_answer_that_its_layer_does_not_replay() {
    let [(_, one), (there, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    // The waiter reads the record after a pause.
    there.database().mute_notifications(true);
    let never = IdempotencyLayer::new(other).retention(Duration::ZERO).outcome_retention(HOUR);
    let waits = effects.behind(never.on_in_flight(OnInFlight::Wait(HOUR)), &gate);
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let waiter = waits.spawn(post("k", "a"));
    sleep(MOMENT).await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    let told = waiter.await.unwrap();
    told.assert_refusal(409, "not-replayable", false, None);
    assert_eq!((told.json()["original_status"].as_u64(), effects.count()), (Some(200), 1));
}

// A seeded fault: what this process has in memory is replayed for as long as its record is kept.
#[tokio::test(start_paused = true)]
async fn what_this_process_recalls_is_no_answer_after_its_time() {
    let [(here, one), _] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    let server = effects.behind(IdempotencyLayer::new(one).retention(HOUR).outcome_retention(HOUR * 24), &gate);
    server.post("k", "a").await;
    sleep(HOUR - SECOND).await;
    assert!(server.post("k", "a").await.is_replay());
    sleep(SECOND * 2).await;
    // It is in memory: the database is not asked.
    here.cut();
    server.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(effects.count(), 1);
}

// A seeded fault: an answer is as old as its run's beginning.
#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_its_end_here_and_elsewhere() {
    let [(_, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let servers = [one, other].map(|store| {
        let layer = IdempotencyLayer::new(store).max_run(HOUR).retention(HOUR).outcome_retention(HOUR * 24);
        effects.behind(layer, &gate)
    });
    let run = servers[0].spawn(post("k", "a"));
    gate.arrival().await;
    sleep(HOUR / 2).await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    sleep(HOUR - SECOND).await;
    for server in &servers {
        assert!(server.post("k", "a").await.is_replay());
    }
    sleep(SECOND * 2).await;
    for server in &servers {
        server.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
    }
    assert_eq!(effects.count(), 1);
}
