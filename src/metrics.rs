//! Metrics over the facade of the crate `metrics`, for every exporter that it has.
//!
//! [`Metrics`] is an [`Observer`]: it counts and times what happens. [`update`] sets the gauges that no event sets:
//! call it, or [`update_by_label`], before each scrape. [`ALL`] is the list of what there is, with one help text for
//! each name.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use ::metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::observer::{LeaseChange, Observer, RunEnd, SettledBy};
use crate::record::{Cause, Record, State};
use crate::store::listed::ListedRecord;
use crate::store::page::List;
use crate::store::{Gauges, Health, Store, StoreError};

/// The bounds of the histograms' buckets, in seconds. The facade does not pass them on: give them to the exporter, for
/// all names that end with `_seconds`.
pub const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The most interrupted operations that [`update`] counts.
const MAX_COUNTED: usize = 1_000;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A number that only grows. [`update`] sets those of bytes that a store has written.
    Counter,
    /// A number as it is now. All but `idempotency_breaker_open` are set by [`update`] alone.
    Gauge,
    /// Durations, in seconds.
    Histogram,
}

/// The name of a metric, and what it means.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels. The guide's page "Metrics" has their values.
    pub labels: &'static [&'static str],
    /// What it means. The same text describes it everywhere.
    pub help: &'static str,
}

/// Defines a constant for each name, and the list of all.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// All metrics.
        pub const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),*];
    };
}

metrics! {
    REQUESTS: Counter "idempotency_requests_total" ["outcome"] "Requests that are covered, by what they were answered.";
    RUNS: Counter "idempotency_runs_total" ["end"] "Handlers that have ended, by how.";
    RUN: Histogram "idempotency_run_seconds" [] "The time from the call of a handler to its end.";
    CLAIM: Histogram "idempotency_claim_seconds" [] "The time until the store has looked a key up and granted its claim.";
    RECORD: Histogram "idempotency_record_seconds" [] "The time until the store has recorded the end of a run.";
    REPLAY: Histogram "idempotency_replay_seconds" [] "The time until a retry was answered with the outcome, waits included.";
    WAIT: Histogram "idempotency_wait_seconds" [] "The time for which a duplicate has waited for another request's run.";
    UNSAVED: Counter "idempotency_unsaved_total" [] "Answers that were given before their record was written.";
    INTERRUPTED: Counter "idempotency_interrupted_total" ["cause"] "Runs of which it is unknown whether they took effect: of this process, and of an earlier one that an embedded store found when it was opened.";
    SETTLED: Counter "idempotency_settled_total" ["by"] "Interrupted operations that were settled.";
    DISPUTED: Counter "idempotency_disputed_total" [] "Outcomes that came after their operation was taken over or settled.";
    SWEPT: Counter "idempotency_swept_records_total" [] "Expired records that were deleted.";
    LEASE: Counter "idempotency_lease_changes_total" ["change"] "Renewals and losses of this process's lease over a shared store.";
    BREAKER: Gauge "idempotency_breaker_open" [] "1 while the circuit breaker of a shared store is open, else 0.";
    LIVE: Gauge "idempotency_runs" [] "Runs that are under way.";
    WAITERS: Gauge "idempotency_waiters" [] "Duplicates that wait for a run.";
    UNSAVED_ENDS: Gauge "idempotency_unsaved_ends" [] "Ends of runs that only this process knows.";
    OPEN: Gauge "idempotency_interrupted_operations" [] "Interrupted operations that wait to be settled, 1,000 at most.";
    OPEN_BY: Gauge "idempotency_interrupted_by_label" ["cause", "label"] "Of these, those with this cause and this beginning of their label. The labels are those that `update_by_label` names.";
    OLDEST: Gauge "idempotency_interrupted_oldest_seconds" [] "The age of the one that was interrupted first, or 0.";
    HEALTHY: Gauge "idempotency_store_healthy" [] "1 if the store works and takes new keys, else 0.";
    RECORDS: Gauge "idempotency_store_records" [] "Records in the store, with expired ones that are not deleted yet.";
    BYTES: Gauge "idempotency_store_bytes" [] "Bytes of the recorded outcomes, or an estimate of what a database's table takes.";
    FREE: Gauge "idempotency_store_free_bytes" [] "Bytes of the disk that are free, with those of `min_free_space`.";
    QUEUE: Gauge "idempotency_store_queue_writes" [] "Writes that wait for the store.";
    BATCH: Gauge "idempotency_store_batch_writes" [] "Writes of the last batch.";
    SYNC: Gauge "idempotency_store_sync_seconds" [] "The time that the last sync of the disk took.";
    WRITTEN: Counter "idempotency_store_written_bytes_total" [] "Bytes of new entries that the store wrote, in each file that they are written to.";
    MERGED: Counter "idempotency_store_merged_bytes_total" [] "Bytes that the store wrote anew, to merge its tables, as far as it has seen each table: what two merges one after the other wrote is counted once.";
    SWEEP_LAG: Gauge "idempotency_store_sweep_lag_seconds" [] "By how much the oldest record that is not deleted has outlived its expiry.";
    LEASE_LEFT: Gauge "idempotency_store_lease_seconds" [] "The time that is left of this process's lease over a shared store.";
    CONNECTIONS: Gauge "idempotency_store_connections" [] "Connections to the database that calls use.";
}

/// An observer that counts and times over the facade's recorder. Install the recorder before you create this:
/// otherwise most of it counts nothing. All stores of a process share the names, so observe one of them.
///
/// ```
/// use tower_idempotency::metrics::Metrics;
/// use tower_idempotency::store::Store as _;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// // … install the exporter's recorder, with the buckets of `tower_idempotency::metrics::BUCKETS` …
/// let store = MemoryStore::new();
/// store.observe(Metrics::new())?;
/// let layer = IdempotencyLayer::new(store);
/// # Ok::<(), tower_idempotency::observer::AlreadyObserved>(())
/// ```
pub struct Metrics {
    ran: Counter,
    /// Nearly all runs end so.
    completed: Counter,
    replayed: Counter,
    run: Histogram,
    claim: Histogram,
    record: Histogram,
    replay: Histogram,
    wait: Histogram,
}

impl Metrics {
    /// Creates the observer, and describes all metrics to the recorder that is installed.
    #[must_use]
    pub fn new() -> Self {
        for Metric { name, kind, help, .. } in ALL.iter().copied() {
            match kind {
                Kind::Counter => describe_counter!(name, help),
                Kind::Gauge => describe_gauge!(name, help),
                Kind::Histogram => describe_histogram!(name, help),
            }
        }
        // A rate sees the first event only if the name was there with 0 before it.
        [UNSAVED, DISPUTED, SWEPT].into_iter().for_each(|name| drop(counter!(name)));
        drop(gauge!(BREAKER));
        RunEnd::ALL.iter().for_each(|end| drop(counter!(RUNS, "end" => end.name())));
        Cause::ALL.iter().for_each(|cause| drop(counter!(INTERRUPTED, "cause" => cause.name())));
        SettledBy::ALL.iter().for_each(|by| drop(counter!(SETTLED, "by" => by.name())));
        LeaseChange::ALL.iter().for_each(|change| drop(counter!(LEASE, "change" => change.name())));
        #[cfg(feature = "server")]
        crate::RejectionKind::ALL.iter().for_each(|kind| drop(counter!(REQUESTS, "outcome" => kind.slug())));
        Self {
            ran: counter!(REQUESTS, "outcome" => "ran"),
            completed: counter!(RUNS, "end" => RunEnd::Completed.name()),
            replayed: counter!(REQUESTS, "outcome" => "replayed"),
            run: histogram!(RUN),
            claim: histogram!(CLAIM),
            record: histogram!(RECORD),
            replay: histogram!(REPLAY),
            wait: histogram!(WAIT),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Observer for Metrics {
    fn ran(&self, end: RunEnd, took: Duration) {
        // The request of any other run is rejected, and counted then.
        if matches!(end, RunEnd::Completed | RunEnd::NotReplayable | RunEnd::Released | RunEnd::Unknown) {
            self.ran.increment(1);
        }
        self.run.record(took);
        match end {
            RunEnd::Completed => self.completed.increment(1),
            end => counter!(RUNS, "end" => end.name()).increment(1),
        }
    }

    fn replayed(&self, took: Duration) {
        self.replayed.increment(1);
        self.replay.record(took);
    }

    fn rejected(&self, kind: &'static str) {
        counter!(REQUESTS, "outcome" => kind).increment(1);
    }

    fn waited(&self, took: Duration) {
        self.wait.record(took);
    }

    fn claimed(&self, took: Duration) {
        self.claim.record(took);
    }

    fn recorded(&self, took: Duration) {
        self.record.record(took);
    }

    fn unsaved(&self) {
        counter!(UNSAVED).increment(1);
    }

    fn interrupted(&self, cause: Cause) {
        counter!(INTERRUPTED, "cause" => cause.name()).increment(1);
    }

    fn settled(&self, by: SettledBy) {
        counter!(SETTLED, "by" => by.name()).increment(1);
    }

    fn disputed(&self) {
        counter!(DISPUTED).increment(1);
    }

    fn swept(&self, records: usize) {
        counter!(SWEPT).increment(records as u64);
    }

    fn lease(&self, change: LeaseChange) {
        counter!(LEASE, "change" => change.name()).increment(1);
    }

    fn breaker(&self, is_open: bool) {
        gauge!(BREAKER).set(if is_open { 1.0 } else { 0.0 });
    }
}

/// Sets the gauges of a store, those that it [has](Store::gauges): call it before each scrape. It lists interrupted
/// operations, at most 1,000. A store on disk or in a database has an index of them;
/// [`MemoryStore`](crate::MemoryStore) looks at each record.
///
/// # Errors
/// [`StoreError`], if they can't be listed. Then the gauges about them keep their values, and the others are set.
///
/// # Cancel safety
/// This function only reads.
pub async fn update(store: &impl Store) -> Result<(), StoreError> {
    update_by_label(store, &[]).await
}

/// Sets the gauges as [`update`] does, and `idempotency_interrupted_by_label`, for each cause, for each text of
/// `labels`. An operation counts at the first text that its [label](crate::store::InterruptedRun::label) begins with,
/// or at `other`. Name your routes here, if labels begin with them: the labels themselves are texts of the application,
/// and a metric with each would grow without bound. Without `labels`, this is [`update`].
///
/// # Errors
/// As of [`update`].
///
/// # Cancel safety
/// This function only reads.
pub async fn update_by_label(store: &impl Store, labels: &[&'static str]) -> Result<(), StoreError> {
    let slots = store.slots();
    gauge!(LIVE).set(slots.live() as f64);
    gauge!(WAITERS).set(slots.waiters() as f64);
    gauge!(UNSAVED_ENDS).set(slots.unsaved.count() as f64);
    let health = store.health();
    gauge!(HEALTHY).set(if health == Health::Good { 1.0 } else { 0.0 });
    gauge!(BREAKER).set(if matches!(health, Health::Away { .. }) { 1.0 } else { 0.0 });
    let Gauges { records, bytes, free_bytes, queue, batch, sync, written, merged, sweep_lag, lease, connections } =
        store.gauges();
    let numbers = [(RECORDS, records), (BYTES, bytes), (FREE, free_bytes), (QUEUE, queue), (BATCH, batch)];
    for (name, number) in numbers.into_iter().chain([(CONNECTIONS, connections)]) {
        number.into_iter().for_each(|number| gauge!(name).set(number as f64));
    }
    for (name, bytes) in [(WRITTEN, written), (MERGED, merged)] {
        bytes.into_iter().for_each(|bytes| counter!(name).absolute(bytes));
    }
    for (name, duration) in [(SYNC, sync), (SWEEP_LAG, sweep_lag), (LEASE_LEFT, lease)] {
        duration.into_iter().for_each(|duration| gauge!(name).set(duration.as_secs_f64()));
    }
    let listed = store.list(List::Interrupted, None, MAX_COUNTED).await?.records;
    let since = listed.iter().filter_map(|listed| listed.record.as_ref().ok()?.since.to_system_time());
    let oldest = since.min();
    let age = oldest.and_then(|since| SystemTime::now().duration_since(since).ok()).unwrap_or_default();
    gauge!(OPEN).set(listed.len() as f64);
    gauge!(OLDEST).set(age.as_secs_f64());
    if !labels.is_empty() {
        set_by_label(&listed, labels);
    }
    Ok(())
}

/// Sets a gauge for each cause and label, those that are 0 too. A damaged record has no label and no known cause.
fn set_by_label(listed: &[ListedRecord], labels: &[&'static str]) {
    const OTHER: &str = "other";
    let mut counts = HashMap::<_, u32>::new();
    for listed in listed {
        let (cause, label) = match &listed.record {
            Ok(Record { state: State::Interrupted { cause, .. }, origin, .. }) => (*cause, origin.label()),
            _ => (Cause::Unknown, None),
        };
        let label = label.and_then(|label| labels.iter().find(|prefix| label.starts_with(**prefix)));
        *counts.entry((cause.name(), *label.unwrap_or(&OTHER))).or_default() += 1;
    }
    for cause in Cause::ALL.into_iter().map(Cause::name) {
        for label in labels.iter().copied().chain([OTHER]) {
            let count = counts.get(&(cause, label)).copied().unwrap_or_default();
            gauge!(OPEN_BY, "cause" => cause, "label" => label).set(count);
        }
    }
}
