//! The load: hyper's client on one thread, with kept connections, and one request under way on each.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use testkit::Connection;
use testkit::bench::exchange::KEY;
use testkit::bench::load::{Round, key};
use tokio::task::JoinSet;

const CHARGE: &str = "amount=100&currency=eur&source=tok_visa";
/// The number of sessions over which a connection spreads its requests, if the server needs one: the server's cost
/// grows with the content of a session.
const SESSIONS: usize = 32;

/// The plan of a load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub requests: usize,
    /// `none`, `same` or `new`.
    pub keys: String,
    /// The number of the first new key.
    pub first: u64,
    pub session: bool,
    /// `true` if the server marks the answers that are replays.
    pub marks_replays: bool,
}

/// Runs the load to its end, and prints what it has measured.
pub fn generate(plan: &Plan) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let round = runtime.block_on(run(plan));
    println!("{}", serde_json::to_string(&round).expect("it can be written"));
}

async fn run(plan: &Plan) -> Round {
    let mut connections = Vec::new();
    for number in 0..plan.connections {
        let mut connection = Connection::http1(plan.address).await.expect("the server listens");
        let mut cookies = Vec::new();
        for _ in 0..if plan.session { SESSIONS } else { 0 } {
            cookies.push(log_in(&mut connection).await);
        }
        // This sends the repeated key for the first time.
        let same = key(u64::MAX / 2 + number as u64);
        if plan.keys == "same" {
            for cookie in cookies.iter().map(Some).chain(cookies.is_empty().then_some(None)) {
                exchange(&mut connection, request(Some(&same), cookie)).await;
            }
        }
        connections.push((connection, cookies, same));
    }
    let share = plan.requests / plan.connections;
    let mut running = JoinSet::new();
    let began = Instant::now();
    for (place, (mut connection, cookies, same)) in (0_u64..).zip(connections) {
        let (keys, first) = (plan.keys.clone(), plan.first + place * share as u64);
        let is_replay = plan.marks_replays.then_some(keys == "same");
        running.spawn(async move {
            let mut times = Vec::with_capacity(share);
            for number in 0..share {
                let cookie = if cookies.is_empty() { None } else { cookies.get(number % cookies.len()) };
                let request = match &*keys {
                    "none" => request(None, cookie),
                    "same" => request(Some(&same), cookie),
                    _ => request(Some(&key(first + number as u64)), cookie),
                };
                let began = Instant::now();
                let headers = exchange(&mut connection, request).await;
                if let Some(is_replay) = is_replay {
                    assert_eq!(headers.contains_key("idempotent-replayed"), is_replay);
                }
                times.push(began.elapsed());
            }
            times
        });
    }
    let times = running.join_all().await.into_iter().flatten().collect();
    Round::of(times, began.elapsed())
}

fn request(key: Option<&str>, cookie: Option<&HeaderValue>) -> Request<Full<Bytes>> {
    let builder = Request::post("/charges").header(HOST, "pay.example").header(AUTHORIZATION, "Bearer sk_test_a");
    let builder = builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let builder = key.into_iter().fold(builder, |builder, key| builder.header(KEY, key));
    let builder = cookie.into_iter().fold(builder, |builder, cookie| builder.header(COOKIE, cookie));
    builder.body(Full::new(Bytes::from_static(CHARGE.as_bytes()))).expect("a request")
}

/// Returns the cookie of a new session.
async fn log_in(connection: &mut Connection) -> HeaderValue {
    let request = Request::post("/login").header(HOST, "pay.example").body(Full::default()).expect("a request");
    let headers = exchange(connection, request).await;
    let cookie = headers[SET_COOKIE].to_str().expect("text").split(';').next().expect("its value");
    cookie.parse().expect("a value again")
}

/// Sends a request and reads the whole answer, which must be a 200.
async fn exchange(connection: &mut Connection, request: Request<Full<Bytes>>) -> HeaderMap {
    let answer = connection.exchange(request).await.expect("the server answers");
    assert_eq!(answer.status, 200);
    answer.headers
}
