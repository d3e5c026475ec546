//! A write that is sent again, because nobody knows whether it was done.

use tower_idempotency::Fence;
use tower_idempotency::store::shared::{Backend, Expect, NewExpiry, NewFence, Row, Write};

use super::rule::Rule;
use super::sample::{AT_ONCE, claim, complete, verbs};
use super::subject::Subject;
use crate::fresh::fresh_id;

/// A row, and the writes that were just done to it: the claim alone, or the claim and another.
async fn just_written<B: Backend>(rule: &Rule<'_, B>) -> Vec<(String, Write, Row)> {
    let id = fresh_id();
    let write = claim(id);
    let mut written = vec![("claim".to_owned(), write.clone(), rule.done(&write).await)];
    let count = verbs(&written[0].2).len();
    for at in 0..count {
        let row = rule.done(&claim(fresh_id())).await;
        let (verb, write) = verbs(&row).swap_remove(at);
        let row = rule.done(&write).await;
        written.push((verb.to_owned(), write, row));
    }
    written
}

/// A write whose own token stands there is done, though what it expects is not there any more.
pub(super) async fn sent_again_is_done_whatever_is_expected<B: Backend>(subject: &Subject<B>) {
    let advice = "let a write match also where the row has the write's own token: its first answer was lost";
    let rule = Rule::new(subject, "sent_again_is_done_whatever_is_expected", advice);
    for (verb, write, row) in just_written(&rule).await {
        for _ in 0..2 {
            let again = rule.done(&write).await;
            let same = (again.kind, again.session, &again.state) == (row.kind, row.session, &row.state);
            rule.check(same, || format!("to {verb}, sent again, made {again:?} of {row:?}"));
        }
        let other = Write { expect: Expect::Token(write.token), ..complete(&row) };
        rule.done(&other).await;
    }
}

/// Sent again, a write keeps the fence that it got, and the stamps.
pub(super) async fn sent_again_keeps_fence_and_stamps<B: Backend>(subject: &Subject<B>) {
    let advice = "where the row has the write's own token, keep `fence`, `began` and `since` as they stand: the run goes by the \
                  fence of the first answer";
    let rule = Rule::new(subject, "sent_again_keeps_fence_and_stamps", advice);
    for (verb, write, row) in just_written(&rule).await {
        rule.pass(AT_ONCE * 3).await;
        let floor = Fence(row.fence.0 + 100);
        for fence in [write.fence, NewFence::Above(floor), NewFence::Exactly(floor)] {
            let again = rule.done(&Write { fence, ..write.clone() }).await;
            rule.check(again.fence == row.fence, || {
                format!("to {verb}, sent again with {fence:?}, changed the fence from {} to {}", row.fence, again.fence)
            });
            let stamps = [(row.began, again.began), (row.since, again.since)];
            rule.check(stamps.iter().all(|(was, is)| was == is), || {
                format!("to {verb}, sent again, changed began or since: {stamps:?}")
            });
        }
    }
}

/// Sent again, a write is written: its durations count from now. An answer that only recognises it would promise what
/// the database may not have kept.
pub(super) async fn sent_again_is_a_write_that_counts_from_now<B: Backend>(subject: &Subject<B>) {
    let advice = "where the row has the write's own token, write the row all the same, with `until` and `expires` from now: the \
                  first write may be lost in a failover, and the answer must stand for one that is not";
    let rule = Rule::new(subject, "sent_again_is_a_write_that_counts_from_now", advice);
    for (verb, write, row) in just_written(&rule).await {
        rule.pass(AT_ONCE * 3).await;
        let before = rule.now().await;
        let again = rule.done(&write).await;
        let stands = rule.get(row.id).await;
        rule.check(stands.as_ref() == Some(&again), || format!("put answered {again:?}, and get {stands:?}"));
        if let (Some(until), Some(was)) = (write.until, row.until) {
            let should = before.plus(until);
            rule.check(again.until.is_some_and(|is| should <= is), || {
                format!("to {verb}, sent again at {before:?}, left until at {:?}; it was {was:?}", again.until)
            });
        }
        match write.expires {
            NewExpiry::In(duration) => rule.check(before.plus(duration) <= again.expires, || {
                format!("to {verb}, sent again at {before:?}, left expires at {:?}", again.expires)
            }),
            NewExpiry::Keep => rule.check(again.expires == row.expires, || {
                format!(
                    "to {verb}, sent again, changed an expiry that it keeps: {:?} to {:?}",
                    row.expires, again.expires
                )
            }),
        }
    }
}
