//! The records that a store knows without asking, and the changes that it hears of.

use futures_util::FutureExt as _;
use tower_idempotency::RecordId;
use tower_idempotency::internals::Transition;
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{SHORT, claim, complete, consume, free, hold, interrupt, reclaim, settle, shortly};
use crate::store::subject::StoreSubject;

/// A recalled record is the one that would be loaded, and is done; an exclusive store recalls nothing.
pub(crate) async fn what_is_recalled_is_what_is_loaded<St: Store>(subject: &StoreSubject<St>) {
    let advice = "recall only what is completed or consumed, durable and not past its expiry, and nothing if the store is \
                  exclusive";
    let rule = Rule::new(subject, "what_is_recalled_is_what_is_loaded", advice);
    let id = fresh_id();
    recalls(&rule, id).await;
    let run = rule.claimed(id).await;
    recalls(&rule, id).await;
    let cut = rule.made(id, &interrupt(run.fence)).await;
    recalls(&rule, id).await;
    rule.made(id, &settle(cut.fence, "settled")).await;
    recalls(&rule, id).await;
    let id = fresh_id();
    let run = rule.interrupted(id).await;
    let run = rule.made(id, &reclaim(run.fence)).await;
    rule.made(id, &consume(hold(id, &run), 201)).await;
    recalls(&rule, id).await;
    let id = fresh_id();
    let run = rule.interrupted(id).await;
    rule.taken(id, &free(run.fence)).await;
    recalls(&rule, id).await;
    let run = rule.claimed(id).await;
    rule.made(id, &shortly(complete(hold(id, &run), "its outcome"))).await;
    rule.outlive(id, SHORT).await;
    recalls(&rule, id).await;
    let run = rule.claimed(id).await;
    recalls(&rule, id).await;
    rule.taken(id, &Transition::Release(run.fence)).await;
    recalls(&rule, id).await;
}

async fn recalls<St: Store>(rule: &Rule<'_, St>, id: RecordId) {
    let store = &rule.subject.store;
    // Once before it is loaded, and once after.
    for _ in 0..2 {
        let recalled = store.recall(id);
        let loaded = rule.load(id).await;
        let is_so = recalled.as_ref().is_none_or(|record| {
            let is_done = record.state.is_done();
            is_done && !store.is_exclusive() && Some(record) == loaded.as_ref()
        });
        rule.check(is_so, || format!("{recalled:?} was recalled, and {loaded:?} loaded"));
    }
}

/// A change is announced to those who wait for that record, and not to others; an exclusive store has nothing to
/// announce. Changes may be missed, so none has to be announced.
pub(crate) async fn a_change_is_told_of_its_own_record_alone<St: Store>(subject: &StoreSubject<St>) {
    let advice = "wake those who wait for the id that has changed, and no others: each that is woken asks the database";
    let rule = Rule::new(subject, "a_change_is_told_of_its_own_record_alone", advice);
    let store = &subject.store;
    let (changed, quiet) = (fresh_id(), fresh_id());
    let (mut change, mut others_change) = (store.changed(changed), store.changed(quiet));
    for _ in 0..10 {
        let run = rule.made_by(rule.other(), changed, &claim()).await;
        rule.taken_by(rule.other(), changed, &Transition::Release(run.fence)).await;
        // The notification has time to come.
        rule.tick().await;
        let is_notified = (&mut others_change).now_or_never().is_some();
        rule.check(!is_notified, || "a change of a record was announced, and another had changed".to_owned());
        let is_notified = (&mut change).now_or_never().is_some();
        rule.check(!(is_notified && store.is_exclusive()), || {
            "another process's change was announced, and there is no other process".to_owned()
        });
        if is_notified {
            change = store.changed(changed);
        }
    }
}
