//! The proxy's own answers, and who answers CORS.

use axum::response::Response;
use testkit::dice::free_address;
use testkit::meanings::{Row, of_the_proxy};
use testkit::{Answer, Call};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::server::Profile;
use tower_idempotency::{AnyStore, IdempotencyLayer, OnInterrupted};
use tower_idempotency_proxy::{Proxy, Upstream};

use crate::service::{Service, layer, says, send_call, serve};

const SHOP: &str = "https://shop.example";

fn cors() -> CorsLayer {
    let headers = layer().cors_headers();
    let origins: [http::HeaderValue; 1] = [SHOP.parse().unwrap()];
    CorsLayer::new().allow_origin(origins).allow_headers(headers.allow).expose_headers(headers.expose)
}

/// A layer whose reconciler does not know.
fn asks(layer: IdempotencyLayer<AnyStore>) -> IdempotencyLayer<AnyStore> {
    layer.reconcile_with(Reconciler::<Response>::new(|_| std::future::ready(Reconciled::StillUnknown)))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_the_proxy_s_own_says_what_the_page_has_for_it_with_a_key_and_without() {
    // The last one does not answer.
    let nowhere = free_address();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let switches = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let rows = of_the_proxy();
    let says_of = |status: u16, policy: &str, has_key: bool| {
        let of_status = || rows.iter().filter(|row| row.statuses() == [status] && row.is_for(policy));
        let without_key = |row: &&Row| row.get("answer").ends_with("had no key");
        let own = of_status().find(|row| without_key(row) != has_key);
        own.or_else(|| of_status().find(|row| !without_key(row))).unwrap().get("says").to_owned()
    };
    for (name, service, status) in [
        ("not reached", nowhere, 503),
        ("not passed on", nowhere, 400),
        ("broken", says("").await.0, 502),
        ("unreadable", says("HTTP/1.1 abc\r\n\r\n").await.0, 502),
        ("switched", says(switches).await.0, 502),
        ("late", silent.local_addr().unwrap(), 504),
    ] {
        for (policy, has_key) in [("refuse", true), ("rerun", true), ("ask", true), ("refuse", false), ("rerun", false)]
        {
            // A request with a key has the layer's limit, after which the layer answers.
            if name == "late" && has_key {
                continue;
            }
            for is_cors in [true, false] {
                let layer = match policy {
                    "rerun" => layer().on_interrupted(OnInterrupted::Rerun),
                    "ask" => asks(layer()),
                    _ => layer(),
                };
                let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap();
                let proxy = Proxy::new(layer, upstream.passed_within(std::time::Duration::from_millis(100)));
                let proxy = serve(if is_cors { proxy.cors(cors()) } else { proxy }).await;
                let mut call = Call::post("/orders", "book").header("origin", SHOP);
                if name == "not passed on" {
                    call = call.header("connection", "authorization").header("authorization", "a");
                }
                if has_key {
                    call = call.header("idempotency-key", "k");
                }
                let name = format!("{name}: {policy}, key {has_key}, cors {is_cors}");
                let answer = send_call(proxy, &call).await;
                let expected = says_of(status, policy, has_key);
                let effect = answer.header("idempotency-effect").unwrap_or_default();
                assert_eq!((answer.status.as_u16(), effect), (status, &*expected), "{name}: {answer:?}");
                assert_eq!(answer.json()["retry_with_same_key"], effect.ends_with(";retry"), "{name}: {answer:?}");
                assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"), "{name}");
                assert_eq!(answer.header("access-control-allow-origin"), is_cors.then_some(SHOP), "{name}");
                // What says `none` has freed the key.
                let again = send_call(proxy, &call).await;
                let is_refused = has_key && status == 502 && policy != "rerun";
                let problem = if is_refused { "outcome-unknown" } else { "custom" };
                assert_eq!(again.problem(), problem, "{name}: {again:?}");
            }
        }
    }
}

// ACP's clients read `Retry-After`, and Stripe's a header of its own. Seeded faults: each is left out.
#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_s_own_answers_say_as_each_profile_does_whether_a_retry_is_of_use() {
    let nowhere = free_address();
    for (profile, says_retry) in [(Profile::draft(), false), (Profile::acp(), false), (Profile::stripe(), true)] {
        let name = profile.name;
        let upstream = Upstream::new(format!("http://{nowhere}").parse().unwrap()).unwrap().envelope(profile.envelope);
        let proxy = serve(Proxy::new(layer().profile(profile), upstream)).await;
        let call = Call::post("/orders", "book").header("idempotency-key", "k");
        let away = send_call(proxy, &call).await;
        let says = |answer: &Answer| {
            let header = |name| answer.header(name).map(str::to_owned);
            (answer.status.as_u16(), header("retry-after"), header("stripe-should-retry"))
        };
        let expected = (503, Some("1".to_owned()), says_retry.then(|| "true".to_owned()));
        assert_eq!(says(&away), expected, "{name}");
        let wrong = send_call(proxy, &call.header("connection", "authorization").header("authorization", "a")).await;
        assert_eq!(says(&wrong), (400, None, says_retry.then(|| "false".to_owned())), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_says_of_cors_is_left_out_only_where_the_proxy_says_it() {
    let service = Service::default().start().await;
    for is_cors in [true, false] {
        let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap();
        let proxy = Proxy::new(layer(), upstream);
        let proxy = serve(if is_cors { proxy.cors(cors()) } else { proxy }).await;
        let said = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
        for origin in [Some(SHOP), Some("https://evil.example"), None] {
            let order = Call::post("/orders", "book");
            let order = origin.into_iter().fold(order, |order, origin| order.header("origin", origin));
            let covered = order.clone().header("idempotency-key", origin.unwrap_or("none"));
            let name = format!("{is_cors} {origin:?}");
            // The service allows `null`, whatever it is asked.
            let of_service = (!is_cors).then(|| "null".to_owned());
            let of_proxy = origin.filter(|origin| is_cors && *origin == SHOP).map(str::to_owned);
            let each = of_service.clone().or(of_proxy.clone());
            assert_eq!(said(&send_call(proxy, &order).await), each, "{name}: without a key");
            assert_eq!(said(&send_call(proxy, &covered).await), each, "{name}: the first answer");
            let replay = send_call(proxy, &covered).await;
            assert!(replay.is_replay(), "{name}");
            assert_eq!(said(&replay), of_proxy, "{name}: the replay");
        }
    }
}
