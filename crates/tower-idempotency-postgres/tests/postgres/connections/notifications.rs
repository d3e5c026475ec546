//! Listeners learn of the rows that were written.

use std::time::Duration;

use futures_util::StreamExt as _;
use tower_idempotency_shared::{Backend as _, Clocks, Kind, Write};

use crate::lab::{Lab, claim, complete, id, lab, own_server, until};

/// Writes until the listener gets a notification: those before it has connected are lost.
async fn hears(lab: &Lab, listener: &impl tower_idempotency_shared::Backend, first: u64) {
    let mut changes = listener.changes();
    for number in first.. {
        let outcome = Write { kind: Kind::Completed, ..claim(id(number)) };
        lab.put(outcome).await;
        let next = tokio::time::timeout(Duration::from_millis(500), changes.next()).await;
        if let Ok(heard) = next {
            assert!((first..=number).map(id).any(|id| heard == Some(id)));
            return;
        }
        assert!(number < first + 100, "nothing is heard");
    }
}

#[tokio::test]
async fn another_process_hears_what_was_written() {
    let Some(lab) = lab("that outcomes are heard of").await else { return };
    let another = lab.another().await;
    hears(&lab, &another, 1000).await;
    // From now on nothing is missed.
    let mut changes = another.changes();
    let claims: Vec<_> = (0..300).map(|number| claim(id(number))).collect();
    let rows = lab.backend.put(Clocks::default(), &claims).await.unwrap().rows;
    let outcomes: Vec<_> = rows.iter().flatten().map(|row| complete(row.id, row.token)).collect();
    lab.backend.put(Clocks::default(), &outcomes).await.unwrap();
    let mut missing: std::collections::HashSet<_> = (0..300).map(id).collect();
    while !missing.is_empty() {
        let heard = tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("all are heard of");
        missing.remove(&heard.unwrap());
    }
    until("a ping", async || lab.backend.guarantee().await.unwrap().setup.contains("notifications arrive")).await;
}

#[tokio::test]
async fn another_namespace_hears_nothing() {
    let Some(one) = lab("who hears").await else { return };
    let other = Lab::new(&one.url).await;
    hears(&other, &other.backend, 0).await;
    let mut changes = other.backend.changes();
    hears(&one, &one.backend, 5000).await;
    other.put(Write { kind: Kind::Completed, ..claim(id(777)) }).await;
    while let Some(heard) = changes.next().await {
        assert!((5000..).take(200).map(id).all(|foreign| heard != foreign));
        if heard == id(777) {
            break;
        }
    }
}

#[tokio::test]
async fn a_listener_whose_server_was_started_again_hears_again() {
    let Some(mut server) = own_server("that a listener comes back", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    hears(&lab, &lab.backend, 0).await;
    server.kill();
    server.start_again();
    until("the database is back", async || lab.backend.get(Clocks::default(), &[]).await.is_ok()).await;
    hears(&lab, &lab.backend, 1000).await;
}
