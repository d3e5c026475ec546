//! The records that are swept, and those that are not.

use futures_util::future::join_all;
use tower_idempotency::internals::{Fence, Record};
use tower_idempotency::store::Store;

use crate::fresh::{fresh_id, fresh_ids};
use crate::store::rule::Rule;
use crate::store::sample::{SHORT, claim, complete, hold, interrupt, shortly};
use crate::store::subject::StoreSubject;

/// A sweep takes at most as many as is said, and nothing that has not expired: not what runs, is interrupted or asked
/// about, not an outcome within its retention.
pub(crate) async fn a_sweep_takes_what_is_past_its_expiry_alone<St: Store>(subject: &StoreSubject<St>) {
    let advice = "look at the record again in the step that deletes it, and delete it only if its expiry has passed; count what \
                  is deleted, and stop at the limit";
    let rule = Rule::new(subject, "a_sweep_takes_what_is_past_its_expiry_alone", advice);
    let expiring = fresh_ids(30);
    let left = expiring.iter().enumerate().map(|(at, id)| {
        let rule = &rule;
        async move {
            let run = rule.made(*id, &shortly(claim())).await;
            let ending =
                if at % 3 == 0 { interrupt(run.fence) } else { shortly(complete(hold(*id, &run), vec![7; 9_000])) };
            rule.made(*id, &ending).await.fence
        }
    });
    let fences: Vec<Fence> = join_all(left).await;
    let [running, interrupted, asked, again, done] = [0; 5].map(|_| fresh_id());
    rule.claimed(running).await;
    rule.interrupted(interrupted).await;
    rule.asked(asked).await;
    rule.taken_over(again).await;
    let run = rule.claimed(done).await;
    rule.made(done, &complete(hold(done, &run), vec![8; 9_000])).await;
    // It had expired once, and was claimed again since.
    let claimed_over = expiring[0];
    rule.outlive(claimed_over, SHORT).await;
    rule.claimed(claimed_over).await;
    for id in &expiring[1..] {
        rule.load_until(&subject.store, *id, "a record past its expiry is absent", |record| record.is_none()).await;
    }
    let live = [running, interrupted, asked, again, done, claimed_over];
    let before: Vec<Option<Record>> = join_all(live.map(|id| rule.load(id))).await;
    let nothing = rule.read(|| subject.store.sweep(0)).await;
    rule.check(nothing == 0, || format!("{nothing} records were swept, and none was to be"));
    rule.swept(4).await;
    let after: Vec<Option<Record>> = join_all(live.map(|id| rule.load(id))).await;
    for (before, after) in before.iter().zip(&after) {
        rule.check(before.is_some() && before == after, || format!("a sweep made {after:?} of {before:?}"));
    }
    for (id, fence) in expiring[1..].iter().zip(&fences[1..]) {
        let loaded = rule.load(*id).await;
        rule.check(loaded.is_none(), || format!("a record past its expiry was loaded: {loaded:?}"));
        let next = rule.claimed(*id).await;
        rule.check(*fence < next.fence, || format!("fence {} was given after {fence}", next.fence));
    }
}
