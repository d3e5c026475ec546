//! The hand-written alternative: the least that keeps the promise as long as nothing fails.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::HeaderMap;
use peers::minimum::{DIGEST, HEAD};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, Pipeline, Value, cmd};
use testkit::bench::exchange::KEY;

/// The longest wait for the replica, in milliseconds: the store's default.
const WAIT: u64 = 1_000;

/// How a claim and a record are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By `SET` with `NX`, and by `SET`.
    Set,
    /// The same, and each has a `WAIT` for one replica in its pipeline.
    SetAndWait,
    /// By a script that only reads a header and sets the row: what any store has that judges rows in scripts.
    Script,
}

const SCRIPT: &str = "local head = redis.call('GETRANGE', KEYS[1], 0, 155)
if (ARGV[2] == '1') == (head ~= '') then return redis.error_reply('TAKEN it is not as expected') end
return redis.call('SET', KEYS[1], ARGV[1])";

/// Returns the handler between its claim and its record. It has no layer, no fingerprint, no duplicates, no expiry, no
/// lists, and no interrupted runs.
pub(crate) async fn minimum(length: usize, url: &str, connections: usize, way: Way) -> Router {
    let address = url.into_connection_info().expect("a URL");
    // As the store has it. By default, small writes wait for each other.
    let client = Client::open(address.set_tcp_settings(TcpSettings::default().set_nodelay(true))).expect("a URL");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut all = Vec::new();
    for _ in 0..connections {
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        all.push(Arc::new(connected.expect("the server answers")));
    }
    let mut first = MultiplexedConnection::clone(&all[0]);
    let script: String = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut first).await.expect("it is loaded");
    let connections = Connections { all: all.into(), way, script: script.into() };
    let body = Bytes::from(vec![b'x'; length]);
    let charge = async move |State(connections): State<Connections>, headers: HeaderMap| {
        let key = headers[KEY].to_str().expect("text");
        connections.set(key, &DIGEST, true).await;
        let answer = body.clone();
        connections.set(key, &[&HEAD[..], &answer].concat(), false).await;
        answer
    };
    Router::new().route("/charges", post(charge)).with_state(connections)
}

/// The connections, which all requests share.
#[derive(Clone)]
struct Connections {
    all: Arc<[Arc<MultiplexedConnection>]>,
    way: Way,
    /// The script's digest.
    script: Arc<str>,
}

impl Connections {
    /// Sets a key, and first finds that it is new if it `is_claim`.
    async fn set(&self, key: &str, value: &[u8], is_claim: bool) {
        let mut set = if self.way == Way::Script { cmd("EVALSHA") } else { cmd("SET") };
        if self.way == Way::Script {
            set.arg(&*self.script).arg(1).arg(key).arg(value).arg(u8::from(is_claim));
        } else {
            set.arg(key).arg(value).arg(is_claim.then_some("NX"));
        }
        let mut pipeline = Pipeline::new();
        pipeline.add_command(set);
        let waits = self.way == Way::SetAndWait;
        if waits {
            pipeline.cmd("WAIT").arg(1).arg(WAIT);
        }
        // The first one of those with the fewest calls: one client has one connection, as it has of the store.
        let least = self.all.iter().min_by_key(|connection| Arc::strong_count(connection));
        let used = Arc::clone(least.expect("there is one"));
        let mut connection = MultiplexedConnection::clone(&used);
        let answers = connection.send_packed_commands(&pipeline, 0, 1 + usize::from(waits)).await;
        drop(used);
        let answers = answers.expect("it is answered");
        assert!(matches!(answers[0], Value::Okay), "each key is new: {answers:?}");
        assert!(!waits || matches!(answers[1], Value::Int(1..)), "the replica has it: {answers:?}");
    }
}
