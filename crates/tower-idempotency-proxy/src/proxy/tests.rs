use std::time::Duration;

use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_idempotency::MemoryStore;

use super::*;

/// A proxy with room for so many parts, in front of a service whose answer has as many bytes as the path says. A path
/// with `/slow` is not answered.
async fn covered(parts: usize) -> Covered {
    let answer = async |axum::extract::Path(length): axum::extract::Path<usize>| "a".repeat(length);
    let slow = async || tokio::time::sleep(Duration::MAX).await;
    let service = axum::Router::new().route("/slow", axum::routing::any(slow));
    let service = service.route("/{length}", axum::routing::any(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let (upstream, layer) = (Upstream::new(origin).unwrap(), IdempotencyLayer::new(AnyStore::new(MemoryStore::new())));
    Covered { layered: layer.layer(upstream.clone()), upstream, well_known: None, room: Places::with(parts) }
}

fn request(client: u8, path: &str, key: &str) -> Request<Body> {
    let request = Request::post(path).header("host", "pay.example").header("content-length", "0");
    let request = if key.is_empty() { request } else { request.header("idempotency-key", key) };
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, client], 1))));
    request
}

/// The status, and what the answer says of the operation.
fn said(answer: &Response) -> (u16, &str) {
    let effect = answer.headers().get("idempotency-effect").map_or("", |effect| effect.to_str().unwrap());
    (answer.status().as_u16(), effect)
}

// Seeded faults: an answer takes nothing; its part is free before it is read; it is the same for all clients.
#[tokio::test]
async fn answers_that_are_not_read_take_a_client_s_share_of_the_room_and_no_more() {
    // A client's share is 8 parts.
    let covered = covered(16).await;
    let send = |client, path: &'static str, key: &'static str| covered.clone().oneshot(request(client, path, key));
    let four_parts = "/262144";
    let mut unread = vec![send(1, four_parts, "a").await.unwrap()];
    // A replay, and one that is passed on as it comes.
    unread.push(send(1, "/1000000", "").await.unwrap());
    assert!(covered.room.take_many(None, 12).is_none());
    unread.push(send(1, "/1", "b").await.unwrap());
    assert_eq!(unread.iter().map(said).collect::<Vec<_>>(), [(200, ""); 3]);
    for _ in 0..2 {
        let refused = send(1, four_parts, "a").await.unwrap();
        assert_eq!(said(&refused), (503, "unknown;retry"), "its answer is recorded, and has no room");
    }
    assert_eq!(said(&send(2, four_parts, "c").await.unwrap()), (200, ""), "there is room for others");
    unread.push(send(1, "/2", "d").await.unwrap());
    unread.push(send(1, "/3", "e").await.unwrap());
    let refused = send(1, "/4", "f").await.unwrap();
    assert_eq!(said(&refused), (503, "none;retry"), "there is no part for the request");
    let first = unread.swap_remove(0).into_body().collect().await.unwrap().to_bytes();
    assert_eq!(first.len(), 262_144);
    let again = send(1, four_parts, "a").await.unwrap();
    assert_eq!((said(&again), again.headers()["idempotent-replayed"].as_bytes()), ((200, ""), &b"true"[..]));
    drop((again, unread));
    assert!(covered.room.take_many(None, 16).is_some(), "all of it is free again");
}

#[tokio::test]
async fn a_request_has_its_part_until_it_is_answered_or_given_up() {
    let covered = covered(2).await;
    let mut waits = Box::pin(covered.clone().oneshot(request(1, "/slow", "")));
    assert!(futures_util::poll!(&mut waits).is_pending());
    let refused = covered.clone().oneshot(request(1, "/1", "a")).await.unwrap();
    assert_eq!(said(&refused), (503, "none;retry"));
    drop(waits);
    assert_eq!(said(&covered.clone().oneshot(request(1, "/1", "a")).await.unwrap()), (200, ""));
}
