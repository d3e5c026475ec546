//! A store that is chosen by its URL.

use testkit::lab::disk::Disk;
use testkit::lab::{Lab, id};
use testkit::on_both;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{ConnectError, OpenError, Store as _};
use tower_idempotency::{AnyStore, IdempotencyLayer};

const SECRET: &str = "s3cr3t";

/// Runs `key` once on a store that is opened for it. Returns whether it was answered from a record.
async fn is_replayed(url: &str, key: &str) -> bool {
    let store = AnyStore::connect(url).await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let answer = lab.post(key, "a").await;
    assert_eq!(answer.status, 200);
    drop(lab);
    store.close().await.unwrap();
    answer.is_replay()
}

on_both!(what_follows_an_engine_is_a_directory_and_its_records_are_there_the_next_time);
async fn what_follows_an_engine_is_a_directory_and_its_records_are_there_the_next_time<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b%20c?d=e");
    let url = format!("{}:{}", D::NAME, path.display());
    assert!(!is_replayed(&url, "k").await);
    assert!(is_replayed(&url, "k").await);
    assert!(path.is_dir(), "as it stands there");
}

#[tokio::test]
async fn each_store_in_memory_is_a_new_one() {
    for _ in 0..2 {
        assert!(!is_replayed("memory:", "k").await);
    }
    let store = AnyStore::connect("memory:").await.unwrap();
    assert!(store.load(id("k")).await.unwrap().is_none());
}

on_both!(what_the_store_itself_says_is_told);
async fn what_the_store_itself_says_is_told<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{}:{}", D::NAME, directory.path().display());
    let open = AnyStore::connect(&url).await.unwrap();
    let error = AnyStore::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("is in use: one store at a time may open it"), "{error}");
    let ConnectError::Open(said) = error else { panic!("{error:?}") };
    assert!(matches!(said.downcast_ref(), Some(OpenError::InUse { .. })), "{said:?}");
    open.close().await.unwrap();
}

#[tokio::test]
async fn a_url_of_another_form_is_refused_says_which_ones_there_are_and_shows_no_password() {
    let hidden = format!("u:{SECRET}@host/d");
    let urls = [
        "",
        ":",
        "sled",
        "sled:",
        "sled://payments.db",
        "fjall",
        "fjall:",
        "fjall://payments.db",
        "memory",
        "memory:x",
        "memory://",
        "postgres",
        "SLED:x",
        &format!("psotgres://{hidden}"),
        &format!("postgres:{hidden}"),
        &format!("postgres:/{hidden}"),
        &format!(" postgres://{hidden}"),
        &format!("\"postgres://{hidden}\""),
        &format!("postgres://{hidden}"),
        "./payments.db",
        "sled: payments.db",
        "sled:$HOME/payments.db",
        "fjall:\"payments.db\"",
        &format!("redis://{hidden}"),
        &format!("host=localhost password={SECRET}"),
    ];
    for url in urls {
        let error = AnyStore::connect(url).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url(_)), "{url}: {error:?}");
        let said = format!("{error} {error:?}");
        assert!(
            ["`sled:PATH`", "`fjall:PATH`", "`memory:`", "`postgres://"].iter().all(|form| said.contains(form)),
            "{said}"
        );
        assert!(!said.contains(SECRET), "{said}");
    }
}

on_both!(a_store_may_be_opened_by_a_task_of_its_own);
async fn a_store_may_be_opened_by_a_task_of_its_own<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{}:{}", D::NAME, directory.path().display());
    let opening = tokio::spawn(async move { AnyStore::connect(&url).await });
    opening.await.unwrap().unwrap().close().await.unwrap();
}
