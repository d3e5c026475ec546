//! The writes that are sent next, and how many at once.

use std::sync::Arc;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::oneshot;

use super::script::write;
use crate::database::queue::{PendingWrite, PendingWrites, SLOW_CALL};

const KIB: usize = 1024;

fn put(number: u8, bytes: usize) -> PendingWrite {
    let (reply, pauses) = (oneshot::channel().0, ExponentialBuilder::default().build());
    PendingWrite {
        write: write(number, bytes),
        deadline: None,
        reply,
        may_be_done: false,
        sent: None,
        times_locked: 0,
        pauses,
        _waiting: Arc::default(),
    }
}

/// Returns a queue of writes of these sizes.
fn queue(at_once: usize, sizes: impl IntoIterator<Item = usize>) -> PendingWrites {
    let mut queue = PendingWrites::new(at_once);
    (0..).zip(sizes).for_each(|(number, bytes)| queue.push(put(number, bytes)));
    queue
}

/// Takes the next writes and returns their sizes.
fn next(queue: &mut PendingWrites) -> Vec<usize> {
    next_after(queue, false)
}

/// Takes the next writes of a task whose last call had large ones or not, and returns their sizes.
fn next_after(queue: &mut PendingWrites, large: bool) -> Vec<usize> {
    queue.next(large).map(|(puts, _)| puts.iter().map(|put| put.write.state.len()).collect()).unwrap_or_default()
}

/// Starts as many tasks as the queue wants, and returns their number.
fn start_tasks(queue: &mut PendingWrites) -> usize {
    (0..).take_while(|_| queue.starts_task()).count()
}

// Seeded faults: a task goes on with whatever waits; it ends although as many wait; the last two end, too.
#[test]
fn a_task_goes_on_next_to_two_others_only_if_as_many_writes_wait_as_the_last_call_had() {
    let mut queue = queue(3, [0; 9]);
    assert_eq!(start_tasks(&mut queue), 3);
    assert_eq!(next(&mut queue).len(), 9);
    (10..19).for_each(|number| queue.push(put(number, 0)));
    assert_eq!(next(&mut queue).len(), 9);
    (20..28).for_each(|number| queue.push(put(number, 0)));
    assert!(queue.next(false).is_none(), "eight wait, and the last call had nine");
    assert!(!queue.starts_task());
    assert_eq!(next(&mut queue).len(), 8, "one of the two others goes on");
    queue.push(put(30, 0));
    assert_eq!(next(&mut queue).len(), 1);
    assert!(queue.next(false).is_none() && queue.next(false).is_none(), "nothing is left");
}

// A seeded fault: the task ends, as few small writes wait.
#[test]
fn a_task_goes_on_with_large_writes_if_its_turn_for_small_ones_has_not_come() {
    let mut queue = queue(3, [0; 9]);
    assert_eq!(start_tasks(&mut queue), 3);
    assert_eq!(next(&mut queue).len(), 9);
    queue.push(put(20, 200 * KIB));
    assert_eq!(next(&mut queue), [200 * KIB]);
    queue.push(put(21, 200 * KIB));
    queue.push(put(30, 0));
    assert_eq!(next_after(&mut queue, true), [200 * KIB], "one small write waits next to two tasks");
    assert_eq!(next_after(&mut queue, false), [0], "and is sent by one of those");
}

// Seeded faults: one task more; one task fewer; a task without a write.
#[test]
fn so_many_tasks_send_as_may_and_none_if_there_is_nothing() {
    for at_once in 1..4 {
        assert_eq!(start_tasks(&mut queue(at_once, [])), 0);
        assert_eq!(start_tasks(&mut queue(at_once, [0, 0])), at_once);
    }
    let mut queue = queue(1, [0]);
    assert!(queue.starts_task());
    assert_eq!(next(&mut queue), [0]);
    assert!(queue.next(false).is_none(), "its task is over");
    queue.push(put(1, 0));
    assert!(queue.starts_task(), "so there is another");
}

// Seeded faults: no rule, so that four calls are under way; the second call waits, too; a large one counts; a call that
// hangs keeps others waiting.
#[tokio::test(start_paused = true)]
async fn a_third_call_starts_only_if_as_many_writes_wait_as_the_last_had_or_none_has_begun_for_a_while() {
    let mut queue = queue(4, [0; 5]);
    assert!(queue.starts_task());
    assert_eq!(next(&mut queue).len(), 5);
    let mut starts_with = |number| {
        queue.push(put(number, 0));
        queue.starts_task()
    };
    assert!(starts_with(10), "a second call starts for one write");
    assert!(![11, 12, 13].into_iter().any(&mut starts_with), "four wait, and the first call had five");
    assert!(starts_with(14), "five wait");
    assert!(starts_with(15), "and six");
    assert!(!starts_with(16), "four are under way");
    // Both calls may hang.
    let mut hanging = self::queue(4, [0; 5]);
    assert!(hanging.starts_task());
    assert_eq!(next(&mut hanging).len(), 5);
    (10..12).for_each(|number| hanging.push(put(number, 0)));
    assert!(hanging.starts_task() && !hanging.starts_task());
    tokio::time::advance(SLOW_CALL).await;
    assert!(hanging.starts_task());
    // A call with a large write leaves two to the small ones.
    let mut mixed = self::queue(4, [200 * KIB]);
    assert!(mixed.starts_task());
    assert_eq!(next(&mut mixed), [200 * KIB]);
    (0..3).for_each(|number| mixed.push(put(number, 0)));
    assert!(mixed.starts_task());
    assert_eq!(next(&mut mixed), [0; 3]);
    mixed.push(put(10, 0));
    assert!(mixed.starts_task() && !mixed.starts_task());
}

// Seeded faults: a call has one write more, or a byte more.
#[test]
fn a_call_has_64_small_writes_or_128_kib_at_most() {
    let mut many = queue(1, (0..130).map(|_| 0));
    assert!(many.starts_task());
    assert_eq!([next(&mut many).len(), next(&mut many).len(), next(&mut many).len()], [64, 64, 2]);
    let mut long = queue(1, (0..33).map(|_| 8 * KIB));
    assert!(long.starts_task());
    assert_eq!([next(&mut long).len(), next(&mut long).len(), next(&mut long).len()], [16, 16, 1]);
}

// Seeded faults: small writes wait; large writes starve; two calls have large writes; a large write is never sent.
#[test]
fn one_call_at_a_time_has_large_writes_and_they_take_turns_with_small_ones() {
    let mut queue = queue(4, [200 * KIB, 5 * KIB * KIB, 0]);
    assert_eq!(start_tasks(&mut queue), 4);
    assert_eq!(next(&mut queue), [200 * KIB]);
    assert_eq!(next(&mut queue), [0]);
    assert!(queue.next(false).is_none(), "the other large one waits until the first is answered");
    assert_eq!(next_after(&mut queue, true), [5 * KIB * KIB]);
    assert_eq!(start_tasks(&mut queue), 0, "nothing is left");
    // With one call, small and large writes take turns.
    let mut alone = self::queue(1, [200 * KIB, 200 * KIB, 0, 0]);
    assert!(alone.starts_task());
    assert_eq!(next(&mut alone), [200 * KIB]);
    assert_eq!(next_after(&mut alone, true), [0, 0]);
    assert_eq!(next(&mut alone), [200 * KIB]);
}

// Seeded faults: queued writes are dropped although other tasks are left; the large writes, or the small ones, stay.
#[test]
fn what_is_queued_is_given_up_with_the_last_task_alone() {
    let mut queue = queue(2, [0, 16 * KIB, 0]);
    assert_eq!(start_tasks(&mut queue), 2);
    assert!(queue.lose_task(false).is_empty());
    assert_eq!(queue.lose_task(false).len(), 3);
    assert!(!queue.starts_task(), "nothing is left");
}

// An earlier write of an id may not fit into the rest of a call, while a later one may.
#[test]
fn a_later_write_of_an_id_never_overtakes_an_earlier_one() {
    let mut queue = queue(1, (0..15).map(|_| 8 * KIB).chain([4 * KIB]));
    for (number, bytes) in [(99, 8 * KIB), (99, 1), (98, 1)] {
        queue.push(put(number, bytes));
    }
    assert!(queue.starts_task());
    let mut next = || -> Vec<_> {
        let (puts, _) = queue.next(false).unwrap();
        puts.iter().map(|put| (put.write.id.as_bytes()[0], put.write.state.len())).collect()
    };
    assert_eq!(next()[15..], [(15, 4 * KIB), (98, 1)]);
    assert_eq!([next(), next()], [[(99, 8 * KIB)], [(99, 1)]]);
}
