//! Entries of a store on disk that list many records, and its memory of the records that exist.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::lab::disk::{Disk, DiskBuilder as _, Table};
use testkit::lab::listed::{assert_summed, interrupted, listed};
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id, on_disk};
use testkit::on_both;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Record, State};
use tower_idempotency::store::StoreError;
use tower_idempotency::test_util::ManualClock;

const NOON: Timestamp = Timestamp::from_millis(1_000_000);

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("k{number}")).collect()
}

async fn state(store: &impl Disk, name: &str) -> Option<State> {
    store.load(id(name)).await.unwrap().map(|record: Record| record.state)
}

on_both!(runs_that_were_claimed_together_end_apart_and_only_those_that_have_not_are_interrupted);
async fn runs_that_were_claimed_together_end_apart_and_only_those_that_have_not_are_interrupted<D: Disk>() {
    const RUNS: u32 = 300;
    let (directory, store) = on_disk(D::builder());
    let names = names(0..RUNS);
    let holds = join_all(names.iter().map(|name| hold(&store, name))).await;
    let entries = store.records().count("n");
    assert!(entries < 100, "{entries} entries for {RUNS} claims");
    // Every other one, so that hardly an entry's runs have all ended.
    join_all(holds.iter().step_by(2).map(|hold| store.complete(done(*hold, "done", DAY)))).await;
    let claimed = listed(&store.records(), "n");
    assert_summed(&store.records());
    let running: Vec<_> = names.iter().skip(1).step_by(2).collect();
    assert!(running.iter().all(|name| claimed.contains(id(name).as_bytes())));
    store.close().await.unwrap();

    let store = D::open(directory.path()).unwrap();
    assert_eq!(store.records().count("n"), 0, "no run is under way");
    let mut interrupted: Vec<_> = interrupted(&store, 1_000).await.iter().map(|record| record.id).collect();
    let mut expected: Vec<_> = running.iter().map(|name| id(name)).collect();
    interrupted.sort_by_key(|id| *id.as_bytes());
    expected.sort_by_key(|id| *id.as_bytes());
    assert_eq!(interrupted, expected);
    for name in names.iter().step_by(2) {
        assert!(matches!(state(&store, name).await, Some(State::Completed { .. })), "{name} is done");
    }
}

on_both!(the_last_run_of_a_batch_takes_its_list_along);
async fn the_last_run_of_a_batch_takes_its_list_along<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let names = names(0..150);
    let holds = join_all(names.iter().map(|name| hold(&store, name))).await;
    let (last, others) = holds.split_last().unwrap();
    join_all(others.iter().map(|hold| store.complete(done(*hold, "done", DAY)))).await;
    assert_eq!(store.records().count("n"), 1, "the last one's");
    store.release(last.id, last.fence).await.unwrap();
    assert_eq!(store.records().count("n"), 0);
    assert_summed(&store.records());
    assert_eq!((store.len(), listed(&store.records(), "e").len()), (149, 149));
}

on_both!(a_list_whose_time_is_over_is_swept_in_slices_and_nothing_else_with_it);
async fn a_list_whose_time_is_over_is_swept_in_slices_and_nothing_else_with_it<D: Disk>() {
    let clock = ManualClock::new(NOON);
    let (_directory, store) = on_disk(D::builder().clock(clock.clone()));
    let names = names(0..90);
    let holds = join_all(names.iter().map(|name| hold(&store, name))).await;
    join_all(holds.iter().map(|hold| store.complete(done(*hold, "old", DAY)))).await;
    let young = hold(&store, "young").await;
    store.complete(done(young, "young", DAY * 2)).await.unwrap();
    clock.advance(DAY);
    let mut swept = 0;
    while store.len() > 1 {
        let slice = store.sweep(7).await.unwrap();
        assert!(slice <= 7);
        swept += slice;
        let left = listed(&store.records(), "e").len() as u64;
        assert!(left >= store.len(), "{left} are listed of {}: who is there is listed", store.len());
    }
    // The store sweeps by itself as well.
    assert!(swept <= 90);
    store.sweep(7).await.unwrap();
    assert_eq!(listed(&store.records(), "e"), [*id("young").as_bytes()]);
    assert_summed(&store.records());
    assert!(matches!(state(&store, "young").await, Some(State::Completed { .. })));
    assert!(matches!(store.claim(wish(&names[0])).await.unwrap(), Claimed::Fresh(_)), "its key is free");
}

/// Damages an entry, whose key and value it is given.
type Damaging<T> = fn(&T, &[u8], &[u8]);

// Promise 7: in doubt, no record counts as absent. A record that is listed twice must not hide that another is lost.
on_both!(where_lists_are_lost_or_damaged_every_record_is_found_and_listed_again);
async fn where_lists_are_lost_or_damaged_every_record_is_found_and_listed_again<D: Disk>() {
    let damages: [Damaging<D::Table>; 4] = [
        |table, key, _| table.remove(key),
        |table, key, value| table.insert(key, &value[..value.len() - 1]),
        |table, key, value| table.insert(key, &value[40..]),
        |table, key, value| {
            let flipped: Vec<u8> = value.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 3)).collect();
            table.insert(key, flipped);
        },
    ];
    for kind in ["e", "n"] {
        for damage in damages {
            let clock = ManualClock::new(NOON);
            let (directory, store) = on_disk(D::builder().clock(clock.clone()));
            let run = async |name: &str| store.complete(done(hold(&store, name).await, "done", DAY)).await.unwrap();
            run("stale").await;
            clock.advance(DAY);
            run("stale").await;
            for name in ["a", "b"] {
                run(name).await;
            }
            hold(&store, "running").await;
            let own = store.records();
            let (key, value) = own.scan(kind).pop().unwrap();
            damage(&own, &key, &value);
            drop(own);
            store.close().await.unwrap();

            let store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
            assert_eq!(store.len(), 4);
            for name in ["stale", "a", "b"] {
                assert!(matches!(store.claim(wish(name)).await.unwrap(), Claimed::Held(_)), "{name} is done");
            }
            assert_eq!(interrupted(&store, 10).await.len(), 1, "and the run was interrupted");
            assert!(matches!(store.claim(wish("c")).await.unwrap(), Claimed::Fresh(_)));
            assert_summed(&store.records());
            let mut listed = listed(&store.records(), "e");
            listed.dedup();
            for name in ["stale", "a", "b", "running"] {
                assert!(listed.contains(id(name).as_bytes()), "{name} is listed again");
            }
            clock.advance(DAY * 31);
            while store.len() > 1 {
                store.sweep(10).await.unwrap();
            }
            store.close().await.unwrap();
            let store = D::builder().clock(clock).open(directory.path()).unwrap();
            assert_eq!(store.len(), 1, "the run of c");
        }
    }
}

on_both!(questions_about_an_interrupted_run_leave_no_lists_behind);
async fn questions_about_an_interrupted_run_leave_no_lists_behind<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let hold = hold(&store, "k").await;
    store.interrupt(hold.id, hold.fence).await.unwrap();
    let entries = store.records().count("e");
    let mut fence = hold.fence;
    for _ in 0..20 {
        fence = store.inquire(hold.id, fence).await.unwrap().expect("it is still interrupted");
    }
    assert_eq!(store.records().count("e"), entries);
    assert_eq!(interrupted(&store, 10).await.len(), 1);
}

on_both!(a_damaged_record_of_a_run_is_refused_for_30_days_whatever_an_older_list_says);
async fn a_damaged_record_of_a_run_is_refused_for_30_days_whatever_an_older_list_says<D: Disk>() {
    let clock = ManualClock::new(NOON);
    let (directory, store) = on_disk(D::builder().clock(clock.clone()));
    let first = hold(&store, "k").await;
    store.interrupt(first.id, first.fence).await.unwrap();
    clock.advance(DAY - Duration::from_secs(60));
    store.reclaim(wish("k"), first.fence).await.unwrap().expect("it runs again");
    store.records().insert([b"r".as_slice(), id("k").as_bytes()].concat(), "garbage");
    store.close().await.unwrap();
    let store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
    clock.advance(DAY);
    store.sweep(10).await.unwrap();
    assert!(matches!(store.claim(wish("k")).await, Err(StoreError::Corrupt { .. })));
    clock.advance(DAY * 29);
    while store.records().count("r") > 0 {
        store.sweep(10).await.unwrap();
    }
    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)), "its key is free");
}

on_both!(a_damaged_record_of_a_key_claimed_anew_is_refused_until_its_own_time_is_over);
async fn a_damaged_record_of_a_key_claimed_anew_is_refused_until_its_own_time_is_over<D: Disk>() {
    let clock = ManualClock::new(NOON);
    let (_directory, store) = on_disk(D::builder().clock(clock.clone()));
    let run = async || store.complete(done(hold(&store, "k").await, "done", DAY)).await.unwrap();
    run().await;
    clock.advance(DAY);
    run().await;
    store.records().insert([b"r".as_slice(), id("k").as_bytes()].concat(), "garbage");
    let is_refused = async || matches!(store.claim(wish("k")).await, Err(StoreError::Corrupt { .. }));
    store.sweep(10).await.unwrap();
    assert!(is_refused().await, "the old list is not its own");
    clock.advance(DAY - Duration::from_millis(1));
    store.sweep(10).await.unwrap();
    assert!(is_refused().await);
    clock.advance(Duration::from_millis(1));
    while store.records().count("r") > 0 {
        store.sweep(10).await.unwrap();
    }
    assert!(!is_refused().await, "its key is free");
}

on_both!(who_was_forgotten_is_absent_and_who_came_back_is_found_whatever_the_order);
async fn who_was_forgotten_is_absent_and_who_came_back_is_found_whatever_the_order<D: Disk>() {
    let clock = ManualClock::new(NOON);
    let (directory, store) = on_disk(D::builder().outcome_cache_bytes(0).clock(clock.clone()));
    for round in 0..3 {
        for name in names(0..200) {
            let hold = hold(&store, &name).await;
            store.complete(done(hold, "done", DAY)).await.unwrap();
        }
        for name in names(0..200) {
            assert!(state(&store, &name).await.is_some(), "round {round}");
        }
        clock.advance(DAY);
        while !store.is_empty() {
            store.sweep(50).await.unwrap();
        }
        for name in names(0..200) {
            assert_eq!(state(&store, &name).await, None, "round {round}");
        }
    }
    hold(&store, "k0").await;
    store.close().await.unwrap();
    let store = D::builder().clock(clock).open(directory.path()).unwrap();
    assert!(matches!(state(&store, "k0").await, Some(State::Interrupted { .. })));
}
