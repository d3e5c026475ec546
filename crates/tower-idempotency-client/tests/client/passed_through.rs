//! Requests with a safe method.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tower::{Layer as _, Service, service_fn};
use tower_idempotency_client::{Delivery, KeyedRetryLayer, Reason};

use crate::script::{Script, post};

#[tokio::test(start_paused = true)]
async fn safe_requests_have_no_key_and_one_attempt() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        let script = Script::default().answers(503, &[("retry-after", "1")], "");
        let mut request = post("");
        *request.method_mut() = method;
        let answer = script.call(&KeyedRetryLayer::new(), request).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(Delivery::of(&answer).is_none());
        assert!(!script.sent()[0].headers().contains_key("idempotency-key"));
    }
    let script = Script::default().fails("reset");
    let mut request = post("");
    *request.method_mut() = Method::GET;
    let error = script.call(&KeyedRetryLayer::new(), request).await.unwrap_err();
    assert_eq!((error.reason(), error.attempts()), (Reason::PassedThrough, 0));
    assert!(std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("reset")), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn every_unsafe_method_has_a_key() {
    for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE, Method::from_bytes(b"PURGE").unwrap()] {
        let script = Script::default().answers(503, &[], "").answers(200, &[], "");
        let mut request = post("");
        *request.method_mut() = method;
        script.call(&KeyedRetryLayer::new(), request).await.unwrap();
        assert_eq!(script.keys()[0], script.keys()[1]);
    }
}

#[test]
fn a_get_costs_no_allocation() {
    type Answered = Ready<Result<Response<Full<Bytes>>, Infallible>>;
    fn answer(_: Request<Full<Bytes>>) -> Answered {
        ready(Ok(Response::new(Full::new(Bytes::new()))))
    }
    let measured = |service: &mut dyn FnMut(Request<Full<Bytes>>) -> bool| {
        let request = Request::get("http://api.example.com/charges").body(Full::new(Bytes::new())).unwrap();
        let mut request = Some(request);
        let counted = allocation_counter::measure(|| assert!(service(request.take().unwrap())));
        counted.count_total
    };
    let mut layered = KeyedRetryLayer::new().layer(service_fn(answer));
    let mut cx = Context::from_waker(Waker::noop());
    let with = measured(&mut |request| {
        let future = pin!(layered.call(request));
        matches!(future.poll(&mut cx), Poll::Ready(Ok(_)))
    });
    // Dropping the answer frees what the request has brought, and nothing was allocated.
    assert_eq!(with, 0);
}
