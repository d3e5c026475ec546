//! What happens to a database: it is away, and it has a password.

use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Setup;
use testkit::process::eventually;

use super::operators::Scrape;
use super::shared::{two, until};
use super::stores::refusal;

/// `switch` turns it off and on.
async fn health_says_while_it_is_away(store: &str, url: &str, mut switch: impl FnMut(bool)) {
    let directory = tempdir().unwrap();
    let [setup, _] = two(&directory, url, "--lease 12");
    let server = setup.start();
    let call = Call::charge("away", "tok_visa");
    assert_eq!(server.send(&call).await.status, 200);
    switch(false);
    let health = async |status: u16| {
        let health = server.get("/readyz").await;
        (health.status == status).then(|| health.json())
    };
    let away = until("the database is away", async || health(503).await).await;
    let stores = serde_json::json!([{ "store": store, "reasons": ["away"] }, { "store": "sled", "reasons": [] }]);
    assert_eq!((&away["live"], &away["stores"]), (&true.into(), &stores));
    let refused = server.send(&Call::charge("new", "tok_visa")).await.refusal();
    assert_eq!(refused, (503, "store-unavailable".to_owned()), "{}", server.log.text());
    let known = server.send(&call).await;
    assert!(known.is_replay(), "it is known here, and was answered {known:?}: {}", server.log.text());
    let seen = Scrape::of(&server).await;
    assert_eq!((seen.value("store_healthy"), seen.value("breaker_open")), (Some(0.0), Some(1.0)), "{}", seen.0);
    let page = server.send(&Call::operator("/admin")).await;
    assert!(page.status == 503 && page.text().contains("can't be reached since"), "{}", page.text());
    switch(true);
    until("the database is back", async || health(200).await).await;
    let charged = server.send_until_taken(&Call::charge("new", "tok_visa")).await;
    assert_eq!(charged.status, 200, "{}", charged.text());
    assert!(!charged.is_replay());
    assert_eq!(server.charges().await.len(), 2);
    let seen = Scrape::of(&server).await;
    assert_eq!((seen.value("store_healthy"), seen.value("breaker_open")), (Some(1.0), Some(0.0)), "{}", seen.0);
}

/// The password is `s3cr3t`, and `wrong` has another one or another user.
async fn no_password_is_logged(url: &str, wrong: &str) {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).log("trace").with(&format!("--store {url} --namespace password"));
    let server = setup.start();
    assert_eq!(server.send(&Call::charge("k", "tok_visa")).await.status, 200);
    let log = server.log.clone();
    server.stop().await;
    eventually("the last line", || log.text().contains("stopped").then_some(())).await;
    assert!(log.text().contains("TRACE") && !log.text().contains("s3cr3t"));
    let said = refusal(&Setup::new(&directory).with(&format!("--store {wrong}")), 1).await;
    assert!(said.contains("the database has refused") && !said.contains("s3cr3"), "{said}");
}

#[cfg(feature = "postgres")]
mod over_postgres {
    use testkit::postgres::{own_server, shared_server};

    #[tokio::test(flavor = "multi_thread")]
    async fn health_says_while_it_is_away_and_no_server_has_to_be_started_again() {
        let Some(mut database) = own_server("a database that is away", &[]) else { return };
        let url = database.url();
        let switch = |is_on| if is_on { database.start_again() } else { database.kill() };
        super::health_says_while_it_is_away("postgres", &url, switch).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_password_is_logged() {
        let Some(database) = shared_server("that a password is not logged") else { return };
        let url = database.url().replace("postgres@", "postgres:s3cr3t@");
        super::no_password_is_logged(&url, &url.replace("postgres:s", "nobody:s")).await;
    }
}

#[cfg(feature = "redis")]
mod over_redis {
    use testkit::redis::own_server;

    /// Its file is synced before each answer.
    const DURABLE: [&str; 2] = ["appendonly yes", "appendfsync always"];

    #[tokio::test(flavor = "multi_thread")]
    async fn health_says_while_it_is_away_and_no_server_has_to_be_started_again() {
        let Some(mut database) = own_server("a Redis that is away", &DURABLE) else { return };
        let url = database.url();
        let switch = |is_on| if is_on { database.start_again() } else { database.kill() };
        super::health_says_while_it_is_away("redis", &url, switch).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_password_is_logged() {
        let settings = [&DURABLE[..], &["requirepass s3cr3t"]].concat();
        let Some(database) = own_server("that a password of Redis is not logged", &settings) else { return };
        let url = database.url().replace("redis://", "redis://:s3cr3t@");
        super::no_password_is_logged(&url, &url.replace("s3cr3t", "s3cr3d")).await;
    }
}
