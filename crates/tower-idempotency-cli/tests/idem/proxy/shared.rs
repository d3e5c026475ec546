//! Several proxies share their keys over a database, and one has a directory of either engine.

use tempfile::tempdir;
use testkit::postgres::own_server;
use testkit::{Answer, Call, Connection, redis, skipped};

use super::parts::{Language, Parts};

async fn order(parts: &Parts) -> Answer {
    let call = Call::post("/orders", "item=book").header("idempotency-key", "k");
    Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_proxy_is_replayed() {
    if !Language::Python.is_there() {
        return skipped("proxies share their keys", "there is no python3");
    }
    let Some(server) = own_server("proxies share their keys over PostgreSQL", &[]) else { return };
    // The first proxy makes the table.
    replays_through_another(&server.url(), "").await;
}

/// The file says what the URL does not: the server has its rows in memory alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_proxy_over_redis_is_replayed() {
    if !Language::Python.is_there() {
        return skipped("proxies share their keys", "there is no python3");
    }
    let Some(server) = redis::own_server("proxies share their keys over Redis", &[]) else { return };
    replays_through_another(&server.url(), "[redis]\ndurability = \"memory\"\n[shared]\nlease = \"1m\"\n").await;
}

/// Sends a request to one proxy, and its retry to another one with the same service and database.
async fn replays_through_another(database: &str, settings: &str) {
    let directory = tempdir().unwrap();
    let mut parts = [0, 1].map(|_| Parts::new(Language::Python, directory.path()));
    parts[1].service = parts[0].service;
    for parts in &mut parts {
        parts.store = format!("{database}?namespace=orders");
    }
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, settings).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let _service = parts[0].start_service().await;
    let _proxies = [parts[0].start_proxy(&config).await, parts[1].start_proxy(&config).await];
    let (first, again) = (order(&parts[0]).await, order(&parts[1]).await);
    assert_eq!((first.status.as_u16(), first.is_replay()), (201, false));
    assert_eq!((again.text(), again.is_replay()), (first.text(), true));
    assert_eq!(parts[0].effects().len(), 1);
}

/// As a service does, and unlike a command.
#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_says_what_the_database_can_lose() {
    let Some(server) = own_server("the proxy says what can be lost", &[]) else { return };
    let directory = tempdir().unwrap();
    let mut parts = Parts::new(Language::Python, directory.path());
    parts.store = format!("{}?namespace=orders", server.url());
    let log = directory.path().join("log");
    let mut command = parts.proxy_command();
    command.arg("--one-account").stderr(std::fs::File::create(&log).unwrap());
    let mut proxy = parts.start_proxy_by(&mut command).await;
    proxy.kill();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("no standby is waited for"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_may_be_fjall_s() {
    let Some((directory, mut parts, _service)) = Parts::served("the proxy has a store of fjall").await else { return };
    parts.store = format!("fjall:{}", directory.path().join("store").display());
    let mut proxy = parts.start_proxy(&[]).await;
    let first = order(&parts).await;
    proxy.kill();
    let _proxy = parts.start_proxy(&[]).await;
    let again = order(&parts).await;
    assert_eq!((again.text(), again.is_replay()), (first.text(), true));
}
