use super::*;
use crate::places::Places;

/// Connects to nothing.
fn clients(is_http2: bool) -> Clients {
    let nowhere = tower::service_fn(async |_: Uri| Err::<MaybeHttpsStream<_>, BoxError>("nowhere".into()));
    Clients::new(BoxCloneSyncService::new(nowhere), is_http2)
}

// Seeded faults: none is kept; all are.
#[test]
fn a_client_of_http_2_is_free_again_after_its_request_and_few_are_kept() {
    let (clients, places) = (clients(true), Places::with(MAX_IDLE + 1));
    let take = || clients.take(places.take(None).unwrap(), false);
    let free = || clients.free.lock().unwrap().len();
    let taken: Vec<_> = (0..=MAX_IDLE).map(|_| take()).collect();
    assert_eq!(free(), 0);
    drop(taken);
    assert_eq!(free(), MAX_IDLE);
    let _taken = take();
    assert_eq!(free(), MAX_IDLE - 1, "one that is free is taken first");
}

#[test]
fn few_connections_without_a_request_are_kept_and_not_for_long() {
    let settings = format!("{:?}", clients(false).builder);
    assert!(settings.contains("idle_timeout: Some(1s), max_idle_per_host: 64"), "{settings}");
}
