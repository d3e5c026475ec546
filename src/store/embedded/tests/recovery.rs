//! The findings of an opening after a crash, whatever part of a step has reached the disk.

use std::collections::HashSet;

use super::map_engine::OUTLIVED;
use super::*;
use crate::store::embedded::key_filter::KeyFilter;
use crate::store::embedded::layout::cleared::Cleared;
use crate::store::embedded::layout::listing;
use crate::store::embedded::layout::storage_engine::{scan, scan_keys};
use crate::store::embedded::layout::totals::Totals;
use crate::store::embedded::open::interrupt_slice;

/// The changes of the step that is interrupted, compared with what was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One run ends, one begins, and one is completed whose claim left no trace.
    OfEach,
    /// One of two runs that one list names ends.
    OneOfTwo,
    /// A released key is claimed again, while its list stays for the sake of another run.
    ClaimedAgain,
}

/// Checks that the lists are whole, so that nothing has to be made anew.
fn assert_listed<E: Tested>(still: &Still<E>) {
    let totals = Totals::decode(still.engine.get(keys::TOTALS).unwrap().unwrap().as_ref()).unwrap();
    let listed = KeyFilter::load(&still.engine, Cleared::read(&still.engine).unwrap(), &totals).unwrap();
    assert!(listed.is_whole, "nothing has to be made anew");
}

/// Recovers only the first keys of a step, and opens the store several times. Returns `None` if the step has no more
/// keys.
fn opened_after<E: Tested>(shape: Shape, count: usize) -> Option<usize> {
    let directory = tempfile::tempdir().unwrap();
    let still = opened::<E>(&directory);
    let before = claim(&still, &["claimed before", "next to it"]);
    let mut batch = still.batch();
    match shape {
        Shape::OfEach => {
            before.iter().for_each(|hold| end(&mut batch, *hold));
            let _answer = step(&mut batch, id("claimed now"), Transition::Claim(wish()));
            complete(&still, &mut batch, "completed now", Bytes::from(vec![7; 300]));
        }
        Shape::OneOfTwo => end(&mut batch, before[0]),
        Shape::ClaimedAgain => {
            let _answer = step(&mut batch, before[0].id, Transition::Release(before[0].fence));
            batch.commit().unwrap();
            batch = still.batch();
            let _answer = step(&mut batch, id("claimed before"), Transition::Claim(wish()));
        }
    }
    let step = batch.take_writes();
    drop(batch);
    assert!(!step.is_atomic, "its keys are written one by one");
    let keys = step.in_order();
    if count > keys.len() {
        return None;
    }
    keys.into_iter().take(count).for_each(|(key, value)| still.set(&key, value));
    still.engine.sync().unwrap();
    assert_listed(&still);
    drop(still);

    let mut found = 0;
    // The store is opened once more, because the writes of the opening itself count too.
    for _ in 0..2 {
        let still = opened::<E>(&directory);
        assert_listed(&still);
        found = assert_known(&still);
    }
    Some(found)
}

/// Checks that memory has an entry for everything that is stored. Returns the number of records.
fn assert_known<E: Tested>(still: &Still<E>) -> usize {
    let ids: Vec<_> =
        scan_keys(&still.engine, keys::RECORDS).map(|key| keys::id_of(key.unwrap().as_ref()).unwrap()).collect();
    assert!(ids.iter().all(|id| still.shared.key_filter.may_have(id)), "memory has every record");
    assert_eq!(still.shared.totals.lock().count, ids.len() as u64, "the count doesn't drift");
    let bytes = |id: &RecordId| match still.load(*id).unwrap().state {
        State::Completed { outcome } => outcome.len() as u64,
        State::Running { .. } => panic!("a run of the last process"),
        State::Interrupted { .. } | State::Consumed { .. } => 0,
    };
    assert_eq!(still.shared.totals.lock().bytes, ids.iter().map(bytes).sum::<u64>(), "nor do the bytes");
    ids.len()
}

/// Returns how many bytes were written before the last step.
fn first_steps_of_interrupting<E: Tested>(still: &Still<E>) -> usize {
    let mut batch = still.batch();
    interrupt_slice(&mut batch).unwrap();
    batch.unsynced
}

#[test]
fn whatever_prefix_of_a_step_is_recovered_makes_sense_and_needs_no_repair() {
    on_each!(E, {
        for (shape, keys, last) in [(Shape::OfEach, 8, 4), (Shape::OneOfTwo, 3, 2), (Shape::ClaimedAgain, 3, 2)] {
            let seen: Vec<usize> = (0..).map_while(|count| opened_after::<E>(shape, count)).collect();
            assert!(seen.len() > keys && seen.last() == Some(&last), "{seen:?}");
        }
    });
}

// A crash between two steps of an opening: the list of the runs is removed after they are marked as interrupted.
#[test]
fn an_opening_that_is_interrupted_between_two_steps_loses_no_run() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let still = opened::<E>(&directory);
        let names: Vec<String> = (0..450).map(|number| format!("k{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for some in names.chunks(150) {
            claim(&still, some);
        }
        // The first batch of the opening, the last step of which does not reach the disk.
        let batch = first_steps_of_interrupting(&still);
        assert!(batch > 0, "more than one step");
        let listed: HashSet<_> = scan(&still.engine, keys::RUNS)
            .flat_map(|entry| {
                let (key, value) = entry.unwrap();
                listing::read(key.as_ref(), value.as_ref()).unwrap()
            })
            .map(|(id, _)| id)
            .collect();
        for name in names {
            let id = id(name);
            let is_running = matches!(still.load(id).unwrap().state, State::Running { .. });
            assert!(!is_running || listed.contains(&id), "{name} runs and is listed nowhere");
        }
    });
}

// A repair that is interrupted is begun again: the lists that it found damaged are not taken for whole.
#[test]
fn a_repair_that_fails_half_way_is_done_again_by_the_next_opening() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let still = opened::<E>(&directory);
        let mut batch = still.batch();
        for number in 0..300 {
            complete(&still, &mut batch, &format!("k{number}"), "done".into());
        }
        batch.commit().unwrap();
        // There are enough listings of records that are gone to make up for the list that is lost: each list stays for
        // the sake of one run.
        let names: Vec<String> = (0..200).map(|number| format!("released{number}")).collect();
        let held = claim(&still, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut batch = still.batch();
        for hold in held.iter().enumerate().filter(|(number, _)| number % 100 > 0).map(|(_, hold)| hold) {
            let _answer = step(&mut batch, hold.id, Transition::Release(hold.fence));
        }
        batch.commit().unwrap();
        let lists: Vec<_> = scan_keys(&still.engine, keys::EXPIRY).map(Result::unwrap).collect();
        still.set(lists[1].as_ref(), None);
        // This ends the repair, as an error of the disk does, after the opening has written its first batch.
        still.set(b"r-no-record", Some(Bytes::new()));
        still.engine.sync().unwrap();
        drop((still, lists));
        let path = directory.path().join("s");
        for _ in 0..2 {
            let failed = prepared(setup::<E>(&clock()), &path).unwrap_err();
            assert!(matches!(failed, OpenError::Database { .. }), "{failed:?}");
        }
        let engine = E::open(&E::Options::default(), &path, None).unwrap();
        set(&engine, b"r-no-record", None);
        engine.sync().unwrap();
        engine.close();
        let still = opened::<E>(&directory);
        assert_eq!(assert_known(&still), 302, "two runs were interrupted");
        assert_listed(&still);
    });
}

// If opening fails, the directory's lock must not be dropped before the engine.
#[test]
fn an_opening_that_fails_lets_the_engine_go_before_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let still = opened::<MapEngine>(&directory);
    let path = directory.path().join("s");
    still.set(keys::FORMAT, Some(Bytes::from_static(&[255])));
    still.engine.sync().unwrap();
    let Still { shared, engine, .. } = still;
    engine.close();
    drop(shared);
    assert!(!path.join(OUTLIVED).exists(), "nor does a store that is dropped");
    let failed = prepared(setup::<MapEngine>(&clock()), &path).unwrap_err();
    assert!(matches!(failed, OpenError::Format { format: 255, .. }), "{failed:?}");
    assert!(!path.join(OUTLIVED).exists());
}
