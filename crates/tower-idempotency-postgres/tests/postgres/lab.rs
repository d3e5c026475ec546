//! A database for a test, and writes for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_idempotency::store::shared::{
    Backend as _, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write,
};
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder};

pub(crate) use super::server::Server;
use super::skipped::skipped;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A server of the test's own.
pub(crate) fn own_server(promise: &str, settings: &[&str]) -> Option<Server> {
    Server::with(settings).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// The server that most tests share.
fn shared_server(promise: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref().map_err(|obstacle| skipped(promise, obstacle)).ok()
}

/// A backend with a namespace that no other test has, and a client beside it. `None`: not shown here.
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

pub(crate) fn builder(url: &str, namespace: &str) -> PostgresBackendBuilder {
    // Machines under test are slow.
    let builder = PostgresBackend::from_url(url).unwrap().namespace(namespace).unwrap();
    builder.wait_for_connection(Duration::from_secs(30)).statement_timeout(Duration::from_secs(30))
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        // An error: the test has killed the server.
        let _ = connection.await;
    });
    client
}

pub(crate) async fn put(backend: &PostgresBackend, write: Write) -> Option<Row> {
    put_all(backend, &[write]).await.pop().unwrap()
}

/// Puts, and does so again where another write of a row was not over within the second that a put waits for it: on a
/// machine that stands still, that comes about. A deadlock is an error.
pub(crate) async fn put_all(backend: &PostgresBackend, writes: &[Write]) -> Vec<Option<Row>> {
    let begin = Instant::now();
    loop {
        match backend.put(Clocks::default(), writes).await {
            Err(BackendError::Busy(error))
                if error.to_string().contains("55P03") && begin.elapsed() < Duration::from_secs(60) => {}
            answer => return answer.unwrap().rows,
        }
    }
}

/// The id of a number.
pub(crate) fn id(number: u64) -> RecordId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RecordId::from_bytes(bytes)
}

/// A token that no other write has.
pub(crate) fn token() -> Token {
    let mut token = [0; 16];
    getrandom::fill(&mut token).unwrap();
    Token(token)
}

/// A claim.
pub(crate) fn claim(id: RecordId) -> Write {
    Write {
        id,
        expect: Expect::Absent,
        token: token(),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: Some(HOUR),
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(HOUR),
        state: Bytes::from_static(b"claimed"),
    }
}

/// An outcome, where the row has the token.
pub(crate) fn complete(id: RecordId, expect: Token) -> Write {
    Write {
        expect: Expect::Token(expect),
        fence: NewFence::Keep,
        kind: Kind::Completed,
        until: None,
        began: Stamp::Keep,
        state: Bytes::from_static(b"completed"),
        ..claim(id)
    }
}

/// Whether the row carries the write's token.
pub(crate) fn is_done(row: Option<&Row>, write: &Write) -> bool {
    row.is_some_and(|row| row.token == write.token)
}

/// Waits until something has come about, which is looked at again and again.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "it did not come about: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a statement of the backend waits for something, such as `Lock`.
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
