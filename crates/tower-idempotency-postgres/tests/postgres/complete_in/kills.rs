//! Servers that are killed.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tower_idempotency_postgres::tokio_postgres::{NoTls, connect};
use tower_idempotency_shared::SharedStoreBuilder;

use super::process::{Process, TABLE, charge, charges, handler};
use crate::lab::{Lab, client, own_server};

impl Process {
    /// Connects again, if the connection has ended.
    async fn reconnect(&self, url: &str) {
        let mut own = self.client.lock().await;
        if own.is_closed()
            && let Ok((client, connection)) = connect(url, NoTls).await
        {
            tokio::spawn(connection);
            *own = client;
        }
    }
}

// Killed at any moment: before the record is written, before the commit, and before its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_while_the_server_is_killed_under_load() {
    let Some(mut server) = own_server("transactions while the server is killed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    // Machines under test are slow.
    let patient = || SharedStoreBuilder::default().call_timeout(Duration::from_secs(5));
    let processes = join_all([Process::with(&lab, patient()), Process::with(&lab, patient())]).await;
    let load: Vec<_> = (0..40)
        .map(|number| {
            let (process, url) = (processes[number % 2].clone(), lab.url.clone());
            tokio::spawn(async move {
                let charge = handler(charge);
                for _ in 0..1_000 {
                    let (status, body, _) = process.send(&format!("k{number}"), &charge).await;
                    if (status, body.as_str()) == (StatusCode::OK, "charged") {
                        return;
                    }
                    process.reconnect(&url).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                panic!("no process gives an answer");
            })
        })
        .collect();
    let runs = || processes.iter().map(Process::runs).sum::<usize>();
    for _ in 0..3 {
        // Under load, some transactions are under way.
        let before = runs();
        for _ in 0..1_000 {
            if runs() > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill();
        server.start_again();
    }
    join_all(load).await.into_iter().for_each(Result::unwrap);
    let lab = Lab { client: client(&lab.url).await, ..lab };
    for number in 0..40 {
        assert_eq!(charges(&lab, &format!("k{number}")).await, 1, "k{number}");
    }
}
