//! What Redis or Valkey alone has: memory that can be full, and answers that it can lose.

use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Setup;
use testkit::process::eventually;
use testkit::redis::own_server;

use super::operators::Scrape;

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_that_its_memory_is_full_and_what_it_can_lose() {
    let Some(database) = own_server("what operators see of Redis", &[]) else { return };
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with(&format!("--store {}?durability=memory", database.url())).start();
    let loses = "What was answered last, when the server ends or another one takes over: it is in memory alone";
    eventually("it says what it can lose", || server.log.text().contains(loses).then_some(())).await;
    let known = Call::charge("known", "tok_visa");
    assert_eq!(server.send(&known).await.status, 200);
    database.say("CONFIG SET maxmemory 1");
    let refused = server.send(&Call::charge("new", "tok_visa")).await;
    assert_eq!(refused.refusal(), (503, "store-full".to_owned()), "{}", server.log.text());
    assert!(server.send(&known).await.is_replay());
    let seen = Scrape::of(&server).await;
    for (name, value) in
        [("store_healthy", 0.0), ("breaker_open", 0.0), ("requests_total{outcome=\"store-full\"}", 1.0)]
    {
        assert_eq!(seen.value(name), Some(value), "{name}: {}", seen.0);
    }
    let stores = serde_json::json!([{ "store": "redis", "reasons": ["full"] }, { "store": "sled", "reasons": [] }]);
    assert_eq!(server.get("/readyz").await.json()["stores"], stores);
    let page = server.send(&Call::operator("/admin")).await;
    let words = "is full and takes no new keys: maxmemory is reached";
    assert!(page.status == 200 && page.text().contains(words), "{}", page.text());
}
