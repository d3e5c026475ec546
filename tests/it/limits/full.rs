//! A full store refuses new keys before anything runs, and never a completion, nor does it forget what it holds.

use futures_util::FutureExt as _;
use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::disk::{Disk, DiskBuilder as _};
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{Lab, done, hold, on_disk, post};
use testkit::{Gate, on_both};
use tower_idempotency::internals::ClaimPolicy;
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, SledStore};

// A seeded fault: a store that is over its limit of bytes refuses each claim, also of a key with a record.
#[tokio::test]
async fn a_full_store_runs_an_interrupted_operation_again() {
    let store = MemoryStore::builder().max_bytes(1_000).build();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "interrupted").await;
    let lab =
        Lab::new(IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun), |_| async { "x".repeat(2_000) });
    assert_eq!(lab.post("large", "a").await.status, 200);
    lab.post("new", "a").await.assert_refusal(503, "store-full", true, None);
    assert_eq!(lab.post("interrupted", "a").await.status, 200);
}

fn store_full() -> (u16, String) {
    (503, "store-full".to_owned())
}

#[test]
fn trap_57_many_claims_at_once_take_all_places_and_no_more() {
    for _ in 0..500 {
        let store = MemoryStore::builder().max_records(4).build();
        let claims: Vec<_> = (0..8).map(|number| wish(&format!("k{number}"))).collect();
        let taken = std::thread::scope(|scope| {
            let store = &store;
            let claim = |wish| scope.spawn(move || store.claim(wish).now_or_never().unwrap().is_ok());
            let claims: Vec<_> = claims.into_iter().map(claim).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).filter(|taken| *taken).count()
        });
        assert_eq!((taken, store.len()), (4, 4));
        assert!(store.claim(wish("one more")).now_or_never().unwrap().is_err());
        assert_eq!(store.len(), 4);
    }
}

/// Fills the store with one run, whose outcome takes it beyond any limit of bytes; `fail_open` doesn't open it.
async fn full_refuses_claims_only<St: Store>(layer: IdempotencyLayer<St>) {
    let gate = Gate::default();
    let passed = gate.clone();
    let layer = layer.fail_open(true);
    let lab = Lab::new(layer.clone(), move |_| {
        let gate = passed.clone();
        async move {
            gate.pass().await;
            "x".repeat(10_000)
        }
    });
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    gate.open();
    let first = first.await.unwrap();
    let refused = lab.post("new", "a").await;
    assert_eq!(refused.refusal(), store_full());
    assert_eq!(refused.json()["retry_with_same_key"], true);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.is_replay(), &retry.body), (true, &first.body), "the completion was not refused");
    assert_eq!((lab.effects(), layer.stats().unsaved), (1, 0));
}

// Row: store full, over quota → 503 `store-full`, before the handler; never opened by `fail_open`.

#[tokio::test]
async fn trap_57_a_full_store_refuses_new_keys_before_the_handler_and_never_a_completion() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let layer = |store| IdempotencyLayer::new(store).on_interrupted(policy);
        full_refuses_claims_only(layer(MemoryStore::builder().max_records(1).build())).await;
        full_refuses_claims_only(layer(MemoryStore::builder().max_bytes(1_000).build())).await;
        let (_directory, store) = on_disk(SledStore::builder().max_records(1));
        full_refuses_claims_only(IdempotencyLayer::new(store).on_interrupted(policy)).await;
        #[cfg(feature = "fjall")]
        {
            let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().max_records(1));
            full_refuses_claims_only(IdempotencyLayer::new(store).on_interrupted(policy)).await;
        }
    }
}

async fn full_forgets_nothing<St: Store>(layer: IdempotencyLayer<St>) {
    let gate = Gate::default();
    let passed = gate.clone();
    let lab = Lab::new(layer, move |number| {
        let gate = passed.clone();
        async move {
            if number == 5 {
                gate.pass().await;
            }
            format!("effect {number}")
        }
    });
    for key in ["1", "2", "3", "4"] {
        assert_eq!(lab.post(key, "a").await.text(), format!("effect {key}"));
    }
    let running = lab.spawn(post("5", "a"));
    gate.arrival().await;
    for number in 0..50 {
        assert_eq!(lab.post(&format!("new-{number}"), "a").await.refusal(), store_full());
    }
    for key in ["1", "2", "3", "4"] {
        let retry = lab.post(key, "a").await;
        assert_eq!((retry.text(), retry.is_replay()), (&*format!("effect {key}"), true));
    }
    gate.open();
    assert_eq!(running.await.unwrap().text(), "effect 5");
    assert!(lab.post("5", "a").await.is_replay());
    assert_eq!(lab.effects(), 5);
}

#[tokio::test]
async fn trap_58_a_full_store_evicts_neither_running_nor_unexpired_records() {
    full_forgets_nothing(IdempotencyLayer::new(MemoryStore::builder().max_records(5).build())).await;
    let (_directory, store) = on_disk(SledStore::builder().max_records(5));
    full_forgets_nothing(IdempotencyLayer::new(store)).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().max_records(5));
        full_forgets_nothing(IdempotencyLayer::new(store)).await;
    }
}

// A short outcome is part of its record, and a long one has chunks of its own.
on_both!(max_bytes_refuses_claims_and_is_given_back_by_the_sweep);
async fn max_bytes_refuses_claims_and_is_given_back_by_the_sweep<D: Disk>() {
    let clock = clock();
    let (_directory, store) = on_disk(D::builder().max_bytes(10_000).clock(clock.clone()));
    for (hold, length) in [(hold(&store, "short").await, 3_000), (hold(&store, "long").await, 7_000)] {
        let outcome: &'static str = String::leak("x".repeat(length));
        store.complete(done(hold, outcome, HOUR)).await.unwrap();
    }
    let refused = store.claim(wish("new")).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "max_bytes" })), "{refused:?}");
    assert!(matches!(store.claim(wish("short")).await, Ok(Claimed::Held(_))));
    clock.advance(HOUR);
    while store.sweep(100).await.unwrap() > 0 {}
    assert!(matches!(store.claim(wish("new")).await, Ok(Claimed::Fresh(_))));
}
