//! Tries: how long, how often, and by which relay.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use retry_policies::policies::ExponentialBackoff;
use testkit::Gate;
use testkit::process::until;
use tower::service_fn;
use tower::util::BoxCloneService;
use tower_idempotency_outbox::{Action, Call, Outbox, State};

use crate::home::{Home, PostgresHome, call, over_both};
use crate::server::{Reply, answer, entry, relay, run_until, server, server_at, server_of};

over_both!(
    a_call_is_sent_with_its_key_until_the_server_answers,
    trap_130_a_relay_that_comes_too_late_gives_a_call_up_without_sending_it,
    a_server_that_asks_for_time_gets_it,
    a_result_that_comes_after_its_lease_does_nothing,
    a_call_whose_relay_has_died_is_sent_again_after_its_lease,
    a_relay_that_shuts_down_finishes_what_it_has,
    a_client_that_panics_loses_its_try_and_not_the_call,
    calls_that_fail_again_and_again_hold_no_others_up,
    a_relay_with_room_for_a_thousand_calls_takes_what_the_database_can_give,
    a_call_with_the_longest_names_and_reasons_comes_to_its_end,
    a_request_is_sent_without_the_headers_of_another_connection,
);

async fn a_call_is_sent_with_its_key_until_the_server_answers(home: impl Home) {
    let (client, log) =
        server(|_, number| async move { if number < 5 { answer(500, &[], "") } else { answer(200, &[], "") } });
    home.outbox().put(&call(1)).await.unwrap();
    let entry = run_until(relay(home.outbox(), &client), home.outbox(), call(1).key(), State::Delivered).await;
    let got = log.all();
    assert_eq!((got.len(), entry.tries), (5, 5));
    assert!(got.iter().all(|got| got.key == "order-1:charge"));
}

async fn trap_130_a_relay_that_comes_too_late_gives_a_call_up_without_sending_it(home: impl Home) {
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let (lost, log) = server(|_, _| async { Err("the connection broke".into()) });
    relay(outbox, &lost).run(until("a try", async || !log.all().is_empty())).await;
    // The server may have forgotten the key by now.
    let (client, log) = server_of(200, &[], "");
    let late = relay(outbox, &client).give_up_after(Duration::from_nanos(1));
    let given_up = run_until(late, outbox, call(1).key(), State::GivenUp).await;
    assert!(log.all().is_empty() && given_up.may_have_taken_place);
    assert!(given_up.reason.unwrap().contains("time was over"));
    // A retry has all of its time anew.
    assert!(outbox.by("alice").apply(&entry(outbox, call(1).key()).await, Action::Retry).await.unwrap());
    run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
}

async fn a_server_that_asks_for_time_gets_it(home: impl Home) {
    for (number, status) in [(1, 429), (2, 500)] {
        let (client, log) = server_of(status, &[("retry-after", "3600")], "");
        home.outbox().put(&call(number)).await.unwrap();
        let waits = async || {
            let entry = entry(home.outbox(), call(number).key()).await;
            entry.state == State::Waiting && entry.tries == 1
        };
        relay(home.outbox(), &client).run(until("it waits", waits)).await;
        let entry = entry(home.outbox(), call(number).key()).await;
        let wait = entry.due.duration_since(SystemTime::now()).unwrap();
        assert!(wait > Duration::from_secs(3_000) && wait <= Duration::from_secs(3_700), "{wait:?}");
        assert_eq!((log.all().len(), entry.may_have_taken_place), (1, status == 500));
    }
}

async fn a_result_that_comes_after_its_lease_does_nothing(home: impl Home) {
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let gate = Gate::default();
    let (slow, _) = server_at(&gate, 400);
    // It has room for one, so it does not take the call again itself.
    let (shutdown, first) = (tokio::sync::oneshot::channel::<()>(), relay(outbox, &slow).concurrency(1));
    let first = tokio::spawn(first.run(async { _ = shutdown.1.await }));
    gate.arrival().await;
    home.end_lease(&entry(outbox, call(1).key()).await).await;
    let (quick, _) = server_of(200, &[], "paid");
    run_until(relay(outbox, &quick), outbox, call(1).key(), State::Delivered).await;
    // Now the first relay is refused, and has to write that.
    gate.open();
    drop(shutdown.0);
    first.await.unwrap();
    let entry = entry(outbox, call(1).key()).await;
    assert_eq!((entry.state, entry.answer.unwrap().body), (State::Delivered, "paid".into()));
}

async fn a_call_whose_relay_has_died_is_sent_again_after_its_lease(home: impl Home) {
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let (stuck, log) = server(|_, _| std::future::pending::<Reply>());
    let dies = tokio::spawn(relay(outbox, &stuck).run(std::future::pending()));
    until("it is sent", async || !log.all().is_empty()).await;
    dies.abort();
    let _ = dies.await;
    let sent = entry(outbox, call(1).key()).await;
    assert_eq!((sent.state, sent.may_have_taken_place), (State::Sending, true));
    let (client, log) = server_of(200, &[], "");
    // Its lease has not ended, so another call is delivered first.
    outbox.put(&call(2)).await.unwrap();
    run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(log.bodies(), ["charge 2"]);
    home.end_lease(&sent).await;
    let delivered = run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
    assert_eq!(delivered.tries, 2);
}

async fn a_relay_that_shuts_down_finishes_what_it_has(home: impl Home) {
    let outbox = home.outbox();
    for number in 1..=2 {
        outbox.put(&call(number)).await.unwrap();
    }
    let gate = Gate::default();
    let (client, log) = server_at(&gate, 200);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(relay(outbox, &client).concurrency(1).run(async { _ = stopped.await }));
    gate.arrival().await;
    drop(stop);
    gate.open();
    run.await.unwrap();
    let first = &log.all()[0];
    let number = if first.body == "charge 1" { 1 } else { 2 };
    assert_eq!(entry(outbox, call(number).key()).await.state, State::Delivered);
}

async fn a_client_that_panics_loses_its_try_and_not_the_call(home: impl Home) {
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let (client, _) = server(|_, number| async move {
        assert!(number > 1, "as planned");
        answer(200, &[], "")
    });
    // A lease is three times as long.
    let relay = relay(outbox, &client).try_for(Duration::from_millis(300));
    let delivered = run_until(relay, outbox, call(1).key(), State::Delivered).await;
    assert!(delivered.tries > 1);
}

async fn calls_that_fail_again_and_again_hold_no_others_up(home: impl Home) {
    let outbox = home.outbox();
    for number in 0..40 {
        let call = call(number);
        // Some have an order, each of another customer.
        let call = if number < 20 { call } else { call.in_order_of(format!("customer-{number}")).unwrap() };
        outbox.put(&call).await.unwrap();
    }
    outbox.put(&call(99)).await.unwrap();
    outbox.put(&call(98).in_order_of("the last customer").unwrap()).await.unwrap();
    let (client, log) = server(|body, _| async move {
        if ["charge 98", "charge 99"].contains(&&*body) { answer(200, &[], "") } else { answer(500, &[], "") }
    });
    // The others are due again at once.
    let at_once = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_nanos(1), Duration::from_nanos(2))
        .build_with_max_retries(u32::MAX);
    let both = async || {
        let others = [entry(outbox, call(98).key()).await, entry(outbox, call(99).key()).await];
        let are_delivered = others.iter().all(|other| other.state == State::Delivered);
        // Each has had its turn by then: the one that is due first is sent first.
        let tries = log.bodies().iter().filter(|body| **body == "charge 0").count();
        assert!(are_delivered || tries < 100, "another one was tried {tries} times: {others:?}");
        are_delivered
    };
    relay(outbox, &client).concurrency(4).backoff(at_once).run(until("both are delivered", both)).await;
}

async fn a_relay_with_room_for_a_thousand_calls_takes_what_the_database_can_give(home: impl Home) {
    let outbox = home.outbox();
    for number in 0..400 {
        outbox.put(&call(number)).await.unwrap();
    }
    let (client, _) = server_of(200, &[], "");
    let all = async || outbox.list(State::Delivered, None, 1_000).await.unwrap().len() == 400;
    relay(outbox, &client).concurrency(1_000).run(until("all are delivered", all)).await;
}

async fn a_call_with_the_longest_names_and_reasons_comes_to_its_end(home: impl Home) {
    let outbox = home.outbox();
    let request =
        Request::post(format!("http://{}:65535/", "a".repeat(255))).header("idempotency-key", "k".repeat(255));
    let call = Call::new(request.body("").unwrap()).unwrap().in_order_of("\"".repeat(255)).unwrap();
    outbox.put(&call).await.unwrap();
    let (client, _) = server(|_, number| async move {
        // Four bytes each, and one that a text in JSON has two of.
        if number < 3 { Err(format!("{}\"", "\u{1f600}".repeat(600)).into()) } else { answer(200, &[], "") }
    });
    let delivered = run_until(relay(outbox, &client), outbox, call.key(), State::Delivered).await;
    assert_eq!(delivered.tries, 3);
}

async fn a_request_is_sent_without_the_headers_of_another_connection(home: impl Home) {
    let outbox = home.outbox();
    let gone = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let gone = gone.into_iter().chain(["content-length", "expect", "te", "trailer"]).collect::<Vec<_>>();
    let request = gone.iter().fold(Request::post("http://api.example/"), |request, name| request.header(*name, "3"));
    let call = Call::new(request.header("x-kept", "3").body("a longer body").unwrap()).unwrap();
    outbox.put(&call).await.unwrap();
    let client = BoxCloneService::new(service_fn(move |request: Request<Full<Bytes>>| {
        let is_gone = gone.iter().all(|name| !request.headers().contains_key(*name));
        let status = if is_gone && request.headers().contains_key("x-kept") { 200 } else { 303 };
        async move { answer(status, &[], "") }
    }));
    let has_ended = async || entry(outbox, call.key()).await.answer.is_some();
    relay(outbox, &client).run(until("it has ended", has_ended)).await;
    assert_eq!(entry(outbox, call.key()).await.state, State::Delivered);
}

// Seeded fault: a query that looks at each call which waits took longer than the relay waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_in_few_partitions_holds_no_relay_up() {
    let Some(home) = PostgresHome::new("a backlog in few partitions").await else { return };
    let outbox = home.outbox();
    // Calls as any program may write them, in four partitions, whose first ones are delivered.
    let request = "json_build_object('key', 'k' || number, 'method', 'POST', 'uri', 'http://api.example/', 'headers', \
        json_build_array(), 'body', '', 'partition_key', 'p' || number % 4)";
    let put = "INSERT INTO outbox.call (request) SELECT REQUEST FROM generate_series(1, 20000) AS number; \
        ANALYZE outbox.call; UPDATE outbox.call SET state = 'delivered', ended = now() WHERE position <= 8000";
    home.sql(&put.replace("REQUEST", request)).await;
    outbox.put(&call(1)).await.unwrap();
    let (client, log) = server_of(200, &[], "");
    let some = async || log.all().len() > 20 && entry(outbox, call(1).key()).await.state == State::Delivered;
    relay(outbox, &client).run(until("some are delivered", some)).await;
}

// Seeded fault: after a restore, a position and its fences come back, and one call's result was written to another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_written_to_no_other_call_after_a_restore() {
    let Some(home) = PostgresHome::new("a result after a restore").await else { return };
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let gate = Gate::default();
    let (slow, _) = server_at(&gate, 200);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let first = tokio::spawn(relay(outbox, &slow).concurrency(1).run(async { _ = stopped.await }));
    gate.arrival().await;
    // The database is as it was before the call was put in, and another call gets its position.
    let other = outbox.put_parameter(&call(2));
    home.sql(&format!("UPDATE outbox.call SET request = '{other}', state = 'waiting', fence = 0, due = 'epoch'")).await;
    let (stuck, log) = server(|_, _| std::future::pending::<Reply>());
    let second = tokio::spawn(relay(outbox, &stuck).run(std::future::pending()));
    until("it is sent", async || !log.all().is_empty()).await;
    gate.open();
    drop(stop);
    first.await.unwrap();
    assert_eq!(entry(outbox, call(2).key()).await.state, State::Sending);
    second.abort();
}

/// How many statements wait for a lock.
fn waiting(schema: &str) -> String {
    format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{schema}\"%'")
}

// Seeded fault: a statement that a relay had given up went on in the server, on a connection that the pool had replaced
// by another one, and took calls that no relay sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_does_not_wait_for_any_more_ends_in_the_server_and_takes_no_call() {
    let Some(home) = PostgresHome::new("a statement that a relay does not wait for").await else { return };
    let outbox = home.outbox();
    outbox.put(&call(1)).await.unwrap();
    let (client, log) = server_of(200, &[], "");
    // In a transaction, the server would show the same activity again and again.
    let (own, look) = (home.another_client().await, home.another_client().await);
    let waiting = async || look.query_one(&waiting(&home.schema), &[]).await.unwrap().get::<_, i64>(0);
    for is_locked_for_long in [true, false] {
        own.batch_execute(&format!("BEGIN; LOCK TABLE {}.call IN ACCESS EXCLUSIVE MODE", home.schema)).await.unwrap();
        let dies = tokio::spawn(relay(outbox, &client).run(std::future::pending()));
        until("it waits for the lock", async || waiting().await > 0).await;
        dies.abort();
        let _ = dies.await;
        if is_locked_for_long {
            until("it ends in the server", async || waiting().await == 0).await;
        }
        own.batch_execute("COMMIT").await.unwrap();
        until("it has ended", async || waiting().await == 0).await;
        // It waits for its turn with what the statement before may have written.
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%\"' || $1 || '\"%'";
        let gone = async || look.query_one(gone, &[&home.schema]).await.unwrap().get::<_, i64>(0) == 0;
        until("its connection has ended", gone).await;
        let untouched = entry(outbox, call(1).key()).await;
        assert_eq!((untouched.state, untouched.tries), (State::Waiting, 0), "locked for long: {is_locked_for_long}");
    }
    assert!(log.all().is_empty());
    run_until(relay(outbox, &client), outbox, call(1).key(), State::Delivered).await;
}
