//! Outboxes for tests, each with an application's table of orders in the same database.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use testkit::postgres::{PostgresServer, shared_server};
use tower_idempotency::SledStore;
use tower_idempotency::store::{Abort, CommitError};
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::NoTls;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Object, Pool};
use tower_idempotency_outbox::{Call, Entry, Outbox, OutboxError, PostgresOutbox, PutError, SledOutbox, State};

/// Makes a test over each database of one that is written for any.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        $crate::home::over_both!(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] $($name),*);
    };
    // In one thread, whose log a test can read.
    (logged: $($name:ident),* $(,)?) => {
        $crate::home::over_both!(#[tokio::test] $($name),*);
    };
    (#[$test:meta] $($name:ident),*) => {
        mod sled {
            $(#[$test]
            async fn $name() {
                super::$name($crate::home::SledHome::new().await).await;
            })*
        }

        mod postgres {
            $(#[$test]
            async fn $name() {
                let Some(home) = $crate::home::PostgresHome::new(stringify!($name)).await else { return };
                super::$name(home).await;
            })*
        }
    };
}
pub(crate) use over_both;

/// An outbox in the database of an application.
pub(crate) trait Home: Sync {
    type Outbox: Outbox;

    fn outbox(&self) -> &Self::Outbox;

    /// Writes an order and puts calls in, in one transaction, which is given up at the end if that is asked for.
    async fn order(&self, order: &str, calls: &[Call], gives_up: bool) -> Result<(), OutboxError>;

    /// The orders that were written.
    async fn orders(&self) -> BTreeSet<String>;

    /// Damages a call, as a failing disk or a person would, or repairs it.
    async fn damage(&self, entry: &Entry, repair: bool);

    /// Ends the lease of a call, as if its time were over.
    async fn end_lease(&self, entry: &Entry);

    /// Gives a call that was put in now this state after one try that may have taken effect. It is due, or has ended,
    /// so many seconds from now.
    async fn set(&self, entry: &Entry, state: State, seconds: i64);
}

/// The same to another destination.
pub(crate) fn call_to(destination: &str, number: u32) -> Call {
    let request = http::Request::post(format!("{destination}/charges"))
        .header("idempotency-key", format!("order-{number}:charge"))
        .body(Bytes::from(format!("charge {number}")));
    Call::new(request.unwrap()).unwrap()
}

/// A call with this number in its key and its body.
pub(crate) fn call(number: u32) -> Call {
    let request = http::Request::post("http://api.example/charges")
        .header("content-type", "text/plain")
        .header("idempotency-key", format!("order-{number}:charge"))
        .body(Bytes::from(format!("charge {number}")));
    Call::new(request.unwrap()).unwrap()
}

pub(crate) struct SledHome {
    directory: tempfile::TempDir,
    pub(crate) store: SledStore,
    outbox: SledOutbox,
    orders: tower_idempotency::sled::Tree,
}

impl SledHome {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let outbox = SledOutbox::new(&store, "outbox").await.unwrap();
        let orders = store.db().unwrap().open_tree("orders").unwrap();
        Self { directory, store, outbox, orders }
    }
}

impl SledHome {
    /// Opens the outbox again, as another process does whose wall clock is so many hours ahead of this one's: each time
    /// that was written by it lies so much farther back.
    pub(crate) async fn opened_ahead(self, hours: u64) -> Self {
        let Self { directory, store, outbox, orders } = self;
        for line in outbox.tree() {
            let (key, value) = line.unwrap();
            if key.starts_with(b"o") || key.starts_with(b"e") {
                let mut head: serde_json::Value = serde_json::from_slice(&value).unwrap();
                for name in ["first_try", "due"] {
                    if let Some(time) = head[name].as_u64() {
                        head[name] = (time - hours * 60 * 60 * 1_000).into();
                    }
                }
                outbox.tree().insert(key, head.to_string().as_str()).unwrap();
            }
        }
        drop((outbox, orders));
        store.close().await.unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let outbox = SledOutbox::new(&store, "outbox").await.unwrap();
        let orders = store.db().unwrap().open_tree("orders").unwrap();
        Self { directory, store, outbox, orders }
    }
}

impl Home for SledHome {
    type Outbox = SledOutbox;

    fn outbox(&self) -> &SledOutbox {
        &self.outbox
    }

    async fn order(&self, order: &str, calls: &[Call], gives_up: bool) -> Result<(), OutboxError> {
        let (outbox, order, calls) = (self.outbox.clone(), order.to_owned(), calls.to_vec());
        let transaction = self.store.transaction([&self.orders, self.outbox.tree()], move |[orders, tree]| {
            orders.insert(order.as_str(), b"")?;
            for call in &calls {
                outbox.put_in(&tree, call)?;
            }
            if gives_up { Err(Abort::Because(Because::GivesUp)) } else { Ok(()) }
        });
        match transaction.await {
            Ok(()) | Err(CommitError::Aborted(Because::GivesUp)) => Ok(()),
            Err(CommitError::Aborted(Because::KeyReused)) => Err(OutboxError::KeyReused),
            Err(error) => panic!("{error}"),
        }
    }

    async fn orders(&self) -> BTreeSet<String> {
        self.orders.iter().keys().map(|key| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect()
    }

    async fn damage(&self, entry: &Entry, repair: bool) {
        let part = [b"c", &entry.position.to_be_bytes()[..], &[0, 0]].concat();
        let (from, to) = if repair { ("PO T", "POST") } else { ("POST", "PO T") };
        let tree = self.outbox.tree();
        let text = String::from_utf8(tree.get(&part).unwrap().unwrap().to_vec()).unwrap();
        tree.insert(part, text.replace(&format!("\"method\":\"{from}\""), &format!("\"method\":\"{to}\"")).as_str())
            .unwrap();
    }

    async fn end_lease(&self, entry: &Entry) {
        let key = [b"o", &entry.position.to_be_bytes()[..]].concat();
        let tree = self.outbox.tree();
        let mut head: serde_json::Value = serde_json::from_slice(&tree.get(&key).unwrap().unwrap()).unwrap();
        (head["due"], head["due_kept"]) = (0.into(), 0.into());
        tree.insert(key, head.to_string().as_str()).unwrap();
    }

    async fn set(&self, entry: &Entry, state: State, seconds: i64) {
        let key = |kind| [kind, &entry.position.to_be_bytes()[..]].concat();
        let (tree, is_over) = (self.outbox.tree(), matches!(state, State::Delivered | State::Refused));
        let mut head: serde_json::Value = serde_json::from_slice(&tree.remove(key(b"o")).unwrap().unwrap()).unwrap();
        let (wall, kept) = (head["due"].as_i64().unwrap(), head["due_kept"].as_i64().unwrap());
        let changes = serde_json::json!({
            "state": state, "tries": 1, "may_have_taken_place": true, "first_try": wall, "first_kept": kept,
            "due": wall + 1_000 * seconds, "due_kept": kept + 1_000 * seconds,
            "ended": is_over.then_some(kept + 1_000 * seconds),
        });
        head.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        tree.insert(key(if is_over { b"e" } else { b"o" }), head.to_string().as_str()).unwrap();
    }
}

enum Because {
    KeyReused,
    GivesUp,
}

impl From<PutError> for Because {
    fn from(error: PutError) -> Self {
        assert_eq!(error, PutError::KeyReused);
        Self::KeyReused
    }
}

pub(crate) struct PostgresHome {
    pub(crate) url: String,
    pub(crate) pool: Pool,
    pub(crate) schema: String,
    outbox: PostgresOutbox,
}

impl PostgresHome {
    pub(crate) async fn new(promise: &str) -> Option<Self> {
        Some(Self::of(shared_server(promise)?).await)
    }

    /// An outbox in the database of this server.
    pub(crate) async fn of(server: &PostgresServer) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let pool = Pool::builder(Manager::new(server.url().parse().unwrap(), NoTls)).build().unwrap();
        let schema = format!("outbox_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let outbox = PostgresOutbox::new(pool.clone(), &schema).unwrap();
        outbox.migrate().await.unwrap();
        let orders = format!("CREATE TABLE {schema}.orders (number text)");
        pool.get().await.unwrap().batch_execute(&orders).await.unwrap();
        Self { url: server.url(), pool, schema, outbox }
    }

    /// The same outbox, as another process has it.
    pub(crate) fn again(home: &Self) -> Self {
        let outbox = PostgresOutbox::new(home.pool.clone(), &home.schema).unwrap();
        Self { url: home.url.clone(), pool: home.pool.clone(), schema: home.schema.clone(), outbox }
    }

    /// A connection of its own to the same database.
    pub(crate) async fn another_client(&self) -> Object {
        let pool = Pool::builder(Manager::new(self.url.parse().unwrap(), NoTls)).build().unwrap();
        pool.get().await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.pool
            .get()
            .await
            .unwrap()
            .batch_execute(&sql.replace("outbox.", &format!("{}.", self.schema)))
            .await
            .unwrap();
    }
}

impl Home for PostgresHome {
    type Outbox = PostgresOutbox;

    fn outbox(&self) -> &PostgresOutbox {
        &self.outbox
    }

    async fn order(&self, order: &str, calls: &[Call], gives_up: bool) -> Result<(), OutboxError> {
        let mut client = self.pool.get().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        let insert = format!("INSERT INTO {}.orders VALUES ($1)", self.schema);
        transaction.execute(&insert, &[&order]).await.unwrap();
        for call in calls {
            self.outbox.put_in(&transaction, call).await?;
        }
        if gives_up {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
        }
        Ok(())
    }

    async fn orders(&self) -> BTreeSet<String> {
        let select = format!("SELECT number FROM {}.orders", self.schema);
        let rows = self.pool.get().await.unwrap().query(&select, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn damage(&self, entry: &Entry, repair: bool) {
        let (position, method) = (entry.position, if repair { "POST" } else { "PO T" });
        let change = format!(r#"request = jsonb_set(request, '{{method}}', '"{method}"')"#);
        self.sql(&format!("UPDATE outbox.call SET {change} WHERE position = {position}")).await;
    }

    async fn end_lease(&self, entry: &Entry) {
        self.sql(&format!("UPDATE outbox.call SET due = 'epoch' WHERE position = {}", entry.position)).await;
    }

    async fn set(&self, entry: &Entry, state: State, seconds: i64) {
        let is_over = matches!(state, State::Delivered | State::Refused);
        let then = format!("now() + interval '{seconds} seconds'");
        let ended = if is_over { &then } else { "NULL" };
        self.sql(&format!(
            "UPDATE outbox.call SET state = '{state}', tries = 1, may_have_taken_place = true, due = {then},
                ended = {ended}, first_try = now(), first_wall = now(), first_seen = now() WHERE position = {}",
            entry.position
        ))
        .await;
    }
}
