//! A PostgreSQL server, which the test looks into with SQL, and breaks with SQL.

use std::time::{Duration, Instant};

use testkit::postgres::PostgresServer;
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};

use super::fault::Fault;

/// The time after which the test gives up waiting for a state that must come about.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What a later release might have made of a row: bytes in another version, with any content, or an unknown kind.
pub(super) const LATER: [(&str, &str); 4] = [
    ("version", "state = set_byte(state, 0, 99)"),
    ("nothing-else", r"state = '\x63'"),
    ("kind", "kind = 99"),
    ("both", "kind = 99, state = set_byte(state, 0, 99)"),
];
/// A row that is so.
const IS_LATER: &str = "(kind = 99 OR encode(substring(state for 1), 'hex') = '63')";

/// Starts a server with the store's table, and may break something. An error says what is missing.
pub(super) async fn open(fault: Option<Fault>, has_clock: bool) -> Result<PostgresServer, String> {
    // With this setting, the server rarely writes its log's buffers.
    let settings: &[&str] = if fault == Some(Fault::AnsweredEarly) { &["wal_writer_delay=10s"] } else { &[] };
    let server = if has_clock { PostgresServer::with_a_clock(settings)? } else { PostgresServer::with(settings)? };
    let backend = PostgresBackend::from_url(&server.url()).expect("a URL");
    backend.migrate().await.expect("it takes the schema");
    if let Some(fault) = fault {
        seed(fault, &server).await;
    }
    Ok(server)
}

/// Returns a connection for SQL.
pub(super) async fn sql(server: &PostgresServer) -> Client {
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
async fn until(client: &Client, query: &str) {
    let began = Instant::now();
    while !client.query_one(query, &[]).await.expect("the query is sound").get::<_, bool>(0) {
        assert!(began.elapsed() < GIVE_UP, "it never came about: {query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the number of rows `r` of a namespace that are as the query says.
pub(super) async fn count(client: &Client, namespace: &str, are: &str) -> usize {
    let query = format!("SELECT count(*) FROM idempotency.record r WHERE r.namespace = $1 AND {are}");
    let count: i64 = client.query_one(&query, &[&namespace]).await.expect("the query is sound").get(0);
    usize::try_from(count).expect("it counts")
}

/// Waits until the standby streams. If it `is_synchronous`, commits wait for it from then on.
pub(super) async fn join(primary: &PostgresServer, standby: &PostgresServer, is_synchronous: bool) {
    let client = sql(primary).await;
    until(&client, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')").await;
    if !is_synchronous {
        return;
    }
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.expect("it has the right");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("it has the right");
    // The setting gets to one process after the other. Once the first commit waits, all do.
    standby.pause();
    let prober = sql(primary).await;
    let probing = tokio::spawn(async move {
        prober.batch_execute("SET synchronous_commit = on").await.expect("sound SQL");
        while prober.batch_execute("UPDATE idempotency.version SET since = since").await.is_ok() {}
    });
    until(&client, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')").await;
    standby.resume();
    probing.abort();
    until(&client, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
}

pub(super) async fn behind(primary: &PostgresServer) -> i64 {
    let lag = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint FROM pg_stat_replication";
    sql(primary).await.query_one(lag, &[]).await.expect("there is one standby").get(0)
}

pub(super) async fn write_anew(client: &Client, namespace: &str, change: &str) {
    let at = format!("namespace = '{namespace}' AND kind <> 6 AND NOT {IS_LATER}");
    let update = format!("UPDATE idempotency.record SET token = gen_random_uuid(), {change} WHERE {at}");
    client.batch_execute(&update).await.expect("sound SQL");
}

pub(super) async fn written_anew(client: &Client, namespace: &str) -> Vec<String> {
    let query = format!("SELECT r::text FROM idempotency.record r WHERE namespace = $1 AND {IS_LATER} ORDER BY id");
    let rows = client.query(&query, &[&namespace]).await.expect("the query is sound");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the texts in the functions, and their replacements. Each text is in one of the functions.
fn changes(fault: Fault) -> &'static [(&'static str, &'static str)] {
    match fault {
        Fault::NoCompare => &[
            (
                "CASE WHEN r.expires > judged THEN r.token = w.expect OR r.token = w.token ELSE w.expect IS NULL END",
                "true",
            ),
            (
                "CASE WHEN r.expires > judged THEN r.token = expect OR r.token = in_token ELSE expect IS NULL END",
                "true",
            ),
        ],
        Fault::LeasesLookOver => &[
            ("kind = w.kind,", "kind = CASE w.kind WHEN 6 THEN 5::int2 ELSE w.kind END,"),
            ("kind = in_kind,", "kind = CASE in_kind WHEN 6 THEN 5::int2 ELSE in_kind END,"),
        ],
        Fault::AnsweredEarly => &[("IN ('off', 'local')", "IN ('local')")],
        Fault::OneClock => &[("judged := least(t, earliest);", "judged := t;")],
        Fault::UnknownIsAbsent => &[(
            "CASE WHEN r.expires > judged THEN",
            "CASE WHEN r.expires > judged AND get_byte(r.state, 0) <> 99 AND r.kind < 99 THEN",
        )],
    }
}

async fn seed(fault: Fault, server: &PostgresServer) {
    let client = sql(server).await;
    let query = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname IN ('put_1', 'put_one_1')";
    let functions = client.query(query, &[]).await.expect("the query is sound");
    assert_eq!(functions.len(), 2);
    for function in functions {
        let sound: String = function.get(0);
        let broken = changes(fault).iter().fold(sound.clone(), |text, (from, to)| text.replace(from, to));
        assert_ne!(sound, broken, "{fault:?} finds nothing to break");
        client.batch_execute(&broken).await.expect("it is sound SQL");
    }
    // With `off`, commits would be answered early. All writes go through the functions, which prevent this unless
    // they are broken.
    let commits = if fault == Fault::AnsweredEarly { "off" } else { "local" };
    let set = format!("ALTER ROLE postgres SET synchronous_commit = {commits}");
    client.batch_execute(&set).await.expect("it has the right");
}
