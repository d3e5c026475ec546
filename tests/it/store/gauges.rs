//! The numbers of a store, which it reads from memory.

use std::time::Duration;

use testkit::lab::disk::Disk;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{done, hold, on_disk};
use testkit::on_both;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{Gauges, Store};
use tower_idempotency::{AnyStore, MemoryStore};

async fn with_two_records<St: Store>(store: &St) -> Gauges {
    assert_eq!(store.gauges().records, Some(0));
    for key in ["k", "other"] {
        let hold = hold(store, key).await;
        store.complete(done(hold, "recorded", HOUR)).await.unwrap();
    }
    store.gauges()
}

on_both!(a_store_on_disk_has_records_bytes_free_space_and_what_its_last_batch_took);
async fn a_store_on_disk_has_records_bytes_free_space_and_what_its_last_batch_took<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let gauges = with_two_records(&store).await;
    assert_eq!((gauges.records, gauges.bytes, gauges.queue), (Some(2), Some(16), Some(0)));
    assert_eq!((gauges.batch, gauges.sweep_lag), (Some(1), Some(Duration::ZERO)));
    assert!(gauges.sync > Some(Duration::ZERO) && gauges.free_bytes > Some(0), "{gauges:?}");
    assert_eq!((gauges.lease, gauges.connections), (None, None));
    // fjall counts what it writes: here, the records in its journal.
    let written = (D::NAME == "fjall").then(|| gauges.written.unwrap());
    assert_eq!((gauges.written, gauges.merged), (written, written.map(|_| 0)));
    assert!(written.is_none_or(|written| (16..100_000).contains(&written)), "{written:?}");
    assert_eq!(AnyStore::new(store).gauges().records, Some(2));
}

#[tokio::test]
async fn a_store_in_memory_has_records_bytes_and_how_late_its_sweep_is() {
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let gauges = with_two_records(&store).await;
    assert!(gauges.records == Some(2) && gauges.bytes > Some(16) && gauges.queue.is_none(), "{gauges:?}");
    clock.advance(HOUR * 3);
    assert_eq!(store.gauges().sweep_lag, Some(HOUR * 2));
    assert_eq!(store.sweep(9).await.unwrap(), 2);
    assert_eq!(store.gauges().sweep_lag, Some(Duration::ZERO));
}
