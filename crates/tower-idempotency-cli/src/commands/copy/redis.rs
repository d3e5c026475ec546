//! The rows of a namespace in Redis or Valkey.

use tower_idempotency::{Fence, RecordId};
use tower_idempotency_redis::{RedisBackend, RedisBackendBuilder};
use tower_idempotency_shared::{Answer, Backend as _, Clocks, ServerId};

use crate::address::RedisDatabase;
use crate::failure::Failure;
use crate::open::{existing_redis, opened_redis};

/// The number of rows that are looked at in one call.
const PAGE: usize = 1_000;
/// More claims than a namespace has in the minutes for which it keeps released rows, which no call lists.
const UNSEEN: u64 = 1 << 32;

/// The rows, past the store.
pub(super) struct RedisRows(RedisBackend);

impl RedisRows {
    /// That the server may delete some is no reason not to look at them.
    pub(super) async fn of(builder: RedisBackendBuilder) -> Result<Self, Failure> {
        opened_redis(builder.accept_eviction().accept_unknown_settings()).await.map(Self)
    }

    /// The same, of a namespace that has some.
    pub(super) async fn existing(database: &RedisDatabase, builder: RedisBackendBuilder) -> Result<Self, Failure> {
        existing_redis(database, builder).await.map(Self)
    }

    /// Returns what tells this namespace from all others, whatever name its server was reached by.
    pub(super) async fn place(&self) -> Result<ServerId, Failure> {
        self.0.get(Clocks::default(), &[]).await.map(|answer| answer.server).map_err(Failure::of)
    }

    /// Returns the session of another process that has the latest lease, and for how many seconds.
    pub(super) async fn user(&self, own: Option<RecordId>) -> Result<Option<(String, i64)>, Failure> {
        let Answer { now, rows, .. } = self.0.sessions(Clocks::default()).await.map_err(Failure::of)?;
        let others = rows.into_iter().filter(|row| Some(row.id) != own);
        let leases = others.filter_map(|row| Some((row.until?.as_millis().saturating_sub(now.as_millis()), row.id)));
        let latest = leases.filter(|(left, _)| *left > 0).max_by_key(|(left, _)| *left);
        Ok(latest.map(|(left, id)| (id.short(), i64::try_from(left.div_ceil(1_000)).unwrap_or(i64::MAX))))
    }

    /// Returns a fence that is above all of the rows, and above those that the clock gives until now.
    pub(super) async fn fence(&self) -> Result<Fence, Failure> {
        let (mut highest, mut after) = (0, None);
        loop {
            let page = self.0.scan(Clocks::default(), after, PAGE).await.map_err(Failure::of)?.rows;
            highest = page.iter().map(|row| row.fence.0).fold(highest, u64::max);
            after = page.last().map(|row| row.id);
            if page.len() < PAGE {
                break;
            }
        }
        let Answer { now, rows, .. } = self.0.sessions(Clocks::default()).await.map_err(Failure::of)?;
        highest = rows.iter().map(|row| row.fence.0).fold(highest, u64::max);
        // The last of the millisecond.
        let clock = now.as_millis().saturating_mul(1_000).saturating_add(1_000);
        // Fences that are ahead of the clock grow by one with each claim.
        Ok(Fence(if highest < clock { clock } else { highest.saturating_add(UNSEEN) }))
    }
}
