//! Servers that are refused at opening, each by its name.

use std::time::Duration;

use testkit::process::until;
use tower_idempotency_redis::{Durability, RedisBackend, RedisError};
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{RedisServer, builder, own_server, pair, server_where};

#[tokio::test]
async fn a_server_that_deletes_keys_is_refused_unless_that_is_accepted() {
    let settings = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"];
    let Some(server) = own_server("that an evicting server is refused", &settings) else { return };
    let refused = builder(&server.url(), "n").open().await;
    assert!(matches!(&refused, Err(RedisError::Evicts { policy }) if policy == "allkeys-lru"), "{refused:?}");
    let accepted = builder(&server.url(), "n").accept_eviction().open().await.unwrap();
    let guarantee = accepted.guarantee().await.unwrap();
    assert!(guarantee.loses.iter().any(|loses| loses.contains("allkeys-lru")), "{guarantee:?}");
}

#[tokio::test]
async fn eviction_that_is_turned_on_later_refuses_new_keys() {
    let Some(server) = own_server("that eviction is noticed", &[]) else { return };
    let backend = builder(&server.url(), "n").open().await.unwrap();
    server.say("CONFIG SET maxmemory-policy allkeys-random");
    backend.guarantee().await.unwrap();
    assert!(backend.full().is_some());
    server.say("CONFIG SET maxmemory-policy volatile-ttl");
    backend.guarantee().await.unwrap();
    assert_eq!(backend.full(), None);
    // A new connection looks, too.
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    server.say("CLIENT KILL TYPE normal");
    until("a new connection has looked", async || {
        let _ = backend.get(Clocks::default(), &[]).await;
        backend.full().is_some()
    })
    .await;
}

#[tokio::test]
async fn a_durability_that_the_server_does_not_have_is_refused() {
    let Some(server) = own_server("that a durability is checked", &["appendonly yes"]) else { return };
    let open = async |durability| builder(&server.url(), "n").durability(durability).unwrap().open().await;
    let refused = open(Durability::LocalAof).await;
    assert!(matches!(&refused, Err(RedisError::NotDurable { reason }) if reason.contains("everysec")), "{refused:?}");
    server.say("CONFIG SET appendfsync always");
    let backend = open(Durability::LocalAof).await.unwrap();
    let setup = backend.guarantee().await.unwrap().setup;
    assert!(setup.contains("durability aof, appendonly yes, appendfsync always"), "{setup}");
    let soon = builder(&server.url(), "n").open_within(Duration::from_secs(4));
    let short = soon.durability(Durability::Replicas { count: 1, fsync: false }).unwrap().open().await;
    assert!(matches!(&short, Err(RedisError::Away { reason, .. }) if reason.contains("0 of 1 replicas")), "{short:?}");
    // Operators would see each row of a trial that has not ended as an interrupted run. The last try had no more time.
    let rows = backend.list(Clocks::default(), &[], None, 10).await.unwrap().rows;
    assert!(rows.len() <= 1, "{rows:?}");
}

#[tokio::test]
async fn a_replica_is_no_place_to_write() {
    let Some((_primary, replica)) = pair("that a replica is refused") else { return };
    let refused = builder(&replica.url(), "n").open_within(Duration::from_secs(1)).open().await;
    assert!(matches!(&refused, Err(RedisError::Away { reason, .. }) if reason.contains("slave")), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once_and_not_shown() {
    let Some(server) = own_server("that a password is checked", &["requirepass right"]) else { return };
    let url = server.url().replace("redis://", "redis://:s3cr3t@");
    let refused = builder(&url, "n").open_within(Duration::from_secs(60)).open().await.unwrap_err();
    assert!(matches!(refused, RedisError::Refused { .. }), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("s3cr3t"), "{refused}");
    let encrypted = RedisBackend::from_url("rediss://localhost").unwrap().open().await;
    assert!(matches!(encrypted, Err(RedisError::Option { .. })), "{encrypted:?}");
}

/// Valkey 9.1 made the engine a module. Some services take the commands away.
#[tokio::test]
async fn a_server_without_a_lua_engine_is_refused_by_name() {
    let unloaded = |server: &RedisServer| server.say("MODULE UNLOAD lua").starts_with("+OK");
    let (promise, settings) = ("that a server without Lua is refused", ["enable-module-command yes"]);
    let without = server_where(promise, &settings, "a server that can be without its Lua engine", unloaded);
    let taken_away = own_server(promise, &["rename-command EVAL ", "rename-command EVALSHA "]);
    for server in [without, taken_away].into_iter().flatten() {
        let refused = builder(&server.url(), "n").open().await;
        let is_so = matches!(&refused, Err(RedisError::Unsupported { reason }) if reason.contains("no Lua engine"));
        assert!(is_so, "{refused:?}");
    }
}
