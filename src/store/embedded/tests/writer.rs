//! The writer's handling of its commands: in bounded steps, in slices, in time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::record::Cause;
use crate::store::embedded::batches::sweep::{Slice, sweep};
use crate::store::embedded::command::Asked;
use crate::store::embedded::layout::writes::ENTRY_BYTES;
use crate::store::embedded::queue::queue;
use crate::store::embedded::writer::{self, SWEPT_IDLE, sweep_asked};

// The orphan of a record must not be swept if the same batch has changed the record. This is true also if the sweep
// came before an operator's answer, in one batch with it.
#[test]
fn trap_87_a_sweep_in_one_batch_with_an_operators_answer_leaves_the_answer_whole() {
    on_each!(E, {
        for sweep_first in [true, false] {
            let still = Still::<E>::new();
            let [Hold { id, fence, .. }] = claim(&still, &["k"])[..] else { panic!("one") };
            let mut batch = still.batch();
            let _answer = step(&mut batch, id, Transition::Interrupt { fence, cause: Cause::Unknown, lost: None });
            // This is what a run leaves if it is killed between the chunks of its outcome and its record.
            batch.write(&keys::orphan(&id, fence), Bytes::new());
            batch.write(&keys::chunk(&id, fence, 0), &b"a chunk"[..]);
            batch.commit().unwrap();

            let outcome = Bytes::from(vec![7; 5_000]);
            let resolution = Resolution::Outcome(outcome.clone());
            let (resolve, _answer) = sent(id, Transition::Resolve(fence, resolution, HOUR));
            let swept = Command::Sweep(Asked { limit: 100, swept: 0, reply: oneshot::channel().0 });
            let commands = if sweep_first { [swept, resolve] } else { [resolve, swept] };
            let mut batch = still.batch();
            commands.into_iter().for_each(|command| decide(&mut batch, command));
            let sweeps = std::mem::take(&mut batch.sweeps);
            for asked in sweeps {
                assert!(sweep_asked(&mut batch, asked).is_none());
            }
            batch.commit().unwrap();
            let Some(Record { state: State::Completed { outcome: found }, .. }) = still.load(id) else {
                panic!("gone")
            };
            assert_eq!(found, outcome);
        }
    });
}

// A run that says once more how it ended, after its first outcome has expired, writes chunks under the same keys.
#[test]
fn trap_87_a_sweep_in_one_batch_with_the_outcome_of_a_run_leaves_the_outcome_whole_whatever_its_fence_had_before() {
    on_each!(E, {
        let still = Still::<E>::new();
        let hold = Hold { id: id("k"), fence: still.shared.next_fence().unwrap(), attempt: 1 };
        let outcome = Bytes::from(vec![7; 9_000]);
        let completes = |batch: &mut Batch<'_, E>| {
            let (complete, answer) = sent(hold.id, Transition::Complete(completion(hold, outcome.clone())));
            decide(batch, complete);
            answer
        };
        let mut batch = still.batch();
        let _answer = completes(&mut batch);
        batch.commit().unwrap();
        still.clock.advance(HOUR);
        let mut batch = still.batch();
        sweep(&mut batch, Slice { records: 1, chunks: 0 }).unwrap();
        batch.commit().unwrap();
        assert_eq!([still.count("r"), still.count("g"), still.count("c")], [0, 1, 3], "the chunks are left");

        let mut batch = still.batch();
        let mut answer = completes(&mut batch);
        sweep(&mut batch, SWEPT_IDLE).unwrap();
        batch.commit().unwrap();
        assert_eq!(answer.try_recv().unwrap().unwrap().reply, Reply::Taken);
        let Some(Record { state: State::Completed { outcome: found }, .. }) = still.load(hold.id) else {
            panic!("gone")
        };
        assert_eq!(found, outcome);
    });
}

// Reads may make sled write pages anew, and two threads must not do that at once: a process that is killed then leaves
// a database that sled cannot open.
#[test]
fn while_somebody_reads_a_step_is_written_in_one_piece() {
    let still = Still::<MapEngine>::new();
    for readers in [0, 1, 0] {
        let reading = still.shared.readers.try_acquire_many(readers).unwrap();
        claim(&still, &[&format!("k{readers}{:?}", still.shared.next_fence().unwrap())]);
        assert_eq!(still.engine.last_was_atomic(), readers > 0);
        drop(reading);
    }
}

// A claim has a deadline; after it the writer answers "unavailable", and does not do the claim.
#[test]
fn trap_83_a_claim_that_the_writer_comes_to_too_late_is_not_done() {
    on_each!(E, {
        let still = Still::<E>::new();
        let late = Claim { timeout: Duration::ZERO, ..wish() };
        let mut batch = still.batch();
        let answers = [Transition::Claim(late.clone()), Transition::Reclaim(late, Fence(1), ReclaimReason::Verdict)]
            .map(|transition| step(&mut batch, id("k"), transition));
        batch.commit().unwrap();
        for mut answer in answers {
            assert!(matches!(answer.try_recv().unwrap(), Err(StoreError::Unavailable { .. })));
        }
        assert!(still.load(id("k")).is_none());
    });
}

// `sweep(usize::MAX)` must not be one batch.
#[test]
fn a_sweep_of_everything_is_cut_into_slices() {
    on_each!(E, {
        let still = Still::<E>::new();
        for slice in 0..3 {
            let mut batch = still.batch();
            for number in 0..100 {
                complete(&still, &mut batch, &format!("k{slice}-{number}"), "done".into());
            }
            batch.commit().unwrap();
        }
        still.clock.advance(HOUR);
        let (reply, mut answer) = oneshot::channel();
        let (mut asked, mut left) = (Some(Asked { limit: usize::MAX, swept: 0, reply }), vec![300]);
        while let Some(unfinished) = asked {
            let mut batch = still.batch();
            asked = sweep_asked(&mut batch, unfinished);
            batch.commit().unwrap();
            left.push(still.count("r"));
        }
        assert_eq!((left, answer.try_recv().unwrap().unwrap()), (vec![300, 172, 44, 0], 300));
    });
}

// Every operation is counted, and a batch over the bound is divided.
#[test]
fn trap_86_a_batch_is_written_in_steps_each_of_which_is_bounded_whatever_its_commands_are() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let ids: Vec<_> = (0..600)
            .map(|number| {
                let id = complete(&still, &mut batch, &format!("k{number}"), Bytes::from(vec![7; 1_000]));
                batch.write_if_full();
                assert!(batch.step.writes.bytes <= E::MAX_STEP && batch.unsynced <= E::MAX_STEP);
                id
            })
            .collect();
        assert!(batch.unsynced > 0, "some is written");
        batch.commit().unwrap();
        assert!(ids.iter().all(|id| still.load(*id).is_some()));
        // The bytes of a command are counted in full: keys, values, and what sled adds.
        let mut batch = still.batch();
        complete(&still, &mut batch, "one", Bytes::from(vec![7; 1_000]));
        assert!(batch.step.writes.bytes > 1_000 + 33 + ENTRY_BYTES, "{}", batch.step.writes.bytes);
        still.clock.advance(HOUR);
        let mut batch = still.batch();
        sweep(&mut batch, Slice { records: 50, chunks: 0 }).unwrap();
        assert!(batch.step.writes.bytes > 50 * (33 + ENTRY_BYTES), "removals count too: {}", batch.step.writes.bytes);
    });
}

// The application's values must not be dropped unguarded on the writer's thread.
#[test]
fn a_transaction_that_panics_when_it_is_dropped_neither_ends_the_writer_nor_who_drops_the_queue() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let shared = Arc::new(setup::<E>(&clock()).prepare(&directory.path().join("s")).unwrap());
        shared.poison("a test".to_owned());
        let (sender, commands) = queue();
        let (reply, mut closed) = oneshot::channel();
        for command in [own(E::touchy()), Command::Close(reply), own(E::touchy())] {
            assert!(sender.send(command).is_ok());
        }
        writer::run(&shared, commands);
        closed.try_recv().expect("who closes is answered");
    });
}

// Two panics at once would end the process.
#[test]
fn a_transaction_that_panics_when_it_is_dropped_may_be_under_way_when_the_database_panics() {
    let still = Still::<MapEngine>::new();
    still.engine.panics();
    let mut batch = still.batch();
    let panicked = catch_unwind(AssertUnwindSafe(|| decide(&mut batch, own(MapEngine::touchy()))));
    assert!(panicked.is_err());
}

// Transactions are made durable in between, if they write much or are many. The records of what they do are written
// with them, and count.
#[test]
fn transactions_write_little_between_two_syncs() {
    on_each!(E, {
        for (transactions, length) in [(8, 50_000), (512, 1)] {
            let still = Still::<E>::new();
            let mut batch = still.batch();
            let mut syncs = 0;
            for number in 0..transactions {
                let id = id(&format!("k{number}"));
                let hold = Hold { id, fence: still.shared.next_fence().unwrap(), attempt: 1 };
                let before = batch.unsynced;
                let effect = E::nothing_but(Bytes::from(vec![7; length]));
                decide(&mut batch, transact(Purpose::Run(own_completion(hold)), effect));
                let added = batch.unsynced.checked_sub(before).filter(|added| *added >= length);
                let written = added.unwrap_or_else(|| {
                    syncs += 1;
                    batch.unsynced
                });
                // A record and the entry that lists it have a key and an id each, and there are the totals.
                let besides = written.checked_sub(length).unwrap();
                assert!((4 * 32 + 3 * ENTRY_BYTES..4_096).contains(&besides), "{besides}");
                assert!(batch.unsynced <= E::MAX_STEP * 3 / 2, "{}", batch.unsynced);
            }
            assert!(syncs > 0, "so many, or so large ones, are more than the bound");
            batch.commit().unwrap();
            assert_eq!(still.count("r"), transactions);
        }
    });
}

fn own_completion(hold: Hold) -> Completion<()> {
    ending(hold, RunResult::Outcome(()))
}

// What an engine that fails says about a transaction: it may have been written.
#[test]
fn a_transaction_whose_write_fails_may_have_been_done() {
    let still = Still::<MapEngine>::new();
    still.engine.fail_writes();
    let mut batch = still.batch();
    decide(&mut batch, own(MapEngine::nothing_but(Bytes::from("x"))));
    assert!(batch.early.is_err());
    batch.commit().unwrap_err();
    assert!(still.shared.is_poisoned());
}

#[test]
fn the_lag_of_the_sweep_is_that_of_the_oldest_record_that_is_left() {
    on_each!(E, {
        let still = Still::<E>::new();
        let lag = || still.shared.measured.gauges(still.shared.time.now()).sweep_lag.unwrap();
        for name in ["first", "second"] {
            let mut batch = still.batch();
            complete(&still, &mut batch, name, "done".into());
            batch.commit().unwrap();
            still.clock.advance(HOUR / 2);
        }
        still.clock.advance(HOUR);
        for (left, lag_then) in [(1, HOUR / 2), (0, Duration::ZERO)] {
            let mut batch = still.batch();
            assert_eq!(sweep(&mut batch, Slice { records: 1, chunks: 1 }).unwrap().records, 1);
            batch.commit().unwrap();
            assert_eq!((still.count("r"), lag()), (left, lag_then));
        }
        // A sweep that does not come, or fails, is late for what the last one left.
        let mut batch = still.batch();
        complete(&still, &mut batch, "third", "done".into());
        batch.commit().unwrap();
        let mut batch = still.batch();
        sweep(&mut batch, SWEPT_IDLE).unwrap();
        batch.commit().unwrap();
        assert_eq!(lag(), Duration::ZERO);
        still.clock.advance(HOUR * 3);
        assert_eq!(lag(), HOUR * 2);
    });
}
