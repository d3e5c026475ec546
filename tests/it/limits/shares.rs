//! One client takes at most half of the free runs, and half of the free budget for bodies. A client is a scope, or
//! the credentials if there is no scope; all requests without either are one client.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post as route;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, gated, id, keyed, settle};
use testkit::{Answer, Gate};
use tower::ServiceExt as _;
use tower_idempotency::engine::{EffectError, OnceContext};
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, Once, Scope};

use super::overload::{KIB, Upload, overloaded};

type Sent = tokio::task::JoinHandle<Answer>;

/// A request of the client that has this token.
fn of(client: &str, key: &str) -> Request {
    let request = keyed("POST", "/charges", key).header("authorization", format!("Bearer {client}"));
    request.body(Body::from("a")).unwrap()
}

/// Sends this many requests of a client, each with a key of its own, and returns those that run.
async fn send(lab: &Lab, client: &str, requests: usize) -> Vec<Sent> {
    static KEYS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let mut running = Vec::new();
    for _ in 0..requests {
        let key = KEYS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sent = lab.spawn(of(client, &format!("k{key}")));
        settle().await;
        if sent.is_finished() {
            sent.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
        } else {
            running.push(sent);
        }
    }
    running
}

fn max_runs(runs: usize) -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new()).max_runs(runs).on_in_flight(OnInFlight::Wait(HOUR))
}

#[tokio::test(start_paused = true)]
async fn one_client_has_at_most_half_of_the_runs_that_are_free() {
    let gate = Gate::default();
    // `fail_open` opens none of it.
    let layer = max_runs(16).fail_open(true);
    let lab = gated(layer.clone(), &gate);
    let mut running = Vec::new();
    for (client, runs) in [("alice", 8), ("bob", 4), ("carol", 2), ("dave", 1), ("erin", 1), ("frank", 0)] {
        let own = send(&lab, client, 16).await;
        assert_eq!(own.len(), runs, "{client}");
        running.extend(own);
    }
    assert_eq!((layer.stats().live, layer.stats().fail_open_runs), (16, 0));
    gate.open();
    for sent in running {
        assert_eq!(sent.await.unwrap().status, 200);
    }
    assert_eq!(lab.send(of("frank", "frank's")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_is_not_given_more_for_it() {
    let gate = Gate::default();
    let layer = max_runs(8);
    let lab = gated(layer.clone(), &gate);
    for _ in 0..10 {
        for sent in send(&lab, "mallory", 8).await {
            sent.abort();
        }
        settle().await;
    }
    assert_eq!(layer.stats().live, 4, "runs go on without their requesters, and count");
    assert_eq!(send(&lab, "alice", 8).await.len(), 2);
    assert_eq!(send(&lab, "bob", 8).await.len(), 1);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn clients_that_want_all_of_it_come_to_have_equal_shares() {
    let gates: Vec<_> = std::iter::repeat_with(Gate::default).take(200).collect();
    let layer = max_runs(30);
    let passed = gates.clone();
    let lab = Lab::new(layer.clone(), move |number| {
        let gate = passed[number].clone();
        async move {
            gate.pass().await;
            "done"
        }
    });
    // The runs under way, with their clients, the oldest first.
    let mut running: Vec<(usize, &str)> = Vec::new();
    let mut begun = 0;
    for client in ["alice"; 15] {
        begun += send(&lab, client, 1).await.len();
        running.push((begun, client));
    }
    for _ in 0..60 {
        for client in ["alice", "bob"] {
            let runs = send(&lab, client, 1).await.len();
            running.extend((0..runs).map(|_| (begun + 1, client)));
            begun += runs;
        }
        let (ended, _) = running.remove(0);
        gates[ended].open();
        settle().await;
    }
    let runs = |of: &str| running.iter().filter(|(_, client)| *client == of).count();
    assert!(runs("alice").abs_diff(10) <= 1 && runs("bob").abs_diff(10) <= 1, "{running:?}");
    gates.iter().for_each(Gate::open);
}

#[tokio::test(start_paused = true)]
async fn a_scope_says_who_a_client_is_and_credentials_do_not_then() {
    let gate = Gate::default();
    let layer = max_runs(8).scope(|parts| {
        let account = parts.headers.get("x-account").map(|account| account.as_bytes());
        Ok(account.map(Scope::new).transpose()?)
    });
    let lab = gated(layer, &gate);
    let of_account = |account: &str, client: &str, key: &str| {
        let mut request = of(client, key);
        request.headers_mut().insert("x-account", account.parse().unwrap());
        lab.spawn(request)
    };
    let mut of_one: Vec<_> =
        (0..6).map(|number| of_account("one", &format!("token {number}"), &format!("k{number}"))).collect();
    settle().await;
    assert_eq!(of_one.extract_if(.., |sent| sent.is_finished()).count(), 2, "other tokens are no other client");
    let of_two: Vec<_> = (0..6).map(|number| of_account("two", "token 0", &format!("k{number}"))).collect();
    settle().await;
    assert_eq!(of_two.iter().filter(|sent| !sent.is_finished()).count(), 2, "the same token is no other's client");
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn requests_without_credentials_are_one_client() {
    let gate = Gate::default();
    let lab = gated(max_runs(8), &gate);
    let anonymous: Vec<_> =
        (0..8).map(|number| lab.spawn(testkit::lab::post(&format!("anonymous-{number}"), "a"))).collect();
    settle().await;
    assert_eq!(anonymous.iter().filter(|sent| !sent.is_finished()).count(), 4);
    assert_eq!(send(&lab, "alice", 8).await.len(), 2);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_run_sends_is_not_refused_for_the_share_of_its_client() {
    let gate = Gate::default();
    let inner = gate.clone();
    let layer = max_runs(4);
    let sends = layer.clone();
    let batch = move |request: Request| {
        let (gate, layer) = (inner.clone(), sends.clone());
        async move {
            gate.pass().await;
            let (mut parts, _) = request.into_parts();
            let key = format!("{}-sub", parts.headers["idempotency-key"].to_str().unwrap());
            parts.headers.insert("idempotency-key", key.parse().unwrap());
            let app = Router::new().route("/charges", route(async || "charged")).layer(layer);
            Answer::of(app.oneshot(Request::from_parts(parts, Body::from("a"))).await.unwrap()).await.text().to_owned()
        }
    };
    let lab = Lab::of(Router::new().route("/charges", route(batch)).layer(layer));
    let running = send(&lab, "alice", 4).await;
    assert_eq!(running.len(), 2);
    gate.open();
    for sent in running {
        assert_eq!(sent.await.unwrap().text(), "charged");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_has_all_of_max_runs_and_what_it_runs_counts() {
    let gate = Gate::default();
    let store = MemoryStore::new();
    let once = Once::new(store.clone()).max_runs(4);
    let consume = |key: &str| {
        let (once, gate, id) = (once.clone(), gate.clone(), id(key));
        tokio::spawn(async move {
            let effect = |_: OnceContext<()>| async move {
                gate.pass().await;
                Ok::<_, EffectError<()>>(())
            };
            once.run(id, Fingerprint::of(b"m"), effect).await
        })
    };
    let messages = ["1", "2", "3", "4"].map(consume);
    settle().await;
    assert!(messages.iter().all(|message| !message.is_finished()));
    assert!(consume("5").await.unwrap().is_err());
    let lab = gated(IdempotencyLayer::new(store).max_runs(8), &gate);
    assert_eq!(send(&lab, "alice", 8).await.len(), 2, "half of the four that are free");
    gate.open();
}

/// An upload of a client.
fn upload(lab: &Lab, client: &str, key: &str) -> Upload {
    Upload::begin_as(lab, |body| {
        let request = keyed("POST", "/charges", key).header("authorization", format!("Bearer {client}"));
        request.body(body).unwrap()
    })
}

#[tokio::test(start_paused = true)]
async fn one_client_has_at_most_half_of_the_room_for_bodies_of_a_kind() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_buffered(1024 * KIB);
    let lab = Lab::counting(layer);
    for (kind, size, all) in [("large", 96 * KIB, 768 * KIB), ("small", 48 * KIB, 768 * KIB)] {
        let mut held = Vec::new();
        for (client, most) in [("mallory", all / 2), ("alice", all / 4), ("bob", all / 8)] {
            let mut bytes = 0;
            for number in 0..100 {
                let upload = upload(&lab, client, &format!("{kind}-{client}-{number}"));
                upload.send(size).await;
                // The layer waits a second for the rest of a body that is refused.
                tokio::time::advance(Duration::from_secs(1)).await;
                settle().await;
                if upload.is_over() {
                    assert_eq!(upload.end().await.refusal(), overloaded());
                    break;
                }
                bytes += size;
                held.push(upload);
            }
            assert!(bytes <= most && bytes > 0 && bytes + size > most, "{kind}, {client}: {bytes} of {most}");
        }
        for upload in held {
            assert_eq!(upload.end().await.status, 200);
        }
    }
}

// Otherwise a body that is longer than a share would be refused for ever.
#[tokio::test(start_paused = true)]
async fn the_only_body_of_a_client_may_take_what_room_there_is() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).max_buffered(1024 * KIB));
    let alice = upload(&lab, "alice", "k");
    for _ in 0..7 {
        alice.send(100 * KIB).await;
    }
    let other = upload(&lab, "alice", "other");
    other.send(KIB * 65).await;
    assert_eq!(other.end().await.refusal(), overloaded());
    let bob = upload(&lab, "bob", "bob's");
    bob.send(65 * KIB).await;
    assert!([alice.end().await, bob.end().await].iter().all(|answer| answer.status == 200));
    // All of it was given back.
    let again = upload(&lab, "alice", "again");
    again.send(768 * KIB).await;
    assert_eq!(again.end().await.status, 200);
}
