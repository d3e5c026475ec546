//! Checks that no way through the layer has become more expensive.
//!
//! `cargo bench --bench instructions` counts the instructions of each way with callgrind (Debian's `valgrind`), and
//! fails if a count is 3 % more than in `benches/instructions.json`. `cargo bench --bench instructions -- --save`
//! writes that file anew. Counts of another compiler or processor are shown, and not compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use axum::Router;
use http::{HeaderValue, Uri};
use http_body_util::BodyExt as _;
use testkit::bench::callgrind::{MANY, compared};
use testkit::bench::exchange::{SMALL, bare, keyed, protected};
use testkit::bench::load::key;
use tower::ServiceExt as _;
use tower_idempotency::{Fingerprint, MemoryStore, OnInterrupted, RecordId};

const LARGE: usize = 16 << 10;
const WAYS: [&str; 7] = ["bare", "no-key", "first", "replay", "replay-16-KiB", "reused-key", "fingerprint-16-KiB"];

fn main() -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    compared(&WAYS, go, &file, "cargo bench --bench instructions")
}

/// Goes one way `times` times.
fn go(way: &str, times: u64) {
    if way == "fingerprint-16-KiB" {
        let body = vec![7; LARGE];
        return (0..times).for_each(|_| {
            let fingerprint = Fingerprint::builder(&RecordId::from_bytes([7; 32])).field("method", b"POST");
            black_box(fingerprint.field("body", black_box(&body)).finish());
        });
    }
    let length = if way == "replay-16-KiB" { LARGE } else { SMALL };
    let app = match way {
        "bare" => bare(length).with_state(()),
        // The store sweeps with every claim: nothing expires here.
        _ => protected(length, MemoryStore::builder().build(), OnInterrupted::Rerun),
    };
    // As many keys in each count, so that making them is no part of the difference.
    let keys: Vec<_> = (0..=MANY).map(|number| HeaderValue::from_str(&key(number)).unwrap()).collect();
    // There is one thread, so that the steps come in the same order each time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        send(&app, Some(&keys[0]), "/charges", 200).await;
        for key in &keys[1..=usize::try_from(times).unwrap()] {
            match way {
                "no-key" => send(&app, None, "/charges", 200).await,
                "bare" | "first" => send(&app, Some(key), "/charges", 200).await,
                "reused-key" => send(&app, Some(&keys[0]), "/charges?another", 422).await,
                _ => send(&app, Some(&keys[0]), "/charges", 200).await,
            }
        }
    });
}

async fn send(app: &Router, key: Option<&HeaderValue>, uri: &'static str, status: u16) {
    let mut request = keyed(key.cloned());
    *request.uri_mut() = Uri::from_static(uri);
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), status);
    black_box(response.into_body().collect().await.unwrap());
}
