//! Makes the write for a decision of the protocol: that of a claim, of an end, and of each other transition.

use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Draft, Expiry, Fence, Record, State};

use super::Protocol;
use super::rows;
use crate::backend::{Backend, Clocks, Expect, GRACE, NewExpiry, NewFence, Row, Stamp, Write};

/// The longest time that a row is kept only because its fence came from a clock that was ahead.
const MAX_KEPT_FOR_FENCE: Duration = Duration::from_secs(366 * 24 * 3_600);
/// The shortest time that a record is kept: duplicates that wait in other processes have to find it.
const MIN_RETENTION: Duration = Duration::from_secs(1);

impl<B: Backend> Protocol<B> {
    /// Returns the write by which the record becomes what `draft` says. `row` is the present row, and `record` its
    /// record.
    pub(crate) fn write(
        &self,
        id: RecordId,
        draft: &Draft<Bytes>,
        row: Option<&Row>,
        record: Option<&Record>,
    ) -> Option<Write> {
        // A row names this process's session only while a run or a question of this process is under way.
        let session = draft.owned.map(|_| self.sessions.own.id());
        let is_new = record.is_none();
        let fence = match draft.fence {
            // A new claim, question or settlement: the fence is greater than every fence that this process has seen.
            None => NewFence::Above(self.database.state.floor()),
            Some(fence) if row.is_some_and(|row| row.fence == fence) => NewFence::Keep,
            Some(fence) => NewFence::Exactly(fence),
        };
        // The fence that the row will have at least. The row outlives it: see `outlives`.
        let given = row.map_or(Fence(0), |row| row.fence).max(draft.fence.unwrap_or(self.database.state.floor()));
        let shortest = outlives(given, self.clocks().now());
        let kept_for = |kept: Duration| NewExpiry::In(kept.max(shortest));
        let mut until = draft.owned;
        let expires = match draft.expiry {
            // A run that does not end is interrupted when its bound is over at the latest. It is kept from then on.
            Expiry::Never => match &draft.state {
                State::Running { interrupted_retention, .. } => {
                    kept_for(draft.owned.unwrap_or_default().saturating_add(*interrupted_retention))
                }
                // This does not happen: only a running draft never expires.
                _ => kept_for(GRACE),
            },
            Expiry::In(kept) => {
                let kept = kept.max(MIN_RETENTION);
                // The row may be kept for longer than its record.
                until = (kept < shortest).then_some(kept);
                kept_for(kept)
            }
            // This does not happen: `adopt.rs` writes the records of other stores.
            Expiry::At(expires) => kept_for(between(self.clocks().earliest(), expires)),
            Expiry::AtLeast(least) => {
                let least = least.max(shortest);
                let clocks = &self.clocks();
                let expires = record.and_then(|record| record.expires);
                let left = |from| expires.map_or(Duration::ZERO, |expires| between(from, expires));
                if draft.state.is_done() && row.is_some_and(|row| row.until.is_some()) {
                    // The record goes on expiring before its row.
                    until = Some(left(clocks.earliest()));
                }
                // The new fence comes from the latest clock. The row has to outlive this time, or the next fence would
                // be smaller.
                if left(clocks.latest()) >= least && row.map(|row| row.expires) == expires {
                    NewExpiry::Keep
                } else {
                    NewExpiry::In(left(clocks.earliest()).max(least))
                }
            }
        };
        // After a question, and after an answer is forgotten, as much is known of the operation as before, since the
        // same time.
        let stays = matches!(draft.expiry, Expiry::AtLeast(_));
        Some(Write {
            id,
            expect: row.map_or(Expect::Absent, |row| Expect::Token(row.token)),
            token: crate::random_token(),
            fence,
            kind: rows::kind(&draft.state),
            session,
            until,
            began: if is_new { Stamp::Now } else { Stamp::Keep },
            since: if stays { Stamp::Keep } else { Stamp::Now },
            expires,
            state: rows::encode(&id, draft)?,
        })
    }
}

/// Returns the shortest time for which a row is kept. An earlier write of the row may still arrive, or this one may be
/// sent again, and it has to find the row. Also, the key's next fence has to be larger. The clock that gave this fence
/// may have been ahead and may be right by then, so the row is kept until this process's clocks are past the fence.
/// (The database's own clock may just have been set.) A record that is kept for a shorter time expires at its row's
/// [`until`](Row::until).
pub(crate) fn outlives(fence: Fence, clocks: Clocks) -> Duration {
    GRACE + between(clocks.latest, Timestamp::from_millis(fence.0 / 1_000)).min(MAX_KEPT_FOR_FENCE)
}

/// Returns the time from `from` to `until`.
pub(super) fn between(from: Timestamp, until: Timestamp) -> Duration {
    Duration::from_millis(until.as_millis().saturating_sub(from.as_millis()))
}

/// Returns the write that frees the key. The row is kept for as long as a late claim may still arrive. The tombstone of
/// a done record is kept for as long as the record was: other processes that have a copy learn by it that the record
/// was forgotten, and not lost.
pub(crate) fn release(id: RecordId, row: Option<&Row>, clocks: Clocks) -> Write {
    let expect = row.map_or(Expect::Absent, |row| Expect::Token(row.token));
    let done = row.filter(|row| row.kind.is_done()).map_or(Duration::ZERO, |row| between(clocks.earliest, row.expires));
    Write::without_record(id, expect, outlives(row.map_or(Fence(0), |row| row.fence), clocks).max(done))
}

/// Returns the write that keeps a row's content under another token: a write that expects the old token is not done any
/// more.
pub(crate) fn unchanged(row: &Row, earliest: Timestamp) -> Write {
    Write {
        kind: row.kind,
        session: row.session,
        until: row.until.map(|until| between(earliest, until)),
        since: Stamp::Keep,
        expires: NewExpiry::Keep,
        state: row.state.clone(),
        ..Write::without_record(row.id, Expect::Token(row.token), GRACE)
    }
}
