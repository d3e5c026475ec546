//! The conditions under which the database counts as away.

use std::time::Duration;

use tower_idempotency::store::Health;

use super::script::{START, TIMEOUT, state};
use crate::backend::{BackendError, ServerId};
use crate::database::state::DatabaseState;

const SECOND: Duration = Duration::from_secs(1);

type Kind = fn(Box<dyn std::error::Error + Send + Sync>) -> BackendError;

fn fail(state: &DatabaseState, times: usize, kind: Kind) {
    (0..times).for_each(|number| state.failed(&kind(format!("failure {number}").into())));
}

fn is_away(state: &DatabaseState) -> bool {
    matches!(state.health(), Health::Away { .. })
}

// Seeded faults: two calls are enough; four are needed; claims go on.
#[tokio::test(start_paused = true)]
async fn three_calls_that_fail_are_an_outage_in_which_one_claim_a_second_is_sent() {
    for kind in [BackendError::Nothing as Kind, BackendError::Uncertain] {
        let state = state();
        fail(&state, 2, kind);
        assert!(!is_away(&state) && state.admits() && state.admits());
        fail(&state, 1, kind);
        assert!(is_away(&state) && !state.admits());
        for _ in 0..2 {
            tokio::time::advance(SECOND - Duration::from_millis(1)).await;
            assert!(!state.admits());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(state.admits() && !state.admits());
        }
    }
}

// Seeded faults: the outage begins with the third failure; its reason is that of the first.
#[tokio::test(start_paused = true)]
async fn an_outage_began_with_its_first_failure_and_has_the_reason_of_its_last() {
    let state = state();
    for _ in 0..3 {
        fail(&state, 1, BackendError::Nothing);
        tokio::time::advance(SECOND).await;
    }
    state.failed(&BackendError::Uncertain("the last".into()));
    let Health::Away { since, reason } = state.health() else { panic!("it is away") };
    assert_eq!(since, 3 * SECOND);
    assert!(reason.ends_with("the last"), "{reason}");
}

// Seeded faults: each of these errors counts as a failure; an answer does not reset the count.
#[tokio::test(start_paused = true)]
async fn what_says_that_the_database_was_reached_is_no_failure_and_an_answer_begins_anew() {
    let state = state();
    for kind in [BackendError::Never as Kind, BackendError::Busy, BackendError::Crowded, |_| BackendError::Full("room")]
    {
        fail(&state, 5, kind);
    }
    assert!(!is_away(&state));
    fail(&state, 2, BackendError::Nothing);
    state.answered(ServerId(1), START, tokio::time::Instant::now(), false, []);
    fail(&state, 2, BackendError::Nothing);
    assert!(!is_away(&state) && state.admits());
}

// Seeded faults: the limit is longer, shorter, or the same for all calls; a panic is not caught.
#[tokio::test(start_paused = true)]
async fn a_call_has_two_seconds_and_one_more_for_each_64_kib_and_a_panic_is_an_answer_that_was_lost() {
    let state = state();
    let takes = async |bytes, time| {
        let call = || async move {
            tokio::time::sleep(time).await;
            Ok::<_, BackendError>(())
        };
        state.call(bytes, call).await.is_ok()
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
    assert!(matches!(state.call(0, panicking).await, Err(BackendError::Uncertain(_))));
}

// Seeded faults: another server is behind the barrier of the one before; an answer that wrote nothing is a barrier; the
// first server counts as another one.
#[tokio::test(start_paused = true)]
async fn a_server_is_behind_a_barrier_once_it_has_answered_a_write_and_no_other_is() {
    let state = state();
    let [one, two] = [ServerId(1), ServerId(2)];
    assert!(!state.note_server(one, false), "it took no other's place");
    assert!(!state.is_behind_barrier(one));
    assert!(!state.note_server(one, true));
    assert!(state.is_behind_barrier(one) && !state.is_behind_barrier(two));
    assert!(state.note_server(two, false), "it took the place of the first");
    assert!(!state.is_behind_barrier(two));
    assert!(!state.note_server(two, true));
    assert!(state.is_behind_barrier(two) && !state.is_behind_barrier(one));
    assert!(state.note_server(one, false));
}
