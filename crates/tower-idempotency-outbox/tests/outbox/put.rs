//! What goes in: with the application's transaction or not at all, and once for each key.

use bytes::Bytes;
use http::Request;
use tower_idempotency::SledStore;
use tower_idempotency::store::CommitError;
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::{Config, Error, NoTls};
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool};
use tower_idempotency_outbox::{
    Action, Call, InvalidCall, Outbox, OutboxError, PostgresOutbox, PutError, SledOutbox, State,
};

use crate::home::{Home, PostgresHome, SledHome, call, call_to, over_both};
use crate::server::entry;

over_both!(
    a_call_is_there_with_the_order_or_neither_is,
    a_call_is_put_in_once_and_its_key_has_no_other_call,
    what_was_put_in_is_what_comes_out,
    equal_calls_are_equal_however_they_were_made,
);

async fn a_call_is_there_with_the_order_or_neither_is(home: impl Home) {
    home.order("1", &[call(1)], true).await.unwrap();
    assert!(home.outbox().get(call(1).key()).await.unwrap().is_none() && home.orders().await.is_empty());
    home.order("2", &[call(2), call(3)], false).await.unwrap();
    for number in [2, 3] {
        let entry = entry(home.outbox(), call(number).key()).await;
        assert_eq!((entry.state, entry.tries, entry.may_have_taken_place), (State::Waiting, 0, false));
    }
    assert_eq!(home.orders().await.len(), 1);
}

async fn a_call_is_put_in_once_and_its_key_has_no_other_call(home: impl Home) {
    let outbox = home.outbox();
    home.order("1", &[call(1)], false).await.unwrap();
    let position = entry(outbox, call(1).key()).await.position;
    // The same again changes nothing.
    outbox.put(&call(1)).await.unwrap();
    home.order("2", &[call(1)], false).await.unwrap();
    assert_eq!(entry(outbox, call(1).key()).await.position, position);
    let other = Request::post("http://api.example/charges").header("idempotency-key", call(1).key().as_str());
    let other = Call::new(other.body("charge 1 more").unwrap()).unwrap();
    assert!(matches!(outbox.put(&other).await, Err(OutboxError::KeyReused)));
    // The whole transaction is given up.
    assert!(matches!(home.order("3", &[call(3), other], false).await, Err(OutboxError::KeyReused)));
    assert!(outbox.get(call(3).key()).await.unwrap().is_none());
    assert_eq!(home.orders().await.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(outbox.list(State::Waiting, None, 10).await.unwrap().len(), 1);
}

async fn what_was_put_in_is_what_comes_out(home: impl Home) {
    let body = Bytes::from_iter((0..60_000_u32).map(|byte| byte as u8));
    let request = Request::patch("https://api.example:8443/a?b=c%20d").header("x-a", "1").header("x-a", "2").body(body);
    let stored = Call::new(request.unwrap()).unwrap().in_order_of("customer 7 \u{e9}").unwrap();
    home.outbox().put(&stored).await.unwrap();
    assert_eq!(entry(home.outbox(), stored.key()).await.call, Some(stored));
    // Without a key of its own, each call has another one.
    let random = || Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
    assert_ne!(random().key(), random().key());
}

async fn equal_calls_are_equal_however_they_were_made(home: impl Home) {
    let request = || Request::post("http://api.example/").header("x-b", "1").header("x-a", "2").header("x-c", "3");
    let in_header = Request::post("http://api.example/").header("idempotency-key", "k").header("x-b", "1");
    let in_header = Call::new(in_header.header("x-a", "2").header("x-c", "3").body("").unwrap()).unwrap();
    let in_extension = Call::new(request().extension(in_header.key().clone()).body("").unwrap()).unwrap();
    home.outbox().put(&in_header).await.unwrap();
    home.outbox().put(&in_extension).await.unwrap();
}

#[tokio::test]
async fn a_call_is_put_into_no_other_tree_than_the_outbox_s() {
    let home = SledHome::new().await;
    let (outbox, other) = (home.outbox().clone(), home.store.db().unwrap().open_tree("other").unwrap());
    let put = home.store.transaction([&other], move |[tree]| outbox.put_in::<PutError>(&tree, &call(1)));
    assert!(matches!(put.await, Err(CommitError::Aborted(PutError::OtherTree))));
    other.insert("a", "b").unwrap();
    assert!(matches!(SledOutbox::new(&home.store, "other").await, Err(OutboxError::Name(_))));
    // A second handle of the outbox is the same outbox.
    SledOutbox::new(&home.store, "outbox").await.unwrap();
}

#[tokio::test]
async fn a_process_that_starts_waits_for_no_transaction_that_has_put_a_call_in() {
    let Some(home) = PostgresHome::new("that migrate locks nothing that is there").await else { return };
    let mut client = home.pool.get().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    home.outbox().put_in(&transaction, &call(1)).await.unwrap();
    home.outbox().migrate().await.unwrap();
    home.outbox().put(&call(2)).await.unwrap();
    transaction.commit().await.unwrap();
    // Names that are words of SQL are quoted; processes that start together make it once.
    let outbox = PostgresOutbox::new(home.pool.clone(), "order").unwrap();
    let (one, other) = tokio::join!(outbox.migrate(), outbox.migrate());
    one.unwrap();
    other.unwrap();
    outbox.put(&call(1)).await.unwrap();
    assert!(matches!(PostgresOutbox::new(home.pool.clone(), "a-b"), Err(OutboxError::Name(_))));
}

#[test]
fn a_request_that_can_t_be_made_later_is_refused_at_once() {
    let refused = |request: http::request::Builder| Call::new(request.body("").unwrap()).unwrap_err();
    let post = || Request::post("http://api.example/");
    assert_eq!(refused(Request::get("http://api.example/")), InvalidCall::SafeMethod);
    let long = format!("http://{}/", "a".repeat(256));
    let ports = ["http://a:080/", "http://a:00000080/", "http://a:99999/", "http://a:/"];
    for uri in ["/charges", "ftp://api.example/", &long].into_iter().chain(ports) {
        assert_eq!(refused(Request::post(uri)), InvalidCall::Uri, "{uri}");
    }
    assert_eq!(refused(Request::connect("http://api.example/")), InvalidCall::Uri);
    for header in ["authorization", "cookie", "proxy-authorization"] {
        assert!(
            matches!(refused(post().header(header, "secret")), InvalidCall::Credential { place, .. } if place == header)
        );
    }
    let mut sensitive = http::HeaderValue::from_static("secret");
    sensitive.set_sensitive(true);
    assert!(matches!(refused(post().header("x-token", sensitive)), InvalidCall::Credential { .. }));
    assert!(matches!(refused(Request::post("http://user:secret@api.example/")), InvalidCall::Credential { .. }));
    assert!(matches!(refused(post().header("x-name", "\u{e9}")), InvalidCall::Header { .. }));
    assert!(matches!(refused(post().header("idempotency-key", "a b")), InvalidCall::Key(_)));
    assert!(matches!(
        refused(post().header("idempotency-key", "a").header("idempotency-key", "a")),
        InvalidCall::Key(_)
    ));
    for partition in ["", "a\0b", &"a".repeat(256)] {
        assert_eq!(call(1).in_order_of(partition).unwrap_err(), InvalidCall::PartitionKey);
    }
}

#[tokio::test]
async fn without_a_database_a_call_is_in_files_of_its_own_and_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    outbox.put(&call(1)).await.unwrap();
    outbox.close().await.unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    assert_eq!(entry(&outbox, call(1).key()).await.call, Some(call(1)));
}

#[tokio::test]
async fn a_call_that_is_too_large_for_sled_is_refused_and_one_of_90_kib_is_not() {
    let home = SledHome::new().await;
    let sized = |length| Call::new(Request::post("http://api.example/").body(vec![b'a'; length]).unwrap()).unwrap();
    home.outbox().put(&sized(90 << 10)).await.unwrap();
    assert!(matches!(home.outbox().put(&sized(100 << 10)).await, Err(OutboxError::TooLarge(_))));
}

#[tokio::test]
async fn a_store_that_is_closed_takes_no_call() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let outbox = SledOutbox::new(&store, "outbox").await.unwrap();
    // It says that the outbox is still there.
    store.close().await.unwrap_err();
    assert!(matches!(outbox.put(&call(1)).await, Err(OutboxError::Database(_))));
    assert!(matches!(outbox.get(call(1).key()).await, Err(OutboxError::Database(_))));
    assert!(SledOutbox::new(&store, "outbox").await.is_err());
}

// Any client can send this.
#[tokio::test]
async fn a_call_in_postgres_is_one_statement_with_one_text() {
    let Some(home) = PostgresHome::new("a call is one statement").await else { return };
    let (sql, text) = (home.outbox().put_sql(), home.outbox().put_parameter(&call(1)));
    home.sql(&format!("BEGIN; {}; ROLLBACK", sql.replace("$1", &format!("'{text}'")))).await;
    assert!(home.outbox().get(call(1).key()).await.unwrap().is_none());
    home.sql(&sql.replace("$1", &format!("'{text}'"))).await;
    assert_eq!(entry(home.outbox(), call(1).key()).await.call, Some(call(1)));
    // What has no key is no call.
    let put = home.pool.get().await.unwrap().batch_execute(&sql.replace("$1", "'{}'")).await;
    assert!(put.is_err());
}

#[tokio::test]
async fn a_database_with_another_encoding_than_utf8_gets_no_outbox() {
    let Some(home) = PostgresHome::new("a database with another encoding").await else { return };
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let name = format!("{}_{}", encoding.to_lowercase(), home.schema);
        home.sql(&format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")).await;
        let mut config: Config = home.url.parse().unwrap();
        let pool = Pool::builder(Manager::new(config.dbname(&name).clone(), NoTls)).build().unwrap();
        let error = PostgresOutbox::new(pool, "outbox").unwrap().migrate().await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
        assert!(source.as_db_error().unwrap().message().contains(encoding), "{source:?}");
    }
}

#[tokio::test]
async fn a_connection_goes_back_to_its_pool_after_a_success_and_is_closed_after_an_error() {
    let Some(home) = PostgresHome::new("that connections go back to their pool").await else { return };
    let outbox = home.outbox();
    // One after the other, there is one connection.
    let of = async || {
        let client = home.pool.get().await.unwrap();
        client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0)
    };
    let first = of().await;
    outbox.migrate().await.unwrap();
    outbox.put(&call(1)).await.unwrap();
    assert!(outbox.by("alice").apply(&entry(outbox, call(1).key()).await, Action::GiveUp).await.unwrap());
    assert_eq!((of().await, home.pool.status().size), (first, 1));
    let error = outbox.put(&call_to("http://elsewhere.example", 1)).await.unwrap_err();
    assert!(matches!(error, OutboxError::KeyReused));
    assert_eq!(home.pool.status().size, 0);
    assert_ne!(of().await, first);
}

// Seeded fault: the database looked for the call without end.
#[tokio::test]
async fn a_call_that_a_trigger_keeps_away_is_an_error_at_once() {
    let Some(home) = PostgresHome::new("a trigger that keeps calls away").await else { return };
    home.sql(
        "CREATE FUNCTION outbox.keep_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
        CREATE TRIGGER keep_away BEFORE INSERT ON outbox.call FOR EACH ROW EXECUTE FUNCTION outbox.keep_away()",
    )
    .await;
    let error = home.outbox().put(&call(1)).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
    assert!(source.as_db_error().unwrap().message().contains("has not taken"), "{source:?}");
}
