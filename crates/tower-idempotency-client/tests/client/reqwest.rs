//! reqwest, through its service and through reqwest-middleware.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::StatusCode;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use testkit::proxy::Way;
use tower::{Layer as _, ServiceExt as _};
use tower_idempotency_client::{Delivery, Error, KeyedRetry, KeyedRetryLayer, Known, Reason};

use crate::script::Asked;
use crate::server::{charging, cut, quick, serve};

pub(crate) fn without_redirects() -> Client {
    Client::builder().redirect(Policy::none()).pool_max_idle_per_host(0).no_proxy().build().unwrap()
}

/// reqwest as it is built by default: it follows redirects.
fn with_redirects() -> Client {
    Client::builder().pool_max_idle_per_host(0).no_proxy().build().unwrap()
}

fn service(layer: &KeyedRetryLayer) -> KeyedRetry<Client> {
    layer.clone().without_redirects().layer(without_redirects())
}

fn middleware(layer: &KeyedRetryLayer) -> ClientWithMiddleware {
    ClientBuilder::new(without_redirects()).with(layer.clone().without_redirects()).build()
}

fn error(error: reqwest_middleware::Error) -> Error {
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
    error.downcast().unwrap()
}

fn charge(url: &str) -> reqwest::Request {
    let mut request = reqwest::Request::new(http::Method::POST, Url::parse(url).unwrap());
    *request.body_mut() = Some("amount=5".into());
    request
}

#[tokio::test]
async fn an_answer_that_is_lost_is_replayed_over_both() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    let url = format!("http://{}/charges", proxy.address());
    for (number, at) in [(1, 0), (2, 60), (3, 120)] {
        *cut.lock().unwrap() = Some((Way::Response, at));
        let answer = service(&quick()).oneshot(charge(&url)).await.unwrap();
        assert!(Delivery::of(&http::Response::from(answer)).unwrap().is_replay());
        *cut.lock().unwrap() = Some((Way::Response, at));
        let answer = middleware(&quick()).post(&url).body("amount=5").send().await.unwrap();
        assert_eq!(answer.extensions().get::<Delivery>().unwrap().attempts(), 2);
        assert_eq!((answer.url().as_str(), answer.status()), (&*url, StatusCode::CREATED));
        assert_eq!(answer.text().await.unwrap(), format!("charge {}", 2 * number));
    }
    assert_eq!(charges.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn what_a_middleware_below_adds_comes_with_each_attempt() {
    let (server, _) = charging().await;
    let (proxy, cut) = cut(server).await;
    *cut.lock().unwrap() = Some((Way::Response, 0));
    struct Counts(Arc<AtomicUsize>);
    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for Counts {
        async fn handle(
            &self,
            request: reqwest::Request,
            extensions: &mut http::Extensions,
            next: reqwest_middleware::Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            assert!(request.headers().contains_key("idempotency-key"));
            self.0.fetch_add(1, Ordering::SeqCst);
            next.run(request, extensions).await
        }
    }
    let attempts = Arc::default();
    let layer = quick().without_redirects();
    let client = ClientBuilder::new(without_redirects()).with(layer).with(Counts(Arc::clone(&attempts))).build();
    client.post(format!("http://{}/charges", proxy.address())).body("amount=5").send().await.unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent_if_there_are_no_redirects() {
    let url = "http://127.0.0.1:9/charges";
    let layer = quick().backoff(retry_policies::policies::ExponentialBackoff::builder().build_with_max_retries(0));
    let over_service = service(&layer).oneshot(charge(url)).await.unwrap_err();
    let over_middleware = error(middleware(&layer).post(url).body("amount=5").send().await.unwrap_err());
    for error in [over_service, over_middleware] {
        assert_eq!((error.known(), error.reason()), (Known::NotSent, Reason::Backoff), "{error}");
    }
    // The first stop may have had the effect, and have sent the client to a second one, which is away.
    let error = layer.layer(with_redirects()).oneshot(charge(url)).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Redirect));
    assert!(error.to_string().contains("without_redirects"), "{error}");
    // What does not come in time may have been sent there, too.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/charges", silent.local_addr().unwrap());
    let layer = quick().attempt_timeout(Duration::from_millis(20));
    let error = layer.layer(with_redirects()).oneshot(charge(&url)).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::Unknown, Reason::Redirect, 1));
}

#[tokio::test]
async fn nothing_is_retried_across_a_redirect_to_another_origin() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let busy = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]) }
    };
    let other = serve(Router::new().route("/charges", post(busy))).await;
    let to = format!("http://{other}/charges");
    let redirect = move || {
        let to = to.clone();
        async move { (StatusCode::TEMPORARY_REDIRECT, [("location", to)]) }
    };
    let here = serve(Router::new().route("/charges", post(redirect))).await;
    let url = format!("http://{here}/charges");
    let answer = quick().layer(with_redirects()).oneshot(charge(&url)).await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 1));
    // Neither is one to the same origin: the first stop may have had the effect.
    let again = serve(
        Router::new()
            .route("/charges", post(async || (StatusCode::SEE_OTHER, [("location", "/charges/1")])))
            .route("/charges/1", axum::routing::get(async || StatusCode::TOO_MANY_REQUESTS)),
    );
    let url_of_same = format!("http://{}/charges", again.await);
    let answer = quick().layer(with_redirects()).oneshot(charge(&url_of_same)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    // One to what reqwest can't ask says nothing of the first stop either.
    let nowhere =
        serve(Router::new().route("/charges", post(async || (StatusCode::FOUND, [("location", "app://done")])))).await;
    let nowhere = charge(&format!("http://{nowhere}/charges"));
    let error = quick().layer(with_redirects()).oneshot(nowhere).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Redirect));
    // One that is not followed is the answer.
    let answer = service(&quick()).oneshot(charge(&url)).await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::TEMPORARY_REDIRECT, 1));
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_stop_before_it() {
    let busy = serve(Router::new().route("/charges", post(async || StatusCode::TOO_MANY_REQUESTS))).await;
    let url = format!("http://{busy}/charges");
    let layer = quick().backoff(retry_policies::policies::ExponentialBackoff::builder().build_with_max_retries(0));
    let error = service(&layer).oneshot(charge(&url)).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Refused, Reason::Backoff));
    let error = layer.layer(with_redirects()).oneshot(charge(&url)).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Backoff));
}

#[tokio::test]
async fn an_answer_of_a_service_in_process_is_judged_without_a_url() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let answers = tower::service_fn(move |_: reqwest::Request| {
        let status = if counted.fetch_add(1, Ordering::SeqCst) == 0 { 503 } else { 200 };
        let answer = http::Response::builder().status(status).body("").unwrap();
        std::future::ready(Ok::<_, reqwest::Error>(reqwest::Response::from(answer)))
    });
    let ready = Arc::default();
    let service = quick().without_redirects().layer(Asked(answers, Arc::clone(&ready)));
    let answer = service.oneshot(charge("http://api.example.com/")).await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::OK, 2));
    assert_eq!(ready.load(Ordering::SeqCst), 2, "it is asked once for each attempt whether it is ready");
}

#[tokio::test]
async fn a_request_that_reqwest_refuses_was_sent_nothing_and_is_not_retried() {
    let error = service(&quick()).oneshot(charge("ftp://127.0.0.1/charges")).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::NotSent, Reason::Unsendable, 1));
}

#[tokio::test]
async fn trap_65_a_stream_of_reqwest_is_sent_once() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    *cut.lock().unwrap() = Some((Way::Response, 0));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter([Ok::<_, std::io::Error>(
        http_body::Frame::data(bytes::Bytes::from("amount=5")),
    )]));
    let url = format!("http://{}/charges", proxy.address());
    let mut request = charge(&url);
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    let client = service(&quick());
    let failed = client.clone().oneshot(request).await.unwrap_err();
    assert_eq!((failed.known(), failed.reason()), (Known::Unknown, Reason::SentOnce));
    // The key asks again, with the same bytes.
    let mut again = charge(&url);
    again.headers_mut().insert("idempotency-key", failed.key().unwrap().as_str().parse().unwrap());
    let answer = client.oneshot(again).await.unwrap();
    assert_eq!((answer.text().await.unwrap().as_str(), charges.load(Ordering::SeqCst)), ("charge 1", 1));
}

/// A request with a key of the caller's own.
fn keyed(url: &str, body: impl Into<reqwest::Body>) -> reqwest::Request {
    let mut request = charge(url);
    *request.body_mut() = Some(body.into());
    request.headers_mut().insert("idempotency-key", "order-17".parse().unwrap());
    request
}

#[tokio::test]
async fn a_key_is_for_one_request_over_reqwest_too() {
    let (server, charges) = charging().await;
    let url = format!("http://{server}/charges");
    let client = service(&quick());
    for (path, body, expected) in [
        ("", "amount=5", Ok("charge 1")),
        ("", "amount=5", Ok("charge 1")),
        ("", "amount=6", Err(Reason::KeyReused)),
        ("?a=1", "amount=5", Err(Reason::KeyReused)),
    ] {
        let answer = client.clone().oneshot(keyed(&format!("{url}{path}"), body)).await;
        let result = match answer {
            Ok(answer) => Ok(answer.text().await.unwrap()),
            Err(error) => Err(error.reason()),
        };
        assert_eq!(result, expected.map(str::to_owned), "{path} {body}");
    }
    let mut without_body = keyed(&url, "");
    *without_body.body_mut() = None;
    assert_eq!(client.oneshot(without_body).await.unwrap_err().reason(), Reason::KeyReused);
    assert_eq!(charges.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_with_a_safe_method_passes_through_as_it_is() {
    let (server, _) = charging().await;
    let url = format!("http://{server}/charges");
    let answer = middleware(&quick().deadline(Duration::ZERO)).get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    let failed = middleware(&quick()).get("http://127.0.0.1:9/").send().await.unwrap_err();
    assert!(failed.is_connect());
    let request = reqwest::Request::new(http::Method::GET, Url::parse(&url).unwrap());
    assert_eq!(service(&quick()).oneshot(request).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let request = reqwest::Request::new(http::Method::GET, Url::parse("http://127.0.0.1:9/").unwrap());
    let failed = service(&quick()).oneshot(request).await.unwrap_err();
    assert_eq!((failed.reason(), failed.attempts()), (Reason::PassedThrough, 0));
}
