//! The rows that are deleted, and those that are not.

use tower_idempotency::Fence;
use tower_idempotency_shared::{Backend, Clocks, Expect, GRACE, NewExpiry, NewFence, Row, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{AT_ONCE, HOUR, claim};
use crate::backend::subject::BackendSubject;
use crate::fresh::{fresh_id, fresh_ids};

/// A fence that the clock does not reach: a row that was deleted and made anew does not have it.
async fn far_fence<B: Backend>(rule: &Rule<'_, B>) -> Fence {
    Fence(rule.now().await.plus(HOUR * 24).as_millis() * 1_000)
}

/// Rows that are not past their expiry, and rows that are, but not for [`GRACE`], are not deleted.
pub(crate) async fn a_row_is_kept_until_its_grace_is_over<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "delete only rows whose expiry was ten minutes ago (`GRACE`): a claim that is still on its way would make the \
                  row anew, with a smaller fence";
    let rule = Rule::new(subject, "a_row_is_kept_until_its_grace_is_over", advice);
    let fence = far_fence(&rule).await;
    let (expired, live) = (fresh_id(), rule.done(&claim(fresh_id())).await);
    rule.expired(expired, fence).await;
    rule.answered("delete expired rows", subject.backend.delete_expired(Clocks::default(), 1_000).await);
    let row = rule.get(live.id).await;
    rule.check(row.as_ref() == Some(&live), || format!("a live row was deleted, or changed: {row:?}"));
    let row = rule.done(&claim(expired)).await;
    rule.check(row.fence.0 == fence.0 + 1, || {
        format!("a row with fence {fence} was deleted as soon as it had expired: claimed again, it got {}", row.fence)
    });
}

/// Rows past their grace are deleted, at most as many as is said; others stay, and fences go on growing.
pub(crate) async fn rows_past_their_grace_are_deleted_in_slices<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "delete at most `limit` rows that have been past their expiry for `GRACE`, and say how many they were; what \
                  lets fences grow after that is the clock";
    let rule = Rule::new(subject, "rows_past_their_grace_are_deleted_in_slices", advice);
    let Some(pass) = &subject.clock else { return rule.leave_out("`clock`") };
    let ids = fresh_ids(25);
    let expiring = |id: &_| Write { expires: NewExpiry::In(AT_ONCE), ..claim(*id) };
    let fences: Vec<Fence> = join_fences(rule.put(&ids.iter().map(expiring).collect::<Vec<_>>()).await.rows);
    rule.check(fences.len() == ids.len(), || "not all claims of absent rows were granted".to_owned());
    let long = rule.done(&Write { expires: NewExpiry::In(GRACE * 100), ..claim(fresh_id()) }).await;
    let fence = far_fence(&rule).await;
    let expires = NewExpiry::In(GRACE / 2);
    let in_grace = rule.done(&Write { expires, fence: NewFence::Exactly(fence), ..claim(fresh_id()) }).await;
    pass(GRACE + AT_ONCE * 2);
    let mut deleted = Vec::new();
    while deleted.last().is_none_or(|&count| count > 0) {
        deleted.push(rule.answered("delete expired rows", subject.backend.delete_expired(Clocks::default(), 10).await));
        rule.check(deleted.len() < 1_000, || "there was always something to delete".to_owned());
    }
    let (sum, most) = (deleted.iter().sum::<usize>(), deleted.iter().copied().max().unwrap_or(0));
    rule.check(most <= 10, || format!("{most} rows were deleted at once, and ten are the limit"));
    rule.check(sum >= ids.len(), || format!("{sum} rows were deleted, and {} were past their grace", ids.len()));
    let row = rule.get(long.id).await;
    rule.check(row.as_ref() == Some(&long), || format!("a live row was deleted, or changed: {row:?}"));
    let row = rule.done(&claim(in_grace.id)).await;
    rule.check(row.fence.0 == fence.0 + 1, || "a row within its grace was deleted".to_owned());
    for (id, old) in ids.iter().zip(fences) {
        rule.refused(&Write { expect: Expect::Token(row.token), ..claim(*id) }).await;
        let new = rule.done(&claim(*id)).await.fence;
        rule.check(new > old, || format!("a row had fence {old}; deleted and claimed again, it got {new}"));
    }
}

fn join_fences(rows: Vec<Option<Row>>) -> Vec<Fence> {
    rows.into_iter().flatten().map(|row| row.fence).collect()
}
