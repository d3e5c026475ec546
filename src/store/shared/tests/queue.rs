//! The writes that are sent next, and how many at once.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::oneshot;

use super::script::write;
use crate::store::shared::database::queue::{PendingWrite, PendingWrites, Waiting};

const KIB: usize = 1024;
const LIMIT: Duration = Duration::from_secs(3);

fn put(number: u8, bytes: usize) -> PendingWrite {
    let (reply, pauses) = (oneshot::channel().0, ExponentialBuilder::default().build());
    let waiting = Waiting::new(&Arc::default());
    PendingWrite {
        write: write(number, bytes),
        deadline: None,
        reply,
        may_be_done: false,
        sent: None,
        busy: 0,
        pauses,
        _waiting: waiting,
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
    queue.next().map(|batch| batch.puts.iter().map(|put| put.write.state.len()).collect()).unwrap_or_default()
}

/// Starts as many tasks as the queue wants, and returns their number.
fn start_tasks(queue: &mut PendingWrites) -> usize {
    (0..).take_while(|_| queue.starts_task()).count()
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
    assert!(queue.next().is_none(), "its task is over");
    queue.push(put(1, 0));
    assert!(queue.starts_task(), "so there is another");
}

// Seeded faults: a call has one write more, or a byte more.
#[test]
fn a_call_has_64_small_writes_or_128_kib_at_most() {
    let mut many = queue(1, (0..130).map(|_| 0));
    assert_eq!([next(&mut many).len(), next(&mut many).len(), next(&mut many).len()], [64, 64, 2]);
    let mut long = queue(1, (0..33).map(|_| 8 * KIB));
    assert_eq!([next(&mut long).len(), next(&mut long).len(), next(&mut long).len()], [16, 16, 1]);
}

// Seeded faults: small writes wait; large writes starve; a large write takes the last call.
#[test]
fn small_and_large_writes_take_turns_and_one_call_is_left_for_the_small_ones() {
    let mut queue = queue(2, [200 * KIB, 200 * KIB, 0]);
    assert_eq!(start_tasks(&mut queue), 2);
    assert_eq!(next(&mut queue), [200 * KIB]);
    assert_eq!(next(&mut queue), [0], "one call is left for it");
    assert!(queue.next().is_none(), "the other large one waits until the first is answered");
    queue.end_large(200 * KIB);
    assert_eq!(next(&mut queue), [200 * KIB]);
    // With one call, small and large writes take turns.
    let mut alone = self::queue(1, [200 * KIB, 200 * KIB, 0, 0]);
    assert!(alone.starts_task());
    assert_eq!(next(&mut alone), [200 * KIB]);
    alone.end_large(200 * KIB);
    assert_eq!(next(&mut alone), [0, 0]);
    assert_eq!(next(&mut alone), [200 * KIB]);
}

// Seeded faults: a byte more is sent; the bytes of an answered write still count; a single write with more bytes is
// never sent.
#[test]
fn large_writes_at_once_have_four_mebibytes_at_most_unless_one_alone_has_more() {
    let mut queue = queue(4, [2 * KIB * KIB, 2 * KIB * KIB, 16 * KIB]);
    assert_eq!([next(&mut queue), next(&mut queue)], [[2 * KIB * KIB], [2 * KIB * KIB]]);
    assert!(!queue.starts_task(), "there is no room");
    queue.end_large(2 * KIB * KIB);
    assert_eq!(next(&mut queue), [16 * KIB]);
    assert_eq!(next(&mut self::queue(4, [5 * KIB * KIB])), [5 * KIB * KIB]);
}

// Seeded faults: a late call does not make the link narrow; a call that was just in time does; a quick call does not
// end it; a call ends it that would have been late if it had shared the link.
#[test]
fn after_a_late_call_large_writes_go_one_at_a_time_until_one_is_so_quick_that_all_may_share_the_link() {
    let at_once = |took: &[Duration]| {
        let mut queue = queue(4, (0..4).map(|_| 200 * KIB));
        took.iter().for_each(|took| queue.large_took(*took, LIMIT));
        while queue.starts_task() {}
        (0..).take_while(|_| queue.next().is_some_and(|batch| batch.large.is_some())).count()
    };
    let millisecond = Duration::from_millis(1);
    assert_eq!(at_once(&[]), 3);
    assert_eq!(at_once(&[LIMIT - millisecond]), 3);
    assert_eq!(at_once(&[LIMIT]), 1);
    assert_eq!(at_once(&[LIMIT, LIMIT / 2]), 1, "it was not so quick");
    assert_eq!(at_once(&[LIMIT, LIMIT / 3]), 1, "three of them would just be late");
    assert_eq!(at_once(&[LIMIT, LIMIT / 3 - millisecond]), 3);
}

// Seeded faults: queued writes are dropped although other tasks are left; the large writes, or the small ones, stay.
#[test]
fn what_is_queued_is_given_up_with_the_last_task_alone() {
    let mut queue = queue(2, [0, 16 * KIB, 0]);
    assert_eq!(start_tasks(&mut queue), 2);
    assert!(queue.lose_task().is_empty());
    assert_eq!(queue.lose_task().len(), 3);
    assert!(!queue.starts_task(), "nothing is left");
}

// An earlier write of an id may not fit into the rest of a call, while a later one may.
#[test]
fn a_later_write_of_an_id_never_overtakes_an_earlier_one() {
    let mut queue = queue(1, (0..15).map(|_| 8 * KIB).chain([4 * KIB]));
    for (number, bytes) in [(99, 8 * KIB), (99, 1), (98, 1)] {
        queue.push(put(number, bytes));
    }
    let mut next = || -> Vec<_> {
        let batch = queue.next().unwrap();
        batch.puts.iter().map(|put| (put.write.id.as_bytes()[0], put.write.state.len())).collect()
    };
    assert_eq!(next()[15..], [(15, 4 * KIB), (98, 1)]);
    assert_eq!([next(), next()], [[(99, 8 * KIB)], [(99, 1)]]);
}
