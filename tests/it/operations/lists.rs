//! Lists select by state, age, status and scope, and their pages neither repeat nor leave out.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use testkit::Gate;
use testkit::lab::time::{NOON, SECOND};
use testkit::lab::{Lab, hold, keyed, on_disk};
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Cursor, Filter, Operations, StateKind};
use tower_idempotency::store::Store;
use tower_idempotency::{MemoryStore, SledStore};

use super::{a_second_passes, account, clocked, lab, layer, send};

/// The labels of all operations that the filter selects, in pages of `limit`.
async fn labels<St: Store>(operations: &Operations<St>, filter: &Filter, limit: usize) -> Vec<String> {
    let (mut labels, mut next) = (Vec::new(), None::<Cursor>);
    loop {
        let page = operations.list(filter, next.as_ref(), limit).await.unwrap();
        assert!(page.operations.len() <= limit);
        labels.extend(page.operations.iter().map(|operation| operation.label().unwrap_or("none").to_owned()));
        // As a page's links have it.
        next = page.next.map(|next| next.to_string().parse().unwrap());
        if next.is_none() {
            return labels;
        }
    }
}

async fn selects_by_state_status_and_scope<St: Store + Clone>(store: St) {
    let layer = layer(store);
    let lab = lab(layer.clone());
    for (path, owner, key) in [("/a/200", "one", "a"), ("/b/502", "one", "b"), ("/c/504", "other", "c")] {
        send(&lab, path, owner, key).await;
    }
    let operations = layer.operations();
    let mut all = labels(&operations, &Filter::all(), 1).await;
    all.sort();
    assert_eq!(all, ["label of /a/200", "label of /b/502", "label of /c/504"]);
    for (filter, expected) in [
        (Filter::all().in_state(StateKind::Completed), &["label of /a/200"][..]),
        (Filter::all().in_state(StateKind::Interrupted), &["label of /b/502", "label of /c/504"]),
        (Filter::all().in_state(StateKind::Running), &[]),
        (Filter::all().in_state(StateKind::Consumed), &[]),
        (Filter::all().answered_with(504), &["label of /c/504"]),
        (Filter::all().answered_with(200), &["label of /a/200"]),
        (Filter::all().in_state(StateKind::Interrupted).answered_with(502), &["label of /b/502"]),
        (Filter::all().caused_by(Cause::Answered(0)), &["label of /b/502", "label of /c/504"]),
        (Filter::all().caused_by(Cause::Panicked), &[]),
        (Filter::all().labelled("label of /c"), &["label of /c/504"]),
        (Filter::all().labelled("abel of /c"), &[]),
        (Filter::all().of_scope(account("other").digest()), &["label of /c/504"]),
        (Filter::all().in_state(StateKind::Interrupted).of_scope(account("one").digest()), &["label of /b/502"]),
    ] {
        for limit in [1, 100] {
            let mut found = labels(&operations, &filter, limit).await;
            found.sort();
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_list_selects_by_state_status_and_scope() {
    selects_by_state_status_and_scope(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    selects_by_state_status_and_scope(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        selects_by_state_status_and_scope(fjall).await;
    }
}

#[tokio::test]
async fn a_list_selects_what_is_older_and_interrupted_operations_come_the_oldest_first() {
    let (store, clock) = clocked();
    let layer = layer(store);
    let lab = lab(layer.clone());
    for number in 0..5 {
        send(&lab, &format!("/{number}/502"), "one", &format!("key-{number}")).await;
        send(&lab, &format!("/{number}/200"), "one", &format!("done-{number}")).await;
        a_second_passes(&clock);
    }
    let operations = layer.operations();
    let old = Filter::all().older_than(SECOND * 3);
    let interrupted = old.clone().in_state(StateKind::Interrupted);
    for limit in [1, 2, 9] {
        assert_eq!(labels(&operations, &interrupted, limit).await, ["label of /0/502", "label of /1/502"]);
        let all: HashSet<_> = labels(&operations, &old, limit).await.into_iter().collect();
        assert_eq!(all.len(), 4, "{all:?}");
    }
}

// Each condition with each other one. Seeded faults: of any two, one is enough; a condition is not looked at once
// another one is there.
#[tokio::test]
async fn of_two_conditions_both_count() {
    let (store, clock) = clocked();
    let layer = layer(store);
    let lab = lab(layer.clone());
    let mut all = Vec::new();
    for age in ["old", "new"] {
        for owner in ["one", "other"] {
            for status in [200, 402, 502, 504] {
                send(&lab, &format!("/{age}/{owner}/{status}"), owner, &format!("{age}-{status}")).await;
                all.push(format!("label of /{age}/{owner}/{status}"));
            }
        }
        (0..3).for_each(|_| a_second_passes(&clock));
    }
    type Condition = (fn(Filter) -> Filter, fn(&str) -> bool);
    let conditions: [Condition; 9] = [
        (|filter| filter.in_state(StateKind::Completed), |label| label.ends_with("200") || label.ends_with("402")),
        (|filter| filter.in_state(StateKind::Interrupted), |label| label.contains("/50")),
        (|filter| filter.older_than(SECOND * 4), |label| label.contains("/old/")),
        // The new ones came three seconds after noon.
        (|filter| filter.since(NOON.plus(SECOND * 3)), |label| label.contains("/new/")),
        (|filter| filter.before(NOON.plus(SECOND * 3)), |label| label.contains("/old/")),
        (|filter| filter.labelled("label of /new/o"), |label| label.contains("/new/o")),
        (|filter| filter.caused_by(Cause::Answered(0)), |label| label.contains("/50")),
        (|filter| filter.answered_with(402), |label| label.ends_with("402")),
        (|filter| filter.of_scope(account("one").digest()), |label| label.contains("/one/")),
    ];
    let operations = layer.operations();
    for (place, (first, selected)) in conditions.into_iter().enumerate() {
        for (other, (second, also)) in conditions.into_iter().enumerate() {
            let filter = second(first(Filter::all()));
            let mut found = labels(&operations, &filter, 100).await;
            found.sort();
            // The first two are states, and of two states the second one counts.
            let are_states = place.max(other) < 2;
            let both = |label: &&String| also(label) && (selected(label) || are_states);
            let mut expected: Vec<_> = all.iter().filter(both).cloned().collect();
            expected.sort();
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}

async fn no_page_repeats_or_leaves_out<St: Store + Clone>(store: St) {
    let layer = layer(store);
    let lab = lab(layer.clone());
    for number in 0..97 {
        send(&lab, &format!("/{number}/200"), "one", &format!("key-{number}")).await;
    }
    let operations = layer.operations();
    for limit in [1, 10, 97, 1_000] {
        let listed = labels(&operations, &Filter::all(), limit).await;
        let different: HashSet<_> = listed.iter().collect();
        assert_eq!((listed.len(), different.len()), (97, 97), "in pages of {limit}");
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_leave_out() {
    no_page_repeats_or_leaves_out(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    no_page_repeats_or_leaves_out(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        no_page_repeats_or_leaves_out(fjall).await;
    }
}

// A filter that selects almost nothing would otherwise read a whole store in one call.
#[tokio::test]
async fn one_call_looks_at_a_bounded_number_of_records() {
    let store = MemoryStore::new();
    for number in 0..10_050 {
        hold(&store, &number.to_string()).await;
    }
    let operations = layer(store).operations();
    let none = Filter::all().in_state(StateKind::Consumed);
    let first = operations.list(&none, None, 10).await.unwrap();
    assert!(first.operations.is_empty() && first.next.is_some(), "it goes on");
    let second = operations.list(&none, first.next.as_ref(), 10).await.unwrap();
    assert!(second.operations.is_empty() && second.next.is_none(), "it ends");
}

// Each state with each condition of time, for a run that took ten seconds. Seeded fault: an age counts from when the
// run began.
#[tokio::test]
async fn an_operation_is_as_old_as_its_state_however_long_its_run_took() {
    const RUN: Duration = Duration::from_secs(10);
    for (status, state) in [(200, StateKind::Completed), (502, StateKind::Interrupted), (200, StateKind::Running)] {
        let (store, clock) = clocked();
        let layer = layer(store);
        let gate = Gate::default();
        let handler = {
            let gate = gate.clone();
            move |_| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    StatusCode::from_u16(status).unwrap()
                }
            }
        };
        let request = keyed("POST", "/a", "k").header("account", "one").body("a".into()).unwrap();
        let run = Lab::new(layer.clone(), handler).spawn(request);
        gate.arrival().await;
        clock.advance(RUN);
        if state != StateKind::Running {
            gate.open();
            assert_eq!(run.await.unwrap().status.as_u16(), status);
        }
        a_second_passes(&clock);
        let came = if state == StateKind::Running { NOON } else { NOON.plus(RUN) };
        let (moment, now) = (Duration::from_millis(1), NOON.plus(RUN + SECOND));
        let age = Duration::from_millis(now.as_millis() - came.as_millis());
        let operations = layer.operations();
        for (condition, is_selected) in [
            (Filter::all().older_than(age - moment), true),
            (Filter::all().older_than(age), false),
            (Filter::all().since(came), true),
            (Filter::all().since(came.plus(moment)), false),
            (Filter::all().before(came.plus(moment)), true),
            (Filter::all().before(came), false),
        ] {
            for filter in [condition.clone(), condition.in_state(state)] {
                assert_eq!(labels(&operations, &filter, 9).await.len(), usize::from(is_selected), "{filter:?}");
            }
        }
    }
}
