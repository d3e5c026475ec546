//! The result of a write, for each answer of the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::script::{Reply, Script, error, state, write};
use crate::key::RecordId;
use crate::store::Health;
use crate::store::shared::backend::{BackendError, Write};
use crate::store::shared::database::writes::{WriteError, WriteQueue, WriteResult};

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1024;

fn ways(script: &Script, at_once: usize) -> WriteQueue<Script> {
    WriteQueue::new(Arc::new(script.clone()), state(), at_once, &Handle::current())
}

/// Sends one write and returns its result.
async fn put(script: &Script, write: Write) -> Result<WriteResult, WriteError> {
    ways(script, 1).put(write, None).await
}

fn is_done(result: &Result<WriteResult, WriteError>, write: &Write) -> bool {
    result.as_ref().is_ok_and(|result| result.row.as_ref().is_some_and(|row| row.token == write.token))
}

// Seeded faults: a refused write is sent again; `Nothing` counts as `Never`, and the other way round.
#[tokio::test(start_paused = true)]
async fn a_write_of_which_nothing_was_done_is_not_sent_again() {
    let script = Script::of([error(BackendError::Nothing)]);
    assert!(matches!(put(&script, write(1, 0)).await, Err(WriteError::Away(_))));
    let never = Script::of([error(BackendError::Never)]);
    assert!(matches!(put(&never, write(1, 0)).await, Err(WriteError::Never(_))));
    assert_eq!([script.sizes(), never.sizes()], [[1], [1]]);
}

// Seeded faults: a write whose answer was lost is given up; it is given up when the database refuses its second copy;
// the result has the time of the last copy.
#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_sent_until_its_answer_is_known_and_counts_from_its_first_copy() {
    let lost = || error(BackendError::Uncertain);
    let script = Script::of([lost(), error(BackendError::Nothing), Reply::Short, error(BackendError::Busy), lost()]);
    let result = put(&script, write(1, 0)).await;
    assert!(is_done(&result, &write(1, 0)), "{result:?}");
    let sent = script.puts.lock().unwrap();
    assert_eq!(sent.len(), 6);
    assert!(sent.iter().all(|(_, writes)| *writes == [write(1, 0)]), "the same write each time");
    assert_eq!(result.unwrap().sent, sent[0].0);
}

// Seeded fault: the first refusal of such a write is its end.
#[tokio::test(start_paused = true)]
async fn a_write_that_may_not_be_given_up_is_sent_again_though_nothing_was_done() {
    let script = Script::of([error(BackendError::Nothing), error(BackendError::Nothing)]);
    let result = ways(&script, 1).insist(write(1, 0)).await;
    assert!(is_done(&result, &write(1, 0)));
    assert_eq!(script.sizes(), [1, 1, 1]);
}

// Seeded fault: a crowded call counts as one whose answer was lost, so that its write is sent for ever.
#[tokio::test(start_paused = true)]
async fn a_write_that_found_no_room_is_sent_again_and_is_in_no_doubt() {
    let script = Script::of([error(BackendError::Crowded), error(BackendError::Crowded), error(BackendError::Nothing)]);
    assert!(matches!(put(&script, write(1, 0)).await, Err(WriteError::Away(_))));
    assert_eq!(script.sizes(), [1, 1, 1]);
}

// Seeded faults: a locked write is given up at once; it is tried for ever; the answer with the locked row counts as
// lost.
#[tokio::test(start_paused = true)]
async fn a_write_whose_row_is_locked_is_sent_twelve_times() {
    let busy = Script::of((0..20).map(|_| error(BackendError::Busy)));
    assert!(matches!(put(&busy, write(1, 0)).await, Err(WriteError::Away(_))));
    let locked = Script::of((0..20).map(|_| Reply::Locked));
    let result = put(&locked, write(1, 0)).await;
    assert!(result.is_ok() && !is_done(&result, &write(1, 0)), "{result:?}");
    assert_eq!([busy.sizes().len(), locked.sizes().len()], [12, 12]);
}

// Seeded faults: a locked row ends a write that may be done; its tries are counted.
#[tokio::test(start_paused = true)]
async fn a_write_that_may_be_done_waits_for_a_lock_as_long_as_it_takes() {
    let locks = (0..30).map(|number| if number % 2 == 0 { Reply::Locked } else { error(BackendError::Busy) });
    let script = Script::of([error(BackendError::Uncertain)].into_iter().chain(locks));
    assert!(is_done(&put(&script, write(1, 0)).await, &write(1, 0)));
    assert_eq!(script.sizes().len(), 32);
}

// Seeded faults: a deadline is ignored; a write that may be done ends at its deadline as one that was never sent; a
// write that waits for a lock outlives its deadline.
#[tokio::test(start_paused = true)]
async fn after_its_deadline_a_write_is_not_sent_and_what_is_told_says_whether_it_may_be_done() {
    let (none, lost, locked) = (
        Script::default(),
        Script::of((0..20).map(|_| error(BackendError::Uncertain))),
        Script::of((0..20).map(|_| error(BackendError::Busy))),
    );
    let put = async |script: &Script, within| ways(script, 1).put(write(1, 0), Some(Instant::now() + within)).await;
    assert!(matches!(put(&none, Duration::ZERO).await, Err(WriteError::Late)));
    assert!(none.sizes().is_empty());
    assert!(matches!(put(&lost, SECOND / 10).await, Err(WriteError::InDoubt)));
    assert!(matches!(put(&locked, SECOND / 10).await, Err(WriteError::Late | WriteError::Away(_))));
    for script in [lost, locked] {
        let sent: Vec<_> = script.puts.lock().unwrap().iter().map(|(sent, _)| *sent).collect();
        assert!((1..12).contains(&sent.len()), "{sent:?}");
        assert!(sent.iter().all(|at| *at < sent[0] + SECOND / 10), "{sent:?}");
    }
}

// Seeded faults: the writes of a refused call are sent together again; a write at fault makes the others fail.
#[tokio::test(start_paused = true)]
async fn one_write_that_is_at_fault_or_locked_costs_no_other_of_its_call() {
    for kind in [BackendError::Never, BackendError::Busy] {
        let script = Script::of([error(kind), Reply::Done, error(BackendError::Never), Reply::Done]);
        let puts = ways(&script, 1);
        let all: Vec<_> = (1..=3).map(|number| puts.put(write(number, 0), None)).collect();
        let done = join_all(all).await;
        assert_eq!(script.sizes(), [3, 1, 1, 1]);
        assert_eq!(done.iter().filter(|result| result.is_ok()).count(), 2);
        assert!(done.iter().any(|result| matches!(result, Err(WriteError::Never(_)))));
    }
}

// Seeded fault: only its first write is sent again.
#[tokio::test(start_paused = true)]
async fn all_writes_of_a_call_whose_answer_was_lost_are_sent_again() {
    let script = Script::of([error(BackendError::Uncertain)]);
    let puts = ways(&script, 1);
    let all: Vec<_> = (1..=3).map(|number| puts.put(write(number, 0), None)).collect();
    for (number, result) in (1..).zip(join_all(all).await) {
        assert!(is_done(&result, &write(number, 0)));
    }
    assert_eq!(script.sizes().iter().sum::<usize>(), 6);
}

// Seeded faults: the bytes that the database leaves out of its answer are missing; they are added to another write's
// row.
#[tokio::test(start_paused = true)]
async fn the_row_of_a_write_that_was_done_has_its_bytes_and_another_s_has_not() {
    let done = put(&Script::default(), write(1, 9)).await.unwrap();
    assert_eq!(done.row.unwrap().state, write(1, 9).state);
    let other = put(&Script::of([Reply::Others]), write(1, 9)).await.unwrap();
    assert!(other.row.unwrap().state.is_empty());
}

// Seeded faults: a large write is sent again without a question; the row that the question shows is answered without a
// barrier; the answered row lacks its bytes.
#[tokio::test(start_paused = true)]
async fn before_a_large_write_is_sent_again_its_row_is_asked_for() {
    let large = || write(1, 16 * KIB);
    let bytes = |script: &Script| -> Vec<_> {
        script.puts.lock().unwrap().iter().map(|(_, writes)| writes[0].state.len()).collect()
    };
    let unanswered = Script::of([error(BackendError::Uncertain), Reply::Locked]);
    assert!(is_done(&put(&unanswered, large()).await, &large()));
    assert_eq!(bytes(&unanswered), [16 * KIB, 0, 16 * KIB], "it is asked for, and then sent again");
    // Another write has made the row meanwhile, so the answer is that row.
    let lost = Script::of([error(BackendError::Uncertain), Reply::Others]);
    let result = put(&lost, large()).await;
    assert!(result.is_ok() && !is_done(&result, &large()));
    assert_eq!(lost.sizes(), [1, 1]);
    // A question that fails is asked again.
    let refused = Script::of([error(BackendError::Uncertain), error(BackendError::Nothing), Reply::Others]);
    assert!(put(&refused, large()).await.is_ok());
    assert_eq!(bytes(&refused), [16 * KIB, 0, 0]);
}

// Seeded fault: a task is not started while another one sends.
#[tokio::test(start_paused = true)]
async fn a_write_that_comes_while_another_call_is_under_way_has_a_call_of_its_own() {
    let slow = |reply| Reply::After(SECOND, Box::new(reply));
    let script = Script::of([slow(Reply::Done), slow(Reply::Done)]);
    let puts = ways(&script, 2);
    let began = Instant::now();
    let first = puts.put(write(1, 0), None);
    tokio::time::sleep(SECOND / 2).await;
    let second = puts.put(write(2, 0), None);
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(began.elapsed(), SECOND * 3 / 2, "two calls at once");
}

// Seeded faults: a call has no time limit; a large one has that of a small one.
#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_counts_as_lost_and_a_large_one_may_take_longer() {
    let slow = || Reply::After(3 * SECOND, Box::new(Reply::Done));
    let script = Script::of([slow()]);
    let began = Instant::now();
    assert!(put(&script, write(1, 0)).await.is_ok());
    assert_eq!(script.sizes(), [1, 1], "sent again");
    assert!(began.elapsed() < 3 * SECOND);
    // 256 KiB take four seconds more.
    let large = Script::of([slow()]);
    assert!(put(&large, write(1, 256 * KIB)).await.is_ok());
    assert_eq!(large.sizes(), [1]);
}

// Seeded faults: waiting writes are not counted, or are counted for ever.
#[tokio::test(start_paused = true)]
async fn a_store_is_behind_while_4096_writes_have_no_answer() {
    let script = Script::of([Reply::After(SECOND, Box::new(Reply::Done))]);
    let puts = ways(&script, 1);
    let another = |number: u16| Write {
        id: RecordId::from_bytes([number.to_be_bytes(); 16].concat().try_into().unwrap()),
        ..write(1, 0)
    };
    let mut all: Vec<_> = (0..4_095).map(|number| puts.put(another(number), None)).collect();
    assert!(!puts.is_behind());
    all.push(puts.put(another(4_095), None));
    assert!(puts.is_behind());
    join_all(all).await;
    assert!(!puts.is_behind());
}

// Seeded fault: a write that ends with the store counts as not done.
#[test]
fn a_write_whose_runtime_is_gone_may_be_done() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let script = Script::of([Reply::After(SECOND, Box::new(Reply::Done))]);
    let puts = WriteQueue::new(Arc::new(script.clone()), state_in(&runtime), 1, runtime.handle());
    let one = puts.put(write(1, 0), None);
    runtime.block_on(tokio::task::yield_now());
    let queued = puts.put(write(2, 0), None);
    drop(runtime);
    let results = futures_util::FutureExt::now_or_never(async { (one.await, queued.await) }).expect("at once");
    assert!(matches!(results, (Err(WriteError::Gone), Err(WriteError::Gone))), "{results:?}");
}

fn state_in(runtime: &tokio::runtime::Runtime) -> Arc<crate::store::shared::database::state::DatabaseState> {
    let _inside = runtime.enter();
    state()
}

// Seeded faults: an answer does not end an outage; a locked row or a row at fault counts as an outage.
#[tokio::test(start_paused = true)]
async fn calls_that_fail_are_an_outage_and_one_answer_ends_it() {
    let (backend, state) = (Script::of((0..3).map(|_| error(BackendError::Nothing))), state());
    let puts = WriteQueue::new(Arc::new(backend), Arc::clone(&state), 1, &Handle::current());
    for _ in 0..3 {
        assert!(matches!(state.health(), Health::Good));
        assert!(puts.put(write(1, 0), None).await.is_err());
    }
    assert!(matches!(state.health(), Health::Away { .. }));
    assert!(puts.put(write(1, 0), None).await.is_ok());
    assert!(matches!(state.health(), Health::Good));
}
