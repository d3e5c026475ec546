//! Checks that no way through the layer over a shared store has become more expensive. The database is in memory, and
//! its instructions count, too.
//!
//! `cargo bench -p tower-idempotency-shared --bench instructions` counts and fails as the bench of the same name of
//! tower-idempotency does; with `-- --save` it writes the file anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use testkit::bench::callgrind::{MANY, compared};
use testkit::bench::exchange::{SMALL, protected, send};
use testkit::bench::load::key;
use tower_idempotency::OnInterrupted;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::SharedStore;

const WAYS: [&str; 2] = ["first", "replay"];

fn main() -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    compared(&WAYS, go, &file, "cargo bench -p tower-idempotency-shared --bench instructions")
}

/// Goes one way `times` times.
fn go(way: &str, times: u64) {
    // As many keys in each count, so that making them is no part of the difference.
    let keys: Vec<_> = (0..=MANY).map(key).collect();
    // There is one thread, so that the steps come in the same order each time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SharedStore::open(MemoryBackend::new()).await.unwrap();
        let app = protected(SMALL, store, OnInterrupted::Rerun);
        for key in &keys[..=usize::try_from(times).unwrap()] {
            let key = if way == "first" { key } else { &keys[0] };
            let response = send(&app, Some(key)).await;
            black_box(response.into_body().collect().await.unwrap());
        }
    });
}
