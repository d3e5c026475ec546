//! A destination that hangs leaves room for the others.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use testkit::process::until;
use tower::util::BoxCloneService;
use tower::{BoxError, service_fn};
use tower_idempotency_outbox::{Outbox, Relay, State};

use crate::home::{Home, call_to, over_both};
use crate::server::{Client, entry};

over_both!(a_destination_that_hangs_takes_half_of_the_places_and_no_more);

/// Answers where the host is `well`, and never where it is another one. Counts the requests that hang.
fn client(hanging: &std::sync::Arc<std::sync::atomic::AtomicUsize>) -> Client {
    let hanging = hanging.clone();
    BoxCloneService::new(service_fn(move |request: Request<Full<Bytes>>| {
        let hanging = hanging.clone();
        async move {
            if request.uri().host() != Some("well") {
                hanging.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(Response::new(Full::default()))
        }
    }))
}

async fn a_destination_that_hangs_takes_half_of_the_places_and_no_more(home: impl Home) {
    let outbox = home.outbox();
    let hanging = std::sync::Arc::default();
    for number in 0..60 {
        // With an order, and without one; the host's case does not count.
        let call = call_to(if number % 4 < 2 { "hangs:81" } else { "HANGS:81" }, number);
        let call = if number % 2 == 0 { call } else { call.in_order_of(format!("{number}")).unwrap() };
        outbox.put(&call).await.unwrap();
    }
    for concurrency in [1, 7] {
        let (most, first) = ((concurrency as usize / 2).max(1), 100 * u32::from(concurrency));
        hanging_store(&hanging);
        let relay = Relay::new(outbox.clone(), client(&hanging)).concurrency(concurrency);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let run = tokio::spawn(relay.poll_every(Duration::from_millis(5)).run(async { _ = stopped.await }));
        until("they hang", async || count(&hanging) == most).await;
        if concurrency > 1 {
            for number in first..first + 4 {
                let call = call_to("well", number);
                let call = if number % 2 == 0 { call } else { call.in_order_of(format!("{number}")).unwrap() };
                outbox.put(&call).await.unwrap();
            }
            for number in first..first + 4 {
                let key = call_to("well", number).key().clone();
                until("it is delivered", async || entry(outbox, &key).await.state == State::Delivered).await;
            }
        }
        assert_eq!(count(&hanging), most);
        run.abort();
        drop((stop, run.await));
        // Their leases are over.
        for entry in outbox.list(State::Sending, None, 99).await.unwrap() {
            home.end_lease(&entry).await;
        }
    }
}

fn count(hanging: &std::sync::atomic::AtomicUsize) -> usize {
    hanging.load(std::sync::atomic::Ordering::SeqCst)
}

fn hanging_store(hanging: &std::sync::atomic::AtomicUsize) {
    hanging.store(0, std::sync::atomic::Ordering::SeqCst);
}
