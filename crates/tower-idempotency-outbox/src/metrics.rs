//! An observer that counts over the recorder of the crate `metrics`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::{Observer, OpenCalls, State};

/// The most destinations that have a label of their own, so that a sender of webhooks does not have thousands.
const MAX_DESTINATIONS: usize = 100;
/// The label of all others.
const OTHER: &str = "other";

const TRIES: &str = "idempotency_outbox_tries_total";
const CALLS: &str = "idempotency_outbox_calls";
const OLDEST: &str = "idempotency_outbox_oldest_seconds";
const COUNTED: &str = "idempotency_outbox_counted_timestamp_seconds";

/// An observer that counts over the recorder of the crate `metrics`, for every exporter that it has. Install the
/// recorder before you create this.
///
/// | name | type | labels | what it is |
/// |---|---|---|---|
/// | `idempotency_outbox_tries_total` | counter | `outbox`, `destination`, `state` | Tries, by the state of the call after them. |
/// | `idempotency_outbox_calls` | gauge | `outbox`, `destination`, `state` | Calls that have not ended. |
/// | `idempotency_outbox_oldest_seconds` | gauge | `outbox`, `destination`, `state` | The time since the first of them was put in, or 0. |
/// | `idempotency_outbox_counted_timestamp_seconds` | gauge | `outbox` | When they were counted last, in Unix time. |
///
/// A destination is a scheme, a host and a port; after the first 100 of an observer, the others are `other`. Each relay
/// of an outbox sets the gauges once a minute, to the same numbers: take the maximum of them. Where the
/// last one is minutes old, no relay runs, or its database does not answer, and the others are no longer true.
///
/// ```
/// # fn relay<C>(outbox: impl tower_idempotency_outbox::Outbox, client: C) {
/// use tower_idempotency_outbox::{Metrics, Relay};
///
/// // … install the exporter's recorder …
/// let relay = Relay::new(outbox, client).observe(Metrics::new("payments"));
/// # }
/// ```
#[derive(Debug)]
pub struct Metrics {
    outbox: String,
    /// The destinations that have labels, and the states of which each has gauges.
    labels: Mutex<HashMap<String, BTreeSet<&'static str>>>,
}

impl Metrics {
    /// Creates the observer of an outbox, and describes its metrics to the recorder that is installed. The name is the
    /// label `outbox`: each outbox of a program has its own.
    #[must_use]
    pub fn new(outbox: impl Into<String>) -> Self {
        describe_counter!(TRIES, "Tries, by the state of the call after them.");
        describe_gauge!(CALLS, "Calls that have not ended.");
        describe_gauge!(OLDEST, "The time since the first of them was put in, or 0.");
        describe_gauge!(COUNTED, "When they were counted last, in Unix time.");
        Self { outbox: outbox.into(), labels: Mutex::default() }
    }

    fn labels(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<&'static str>>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the label of a destination.
fn label(labels: &mut HashMap<String, BTreeSet<&'static str>>, destination: &str) -> String {
    let is_named = labels.contains_key(destination) || labels.len() < MAX_DESTINATIONS;
    let label = if is_named { destination } else { OTHER };
    labels.entry(label.to_owned()).or_default();
    label.to_owned()
}

impl Observer for Metrics {
    fn tried(&self, destination: &str, state: State) {
        let label = label(&mut self.labels(), destination);
        let outbox = self.outbox.clone();
        counter!(TRIES, "outbox" => outbox, "destination" => label, "state" => state.as_str()).increment(1);
    }

    fn counted(&self, open: &[OpenCalls]) {
        let mut labels = self.labels();
        let mut counted: HashMap<(String, &'static str), (u64, Duration)> = HashMap::new();
        for OpenCalls { state, destination, calls, oldest } in open {
            let label = label(&mut labels, destination);
            labels.entry(label.clone()).or_default().insert(state.as_str());
            let sum = counted.entry((label, state.as_str())).or_default();
            *sum = (sum.0 + calls, sum.1.max(*oldest));
        }
        for (label, states) in &*labels {
            for &state in states {
                // A state of which there are no calls any more has none, and not those of before.
                let (calls, oldest) = counted.get(&(label.clone(), state)).copied().unwrap_or_default();
                let of = [("outbox", self.outbox.clone()), ("destination", label.clone()), ("state", state.to_owned())];
                gauge!(CALLS, &of).set(calls as f64);
                gauge!(OLDEST, &of).set(oldest.as_secs_f64());
            }
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        gauge!(COUNTED, "outbox" => self.outbox.clone()).set(now.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
