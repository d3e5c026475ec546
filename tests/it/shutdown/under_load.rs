//! A server that is shut down while many clients send requests to it, over real sockets.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use http::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use testkit::client::Raw;
use testkit::lab::disk::Disk;
use testkit::lab::{Lab, on_disk};
use testkit::process::eventually;
use testkit::{Answer, Call, Connection, Gate, on_both};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tower_idempotency::server::health;
use tower_idempotency::shutdown::Stopped;
use tower_idempotency::store::Health;
use tower_idempotency::{IdempotencyLayer, Shutdown};

const CLIENTS: usize = 24;
/// The answers after which the server is shut down.
const ANSWERS: usize = 300;
/// The runs that end only after the load is over.
const LONG: usize = 8;
/// Longer than any of this takes.
const FOREVER: Duration = Duration::from_secs(120);

type Stop = BoxFuture<'static, ()>;
type Server = BoxFuture<'static, io::Result<()>>;

/// axum's own server.
fn of_axum(listener: TcpListener, app: Router, stop: Stop) -> Server {
    axum::serve(listener, app).with_graceful_shutdown(stop).into_future().boxed()
}

/// A server of hyper-util's, which owns its connections.
fn of_hyper(listener: TcpListener, app: Router, mut stop: Stop) -> Server {
    let serve = async move {
        let (builder, mut open, graceful) =
            (Builder::new(TokioExecutor::new()), JoinSet::new(), GracefulShutdown::new());
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                () = &mut stop => break,
            };
            let service = TowerToHyperService::new(app.clone());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            open.spawn(graceful.watch(connection.into_owned()));
        }
        drop((listener, app));
        graceful.shutdown().await;
        Ok(())
    };
    serve.boxed()
}

/// The runs of each key that have begun, and of all keys that have ended. Those of the long keys wait at the gate.
#[derive(Default)]
struct Runs {
    begun: Mutex<HashMap<String, usize>>,
    ended: AtomicUsize,
    gate: Gate,
}

async fn charge(State(runs): State<Arc<Runs>>, headers: HeaderMap) -> String {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    *runs.begun.lock().entry(key.clone()).or_default() += 1;
    if key.starts_with("long") {
        runs.gate.pass().await;
    }
    // It is under way for a while.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    runs.ended.fetch_add(1, Ordering::SeqCst);
    format!("charged for {key}")
}

fn app(store: &impl Disk, runs: &Arc<Runs>) -> Router {
    let charges = Router::new().route("/v1/charges", post(charge)).with_state(Arc::clone(runs));
    charges.route_layer(IdempotencyLayer::new(store.clone())).merge(health::routes([store.clone()]))
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    answered: Vec<(Call, Answer)>,
    /// The keys whose requests were refused, or got no answer.
    not_run: HashSet<String>,
}

/// Sends one request after the other, until the server accepts no connection any more. Every fourth repeats the one
/// before.
async fn client(address: SocketAddr, number: usize, counted: impl Fn()) -> Seen {
    let mut seen = Seen::default();
    let connect = async || match number % 2 {
        0 => Connection::http1(address).await.ok(),
        _ => Connection::http2(address).await.ok(),
    };
    let mut connection = connect().await;
    for turn in 0.. {
        let Some(open) = &mut connection else { break };
        let is_repeated = turn % 4 == 3;
        let key = format!("c{number}-{}", if is_repeated { turn - 1 } else { turn });
        let call = Call::charge(&key, "tok_visa");
        // Which one hangs is worth more than that one does.
        let sent = timeout(FOREVER, open.send(&call)).await;
        let sent = sent.unwrap_or_else(|_| panic!("client {number} has no answer for {key}, and no end"));
        match sent {
            Ok(answer) if answer.status == 200 => {
                counted();
                let is_first = !is_repeated || seen.not_run.remove(&key);
                assert_eq!(answer.is_replay(), !is_first, "{key}");
                seen.answered.push((call, answer));
            }
            Ok(answer) => {
                assert_eq!(answer.refusal(), (503, "shutting-down".to_owned()));
                assert!(!is_repeated || seen.not_run.contains(&key), "a replay of {key} was refused");
                seen.not_run.insert(key);
            }
            Err(_) => {
                // The server had closed the connection before it read the request.
                if !is_repeated {
                    seen.not_run.insert(key);
                }
                connection = connect().await;
            }
        }
    }
    seen
}

/// Begins long runs, and returns the clients that wait for their answers. The others go away.
async fn long_runs(address: SocketAddr, runs: &Runs, stay: usize) -> Vec<JoinHandle<(Call, Answer)>> {
    let send = |number| async move {
        let call = Call::charge(&format!("long-{number}"), "tok_visa");
        let answer = Connection::http1(address).await.unwrap().send(&call).await.unwrap();
        (call, answer)
    };
    let mut waiting: Vec<_> = (0..LONG).map(|number| tokio::spawn(send(number))).collect();
    eventually("the long runs", || (runs.begun.lock().len() == LONG).then_some(())).await;
    waiting.drain(stay..).for_each(|client| client.abort());
    waiting
}

/// Sends a call to an application in process.
async fn again(lab: &Lab, call: &Call) -> Answer {
    let mut request = http::Request::post(&call.path).header("host", "pay.example");
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    lab.send(request.body(call.body.clone().into()).unwrap()).await
}

/// Shuts a server down under load, and checks what has to hold then. `stalled` clients hold connections meanwhile.
async fn under_load<D: Disk>(
    serve: fn(TcpListener, Router, Stop) -> Server,
    stalled: &[&[u8]],
) -> (Stopped<io::Result<()>>, Vec<Raw>) {
    let (directory, store) = on_disk(D::builder());
    let (runs, asked) = (Arc::<Runs>::default(), Arc::new(Notify::new()));
    // Without clients that stall, nothing but the connections' own end is waited for.
    let connections = if stalled.is_empty() { FOREVER } else { Duration::from_millis(50) };
    let shutdown = Shutdown::of([store.clone()]).drain_within(FOREVER).connections_within(connections);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve(listener, app(&store, &runs), shutdown.stop_accepting().boxed());
    let signal = Arc::clone(&asked);
    let told = tokio::spawn(shutdown.stop_accepting());
    let serving = tokio::spawn(shutdown.serve(server, async move { signal.notified().await }));

    let mut held = Vec::new();
    for bytes in stalled {
        let mut raw = Raw::connect(address).await.unwrap();
        raw.say(bytes).await.unwrap();
        held.push(raw);
    }
    // Where no connection is held, drain alone waits for the long runs.
    let waiting = long_runs(address, &runs, if stalled.is_empty() { 0 } else { LONG }).await;
    let answers = Arc::new(AtomicUsize::new(0));
    let counted = move || {
        if answers.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS {
            asked.notify_one();
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(address, number, counted.clone()))).collect();
    timeout(FOREVER, told).await.expect("it is not told to stop").unwrap();
    // Once it has stopped accepting, it does not accept again.
    let refuses = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(FOREVER, refuses).await.expect("it goes on accepting");
    let seen = timeout(FOREVER * 2, join_all(clients)).await.expect("a client is not let go");
    assert!(!serving.is_finished(), "runs are under way");
    runs.gate.open();
    let stopped = timeout(FOREVER, serving).await.expect("it does not end").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!((stopped.drained.is_complete(), store.health()), (true, Health::Closed));

    let begun = runs.begun.lock().clone();
    assert_eq!(begun.values().sum::<usize>(), runs.ended.load(Ordering::SeqCst), "a run was dropped");
    assert!(begun.values().all(|runs| *runs == 1), "a key ran twice");
    let mut answered: Vec<_> = join_all(waiting).await.into_iter().map(|long| long.expect("it is answered")).collect();
    for of_client in seen.into_iter().map(Result::unwrap) {
        answered.extend(of_client.answered);
        let ran = of_client.not_run.iter().find(|key| begun.contains_key(*key));
        assert_eq!(ran, None, "it ran, and its client was not answered");
    }
    // All runs and answers are in the store.
    drop(store);
    let reopened = D::open_within(directory.path(), FOREVER).unwrap();
    let lab = Lab::of(app(&reopened, &Arc::default()));
    for (call, answer) in &answered {
        let retry = again(&lab, call).await;
        assert_eq!((answer.status.as_u16(), retry.is_replay(), &retry.body), (200, true, &answer.body), "{retry:?}");
    }
    for key in begun.keys() {
        let retry = again(&lab, &Call::charge(key, "tok_visa")).await;
        assert_eq!((retry.text(), retry.is_replay()), (&*format!("charged for {key}"), true), "{retry:?}");
    }
    (stopped, held)
}

on_both!(
    #[tokio::test(flavor = "multi_thread")]
    under_load_all_that_was_answered_is_recorded_and_no_run_is_cut
);
async fn under_load_all_that_was_answered_is_recorded_and_no_run_is_cut<D: Disk>() {
    for serve in [of_axum as fn(_, _, _) -> _, of_hyper] {
        let (stopped, _) = under_load::<D>(serve, &[]).await;
        assert!(stopped.is_clean(), "{stopped:?}");
    }
}

/// The beginnings of a connection that goes no further: nothing, half a head, half a body of a request with a key.
const STALLED: [&[u8]; 3] = [
    b"",
    b"POST /v1/charges HT",
    b"POST /v1/charges HTTP/1.1\r\nhost: pay.example\r\nidempotency-key: half\r\ncontent-length: 100\r\n\r\namount=10",
];

on_both!(
    #[tokio::test(flavor = "multi_thread")]
    under_load_clients_that_stall_do_not_keep_a_server_from_ending
);
async fn under_load_clients_that_stall_do_not_keep_a_server_from_ending<D: Disk>() {
    for serve in [of_axum as fn(_, _, _) -> _, of_hyper] {
        let (stopped, held) = under_load::<D>(serve, &STALLED).await;
        assert!(stopped.output.is_none() && stopped.closed.is_ok(), "{stopped:?}");
        assert_eq!(held.len(), STALLED.len());
    }
}

on_both!(
    #[tokio::test(flavor = "multi_thread")]
    a_server_that_owns_its_connections_closes_those_that_stall
);
async fn a_server_that_owns_its_connections_closes_those_that_stall<D: Disk>() {
    let (_, held) = under_load::<D>(of_hyper, &STALLED).await;
    for client in held {
        // The end may be a reset.
        let _ = timeout(FOREVER, client.rest()).await.expect("its connection is not closed");
    }
}
