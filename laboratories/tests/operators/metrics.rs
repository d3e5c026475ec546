//! The metrics, as Prometheus reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::{LocalRecorderGuard, set_default_local_recorder};
use http::StatusCode;
use http::request::Parts;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::{Lab, id, keyed, post};
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::metrics::{ALL, BUCKETS, Metrics, update, update_by_label};
use tower_idempotency::store::Store as _;
use tower_idempotency::test_util::{StoreCall, TestStore};

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new();
    builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS).unwrap().build_recorder()
}

/// A store that is observed with this recorder, until the guard is dropped, and what a scrape reads.
fn observed(recorder: &PrometheusRecorder) -> (LocalRecorderGuard<'_>, PrometheusHandle, TestStore) {
    let (local, store) = (set_default_local_recorder(recorder), TestStore::new());
    store.observe(Metrics::new()).unwrap();
    (local, recorder.handle(), store)
}

/// The values in a scrape, by name and labels.
fn values(scrape: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = scrape.render();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_interrupted_charge_is_seen_in_the_metrics_until_it_is_settled() {
    let recorder = recorder();
    let (_local, scrape, store) = observed(&recorder);
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::new(layer.clone(), |number| async move {
        if number == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::CREATED }
    });
    for key in ["k", "k", "other", "other"] {
        lab.post(key, "a").await;
    }
    update(&store).await.unwrap();
    let seen = values(&scrape);
    for (name, value) in [
        ("idempotency_requests_total{outcome=\"ran\"}", 2.0),
        ("idempotency_requests_total{outcome=\"replayed\"}", 1.0),
        ("idempotency_requests_total{outcome=\"outcome-unknown\"}", 1.0),
        ("idempotency_runs_total{end=\"unknown\"}", 1.0),
        ("idempotency_runs_total{end=\"completed\"}", 1.0),
        ("idempotency_claim_seconds_count", 2.0),
        ("idempotency_record_seconds_count", 2.0),
        ("idempotency_run_seconds_bucket{le=\"30\"}", 2.0),
        ("idempotency_interrupted_total{cause=\"answered\"}", 1.0),
        ("idempotency_interrupted_operations", 1.0),
        ("idempotency_store_healthy", 1.0),
        ("idempotency_store_records", 2.0),
        ("idempotency_store_sweep_lag_seconds", 0.0),
        ("idempotency_runs", 0.0),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name}");
    }
    let run = layer.interrupted(9).await.unwrap().remove(0);
    let _settled = layer.resolve(id("k"), run.fence, answer("charged")).await.unwrap();
    update(&store).await.unwrap();
    let seen = values(&scrape);
    assert_eq!(seen["idempotency_interrupted_operations"], 0.0);
    assert_eq!(seen["idempotency_interrupted_oldest_seconds"], 0.0);
    assert_eq!(seen["idempotency_settled_total{by=\"operator\"}"], 1.0);
}

#[tokio::test]
async fn interrupted_operations_are_counted_by_cause_and_by_the_beginning_of_their_label() {
    let recorder = recorder();
    let (_local, scrape, store) = observed(&recorder);
    let layer = IdempotencyLayer::new(store.clone()).label(|parts: &Parts| parts.uri.path().to_owned());
    let lab = Lab::new(layer.clone(), |_| async { StatusCode::BAD_GATEWAY });
    let paths = ["/charges/1", "/charges/2", "/refunds", "/charge"];
    for path in paths {
        lab.send(keyed("POST", path, path).body("a".into()).unwrap()).await;
    }
    let unnamed = IdempotencyLayer::new(store.clone());
    Lab::new(unnamed, |_| async { StatusCode::OK }).post("k", "a").await;
    let by =
        |cause: &str, label: &str| format!("idempotency_interrupted_by_label{{cause=\"{cause}\",label=\"{label}\"}}");

    update(&store).await.unwrap();
    assert!(!scrape.render().contains("by_label"), "without texts, there is no such metric");

    update_by_label(&store, &["/charges", "/refunds"]).await.unwrap();
    let seen = values(&scrape);
    for (label, count) in [("/charges", 2.0), ("/refunds", 1.0), ("other", 1.0)] {
        assert_eq!((seen[&by("answered", label)], seen[&by("panicked", label)]), (count, 0.0), "{label}");
    }
    assert_eq!(seen["idempotency_interrupted_operations"], 4.0);
    let text = scrape.render();
    assert!(!text.contains("/charges/1") && !text.contains("/charge\""), "no label is a metric's as it is: {text}");

    for run in layer.interrupted(9).await.unwrap() {
        let _settled = layer.resolve(run.id, run.fence, answer("done")).await.unwrap();
    }
    update_by_label(&store, &["/charges", "/refunds"]).await.unwrap();
    assert_eq!(values(&scrape)[&by("answered", "/charges")], 0.0, "none is left");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_has_not_recorded_is_seen_in_the_metrics() {
    let recorder = recorder();
    let (_local, scrape, store) = observed(&recorder);
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    (0..50).for_each(|_| store.fail_next(StoreCall::Complete));
    lab.post("k", "a").await;
    update(&store).await.unwrap();
    let seen = values(&scrape);
    assert_eq!((seen["idempotency_unsaved_total"], seen["idempotency_unsaved_ends"]), (1.0, 1.0));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    update(&store).await.unwrap();
    assert_eq!(values(&scrape)["idempotency_unsaved_ends"], 0.0);
}

#[tokio::test]
async fn neither_a_key_nor_a_path_is_in_a_scrape_and_each_name_has_its_help_text() {
    let recorder = recorder();
    let (_local, scrape, store) = observed(&recorder);
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    for number in 0..100 {
        let mut request = post(&format!("canary-{number}"), format!("body-canary-{number}"));
        request.headers_mut().insert("authorization", format!("Bearer canary-{number}").parse().unwrap());
        lab.send(request).await;
        lab.post(&format!("canary-{number}"), "a").await;
    }
    update(&store).await.unwrap();
    let text = scrape.render();
    assert!(text.contains("credentials-changed") && !text.contains("canary") && !text.contains("charges"), "{text}");
    let shown = ALL.iter().filter(|metric| text.contains(metric.name));
    for metric in shown {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
    }
}
