//! Measures the cost of comparing two requests.
//!
//! `cargo bench --bench fingerprint`. It compares the fingerprint of a request, by the length of its body, with BLAKE3
//! over the body alone; both sides take turns, in one run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::hint::black_box;
use std::time::Instant;

use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::report::Report;
use tower_idempotency::{Fingerprint, RecordId};

/// The lengths of a body, each with its name. A round hashes about `ROUND` bytes.
const BODIES: [(&str, usize); 5] =
    [("64 B", 64), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("256 KiB", 256 << 10), ("1 MiB", 1 << 20)];
const ROUND: usize = 32 << 20;
const MOST_TIMES: usize = 50_000;

fn main() {
    let question = "How fast is a request told from another?";
    let mut report = Report::new("fingerprint", "cargo bench --bench fingerprint", question);
    for (name, length) in BODIES {
        let body = vec![7; length];
        let times = (ROUND / length).min(MOST_TIMES);
        let mut both = Pairs { ours: Vec::new(), theirs: Vec::new() };
        for _ in 0..=pairs() {
            both.ours.push(speed(times, &body, |body| {
                black_box(fingerprint(body));
            }));
            both.theirs.push(speed(times, &body, |body| {
                black_box(blake3::hash(body));
            }));
        }
        report.row(name, "fingerprint", "GB/s", both.ours());
        report.row(name, "BLAKE3 alone", "GB/s", both.theirs());
        report.row(name, "ratio", "×", both.ratio());
    }
    report.finish();
}

/// Returns the fingerprint that the layer makes for an HTTP/1.1 request without credentials.
fn fingerprint(body: &[u8]) -> Fingerprint {
    Fingerprint::builder(&RecordId::from_bytes([7; 32]))
        .field("method", b"POST")
        .context_field("host", b"pay.example")
        .field("target", b"/charges")
        .context_field("content-type", b"application/x-www-form-urlencoded")
        .field("body", body)
        .with_credentials()
        .finish()
}

/// Returns the speed in GB/s of the body.
fn speed(times: usize, body: &[u8], act: impl Fn(&[u8])) -> f64 {
    let began = Instant::now();
    for _ in 0..times {
        act(black_box(body));
    }
    (times * body.len()) as f64 / began.elapsed().as_secs_f64() / 1e9
}
