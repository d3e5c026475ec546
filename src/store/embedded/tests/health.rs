//! A store that is slow, behind, or poisoned.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::map_engine::{LENT, MapEngine};
use super::*;
use crate::store::embedded::watchdog::Looks;
use crate::store::page::List;

#[tokio::test]
async fn a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again() {
    on_each!(async E, {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let store = setup::<E>(&clock()).open(&path).unwrap();
        run(&store, "cached").await;
        store.shared().poison("a test".to_owned());

        assert!(matches!(store.health(), Health::Poisoned { reason } if reason == "a test"));
        assert!(store.load(id("cached")).await.unwrap().is_some());
        let unavailable = |error: StoreError| matches!(error, StoreError::Unavailable { .. });
        assert!(unavailable(store.load(id("other")).await.unwrap_err()));
        for may_repeat in [false, true] {
            let claim = Transition::Claim(Claim { may_repeat, ..wish() });
            assert!(unavailable(store.apply(id("other"), claim).await.unwrap_err()));
        }
        assert!(unavailable(store.sync().await.unwrap_err()));
        assert!(unavailable(store.list(List::Interrupted, None, 1).await.unwrap_err()));
        assert!(matches!(store.close().await, Err(StoreError::Uncertain { .. })));

        let store = setup::<E>(&clock()).open(&path).unwrap();
        assert_eq!(store.health(), Health::Good);
        run(&store, "other").await;
    });
}

#[test]
fn who_is_not_answered_because_the_database_panicked_finds_the_store_poisoned_and_the_others_are_answered() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        let shared = setup::<E>(&clock()).prepare(&directory.path().join("s")).unwrap();
        let engine = shared.engine().unwrap();
        let mut batch = Batch::new(&shared, &engine);
        let ((one, mut first), (other, mut second)) = (oneshot::channel(), oneshot::channel());
        batch.answer::<()>(one, |_| panic!("as sled does"));
        batch.answer(other, |_| Ok(2));
        batch.commit().unwrap();
        assert!(matches!(first.try_recv().unwrap(), Err(StoreError::Unavailable { .. })));
        assert!(shared.is_poisoned());
        assert_eq!(second.try_recv().unwrap().unwrap(), 2);
    });
}

// Seeded fault: it is done before the answers.
#[test]
fn what_an_engine_does_after_the_answers_takes_none_of_them_back_and_poisons_the_store_if_it_fails() {
    let still = Still::<MapEngine>::new();
    still.engine.fail_after_syncs();
    let mut batch = still.batch();
    let mut answer = step(&mut batch, id("k"), Transition::Claim(wish()));
    batch.commit().unwrap_err();
    claimed(id("k"), answer.try_recv().unwrap());
    assert!(still.shared.is_poisoned());
}

#[tokio::test]
async fn what_was_queued_when_the_store_was_poisoned_is_not_said_to_be_done() {
    on_each!(async E, {
        let directory = tempfile::tempdir().unwrap();
        let store = setup::<E>(&clock()).open(directory.path().join("s")).unwrap();
        let queued: Vec<_> =
            (0..100).map(|number| store.apply(id(&format!("k{number}")), Transition::Claim(wish()))).collect();
        store.shared().poison("a test".to_owned());
        let mut refused = 0;
        for answer in queued {
            match answer.await {
                Ok(Stepped { reply: Reply::Taken, .. }) => {
                    assert_eq!(refused, 0, "in order: nothing is done after something was not");
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
                    refused += 1;
                }
            }
        }
    });
}

// Seeded fault: such a read poisons the store.
#[test]
fn a_read_for_which_no_descriptor_is_left_fails_alone_and_the_next_one_succeeds() {
    let still = Still::<MapEngine>::new();
    let mut batch = still.batch();
    // The sweep reads what has changed since it was listed.
    let [old, swept] = ["old", "swept"].map(|name| complete(&still, &mut batch, name, vec![1; 10_000].into()));
    batch.commit().unwrap();
    still.clock.advance(HOUR * 2);
    still.engine.set_short(true);

    let mut batch = still.batch();
    let mut before = step(&mut batch, id("before"), Transition::Claim(wish()));
    let mut refused = step(&mut batch, old, Transition::Claim(wish()));
    let mut after = step(&mut batch, id("after"), Transition::Claim(wish()));
    let unswept = sweep(&mut batch, SWEPT_IDLE).unwrap_err();
    batch.commit().unwrap();
    claimed(id("before"), before.try_recv().unwrap());
    claimed(id("after"), after.try_recv().unwrap());
    for error in [refused.try_recv().unwrap().unwrap_err(), unswept] {
        assert!(matches!(error, StoreError::Unavailable { source: Some(_), .. }), "{error:?}");
    }
    assert!(!still.shared.is_poisoned());
    assert_eq!(still.shared.slots.telemetry.counters.corrupt.load(Ordering::Relaxed), 0);

    still.engine.set_short(false);
    assert_eq!(still.count("r"), 4);
    assert_eq!(still.sweep(), 2);
    assert!(still.load(swept).is_none());
    let mut batch = still.batch();
    let mut again = step(&mut batch, old, Transition::Claim(wish()));
    batch.commit().unwrap();
    claimed(old, again.try_recv().unwrap());
}

#[test]
fn a_write_that_never_returns_shows_in_the_health_and_poisons_the_store_after_a_minute() {
    on_each!(E, {
        let directory = tempfile::tempdir().unwrap();
        // The writer's thread is not started, because it would write.
        let shared = setup::<E>(&clock()).prepare(&directory.path().join("s")).unwrap();
        let mut looks = Looks::default();
        let mut look_after = |seconds| {
            *shared.batch.lock() = Some(Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap());
            (looks.look(&shared), shared.health())
        };
        assert_eq!(look_after(1), (false, Health::Good));
        assert!(matches!(look_after(5), (false, Health::Slow { .. })));
        let (given_up, health) = look_after(61);
        assert!(given_up);
        assert!(matches!(health, Health::Poisoned { reason } if reason.contains("60s")));
        *shared.batch.lock() = None;
        assert!(matches!(shared.health(), Health::Poisoned { .. }), "it stays so: what is on disk is unknown");
        assert!(shared.check().is_err());
    });
}

// Seeded faults: that time counts; only a part of it is left out.
#[test]
fn a_time_in_which_the_process_was_stopped_is_not_one_in_which_a_write_has_not_returned() {
    let still = Still::<MapEngine>::new();
    let before = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    let look = |batch, last| {
        *still.shared.batch.lock() = Some(before(batch));
        let mut looks = Looks::default();
        looks.last = before(last);
        (looks.look(&still.shared), still.shared.health())
    };
    assert_eq!(look(62, 61), (false, Health::Good));
    // The batch began after the last look, or the next one after the process went on.
    assert_eq!((look(60, 61), look(0, 61)), ((false, Health::Good), (false, Health::Good)));
    // It was slow before.
    assert!(matches!(look(67, 61), (false, Health::Slow { .. })));
    assert!(matches!(look(130, 61), (true, Health::Poisoned { .. })));
}

/// Ways to take a store's directory away.
const TAKE_AWAY: [fn(&Path); 4] = [
    |path| fs::remove_dir_all(path).unwrap(),
    |path| fs::rename(path, path.with_extension("old")).unwrap(),
    |path| fs::rename(path.parent().unwrap(), path.parent().unwrap().with_extension("old")).unwrap(),
    |path| {
        let old = path.with_extension("old");
        fs::rename(path, &old).unwrap();
        // A copy is another store.
        fs::create_dir(path).unwrap();
        for entry in fs::read_dir(&old).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
    },
];
const MOVED: &str = "removed, renamed or replaced";

/// Returns the reason why an idle store is poisoned, once it is.
async fn poisoned<E: StorageEngine>(store: &EmbeddedStore<E>) -> String {
    let began = Instant::now();
    loop {
        if let Health::Poisoned { reason } = store.health() {
            return reason;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

// Seeded faults: the place is not looked at; only whether there is a file of that name; only at the opening.
#[tokio::test]
async fn a_store_whose_directory_is_taken_away_answers_no_new_key_and_says_why_without_a_request() {
    on_each!(async E, {
        for take_away in TAKE_AWAY {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("above").join("s");
            let store = setup::<E>(&clock()).open(&path).unwrap();
            run(&store, "before").await;
            take_away(&path);
            let reason = poisoned(&store).await;
            assert!(reason.contains(MOVED), "{reason}");
            assert!(store.apply(id("after"), Transition::Claim(wish())).await.is_err());
            assert!(store.load(id("before")).await.unwrap().is_some(), "memory has it");
            assert!(matches!(store.close().await, Err(StoreError::Uncertain { .. })));
        }
    });
}

// A step that was written before the next look at the place. Seeded fault: the place is looked at while idle only.
#[test]
fn what_is_written_to_a_directory_that_was_taken_away_is_not_said_to_be_recorded() {
    on_each!(E, {
        for take_away in TAKE_AWAY {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("above").join("s");
            let shared = setup::<E>(&clock()).prepare(&path).unwrap();
            let engine = shared.engine().unwrap();
            let mut batch = Batch::new(&shared, &engine);
            let mut answer = step(&mut batch, id("k"), Transition::Claim(wish()));
            take_away(&path);
            let reason = batch.commit().unwrap_err();
            assert!(reason.contains(MOVED), "{reason}");
            assert!(matches!(answer.try_recv().unwrap(), Err(StoreError::Uncertain { .. })));
            assert!(shared.is_poisoned());
        }
    });
}

// Seeded fault: sled's file is not looked for.
#[tokio::test]
async fn a_store_whose_engine_s_file_is_taken_away_answers_no_new_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = setup::<SledEngine>(&clock()).open(&path).unwrap();
    run(&store, "before").await;
    fs::remove_file(path.join("db")).unwrap();
    let claimed = store.apply(id("after"), Transition::Claim(wish())).await;
    assert!(matches!(claimed, Err(StoreError::Uncertain { .. })), "{claimed:?}");
    assert!(poisoned(&store).await.contains("db"));
}

// The process may change its directory. Seeded fault: the path is kept as it was given.
#[test]
fn a_relative_path_is_made_absolute_when_a_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(directory.path().strip_prefix("/").unwrap()).join("s");
    let shared = setup::<MapEngine>(&clock()).prepare(&relative).unwrap();
    assert!(shared.path.is_absolute() && shared.check_place().is_ok(), "{:?}", shared.path);
}

#[test]
fn while_the_writer_is_behind_new_keys_are_refused_at_once() {
    on_each!(E, {
        let still = Still::<E>::new();
        let after = |age, waiting| {
            *still.shared.batch.lock() = Some(Instant::now().checked_sub(Duration::from_millis(age)).unwrap());
            still.shared.check_busy(waiting)
        };
        assert!(after(1_000, 4_095).is_ok());
        assert!(matches!(after(2_600, 0), Err(StoreError::Overloaded { .. })));
        assert!(matches!(after(0, 4_096), Err(StoreError::Overloaded { .. })));
        *still.shared.batch.lock() = None;
        assert!(still.shared.check_busy(0).is_ok());
        // After a write that never returned, the answer does not ask the client to come back in a moment.
        still.shared.poison("a write has not returned".to_owned());
        assert!(matches!(after(61_000, 5_000), Err(StoreError::Unavailable { .. })));
    });
}

/// Waits until the store has asked twice whether the engine in this directory, of which a handle is lent, is closed.
async fn is_asked_twice(path: &Path) {
    let asked = || fs::metadata(path.join(LENT)).unwrap().len();
    let (before, began) = (asked(), Instant::now());
    while asked() < before + 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "the store does not ask");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

// sled's flusher must have its pins after `close` with a lent `Db`.
#[tokio::test]
async fn an_engine_is_tended_until_the_last_handle_that_was_lent_is_gone_and_so_long_the_directory_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    for closes in [true, false] {
        let store = setup::<MapEngine>(&clock()).open(&path).unwrap();
        run(&store, if closes { "closed" } else { "dropped" }).await;
        fs::write(path.join(LENT), []).unwrap();
        if closes {
            tokio::select! {
                closed = store.close() => panic!("{closed:?}, and a handle is lent"),
                () = is_asked_twice(&path) => {}
            }
        }
        drop(store);
        is_asked_twice(&path).await;
        let refused = setup::<MapEngine>(&clock()).open(&path).map(drop);
        assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
        fs::remove_file(path.join(LENT)).unwrap();
        let store = setup::<MapEngine>(&clock()).open_within(&path, Duration::from_secs(60)).unwrap();
        store.close().await.unwrap();
    }
}
