//! How many calls with writes are right at once, over a link that delays each answer.

use std::time::Duration;

use peers::stores::{CONNECTIONS, postgres_of};
use testkit::bench::cpu::cpu_time_with_children;
use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::exchange::{SMALL, protected};
use testkit::bench::load::round;
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;
use testkit::proxy::{Fate, Pass, Proxy, Way};
use tokio::time::sleep;
use tower_idempotency::OnInterrupted;

/// The delays, in milliseconds, and how many requests there are for each client in a round.
const LINKS: [(u64, usize); 3] = [(0, 30), (1, 30), (5, 15)];
const CLIENTS: [usize; 3] = [1, 8, 64];
/// The most calls of the other stores.
const CALLS: [usize; 3] = [1, 2, 8];

/// What a round took: its throughput, and the server's CPU time for each request.
struct Took {
    throughput: f64,
    server: f64,
}

/// A figure: its name, and what it is of a round.
type Figure = (&'static str, fn(&Took) -> f64);

const FIGURES: [Figure; 2] = [("throughput", |took| took.throughput), ("CPU, server", |took| took.server)];

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    let mut serial = 1 << 48;
    for (delay, requests) in LINKS {
        let link = Proxy::to(server.address(), move |_| Some(Delay(Duration::from_millis(delay)))).await;
        let mut apps = Vec::new();
        for calls in [CONNECTIONS].into_iter().chain(CALLS) {
            apps.push(protected(SMALL, postgres_of(&link.url(), calls).await, OnInterrupted::Refuse));
        }
        for clients in CLIENTS {
            let mut rounds: Vec<Vec<Took>> = apps.iter().map(|_| Vec::new()).collect();
            let requests = clients * requests;
            for turn in 0..=pairs() {
                for place in 0..apps.len() {
                    let place = (place + turn) % apps.len();
                    let before = cpu_time_with_children(server.pid());
                    let throughput = round(&apps[place], clients, requests, &mut serial).await.throughput;
                    let server = (cpu_time_with_children(server.pid()) - before) / requests as f64;
                    // The first turn warms up.
                    if turn > 0 {
                        rounds[place].push(Took { throughput, server });
                    }
                }
            }
            let group = format!("calls, {clients} clients, a link of {delay} ms");
            for (calls, theirs) in CALLS.into_iter().zip(&rounds[1..]) {
                for (figure, what) in FIGURES {
                    let [ours, theirs] = [&rounds[0], theirs].map(|rounds| rounds.iter().map(what).collect());
                    let name = format!("{figure}, up to {CONNECTIONS} calls over up to {calls}");
                    report.row(&group, &name, "×", Pairs { ours, theirs }.ratio());
                }
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
