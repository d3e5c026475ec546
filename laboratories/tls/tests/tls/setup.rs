//! A server that encrypts, and connections to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use testkit::postgres::{PostgresServer, own_server};
use testkit::process::until;
use testkit::rows::{claim, id};
use testkit::skipped;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder};
use tower_idempotency_shared::{Backend, Clocks, Kind, Write};

use super::certificates::{Authority, Certificates};

/// The text in a server's log for each connection that it has let in.
const LET_IN: &str = "connection authorized";

/// A server without TLS, and certificates for it. `None`: not shown here.
pub(crate) fn server_and_certificates(promise: &str) -> Option<(PostgresServer, Certificates)> {
    let server = own_server(promise, &["log_connections=on"])?;
    let certificates = Certificates::new(server.address().ip());
    let certificates = certificates.map_err(|obstacle| skipped(promise, &obstacle)).ok()?;
    Some((server, certificates))
}

/// A server that encrypts for clients that want it, with the table in it. `None`: not shown here.
pub(crate) async fn encrypting_server(promise: &str) -> Option<(PostgresServer, Certificates)> {
    let (server, certificates) = server_and_certificates(promise)?;
    certificates.install(&data_directory(&server).await);
    let client = client(&server.url()).await;
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the server's TLS", async || {
        to(server.address(), "localhost", "").tls(certificates.trusting(Authority::Its)).migrate().await.is_ok()
    })
    .await;
    Some((server, certificates))
}

/// A connection of the test's own, which is not encrypted.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn data_directory(server: &PostgresServer) -> PathBuf {
    let row = client(&server.url()).await.query_one("SHOW data_directory", &[]).await.unwrap();
    row.get::<_, String>(0).into()
}

/// A builder for the server at `address`, under the name `host`, as the user `postgres`.
pub(crate) fn to(address: SocketAddr, host: &str, more: &str) -> PostgresBackendBuilder {
    with(&format!("host={host} hostaddr={} port={} user=postgres {more}", address.ip(), address.port()))
}

/// A builder for the server of this URL, which gives up soon.
pub(crate) fn with(url: &str) -> PostgresBackendBuilder {
    // Machines under test are slow.
    let builder = PostgresBackend::from_url(url).unwrap().open_within(Duration::from_secs(3));
    builder.wait_for_connection(Duration::from_secs(30)).statement_timeout(Duration::from_secs(30))
}

/// Waits until `hears` gets a notification of a write of `tells`.
pub(crate) async fn until_heard(hears: &impl Backend, tells: &impl Backend) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut changes = hears.changes();
    until("a notification", async || {
        let write = Write { kind: Kind::Completed, ..claim(id(COUNT.fetch_add(1, Ordering::Relaxed))) };
        // An error means that the server has just been started again.
        let _ = tells.put(Clocks::default(), &[write]).await;
        changes.next().now_or_never().flatten().is_some()
    })
    .await;
}

/// Returns the number of connections of backends that a server has, and the number of encrypted ones.
pub(crate) async fn connections(server: &PostgresServer) -> (i64, i64) {
    let sql = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'tower-idempotency'";
    let row = client(&server.url()).await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// The lines in a server's log for the backends' connections that it has let in.
pub(crate) fn let_in(server: &PostgresServer) -> Vec<String> {
    let log = server.log();
    let by_backends = |line: &&str| line.contains(LET_IN) && line.contains("tower-idempotency");
    log.lines().filter(by_backends).map(str::to_owned).collect()
}
