//! A write that is sent again, because it is unknown whether it was done.

use tower_idempotency::Fence;
use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend, Clocks, Expect, NewExpiry, NewFence, Row, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete, steps};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// Writes to send, each of a row of its own: a claim, and each that may follow one.
async fn to_write<B: Backend>(rule: &Rule<'_, B>) -> Vec<(String, Write)> {
    let mut writes = vec![("claim".to_owned(), claim(fresh_id()))];
    let count = steps(&rule.done(&claim(fresh_id())).await).len();
    for at in 0..count {
        let row = rule.done(&claim(fresh_id())).await;
        let (step, write) = steps(&row).swap_remove(at);
        writes.push((step.to_owned(), write));
    }
    writes
}

/// The same writes, and the rows that they have just made: first alone, then each together with another write.
async fn just_written<B: Backend>(rule: &Rule<'_, B>) -> Vec<(bool, String, Write, Row)> {
    let mut written = Vec::new();
    for together in [false, true] {
        for (step, write) in to_write(rule).await {
            let (row, _) = rule.done_in(together, &write).await;
            written.push((together, step, write, row));
        }
    }
    written
}

/// A write is done if the row has its own token already, though what it expects is not there any more.
pub(crate) async fn sent_again_is_done_whatever_is_expected<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "let a write match also where the row has the write's own token: its first answer was lost";
    let rule = Rule::new(subject, "sent_again_is_done_whatever_is_expected", advice);
    for (together, step, write, row) in just_written(&rule).await {
        for _ in 0..2 {
            let (again, _) = rule.done_in(together, &write).await;
            let same = (again.kind, again.session, &again.state) == (row.kind, row.session, &row.state);
            rule.check(same, || format!("to {step}, sent again, made {again:?} of {row:?}"));
        }
        let other = Write { expect: Expect::Token(write.token), ..complete(&row) };
        rule.done(&other).await;
    }
}

/// Sent again, a write keeps the fence that it got, and the stamps.
pub(crate) async fn sent_again_keeps_fence_and_stamps<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "where the row has the write's own token, keep `fence`, `began` and `since` as they are: the run goes by the \
                  fence of the first answer";
    let rule = Rule::new(subject, "sent_again_keeps_fence_and_stamps", advice);
    for (together, step, write, row) in just_written(&rule).await {
        rule.pass(AT_ONCE * 3).await;
        let floor = Fence(row.fence.0 + 100);
        for fence in [write.fence, NewFence::Above(floor), NewFence::Exactly(floor)] {
            let (again, _) = rule.done_in(together, &Write { fence, ..write.clone() }).await;
            rule.check(again.fence == row.fence, || {
                format!("to {step}, sent again with {fence:?}, changed the fence from {} to {}", row.fence, again.fence)
            });
            let stamps = [(row.began, again.began), (row.since, again.since)];
            rule.check(stamps.iter().all(|(was, is)| was == is), || {
                format!("to {step}, sent again, changed began or since: {stamps:?}")
            });
        }
    }
}

/// Sent again, a write is written: its durations count from now. An answer that only recognises it would promise what
/// the database may not have kept.
pub(crate) async fn sent_again_is_a_write_that_counts_from_now<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "where the row has the write's own token, write the row all the same, with `until` and `expires` from now: the \
                  first write may be lost in a failover, and the answer must be about one that is not";
    let rule = Rule::new(subject, "sent_again_is_a_write_that_counts_from_now", advice);
    for (together, step, write, row) in just_written(&rule).await {
        rule.pass(AT_ONCE * 3).await;
        let before = rule.now().await;
        let (again, _) = rule.done_in(together, &write).await;
        let found = rule.get(row.id).await;
        rule.check(found.as_ref() == Some(&again), || format!("put answered {again:?}, and get {found:?}"));
        if let (Some(until), Some(was)) = (write.until, row.until) {
            let should = before.plus(until);
            rule.check(again.until.is_some_and(|is| should <= is), || {
                format!("to {step}, sent again at {before:?}, left until at {:?}; it was {was:?}", again.until)
            });
        }
        match write.expires {
            NewExpiry::In(duration) => rule.check(before.plus(duration) <= again.expires, || {
                format!("to {step}, sent again at {before:?}, left expires at {:?}", again.expires)
            }),
            NewExpiry::Keep => rule.check(again.expires == row.expires, || {
                format!(
                    "to {step}, sent again, changed an expiry that it keeps: {:?} to {:?}",
                    row.expires, again.expires
                )
            }),
        }
    }
}

/// Sent again after the clocks were set back, a write leaves `until` and `expires` no earlier than they are: the
/// process goes by the answer to an earlier copy.
pub(crate) async fn sent_again_lowers_neither_until_nor_expires<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "where the row has the write's own token, keep the later of the row's `until` and the new one, and so for \
                  `expires`: `greatest` in SQL";
    let rule = Rule::new(subject, "sent_again_lowers_neither_until_nor_expires", advice);
    let now = rule.now().await;
    let an_hour_ago = Timestamp::from_millis(now.as_millis() - 3_600_000);
    let ahead = Clocks { latest: now.plus(HOUR * 25), ..Clocks::default() };
    let behind = Clocks { earliest: an_hour_ago, latest: an_hour_ago };
    // A database may have another statement for several writes than for one.
    for at_a_time in [1, usize::MAX] {
        let named = to_write(&rule).await;
        let writes: Vec<Write> = named.iter().map(|(_, write)| write.clone()).collect();
        for (writes, named) in writes.chunks(at_a_time).zip(named.chunks(at_a_time)) {
            let mut copies = Vec::new();
            for clocks in [ahead, behind] {
                copies.push(rule.done_at(clocks, writes).await);
            }
            for ((step, _), (first, again)) in named.iter().zip(copies[0].iter().zip(&copies[1])) {
                rule.check(first.until <= again.until && first.expires <= again.expires, || {
                    format!(
                        "to {step}, sent again after the clocks were set back, changed until and expires from {:?} to {:?}",
                        (first.until, first.expires),
                        (again.until, again.expires)
                    )
                });
            }
        }
    }
}
