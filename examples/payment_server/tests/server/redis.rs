//! Servers that share a database of Redis or Valkey. `shared.rs` has more of what holds for every shared database.

use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Setup;
use testkit::process::eventually;
use testkit::redis::own_server;

use super::stores::refusal;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_on_the_other_server_is_answered_the_same_and_nothing_is_charged_twice() {
    let Some(database) = own_server("a retry on another payment server over Redis", &[]) else { return };
    let directory = tempdir().unwrap();
    let store = format!("--lease 60 --store {}?durability=memory", database.url());
    let [one, other] = ["one", "other"].map(|name| Setup::new(directory.path().join(name)).with(&store).start());
    let call = Call::charge("retry", "tok_visa");
    let (answer, retry) = (one.send(&call).await, other.send(&call).await);
    assert_eq!((answer.status.as_u16(), answer.is_replay()), (200, false), "{}", answer.text());
    assert_eq!((retry.status, &retry.body, retry.is_replay()), (answer.status, &answer.body, true));
    assert_eq!(one.charges().await.len() + other.charges().await.len(), 1, "in both ledgers");
    assert_eq!(other.get("/readyz").await.json()["ready"], true);
    // Another namespace does not know the key.
    let setup = Setup::new(directory.path().join("stranger")).with(&format!("{store} --namespace stranger"));
    assert!(!setup.start().send(&call).await.is_replay());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_logged() {
    let settings = ["appendonly yes", "appendfsync always", "requirepass s3cr3t"];
    let Some(database) = own_server("that a password of Redis is not logged", &settings) else { return };
    let directory = tempdir().unwrap();
    let url = database.url().replace("redis://", "redis://:s3cr3t@");
    let server = Setup::new(&directory).log("trace").with(&format!("--store {url}")).start();
    assert_eq!(server.send(&Call::charge("k", "tok_visa")).await.status, 200);
    let log = server.log.clone();
    server.stop().await;
    eventually("the last line", || log.text().contains("stopped").then_some(())).await;
    assert!(log.text().contains("TRACE") && !log.text().contains("s3cr3t"));
    let wrong =
        Setup::new(directory.path().join("wrong")).with(&format!("--store {}", url.replace("s3cr3t", "s3cr3d")));
    let said = refusal(&wrong, 1).await;
    assert!(said.contains("the database has refused") && !said.contains("s3cr3d"), "{said}");
}
