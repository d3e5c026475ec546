//! The primary of a name: what sentinels say, and the node that has a slot of a cluster.

use testkit::process::until;
use tower_idempotency_redis::{Durability, RedisBackend};
use tower_idempotency_shared::{BackendError, Clocks, Write};

use crate::lab::{RedisServer, at, builder, claim, cluster, complete, get, id, is_done, own_server, pair, put};

/// A call that is made again until the primary is found. Each try has a limit of its own: a Valkey that hands over
/// holds calls back.
async fn settled(backend: &RedisBackend, write: &Write) {
    until("the write is done", async || put(backend, write).await.is_ok_and(|row| is_done(row.as_ref(), write))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_a_sentinel_makes_is_followed() {
    let Some((primary, replica)) = pair("that a failover is followed") else { return };
    let sentinel = RedisServer::sentinel_of(primary.address()).unwrap();
    let mut gone = own_server("a sentinel that is gone", &[]).unwrap();
    gone.kill();
    let backend = at("sentinel", &[&gone, &sentinel], "/main", "n").open().await.unwrap();
    let claimed = claim(id(1));
    settled(&backend, &claimed).await;
    until("the sentinel knows the replica", async || {
        let known = sentinel.say("SENTINEL REPLICAS main");
        known.contains(&replica.address().port().to_string()) && known.contains("master-link-status\r\n$2\r\nok")
    })
    .await;
    until("the failover begins", async || sentinel.say("SENTINEL FAILOVER main").starts_with("+OK")).await;
    until("the replica is promoted", async || replica.is("master")).await;
    until("the primary is demoted", async || primary.is("slave")).await;
    let outcome = complete(id(1), claimed.token);
    settled(&backend, &outcome).await;
    let there = builder(&replica.url(), "n").open().await.unwrap();
    assert!(is_done(get(&there, id(1)).await.unwrap().as_ref(), &outcome), "the new primary has it");
}

/// Two nodes, each with half of the slots, and a namespace in each half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_found_at_the_node_that_has_its_slot() {
    let Some(nodes) = cluster("that a slot is found", 2).await else { return };
    let [one, other] = [&nodes[0], &nodes[1]];
    // The slot of `foo` is 12,182; that of `bar` is 5,061.
    for (namespace, has_it, wrong) in [("foo", other, one), ("bar", one, other)] {
        let backend = at("cluster", &[one, other], "", namespace).open().await.unwrap();
        let write = claim(id(1));
        settled(&backend, &write).await;
        let there = has_it.say("DBSIZE");
        assert!(!there.starts_with(":0"), "{namespace}: {there}");
        // By its address alone, the wrong node refuses.
        let refused = builder(&wrong.url(), namespace).open_within(std::time::Duration::from_secs(1)).open().await;
        assert!(refused.unwrap_err().to_string().to_ascii_lowercase().contains("moved"));
    }
}

/// It was cut off from its cluster, and may answer reads all the same. So the other node is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_135_a_node_that_only_reads_is_not_taken_for_the_primary() {
    let promise = "that a node without its cluster is passed over";
    let Some(nodes) = cluster(promise, 1).await else { return };
    let alone = own_server(promise, &["cluster-enabled yes", "cluster-allow-reads-when-down yes"]).unwrap();
    // One slot is missing, so it counts its cluster as down.
    alone.say("CLUSTER ADDSLOTSRANGE 0 16382");
    assert!(alone.say("HGET {foo}m m").starts_with("$-1"), "it answers reads");
    let backend = at("cluster", &[&alone, &nodes[0]], "", "foo").open().await.unwrap();
    let write = claim(id(1));
    settled(&backend, &write).await;
    assert!(!nodes[0].say("DBSIZE").starts_with(":0"));
}

/// It has lost its list of nodes, and takes itself for the primary of all slots. No replica follows it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_139_a_node_whose_writes_reach_no_replica_is_left_for_the_next_host() {
    let promise = "that a node without its replicas is left";
    let Some(nodes) = cluster(promise, 1).await else { return };
    let node = || own_server(promise, &["cluster-enabled yes"]).unwrap();
    let (alone, replica, primary) = (node(), node(), &nodes[0]);
    alone.say("CLUSTER ADDSLOTSRANGE 0 16383");
    replica.say(&format!("CLUSTER MEET {} {}", primary.address().ip(), primary.address().port()));
    let name = primary.say("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    until("it follows", async || replica.say(&format!("CLUSTER REPLICATE {name}")).starts_with("+OK")).await;
    until("the replica is there", async || primary.say("INFO replication").contains("state=online")).await;
    until("the node counts itself as whole", async || alone.say("CLUSTER INFO").contains("cluster_state:ok")).await;
    let replicated = |hosts: &[&RedisServer]| {
        let builder = at("cluster", hosts, "", "foo").open_within(std::time::Duration::from_secs(5));
        builder.durability(Durability::Replicas { count: 1, fsync: false }).unwrap()
    };
    let refused = replicated(&[&alone]).open().await.unwrap_err().to_string();
    assert!(refused.contains("0 of 1 replicas"), "the control: {refused}");
    let backend = replicated(&[&alone, primary]).open().await.unwrap();
    let write = claim(id(1));
    settled(&backend, &write).await;
    assert!(is_done(get(&builder(&primary.url(), "foo").open().await.unwrap(), id(1)).await.unwrap().as_ref(), &write));
}

/// The slot is another node's from now on. The first call is refused, and the next one goes there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_has_moved_is_followed() {
    use tower_idempotency_shared::Backend as _;

    let Some(one) = own_server("that a moved slot is followed", &["cluster-enabled yes"]) else { return };
    let other = own_server("that a moved slot is followed", &["cluster-enabled yes"]).unwrap();
    one.say("CLUSTER ADDSLOTSRANGE 0 16383");
    let (host, port) = (other.address().ip(), other.address().port());
    one.say(&format!("CLUSTER MEET {host} {port}"));
    until("the nodes know each other", async || {
        let info = other.say("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
    })
    .await;
    let backend = at("cluster", &[&one], "", "foo").open().await.unwrap();
    let before = backend.get(Clocks::default(), &[]).await.unwrap().server;
    let name = other.say("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    one.say("FLUSHALL");
    for node in [&other, &one] {
        let moved = node.say(&format!("CLUSTER SETSLOT 12182 NODE {name}"));
        assert!(moved.starts_with("+OK"), "{moved}");
    }
    let write = claim(id(1));
    let refused = put(&backend, &write).await;
    assert!(matches!(refused, Err(BackendError::Nothing(_))), "{refused:?}");
    settled(&backend, &write).await;
    assert_ne!(backend.get(Clocks::default(), &[]).await.unwrap().server, before);
    assert!(!other.say("DBSIZE").starts_with(":0"));
}
