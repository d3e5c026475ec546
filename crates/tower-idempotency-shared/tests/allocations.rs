//! What a first request allocates over a shared store, in a program of its own: no other test of this process allocates
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

use allocation_counter::measure;
use axum::Router;
use testkit::bench::exchange::{SMALL, bare, layer, request};
use tower::ServiceExt as _;
use tower_idempotency::OnInterrupted;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::SharedStore;

#[test]
fn a_first_request_over_a_shared_store_allocates_few_blocks_and_few_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(SharedStore::open(MemoryBackend::new())).unwrap();
    let layer = layer(store, OnInterrupted::Rerun);
    let [bare, layered] = [bare(SMALL), bare(SMALL).layer(layer)].map(|app| app.with_state(()));
    let cost = |app: &Router, number: u32| {
        let request = request(Some(&format!("key-{number}")));
        let cost = measure(|| {
            let response = runtime.block_on(app.clone().oneshot(request)).unwrap();
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("idempotent-replayed"));
        });
        (cost.count_total, cost.bytes_total)
    };
    let least = |app| (0..200).map(|number| cost(app, number)).min().unwrap();
    let ((blocks, bytes), (bare_blocks, bare_bytes)) = (least(&layered), least(&bare));
    let (blocks, bytes) = (blocks - bare_blocks, bytes - bare_bytes);
    println!("{blocks} blocks, {bytes} bytes");
    assert!(blocks <= 68 && bytes <= 21_000, "{blocks} blocks, {bytes} bytes");
}
