//! A claim by the statement and one by a function, in turns.

use std::time::Instant;

use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::report::Report;
use tokio::task::JoinSet;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};

use crate::prepared::Prepared;

/// The numbers of clients at once, each with the number of its claims in a round.
const LOADS: [(usize, u64); 2] = [(1, 200), (16, 60)];
const NAMES: [&str; 2] = ["flat", "function"];

pub(crate) async fn say(url: &str, prepared: &Prepared) {
    let question = "Is a claim as a function in PL/pgSQL quicker than one as a flat statement?";
    let command = "cargo bench -p tower-idempotency-postgres --bench instructions -- turns";
    let mut report = Report::new("claims", command, question);
    let mut serial = 1 << 32;
    for (clients, claims) in LOADS {
        let mut connections = Vec::new();
        for _ in 0..clients {
            let (client, connection) = connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(&prepared.both_claims()).await.unwrap();
            connections.push(client);
        }
        let mut p50 = [Vec::new(), Vec::new()];
        for turn in 0..=pairs() {
            for place in [turn % 2, 1 - turn % 2] {
                let took = round(&mut connections, prepared, NAMES[place], claims, &mut serial).await;
                // The first round warms up.
                if turn > 0 {
                    p50[place].push(took);
                }
            }
        }
        let [theirs, ours] = p50;
        let pairs = Pairs { ours, theirs };
        let group = format!("claims, {clients} at once");
        report.row(&group, "p50, flat statement", "µs", pairs.theirs());
        report.row(&group, "p50, function over flat statement", "×", pairs.ratio());
    }
    report.say();
}

/// The median time of a claim, in µs.
async fn round(connections: &mut Vec<Client>, prepared: &Prepared, name: &str, claims: u64, serial: &mut u64) -> f64 {
    let mut running = JoinSet::new();
    for client in connections.drain(..) {
        let lines: Vec<_> = (*serial..*serial + claims).map(|number| prepared.claim(name, number)).collect();
        *serial += claims;
        running.spawn(async move {
            let mut times = Vec::new();
            for line in lines {
                let began = Instant::now();
                client.simple_query(&line).await.unwrap();
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            (client, times)
        });
    }
    let mut all = Vec::new();
    for (client, times) in running.join_all().await {
        connections.push(client);
        all.extend(times);
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
