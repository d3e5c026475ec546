//! The shipped client and the shipped outbox behind the shipped proxy and its layer: what they say of an operation is
//! what the service has done.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use retry_policies::policies::ExponentialBackoff;
use testkit::meanings::statuses;
use testkit::process::until;
use testkit::proxy::{Cut, Proxy as Link, Way};
use tower::{Layer as _, ServiceExt as _};
use tower_idempotency::server::Profile;
use tower_idempotency::{AnyStore, IdempotencyLayer, OnInterrupted};
use tower_idempotency_client::{Delivery, KeyedRetry, KeyedRetryLayer, Known};
use tower_idempotency_outbox::{Call, Outbox as _, Relay, SledOutbox, State};
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied};

type HyperClient = Client<HttpConnector, Full<Bytes>>;

/// A client that tries twice, over a connection for each attempt.
fn client() -> KeyedRetry<HyperClient> {
    let bounds = (Duration::from_millis(1), Duration::from_millis(2));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(1);
    KeyedRetryLayer::new().backoff(backoff).layer(hyper())
}

fn hyper() -> HyperClient {
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

/// Each policy in each profile.
fn layers() -> impl Iterator<Item = (String, Profile, IdempotencyLayer<AnyStore>)> {
    [Profile::draft(), Profile::stripe(), Profile::acp()].into_iter().flat_map(|profile| {
        [OnInterrupted::Refuse, OnInterrupted::Rerun].map(|policy| {
            let layer = layer().profile(profile.clone()).on_interrupted(policy);
            (format!("{} {policy:?}", profile.name), profile.clone(), layer)
        })
    })
}

async fn behind(layer: IdempotencyLayer<AnyStore>, profile: &Profile, service: SocketAddr) -> SocketAddr {
    let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap().envelope(profile.envelope);
    proxied(layer, upstream).await
}

/// What a call says of its operation: that it has taken place, or has not; `None`: that it is unknown.
async fn called(proxy: SocketAddr, body: &str) -> Option<bool> {
    let request =
        Request::post(format!("http://{proxy}/orders")).body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    match client().oneshot(request).await {
        Ok(answer) if Delivery::of(&answer).unwrap().is_unknown() => None,
        Ok(answer) => Some(answer.status().is_success()),
        Err(error) => match error.known() {
            Known::Done => Some(true),
            Known::NotSent | Known::Refused => Some(false),
            _ => None,
        },
    }
}

/// The way to a service, whose first connection breaks there.
async fn cut_once(service: SocketAddr, way: Way, at: usize) -> Link {
    let first = std::sync::Mutex::new(Some((way, at)));
    Link::to(service, move |_| Some(Cut::new(first.lock().unwrap().take(), &Default::default()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_is_what_the_service_has_done_wherever_a_connection_breaks() {
    let (mut refused, mut unknown, mut done) = (0, 0, 0);
    for (name, profile, layer) in layers() {
        for (way, at) in [
            (Way::Request, 0),
            (Way::Request, 60),
            (Way::Request, 400),
            (Way::Response, 0),
            (Way::Response, 1),
            (Way::Response, 30),
            (Way::Response, 145),
            (Way::Response, 170),
        ] {
            let service = Service::default();
            let link = cut_once(service.start().await, way, at).await;
            let proxy = behind(layer.clone(), &profile, link.address()).await;
            let said = called(proxy, "book").await;
            let effects = service.keys().len();
            match said {
                Some(false) => {
                    assert_eq!(effects, 0, "{name} {way:?} {at}: refused");
                    refused += 1;
                }
                Some(true) => {
                    assert!(effects >= 1, "{name} {way:?} {at}: done");
                    done += 1;
                }
                None => unknown += 1,
            }
            let most = if name.ends_with("Rerun") { 2 } else { 1 };
            assert!(effects <= most, "{name} {way:?} {at}: {effects} effects");
            // Under `Rerun` the retry runs, and has an answer.
            assert!(said == Some(true) || name.ends_with("Refuse"), "{name} {way:?} {at}: {said:?}");
        }
    }
    assert!(unknown > 0 && done > 0, "{refused} refused, {unknown} unknown, {done} done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_of_each_status_is_what_the_proxy_has_made_of_it() {
    for (name, profile, layer) in layers() {
        let service = Service::default();
        let address = service.start().await;
        for (status, row) in statuses() {
            let proxy = behind(layer.clone(), &profile, address).await;
            let said = called(proxy, &status.to_string()).await;
            let rerun = name.ends_with("Rerun");
            let meaning = row.get(if rerun { "Rerun" } else { "Refuse" });
            let expected = match meaning {
                "final" if (200..300).contains(&status) => Some(true),
                "not started" => Some(false),
                "final" if (400..500).contains(&status) => Some(false),
                _ => None,
            };
            assert_eq!(said, expected, "{name} {status}");
        }
        for (mark, expected) in [
            ("503 release", Some(false)),
            ("500 release", Some(false)),
            ("200 unsure", None),
            ("402 unsure", None),
            ("402 keep", Some(false)),
            ("201 keep", Some(true)),
            ("409 release", Some(false)),
            // They were recorded because the service has had an effect before.
            ("401 keep", None),
            ("429 keep", None),
            ("307 keep", None),
            ("502 keep", None),
        ] {
            let proxy = behind(layer.clone(), &profile, address).await;
            assert_eq!(called(proxy, mark).await, expected, "{name} {mark}");
        }
    }
}

/// What has become of a call of the outbox: its state, and whether it may have taken place.
async fn carried(proxy: SocketAddr, outbox: &SledOutbox, body: &str) -> (State, bool) {
    let call = Request::post(format!("http://{proxy}/orders"))
        .header("idempotency-key", format!("{proxy} {}", body.replace(' ', "-")).replace(' ', "-"));
    let call = Call::new(call.body(Bytes::from(body.to_owned())).unwrap()).unwrap();
    outbox.put(&call).await.unwrap();
    let ended = async || {
        let state = outbox.get(call.key()).await.unwrap().unwrap().state;
        !matches!(state, State::Waiting | State::Sending)
    };
    let bounds = (Duration::from_millis(1), Duration::from_millis(5));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(2);
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    Relay::new(outbox.clone(), hyper())
        .layer(KeyedRetryLayer::new().backoff(once))
        .poll_every(bounds.1)
        .backoff(backoff)
        .run(until("an end", ended))
        .await;
    let entry = outbox.get(call.key()).await.unwrap().unwrap();
    (entry.state, entry.may_have_taken_place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_outbox_is_refused_only_if_the_service_has_done_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    let mut states = std::collections::BTreeSet::new();
    for (name, profile, layer) in layers() {
        for (way, at) in
            [(Way::Request, 60), (Way::Response, 0), (Way::Response, 30), (Way::Response, 145), (Way::Response, 170)]
        {
            let service = Service::default();
            let link = cut_once(service.start().await, way, at).await;
            let proxy = behind(layer.clone(), &profile, link.address()).await;
            let (state, may_have_taken_place) = carried(proxy, &outbox, "book").await;
            let effects = service.keys().len();
            assert!(state != State::Refused && may_have_taken_place || effects == 0, "{name} {way:?} {at}: {state}");
            assert!(effects <= if name.ends_with("Rerun") { 2 } else { 1 }, "{name} {way:?} {at}");
            assert!(state == State::Delivered || name.ends_with("Refuse"), "{name} {way:?} {at}: {state}");
            states.insert(state.as_str());
        }
        // What the service answers, and what becomes of the call.
        let service = Service::default();
        let address = service.start().await;
        for (body, state, may_have_taken_place) in [
            ("201", State::Delivered, true),
            ("402", State::Refused, false),
            ("402 keep", State::Refused, false),
            ("400 release", State::Refused, false),
            ("307", State::Refused, false),
            ("401", State::GivenUp, false),
            ("429", State::GivenUp, false),
            ("503 release", State::GivenUp, false),
            ("500 release", State::GivenUp, false),
            ("429 keep", State::GivenUp, true),
            ("200 unsure", State::GivenUp, true),
            ("502", State::GivenUp, true),
        ] {
            let proxy = behind(layer.clone(), &profile, address).await;
            assert_eq!(carried(proxy, &outbox, body).await, (state, may_have_taken_place), "{name} {body}");
        }
    }
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["delivered", "given_up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_not_kept_is_read_by_its_original_status() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    for (status, known, state) in [
        ("201", Some(true), State::Delivered),
        ("402", Some(false), State::Refused),
        ("500 keep", None, State::GivenUp),
        ("429 keep", None, State::GivenUp),
    ] {
        for (name, profile, layer) in layers() {
            let service = Service::default();
            let layer = layer.max_response_body(1);
            let address = service.start().await;
            // The first answer to each key is swallowed on its way to the client.
            for what in ["client", "outbox"] {
                let proxy = behind(layer.clone(), &profile, address).await;
                let again = cut_once(proxy, Way::Response, 0).await;
                if what == "client" {
                    assert_eq!(called(again.address(), status).await, known, "{name} {status}");
                } else {
                    let (found, may_have_taken_place) = carried(again.address(), &outbox, status).await;
                    assert_eq!((found, may_have_taken_place), (state, known != Some(false)), "{name} {status}");
                }
            }
            assert_eq!(service.keys().len(), 2, "{name} {status}");
        }
    }
}
