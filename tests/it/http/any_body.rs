//! `any_body()` in a plain Tower stack, between layers that change the types of bodies: all those of tower-http's,
//! around the idempotency layer and inside it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HOST};
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::{MapErr, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Full, StreamBody};
use testkit::lab::layer;
use tower::util::MapResponseLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::{DecompressionLayer, RequestDecompressionLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_http::timeout::{
    RequestBodyDeadlineLayer, RequestBodyTimeoutLayer, ResponseBodyDeadlineLayer, ResponseBodyTimeoutLayer,
};
use tower_http::trace::TraceLayer;
use tower_idempotency::server::ReplayBody;

const LONG: Duration = Duration::from_secs(60);
const MOST: usize = 1_000;

/// The body `amount=1`, as gzip writes it.
const ZIPPED: &[u8] =
    &[31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 204, 205, 47, 205, 43, 177, 53, 4, 0, 97, 136, 165, 232, 8, 0, 0, 0];

/// A body whose errors have another type.
fn with_other_errors<B: Body<Error: Into<BoxError>>>(body: B) -> MapErr<B, fn(B::Error) -> BoxError> {
    body.map_err(Into::into)
}

fn is_zipped<B>(answer: Response<B>) -> Response<B> {
    assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
    answer
}

/// Adds the layers, of which the first is the outermost. Compressed bodies are decompressed again.
macro_rules! with_all_that_change_bodies {
    ($stack:expr) => {
        $stack
            .layer(TraceLayer::new_for_http())
            .layer(CatchPanicLayer::new())
            .layer(MapRequestBodyLayer::new(with_other_errors))
            .layer(MapResponseBodyLayer::new(with_other_errors))
            .layer(DecompressionLayer::new())
            .layer(MapResponseLayer::new(is_zipped))
            .layer(CompressionLayer::new())
            .layer(RequestDecompressionLayer::new())
            .layer(RequestBodyLimitLayer::new(MOST))
            .layer(RequestBodyTimeoutLayer::new(LONG))
            .layer(ResponseBodyTimeoutLayer::new(LONG))
            .layer(RequestBodyDeadlineLayer::new(LONG))
            .layer(ResponseBodyDeadlineLayer::new(LONG))
    };
}

/// Counts an effect, and answers with a text that is long enough to be compressed.
async fn charge<B: Body<Data: Send, Error: fmt::Debug>>(
    request: Request<B>,
    effects: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "amount=1");
    let number = effects.fetch_add(1, Ordering::SeqCst) + 1;
    Ok(Response::new(format!("effect {number} {}", "-".repeat(100)).into()))
}

/// One request and its retry, with this body: one effect, one answer, a replay.
async fn runs_once_and_is_replayed<B>(body: impl Fn() -> B)
where
    B: Body<Data: Send, Error: Into<BoxError> + Send + 'static> + Send + 'static,
{
    let effects = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&effects);
    let stack = with_all_that_change_bodies!(ServiceBuilder::new()).layer(layer().any_body());
    let service =
        with_all_that_change_bodies!(stack).service(service_fn(move |request| charge(request, Arc::clone(&counted))));
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/charges").header(HOST, "pay.example").header("idempotency-key", "k");
        let request = request.header(CONTENT_ENCODING, "gzip").body(body()).unwrap();
        let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        answers.push((parts.status, parts.headers.get("idempotent-replayed").cloned(), body));
    }
    let text = format!("effect 1 {}", "-".repeat(100));
    let replayed = HeaderValue::from_static("true");
    assert_eq!(answers[0], (http::StatusCode::OK, None, text.clone().into()));
    assert_eq!(answers[1], (http::StatusCode::OK, Some(replayed), text.into()));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn all_layers_of_tower_http_that_change_bodies_stand_around_the_layer_and_inside_it() {
    runs_once_and_is_replayed(|| Full::new(Bytes::from_static(ZIPPED))).await;
}

#[tokio::test]
async fn so_they_do_with_bodies_whose_data_are_other_than_bytes_that_are_boxed_or_come_bit_by_bit() {
    runs_once_and_is_replayed(|| Full::new(ZIPPED)).await;
    runs_once_and_is_replayed(|| UnsyncBoxBody::new(Full::new(Bytes::from_static(ZIPPED)))).await;
    let frames = || ZIPPED.chunks(5).map(|bit| Ok::<_, std::io::Error>(Frame::data(bit)));
    runs_once_and_is_replayed(|| StreamBody::new(futures_util::stream::iter(frames()))).await;
}

// A seeded fault: the end of a body is not noted. Some streams panic if they are polled after their end.
#[tokio::test]
async fn a_body_that_has_ended_is_not_polled_again() {
    let answer = async |_: Request<ReplayBody<Full<Bytes>>>| {
        let one =
            async |sent: bool| (!sent).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a"))), true));
        Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::unfold(false, one))))
    };
    let service = ServiceBuilder::new().layer(layer().any_body()).service(service_fn(answer));
    let request = Request::post("/charges").body(Full::<Bytes>::default()).unwrap();
    let mut body = Box::pin(service.oneshot(request).await.unwrap().into_body());
    assert!(body.frame().await.is_some());
    for _ in 0..2 {
        assert!(body.frame().await.is_none());
    }
}
