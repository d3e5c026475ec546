//! Calls that have ended are deleted after some time, with all that is stored of them.

use std::time::Duration;

use http::Request;
use testkit::process::until;
use tower_idempotency_outbox::{Call, Outbox as _, State};

use crate::home::{Home, SledHome, call, over_both};
use crate::server::{answer, entry, relay, run_until, server};

over_both!(those_that_have_ended_are_deleted_later_and_the_others_stay);

async fn those_that_have_ended_are_deleted_later_and_the_others_stay(home: impl Home) {
    let outbox = home.outbox();
    let (client, _) = server(|body, _| async move {
        answer(
            match &*body {
                "charge 1" => 200,
                "charge 2" => 400,
                _ => 303,
            },
            &[],
            "",
        )
    });
    for number in 1..=3 {
        outbox.put(&call(number)).await.unwrap();
    }
    run_until(relay(outbox, &client), outbox, call(3).key(), State::GivenUp).await;
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Refused).await;
    run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
    let deleted = async || outbox.list(State::Delivered, None, 9).await.unwrap().is_empty();
    relay(outbox, &client).keep_for(Duration::ZERO).run(until("it is deleted", deleted)).await;
    assert!(outbox.get(call(1).key()).await.unwrap().is_none() && outbox.get(call(2).key()).await.unwrap().is_none());
    assert_eq!(entry(outbox, call(3).key()).await.state, State::GivenUp);
    // Its key is free: what was deleted is forgotten.
    outbox.put(&call(1)).await.unwrap();
    assert_eq!(entry(outbox, call(1).key()).await.state, State::Waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_deleted_leaves_nothing_of_itself_nor_of_its_answers() {
    let home = SledHome::new().await;
    let outbox = home.outbox();
    let long = "a".repeat(9_000);
    let call = Call::new(Request::post("http://api.example/charges").body(long.clone()).unwrap()).unwrap();
    outbox.put(&call).await.unwrap();
    // The second answer is shorter than the first.
    let error: &str = format!("\"{long}\"").leak();
    let (client, _) = server(move |_, number| async move {
        if number == 1 { answer(500, &[("content-type", "application/json")], error) } else { answer(200, &[], "paid") }
    });
    let delivered = run_until(relay(outbox, &client), outbox, call.key(), State::Delivered).await;
    assert_eq!(delivered.tries, 2);
    let deleted = async || outbox.get(call.key()).await.unwrap().is_none();
    relay(outbox, &client).keep_for(Duration::ZERO).run(until("it is deleted", deleted)).await;
    let left: Vec<_> = outbox.tree().iter().keys().map(|key| key.unwrap()).collect();
    // The last position, the time and the version.
    assert_eq!(left, ["n", "t", "v"]);
}
