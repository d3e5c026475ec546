//! Calls with the same partition key come one after the other.

use std::time::Duration;

use testkit::Gate;
use testkit::process::until;
use tower_idempotency_outbox::{Action, Call, Outbox, State};

use crate::home::{Home, call, over_both};
use crate::server::{answer, entry, relay, run_until, server};

over_both!(
    calls_with_one_partition_key_are_delivered_in_order_and_others_overtake_them,
    a_call_that_was_given_up_holds_later_ones_back_until_it_is_settled,
    a_damaged_call_holds_later_ones_back_until_it_is_settled,
    two_relays_keep_the_order,
    three_relays_that_begin_at_once_send_each_call_once,
);

fn of(partition: &str, number: u32) -> Call {
    call(number).in_order_of(partition).unwrap()
}

async fn calls_with_one_partition_key_are_delivered_in_order_and_others_overtake_them(home: impl Home) {
    // In a transaction of the application, too.
    home.order("1", &[of("a", 1), of("a", 2), of("b", 3), call(4)], false).await.unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let (client, log) = server(move |body, number| {
        let gate = held.clone();
        async move {
            if body != "charge 1" {
                return answer(200, &[], "");
            }
            if number == 1 {
                return Err("the connection broke".into());
            }
            gate.pass().await;
            answer(200, &[], "")
        }
    });
    let outbox = home.outbox();
    let delivered = async |number: u32| entry(outbox, call(number).key()).await.state == State::Delivered;
    let others = async {
        until("the others", async || delivered(3).await && delivered(4).await).await;
        // The second try of the first one is under way.
        gate.arrival().await;
        assert!(!log.bodies().contains(&"charge 2".to_owned()), "{:?}", log.bodies());
        gate.open();
        until("the second one", async || delivered(2).await).await;
    };
    relay(outbox, &client).run(others).await;
    assert_eq!(outbox.list(State::Delivered, None, 9).await.unwrap().len(), 4);
}

async fn a_call_that_was_given_up_holds_later_ones_back_until_it_is_settled(home: impl Home) {
    let outbox = home.outbox();
    let (client, log) = server(|body, _| async move { answer(if body == "charge 1" { 303 } else { 200 }, &[], "") });
    for call in [of("a", 1), of("a", 2), of("b", 3)] {
        outbox.put(&call).await.unwrap();
    }
    let given_up = run_until(relay(outbox, &client), outbox, call(1).key(), State::GivenUp).await;
    run_until(relay(outbox, &client), outbox, call(3).key(), State::Delivered).await;
    assert!(!log.bodies().contains(&"charge 2".to_owned()));
    assert!(outbox.by("alice").apply(&given_up, Action::SettleAsDone).await.unwrap());
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(entry(outbox, call(1).key()).await.state, State::Delivered);
}

async fn a_damaged_call_holds_later_ones_back_until_it_is_settled(home: impl Home) {
    let outbox = home.outbox();
    let (client, log) = server(|_, _| async move { answer(200, &[], "") });
    for call in [of("a", 1), of("a", 2), of("b", 3)] {
        outbox.put(&call).await.unwrap();
    }
    home.damage(&entry(outbox, call(1).key()).await, false).await;
    let damaged = run_until(relay(outbox, &client), outbox, call(1).key(), State::Damaged).await;
    run_until(relay(outbox, &client), outbox, call(3).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 3"]);
    assert!(outbox.by("alice").apply(&damaged, Action::SettleAsNotDone).await.unwrap());
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 3", "charge 2"]);
}

async fn two_relays_keep_the_order(home: impl Home) {
    let outbox = home.outbox();
    let partitions = ["a", "b", "c"];
    for number in 0..60 {
        outbox.put(&of(partitions[number % 3], number as u32)).await.unwrap();
    }
    // Every third try is lost.
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (client, log) = server(move |_, _| {
        let number = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            if number.is_multiple_of(3) { Err("the connection broke".into()) } else { answer(200, &[], "") }
        }
    });
    let all = async || outbox.list(State::Delivered, None, 100).await.unwrap().len() == 60;
    let run = || relay(outbox, &client).concurrency(4).poll_every(Duration::from_millis(1)).run(until("all", all));
    tokio::join!(run(), run());
    for partition in 0..3 {
        let number = |body: String| body.strip_prefix("charge ").unwrap().parse::<usize>().unwrap();
        let mut got = log.bodies().into_iter().map(number).filter(|number| number % 3 == partition).collect::<Vec<_>>();
        assert!(got.is_sorted(), "{got:?}");
        got.dedup();
        assert_eq!(got.len(), 20);
    }
}

async fn three_relays_that_begin_at_once_send_each_call_once(home: impl Home) {
    let outbox = home.outbox();
    for number in 0..100 {
        let call = if number % 2 == 0 { call(number) } else { of(&number.to_string(), number) };
        outbox.put(&call).await.unwrap();
    }
    let (client, log) = server(|_, _| async move { answer(200, &[], "") });
    let all = async || outbox.list(State::Delivered, None, 1_000).await.unwrap().len() == 100;
    let run = || relay(outbox, &client).run(until("all", all));
    tokio::join!(run(), run(), run());
    let mut bodies = log.bodies();
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), log.all().len()), (100, 100));
}
