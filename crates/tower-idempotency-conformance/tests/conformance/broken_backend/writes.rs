//! Changes that a fault makes to a write, to the row that the write makes, and to rows that are read.

use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Expect, Kind, NewExpiry, NewFence, Row, Stamp, Write};

use super::fault::Fault;

/// A write as it arrives where `there` is, past its expiry or not; `None` if it is left alone.
pub(super) fn sent(fault: Fault, write: &Write, there: Option<&Row>, past: &[Row], now: Timestamp) -> Option<Write> {
    let mut write = write.clone();
    let Some(there) = there else { return Some(write) };
    let is_live = !there.is_absent(now);
    let is_own = is_live && there.token == write.token;
    let seems_expected = match (fault, write.expect) {
        (Fault::IgnoresTheToken, Expect::Token(_)) => true,
        (Fault::ComparesTheFence, Expect::Token(token)) => {
            past.iter().any(|row| row.token == token && row.fence == there.fence)
        }
        (Fault::ComparesHalfOfTheToken, Expect::Token(token)) => token.0[1..14] == there.token.0[1..14],
        (Fault::KnowsOldTokens, _) => past.iter().any(|row| row.token == write.token),
        (Fault::MatchesItsOwnTokenPastExpiry, _) => !is_live && there.token == write.token,
        _ => false,
    };
    if seems_expected && !is_own {
        write.expect = if is_live { Expect::Token(there.token) } else { Expect::Absent };
    }
    match fault {
        Fault::RecognisesAResendWithoutAWrite | Fault::DoesNotKnowItsOwnToken if is_own => return None,
        Fault::LeavesExpiredRowsAlone if !is_live => return None,
        Fault::KeepsSince => write.since = Stamp::Keep,
        Fault::RenewsAKeptExpiry if write.expires == NewExpiry::Keep => {
            write.expires = NewExpiry::In(Duration::from_secs(3_600));
        }
        Fault::KeepsASessionThatIsNone => write.session = write.session.or(there.session),
        _ => {}
    }
    Some(write)
}

/// The row after a write over `there`.
pub(super) fn made(fault: Fault, write: &Write, there: Option<&Row>, mut row: Row, now: Timestamp) -> Row {
    let live = there.filter(|row| !row.is_absent(now));
    let again = live.filter(|there| there.token == write.token);
    let last = there.map_or(0, |row| row.fence.0);
    match (fault, write.fence) {
        (Fault::GivesAResendANewFence, _) if again.is_some() => row.fence = Fence(last + 1),
        (Fault::StampsAResend, _) if again.is_some() => (row.began, row.since) = (now, now),
        (Fault::LowersUntilOfAResend, _) if again.is_some() => row.until = write.until.map(|until| now.plus(until)),
        (Fault::LowersExpiresOfAResend, _) if again.is_some() => {
            if let NewExpiry::In(duration) = write.expires {
                row.expires = now.plus(duration);
            }
        }
        (Fault::BeginsBeforeItsClaim, _) => row.began = there.map_or(row.began, |there| there.began),
        (Fault::DeletesReleasedRows, _) if write.kind == Kind::Released => row.expires = now,
        (Fault::TakesUnknownKindsForReleased, _) if matches!(write.kind, Kind::Other(_)) => row.kind = Kind::Released,
        (Fault::CutsStateAtOneMebibyte, _) => row.state.truncate(1 << 20),
        (Fault::KeepsStateAsText, _) => row.state = Bytes::from(String::from_utf8_lossy(&row.state).into_owned()),
        (Fault::CountsFromWhenItWasSent, _) => row.until = write.until.map(|until| now.plus(until)),
        (Fault::CountsInSeconds, _) => {
            row.until = write.until.map(|until| now.plus(Duration::from_secs(until.as_secs())));
        }
        (Fault::LowersFences, NewFence::Exactly(fence)) if live.is_some() && again.is_none() => row.fence = fence,
        (Fault::LowersFencesOfExpiredRows, NewFence::Exactly(fence)) if live.is_none() => row.fence = fence,
        (Fault::ForgetsTheFloor, NewFence::Above(_)) if again.is_none() => {
            row.fence = Fence((now.as_millis() * 1_000).max(last + 1));
        }
        (Fault::CountsFencesFromOne | Fault::CountsFencesPerRow, NewFence::Above(floor)) if again.is_none() => {
            row.fence = Fence(last.max(floor.0) + 1);
        }
        (Fault::ForgetsTheFenceOfExpiredRows, NewFence::Above(floor)) if live.is_none() => {
            row.fence = Fence((now.as_millis() * 1_000).max(floor.0 + 1));
        }
        _ => {}
    }
    row
}

/// A row as it is answered.
pub(super) fn read(fault: Fault, mut row: Row) -> Row {
    match fault {
        Fault::WritesFencesWithFourteenDigits => row.fence = Fence(to_number(&format!("{:.13e}", row.fence.0 as f64))),
        Fault::KeepsFencesAsDoubles => row.fence = Fence(to_number(&format!("{}", row.fence.0 as f64))),
        Fault::StampsByAnotherClock => row.since = row.since.plus(Duration::from_secs(1)),
        _ => {}
    }
    row
}

/// The rows that the fault lists. `rows` are those that it should list, in order; `written` has the ids in the order of
/// writing.
pub(super) fn listed(
    fault: Fault,
    mut rows: Vec<Row>,
    written: &[RecordId],
    after: Option<(Timestamp, RecordId)>,
    now: Timestamp,
) -> Vec<Row> {
    if fault == Fault::ListsByFinerTimes {
        rows.sort_by_key(|row| (row.began, written.iter().position(|id| *id == row.id)));
    }
    if fault == Fault::ListsNoLargeDisputes {
        rows.iter_mut().filter(|row| row.state.len() > 1_000).for_each(|row| row.state.clear());
    }
    rows.retain(|row| {
        let place = Some((row.began, row.id));
        let is_listed = match fault {
            Fault::ListsNoDisputes => row.kind != Kind::Disputed,
            Fault::ListsNoRunsWithoutASession => row.kind != Kind::Running || row.session.is_some(),
            Fault::ListsRunsByTheirBound => row.kind != Kind::Running || row.until.is_none_or(|until| until <= now),
            _ => true,
        };
        is_listed && (after < place || fault == Fault::BeginsThePageAtThePlace && after == place)
    });
    rows
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is the fault")]
fn to_number(text: &str) -> u64 {
    text.parse::<f64>().unwrap() as u64
}
