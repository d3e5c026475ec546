//! Outcomes that come late, or without a claim.

use tower_idempotency::internals::{Claim, Fence, Transition};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{claim, complete, free, hold, inquire, interrupt, name_of, reclaim, settle, wish};
use crate::store::subject::StoreSubject;

/// A run that was thought dead still says how it ended, until another run takes the operation over or an operator
/// settles it.
pub(crate) async fn a_late_outcome_is_recorded_until_somebody_took_over<St: Store>(subject: &StoreSubject<St>) {
    let advice = "accept the completion of an interrupted run by its own fence, also while another process asks about it; refuse it \
                  once the operation was taken over or settled";
    let rule = Rule::new(subject, "a_late_outcome_is_recorded_until_somebody_took_over", advice);
    for questions in 0..3 {
        let id = fresh_id();
        let run = rule.claimed(id).await;
        let mut fence = rule.made(id, &interrupt(run.fence)).await.fence;
        for _ in 0..questions {
            fence = rule.made(id, &inquire(fence)).await.fence;
        }
        let late = rule.made(id, &complete(hold(id, &run), "late")).await;
        rule.check(late.fence == fence, || format!("a late outcome changed the fence from {fence} to {}", late.fence));
        for verdict in [settle(fence, "a verdict"), reclaim(fence), free(fence)] {
            rule.refused(id, &verdict).await;
        }
        let outcome = rule.load_outcome(&subject.store, id).await;
        rule.check(outcome.as_deref() == Some(b"late"), || {
            format!("an outcome that came late, after {questions} questions, is {outcome:?}")
        });
    }
    let taken: [fn(Fence) -> Transition; 3] = [reclaim, |fence| settle(fence, "settled"), free];
    for taken in taken {
        let id = fresh_id();
        let run = rule.claimed(id).await;
        let interrupted = rule.made(id, &interrupt(run.fence)).await;
        let taken = taken(interrupted.fence);
        let found = rule.taken(id, &taken).await;
        // Where no tombstone is left, it looks as if the claim had been lost.
        if found.is_some() || !subject.store.is_exclusive() {
            rule.refused(id, &complete(hold(id, &run), "too late")).await;
            let is = rule.load(id).await;
            rule.check(is == found, || format!("an outcome after to {} made {is:?} of {found:?}", name_of(&taken)));
        }
    }
}

/// A claim that may be repeated need not leave a trace. Its run ends like others, and excludes who comes after that.
pub(crate) async fn a_run_whose_claim_left_no_trace_ends_like_others<St: Store>(subject: &StoreSubject<St>) {
    let advice =
        "record an outcome over no record at all, under the run's own fence: its claim left no trace, or was lost";
    let rule = Rule::new(subject, "a_run_whose_claim_left_no_trace_ends_like_others", advice);
    let by_slot = Transition::Claim(Claim { may_repeat: true, ..wish() });
    let id = fresh_id();
    let run = rule.made(id, &by_slot).await;
    let made = rule.made(id, &complete(hold(id, &run), "its outcome")).await;
    rule.check(made.fence == run.fence && made.attempt == run.attempt, || format!("{run:?} ended as {made:?}"));
    for again in [claim(), by_slot.clone()] {
        let answered = rule.refused(id, &again).await;
        rule.check(answered.as_ref() == Some(&made), || format!("{made:?} is recorded, and {answered:?} was answered"));
    }
    let outcome = rule.load_outcome(&subject.store, id).await;
    rule.check(outcome.as_deref() == Some(b"its outcome"), || format!("its outcome is {outcome:?}"));

    let id = fresh_id();
    let run = rule.made(id, &by_slot).await;
    rule.taken(id, &Transition::Release(run.fence)).await;
    let next = rule.claimed(id).await;
    rule.check(next.fence > run.fence, || format!("fence {} came after {}", next.fence, run.fence));
}
