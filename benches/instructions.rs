//! Checks that no way through the layer has become more expensive.
//!
//! `cargo bench --bench instructions` counts the instructions of each way with callgrind (Debian's `valgrind`), and
//! fails if a count is 3 % more than in `benches/instructions.json`. `cargo bench --bench instructions -- --save`
//! writes that file anew. Counts of another compiler or processor are shown, and not compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use axum::Router;
use http::{HeaderValue, Uri};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use testkit::bench::callgrind::{MANY, NO_VALGRIND, NoValgrind, counted, instructions, skip};
use testkit::bench::exchange::{SMALL, bare, keyed, protected};
use testkit::bench::load::key;
use testkit::bench::report::{compiler, processor};
use tower::ServiceExt as _;
use tower_idempotency::{Fingerprint, MemoryStore, OnInterrupted, RecordId};

const MOST: f64 = 1.03;
const LARGE: usize = 16 << 10;
const WAYS: [&str; 7] = ["bare", "no-key", "first", "replay", "replay-16-KiB", "reused-key", "fingerprint-16-KiB"];

/// The counts, and the compiler and processor that they are for.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    compiler: String,
    processor: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    if let Some((way, times)) = counted() {
        go(&way, times);
        return ExitCode::SUCCESS;
    }
    let Ok(now) = count() else {
        skip(NO_VALGRIND);
        return ExitCode::SUCCESS;
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    if std::env::args().any(|argument| argument == "--save") {
        std::fs::write(file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
        return ExitCode::SUCCESS;
    }
    let before: Counts = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    compare(&before, &now)
}

fn count() -> Result<Counts, NoValgrind> {
    let one = |way: &str| Ok((way.to_owned(), instructions(way)?.round() as u64));
    let instructions = WAYS.into_iter().map(one).collect::<Result<_, _>>()?;
    Ok(Counts { compiler: compiler(), processor: processor(), instructions })
}

fn compare(before: &Counts, now: &Counts) -> ExitCode {
    let comparable = (&before.compiler, &before.processor) == (&now.compiler, &now.processor);
    let mut worse = 0;
    for (way, count) in &now.instructions {
        let Some(old) = before.instructions.get(way) else {
            println!("{way:<22} {count:>9}, new");
            continue;
        };
        let ratio = *count as f64 / *old as f64;
        let is_worse = comparable && ratio > MOST;
        worse += usize::from(is_worse);
        println!("{way:<22} {count:>9}, before {old:>9}: {ratio:.3}{}", if is_worse { " TOO MANY" } else { "" });
    }
    if before.compiler != now.compiler {
        skip("counted before with another compiler: cargo bench --bench instructions -- --save");
    } else if !comparable {
        println!("SKIPPED: not compared: counted before on {}", before.processor);
    }
    if worse == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{worse} ways take over 3 % more. If that is wanted: cargo bench --bench instructions -- --save");
    ExitCode::FAILURE
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
