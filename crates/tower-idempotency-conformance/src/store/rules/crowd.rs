//! Many transitions at once.

use futures_util::future::join_all;
use tower_idempotency::RecordId;
use tower_idempotency::internals::{Record, Reply, State, Stepped, Transition};
use tower_idempotency::store::Store;

use crate::fresh::{fresh_id, fresh_ids};
use crate::store::rule::Rule;
use crate::store::sample::{claim, complete, hold, reclaim};
use crate::store::subject::StoreSubject;

/// Sends a transition so often at once, by two processes if there are two; gives the record of the one that is taken.
async fn one_of<St: Store>(rule: &Rule<'_, St>, count: usize, id: RecordId, transition: &Transition) -> Record {
    let sent = (0..count).map(|at| {
        let store = if at % 2 == 0 { &rule.subject.store } else { rule.other() };
        rule.apply_by(store, id, transition)
    });
    let applied = rule.within(join_all(sent)).await;
    let mut taken = applied.iter().filter(|applied| applied.reply == Reply::Taken);
    let first = taken.next().and_then(|applied| applied.record.clone());
    let count = usize::from(first.is_some()) + taken.count();
    let Some(first) = first.filter(|_| count == 1) else {
        rule.fail(format_args!("{count} of {} at once were taken", applied.len()))
    };
    for Stepped { record, .. } in &applied {
        let fence = record.as_ref().map(|record| record.fence);
        rule.check(fence == Some(first.fence), || {
            format!("one was granted as {first:?}, another was answered {record:?}")
        });
    }
    let found = rule.load(id).await.map(|record| record.fence);
    rule.check(found == Some(first.fence), || format!("fence {} was granted, and {found:?} is there", first.fence));
    first
}

/// A thousand claims of one id at once, of a key that is new and of one that was freed: one is granted, and all answers
/// have it.
pub(crate) async fn one_of_a_thousand_claims_is_granted<St: Store>(subject: &StoreSubject<St>) {
    let advice = "find that there is no record, and write one, in the same atomic step";
    let rule = Rule::new(subject, "one_of_a_thousand_claims_is_granted", advice);
    one_of(&rule, 1_000, fresh_id(), &claim()).await;
    let freed = fresh_id();
    let before = rule.claimed(freed).await;
    rule.taken(freed, &Transition::Release(before.fence)).await;
    let granted = one_of(&rule, 1_000, freed, &claim()).await;
    rule.check(before.fence < granted.fence, || format!("fence {} came after {}", granted.fence, before.fence));
}

/// A hundred who take over an interrupted operation at once: one gets it, as its second attempt.
pub(crate) async fn an_interrupted_operation_is_taken_over_by_one<St: Store>(subject: &StoreSubject<St>) {
    let advice = "compare the fence in the atomic step that writes the new one";
    let rule = Rule::new(subject, "an_interrupted_operation_is_taken_over_by_one", advice);
    let id = fresh_id();
    let interrupted = rule.interrupted(id).await;
    let granted = one_of(&rule, 100, id, &reclaim(interrupted.fence)).await;
    rule.check(granted.attempt == 2 && interrupted.fence < granted.fence, || {
        format!("{granted:?} took over {interrupted:?}")
    });
}

/// Many operations begin and end at once: each has its own outcome then.
pub(crate) async fn operations_at_once_do_not_mix<St: Store>(subject: &StoreSubject<St>) {
    let advice = "answer each of those that are written together with its own record";
    let rule = Rule::new(subject, "operations_at_once_do_not_mix", advice);
    let outcome_of = |id: RecordId, round: usize| {
        // Some are in several parts.
        let length = if round.is_multiple_of(5) { 300 } else { 1 };
        id.as_bytes().repeat(length)
    };
    let ids = fresh_ids(200);
    let whole = ids.iter().enumerate().map(|(round, id)| {
        let rule = &rule;
        async move {
            let run = rule.claimed(*id).await;
            let made = rule.made(*id, &complete(hold(*id, &run), outcome_of(*id, round))).await;
            (run, made)
        }
    });
    let made = rule.within(join_all(whole)).await;
    for (round, (id, (run, made))) in ids.iter().zip(made).enumerate() {
        let is_own = made.fence == run.fence
            && matches!(&made.state, State::Completed { outcome } if **outcome == outcome_of(*id, round));
        rule.check(is_own, || format!("{} was answered another's record", id.short()));
        for store in [&subject.store, rule.other()] {
            let loaded = rule.load_by(store, *id).await;
            rule.check(loaded.as_ref() == Some(&made), || {
                format!(
                    "{} has another record than was answered: fence {:?}",
                    id.short(),
                    loaded.map(|record| record.fence)
                )
            });
        }
    }
}
