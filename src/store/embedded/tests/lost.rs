//! Losses from the end of an engine's log that a damaged disk has caused.

use std::fs;
use std::sync::atomic::Ordering;

use super::map_engine::{DAMAGED, HOLE, MapEngine};
use super::*;
use crate::store::embedded::files::checkpoint::{self, Found};
use crate::store::embedded::files::directory::CHECKPOINT_FILE;
use crate::store::embedded::layout::totals::{Checkpoint, Totals};

/// Returns the number of the last step that the engine has.
fn last_step<E: Tested>(still: &Still<E>) -> u64 {
    Totals::decode(still.engine.get(keys::TOTALS).unwrap().unwrap().as_ref()).unwrap().step
}

fn record(still: &Still<impl Tested>, name: &str) {
    let mut batch = still.batch();
    complete(still, &mut batch, name, "done".into());
    batch.commit().unwrap();
}

/// Leaves a directory whose checkpoint covers two steps that its engine does not have. Returns the last step that is
/// there.
fn without_two_steps<E: Tested>(directory: &tempfile::TempDir) -> u64 {
    let still = opened::<E>(directory);
    record(&still, "kept");
    let (last, totals) = (last_step(&still), still.engine.get(keys::TOTALS).unwrap().unwrap().as_ref().to_vec());
    for name in ["lost", "lost too"] {
        record(&still, name);
        // The damage takes everything of these steps, the totals too.
        still.set(&keys::record(&id(name)), None);
        let lists: Vec<_> = scan_keys(&still.engine, keys::EXPIRY).map(Result::unwrap).collect();
        still.set(lists.last().unwrap().as_ref(), None);
    }
    still.shared.checkpointer.end();
    still.set(keys::TOTALS, Some(totals.into()));
    still.engine.sync().unwrap();
    last
}

fn checkpoint_at(path: &Path, step: u64) {
    Checkpoint { step, time: Timestamp::from_millis(1) }.write(path).unwrap();
}

fn open<E: Tested>(path: &Path, accepted: Option<u64>) -> Result<StoreState<E>, OpenError> {
    prepared(EmbeddedStoreBuilder { accept_loss_after: accepted, ..setup::<E>(&clock()) }, path)
}

#[test]
fn a_store_that_has_lost_durable_records_is_not_opened_until_that_loss_is_accepted_by_name() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let last = without_two_steps::<E>(&directory);
        // An opening that is refused changes nothing.
        for accepted in [None, Some(last - 1), Some(last + 2)] {
            let lost = open::<E>(&path, accepted).unwrap_err();
            assert!(matches!(&lost, OpenError::Lost { last: l, missing: Some(2), .. } if *l == last), "{lost:?}");
            assert!(lost.to_string().contains("the last 2 batches of writes are missing"), "{lost}");
        }
        let shared = open::<E>(&path, Some(last)).unwrap();
        assert_eq!(shared.slots.telemetry.counters.losses_accepted.load(Ordering::Relaxed), 1);
        assert!(shared.boot > 1_000, "the fences of openings that were lost do not come back");
        assert!(shared.key_filter.may_have(&id("kept")) && !shared.key_filter.may_have(&id("lost")));
        drop(shared);
        // The setting may stay: the loss is over, and the next one has another name.
        for accepted in [None, Some(last)] {
            let shared = open::<E>(&path, accepted).unwrap();
            assert_eq!(shared.slots.telemetry.counters.losses_accepted.load(Ordering::Relaxed), 0);
        }
    });
}

#[test]
fn a_store_whose_checkpoint_is_missing_or_damaged_is_not_opened_until_that_is_accepted_by_name() {
    on_each!(E, {
        for damage in [|checkpoint: &Path| fs::remove_file(checkpoint), |checkpoint: &Path| fs::write(checkpoint, b"")]
        {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            let still = opened::<E>(&directory);
            record(&still, "kept");
            let last = last_step(&still);
            drop(still);
            damage(&path.join(CHECKPOINT_FILE)).unwrap();
            let lost = open::<E>(&path, None).unwrap_err();
            assert!(matches!(&lost, OpenError::Lost { last: l, missing: None, .. } if *l == last), "{lost:?}");
            assert!(lost.to_string().contains(CHECKPOINT_FILE), "{lost}");
            assert!(open::<E>(&path, Some(last)).unwrap().key_filter.may_have(&id("kept")));
            open::<E>(&path, None).unwrap();
        }
    });
}

// The totals and the checkpoint are whole, so only this can say it, and an engine that was opened would have forgotten
// it.
#[test]
fn a_store_with_certain_damage_is_not_opened_until_that_is_accepted_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let still = opened::<MapEngine>(&directory);
    record(&still, "kept");
    let last = last_step(&still);
    still.shared.checkpointer.end();
    drop(still);
    fs::write(path.join(HOLE), "there is a hole").unwrap();
    let map = fs::read(path.join("map")).unwrap();
    for accepted in [None, Some(last - 1), Some(last + 1)] {
        let lost = open::<MapEngine>(&path, accepted).unwrap_err();
        let OpenError::Lost { last: name, missing: None, since: None, reason, .. } = &lost else { panic!("{lost:?}") };
        assert!(*name == last && reason.contains("there is a hole"), "{lost:?}");
        assert_eq!(fs::read(path.join("map")).unwrap(), map, "it was not opened");
    }
    // A process that dies in an opening that accepts it leaves no checkpoint: the engine may have forgotten the damage.
    fs::write(path.join(DAMAGED), []).unwrap();
    open::<MapEngine>(&path, Some(last)).unwrap_err();
    fs::remove_file(path.join(DAMAGED)).unwrap();
    assert_eq!(checkpoint::read(&path).unwrap(), Found::Missing);
    checkpoint_at(&path, last);
    let shared = open::<MapEngine>(&path, Some(last)).unwrap();
    assert_eq!(shared.slots.telemetry.counters.losses_accepted.load(Ordering::Relaxed), 1);
    assert!(shared.boot > 1_000, "the fences of openings that were lost do not come back");
    drop(shared);
    assert!(matches!(checkpoint::read(&path).unwrap(), Found::Whole(_)));
    // Without a checkpoint nothing names the loss before the engine is open. The missing checkpoint refuses it then.
    fs::remove_file(path.join(CHECKPOINT_FILE)).unwrap();
    let lost = open::<MapEngine>(&path, None).unwrap_err();
    assert!(matches!(&lost, OpenError::Lost { since: Some(_), .. }), "{lost:?}");
}

// A checkpoint that says more than what is durable would refuse a whole store.
#[test]
fn the_checkpoint_covers_each_step_that_is_durable_and_never_one_that_is_not() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let still = opened::<E>(&directory);
        let known = || still.shared.totals.lock().step;
        // It has no claim on disk, so its batch writes nothing but the transaction.
        let hold = Hold { id: id("committed"), fence: still.shared.next_fence().unwrap(), attempt: 1 };
        let completion = ending(hold, RunResult::Outcome(()));
        let mut batch = still.batch();
        decide(&mut batch, transact(Purpose::Run(completion), E::nothing_but(Bytes::from("x"))));
        batch.commit().unwrap();
        assert_eq!(last_step(&still), known());
        let before = known();
        let mut batch = still.batch();
        for number in 0..600 {
            complete(&still, &mut batch, &format!("k{number}"), Bytes::from(vec![7; 1_000]));
            batch.write_if_full();
        }
        batch.commit().unwrap();
        assert!(known() > before + 1, "each of its steps has a number");
        assert_eq!(last_step(&still), known());
        // Nothing is written, and nothing counted.
        still.batch().commit().unwrap();
        assert_eq!(last_step(&still), known());
        // What was not made durable is not covered.
        let durable = known();
        still.shared.poison("a test".to_owned());
        let mut batch = still.batch();
        complete(&still, &mut batch, "failed", "done".into());
        batch.commit().unwrap_err();
        still.shared.checkpointer.end();
        drop(still);
        let found = checkpoint::read(&path).unwrap();
        assert!(matches!(found, Found::Whole(checkpoint) if checkpoint.step == durable), "{found:?}");
        open::<E>(&path, None).unwrap();
    });
}

#[tokio::test]
async fn a_store_that_is_closed_or_dropped_is_marked_to_its_last_step() {
    on_each!(async E, {
        for closes in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            let store = setup::<E>(&clock()).open(&path).unwrap();
            run(&store, "k").await;
            let durable = store.shared().totals.lock().step;
            if closes {
                store.close().await.unwrap();
            }
            drop(store);
            // The directory is free once the writer, and with it the last checkpoint, is at its end.
            let opened = setup::<E>(&clock()).open_within(&path, Duration::from_secs(60)).map(drop);
            assert!(opened.is_ok(), "{opened:?}");
            let found = checkpoint::read(&path).unwrap();
            assert!(
                matches!(found, Found::Whole(checkpoint) if checkpoint.step >= durable),
                "{found:?}, and {durable} is durable"
            );
        }
    });
}

// Seen with sled: a zeroed page made its flusher panic, for which its last handle waits for ever. Seeded fault: the
// last handle is dropped where the opening fails.
#[tokio::test]
async fn trap_119_an_opening_that_panics_on_a_damaged_file_returns_though_a_thread_of_the_engine_has_panicked_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    setup::<MapEngine>(&clock()).open(&path).unwrap().close().await.unwrap();
    fs::write(path.join(DAMAGED), []).unwrap();
    let (done, opened) = std::sync::mpsc::channel();
    let opening = path.clone();
    std::thread::spawn(move || {
        done.send(setup::<MapEngine>(&clock()).open_within(&opening, Duration::from_secs(30)).map(drop))
    });
    let opened = opened.recv_timeout(Duration::from_secs(60)).expect("it returns");
    assert!(matches!(opened, Err(OpenError::Database { .. })), "{opened:?}");
}
