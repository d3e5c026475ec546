//! Reads a store's lists, and the entries of its own table, in the layout of `src/store/embedded/layout/keys.rs`.

use bytes::Bytes;
use tower_idempotency::internals::{List, ListedRecord, Records};
use tower_idempotency::store::InterruptedRun;

use super::disk::Table;

/// At most `limit` operations that the store lists as interrupted, as a reconciler gets them.
pub async fn interrupted(store: &impl Records, limit: usize) -> Vec<InterruptedRun> {
    let page = store.list(List::Interrupted, None, limit).await.expect("the store lists");
    let run = |listed: &ListedRecord| InterruptedRun::of(listed.id, listed.record.as_ref().ok()?);
    page.records.iter().filter_map(run).collect()
}

/// The ids in all entries of a kind: `e`, expiring; `n`, claimed.
pub fn listed(records: &impl Table, kind: &str) -> Vec<[u8; 32]> {
    let ids = |(_, list): (Bytes, Bytes)| {
        list[..list.len() - 8].chunks(40).map(|item| item[..32].try_into().expect("an id")).collect::<Vec<_>>()
    };
    records.scan(kind).into_iter().flat_map(ids).collect()
}

/// Asserts that the totals say the sum of the numbers of all entries that they count, and leave out none but those that
/// are about to be removed: at the next opening nothing has to be made anew.
pub fn assert_summed(records: &impl Table) {
    let number = |key: Bytes| u64::from_be_bytes(*key.last_chunk().expect("it ends with its number"));
    let totals = records.get("mtotals").expect("it is always there");
    let totals: Vec<u64> = totals.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number)).collect();
    let [_count, _seen, sum, _bytes, _step, below, leaving @ ..] = &totals[..] else { panic!("{totals:?}") };
    let keys = ["e", "n"].into_iter().flat_map(|kind| records.scan(kind));
    let numbers: Vec<u64> = keys.map(|(key, _)| number(key)).collect();
    assert!(numbers.iter().all(|number| number < below), "none is of a step that was interrupted");
    let counted = numbers.iter().filter(|number| !leaving.contains(number));
    assert_eq!(counted.fold(0, |sum: u64, number| sum.wrapping_add(*number)), *sum);
}
