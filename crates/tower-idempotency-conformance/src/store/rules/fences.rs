//! Fences grow, whatever becomes of the records.

use tower_idempotency::RecordId;
use tower_idempotency::internals::{Fence, Record, Transition};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{SHORT, claim, complete, free, hold, inquire, interrupt, reclaim, settle, shortly};
use crate::store::subject::StoreSubject;

/// The ways in which an operation's record comes to be absent.
#[derive(Debug, Clone, Copy)]
enum Removal {
    Released,
    Forgotten,
    Expired,
    ExpiredInterrupted,
    ExpiredAndSwept,
    Settled,
}

/// The claims of one id, by two processes if there are two, after all that can free it: each fence is above all before,
/// a reopening included.
pub(crate) async fn fences_grow_whatever_frees_the_key<St: Store>(subject: &StoreSubject<St>) {
    let advice =
        "take fences from a counter that survives every deletion: one for all records, or the database's clock";
    let rule = Rule::new(subject, "fences_grow_whatever_frees_the_key", advice);
    let (id, mut last) = (fresh_id(), Fence(0));
    for (round, removal) in [
        Removal::Released,
        Removal::Released,
        Removal::Forgotten,
        Removal::Expired,
        Removal::Released,
        Removal::ExpiredAndSwept,
        Removal::ExpiredInterrupted,
        Removal::Settled,
        Removal::ExpiredAndSwept,
    ]
    .into_iter()
    .enumerate()
    {
        let store = if round % 2 == 0 { &subject.store } else { rule.other() };
        let claim = if let Removal::ExpiredInterrupted = removal { shortly(claim()) } else { claim() };
        let run = rule.made_by(store, id, &claim).await;
        rule.check(last < run.fence, || format!("fence {} was given after {last}", run.fence));
        last = freed(&rule, store, id, run, removal).await;
    }
    let before = rule.claimed(id).await;
    rule.check(last < before.fence, || format!("fence {} was given after {last}", before.fence));
    rule.taken(id, &Transition::Release(before.fence)).await;
    let Some(reopened) = rule.reopened().await else { return };
    for id in [id, fresh_id()] {
        let after = rule.made_by(&reopened, id, &claim()).await;
        rule.check(before.fence < after.fence, || {
            format!("fence {} was given after a reopening, and {} before it", after.fence, before.fence)
        });
    }
}

/// Frees the key of a run, and gives the highest fence that its operation got.
async fn freed<St: Store>(rule: &Rule<'_, St>, store: &St, id: RecordId, run: Record, removal: Removal) -> Fence {
    let mut last = run.fence;
    let mut grows = |record: &Record| {
        rule.check(last < record.fence, || format!("fence {} was given after {last}", record.fence));
        last = record.fence;
    };
    match removal {
        Removal::Released => drop(rule.taken_by(store, id, &Transition::Release(run.fence)).await),
        Removal::Expired | Removal::ExpiredAndSwept => {
            rule.made_by(store, id, &shortly(complete(hold(id, &run), "its outcome"))).await;
            rule.outlive(id, SHORT).await;
        }
        Removal::ExpiredInterrupted => {
            rule.made_by(store, id, &interrupt(run.fence)).await;
            rule.outlive(id, SHORT).await;
        }
        Removal::Forgotten | Removal::Settled => {
            rule.made_by(store, id, &interrupt(run.fence)).await;
            let asked = rule.made_by(store, id, &inquire(run.fence)).await;
            grows(&asked);
            let again = rule.made_by(store, id, &reclaim(asked.fence)).await;
            grows(&again);
            let cut = rule.made_by(store, id, &interrupt(again.fence)).await;
            if let Removal::Forgotten = removal {
                rule.taken_by(store, id, &free(cut.fence)).await;
            } else {
                let settled = rule.made_by(store, id, &shortly(settle(cut.fence, "settled"))).await;
                grows(&settled);
                rule.outlive(id, SHORT).await;
            }
        }
    }
    if let Removal::ExpiredAndSwept = removal {
        rule.swept(100).await;
    }
    last
}
