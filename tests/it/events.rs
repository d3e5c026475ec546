//! Each request with a key leaves one event, which the plain `fmt` subscriber shows: what became of it, its record id,
//! the attempt, the times, the store, and for a replay the trace of the first run.

use std::future::pending;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use testkit::lab::{Lab, at_once, id, keyed, on_disk, patient, post};
use testkit::log::Log;
use testkit::{Answer, Gate};
use tower_idempotency::engine::EffectError;
use tower_idempotency::store::Store;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Key, MemoryStore, Once, RecordId, SledStore};
use tracing::Level;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The lines of the log, without their spans.
fn events(log: &Log) -> Vec<String> {
    let lines = log.lines().into_iter();
    let event = |line: String| {
        let (level, rest) = line.split_once(' ').expect("a level");
        let (_, event) = rest.rsplit_once("tower_idempotency: ").expect("an event of the layer");
        format!("{level} {event}")
    };
    lines.map(event).collect()
}

/// Posts under `k`, with a trace.
async fn traced(lab: &Lab, trace: &str) -> Answer {
    let request = keyed("POST", "/", "k").header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    lab.send(request.body("a".into()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn each_request_with_a_key_is_one_event_that_plain_fmt_shows() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).require_key(true));
    let log = Log::begin(Level::DEBUG);
    let short = id("secret-key").short();
    lab.post("secret-key", "secret-body").await;
    lab.post("secret-key", "secret-body").await;
    lab.post("secret-key", "other").await;
    lab.post("secret key", "secret-body").await;
    let of = |event: &str| event.replace("ID", &short);
    assert_eq!(
        events(&log),
        [
            of("DEBUG ran record_id=\"ID\" attempt=1 ran_ms=0 store=\"memory\""),
            of("DEBUG replayed record_id=\"ID\" attempt=1 store=\"memory\""),
            of("INFO refused: key-reused record_id=\"ID\" store=\"memory\" count=1 differs=\"body\""),
            of("INFO refused: key-malformed store=\"memory\" count=1"),
        ]
    );
}

/// The first run's trace and label come from the record, which survives a restart.
async fn a_replay_names_its_first_run<St: Store + Clone>(store: St, name: &str) {
    let layer = IdempotencyLayer::new(store).label(|parts: &Parts| parts.uri.path().to_owned());
    traced(&Lab::counting(layer.clone()), TRACE).await;
    let log = Log::begin(Level::DEBUG);
    traced(&Lab::counting(layer), &TRACE.replace('a', "b")).await;
    let short = id("k").short();
    let replay = format!(
        "DEBUG replayed record_id=\"{short}\" attempt=1 label=\"/\" store=\"{name}\" first_trace_id=\"{TRACE}\""
    );
    assert_eq!(events(&log), [replay]);
}

#[tokio::test]
async fn a_replay_names_the_trace_and_the_label_of_the_first_run() {
    a_replay_names_its_first_run(MemoryStore::new(), "memory").await;
    let (_directory, sled) = on_disk(SledStore::builder());
    a_replay_names_its_first_run(sled, "sled").await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        a_replay_names_its_first_run(fjall, "fjall").await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_logged_with_its_time_and_with_the_attempt_that_answers() {
    let gate = Gate::default();
    let handler = gate.clone();
    let lab = Lab::new(patient(), move |_| {
        let gate = handler.clone();
        async move { gate.pass().await }
    });
    let log = Log::begin(Level::DEBUG);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut waiter = Box::pin(lab.post("k", "a"));
    assert!(at_once(&mut waiter).is_none());
    tokio::time::advance(Duration::from_millis(300)).await;
    gate.open();
    assert!(waiter.await.is_replay());
    first.await.unwrap();
    let short = id("k").short();
    assert_eq!(
        events(&log),
        [
            format!("DEBUG ran record_id=\"{short}\" attempt=1 ran_ms=300 store=\"memory\""),
            format!("DEBUG replayed record_id=\"{short}\" attempt=1 waited_ms=300 store=\"memory\""),
        ]
    );
}

#[tokio::test]
async fn a_run_whose_client_has_gone_leaves_its_event_too() {
    let (lab, gate) = Lab::gated(patient());
    let log = Log::begin(Level::DEBUG);
    let client = lab.spawn(post("k", "a"));
    gate.arrival().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    gate.open();
    assert!(lab.post("k", "a").await.is_replay());
    let events = events(&log);
    assert!(events.len() == 2 && events[0].starts_with("DEBUG ran "), "{events:#?}");
}

#[tokio::test]
async fn an_operation_that_an_operator_settles_is_refused_with_its_label() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).label(|_: &Parts| "order 17".to_owned());
    let lab = Lab::new(layer, |_| async { StatusCode::BAD_GATEWAY });
    let log = Log::begin(Level::INFO);
    lab.post("k", "a").await;
    let refused = lab.post("k", "a").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["label"]), (409, &"order 17".into()));
    // Another request under the key learns nothing of it.
    assert_eq!(lab.post("k", "b").await.json().get("label"), None);
    let short = id("k").short();
    let refusal = format!("INFO refused: outcome-unknown record_id=\"{short}\" attempt=1 label=\"order 17\"");
    let events = events(&log);
    assert!(events.iter().any(|event| event.starts_with(&refusal)), "{events:#?}");
}

#[tokio::test]
async fn the_refusal_of_a_run_that_was_dropped_has_its_label() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).label(|_: &Parts| "order 17".to_owned());
    let layer = layer.wrap_run(|mut run| async move {
        let _ = futures_util::poll!(&mut run);
    });
    let lab = Lab::new(layer, |_| pending::<StatusCode>());
    let log = Log::begin(Level::INFO);
    let refused = lab.post("k", "a").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["label"]), (500, &"order 17".into()));
    let refusals: Vec<_> = events(&log).into_iter().filter(|event| event.contains("refused: ")).collect();
    let [refusal] = &refusals[..] else { panic!("{refusals:#?}") };
    assert!(refusal.contains("outcome-unknown") && refusal.contains("label=\"order 17\""), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_consumer_is_an_event_too() {
    let once = Once::new(MemoryStore::new());
    let (id, fingerprint) = (RecordId::new(None, &Key::new("m").unwrap()), Fingerprint::of(b"m"));
    let log = Log::begin(Level::DEBUG);
    let effect = |_| async { Ok::<_, EffectError<()>>("sent".to_owned()) };
    once.run(id, fingerprint, effect).await.unwrap();
    once.run(id, fingerprint, effect).await.unwrap();
    let short = id.short();
    assert_eq!(
        events(&log),
        [
            format!("DEBUG ran record_id=\"{short}\" attempt=1 ran_ms=0 store=\"memory\""),
            format!("DEBUG replayed record_id=\"{short}\" attempt=1 store=\"memory\""),
        ]
    );
}

#[tokio::test]
async fn the_levels_are_options() {
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let layer = layer.run_level(Level::ERROR).rejection_level(Level::WARN).replay_level(Level::INFO);
    let lab = Lab::counting(layer);
    let log = Log::begin(Level::INFO);
    lab.post("k", "a").await;
    lab.post("k", "a").await;
    lab.post("k", "b").await;
    let levels: Vec<_> = events(&log).iter().map(|event| event.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(levels, ["ERROR", "INFO", "WARN"]);
    // By default neither runs nor replays are shown at INFO.
    let quiet = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    quiet.post("k", "a").await;
    quiet.post("k", "a").await;
    assert_eq!(log.lines(), [""; 0]);
}
