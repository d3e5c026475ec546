//! What is not recognised in an answer is never taken for "nothing was done": statuses and numbers that are none, and
//! what another protocol or another exchange has said.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post as route;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use testkit::lab::asked::{Asked, found};
use testkit::lab::{Lab, layer};
use tower::ServiceExt as _;
use tower_idempotency::engine::Reconciled;
use tower_idempotency::server::KeptHeaders;
use tower_idempotency::{Keep, Meaning, Rejection};

/// What an answer means by default.
fn meaning(status: u16, headers: &[(&'static str, &'static str)]) -> Meaning {
    let answer = headers.iter().fold(Response::builder(), |answer, (name, value)| answer.header(*name, *value));
    Meaning::of_answer(&answer.status(status).body(()).unwrap().into_parts().0, None)
}

// Seeded faults: the content type does not count; a number that is none is final.
#[test]
fn a_grpc_status_says_that_nothing_was_done_of_a_grpc_answer_alone_and_another_number_is_unknown() {
    for kind in ["application/grpc", "Application/gRPC+proto", "application/grpc; a=b"] {
        for (status, expected) in [
            ("0", Meaning::Final),
            ("2", Meaning::Unknown),
            ("3", Meaning::Final),
            ("7", Meaning::NotStarted),
            ("10", Meaning::Final),
            ("15", Meaning::Final),
            ("16", Meaning::NotStarted),
            ("17", Meaning::Unknown),
            ("99", Meaning::Unknown),
            ("07", Meaning::Unknown),
            ("-1", Meaning::Unknown),
            ("ok", Meaning::Unknown),
            ("", Meaning::Unknown),
        ] {
            assert_eq!(meaning(200, &[("content-type", kind), ("grpc-status", status)]), expected, "{kind} {status}");
        }
    }
    // A handler passes on what a service has said to it.
    for kind in ["application/json", "application/grpc-web", "application/grpcx"] {
        for status in ["0", "7", "16", "17"] {
            let passed_on = meaning(201, &[("content-type", kind), ("grpc-status", status)]);
            assert_eq!(passed_on, Meaning::Final, "{kind} {status}");
        }
    }
    assert_eq!(meaning(201, &[("grpc-status", "7")]), Meaning::Final);
    // The answer's own status counts. Seeded fault: a number of gRPC's makes each of them final.
    for status in [401, 403, 429] {
        assert_eq!(meaning(status, &[("grpc-status", "8")]), Meaning::NotStarted, "{status}");
    }
    // Of two statuses neither counts, and one with two types is no answer of gRPC. Seeded fault: the first one does.
    let grpc = ("content-type", "application/grpc");
    for two in [["7", "0"], ["0", "7"], ["16", "16"]] {
        let lines = [grpc, ("grpc-status", two[0]), ("grpc-status", two[1])];
        assert_eq!(meaning(200, &lines), Meaning::Unknown, "{two:?}");
        let mut trailers = HeaderMap::new();
        for status in two {
            trailers.append("grpc-status", status.parse().unwrap());
        }
        let head = Response::builder().header(grpc.0, grpc.1).body(()).unwrap().into_parts().0;
        assert_eq!(Meaning::of_answer(&head, Some(&trailers)), Meaning::Unknown, "{two:?}");
    }
    for types in [[grpc, ("content-type", "text/plain")], [("content-type", "text/plain"), grpc]] {
        let [one, other] = types;
        assert_eq!(meaning(200, &[one, other, ("grpc-status", "7")]), Meaning::Final, "{types:?}");
    }
}

// Seeded fault: it is final. hyper answers an interim status with a bare 500, which each retry would get.
#[tokio::test]
async fn a_status_that_ends_no_answer_is_unknown_and_is_never_recorded() {
    for status in [100, 102, 103, 199, 600, 999] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(meaning(status.as_u16(), &[]), Meaning::Unknown, "{status}");
        let lab = Lab::new(layer(), move |_| async move { status });
        lab.post("k", "a").await;
        assert_eq!((lab.post("k", "a").await.problem(), lab.effects()), ("outcome-unknown".into(), 1), "{status}");
        // Nor is it what a reconciler has found.
        let asked = Asked::default();
        let odd = || Reconciled::Outcome(found_as(status));
        let layer = layer().reconcile_with(asked.says([odd(), odd()]));
        let lab = Lab::new(layer, |_| async { StatusCode::BAD_GATEWAY });
        lab.post("k", "a").await;
        assert_eq!((lab.post("k", "a").await.problem(), lab.effects()), ("outcome-unknown".into(), 1), "{status}");
    }
    assert_eq!(meaning(299, &[]), Meaning::Final);
    assert_eq!(meaning(599, &[]), Meaning::Final);
}

fn found_as(status: StatusCode) -> Response<http_body_util::Full<Bytes>> {
    let Reconciled::Outcome(mut answer) = found("receipt") else { panic!("it is an outcome") };
    *answer.status_mut() = status;
    answer
}

// Seeded fault: a success is replaced by the rejection's own status, which is the same success.
#[tokio::test]
async fn a_rejection_of_the_application_s_is_never_a_success() {
    for (status, expected) in [(200, 500), (204, 500), (103, 500), (600, 500), (303, 303), (403, 403), (503, 503)] {
        let status = StatusCode::from_u16(status).unwrap();
        let layer = layer().scope(move |_| Err::<tower_idempotency::Scope, _>(Rejection::from(status)));
        let refused = Lab::counting(layer).post("k", "a").await;
        assert_eq!(refused.status.as_u16(), expected, "{status}");
    }
}

// Seeded fault: the option comes before the rule.
#[tokio::test]
async fn an_effect_is_never_recorded_whatever_is_kept() {
    let effect = HeaderName::from_static("idempotency-effect");
    let layer = layer().kept_headers(KeptHeaders::default().with([effect]));
    let passed_on = [("idempotency-effect", "none"), ("x-link", "1")];
    let lab = Lab::new(layer, move |_| async move { (StatusCode::CREATED, Keep, passed_on, "made") });
    for answer in lab.two_tries().await {
        assert_eq!((answer.header("idempotency-effect"), answer.header("x-link")), (None, Some("1")));
    }
}

// Seeded fault: only a status of the list counts, without the headers and the body that make it one.
#[tokio::test]
async fn what_a_sub_request_left_unknown_does_not_free_the_key_of_its_handler() {
    let nonce = Bytes::from_static(br#"{"error":"use_dpop_nonce"}"#);
    for (status, header, body) in [
        (401, None, Bytes::new()),
        (413, Some(("retry-after", "1")), Bytes::new()),
        (402, Some(("payment-required", "e30=")), Bytes::new()),
        (400, Some(("dpop-nonce", "n")), nonce),
    ] {
        // The inner handler has had its effect, and says so by its mark.
        let inner = move || {
            let (headers, body) = (header.into_iter().collect::<Vec<_>>(), body.clone());
            async move {
                let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                let status = StatusCode::from_u16(status).unwrap();
                (status, Keep, headers.collect::<HeaderMap>(), body).into_response()
            }
        };
        let app = Arc::new(Mutex::new(None::<Router>));
        let of_handler = Arc::clone(&app);
        let outer = move |request: Request| {
            let app = of_handler.lock().unwrap().clone().unwrap();
            async move {
                let (mut parts, _) = request.into_parts();
                parts.uri = "/inner".parse().unwrap();
                parts.headers.insert("idempotency-key", "inner".parse().unwrap());
                app.oneshot(Request::from_parts(parts, Body::from("a"))).await.unwrap()
            }
        };
        let router = Router::new().route("/charges", route(outer)).route("/inner", route(inner)).layer(layer());
        *app.lock().unwrap() = Some(router.clone());
        let lab = Lab::of(router);
        let first = lab.post("k", "a").await;
        let effect = first.header("idempotency-effect");
        assert_eq!((first.status.as_u16(), effect), (status, Some("unknown;retry=?0")));
        assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown", "{status}");
    }
}
