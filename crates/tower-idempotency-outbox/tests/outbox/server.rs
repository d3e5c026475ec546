//! A server that answers as a test says, and notes what it gets; and relays that are in a hurry.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use retry_policies::policies::ExponentialBackoff;
use testkit::Gate;
use testkit::process::until;
use tower::util::BoxCloneService;
use tower::{BoxError, service_fn};
use tower_idempotency_client::{Key, KeyedRetryLayer};
use tower_idempotency_outbox::{Entry, Outbox, Relay, State};

pub(crate) type Client = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;
pub(crate) type Reply = Result<Response<Full<Bytes>>, BoxError>;

/// A request, as the server has got it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Got {
    pub(crate) key: String,
    pub(crate) body: String,
}

/// What the server has got so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Got>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<Got> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.all().into_iter().map(|got| got.body).collect()
    }
}

/// A server that answers each request by its body, and by how many requests with that body it has got, from 1.
pub(crate) fn server<F>(answer: impl Fn(String, usize) -> F + Clone + Send + Sync + 'static) -> (Client, Log)
where
    F: Future<Output = Reply> + Send + 'static,
{
    let log = Log::default();
    let noted = log.clone();
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let (log, answer) = (noted.clone(), answer.clone());
        async move {
            let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let number = {
                let mut log = log.0.lock().unwrap();
                log.push(Got { key, body: body.clone() });
                log.iter().filter(|got| got.body == body).count()
            };
            answer(body, number).await
        }
    });
    (BoxCloneService::new(service), log)
}

/// A server that answers all requests alike.
pub(crate) fn server_of(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> (Client, Log) {
    server(move |_, _| async move { answer(status, headers, body) })
}

/// The same, once the gate lets a request pass.
pub(crate) fn server_at(gate: &Gate, status: u16) -> (Client, Log) {
    let gate = gate.clone();
    server(move |_, _| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            answer(status, &[], "")
        }
    })
}

pub(crate) fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Reply {
    let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        answer.headers_mut().append(*name, value.parse().unwrap());
    }
    Ok(answer)
}

/// A relay that waits little, and sends a call once in each try.
pub(crate) fn relay<O: Outbox>(outbox: &O, client: &Client) -> Relay<O, Client> {
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    let bounds = (Duration::from_millis(1), Duration::from_millis(20));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(u32::MAX);
    Relay::new(outbox.clone(), client.clone())
        .layer(KeyedRetryLayer::new().backoff(once))
        .poll_every(Duration::from_millis(5))
        .backoff(backoff)
}

/// Runs a relay until the call with this key is in this state.
pub(crate) async fn run_until<O: Outbox>(relay: Relay<O, Client>, outbox: &O, key: &Key, state: State) -> Entry {
    relay.run(until(state.as_str(), async || entry(outbox, key).await.state == state)).await;
    entry(outbox, key).await
}

pub(crate) async fn entry(outbox: &impl Outbox, key: &Key) -> Entry {
    outbox.get(key).await.unwrap().expect("it is there")
}
