//! How many connections a process has, as the crate's page says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use tower_idempotency_shared::{Backend as _, Clocks, Kind, Write};

use crate::lab::{Lab, builder, claim, id, own_server, until};

const PAGE: &str = include_str!("../../../README.md");
/// From now on rows that are inserted wait for a lock, and so do their calls.
const WAIT: &str = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';
    CREATE TRIGGER wait BEFORE INSERT ON idempotency.record FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_has_as_many_connections_as_the_page_says() {
    let Some(server) = own_server("how many connections a process has", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let page = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["opens three connections", "at most nine", "`connections(3)`", "at most six"] {
        assert!(page.contains(said), "{said}");
    }
    for (chosen, most) in [(None, 9), (Some(3), 6)] {
        let name = format!("process_{most}");
        let mut builder = builder(&format!("{}?application_name={name}", server.url()), &name);
        if let Some(connections) = chosen {
            builder = builder.connections(connections);
        }
        let backend = Arc::new(builder.open().await.unwrap());
        let count = async || {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
            lab.client.query_one(count, &[&name]).await.unwrap().get::<_, i64>(0)
        };
        until("one for calls and two for notifications", async || count().await == 3).await;
        lab.sql(WAIT).await;
        lab.sql("SELECT pg_advisory_lock(7)").await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut calls = JoinSet::new();
        for number in 0..30 {
            let (backend, is_over) = (Arc::clone(&backend), Arc::clone(&is_over));
            let claim = claim(id(number));
            let write = if number == 0 { Write { kind: Kind::Session, ..claim } } else { claim };
            calls.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    // One that has waited for long fails, and comes again.
                    if number % 2 == 0 {
                        drop(backend.put(Clocks::default(), std::slice::from_ref(&write)).await);
                    } else {
                        drop(backend.get(Clocks::default(), &[write.id]).await);
                    }
                }
            });
        }
        until("all are busy", async || count().await == most).await;
        is_over.store(true, Ordering::Relaxed);
        lab.sql("SELECT pg_advisory_unlock(7); DROP FUNCTION wait CASCADE").await;
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        assert!(count().await <= most);
    }
}
