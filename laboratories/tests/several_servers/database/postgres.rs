//! The database that the servers share: a PostgreSQL server of the test's own, which the test inspects with SQL, and
//! breaks with SQL for controls.

use std::time::{Duration, Instant};

pub(crate) use testkit::postgres::PostgresServer;
use testkit::postgres::own_server;
use testkit::skipped;
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};

/// The time after which the test gives up waiting for a state that must come about.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Starts a server with the store's table. Returns `None` if the promise can't be shown here.
pub(crate) async fn database(promise: &str, settings: &[&str]) -> Option<PostgresServer> {
    let server = own_server(promise, settings)?;
    migrate(&server).await;
    Some(server)
}

/// Does the same, and breaks something.
pub(crate) async fn broken_database(promise: &str, settings: &[&str], fault: Fault) -> Option<PostgresServer> {
    let server = database(promise, settings).await?;
    fault.seed(&server).await;
    Some(server)
}

/// Starts a server with the store's table and a clock of its own, and may break something. Returns `None` if the
/// promise can't be shown here.
pub(crate) async fn database_with_a_clock(promise: &str, fault: Option<Fault>) -> Option<PostgresServer> {
    let server = PostgresServer::with_a_clock(&[]).map_err(|obstacle| skipped(promise, &obstacle)).ok()?;
    migrate(&server).await;
    if let Some(fault) = fault {
        fault.seed(&server).await;
    }
    Some(server)
}

async fn migrate(server: &PostgresServer) {
    let backend = PostgresBackend::from_url(&server.url()).expect("a URL");
    backend.migrate().await.expect("it takes the schema");
}

/// Returns a connection for SQL.
pub(crate) async fn sql(server: &PostgresServer) -> Client {
    let began = Instant::now();
    loop {
        match connect(&server.url(), NoTls).await {
            Ok((client, connection)) => {
                // An error means that the server was killed.
                tokio::spawn(async move { drop(connection.await) });
                return client;
            }
            Err(error) => assert!(began.elapsed() < GIVE_UP, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a query that returns a boolean returns true.
pub(crate) async fn until(client: &Client, query: &str) {
    let began = Instant::now();
    while !is(client, query).await {
        assert!(began.elapsed() < GIVE_UP, "it never came about: {query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the result of a query that returns a boolean.
pub(crate) async fn is(client: &Client, query: &str) -> bool {
    client.query_one(query, &[]).await.expect("the query is sound").get(0)
}

/// Returns the number of runs whose sessions were renewed recently enough for their leases to last, by the database's
/// clock.
pub(crate) async fn alive(client: &Client, namespace: &str) -> usize {
    let query = "SELECT count(*) FROM idempotency.record r JOIN idempotency.record s ON s.namespace = r.namespace \
        AND s.id = r.session WHERE r.namespace = $1 AND r.kind = 1 AND s.kind IN (5, 6) AND s.until > clock_timestamp()";
    let alive: i64 = client.query_one(query, &[&namespace]).await.expect("the query is sound").get(0);
    usize::try_from(alive).expect("it counts")
}

/// Returns all rows except those of processes, each as a text.
pub(crate) async fn rows(client: &Client, namespace: &str) -> Vec<String> {
    // A row of kind 5 with an `until` is that of a process that has ended. It never had bytes.
    let query = "SELECT r::text FROM idempotency.record r WHERE namespace = $1 AND kind <> 6 \
        AND NOT (kind = 5 AND until IS NOT NULL) ORDER BY id";
    let rows = client.query(query, &[&namespace]).await.expect("the query is sound");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The fault of a database, in the functions by which the store writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A write is done without comparing its row.
    NoCompare,
    /// The sessions of living processes look as if they had ended, once they are renewed.
    LeasesLookOver,
    /// Commits are answered before they are durable.
    AnsweredEarly,
    /// A row that this release can't read counts as absent.
    UnknownIsAbsent,
    /// Only the database's clock judges whether a record has expired.
    OneClock,
}

impl Fault {
    /// Returns the texts in the functions, and their replacements. Each text is in one of the functions.
    fn changes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NoCompare => &[
                (
                    "CASE WHEN r.expires > judged THEN r.token = w.expect OR r.token = w.token ELSE w.expect IS NULL END",
                    "true",
                ),
                (
                    "CASE WHEN r.expires > judged THEN r.token = expect OR r.token = in_token ELSE expect IS NULL END",
                    "true",
                ),
            ],
            Self::LeasesLookOver => &[
                ("kind = w.kind,", "kind = CASE w.kind WHEN 6 THEN 5::int2 ELSE w.kind END,"),
                ("kind = in_kind,", "kind = CASE in_kind WHEN 6 THEN 5::int2 ELSE in_kind END,"),
            ],
            Self::AnsweredEarly => &[("IN ('off', 'local')", "IN ('local')")],
            Self::OneClock => &[("judged := least(t, earliest);", "judged := t;")],
            Self::UnknownIsAbsent => &[(
                "CASE WHEN r.expires > judged THEN",
                "CASE WHEN r.expires > judged AND get_byte(r.state, 0) <> 99 AND r.kind < 99 THEN",
            )],
        }
    }

    async fn seed(self, server: &PostgresServer) {
        let client = sql(server).await;
        let query = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname IN ('put_1', 'put_one_1')";
        let functions = client.query(query, &[]).await.expect("the query is sound");
        assert_eq!(functions.len(), 2);
        for function in functions {
            let sound: String = function.get(0);
            let broken = self.changes().iter().fold(sound.clone(), |text, (from, to)| text.replace(from, to));
            assert_ne!(sound, broken, "{self:?} finds nothing to break");
            client.batch_execute(&broken).await.expect("it is sound SQL");
        }
        // With `off`, commits would be answered early. All writes go through the functions, which prevent this unless
        // they are broken.
        let commits = if matches!(self, Self::AnsweredEarly) { "off" } else { "local" };
        let set = format!("ALTER ROLE postgres SET synchronous_commit = {commits}");
        client.batch_execute(&set).await.expect("it has the right");
    }
}
