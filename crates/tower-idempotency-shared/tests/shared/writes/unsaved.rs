//! Outcomes that are on their way to the database, and that only this process knows.

use http::StatusCode;
use testkit::Gate;
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, post, settle};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

use crate::world::two;

// A seeded fault: where there is no room for an outcome that is on its way, an interruption overtakes it, and the next
// retry runs.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_on_its_way_to_a_shared_store_is_not_overtaken_by_an_interruption() {
    let ([(way, store), _], gate) = (two().await, Gate::default());
    let waits = gate.clone();
    let layer = IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).max_response_body(usize::MAX);
    let lab = Lab::new(layer, move |_| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            vec![b'x'; 1 << 20]
        }
    });
    let keys = || (0..70).map(|number| format!("k{number}"));
    let requests: Vec<_> = keys().map(|key| lab.spawn(post(&key, "a"))).collect();
    settle().await;
    // Small writes overtake large ones on their way.
    way.link(Some(1 << 20));
    let ended = tokio::time::Instant::now();
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(ended.elapsed().as_secs(), 5, "a requester waits so long for its record");
    let retries = async || {
        let mut replays = 0;
        for key in keys() {
            let retry = lab.post(&key, "a").await;
            replays += usize::from(retry.is_replay());
            // While so much is on its way, a key whose record is in the database alone is refused as a new one is.
            let refusals = [(409, "outcome-unknown".to_owned()), (503, "overloaded".to_owned())];
            assert!(retry.is_replay() || refusals.contains(&retry.refusal()), "{retry:?}");
        }
        replays
    };
    tokio::time::sleep(SECOND * 5).await;
    assert!(retries().await < 70, "some had no room");
    tokio::time::sleep(SECOND * 100).await;
    assert_eq!(retries().await, 70, "each is recorded");
    assert_eq!(lab.effects(), 70);
}
