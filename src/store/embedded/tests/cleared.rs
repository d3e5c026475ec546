//! Listing entries that are gone: an engine may free them without a look, and bring some of them back.

use std::sync::atomic::Ordering;

use super::map_engine::{MapEngine, UNREADABLE};
use super::*;
use crate::store::embedded::batches::sweep::NOTED_AFTER;
use crate::store::embedded::layout::cleared::Cleared;
use crate::store::embedded::layout::storage_engine::scan;

fn entries<E: Tested>(still: &Still<E>, kind: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
    let owned = |(key, value): (E::Value, E::Value)| (key.as_ref().to_vec(), Bytes::copy_from_slice(value.as_ref()));
    scan(&still.engine, kind).map(|entry| owned(entry.unwrap())).collect()
}

/// Notes how far the store has come, as if as many entries had been removed.
fn note<E: Tested>(still: &Still<E>) {
    still.shared.removed.store(NOTED_AFTER, Ordering::Relaxed);
    still.sweep();
}

// Seeded fault: `Cleared::read` returns `NOTHING`.
#[test]
fn trap_124_entries_that_come_back_after_they_were_cleared_change_nothing() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let still = opened::<E>(&directory);
        let ended = claim(&still, &["ended"]);
        let claims = entries(&still, keys::RUNS);
        let mut batch = still.batch();
        end(&mut batch, ended[0]);
        batch.commit().unwrap();
        let expiries = entries(&still, keys::EXPIRY);
        claim(&still, &["running"]);
        still.clock.advance(HOUR * 2);
        assert_eq!(still.sweep(), 1);
        note(&still);
        // As a disk would have it whose engine had dropped the removals alone.
        assert_eq!((claims.len(), expiries.len()), (1, 1));
        claims.into_iter().chain(expiries).for_each(|(key, value)| still.set(&key, Some(value)));
        still.engine.sync().unwrap();
        drop(still);
        for is_after_the_last_boot in [false, true] {
            let still = opened::<E>(&directory);
            assert_eq!(still.shared.totals.lock().count, 1, "{is_after_the_last_boot}");
            assert!(still.load(id("running")).is_some_and(|record| matches!(record.state, State::Interrupted { .. })));
            assert!(!still.shared.key_filter.may_have(&id("ended")) && still.load(id("ended")).is_none());
            let (interrupted, listed) = (still.count("i"), entries(&still, keys::EXPIRY).len());
            // The lists were not made anew, which would have removed what came back.
            assert_eq!((interrupted, listed), (1, 2), "{is_after_the_last_boot}");
        }
    });
}

#[test]
fn what_is_noted_leaves_out_what_is_still_there() {
    on_each!(E, {
        let still = Still::<E>::new();
        let held = claim(&still, &["long"]);
        let mut batch = still.batch();
        let soon = complete(&still, &mut batch, "soon", "done".into());
        batch.commit().unwrap();
        note(&still);
        let noted = Cleared::read(&still.engine).unwrap();
        let firsts = noted.firsts();
        let first = |kind: &[u8]| entries(&still, kind).into_iter().next().map(|(key, _)| key).unwrap();
        assert!(firsts[0] <= first(keys::RUNS) && firsts[1] <= first(keys::EXPIRY), "{noted:?}");
        // Once they are gone, the note goes beyond them.
        let (claimed, expiring) = (first(keys::RUNS), first(keys::EXPIRY));
        let mut batch = still.batch();
        end(&mut batch, held[0]);
        batch.commit().unwrap();
        still.clock.advance(HOUR * 2);
        assert_eq!(still.sweep(), 2);
        note(&still);
        let firsts = Cleared::read(&still.engine).unwrap().firsts();
        assert!(claimed < firsts[0] && expiring < firsts[1]);
        assert!(still.load(soon).is_none());
    });
}

// Seeded fault: such a record is listed at its own time, and stays for ever.
#[test]
fn a_record_that_is_written_past_its_time_is_swept() {
    on_each!(E, {
        let still = Still::<E>::new();
        let mut batch = still.batch();
        let late = complete(&still, &mut batch, "late", "done".into());
        batch.commit().unwrap();
        let record = still.load(late).unwrap();
        still.clock.advance(HOUR * 2);
        assert_eq!(still.sweep(), 1);
        // The sweep has gone beyond the time at which it expires.
        let mut batch = still.batch();
        let adopted = step(&mut batch, id("late"), Transition::Adopt(Box::new(record)));
        batch.commit().unwrap();
        drop(adopted);
        assert!(still.load(late).is_some());
        still.clock.advance(Duration::from_millis(1));
        assert_eq!(still.sweep(), 1);
        assert!(still.load(late).is_none());
    });
}

// A step that is not atomic may write the note without the time. Seeded faults: the record is listed at its own time; a
// sweep goes back to the time.
#[test]
fn nothing_is_listed_before_what_was_noted_if_the_clock_was_set_back() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let still = opened::<E>(&directory);
        let noted = Cleared { before: still.shared.time.now().plus(3 * HOUR), below: 0 };
        still.set(keys::CLEARED, Some(noted.encode().into()));
        still.engine.sync().unwrap();
        drop(still);
        let still = opened::<E>(&directory);
        assert_eq!(still.sweep(), 0);
        let mut batch = still.batch();
        complete(&still, &mut batch, "k", "done".into());
        batch.commit().unwrap();
        let [_, first] = noted.firsts();
        assert!(entries(&still, keys::EXPIRY).iter().all(|(key, _)| first <= *key));
        still.clock.advance(3 * HOUR);
        assert_eq!(still.sweep(), 1);
    });
}

// Seeded fault: the store does not open.
#[test]
fn a_note_that_cannot_be_read_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let still = opened::<MapEngine>(&directory);
    claim(&still, &["running"]);
    still.set(keys::CLEARED, Some(Bytes::from_static(UNREADABLE)));
    still.engine.sync().unwrap();
    drop(still);
    let still = opened::<MapEngine>(&directory);
    assert!(still.load(id("running")).is_some_and(|record| matches!(record.state, State::Interrupted { .. })));
    note(&still);
    assert_ne!(still.engine.get(keys::CLEARED).unwrap().unwrap(), UNREADABLE);
}
