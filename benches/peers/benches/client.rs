//! Measures what the client's layer costs: POSTs through it, and through the same client of hyper-util without it.
//!
//! `cargo bench -p peers --bench client`. 64 requests are under way over HTTP/1.1 with keep-alive on loopback, to a
//! server on a thread of its own that answers at once. Both sides take turns, in one run. The bare client sends no key.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::report::Report;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_idempotency_client::KeyedRetryLayer;

const AT_ONCE: usize = 64;
const REQUESTS: usize = 20_000;
const LEAST: f64 = 0.97;

fn main() {
    let (send, bound) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let app = Router::new().route("/charges", post(async |body: Bytes| body));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
            send.send(listener.local_addr().expect("it is bound")).expect("the bench waits");
            axum::serve(listener, app).await.expect("it serves until the bench ends");
        });
    });
    let server = bound.recv().expect("the server is up");
    let question = "What does a client pay for its key and its retries?";
    let mut report = Report::new("client", "cargo bench -p peers --bench client", question);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bare: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let layered = KeyedRetryLayer::new().layer(bare.clone());
        let mut both = Pairs { ours: Vec::new(), theirs: Vec::new() };
        round(&bare, server).await;
        for _ in 0..pairs() {
            both.theirs.push(round(&bare, server).await);
            both.ours.push(round(&layered, server).await);
        }
        report.row("64 POSTs at once", "hyper-util's client", "requests/s", both.theirs());
        report.row("64 POSTs at once", "the same, with the layer", "requests/s", both.ours());
        report.at_least("throughput, of hyper-util's client", both.ratio(), LEAST);
    });
    report.finish();
}

/// Requests a second.
async fn round<S, B>(client: &S, server: SocketAddr) -> f64
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    let body = Bytes::from(vec![b'a'; 200]);
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..AT_ONCE {
        let (mut client, body) = (client.clone(), body.clone());
        clients.spawn(async move {
            for _ in 0..REQUESTS / AT_ONCE {
                let request = Request::post(format!("http://{server}/charges")).body(Full::new(body.clone()));
                let answer =
                    client.ready().await.expect("ready").call(request.expect("valid")).await.expect("an answer");
                assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes().len(), 200);
            }
        });
    }
    clients.join_all().await;
    (REQUESTS / AT_ONCE * AT_ONCE) as f64 / began.elapsed().as_secs_f64()
}
