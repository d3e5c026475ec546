//! Figures: what a put costs alone, and together with others. Run by hand:
//! `cargo test --release --features postgres --test postgres figures -- --ignored --nocapture`

use std::time::Instant;

use tower_idempotency::store::shared::Backend as _;

use super::lab::{Lab, claim, complete, id, own_server, token};

#[tokio::test]
#[ignore = "it measures, and shows nothing"]
async fn figures_of_one_put_and_of_thirty_two() {
    let Some(server) = own_server("figures", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let mut next = 0;
    for (together, tasks, rounds) in [(1_u64, 1_u64, 300_u64), (1, 4, 300), (32, 1, 60), (32, 4, 60)] {
        let first = next;
        next += together * tasks * rounds;
        let begin = Instant::now();
        let run = |task: u64| {
            let backend = &lab.backend;
            async move {
                for round in 0..rounds {
                    let ids = (0..together).map(|n| id(first + (task * rounds + round) * together + n));
                    let claims: Vec<_> = ids.map(claim).collect();
                    let rows = backend.put(&claims).await.unwrap().rows;
                    let outcomes: Vec<_> = rows.iter().flatten().map(|row| complete(row.id, row.token)).collect();
                    backend.put(&outcomes).await.unwrap();
                }
            }
        };
        futures_util::future::join_all((0..tasks).map(run)).await;
        let puts = 2 * together * tasks * rounds;
        let seconds = begin.elapsed().as_secs_f64();
        let call = seconds * 1e3 / (2 * rounds) as f64;
        println!("{together:>2} a call, {tasks} at once: {:>6.0} puts/s, {call:.2} ms a call", puts as f64 / seconds);
    }
    let refused = Instant::now();
    for number in 0..300 {
        lab.backend.put(&[claim(id(number))]).await.unwrap();
    }
    println!("a replay, 1 at once: {:.2} ms", refused.elapsed().as_secs_f64() * 1e3 / 300.0);
    assert!(lab.put(complete(id(0), token())).await.is_some());
}
