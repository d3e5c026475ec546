//! Each state with each thing that a call in it may meet.

use std::collections::BTreeSet;
use std::time::Duration;

use tower_idempotency_outbox::{Action, Entry, Outbox, OutboxError, State};

use crate::home::{Home, call, call_to, over_both};
use crate::server::{entry, relay, run_until, server_of};

over_both!(
    what_is_sent_is_due_and_the_first_open_one_of_its_partition,
    what_has_ended_long_ago_is_deleted_and_nothing_else,
    calls_that_are_kept_for_ever_are_kept_and_those_that_wait_for_too_long_are_sent,
    an_operator_changes_what_waits_for_one_and_nothing_else,
    a_call_is_put_in_once_whatever_has_become_of_it,
);

/// Those that have ended come first: sled deletes none before one that a relay has just delivered.
const STATES: [State; 6] =
    [State::Delivered, State::Refused, State::Waiting, State::Sending, State::GivenUp, State::Damaged];
const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// Lets a relay take all that it can, and returns what was sent.
async fn all_sent(home: &impl Home) -> BTreeSet<String> {
    let (client, log) = server_of(200, &[], "");
    // What is put in now comes last. Before the second run, times that are too far ahead are mended; before the third,
    // the first one of each partition is delivered.
    let last = 1_000..1_003;
    for number in last.clone() {
        home.outbox().put(&call(number)).await.unwrap();
        run_until(relay(home.outbox(), &client), home.outbox(), call(number).key(), State::Delivered).await;
    }
    let last = last.map(|number| format!("charge {number}")).collect();
    log.bodies().into_iter().collect::<BTreeSet<_>>().difference(&last).cloned().collect()
}

async fn what_is_sent_is_due_and_the_first_open_one_of_its_partition(home: impl Home) {
    let (outbox, mut expected, mut number) = (home.outbox(), BTreeSet::new(), 0);
    for state in STATES {
        // No call waits for three days: a clock was wrong.
        for (due, is_due) in [(-HOUR, true), (HOUR, false), (3 * DAY, true)] {
            let is_sent = matches!(state, State::Waiting | State::Sending) && is_due;
            let lets_go = is_sent || matches!(state, State::Delivered | State::Refused);
            // One without an order, and one with another one behind it.
            let of = |number| call(number).in_order_of(format!("{state} {due}")).unwrap();
            for (call, is_sent) in [(call(number), is_sent), (of(number + 1), is_sent), (of(number + 2), lets_go)] {
                outbox.put(&call).await.unwrap();
                expected.extend(is_sent.then(|| String::from_utf8(call.body().to_vec()).unwrap()));
            }
            for number in [number, number + 1] {
                home.set(&entry(outbox, call(number).key()).await, state, due).await;
            }
            number += 3;
        }
    }
    assert_eq!(all_sent(&home).await, expected);
}

async fn what_has_ended_long_ago_is_deleted_and_nothing_else(home: impl Home) {
    let (outbox, mut numbers) = (home.outbox(), 0..);
    let mut calls = Vec::new();
    // By default, they are kept for seven days.
    for (since, is_old) in [(-8 * DAY, true), (-6 * DAY, false)] {
        for state in STATES {
            let call = call(numbers.next().unwrap());
            outbox.put(&call).await.unwrap();
            home.set(&entry(outbox, call.key()).await, state, since).await;
            calls.push((call, state, is_old && matches!(state, State::Delivered | State::Refused)));
        }
    }
    all_sent(&home).await;
    for (call, state, is_deleted) in calls {
        assert_eq!(outbox.get(call.key()).await.unwrap().is_none(), is_deleted, "{state}");
    }
}

async fn calls_that_are_kept_for_ever_are_kept_and_those_that_wait_for_too_long_are_sent(home: impl Home) {
    let outbox = home.outbox();
    for (number, state, since) in [(1, State::Delivered, -8 * DAY), (2, State::Waiting, 3 * DAY)] {
        outbox.put(&call(number)).await.unwrap();
        home.set(&entry(outbox, call(number).key()).await, state, since).await;
    }
    let (client, log) = server_of(200, &[], "");
    let relay = relay(outbox, &client).keep_for(Duration::MAX);
    run_until(relay, outbox, call(2).key(), State::Delivered).await;
    assert_eq!(
        (entry(outbox, call(1).key()).await.state, log.bodies()),
        (State::Delivered, vec!["charge 2".to_owned()])
    );
}

async fn an_operator_changes_what_waits_for_one_and_nothing_else(home: impl Home) {
    use State::{Damaged, Delivered, GivenUp, Refused, Waiting};
    let (outbox, mut number) = (home.outbox(), 0);
    for state in STATES {
        for &action in Action::ALL {
            outbox.put(&call(number)).await.unwrap();
            home.set(&entry(outbox, call(number).key()).await, state, -HOUR).await;
            let before = entry(outbox, call(number).key()).await;
            let make = async |entry: &Entry| outbox.by("alice").apply(entry, action).await;
            let becomes = match (action, state) {
                (Action::Retry, Refused | GivenUp | Damaged) => Some(Waiting),
                (Action::GiveUp, Waiting) => Some(GivenUp),
                (Action::SettleAsDone, GivenUp | Damaged) => Some(Delivered),
                (Action::SettleAsNotDone, GivenUp | Damaged) => Some(Refused),
                _ => None,
            };
            let is_made = make(&before).await.unwrap();
            let after = entry(outbox, call(number).key()).await;
            assert_eq!((is_made, after.state), (becomes.is_some(), becomes.unwrap_or(state)), "{action:?} {state}");
            // A settlement says what is known. A retry forgets tries, and not what they may have done.
            let may_have_taken_place = match action {
                _ if !is_made => before.may_have_taken_place,
                Action::SettleAsDone => true,
                Action::SettleAsNotDone => false,
                _ => before.may_have_taken_place,
            };
            let tries = if is_made && action == Action::Retry { 0 } else { before.tries };
            assert_eq!((after.may_have_taken_place, after.tries), (may_have_taken_place, tries), "{action:?} {state}");
            // Another operator has read it before.
            assert!(!make(&before).await.unwrap(), "{action:?} {state} twice");
            number += 1;
        }
    }
}

async fn a_call_is_put_in_once_whatever_has_become_of_it(home: impl Home) {
    let outbox = home.outbox();
    for (number, state) in STATES.into_iter().enumerate() {
        let number = number as u32;
        outbox.put(&call(number)).await.unwrap();
        home.set(&entry(outbox, call(number).key()).await, state, -HOUR).await;
        let before = entry(outbox, call(number).key()).await;
        outbox.put(&call(number)).await.unwrap();
        let other = call_to("http://elsewhere.example", number);
        assert!(matches!(outbox.put(&other).await, Err(OutboxError::KeyReused)), "{state}");
        let after = entry(outbox, call(number).key()).await;
        assert_eq!((after.state, after.position, after.call), (state, before.position, before.call), "{state}");
    }
    assert_eq!(outbox.list(State::Waiting, None, 9).await.unwrap().len(), 1);
}
