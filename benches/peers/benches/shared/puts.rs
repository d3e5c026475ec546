//! The backend alone: the cost of a put by itself, and together with others.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;
use testkit::rows;
use tower_idempotency::RecordId;
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_shared::{Backend as _, Clocks, Token, Write};

use super::contenders::{CONNECTIONS, backend};

/// The numbers of writes in a call, of calls at once, and of calls one after the other in a round.
const CALLS: [(u64, u64, u64); 4] =
    [(1, 1, 60), (1, CONNECTIONS as u64, 60), (32, 1, 12), (32, CONNECTIONS as u64, 12)];
const REFUSED: u64 = 60;

pub(crate) async fn measure(report: &mut Report, url: &str) {
    let backend = backend(url).await;
    let mut serial = 0;
    for (together, at_once, calls) in CALLS {
        let (mut rates, mut times) = (Vec::new(), Vec::new());
        for turn in 0..=pairs() {
            let began = Instant::now();
            join_all(
                (0..at_once)
                    .map(|task| {
                        let first = serial + task * calls * together;
                        (0..calls).map(move |call| first + call * together)
                    })
                    .map(|firsts| write(&backend, firsts, together)),
            )
            .await;
            serial += at_once * calls * together;
            let seconds = began.elapsed().as_secs_f64();
            // Each id has a claim and an outcome.
            if turn > 0 {
                rates.push((2 * together * at_once * calls) as f64 / seconds);
                times.push(seconds * 1e6 / (2 * calls) as f64);
            }
        }
        let group = format!("puts, {together} a call, {at_once} at once");
        report.row(&group, "puts", "puts/s", Estimate::of(rates));
        report.row(&group, "a call", "µs", Estimate::of(times));
    }
    let mut times = Vec::new();
    for _ in 0..pairs() {
        let began = Instant::now();
        for number in 0..REFUSED {
            backend.put(Clocks::default(), &[claim(id(number))]).await.expect("it is answered");
        }
        times.push(began.elapsed().as_secs_f64() * 1e6 / REFUSED as f64);
    }
    report.row("puts, 1 a call, 1 at once", "a claim that is refused", "µs", Estimate::of(times));
}

/// Claims `together` ids in each call, and records their outcomes in the next.
async fn write(backend: &PostgresBackend, firsts: impl Iterator<Item = u64>, together: u64) {
    for first in firsts {
        let claims: Vec<_> = (first..first + together).map(|number| claim(id(number))).collect();
        let rows = backend.put(Clocks::default(), &claims).await.expect("it is answered").rows;
        let outcomes: Vec<_> = rows.iter().flatten().map(|row| complete(row.id, row.token)).collect();
        assert_eq!(outcomes.len() as u64, together);
        backend.put(Clocks::default(), &outcomes).await.expect("it is answered");
    }
}

fn id(number: u64) -> RecordId {
    RecordId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

fn claim(id: RecordId) -> Write {
    Write { state: Bytes::from_static(&[1; 128]), ..rows::claim(id) }
}

fn complete(id: RecordId, expect: Token) -> Write {
    Write { state: Bytes::from_static(&[2; 360]), ..rows::complete(id, expect) }
}
