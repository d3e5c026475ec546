//! Writes that wait until a replica has synced its append-only file.

use std::time::Duration;

use testkit::process::until;
use tower_idempotency_redis::{Durability, RedisBackendBuilder, RedisError};
use tower_idempotency_shared::{Backend as _, BackendError, Row};

use crate::lab::{RedisServer, builder, claim, complete, get, id, is_done, put, replicated, server_where};

const APPENDING: &[&str] = &["appendonly yes", "appendfsync always"];

fn synced(server: &RedisServer) -> RedisBackendBuilder {
    let builder = builder(&server.url(), "n").durability(Durability::Replicas { count: 1, fsync: true }).unwrap();
    builder.wait_for_replicas(Duration::from_secs(1))
}

fn knows_waitaof(server: &RedisServer) -> bool {
    !server.say("WAITAOF 0 0 1").contains("unknown")
}

fn assert_short(answer: &Result<Option<Row>, BackendError>, says: &str) {
    let is_so = matches!(answer, Err(error @ BackendError::Uncertain(_)) if error.to_string().contains(says));
    assert!(is_so, "{says}: {answer:?}");
}

/// The control waits for a replica, and not for its disk.
#[tokio::test]
async fn a_write_that_no_replica_has_synced_is_neither_answered_nor_shown() {
    let promise = "that a replica has synced a write";
    let Some(primary) = server_where(promise, APPENDING, "a server that knows WAITAOF", knows_waitaof) else { return };
    let replica = primary.replica(APPENDING);
    let (backend, control) = (synced(&primary).open().await.unwrap(), replicated(&primary.url(), "n"));
    let control = control.open().await.unwrap();
    let setup = backend.guarantee().await.unwrap().setup;
    assert!(setup.contains("durability replicas:1:fsync, appendonly yes"), "{setup}");
    let claimed = claim(id(1));
    assert!(is_done(put(&backend, &claimed).await.unwrap().as_ref(), &claimed));
    replica.say("CONFIG SET appendonly no");
    let outcome = complete(id(1), claimed.token);
    assert_short(&put(&backend, &outcome).await, "0 of 1 replicas");
    assert_short(&get(&backend, id(1)).await, "0 of 1 replicas");
    assert!(is_done(get(&control, id(1)).await.unwrap().as_ref(), &outcome), "the replica has it in memory");
    replica.say("CONFIG SET appendonly yes");
    until("the replica syncs again", async || get(&backend, id(1)).await.is_ok()).await;
    assert!(is_done(put(&backend, &outcome).await.unwrap().as_ref(), &outcome), "sent again, it is done");
    // The primary's own file counts, too.
    primary.say("CONFIG SET appendonly no");
    assert_short(&get(&backend, id(1)).await, "WAITAOF");
}

#[tokio::test]
async fn a_server_that_does_not_know_waitaof_is_refused_with_the_reason() {
    let (promise, lacks) = ("that a server without WAITAOF is refused", |server: &RedisServer| !knows_waitaof(server));
    let Some(server) = server_where(promise, APPENDING, "a server older than Redis 7.2", lacks) else { return };
    let refused = synced(&server).open().await;
    let is_so = matches!(&refused, Err(RedisError::NotDurable { reason }) if reason.contains("knows no WAITAOF"));
    assert!(is_so, "{refused:?}");
}
