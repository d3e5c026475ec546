//! A service that answers as a test says, and keeps what it was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use testkit::meanings::Said;
use tower::util::BoxCloneService;
use tower::{BoxError, Layer as _, Service, ServiceExt as _};
use tower_idempotency_client::{Error, KeyedRetryLayer, ResponseBody, RetryBody};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answer = Response<ResponseBody<Body>>;
type Step = Box<dyn FnOnce() -> Option<Result<Response<Body>, BoxError>> + Send>;

#[derive(Clone, Default)]
pub(crate) struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    sent: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Script {
    /// The next attempt gets this answer.
    pub(crate) fn answers(self, status: u16, lines: &[(&str, &str)], body: &'static str) -> Self {
        let answer = head(status, lines).body(Full::new(Bytes::from(body)).map_err(never).boxed_unsync()).unwrap();
        self.then(move || Some(Ok(answer)))
    }

    /// The next attempt gets the answer of a row, with these lines in its head.
    pub(crate) fn says(self, said: &Said, lines: &[(&str, &str)]) -> Self {
        let trailers = said.grpc_status.as_ref().map(|status| {
            Ok(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status.parse().unwrap())]))
        });
        let body = Full::new(Bytes::from(said.body.clone())).with_trailers(ready(trailers));
        let lines = [&[("content-type", said.content_type)], lines].concat();
        let answer = head(200, &lines).body(body.map_err(never).boxed_unsync()).unwrap();
        self.then(move || Some(Ok(answer)))
    }

    /// The next attempt gets a problem of our layer.
    pub(crate) fn problem(self, status: u16, name: &str, again: bool) -> Self {
        let body = format!(r#"{{"type":"https://example.com/#{name}","retry_with_same_key":{again}}}"#);
        self.answers(status, &[("content-type", "application/problem+json"), ("retry-after", "1")], body.leak())
    }

    /// The next attempt fails.
    pub(crate) fn fails(self, error: impl Into<BoxError>) -> Self {
        let error = error.into();
        self.then(move || Some(Err(error)))
    }

    /// The next attempt gets no answer.
    pub(crate) fn hangs(self) -> Self {
        self.then(|| None)
    }

    /// The answer of the next attempt breaks off after its first bytes.
    pub(crate) fn breaks_off(self, status: u16, lines: &[(&str, &str)]) -> Self {
        let frames = [Ok(http_body::Frame::data(Bytes::from("{\"id\":"))), Err(BoxError::from("connection reset"))];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let answer = head(status, lines).body(body).unwrap();
        self.then(move || Some(Ok(answer)))
    }

    /// The answer of the next attempt comes in these frames, and must not be asked for more after its end.
    pub(crate) fn answers_in(self, frames: &'static [&'static str]) -> Self {
        let next = async |mut frames: std::slice::Iter<'static, &str>| {
            frames.next().map(|frame| (Ok(http_body::Frame::data(Bytes::from(*frame))), frames))
        };
        let frames = futures_util::stream::unfold(frames.iter(), next);
        let answer = head(200, &[]).body(http_body_util::StreamBody::new(frames).boxed_unsync()).unwrap();
        self.then(move || Some(Ok(answer)))
    }

    /// The answer of the next attempt has a head, and nothing of its body comes.
    pub(crate) fn stalls(self, lines: &[(&str, &str)]) -> Self {
        let body = http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync();
        let answer = head(200, lines).body(body).unwrap();
        self.then(move || Some(Ok(answer)))
    }

    fn then(self, step: impl FnOnce() -> Option<Result<Response<Body>, BoxError>> + Send + 'static) -> Self {
        self.steps.lock().unwrap().push_back(Box::new(step));
        self
    }

    /// The service. An attempt beyond the script panics.
    pub(crate) fn service<B>(&self) -> BoxCloneService<Request<B>, Response<Body>, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
    {
        let script = self.clone();
        BoxCloneService::new(tower::service_fn(move |request: Request<B>| {
            let script = script.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                script.sent.lock().unwrap().push(Request::from_parts(head, body));
                let step = script.steps.lock().unwrap().pop_front().expect("the script has no further attempt");
                match step() {
                    Some(result) => ready(result).await,
                    None => pending().await,
                }
            }
        }))
    }

    /// Makes a call.
    pub(crate) async fn call<B>(&self, layer: &KeyedRetryLayer, request: Request<B>) -> Result<Answer, Error>
    where
        B: RetryBody + http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
    {
        layer.layer(self.service()).ready().await?.call(request).await
    }

    /// Makes a call with POST.
    pub(crate) async fn post(&self, layer: &KeyedRetryLayer) -> Result<Answer, Error> {
        let result = self.call(layer, post("amount=5")).await;
        assert!(self.steps.lock().unwrap().is_empty(), "the script was not followed to its end");
        result
    }

    /// How many attempts came.
    pub(crate) fn attempts(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// The keys of the attempts, as they were sent.
    pub(crate) fn keys(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        let key = |request: &Request<Bytes>| request.headers()["idempotency-key"].to_str().unwrap().to_owned();
        sent.iter().map(key).collect()
    }

    /// What was sent.
    pub(crate) fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Request<Bytes>>> {
        self.sent.lock().unwrap()
    }
}

/// Counts how often a service is asked whether it is ready.
#[derive(Clone)]
pub(crate) struct Asked<S>(pub(crate) S, pub(crate) Arc<AtomicUsize>);

impl<S: Service<R>, R> Service<R> for Asked<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

fn head(status: u16, lines: &[(&str, &str)]) -> http::response::Builder {
    lines.iter().fold(Response::builder().status(status), |head, (name, value)| head.header(*name, *value))
}

pub(crate) fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://api.example.com/charges").body(Full::new(Bytes::from(body))).unwrap()
}

fn never(error: Infallible) -> BoxError {
    match error {}
}
