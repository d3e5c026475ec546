//! A transition that is sent again.

use futures_util::future::join;
use tower_idempotency::internals::{Reply, Stepped, Transition};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{
    Ending, claim, complete, consume, free, hold, inquire, interrupt, name_of, reclaim, settle,
};
use crate::store::subject::StoreSubject;

/// A transition that ends a run is taken as often as it is sent, one after the other and at once, and changes nothing
/// the second time: the first outcome stays.
pub(crate) async fn an_ending_sent_again_gets_the_same_reply<St: Store>(subject: &StoreSubject<St>) {
    let advice = "answer an ending that is there already with `Taken` and the record as it is: the first answer may be \
                  lost, and the run must not be answered that another one ended it";
    let rule = Rule::new(subject, "an_ending_sent_again_gets_the_same_reply", advice);
    let long = vec![8; 6_000];
    let endings: [Ending; 5] = [
        |hold| complete(hold, "first"),
        // In chunks, where a store cuts outcomes.
        |hold| complete(hold, vec![7; 5_000]),
        |hold| consume(hold, 418),
        |hold| interrupt(hold.fence),
        |hold| Transition::Release(hold.fence),
    ];
    for ending in endings {
        let id = fresh_id();
        let hold = hold(id, &rule.claimed(id).await);
        let ending = ending(hold);
        let first = rule.taken(id, &ending).await;
        rule.tick().await;
        for _ in 0..2 {
            let again = rule.taken(id, &ending).await;
            rule.check(again == first, || format!("to {}, sent again, made {again:?} of {first:?}", name_of(&ending)));
        }
        let (one, other) = join(rule.taken(id, &ending), rule.taken(id, &ending)).await;
        rule.check(one == first && other == first, || {
            format!("to {}, sent twice at once, made {one:?} and {other:?} of {first:?}", name_of(&ending))
        });
        if let Transition::Complete(_) = ending {
            for other in [complete(hold, "other"), complete(hold, long.clone()), consume(hold, 500)] {
                let answered = rule.taken(id, &other).await;
                rule.check(answered == first, || {
                    format!("to complete once more, with something else, was answered {answered:?}, not {first:?}")
                });
            }
        }
        let found = rule.load(id).await;
        rule.check(found == first, || format!("{first:?} was answered, and then it is {found:?}"));
    }
}

/// A transition that claims, takes over, asks or settles is taken once: sent again it is refused, and of two at once
/// one is taken.
pub(crate) async fn what_takes_an_operation_is_taken_once<St: Store>(subject: &StoreSubject<St>) {
    let advice =
        "refuse a transition whose fence is not the record's any more, and give each that is taken a fence of its own";
    let rule = Rule::new(subject, "what_takes_an_operation_is_taken_once", advice);
    for which in 0..5 {
        let (id, both) = (fresh_id(), fresh_id());
        let mut tried = Vec::new();
        for id in [id, both] {
            let fence = match which {
                0 => None,
                _ => Some(rule.interrupted(id).await.fence),
            };
            tried.push(match (which, fence) {
                (1, Some(fence)) => reclaim(fence),
                (2, Some(fence)) => inquire(fence),
                (3, Some(fence)) => settle(fence, "settled"),
                (4, Some(fence)) => free(fence),
                _ => claim(),
            });
        }
        let (Some(at_once), Some(again)) = (tried.pop(), tried.pop()) else { return };
        let name = name_of(&again);
        let first = rule.taken(id, &again).await;
        let second = rule.refused(id, &again).await;
        rule.check(second == first, || format!("to {name} made {first:?}; sent again it was answered {second:?}"));
        let (one, other) = join(rule.apply(both, &at_once), rule.apply(both, &at_once)).await;
        let taken = [&one, &other].iter().filter(|applied| applied.reply == Reply::Taken).count();
        rule.check(taken == 1, || format!("to {name}, twice at once, was taken {taken} times"));
        let (Stepped { record: one, .. }, Stepped { record: other, .. }) = (one, other);
        rule.check(one == other, || format!("to {name}, twice at once, was answered {one:?} and {other:?}"));
    }
}
