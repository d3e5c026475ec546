//! Futures that are dropped.

use std::time::Duration;

use futures_util::FutureExt as _;
use tower_idempotency::internals::{Record, State, Transition};
use tower_idempotency::store::Store;

use crate::fresh::fresh_id;
use crate::store::rule::Rule;
use crate::store::sample::{Ending, complete, consume, free, hold, interrupt, name_of, settle};
use crate::store::subject::StoreSubject;

/// A transition that ends a run or settles an operation is done though its future is dropped: never polled, polled
/// once, or somewhere on its way.
pub(crate) async fn a_dropped_future_undoes_nothing<St: Store>(subject: &StoreSubject<St>) {
    let advice = "begin the step when `apply` is called, not when its future is polled, and on a task or a thread of the \
                  store's own: a destructor can't wait";
    let rule = Rule::new(subject, "a_dropped_future_undoes_nothing", advice);
    type Holds = fn(Option<&Record>) -> bool;
    let is_completed: Holds = |record| record.is_some_and(|record| matches!(record.state, State::Completed { .. }));
    let steps: [(Ending, bool, Holds); 6] = [
        (|hold| complete(hold, "its outcome"), false, is_completed),
        (
            |hold| consume(hold, 201),
            false,
            |record| record.is_some_and(|record| matches!(record.state, State::Consumed { .. })),
        ),
        (|hold| Transition::Release(hold.fence), false, |record| record.is_none()),
        (
            |hold| interrupt(hold.fence),
            false,
            |record| record.is_some_and(|record| matches!(record.state, State::Interrupted { .. })),
        ),
        (|hold| settle(hold.fence, "settled"), true, is_completed),
        (|hold| free(hold.fence), true, |record| record.is_none()),
    ];
    for (step, is_of_interrupted, holds) in steps {
        for polls in 0..4 {
            let id = fresh_id();
            let run = if is_of_interrupted { rule.interrupted(id).await } else { rule.claimed(id).await };
            let step = step(hold(id, &run));
            let future = subject.store.apply(id, step.clone());
            match polls {
                0 => drop(future),
                1 => drop(future.now_or_never()),
                _ => drop(tokio::time::timeout(Duration::from_micros(polls * 100), future).await),
            }
            let what = format!("to {} is done, though its future was dropped", name_of(&step));
            rule.load_until(&subject.store, id, &what, holds).await;
        }
    }
}
