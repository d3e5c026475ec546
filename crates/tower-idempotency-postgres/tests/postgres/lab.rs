//! A database for a test, and writes for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use testkit::postgres::shared_server;
pub(crate) use testkit::postgres::{PostgresServer, own_server};
pub(crate) use testkit::process::until;
pub(crate) use testkit::rows::{claim, complete, id, is_done, put, put_all, token};
use tower_idempotency::RecordId;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder};
use tower_idempotency_shared::{Backend as _, Clocks, Row, Write};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A backend with a namespace of its own, and a client of the same server. `None` if there is no server here.
pub(crate) async fn lab(promise: &str) -> Option<Lab> {
    let server = shared_server(promise)?;
    Some(Lab::new(&server.url()).await)
}

/// A namespace in a database.
pub(crate) struct Lab {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) backend: PostgresBackend,
    pub(crate) client: Client,
}

impl Lab {
    pub(crate) async fn new(url: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let namespace = format!("n{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let builder = builder(url, &namespace);
        builder.migrate().await.unwrap();
        let backend = builder.open().await.unwrap();
        Self { url: url.to_owned(), namespace, backend, client: client(url).await }
    }

    /// Another backend for the same rows, as another process has one.
    pub(crate) async fn another(&self) -> PostgresBackend {
        builder(&self.url, &self.namespace).open().await.unwrap()
    }

    pub(crate) async fn put(&self, write: Write) -> Option<Row> {
        put(&self.backend, write).await
    }

    pub(crate) async fn get(&self, id: RecordId) -> Option<Row> {
        self.backend.get(Clocks::default(), &[id]).await.unwrap().rows.pop().unwrap()
    }

    /// Runs SQL in which `$` is the namespace.
    pub(crate) async fn sql(&self, sql: &str) {
        self.client.batch_execute(&sql.replace('$', &self.namespace)).await.unwrap();
    }
}

/// The address at which the server of this URL listens.
pub(crate) fn address(url: &str) -> SocketAddr {
    url.split(['@', '/']).find_map(|part| part.parse().ok()).unwrap()
}

pub(crate) fn builder(url: &str, namespace: &str) -> PostgresBackendBuilder {
    // Machines under test are slow.
    let builder = PostgresBackend::from_url(url).unwrap().namespace(namespace).unwrap();
    builder.wait_for_connection(Duration::from_secs(30)).statement_timeout(Duration::from_secs(30))
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        // An error means that the test has killed the server.
        let _ = connection.await;
    });
    client
}

/// Waits until a statement of the backend has a wait of this kind, such as `Lock`.
pub(crate) async fn until_waiting(client: &Client, kind: &str) {
    let sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'tower-idempotency' \
        AND (wait_event_type = $1 OR wait_event = $1)";
    until(kind, async || client.query_one(sql, &[&kind]).await.unwrap().get(0)).await;
}

/// From now on each commit waits for a standby that does not exist: it is durable here, and not answered.
pub(crate) async fn ask_for_a_standby(client: &Client, url: &str) {
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // The setting gets to one process after the other. When the first commit waits, all do.
    let prober = self::client(url).await;
    let process: i32 = prober.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let probe = tokio::spawn(async move {
        prober.batch_execute("SET synchronous_commit = on").await.unwrap();
        while prober.batch_execute("UPDATE idempotency.version SET since = since").await.is_ok() {}
    });
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
    until("a commit that waits", async || client.query_one(waiting, &[&process]).await.unwrap().get(0)).await;
    probe.abort();
    client.execute("SELECT pg_terminate_backend($1)", &[&process]).await.unwrap();
    let there = "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1";
    until("its end", async || !client.query_one(there, &[&process]).await.unwrap().get::<_, bool>(0)).await;
}

/// Commits are answered again.
pub(crate) async fn ask_for_no_standby(client: &Client) {
    client.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}
