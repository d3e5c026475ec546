//! How many calls with writes are right at once, over a link that delays each answer.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::exchange::{SMALL, protected};
use testkit::bench::load::round;
use testkit::bench::report::Report;
use testkit::proxy::{Fate, Pass, Proxy, Way};
use tokio::time::sleep;
use tower_idempotency::OnInterrupted;

use super::contenders::{CONNECTIONS, store_of};

/// The delays, in milliseconds, and how many requests there are for each client in a round.
const LINKS: [(u64, usize); 3] = [(0, 30), (1, 30), (5, 15)];
const CLIENTS: [usize; 3] = [1, 8, 64];
/// The most calls of the other stores.
const CALLS: [usize; 2] = [1, 2];

pub(crate) async fn measure(report: &mut Report, server: SocketAddr) {
    let mut serial = 1 << 48;
    for (delay, requests) in LINKS {
        let link = Proxy::to(server, move |_| Some(Delay(Duration::from_millis(delay)))).await;
        let mut apps = Vec::new();
        for calls in [CONNECTIONS].into_iter().chain(CALLS) {
            apps.push(protected(SMALL, store_of(&link.url(), calls).await, OnInterrupted::Refuse));
        }
        for clients in CLIENTS {
            let mut rates = vec![Vec::new(); apps.len()];
            for turn in 0..=pairs() {
                for place in 0..apps.len() {
                    let place = (place + turn) % apps.len();
                    let round = round(&apps[place], clients, clients * requests, &mut serial).await;
                    // The first turn warms up.
                    if turn > 0 {
                        rates[place].push(round.throughput);
                    }
                }
            }
            let group = format!("calls, {clients} clients, a link of {delay} ms");
            for (calls, theirs) in CALLS.into_iter().zip(&rates[1..]) {
                let pairs = Pairs { ours: rates[0].clone(), theirs: theirs.clone() };
                let name = format!("throughput, up to {CONNECTIONS} calls over up to {calls}");
                report.row(&group, &name, "×", pairs.ratio());
            }
        }
    }
}

/// Delays what the server sends.
struct Delay(Duration);

impl Fate for Delay {
    async fn read(&self, way: Way, _: &[u8]) -> Pass {
        if way == Way::Response && !self.0.is_zero() {
            sleep(self.0).await;
        }
        Pass::On
    }
}
