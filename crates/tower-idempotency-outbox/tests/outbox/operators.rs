//! What an operator sees and does.

use tower_idempotency_client::Key;
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::Error;
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::error::SqlState;
use tower_idempotency_outbox::{Action, Outbox, State};

use crate::home::{Home, PostgresHome, SledHome, call, over_both};
use crate::server::{answer, entry, relay, run_until, server, server_of};

over_both!(
    what_was_refused_or_given_up_is_listed_and_can_be_tried_again,
    a_change_that_comes_too_late_does_nothing,
    a_call_that_waits_can_be_given_up,
    a_damaged_entry_is_set_aside_and_the_others_go_on,
);

async fn what_was_refused_or_given_up_is_listed_and_can_be_tried_again(home: impl Home) {
    let outbox = home.outbox();
    for number in 1..=3 {
        outbox.put(&call(number)).await.unwrap();
    }
    let (client, _) = server(|body, _| async move { answer(if body == "charge 1" { 400 } else { 303 }, &[], "") });
    for (number, state) in [(1, State::Refused), (2, State::GivenUp), (3, State::GivenUp)] {
        run_until(relay(outbox, &client), outbox, call(number).key(), state).await;
    }
    let first = outbox.list(State::GivenUp, None, 1).await.unwrap();
    let position = async |number| entry(outbox, call(number).key()).await.position;
    assert_eq!((first.len(), first[0].position), (1, position(2).await));
    // A list has neither the request nor the answer, which may be long.
    assert!(first[0].call.is_none() && first[0].answer.is_none() && first[0].destination == "http://api.example");
    let whole = outbox.at(first[0].position).await.unwrap().unwrap();
    assert!(whole.call == Some(call(2)) && whole.answer.is_some() && whole.fence() == first[0].fence());
    assert!(outbox.at(u64::MAX).await.unwrap().is_none());
    let second = outbox.list(State::GivenUp, Some(first[0].position), 9).await.unwrap();
    assert_eq!((second.len(), second[0].position), (1, position(3).await));
    let (client, log) = server_of(200, &[], "");
    for number in 1..=3 {
        let before = entry(outbox, call(number).key()).await;
        assert!(outbox.by("alice").apply(&before, Action::Retry).await.unwrap());
        let after = run_until(relay(outbox, &client), outbox, call(number).key(), State::Delivered).await;
        assert_eq!(after.tries, 1);
    }
    assert_eq!(log.all()[0].key, call(1).key().as_str());
}

async fn a_change_that_comes_too_late_does_nothing(home: impl Home) {
    let outbox = home.outbox();
    let (client, _) = server_of(303, &[], "");
    outbox.put(&call(1)).await.unwrap();
    let waiting = entry(outbox, call(1).key()).await;
    let given_up = run_until(relay(outbox, &client), outbox, call(1).key(), State::GivenUp).await;
    assert!(
        !outbox.by("alice").apply(&waiting, Action::Retry).await.unwrap()
            && !outbox.by("alice").apply(&waiting, Action::SettleAsDone).await.unwrap()
    );
    assert!(outbox.by("alice").apply(&given_up, Action::SettleAsNotDone).await.unwrap());
    // Another operator has looked at it before.
    assert!(
        !outbox.by("alice").apply(&given_up, Action::SettleAsDone).await.unwrap()
            && !outbox.by("alice").apply(&given_up, Action::Retry).await.unwrap()
    );
    let refused = entry(outbox, call(1).key()).await;
    assert_eq!((refused.state, refused.may_have_taken_place), (State::Refused, false));
    // What has been settled as refused is not settled again, but can be tried.
    assert!(
        !outbox.by("alice").apply(&refused, Action::SettleAsDone).await.unwrap()
            && outbox.by("alice").apply(&refused, Action::Retry).await.unwrap()
    );
    let (client, _) = server_of(200, &[], "");
    let delivered = run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
    assert!(!outbox.by("alice").apply(&delivered, Action::Retry).await.unwrap());
}

async fn a_call_that_waits_can_be_given_up(home: impl Home) {
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let waiting = entry(outbox, call(1).key()).await;
    assert!(
        outbox.by("alice").apply(&waiting, Action::GiveUp).await.unwrap()
            && !outbox.by("alice").apply(&waiting, Action::GiveUp).await.unwrap()
    );
    let given_up = entry(outbox, call(1).key()).await;
    assert_eq!((given_up.state, given_up.may_have_taken_place), (State::GivenUp, false));
    assert!(
        !outbox.by("alice").apply(&given_up, Action::GiveUp).await.unwrap()
            && outbox.by("alice").apply(&given_up, Action::SettleAsNotDone).await.unwrap()
    );
}

async fn a_damaged_entry_is_set_aside_and_the_others_go_on(home: impl Home) {
    let outbox = home.outbox();
    for number in 1..=2 {
        outbox.put(&call(number)).await.unwrap();
    }
    let whole = entry(outbox, call(1).key()).await;
    home.damage(&whole, false).await;
    let (client, log) = server_of(200, &[], "");
    let damaged = run_until(relay(outbox, &client), outbox, call(1).key(), State::Damaged).await;
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 2"]);
    assert!(damaged.call.is_none() && !damaged.may_have_taken_place);
    // It says why once.
    assert_eq!(damaged.reason.as_ref().unwrap().matches("its method").count(), 1, "{:?}", damaged.reason);
    let listed = outbox.list(State::Damaged, None, 9).await.unwrap();
    assert_eq!((listed.len(), listed[0].position), (1, whole.position));
    // Once it is repaired, it can be tried.
    home.damage(&whole, true).await;
    assert!(outbox.by("alice").apply(&damaged, Action::Retry).await.unwrap());
    run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
    // What can't be repaired can be settled.
    outbox.put(&call(3)).await.unwrap();
    home.damage(&entry(outbox, call(3).key()).await, false).await;
    let damaged = run_until(relay(outbox, &client), outbox, call(3).key(), State::Damaged).await;
    assert!(outbox.by("alice").apply(&damaged, Action::SettleAsNotDone).await.unwrap());
    assert_eq!(entry(outbox, call(3).key()).await.state, State::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_which_nothing_can_be_read_is_listed_and_settled_and_the_others_go_on() {
    let home = SledHome::new().await;
    let outbox = home.outbox();
    for number in 1..=2 {
        outbox.put(&call(number)).await.unwrap();
    }
    let position = entry(outbox, call(1).key()).await.position;
    outbox.tree().insert([b"o", &position.to_be_bytes()[..]].concat(), "{}").unwrap();
    let (client, log) = server_of(200, &[], "");
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 2"]);
    let [damaged] = &outbox.list(State::Damaged, None, 9).await.unwrap()[..] else { panic!("one is damaged") };
    assert_eq!((damaged.position, damaged.call.clone(), damaged.may_have_taken_place), (position, None, true));
    assert!(damaged.reason.as_ref().unwrap().starts_with("it is no entry: "), "{damaged:?}");
    assert!(outbox.by("alice").apply(damaged, Action::SettleAsDone).await.unwrap());
    assert_eq!(entry(outbox, call(1).key()).await.state, State::Delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_files_that_is_longer_than_it_was_written_is_damaged_although_it_can_be_read() {
    let home = SledHome::new().await;
    let outbox = home.outbox();
    for number in 1..=2 {
        outbox.put(&call(number)).await.unwrap();
    }
    let part = [b"c", &entry(outbox, call(1).key()).await.position.to_be_bytes()[..], &[0, 0]].concat();
    let written = outbox.tree().get(&part).unwrap().unwrap();
    outbox.tree().insert(part, [&written[..], b" "].concat()).unwrap();
    let (client, log) = server_of(200, &[], "");
    run_until(relay(outbox, &client), outbox, call(1).key(), State::Damaged).await;
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 2"]);
}

// Seeded fault: the relay panicked when it read such a row, before it had sent any of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_more_headers_than_a_request_can_have_is_set_aside_and_the_others_go_on() {
    let Some(home) = PostgresHome::new("a call with too many headers").await else { return };
    let outbox = home.outbox();
    let (client, log) = server_of(200, &[], "");
    // There is room for those that the client adds.
    for (headers, state) in
        [(24_560, State::Delivered), (24_561, State::Damaged), (24_576, State::Damaged), (40_000, State::Damaged)]
    {
        // As any program may write it.
        let request = format!(
            "json_build_object('key', 'k{headers}', 'method', 'POST', 'uri', 'http://api.example/', 'headers', \
                (SELECT json_agg(json_build_array('x-' || number, '')) FROM generate_series(1, {headers}) AS number), \
                'body', '')::text"
        );
        home.sql(&outbox.put_sql().replace("$1", &request)).await;
        outbox.put(&call(headers)).await.unwrap();
        let key = Key::new(format!("k{headers}")).unwrap();
        let found = run_until(relay(outbox, &client), outbox, &key, state).await;
        run_until(relay(outbox, &client), outbox, call(headers).key(), State::Delivered).await;
        assert_eq!(found.call.is_some(), state == State::Delivered, "{:?}", found.reason);
        assert!(state == State::Delivered || found.reason.unwrap().contains("headers"));
        assert_eq!(outbox.list(state, Some(found.position - 1), 1).await.unwrap().len(), 1);
    }
    assert_eq!(log.all().len(), 5);
    // Nor does an answer.
    home.sql(
        "UPDATE outbox.call SET answer = jsonb_set(answer, '{headers}', \
            (SELECT jsonb_agg(jsonb_build_array('x-' || number, '')) FROM generate_series(1, 40000) AS number))",
    )
    .await;
    assert!(entry(outbox, call(40_000).key()).await.answer.is_none());
}

// Seeded fault: results that waited for rows that an operator had locked had all connections of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_for_no_row_that_is_locked() {
    let Some(home) = PostgresHome::new("a row that is locked").await else { return };
    home.outbox().put(&call(1)).await.unwrap();
    let waiting = entry(home.outbox(), call(1).key()).await;
    let own = home.another_client().await;
    own.batch_execute(&format!("BEGIN; SELECT FROM {}.call FOR UPDATE", home.schema)).await.unwrap();
    let error = home.outbox().by("alice").apply(&waiting, Action::GiveUp).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(source.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{source}");
    own.batch_execute("COMMIT").await.unwrap();
    assert!(home.outbox().by("alice").apply(&waiting, Action::GiveUp).await.unwrap());
}

#[tokio::test]
async fn an_operator_changes_no_other_call_after_a_restore() {
    let Some(home) = PostgresHome::new("an operator's change after a restore").await else { return };
    let outbox = home.outbox();
    for is_damaged in [false, true] {
        outbox.put(&call(1)).await.unwrap();
        let read = entry(outbox, call(1).key()).await;
        if is_damaged {
            home.damage(&read, false).await;
        }
        let read = entry(outbox, call(1).key()).await;
        // The database is as it was before the call was put in, and another call gets its position.
        home.sql(&format!(
            "DELETE FROM outbox.call; INSERT INTO outbox.call (position, request) OVERRIDING SYSTEM VALUE
                VALUES ({}, '{}')",
            read.position,
            outbox.put_parameter(&call(2))
        ))
        .await;
        assert!(!outbox.by("alice").apply(&read, Action::GiveUp).await.unwrap(), "{is_damaged}");
        home.sql("DELETE FROM outbox.call").await;
    }
}

// Seeded fault: a list had the password that another program had put into the URI of a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_has_no_password() {
    let Some(home) = PostgresHome::new("a destination with a password").await else { return };
    let request = r#"'{"key": "k", "method": "POST", "uri": "http://user:canary@API.example:80/x@y", "headers": [], "body": ""}'"#;
    home.sql(&home.outbox().put_sql().replace("$1", request)).await;
    let (client, log) = server_of(200, &[], "");
    let found = run_until(relay(home.outbox(), &client), home.outbox(), &Key::new("k").unwrap(), State::Damaged).await;
    assert!(log.all().is_empty() && found.destination == "http://api.example", "{found:?}");
    assert_eq!(home.outbox().list(State::Damaged, None, 9).await.unwrap()[0].destination, "http://api.example");
    assert!(!format!("{:?}", home.outbox().open_calls().await.unwrap()).contains("canary"));
}
