//! Claims of a database that answers late, or not at all.

use std::time::Duration;

use tower_idempotency_conformance::memory_backend::{Call, Fault, FaultRates, MemoryBackend};

use super::claims::{self, test};

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_sent_again() {
    for fault in [Fault::LoseCall, Fault::LoseAnswer] {
        let one = MemoryBackend::new();
        one.fail_next(Call::Put, fault);
        let tested = test(&one, &one.another_process()).await;
        assert!(tested.is_ok(), "{fault:?}: {tested:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_never_answers_is_given_up() {
    let one = MemoryBackend::new();
    one.fail_at_random(1, FaultRates { refuse: 0, lose_call: 1_000, ..FaultRates::default() });
    let other = one.another_process();
    let tested = tokio::time::timeout(Duration::from_secs(600), test(&one, &other)).await.expect("it ends");
    assert!(matches!(tested, Err(claims::Fault::Failed(_))), "{tested:?}");
    assert_eq!(one.counts().puts, 50);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_waits_for_a_row_that_is_locked() {
    let one = MemoryBackend::new();
    let other = one.another_process();
    let (first, second, database) = (one.hold(Call::Put), other.hold(Call::Put), one.database());
    let answers = async {
        let mut lock = None;
        for number in 1.. {
            tokio::select! {
                () = first.wait_until_held(1) => {}
                () = second.wait_until_held(1) => {}
            }
            // After two claims, one that comes again, and the end of another run.
            lock = (number == 5).then(|| database.lock("", database.rows("")[0].id));
            assert!(first.release_one() || second.release_one());
        }
        drop(lock);
    };
    let tested = tokio::select! {
        tested = test(&one, &other) => tested,
        () = answers => unreachable!("it has no end"),
    };
    assert!(tested.is_ok(), "{tested:?}");
    // One more than the puts of a row that is not locked: three, the end, and its half of those at once.
    assert_eq!(one.counts().puts, 3 + 4 + 1);
}
