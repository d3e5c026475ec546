//! What a sweep deletes, in which slices, and what it leaves.

use std::sync::atomic::Ordering;

use super::map_engine::{FAILING, MapEngine};
use super::*;
use crate::store::embedded::batches::sweep::sweep;
use crate::store::embedded::layout::totals::Totals;
use crate::store::embedded::writer::{SWEPT_IDLE, along_with};

#[test]
fn trap_54_a_slice_of_the_sweep_is_small_however_long_the_outcomes_are() {
    on_each!(E, {
        const CHUNKS: usize = 263; // of a megabyte
        let still = Still::<E>::new();
        let count = |kind| still.count(kind);
        for number in 0..2 {
            let hold = Hold { id: id(&format!("k{number}")), fence: still.shared.next_fence().unwrap(), attempt: 1 };
            let mut batch = still.batch();
            let _answer = step(&mut batch, hold.id, Transition::Complete(completion(hold, vec![1; 1 << 20])));
            assert_eq!(along_with(&batch).chunks, 2 * CHUNKS, "sweeping keeps up with writing");
            batch.commit().unwrap();
        }
        assert_eq!((count("r"), count("c")), (2, 2 * CHUNKS));
        still.clock.advance(HOUR);
        let mut left = count("c");
        loop {
            let mut batch = still.batch();
            let swept = sweep(&mut batch, SWEPT_IDLE).unwrap();
            batch.commit().unwrap();
            if !swept.more {
                break;
            }
            let now = count("c");
            assert!(left - now <= SWEPT_IDLE.chunks, "{} in one slice", left - now);
            left = now;
        }
        assert_eq!([count("r"), count("e"), count("g"), count("c")], [0; 4]);
    });
}

// Seeded faults: the length is not subtracted; memory does not learn that the record is gone.
#[test]
fn a_record_that_is_as_it_was_listed_is_swept_without_a_read() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let ids = ["one", "other"].map(|name| complete(&still, &mut batch, name, vec![1; 500].into()));
        batch.commit().unwrap();
        // A read would find these bytes, and report them.
        ids.iter().for_each(|id| still.set(&keys::record(id), Some(Bytes::from_static(b"damaged"))));
        still.clock.advance(HOUR * 2);
        assert_eq!(still.sweep(), 2);
        let shared = &still.shared;
        let Totals { count, bytes, .. } = *shared.totals.lock();
        assert_eq!((count, bytes, shared.slots.telemetry.counters.corrupt.load(Ordering::Relaxed)), (0, 0, 0));
        assert!(ids.iter().all(|id| !shared.key_filter.may_have(id)));
        assert_eq!([still.count("r"), still.count("e"), still.count("g")], [0; 3]);
    });
}

// Seeded fault: the sweep does not look at what the batch has changed, and subtracts the record twice.
#[test]
fn a_record_that_the_batch_has_deleted_is_not_swept_again() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let id = complete(&still, &mut batch, "k", "done".into());
        batch.commit().unwrap();
        still.clock.advance(HOUR * 2);
        let mut batch = still.batch();
        let record = batch.current(id).unwrap();
        batch.write_record(id, record, None, None).unwrap();
        assert_eq!(sweep(&mut batch, SWEPT_IDLE).unwrap().records, 0);
        batch.commit().unwrap();
        let Totals { count, bytes, .. } = *still.shared.totals.lock();
        assert_eq!((count, bytes, still.count("e")), (0, 0, 0));
    });
}

// Seeded faults: the sweep does not look at the record; it does not compare the fences.
#[test]
fn an_orphan_that_comes_back_after_its_outcome_was_written_takes_nothing_along() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let id = complete(&still, &mut batch, "k", vec![1; 10_000].into());
        batch.commit().unwrap();
        let fence = read::head(&still.engine, id).unwrap().unwrap().fence;
        let (earlier, chunks) = (Fence(fence.0 - 1), still.count("c"));
        still.set(&keys::chunk(&id, earlier, 0), Some(Bytes::from_static(b"of an earlier outcome")));
        for fence in [earlier, fence] {
            still.set(&keys::orphan(&id, fence), Some(Bytes::new()));
        }
        while still.count("g") > 0 {
            assert_eq!(still.sweep(), 0);
        }
        assert_eq!(still.count("c"), chunks);
        assert!(still.load(id).is_some());
    });
}

// Seeded fault: a read that fails is taken for a record that is gone.
#[test]
fn an_orphan_that_comes_back_takes_nothing_along_if_the_disk_fails() {
    let still = Still::<MapEngine>::new();
    let mut batch = still.batch();
    let id = complete(&still, &mut batch, "k", vec![1; 10_000].into());
    batch.commit().unwrap();
    let (fence, chunks) = (read::head(&still.engine, id).unwrap().unwrap().fence, still.count("c"));
    still.set(&keys::record(&id), Some(Bytes::from_static(FAILING)));
    still.set(&keys::orphan(&id, fence), Some(Bytes::new()));
    let mut batch = still.batch();
    assert!(sweep(&mut batch, SWEPT_IDLE).is_err());
    assert!(batch.commit().unwrap_err().contains("a read failed"));
    assert_eq!(still.count("c"), chunks);
}

// Seeded fault: the place that the sweep notes is the expiry of the next record, which is kept for longer.
#[test]
fn a_record_that_is_kept_for_less_than_those_before_it_is_swept_in_its_time() {
    on_each!(E, {
        let still = Still::<E>::new();
        let kept_for = |name: &str, retention| {
            let mut batch = still.batch();
            let hold = Hold { id: id(name), fence: still.shared.next_fence().unwrap(), attempt: 1 };
            let completion = Completion { retention, ..completion(hold, "done") };
            let _answer = step(&mut batch, hold.id, Transition::Complete(completion));
            batch.commit().unwrap();
        };
        kept_for("long", 24 * HOUR);
        assert_eq!(still.sweep(), 0, "nothing is due, and the sweep notes where it ended");
        kept_for("short", HOUR);
        still.clock.advance(2 * HOUR);
        assert_eq!(still.sweep(), 1);
        assert!(still.load(id("short")).is_none() && still.load(id("long")).is_some());
    });
}

// A batch must not be written if one of its reads has failed.
#[test]
fn a_sweep_whose_read_fails_deletes_nothing() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let id = complete(&still, &mut batch, "k", "done".into());
        batch.commit().unwrap();
        still.clock.advance(HOUR);
        let mut batch = still.batch();
        assert_eq!(sweep(&mut batch, SWEPT_IDLE).unwrap().records, 1);
        // A read does this if the operating system refuses it.
        still.shared.poison("EIO".to_owned());
        assert!(batch.commit().unwrap_err().contains("a read failed"));
        assert!(still.load(id).is_some());
    });
}
