//! A link that carries so many bytes a second.

use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, sleep_until};

/// The bytes that a call, or a row, has in addition to its state.
pub(super) const OVERHEAD: usize = 200;
/// Calls that share the link go on by turns, so many bytes at a time.
const TURN: usize = 16 * 1024;

/// The link of one process, there and back.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) there: Lane,
    pub(super) back: Lane,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    bytes_per_second: u64,
    /// The time from which it carries the next bytes.
    free: Mutex<Instant>,
}

impl Link {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let lane = || Lane { bytes_per_second: bytes_per_second.max(1), free: Mutex::new(Instant::now()) };
        Self { there: lane(), back: lane() }
    }
}

impl Lane {
    /// Returns when so many bytes have arrived.
    pub(super) async fn carry(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let turn = left.min(TURN);
            left -= turn;
            let nanoseconds = turn as u64 * 1_000_000_000 / self.bytes_per_second;
            // Who waits longest is next.
            let mut free = self.free.lock().await;
            *free = (*free).max(Instant::now()) + Duration::from_nanos(nanoseconds);
            sleep_until(*free).await;
        }
    }
}
