use std::collections::HashMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;

fn open(destination: impl Into<String>, state: State, calls: u64, seconds: u64) -> OpenCalls {
    OpenCalls { state, destination: destination.into(), calls, oldest: Duration::from_secs(seconds) }
}

/// Returns the value of each metric that has been set, by its name, destination and state.
fn values(snapshotter: &Snapshotter) -> HashMap<(String, String, String), f64> {
    let value = |value| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.0,
        DebugValue::Histogram(_) => panic!("there is none"),
    };
    let lines = snapshotter.snapshot().into_vec().into_iter().map(|(key, .., of)| {
        let label = |name| {
            let label = key.key().labels().find(|label| label.key() == name);
            label.map(|label| label.value().to_owned()).unwrap_or_default()
        };
        assert_eq!(label("outbox"), "payments");
        ((key.key().name().to_owned(), label("destination"), label("state")), value(of))
    });
    lines.collect()
}

/// Returns what is set by these calls of an observer. Each look at a recorder resets it.
fn after(calls: impl FnOnce(&Metrics)) -> impl Fn(&str, &str, &str) -> f64 {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || calls(&Metrics::new("payments")));
    let values = values(&snapshotter);
    move |name, destination, state| values[&(name.to_owned(), destination.to_owned(), state.to_owned())]
}

#[test]
fn tries_and_open_calls_have_their_labels() {
    let value = after(|metrics| {
        metrics.tried("http://a", State::Delivered);
        metrics.tried("http://a", State::Delivered);
        metrics.counted(&[open("http://a", State::GivenUp, 2, 60), open("http://b", State::Waiting, 1, 5)]);
    });
    assert_eq!(value(TRIES, "http://a", "delivered"), 2.0);
    assert_eq!((value(CALLS, "http://a", "given_up"), value(OLDEST, "http://a", "given_up")), (2.0, 60.0));
    assert_eq!((value(CALLS, "http://b", "waiting"), value(OLDEST, "http://b", "waiting")), (1.0, 5.0));
    assert!(value(COUNTED, "", "") > 1.7e9, "seconds since 1970");
}

#[test]
fn a_gauge_goes_back_to_zero_once_no_call_is_in_its_state() {
    let value = after(|metrics| {
        metrics.counted(&[open("http://a", State::GivenUp, 2, 60), open("http://a", State::Waiting, 1, 5)]);
        metrics.counted(&[open("http://a", State::Waiting, 1, 65)]);
    });
    assert_eq!((value(CALLS, "http://a", "given_up"), value(OLDEST, "http://a", "given_up")), (0.0, 0.0));
    assert_eq!((value(CALLS, "http://a", "waiting"), value(OLDEST, "http://a", "waiting")), (1.0, 65.0));
}

#[test]
fn destinations_past_the_bound_share_a_label() {
    let many = (MAX_DESTINATIONS + 50) as u64;
    let value = after(|metrics| {
        let open = |number| open(format!("http://host-{number}"), State::Waiting, 2, many - number);
        metrics.counted(&(0..many).map(open).collect::<Vec<_>>());
        metrics.tried("http://one-more", State::Waiting);
        metrics.tried("http://host-0", State::Waiting);
    });
    assert_eq!((value(CALLS, OTHER, "waiting"), value(OLDEST, OTHER, "waiting")), (100.0, 50.0));
    assert_eq!(value(CALLS, "http://host-0", "waiting"), 2.0);
    assert_eq!((value(TRIES, OTHER, "waiting"), value(TRIES, "http://host-0", "waiting")), (1.0, 1.0));
}

#[test]
fn the_guide_the_alerts_and_the_dashboard_name_these_metrics_with_their_labels_and_states() {
    let names = [TRIES, CALLS, OLDEST, COUNTED];
    let texts = [
        include_str!("../../../../docs/running/metrics.md"),
        include_str!("../../../../ops/alerts.yml"),
        include_str!("../../../../ops/dashboard.json"),
    ];
    for (text, named) in texts.into_iter().zip([&names[..], &names[1..], &names[..3]]) {
        assert!(named.iter().all(|name| text.contains(name)));
        for (at, _) in text.match_indices("idempotency_outbox_") {
            let rest = &text[at..];
            let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap();
            assert!(names.contains(&&rest[..end]), "{}", &rest[..end]);
            let states = rest[end..].strip_prefix("{state=~\"").and_then(|rest| rest.split_once('"'));
            for state in states.into_iter().flat_map(|(states, _)| states.split('|')) {
                assert!(State::ALL.iter().any(|known| known.as_str() == state), "{state}");
            }
        }
    }
    assert_eq!(texts[1].matches("{state=~\"").count(), 2, "each alert is for some states");
}
