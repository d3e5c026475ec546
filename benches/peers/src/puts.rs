//! The backend alone: the cost of a put by itself, and together with others.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;
use testkit::rows;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Backend, Clocks, Token, Write};

/// The numbers of writes in a call, and of calls one after the other in a round.
const CALLS: [(u64, u64); 2] = [(1, 60), (32, 12)];
const REFUSED: u64 = 60;

/// The states of claims, and of outcomes here. A state of an outcome elsewhere is a part of the latter.
static CLAIM: [u8; 128] = [1; 128];
static OUTCOME: [u8; 360] = [2; 360];

/// Measures calls one after the other, and so many at once. `server` returns the CPU time of the database's server so
/// far, in µs. Where calls are short, rounds are `longer`, by this factor.
pub async fn measure(report: &mut Report, backend: &impl Backend, at_once: u64, longer: u64, server: impl Fn() -> f64) {
    let mut serial = 0;
    let rounds = CALLS.into_iter().flat_map(|(together, calls)| [1, at_once].map(|at_once| (together, at_once, calls)));
    for (together, at_once, calls) in rounds {
        let calls = calls * longer;
        let (mut rates, mut times, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..=pairs() {
            let before = server();
            let began = Instant::now();
            join_all(
                (0..at_once)
                    .map(|task| {
                        let first = serial + task * calls * together;
                        (0..calls).map(move |call| first + call * together)
                    })
                    .map(|firsts| write(backend, firsts, together, OUTCOME.len())),
            )
            .await;
            serial += at_once * calls * together;
            let seconds = began.elapsed().as_secs_f64();
            // Each id has a claim and an outcome.
            let writes = (2 * together * at_once * calls) as f64;
            if turn > 0 {
                rates.push(writes / seconds);
                times.push(seconds * 1e6 / (2 * calls) as f64);
                cpu.push((server() - before) / writes);
            }
        }
        let group = format!("puts, {together} a call, {at_once} at once");
        report.row(&group, "puts", "puts/s", Estimate::of(rates));
        report.row(&group, "a call", "µs", Estimate::of(times));
        report.row(&group, "CPU, server, a put", "µs", Estimate::of(cpu));
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

/// Claims `together` ids in each call, and records their outcomes, with states of so many bytes, in the next.
pub async fn write(backend: &impl Backend, firsts: impl Iterator<Item = u64>, together: u64, state: usize) {
    for first in firsts {
        let claims: Vec<_> = (first..first + together).map(|number| claim(id(number))).collect();
        let rows = backend.put(Clocks::default(), &claims).await.expect("it is answered").rows;
        let outcomes: Vec<_> = rows.iter().flatten().map(|row| complete(row.id, row.token, state)).collect();
        assert_eq!(outcomes.len() as u64, together);
        backend.put(Clocks::default(), &outcomes).await.expect("it is answered");
    }
}

fn id(number: u64) -> RecordId {
    RecordId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

fn claim(id: RecordId) -> Write {
    Write { state: Bytes::from_static(&CLAIM), ..rows::claim(id) }
}

fn complete(id: RecordId, expect: Token, state: usize) -> Write {
    Write { state: Bytes::from_static(&OUTCOME[..state]), ..rows::complete(id, expect) }
}
