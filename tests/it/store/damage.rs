//! Damaged records on disk are refused and counted, and hide no other record. Only the bytes of a record are an answer.

use testkit::lab::{Lab, id, on_disk, tree};
use tower_idempotency::{IdempotencyLayer, SledStore};

const SMALL: usize = 10;
const LARGE: usize = 10_000;

/// Records an outcome under `k` and one under `other`, damages the store, and posts again.
async fn damaged_is_refused(length: usize, damage: impl Fn(&sled::Tree)) {
    for fail_open in [false, true] {
        // No cache, so that the disk answers.
        let (_directory, store) = on_disk(SledStore::builder().outcome_cache_bytes(0));
        let layer = IdempotencyLayer::new(store.clone()).fail_open(fail_open);
        let lab = Lab::new(layer.clone(), move |_| async move { "x".repeat(length) });
        lab.post("k", "a").await;
        lab.post("other", "a").await;
        assert!(lab.post("k", "a").await.is_replay());
        damage(&tree(&store));
        for refusals in 1..=2 {
            let refused = lab.post("k", "a").await;
            refused.assert_refusal(503, "store-unavailable", false, None);
            assert_eq!(refused.json()["record_id"], id("k").short());
            assert_eq!(layer.stats().corrupt, refusals);
        }
        assert!(lab.post("other", "a").await.is_replay(), "the damage is one key's");
        assert_eq!((lab.effects(), layer.stats().unprotected), (2, 0));
    }
}

fn record_key(key: &str) -> Vec<u8> {
    [b"r", &id(key).as_bytes()[..]].concat()
}

#[tokio::test]
async fn trap_59_bytes_that_are_no_record_are_refused_and_counted() {
    damaged_is_refused(SMALL, |tree| drop(tree.insert(record_key("k"), "garbage").unwrap())).await;
    damaged_is_refused(SMALL, |tree| drop(tree.insert(record_key("k"), "").unwrap())).await;
}

#[tokio::test]
async fn trap_59_a_record_with_one_wrong_bit_is_refused() {
    damaged_is_refused(SMALL, |tree| {
        let mut bytes = tree.get(record_key("k")).unwrap().unwrap().to_vec();
        bytes[20] ^= 1;
        tree.insert(record_key("k"), bytes).unwrap();
    })
    .await;
}

#[tokio::test]
async fn trap_59_another_keys_record_is_refused() {
    damaged_is_refused(SMALL, |tree| {
        let other = tree.get(record_key("other")).unwrap().unwrap();
        tree.insert(record_key("k"), other).unwrap();
    })
    .await;
}

fn chunks(tree: &sled::Tree) -> Vec<sled::IVec> {
    let chunks = tree.scan_prefix([b"c", &id("k").as_bytes()[..]].concat()).keys();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect();
    assert_eq!(chunks.len(), 3, "10,000 bytes in chunks of at most 4,000");
    chunks
}

#[tokio::test]
async fn trap_59_an_outcome_with_a_part_missing_or_altered_is_refused() {
    damaged_is_refused(LARGE, |tree| drop(tree.remove(&chunks(tree)[1]).unwrap())).await;
    damaged_is_refused(LARGE, |tree| {
        let last = &chunks(tree)[2];
        let same_length = vec![b'y'; tree.get(last).unwrap().unwrap().len()];
        tree.insert(last, same_length).unwrap();
    })
    .await;
}
