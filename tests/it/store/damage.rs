//! Damaged records on disk are refused and counted, and hide no other record. Only the bytes of a record are an answer.

use bytes::Bytes;
use testkit::lab::disk::{Disk, DiskBuilder as _, Table};
use testkit::lab::{Lab, id, on_disk};
use testkit::on_both;
use tower_idempotency::IdempotencyLayer;

const SMALL: usize = 10;
const LARGE: usize = 10_000;

/// Records an outcome under `k` and one under `other`, damages the store, and posts again.
async fn damaged_is_refused<D: Disk>(length: usize, damage: impl Fn(&D::Table)) {
    for fail_open in [false, true] {
        // No cache, so that the disk answers.
        let (_directory, store) = on_disk(D::builder().outcome_cache_bytes(0));
        let layer = IdempotencyLayer::new(store.clone()).fail_open(fail_open);
        let lab = Lab::new(layer.clone(), move |_| async move { "x".repeat(length) });
        lab.post("k", "a").await;
        lab.post("other", "a").await;
        assert!(lab.post("k", "a").await.is_replay());
        damage(&store.records());
        for refusals in 1..=2 {
            let refused = lab.post("k", "a").await;
            refused.assert_refusal(503, "store-unavailable", false, None);
            assert_eq!(refused.json()["record_id"], id("k").short());
            assert_eq!(layer.stats().corrupt, refusals);
        }
        assert!(lab.post("other", "a").await.is_replay(), "the damage is one key's");
        assert_eq!((lab.effects(), layer.stats().fail_open_runs), (2, 0));
    }
}

fn record_key(key: &str) -> Vec<u8> {
    [b"r", &id(key).as_bytes()[..]].concat()
}

on_both!(trap_59_bytes_that_are_no_record_are_refused_and_counted);
async fn trap_59_bytes_that_are_no_record_are_refused_and_counted<D: Disk>() {
    damaged_is_refused::<D>(SMALL, |table| table.insert(record_key("k"), "garbage")).await;
    damaged_is_refused::<D>(SMALL, |table| table.insert(record_key("k"), "")).await;
}

on_both!(trap_59_a_record_with_one_wrong_bit_is_refused);
async fn trap_59_a_record_with_one_wrong_bit_is_refused<D: Disk>() {
    damaged_is_refused::<D>(SMALL, |table| {
        let mut bytes = table.get(record_key("k")).unwrap().to_vec();
        bytes[20] ^= 1;
        table.insert(record_key("k"), bytes);
    })
    .await;
}

on_both!(trap_59_another_keys_record_is_refused);
async fn trap_59_another_keys_record_is_refused<D: Disk>() {
    damaged_is_refused::<D>(SMALL, |table| {
        let other = table.get(record_key("other")).unwrap();
        table.insert(record_key("k"), other);
    })
    .await;
}

fn chunks(table: &impl Table) -> Vec<Bytes> {
    let chunks = table.scan([b"c", &id("k").as_bytes()[..]].concat());
    let chunks: Vec<_> = chunks.into_iter().map(|(key, _)| key).collect();
    assert_eq!(chunks.len(), 3, "10,000 bytes in chunks of at most 4,000");
    chunks
}

on_both!(trap_59_an_outcome_with_a_part_missing_or_altered_is_refused);
async fn trap_59_an_outcome_with_a_part_missing_or_altered_is_refused<D: Disk>() {
    damaged_is_refused::<D>(LARGE, |table| table.remove(&chunks(table)[1])).await;
    damaged_is_refused::<D>(LARGE, |table| {
        let last = &chunks(table)[2];
        let same_length = vec![b'y'; table.get(last).unwrap().len()];
        table.insert(last, same_length);
    })
    .await;
}
