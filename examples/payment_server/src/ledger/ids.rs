//! Fresh ids.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::ChargeId;
use super::error::LedgerError;

/// Ids of charges, each later than the last.
#[derive(Debug, Default)]
pub(super) struct Ids {
    last: AtomicU64,
}

impl Ids {
    pub(super) fn fresh(&self) -> Result<ChargeId, LedgerError> {
        let now = u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX);
        let last = self.last.fetch_max(now, Ordering::Relaxed);
        // Two ids in one microsecond, or after a clock was set back, are still in order.
        let number = if now > last { now } else { self.last.fetch_add(1, Ordering::Relaxed) + 1 };
        let mut id: [u8; 16] = random()?;
        let (time, _) = id.split_at_mut(8);
        time.copy_from_slice(&number.to_be_bytes());
        Ok(ChargeId(id))
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], LedgerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(LedgerError::Random)?;
    Ok(bytes)
}

pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
