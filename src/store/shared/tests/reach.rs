//! When the database counts as away.

use std::time::Duration;

use super::super::backend::{BackendError, ServerId};
use super::super::reach::Reach;
use super::script::{START, TIMEOUT, reach};
use crate::store::Health;

const SECOND: Duration = Duration::from_secs(1);

type Kind = fn(Box<dyn std::error::Error + Send + Sync>) -> BackendError;

fn fail(reach: &Reach, times: usize, kind: Kind) {
    (0..times).for_each(|number| reach.failed(&kind(format!("failure {number}").into())));
}

fn is_away(reach: &Reach) -> bool {
    matches!(reach.health(), Health::Away { .. })
}

// Seeded faults: two calls are enough; four are needed; claims go on.
#[tokio::test(start_paused = true)]
async fn three_calls_that_fail_are_an_outage_in_which_one_claim_a_second_is_sent() {
    for kind in [BackendError::Nothing as Kind, BackendError::Uncertain] {
        let reach = reach();
        fail(&reach, 2, kind);
        assert!(!is_away(&reach) && reach.admits() && reach.admits());
        fail(&reach, 1, kind);
        assert!(is_away(&reach) && !reach.admits());
        for _ in 0..2 {
            tokio::time::advance(SECOND - Duration::from_millis(1)).await;
            assert!(!reach.admits());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(reach.admits() && !reach.admits());
        }
    }
}

// Seeded faults: the outage began with the third failure; the reason is that of the first.
#[tokio::test(start_paused = true)]
async fn an_outage_began_with_its_first_failure_and_has_the_reason_of_its_last() {
    let reach = reach();
    for _ in 0..3 {
        fail(&reach, 1, BackendError::Nothing);
        tokio::time::advance(SECOND).await;
    }
    reach.failed(&BackendError::Uncertain("the last".into()));
    let Health::Away { since, reason } = reach.health() else { panic!("it is away") };
    assert_eq!(since, 3 * SECOND);
    assert!(reason.ends_with("the last"), "{reason}");
}

// Seeded faults: each of them counts; an answer leaves what was counted.
#[tokio::test(start_paused = true)]
async fn what_says_that_the_database_was_reached_is_no_failure_and_an_answer_begins_anew() {
    let reach = reach();
    for kind in [BackendError::Never as Kind, BackendError::Busy, BackendError::Crowded] {
        fail(&reach, 5, kind);
    }
    assert!(!is_away(&reach));
    fail(&reach, 2, BackendError::Nothing);
    reach.answered(ServerId(1), START, tokio::time::Instant::now(), false, []);
    fail(&reach, 2, BackendError::Nothing);
    assert!(!is_away(&reach) && reach.admits());
}

// Seeded faults: the limit is longer, shorter, or the same for all; a panic goes on.
#[tokio::test(start_paused = true)]
async fn a_call_has_two_seconds_and_one_more_for_each_64_kib_and_a_panic_is_an_answer_that_was_lost() {
    let reach = reach();
    let takes = async |bytes, time| {
        let call = || async move {
            tokio::time::sleep(time).await;
            Ok::<_, BackendError>(())
        };
        reach.call_with(bytes, call).await.is_ok()
    };
    let instant = Duration::from_millis(1);
    assert!(takes(0, TIMEOUT - instant).await && !takes(0, TIMEOUT + instant).await);
    assert!(takes(128 * 1024, TIMEOUT + 2 * SECOND - instant).await);
    assert!(!takes(128 * 1024, TIMEOUT + 2 * SECOND + instant).await);
    let panicking = || async {
        if true {
            panic!("on purpose")
        }
        Ok::<_, BackendError>(())
    };
    assert!(matches!(reach.call(panicking).await, Err(BackendError::Uncertain(_))));
}
