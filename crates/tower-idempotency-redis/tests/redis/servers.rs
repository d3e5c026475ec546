//! The number of the server changes whenever rows that were shown may be gone, and a server that is no primary any more
//! is left.

use testkit::process::until;
use tower_idempotency_shared::BackendError;

use crate::lab::{Lab, RedisServer, builder, claim, id, is_done, own_server, pair};

/// The server's process is the same: its run id does not change.
#[tokio::test]
async fn a_wipe_makes_another_server() {
    let Some(server) = own_server("that a wipe is noticed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.put(&claim(id(1))).await.unwrap();
    let before = lab.server().await;
    server.say("FLUSHALL");
    let after = lab.server().await;
    assert_ne!(after, before);
    assert_eq!(lab.server().await, after);
    assert_eq!(lab.get(id(1)).await.unwrap(), None);
}

/// The primary was demoted and promoted again, and the connection stayed.
#[tokio::test]
async fn a_promotion_makes_another_server_also_on_a_connection_that_stays() {
    let Some((primary, replica)) = pair("that a promotion is noticed") else { return };
    let lab = Lab::new(&primary.url()).await;
    let before = lab.server().await;
    let (host, port) = (replica.address().ip(), replica.address().port());
    replica.say("REPLICAOF NO ONE");
    primary.say(&format!("REPLICAOF {host} {port}"));
    until("it is a replica", async || primary.say("INFO replication").contains("master_link_status:up")).await;
    primary.say("REPLICAOF NO ONE");
    assert_ne!(lab.server().await, before);
}

#[tokio::test]
async fn a_demoted_primary_does_nothing_and_is_left() {
    let Some((primary, replica)) = pair("that a demoted primary is left") else { return };
    is_left(&primary, &replica).await;
}

#[tokio::test]
async fn trap_132_a_demoted_primary_that_lets_replicas_be_written_does_nothing_and_is_left() {
    let Some(primary) = own_server("that a demoted primary is left", &["replica-read-only no"]) else { return };
    let replica = primary.replica(&[]);
    is_left(&primary, &replica).await;
}

async fn is_left(primary: &RedisServer, replica: &RedisServer) {
    let lab = Lab::new(&primary.url()).await;
    let (host, port) = (replica.address().ip(), replica.address().port());
    replica.say("REPLICAOF NO ONE");
    primary.say(&format!("REPLICAOF {host} {port}"));
    let write = claim(id(1));
    for _ in 0..2 {
        // First the script is refused, and then the connection: its role is not that of a primary.
        let answer = lab.put(&write).await;
        assert!(matches!(answer, Err(BackendError::Nothing(_))), "{answer:?}");
        let shown = lab.get(id(1)).await;
        assert!(matches!(shown, Err(BackendError::Nothing(_))), "{shown:?}");
    }
    let moved = builder(&replica.url(), &lab.namespace).open().await.unwrap();
    assert!(is_done(crate::lab::put(&moved, &write).await.unwrap().as_ref(), &write));
}

/// It saves nothing.
#[tokio::test]
async fn a_primary_that_starts_again_without_its_rows_is_another_server() {
    let Some(mut server) = own_server("that an empty start is noticed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let write = claim(id(1));
    lab.put(&write).await.unwrap();
    let before = lab.server().await;
    server.kill();
    server.start_again();
    until("the next server answers", async || lab.get(id(1)).await.is_ok()).await;
    assert_ne!(lab.server().await, before);
    assert_eq!(lab.get(id(1)).await.unwrap(), None);
}
