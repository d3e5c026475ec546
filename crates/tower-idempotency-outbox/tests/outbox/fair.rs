//! A destination that hangs leaves room for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use testkit::Gate;
use testkit::process::until;
use tower::util::BoxCloneService;
use tower::{BoxError, service_fn};
use tower_idempotency_outbox::{Outbox, Relay, State};

use crate::home::{Home, call_to, over_both};
use crate::server::{Client, entry};

over_both!(a_destination_that_hangs_takes_half_of_the_places_and_no_more);

/// Answers where the host is `well`, and elsewhere once the gate is open. Counts the requests that have come there.
fn client(gate: &Gate, hanging: &Arc<AtomicUsize>) -> Client {
    let (gate, hanging) = (gate.clone(), hanging.clone());
    BoxCloneService::new(service_fn(move |request: Request<Full<Bytes>>| {
        let (gate, hanging) = (gate.clone(), hanging.clone());
        async move {
            if request.uri().host() != Some("well") {
                hanging.fetch_add(1, Ordering::SeqCst);
                gate.pass().await;
            }
            Ok::<_, BoxError>(Response::new(Full::default()))
        }
    }))
}

async fn a_destination_that_hangs_takes_half_of_the_places_and_no_more(home: impl Home) {
    let outbox = home.outbox();
    // Two ways to write a destination, and whether it is the same one.
    let pairs = [
        ("http://hangs:81", "http://HANGS:81", true),
        ("http://hangs", "http://hangs:80", true),
        ("https://hangs:443", "https://hangs", true),
        ("http://hangs", "https://hangs", false),
        ("http://hangs", "http://hangs:443", false),
        ("http://hangs", "http://hangs-too", false),
    ];
    let mut numbers = 0..;
    let mut put = async |destination| {
        let number = numbers.next().unwrap();
        // With an order, and without one.
        let call = call_to(destination, number);
        let call = if number % 2 == 0 { call } else { call.in_order_of(format!("{number}")).unwrap() };
        outbox.put(&call).await.unwrap();
        call.key().clone()
    };
    for (one, other, is_same) in pairs {
        for concurrency in [1, 2, 7] {
            let of_each = (usize::from(concurrency) / 2).max(1);
            let most = if is_same { of_each } else { usize::from(concurrency).min(2 * of_each) };
            let (gate, hanging) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
            let relay = Relay::new(outbox.clone(), client(&gate, &hanging)).concurrency(concurrency);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let run = tokio::spawn(relay.poll_every(Duration::from_millis(5)).run(async { _ = stopped.await }));
            // One hangs before the others come.
            for (others, hang) in [(vec![one], 1), ([one, one, other, other].repeat(4), most)] {
                for destination in others {
                    put(destination).await;
                }
                until("they hang", async || hanging.load(Ordering::SeqCst) >= hang).await;
            }
            if usize::from(concurrency) > most {
                let others = [put("http://well").await, put("http://well").await];
                for key in others {
                    until("it is delivered", async || entry(outbox, &key).await.state == State::Delivered).await;
                }
            }
            assert_eq!(hanging.load(Ordering::SeqCst), most, "{concurrency} places, {one} and {other}");
            // Nothing is left for the next ones.
            gate.open();
            let none = async |state| outbox.list(state, None, 1).await.unwrap().is_empty();
            until("all are delivered", async || none(State::Waiting).await && none(State::Sending).await).await;
            drop(stop);
            run.await.unwrap();
        }
    }
}
