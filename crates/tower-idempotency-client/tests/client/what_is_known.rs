//! What the error of a call says.

use std::future::{Ready, poll_fn, ready};
use std::io::ErrorKind;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, Service};
use tower_idempotency_client::{Delivery, Error, InvalidKey, Key, KeyedRetryLayer, Known, Reason};

use crate::script::{Script, post};

fn layer() -> KeyedRetryLayer {
    KeyedRetryLayer::new().backoff(retry_policies::policies::ExponentialBackoff::builder().build_with_max_retries(1))
}

async fn error(script: Script) -> Error {
    script.post(&layer()).await.unwrap_err()
}

/// What hyper-util's client says where it finds no server.
async fn refused_connection() -> hyper_util::client::legacy::Error {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::post("http://127.0.0.1:9/").body(Full::default()).unwrap();
    client.request(request).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_nothing_was_sent() {
    let error = error(Script::default().fails(refused_connection().await).fails(refused_connection().await)).await;
    assert_eq!(error.known(), Known::NotSent);
    assert!(std::error::Error::source(&error).unwrap().downcast_ref::<hyper_util::client::legacy::Error>().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_found_no_server_itself_may_have_done_its_work() {
    let of_another_step = || std::io::Error::from(ErrorKind::ConnectionRefused);
    let error = error(Script::default().fails(of_another_step()).fails(of_another_step())).await;
    assert_eq!(error.known(), Known::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_each_time_has_not_begun() {
    let error = error(Script::default().fails(refused_connection().await).problem(503, "overloaded", true)).await;
    assert_eq!((error.known(), error.response().unwrap().status().as_u16()), (Known::Refused, 503));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_lost_makes_it_unknown_whatever_comes_after() {
    let later = [
        Script::default().fails("reset").fails(refused_connection().await),
        Script::default().fails("reset").problem(503, "overloaded", true),
        Script::default().hangs().answers(429, &[], ""),
        Script::default().breaks_off(200, &[]).problem(422, "key-reused", false),
        Script::default().answers(504, &[], "").answers(425, &[], ""),
    ];
    for script in later {
        let error = error(script).await;
        assert_eq!(error.known(), Known::Unknown, "{error}");
        assert!(error.key().is_some() && error.to_string().contains("ask again"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_each_time_leaves_its_head_in_the_error() {
    for status in [200, 400, 500] {
        let error = error(Script::default().fails("reset").breaks_off(status, &[("x-charge", "7")])).await;
        assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Backoff), "{status}");
        let response = error.response().unwrap();
        assert_eq!((response.status().as_u16(), &**response.body()), (status, &b"{\"id\":"[..]));
        assert_eq!(response.headers()["x-charge"], "7");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "connection reset");
    }
    // What comes later counts.
    let error = error(Script::default().breaks_off(200, &[]).fails("reset")).await;
    assert!(error.response().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_made_again_says_no_less_than_the_one_before() {
    let layer = layer();
    let lost = Script::default().fails("reset").fails("reset").post(&layer).await.unwrap_err();
    let again = || {
        let mut request = post("amount=5");
        request.extensions_mut().insert(lost.key().unwrap().clone());
        request
    };
    let script = Script::default().fails(refused_connection().await).fails(refused_connection().await);
    assert_eq!(script.call(&layer, again()).await.unwrap_err().known(), Known::Unknown);
    let answer = Script::default().answers(401, &[], "").call(&layer, again()).await.unwrap();
    assert!(Delivery::of(&answer).unwrap().is_unknown());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_what_it_knows_is_believed() {
    let unknown = error(Script::default().problem(409, "outcome-unknown", false)).await;
    assert_eq!((unknown.known(), unknown.reason()), (Known::Unknown, Reason::Rejected));
    // What has ended is not unknown any more, whichever attempt was lost before.
    let not_kept = |original: &str| {
        let body = format!(r#"{{"type":"/not-replayable","retry_with_same_key":false,"original_status":{original}}}"#);
        Script::default().fails("reset").answers(409, &[("content-type", "application/problem+json")], body.leak())
    };
    for (original, known) in [("201", Known::Done), ("402", Known::Refused), ("500", Known::Unknown)] {
        let error = error(not_kept(original)).await;
        assert_eq!((error.known(), error.reason()), (known, Reason::NotKept), "{original}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_of_a_lost_attempt_is_marked() {
    for (status, lines, is_unknown) in [
        (401, &[][..], true),
        (500, &[], true),
        (200, &[], false),
        // A token of a later release says nothing, so nothing else is asked of a success.
        (200, &[("idempotency-effect", "maybe")], false),
        (200, &[("idempotency-effect", "maybe"), ("x-should-retry", "true")], false),
        (402, &[("idempotent-replayed", "true")], false),
        (402, &[("idempotent-replayed", "True")], false),
    ] {
        let answer = Script::default().fails("reset").answers(status, lines, "").post(&layer()).await.unwrap();
        assert_eq!(Delivery::of(&answer).unwrap().is_unknown(), is_unknown, "{status}");
    }
    for (status, is_unknown) in [(401, false), (409, false), (307, false), (500, true), (303, true)] {
        let answer = Script::default().answers(status, &[], "").post(&layer()).await.unwrap();
        assert_eq!(Delivery::of(&answer).unwrap().is_unknown(), is_unknown, "{status}");
    }
    // A recorded error of the server's may have come after the effect.
    for (status, is_unknown) in [(500, true), (503, true), (303, true), (402, false), (409, false), (201, false)] {
        let script = Script::default().answers(status, &[("idempotent-replayed", "true")], "");
        let answer = script.post(&layer()).await.unwrap();
        assert_eq!(Delivery::of(&answer).unwrap().is_unknown(), is_unknown, "a replayed {status}");
    }
    // What conflicts may be an earlier call with the caller's key.
    let mut request = post("");
    request.extensions_mut().insert(Key::random());
    let answer = Script::default().answers(409, &[], "").call(&layer(), request).await.unwrap();
    assert!(Delivery::of(&answer).unwrap().is_unknown());
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_is_known_why_it_ended_and_after_how_many_attempts() {
    let invalid = || {
        let mut request = post("");
        request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static(""));
        request
    };
    let none = Script::default().call(&layer(), invalid()).await.unwrap_err();
    assert_eq!(std::error::Error::source(&none).unwrap().to_string(), InvalidKey::Empty.to_string());
    let texts = [
        (none, "nothing was sent: the idempotency key is not valid"),
        (
            error(Script::default().fails("reset").fails("reset")).await,
            "the operation may have taken place; ask again with the same key: the backoff policy permits no more \
             attempts (attempt 2)",
        ),
        (
            error(Script::default().fails("reset").problem(409, "outcome-unknown", false)).await,
            "the operation may have taken place: the same request is rejected again; ask again as an \
             earlier attempt did, or look the operation up \
             (409 Conflict, attempt 2)",
        ),
        (
            error(Script::default().answers(409, &[("idempotency-effect", "done;status=500;retry=?0")], "")).await,
            "the operation may have taken place: it has ended, and its answer was not kept; look the operation up \
             (409 Conflict, attempt 1)",
        ),
        (
            error(rejected("7ecb7a42")).await,
            "the operation may have taken place: the same request is rejected again; quote 7ecb7a42 to the operator of \
             the API (409 Conflict, attempt 1)",
        ),
        (
            error(Script::default().answers(429, &[], "").answers(429, &[], "")).await,
            "the server refused it: nothing was done for this call: the backoff policy permits no more attempts \
             (429 Too Many Requests, attempt 2)",
        ),
        (
            error(Script::default().answers(409, &[("idempotency-effect", "done;status=201;retry=?0")], "")).await,
            "the operation has taken place, and its answer was not kept; look its result up: it has ended, and its \
             answer was not kept (409 Conflict, attempt 1)",
        ),
    ];
    for (error, text) in texts {
        assert_eq!(error.to_string(), text);
    }
}

/// A server that says that it is unknown whether the operation took place, and under which id its operator finds it.
fn rejected(record_id: &str) -> Script {
    let body = format!(
        r#"{{"type":"https://e.example/#outcome-unknown","retry_with_same_key":false,"record_id":"{record_id}"}}"#
    );
    Script::default().answers(409, &[("content-type", "application/problem+json")], body.leak())
}

#[tokio::test(start_paused = true)]
async fn an_error_has_the_id_by_which_an_operator_finds_the_operation() {
    assert_eq!(error(rejected("7ecb7a42")).await.record_id().as_deref(), Some("7ecb7a42"));
    // What is no id may be anything, and is in no text.
    for id in ["", "7ecb", "7ecb7a42\\nERROR", "quote me on that"] {
        let error = error(rejected(id)).await;
        assert_eq!((error.known(), error.record_id()), (Known::Unknown, None), "{id}");
        assert!(error.to_string().contains("look the operation up"), "{error}");
    }
    assert_eq!(error(Script::default().fails("reset").fails("reset")).await.record_id(), None);
}

#[tokio::test(start_paused = true)]
async fn neither_errors_nor_keys_show_the_key() {
    let error = error(Script::default().fails("reset").problem(409, "outcome-unknown", false)).await;
    let key = error.key().unwrap();
    for text in [format!("{error}"), format!("{error:?}"), format!("{key:?}")] {
        assert!(!text.contains(key.as_str()), "{text}");
    }
}

/// A service that is ready for one request, which it loses.
#[derive(Clone)]
struct ReadyOnce {
    is_ready: bool,
}

impl Service<Request<Full<Bytes>>> for ReadyOnce {
    type Response = http::Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(if self.is_ready { Ok(()) } else { Err("it has ended") })
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "a service is called before it is ready");
        ready(Err("reset"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_was_sent_nothing_and_is_not_asked_again() {
    let mut service = KeyedRetryLayer::new().layer(ReadyOnce { is_ready: true });
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let error = service.call(post("")).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::Unknown, Reason::Unsendable, 2));
    let mut service = KeyedRetryLayer::new().layer(ReadyOnce { is_ready: false });
    let error = poll_fn(|cx| service.poll_ready(cx)).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::NotSent, Reason::Unsendable, 0));
}
