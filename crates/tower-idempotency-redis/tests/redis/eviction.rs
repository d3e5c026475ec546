//! A server whose memory other programs have filled.

use std::time::Duration;

use redis::{Pipeline, cmd};
use tower_idempotency::engine::{EffectError, OnceError};
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency::{Fingerprint, Key, Once, RecordId};
use tower_idempotency_redis::RedisStore;
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use crate::lab::{Lab, RedisServer, builder, claim, client, id, is_done, own_server};

/// The number of rows.
const ROWS: u64 = 300;

/// The value of a line of `INFO`.
fn info(server: &RedisServer, name: &str) -> u64 {
    let info = server.say("INFO");
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// Other programs' keys, each of which expires: far more of them than there is memory. Returns whether one was refused.
async fn fill(server: &RedisServer) -> bool {
    let room = info(server, "used_memory:") + (1 << 20);
    server.say(&format!("CONFIG SET maxmemory {room}"));
    let (mut client, value) = (client(server).await, "x".repeat(1_000));
    let mut is_refused = false;
    for part in 0..40 {
        let mut keys = Pipeline::new();
        for number in 0..100 {
            let mut key = cmd("SET");
            key.arg(format!("foreign:{part}:{number}")).arg(&value).arg("EX").arg(1_000);
            keys.add_command(key);
        }
        is_refused |= keys.exec_async(&mut client).await.is_err();
    }
    is_refused
}

/// No row has a time to live, so a server that evicts keys that have one deletes those of others.
#[tokio::test]
async fn memory_that_is_full_of_others_keys_costs_a_row_only_where_any_key_may_be_deleted() {
    for policy in ["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru"] {
        let setting = format!("maxmemory-policy {policy}");
        let Some(server) = own_server("what full memory costs", &[&setting]) else { return };
        let backend = builder(&server.url(), "n").accept_eviction().open().await.unwrap();
        let claims: Vec<Write> = (0..ROWS).map(|number| claim(id(number))).collect();
        backend.put(Clocks::default(), &claims).await.unwrap();
        assert_eq!(fill(&server).await, policy == "noeviction", "{policy}");
        assert_eq!(info(&server, "evicted_keys:") > 0, policy != "noeviction", "{policy}");
        // A server that makes room takes new keys.
        backend.guarantee().await.unwrap();
        assert_eq!(backend.full(), (policy == "noeviction").then_some("maxmemory"), "{policy}");
        let ids: Vec<RecordId> = claims.iter().map(|claim| claim.id).collect();
        let rows = backend.get(Clocks::default(), &ids).await.unwrap().rows;
        let left = rows.iter().zip(&claims).map(|(row, claim)| is_done(row.as_ref(), claim)).filter(|is| *is).count();
        // The control: that much of memory was taken.
        assert_eq!(left == ids.len(), policy != "allkeys-lru", "{policy}: {left} rows are left");
        if policy != "allkeys-lru" {
            let listed = backend.list(Clocks::default(), &[], None, 1_000).await.unwrap().rows;
            let scanned = backend.scan(Clocks::default(), None, 1_000).await.unwrap().rows;
            assert_eq!((listed.len(), scanned.len()), (ids.len(), ids.len()), "{policy}");
        }
    }
}

/// The store's view of a policy that an operator has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_server_begins_to_delete_keys_takes_no_new_ones_and_says_why() {
    let Some(server) = own_server("what a store does whose server evicts", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let store = RedisStore::builder().call_timeout(Duration::from_secs(5)).open(lab.another().await).await.unwrap();
    let once = Once::new(store.clone());
    let run = async |key: &str| {
        let effect = |_context| async { Ok::<_, EffectError<std::io::Error>>("done".to_owned()) };
        once.run(RecordId::new(None, &Key::new(key).unwrap()), Fingerprint::of(b"a message"), effect).await
    };
    assert!(!run("known").await.unwrap().replayed);
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    let loses = store.backend().guarantee().await.unwrap().loses;
    assert!(loses.iter().any(|loses| loses.contains("maxmemory-policy is allkeys-lru")), "{loses:?}");
    assert!(matches!(store.health(), Health::Full { limit: "maxmemory-policy" }), "{:?}", store.health());
    assert!(matches!(run("new").await, Err(OnceError::Full)));
    assert!(run("known").await.unwrap().replayed);
}
