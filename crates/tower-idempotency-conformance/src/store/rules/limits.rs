//! Transitions that are refused because there is no room, or no time.

use std::time::Duration;

use futures_util::future::join_all;
use tower_idempotency::internals::{Claim, ReclaimReason, Reply, Stepped, Transition};
use tower_idempotency::store::{Store, StoreError};

use crate::fresh::{fresh_id, fresh_ids};
use crate::store::rule::Rule;
use crate::store::sample::{claim, complete, consume, hold, interrupt, reclaim, settle, wish};
use crate::store::subject::StoreSubject;

/// A full store refuses new keys, and nothing that ends a run or goes on from one. Where one is freed, one is claimed.
pub(crate) async fn limits_refuse_new_keys_and_no_ending<St: Store>(subject: &StoreSubject<St>) {
    let advice = "check the limit only where a claim makes a record, and answer `Full` before anything is written";
    let rule = Rule::new(subject, "limits_refuse_new_keys_and_no_ending", advice);
    let Some(most) = subject.most_records else { return rule.leave_out("`most_records`") };
    let by_slot = fresh_id();
    let untraced = rule.made(by_slot, &Transition::Claim(Claim { may_repeat: true, ..wish() })).await;
    let ids = fresh_ids(most + 1);
    let answers = join_all(ids.iter().map(|id| subject.store.apply(*id, claim()))).await;
    let mut runs = Vec::new();
    let mut refused = Vec::new();
    for (id, answer) in ids.into_iter().zip(answers) {
        match answer {
            Ok(Stepped { reply: Reply::Taken, record: Some(run) }) => runs.push((id, run)),
            Err(StoreError::Full { .. }) => refused.push(id),
            other => rule.fail(format_args!("a claim was answered {other:?}")),
        }
    }
    let granted = runs.len();
    rule.check((most - 1..=most).contains(&granted), || {
        format!("{granted} claims were granted, and {most} are the limit")
    });
    let is_full = async |what: &str| {
        let answer = subject.store.apply(fresh_id(), claim()).await;
        let is_full = matches!(answer, Err(StoreError::Full { .. }));
        rule.check(is_full, || format!("{what}, a claim was answered {answer:?}"));
    };
    for id in refused {
        let found = rule.load(id).await;
        rule.check(found.is_none(), || format!("a claim that was refused as there is no room has left {found:?}"));
    }
    is_full("where the limit is reached").await;
    let mut runs = runs.into_iter();
    let mut next = || runs.next().unwrap_or_else(|| rule.fail("there are no runs"));
    let (id, run) = next();
    rule.made(id, &complete(hold(id, &run), vec![7; 9_000])).await;
    let (id, run) = next();
    rule.made(id, &consume(hold(id, &run), 201)).await;
    let (id, run) = next();
    let cut = rule.made(id, &interrupt(run.fence)).await;
    let again = rule.made(id, &reclaim(cut.fence)).await;
    let cut = rule.made(id, &interrupt(again.fence)).await;
    rule.made(id, &settle(cut.fence, "settled")).await;
    rule.made(by_slot, &complete(hold(by_slot, &untraced), "its outcome")).await;
    is_full("where nothing was freed").await;
    for _ in 0..2 {
        let (id, run) = next();
        rule.taken(id, &Transition::Release(run.fence)).await;
    }
    rule.claimed(fresh_id()).await;
}

/// A claim to which the store comes when its requester waits no longer is refused, and not granted after all.
pub(crate) async fn a_claim_that_is_refused_as_late_was_not_made<St: Store>(subject: &StoreSubject<St>) {
    let advice = "look at the claim's timeout in the step that would grant it, and write nothing if it is over";
    let rule = Rule::new(subject, "a_claim_that_is_refused_as_late_was_not_made", advice);
    for is_reclaim in [false, true] {
        for _ in 0..10 {
            let id = fresh_id();
            let late = Claim { timeout: Duration::ZERO, ..wish() };
            let (before, late) = if is_reclaim {
                let cut = rule.interrupted(id).await;
                (Some(cut.clone()), Transition::Reclaim(late, cut.fence, ReclaimReason::Verdict))
            } else {
                (None, Transition::Claim(late))
            };
            match subject.store.apply(id, late).await {
                // It came in time.
                Ok(Stepped { reply: Reply::Taken, .. }) => {}
                Err(StoreError::Unavailable { .. } | StoreError::Overloaded { .. }) => {
                    let found = rule.load(id).await;
                    rule.check(found == before, || {
                        format!("a claim that was refused as late made {found:?} of {before:?}")
                    });
                    rule.taken(id, &before.map_or_else(claim, |cut| reclaim(cut.fence))).await;
                }
                other => rule.fail(format_args!("a claim whose timeout is over was answered {other:?}")),
            }
        }
    }
}
