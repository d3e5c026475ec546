//! A slot that moves to another node of a cluster, while several processes write.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use testkit::process::until;
use tower_idempotency_redis::RedisBackend;
use tower_idempotency_shared::BackendError;

use crate::lab::{RedisServer, at, builder, claim, client, get, id, is_done, own_server, put, server_where};
use crate::writers::Writers;

/// The namespace, and the slot of its keys.
const NAMESPACE: &str = "foo";
const SLOT: u16 = 12_182;
const NODE: &[&str] = &["cluster-enabled yes"];

/// Another node for this one, each with half of the slots. Valkey makes a node without a slot a replica.
async fn with_another(node: &RedisServer) -> RedisServer {
    let other = node.another(NODE);
    said(node, "CLUSTER ADDSLOTSRANGE 8192 16383");
    said(&other, "CLUSTER ADDSLOTSRANGE 0 8191");
    said(node, &format!("CLUSTER MEET {} {}", other.address().ip(), other.address().port()));
    until("the cluster is whole", async || {
        [node, &other].iter().all(|node| {
            let info = node.say("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
    })
    .await;
    other
}

/// Says something that is done.
fn said(node: &RedisServer, command: &str) {
    let answer = node.say(command);
    assert!(answer.starts_with("+OK"), "{command}: {answer}");
}

fn name(node: &RedisServer) -> String {
    node.say("CLUSTER MYID").lines().nth(1).unwrap().to_owned()
}

/// Returns whether the node has the slot.
fn has_it(node: &RedisServer) -> bool {
    node.say(&format!("GET {{{NAMESPACE}}}")).starts_with("$-1")
}

/// All that was answered is at the node that has the slot now.
async fn check(writers: &Writers, node: &RedisServer) {
    writers.check(&builder(&node.url(), NAMESPACE).open().await.unwrap()).await;
}

#[tokio::test]
async fn an_atomic_move_of_a_slot_loses_no_claim_and_grants_none_twice() {
    let promise = "what an atomic move of a slot loses";
    let knows = |node: &RedisServer| !node.say("CLUSTER GETSLOTMIGRATIONS").contains("unknown");
    let Some(one) = server_where(promise, NODE, "a server that moves slots atomically", knows) else { return };
    let other = with_another(&one).await;
    let writers = Writers::new(&at("cluster", &[&one, &other], "", NAMESPACE)).await;
    let moves = async {
        for (from, to) in [(&one, &other), (&other, &one), (&one, &other)] {
            writers.complete_more(200).await;
            let moves = format!("CLUSTER MIGRATESLOTS SLOTSRANGE {SLOT} {SLOT} NODE {}", name(to));
            // It is refused while the slot moves, and a move that has failed begins again.
            until("the slot has moved", async || {
                let is_there = has_it(to);
                if !is_there {
                    from.say(&moves);
                }
                is_there
            })
            .await;
        }
        writers.complete_more(200).await;
        writers.end();
    };
    tokio::join!(writers.run(), moves);
    assert!(writers.refused() > 0, "no call met the move");
    check(&writers, &other).await;
}

/// The older way: key by key. Meanwhile the namespace is at neither node.
#[tokio::test]
async fn a_slot_that_moves_key_by_key_answers_nothing_false_and_loses_no_claim() {
    let Some(one) = own_server("what a move key by key loses", NODE) else { return };
    let other = with_another(&one).await;
    let builder = at("cluster", &[&one, &other], "", NAMESPACE);
    let (writers, asks) = (Writers::new(&builder).await, builder.open().await.unwrap());
    let moves = async {
        writers.complete_more(200).await;
        said(&other, &format!("CLUSTER SETSLOT {SLOT} IMPORTING {}", name(&one)));
        said(&one, &format!("CLUSTER SETSLOT {SLOT} MIGRATING {}", name(&other)));
        let mut client = client(&one).await;
        let mut batches = 0;
        while move_keys(&mut client, &other).await > 0 {
            calls_say_nothing_false(&asks, &writers).await;
            batches += 1;
        }
        assert!(batches > 1, "it was never half done");
        // All keys are at the other node, and the slot is not.
        calls_say_nothing_false(&asks, &writers).await;
        for node in [&other, &one] {
            said(node, &format!("CLUSTER SETSLOT {SLOT} NODE {}", name(&other)));
        }
        writers.complete_more(200).await;
        writers.end();
    };
    tokio::join!(writers.run(), moves);
    check(&writers, &other).await;
}

/// Moves some keys of the slot. Returns their number.
async fn move_keys(from: &mut MultiplexedConnection, to: &RedisServer) -> usize {
    let mut some = cmd("CLUSTER");
    some.arg("GETKEYSINSLOT").arg(SLOT).arg(100);
    let keys: Vec<Vec<u8>> = some.query_async(from).await.unwrap();
    if !keys.is_empty() {
        let mut moves = cmd("MIGRATE");
        moves.arg(to.address().ip().to_string()).arg(to.address().port()).arg("").arg(0).arg(60_000);
        moves.arg("KEYS").arg(&keys).exec_async(from).await.unwrap();
    }
    keys.len()
}

/// A row that is known, and one that no process has: a read and a claim of each.
async fn calls_say_nothing_false(asks: &RedisBackend, writers: &Writers) {
    let known = writers.known().unwrap();
    let is_nothing = |error: &BackendError| matches!(error, BackendError::Nothing(_) | BackendError::Busy(_));
    for answer in [get(asks, known.id).await, put(asks, &claim(known.id)).await] {
        assert!(answer.as_ref().map_or_else(is_nothing, |row| is_done(row.as_ref(), &known)), "{answer:?}");
    }
    let absent = id(u64::MAX);
    let shown = get(asks, absent).await;
    assert!(shown.as_ref().map_or_else(is_nothing, Option::is_none), "{shown:?}");
    let claimed = put(asks, &claim(absent)).await;
    assert!(claimed.as_ref().is_err_and(is_nothing), "no node has all keys of the call: {claimed:?}");
}
