//! A database for a test, and writes for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use testkit::process::until;
use testkit::redis::shared_server;
pub(crate) use testkit::redis::{RedisServer, own_server, server_where};
pub(crate) use testkit::rows::{claim, complete, id, is_done, token};
use tower_idempotency::RecordId;
use tower_idempotency_redis::{Durability, RedisBackend, RedisBackendBuilder};
use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Row, ServerId, Write};

/// A backend with a namespace of its own. `None` if there is no server here.
pub(crate) async fn lab(promise: &str) -> Option<Lab> {
    let server = shared_server(promise)?;
    Some(Lab::new(&server.url()).await)
}

/// A namespace in a database.
pub(crate) struct Lab {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) backend: RedisBackend,
}

impl Lab {
    /// A namespace of which the writes reach the memory of the server at `url`.
    pub(crate) async fn new(url: &str) -> Self {
        let namespace = fresh();
        let backend = builder(url, &namespace).open().await.unwrap();
        Self { url: url.to_owned(), namespace, backend }
    }

    /// Another backend for the same rows, as another process has one.
    pub(crate) async fn another(&self) -> RedisBackend {
        builder(&self.url, &self.namespace).open().await.unwrap()
    }

    pub(crate) async fn put(&self, write: &Write) -> Result<Option<Row>, BackendError> {
        put(&self.backend, write).await
    }

    pub(crate) async fn get(&self, id: RecordId) -> Result<Option<Row>, BackendError> {
        get(&self.backend, id).await
    }

    /// The name of a row's key, as a command has it.
    pub(crate) fn name(&self, id: RecordId) -> String {
        format!("\"ti:{{{}}}:r:{}\"", self.namespace, escaped(id))
    }

    /// The time at which a sweep looks at the row, by its index, in milliseconds. For a namespace of [`lab`].
    pub(crate) fn due(&self, id: RecordId) -> Option<f64> {
        let server = shared_server("when a row is due").expect("it has started");
        let answer = server.say(&format!("ZSCORE ti:{{{}}}:x \"{}\"", self.namespace, escaped(id)));
        answer.lines().nth(1).map(|score| score.parse().expect("a number"))
    }

    /// The number of the server, by an answer of it.
    pub(crate) async fn server(&self) -> ServerId {
        self.backend.get(Clocks::default(), &[]).await.unwrap().server
    }
}

fn escaped(id: RecordId) -> String {
    id.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// The name of a namespace that no other test has.
pub(crate) fn fresh() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("n{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn put(backend: &RedisBackend, write: &Write) -> Result<Option<Row>, BackendError> {
    let answer = backend.put(Clocks::default(), std::slice::from_ref(write)).await;
    answer.map(|mut answer| answer.rows.remove(0))
}

pub(crate) async fn get(backend: &RedisBackend, id: RecordId) -> Result<Option<Row>, BackendError> {
    backend.get(Clocks::default(), &[id]).await.map(|mut answer| answer.rows.remove(0))
}

/// Machines under test are slow.
pub(crate) fn builder(url: &str, namespace: &str) -> RedisBackendBuilder {
    let builder = RedisBackend::from_url(url).unwrap().namespace(namespace).unwrap();
    let builder = builder.durability(Durability::Memory).unwrap().response_timeout(Duration::from_secs(10));
    builder.wait_for_connection(Duration::from_secs(30)).wait_for_replicas(Duration::from_millis(300))
}

/// The same, for writes that wait for one replica.
pub(crate) fn replicated(url: &str, namespace: &str) -> RedisBackendBuilder {
    builder(url, namespace).durability(Durability::Replicas { count: 1, fsync: false }).unwrap()
}

/// The database that these sentinels or nodes know.
pub(crate) fn at(kind: &str, servers: &[&RedisServer], rest: &str, namespace: &str) -> RedisBackendBuilder {
    let hosts: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    builder(&format!("redis+{kind}://{}{rest}", hosts.join(",")), namespace)
}

/// A connection of the test's own, for commands that [`RedisServer::say`] can't send: those with any bytes, or many.
pub(crate) async fn client(server: &RedisServer) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let client = Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// A primary and its replica. `None` if there is no server here.
pub(crate) fn pair(promise: &str) -> Option<(RedisServer, RedisServer)> {
    let primary = own_server(promise, &[])?;
    let replica = RedisServer::replica_of(primary.address(), &[]).unwrap();
    Some((primary, replica))
}

/// A cluster of so many nodes, each of which has as many slots. `None` if there is no server here.
pub(crate) async fn cluster(promise: &str, nodes: usize) -> Option<Vec<RedisServer>> {
    let first = own_server(promise, &["cluster-enabled yes"])?;
    let mut cluster = vec![first];
    cluster.resize_with(nodes, || own_server(promise, &["cluster-enabled yes"]).expect("the program is there"));
    let share = 16_384 / nodes;
    for (number, node) in cluster.iter().enumerate() {
        let last = if number + 1 == nodes { 16_383 } else { (number + 1) * share - 1 };
        node.say(&format!("CLUSTER ADDSLOTSRANGE {} {last}", number * share));
        let (host, port) = (node.address().ip(), node.address().port());
        cluster[0].say(&format!("CLUSTER MEET {host} {port}"));
    }
    let is_whole = |node: &RedisServer| {
        let info = node.say("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{nodes}"))
    };
    until("the cluster is whole", async || cluster.iter().all(is_whole)).await;
    Some(cluster)
}
