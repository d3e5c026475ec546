//! Rows that a failover may lose are not shown.

use std::time::Duration;

use tower_idempotency_redis::Durability;
use tower_idempotency_shared::BackendError;

use crate::lab::{RedisServer, builder, claim, complete, get, id, is_done, pair, put, replicated};

/// A's outcome is executed, and its wait is short. B must not replay it: a failover may lose it.
#[tokio::test]
async fn an_outcome_that_no_replica_has_is_neither_answered_nor_shown() {
    let Some((primary, replica)) = pair("that no outcome is replayed early") else { return };
    let (one, other) = (replicated(&primary.url(), "n"), replicated(&primary.url(), "n"));
    let (one, other) = (one.open().await.unwrap(), other.open().await.unwrap());
    // The control has no barrier.
    let control = builder(&primary.url(), "n").open().await.unwrap();
    let claimed = claim(id(1));
    assert!(is_done(put(&one, &claimed).await.unwrap().as_ref(), &claimed));
    replica.pause();
    let outcome = complete(id(1), claimed.token);
    let answer = put(&one, &outcome).await;
    assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    assert!(is_done(get(&control, id(1)).await.unwrap().as_ref(), &outcome), "it was executed, and is seen");
    let shown = get(&other, id(1)).await;
    assert!(matches!(shown, Err(BackendError::Uncertain(_))), "{shown:?}");
    let refused = put(&other, &claim(id(1))).await;
    assert!(matches!(refused, Err(BackendError::Uncertain(_))), "{refused:?}");
    replica.resume();
    testkit::process::until("the replica is back", async || get(&other, id(1)).await.is_ok()).await;
    assert!(is_done(get(&other, id(1)).await.unwrap().as_ref(), &outcome));
    assert!(is_done(put(&one, &outcome).await.unwrap().as_ref(), &outcome), "sent again, it is done");
}

/// The replica is cut off, the primary ends, and the replica is promoted. The control does not wait for it.
#[tokio::test]
async fn a_failover_loses_an_answered_write_only_where_no_replica_is_waited_for() {
    for waits in [true, false] {
        let Some((mut primary, replica)) = pair("what a failover loses") else { return };
        let builder_of = if waits { replicated } else { builder };
        let backend = builder_of(&primary.url(), "n").open().await.unwrap();
        let before = claim(id(1));
        assert!(is_done(put(&backend, &before).await.unwrap().as_ref(), &before));
        // The control's row has to be there: it does not wait for it.
        let caught_up = async || replica.say("DBSIZE") == primary.say("DBSIZE");
        testkit::process::until("the replica has the first row", caught_up).await;
        replica.pause();
        primary.say("CLIENT KILL TYPE replica");
        let outcome = complete(id(1), before.token);
        let was_answered = put(&backend, &outcome).await.is_ok();
        assert_eq!(was_answered, !waits, "only the control answers");
        primary.kill();
        replica.resume();
        replica.say("REPLICAOF NO ONE");
        let promoted = builder(&replica.url(), "n").open().await.unwrap();
        let row = get(&promoted, id(1)).await.unwrap();
        assert!(is_done(row.as_ref(), &before), "the outcome is lost, answered or not: {row:?}");
    }
}

// Each number of replicas that a write may wait for, where there are two. Seeded fault: one replica is enough for any
// number.
#[tokio::test]
async fn a_write_is_answered_once_as_many_replicas_have_it_as_it_waits_for() {
    let Some((primary, other)) = pair("how many replicas a write waits for") else { return };
    let replicas = [other, primary.replica(&[])];
    let mut backends = Vec::new();
    for count in 1..=2 {
        let builder = builder(&primary.url(), "n").durability(Durability::Replicas { count, fsync: false }).unwrap();
        backends.push(builder.wait_for_replicas(Duration::from_secs(2)).open().await.unwrap());
    }
    for (gone, replica) in replicas.iter().enumerate() {
        for (at, backend) in backends.iter().enumerate() {
            let (count, left) = (at + 1, replicas.len() - gone);
            let write = claim(id((10 * gone + count) as u64));
            let answer = put(backend, &write).await;
            match answer {
                Ok(row) => assert!(count <= left && is_done(row.as_ref(), &write), "{count} of {left}"),
                Err(error) => {
                    let says = error.to_string().contains(&format!("{left} of {count} replicas"));
                    assert!(count > left && says && matches!(error, BackendError::Uncertain(_)), "{count}: {error}");
                }
            }
        }
        replica.pause();
    }
    replicas.iter().for_each(RedisServer::resume);
}
