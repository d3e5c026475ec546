//! The result of a write, for each answer of the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::script::{Reply, Script, error, state, write};
use crate::backend::{BackendError, Write};
use crate::database::writes::{WriteError, WriteQueue, WriteResult};

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1024;

fn queue(script: &Script) -> WriteQueue<Script> {
    WriteQueue::new(Arc::new(script.clone()), state(), 1, &Handle::current())
}

/// Sends one write and returns its result.
async fn put(script: &Script, write: Write) -> Result<WriteResult, WriteError> {
    queue(script).put(write, None).await
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

// Seeded faults: the writes of a call for which there is no room share its fate; a write that may be done is given up.
#[tokio::test(start_paused = true)]
async fn a_write_for_which_there_is_no_room_is_refused_unless_it_may_be_done() {
    let full = || Reply::Error(BackendError::Full("memory"));
    let refused = Script::of([full()]);
    assert!(matches!(put(&refused, write(1, 0)).await, Err(WriteError::Away(_))));
    assert_eq!(refused.sizes(), [1]);
    let lost = Script::of([error(BackendError::Uncertain), full(), full()]);
    assert!(is_done(&put(&lost, write(1, 0)).await, &write(1, 0)));
    assert_eq!(lost.sizes(), [1, 1, 1, 1]);
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
    let put = async |script: &Script, within| queue(script).put(write(1, 0), Some(Instant::now() + within)).await;
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

// Seeded faults: the bytes that the database leaves out of its answer are missing; they are added to another write's
// row.
#[tokio::test(start_paused = true)]
async fn the_row_of_a_write_that_was_done_has_its_bytes_and_another_s_has_not() {
    let done = put(&Script::default(), write(1, 9)).await.unwrap();
    assert_eq!(done.row.unwrap().state, write(1, 9).state);
    let other = put(&Script::of([Reply::Others]), write(1, 9)).await.unwrap();
    assert!(other.row.unwrap().state.is_empty());
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

// Seeded faults: the task that rests gets no turn; each task rests.
#[tokio::test(start_paused = true)]
async fn tasks_that_have_sent_take_the_next_writes_however_they_come() {
    let script = Script::of((0..8).map(|_| Reply::After(SECOND / 10, Box::new(Reply::Done))));
    let queue = WriteQueue::new(Arc::new(script.clone()), state(), 4, &Handle::current());
    let before = Handle::current().metrics().num_alive_tasks();
    for round in 0..8 {
        // Alternately one write, and so many that several tasks have a turn.
        let many = if round % 2 == 0 { 1 } else { 4 };
        for result in join_all((0..many).map(|number| queue.put(write(number, 0), None))).await {
            assert!(result.is_ok(), "{result:?}");
        }
        tokio::task::yield_now().await;
        assert!(Handle::current().metrics().num_alive_tasks() <= before + 1, "one rests at most");
    }
    drop(queue);
    tokio::task::yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before, "and none once the store is gone");
}

// Seeded fault: a turn that no task takes is counted for ever.
#[test]
fn a_write_after_the_runtime_is_gone_has_an_end_though_a_task_has_rested() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gone = runtime();
    let queue = WriteQueue::new(Arc::new(Script::default()), state(), 1, gone.handle());
    assert!(gone.block_on(queue.put(write(1, 0), None)).is_ok());
    gone.block_on(tokio::task::yield_now());
    drop(gone);
    for number in 2..4 {
        let result = runtime().block_on(queue.put(write(number, 0), None));
        assert!(matches!(result, Err(WriteError::Gone)), "{result:?}");
    }
    assert_eq!(queue.waiting(), 0);
}

// A task that was woken by a notification would find that the store is gone.
#[tokio::test(start_paused = true)]
async fn a_write_on_its_way_is_sent_although_the_last_handle_goes() {
    let script = Script::default();
    let queue = queue(&script);
    assert!(queue.put(write(1, 0), None).await.is_ok());
    tokio::task::yield_now().await;
    let put = queue.put(write(2, 0), None);
    drop(queue);
    assert!(is_done(&put.await, &write(2, 0)));
}
