//! The fence of a row.

use tower_idempotency::Fence;
use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend, NewFence, Row, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{HOUR, claim, complete};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// A new fence is the greatest of the clock's microseconds, one more than the row's, and one more than is said.
pub(crate) async fn a_new_fence_is_above_clock_row_and_floor<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "the fence of `NewFence::Above(floor)` is max(microseconds since the epoch by the database's clock, the \
                  row's fence + 1, floor + 1); the clock is what lets it grow after the row was deleted";
    let rule = Rule::new(subject, "a_new_fence_is_above_clock_row_and_floor", advice);
    let hours_on = |time: Timestamp, hours| time.plus(HOUR * hours).as_millis() * 1_000;
    for fence in [NewFence::Above(Fence(0)), NewFence::Keep] {
        let before = rule.now().await;
        let write = Write { fence, ..claim(fresh_id()) };
        let answer = rule.put(std::slice::from_ref(&write)).await;
        // A database may read its clock once more for the fence than for the answer's time.
        let after = rule.now().await;
        let clock = before.as_millis() * 1_000..=after.as_millis() * 1_000 + 999;
        let is_by_clock = answer.rows[0].as_ref().is_some_and(|row| clock.contains(&row.fence.0));
        rule.check(is_by_clock, || format!("{fence:?} on an absent row by the clock {clock:?} gave {:?}", answer.rows));
    }
    let now = rule.now().await;
    let floor = hours_on(now, 1);
    let row = rule.done(&Write { fence: NewFence::Above(Fence(floor)), ..claim(fresh_id()) }).await;
    above(&rule, "an absent row, floor in the future", &row, floor + 1);
    let row = rule.done(&Write { fence: NewFence::Above(Fence(0)), ..complete(&row) }).await;
    above(&rule, "a row from the future", &row, floor + 2);
    let higher = hours_on(now, 2);
    let row = rule.done(&Write { fence: NewFence::Above(Fence(higher)), ..complete(&row) }).await;
    above(&rule, "a row below the floor", &row, higher + 1);
    let row = rule.done(&Write { fence: NewFence::Above(Fence(floor)), ..complete(&row) }).await;
    above(&rule, "a row above the floor", &row, higher + 2);
}

fn above<B: Backend>(rule: &Rule<'_, B>, what: &str, row: &Row, should: u64) {
    rule.check(row.fence.0 == should, || format!("{what}: the fence is {}, not {should}", row.fence));
}

/// `Keep` leaves the fence of a row that is there; `Exactly` sets it, there or absent, unless the row's is greater,
/// past its expiry or not.
pub(crate) async fn a_fence_is_kept_or_exactly_what_is_said<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "`NewFence::Keep` takes the fence of the row, and `NewFence::Exactly` the one that it has, or that of the \
                  row as you have it, past its expiry or not, if that is greater";
    let rule = Rule::new(subject, "a_fence_is_kept_or_exactly_what_is_said", advice);
    for first in [NewFence::Above(Fence(0)), NewFence::Exactly(Fence(5))] {
        let row = rule.done(&Write { fence: first, ..claim(fresh_id()) }).await;
        if let NewFence::Exactly(fence) = first {
            above(&rule, "an absent row was to have exactly this fence", &row, fence.0);
        }
        let kept = rule.done(&complete(&row)).await;
        above(&rule, "a fence was to be kept", &kept, row.fence.0);
    }
    const FENCE: u64 = 1_000;
    for (fence, should) in [(FENCE + 7, FENCE + 7), (FENCE - 7, FENCE)] {
        let exactly = NewFence::Exactly(Fence(fence));
        let row = rule.done(&Write { fence: NewFence::Exactly(Fence(FENCE)), ..claim(fresh_id()) }).await;
        let exact = rule.done(&Write { fence: exactly, ..complete(&row) }).await;
        above(&rule, &format!("{exactly:?} over a row with {FENCE}"), &exact, should);
        let id = fresh_id();
        rule.expired(id, Fence(FENCE)).await;
        let exact = rule.done(&Write { fence: exactly, ..claim(id) }).await;
        above(&rule, &format!("{exactly:?} over a row with {FENCE} that is past its expiry"), &exact, should);
    }
}

/// No digit of a fence is lost, up to the greatest signed number of 64 bits; new ones are counted exactly up to 2⁵³.
pub(crate) async fn fences_are_kept_to_the_digit<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "keep fences as whole numbers of 64 bits, or as text with all their digits: a double keeps 53 bits, and Lua's \
                  `tostring` and `..` write 14 digits";
    let rule = Rule::new(subject, "fences_are_kept_to_the_digit", advice);
    let greatest = i64::MAX.unsigned_abs();
    for fence in [1, 123_456_789_012_345_671, (1 << 53) + 1, (1 << 62) + 1, greatest - 1, greatest] {
        let row = rule.done(&Write { fence: NewFence::Exactly(Fence(fence)), ..claim(fresh_id()) }).await;
        above(&rule, "put answered another fence than it was given", &row, fence);
        let kept = rule.done(&complete(&row)).await;
        above(&rule, "the fence was to be kept", &kept, fence);
        let found = rule.get(row.id).await;
        rule.check(found.as_ref() == Some(&kept), || format!("get answered {found:?} for {kept:?}"));
    }
    // Two hundred years from now, with sixteen digits that all count.
    let floor = 9_007_199_254_740_871;
    let mut row = rule.done(&Write { fence: NewFence::Above(Fence(floor)), ..claim(fresh_id()) }).await;
    for grown in 1..=20 {
        above(&rule, "a new fence was to be one more", &row, floor + grown);
        row = rule.done(&Write { fence: NewFence::Above(Fence(0)), ..complete(&row) }).await;
    }
}
