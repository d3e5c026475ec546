//! How a store that failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::store::{Health, Store};

/// How often a write that failed is tried while its requester waits.
const TRIES: usize = 3;

/// The pauses before a write is tried again while its requester waits.
pub(super) fn while_waited_for() -> impl Iterator<Item = Duration> + Send {
    backoff(Duration::from_millis(20)).take(TRIES - 1)
}

/// The pauses before a write is tried again of which the requester was told that it failed: without end.
pub(super) fn afterwards() -> impl Iterator<Item = Duration> + Send {
    backoff(Duration::from_millis(200))
}

/// Whether a store that failed may work again within this process.
pub(super) fn may_recover(store: &impl Store) -> bool {
    !matches!(store.health(), Health::Poisoned { .. } | Health::Closed)
}

fn backoff(first: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}
