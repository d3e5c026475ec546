//! A clock that jumps costs nothing: no call is given up, and none is deleted, because one clock says so. Here are the
//! clocks of a database and its relays; `clocks_of_files.rs` has those of an outbox in files.

use std::time::Duration;

use testkit::postgres::PostgresServer;
use testkit::process::until;
use testkit::skipped;
use tower_idempotency_outbox::{Action, Outbox, PostgresOutbox, Relay, State};

use crate::home::{Home, PostgresHome, call};
use crate::server::{Client, Log, Reply, entry, relay, run_until, server as answers, server_of};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// A database with a clock of its own.
async fn with_a_clock(promise: &str) -> Option<(PostgresServer, PostgresHome)> {
    match PostgresServer::with_a_clock(&[]) {
        Ok(server) => {
            let home = PostgresHome::of(&server).await;
            Some((server, home))
        }
        Err(obstacle) => {
            skipped(promise, &obstacle);
            None
        }
    }
}

/// A server that loses each request until it is well.
fn unwell() -> (Client, Log) {
    answers(|_, _| async { Err("the connection broke".into()) })
}

/// Lets a relay look at the outbox, and note the time.
async fn run_once(outbox: &impl Outbox) {
    relay(outbox, &unwell().0).run(std::future::ready(())).await;
}

/// Lets calls be tried, and lost.
pub(crate) async fn lose(outbox: &impl Outbox, numbers: std::ops::Range<u32>) {
    let (lost, log) = unwell();
    let all =
        async || log.all().iter().map(|got| &got.key).collect::<std::collections::BTreeSet<_>>().len() == numbers.len();
    relay(outbox, &lost).run(until("each is tried", all)).await;
}

pub(crate) async fn all_delivered(
    outbox: &impl Outbox,
    numbers: std::ops::Range<u32>,
    relay: Relay<impl Outbox, Client>,
) {
    let all = async || {
        for number in numbers.clone() {
            if entry(outbox, call(number).key()).await.state != State::Delivered {
                return false;
            }
        }
        true
    };
    relay.run(until("all are delivered", all)).await;
}

/// Moves each first try so far back, by all clocks.
fn first_tried_earlier(time: &str) -> String {
    format!(
        "UPDATE outbox.call SET first_try = first_try - interval '{time}', first_wall = first_wall - interval '{time}', \
            first_seen = first_seen - interval '{time}', \
            first_elapsed = first_elapsed - extract(epoch FROM interval '{time}')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_clock_jumps_either_way_gives_no_call_up_and_holds_none_back() {
    let Some((server, home)) = with_a_clock("a database whose clock jumps").await else { return };
    let outbox = home.outbox();
    let (well, _) = server_of(200, &[], "");
    let mut next = 0;
    for jump in [-120, 14 * HOUR, -14 * HOUR, 40 * DAY, -40 * DAY] {
        // Tried before the jump and after it, tried during it and after it, and put in during it.
        for tried_first_at in [0, jump] {
            let numbers = next..next + 5;
            next += 5;
            for number in numbers.clone() {
                let call = call(number);
                // Some have an order.
                let call = if number % 5 < 2 { call.in_order_of(format!("{jump}")).unwrap() } else { call };
                outbox.put(&call).await.unwrap();
            }
            server.set_clock(tried_first_at);
            lose(outbox, numbers.start + 1..numbers.end).await;
            server.set_clock(if tried_first_at == 0 { jump } else { 0 });
            all_delivered(outbox, numbers.clone(), relay(outbox, &well)).await;
            server.set_clock(0);
        }
        server.set_clock(jump);
        outbox.put(&call(next)).await.unwrap();
        server.set_clock(0);
        all_delivered(outbox, next..next + 1, relay(outbox, &well)).await;
        next += 1;
    }
    assert!(outbox.list(State::GivenUp, None, 9).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_ahead_deletes_nothing_before_its_time() {
    let Some((server, home)) = with_a_clock("a database that is ahead").await else { return };
    let outbox = home.outbox();
    let (well, log) = server_of(200, &[], "");
    outbox.put(&call(1)).await.unwrap();
    all_delivered(outbox, 1..2, relay(outbox, &well)).await;
    server.set_clock(8 * DAY);
    // It sweeps when it begins, before it takes the next call.
    outbox.put(&call(2)).await.unwrap();
    all_delivered(outbox, 2..3, relay(outbox, &well)).await;
    all_delivered(outbox, 1..2, relay(outbox, &well)).await;
    // Put in again, it is not sent again.
    outbox.put(&call(1)).await.unwrap();
    assert_eq!(entry(outbox, call(1).key()).await.state, State::Delivered);
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_starts_while_the_database_is_wrong_decides_by_no_clock_alone() {
    let Some((server, home)) = with_a_clock("a relay that starts while the database is wrong").await else { return };
    let (lost, log) = unwell();
    home.outbox().put(&call(1)).await.unwrap();
    relay(home.outbox(), &lost).run(until("a try", async || !log.all().is_empty())).await;
    let before = entry(home.outbox(), call(1).key()).await;
    server.set_clock(14 * HOUR);
    // Another process: it has no time of its own, so that it can't know which of the two clocks is right.
    let other = PostgresHome::again(&home);
    let (well, sent) = server_of(200, &[], "");
    let held = async || entry(other.outbox(), call(1).key()).await.reason.is_some_and(|why| why.starts_with("held"));
    relay(other.outbox(), &well).run(until("it is held", held)).await;
    let waiting = entry(other.outbox(), call(1).key()).await;
    assert_eq!((waiting.state, waiting.may_have_taken_place, sent.all().len()), (State::Waiting, true, 0));
    // It was no try, and what the try before has met is still there.
    assert_eq!(waiting.tries, before.tries);
    assert!(waiting.reason.as_ref().unwrap().contains("the connection broke"), "{waiting:?}");
    // Now it is right.
    server.set_clock(0);
    home.sql("UPDATE outbox.call SET due = 'epoch'").await;
    run_until(relay(other.outbox(), &well), other.outbox(), call(1).key(), State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_notes_while_it_can_t_know_the_time_is_neither_over_early_nor_sent_late() {
    // With relays elsewhere that have seen the time go by, and without.
    for (jump, is_seen) in [40 * HOUR, -14 * HOUR, 40 * DAY, -40 * DAY].map(|jump| (jump, jump < 0)) {
        let Some((server, home)) = with_a_clock("a process that starts while a clock is wrong").await else { return };
        server.set_clock(jump);
        let fresh = PostgresHome::again(&home);
        let (well, log) = server_of(200, &[], "");
        fresh.outbox().put(&call(1)).await.unwrap();
        all_delivered(fresh.outbox(), 1..2, relay(fresh.outbox(), &well)).await;
        // No lease was over at once.
        assert_eq!((entry(fresh.outbox(), call(1).key()).await.tries, log.all().len()), (1, 1), "{jump}");
        for number in 2..4 {
            fresh.outbox().put(&call(number)).await.unwrap();
        }
        lose(fresh.outbox(), 2..4).await;
        server.set_clock(0);
        let of = |number: u32| format!("WHERE key = '{}'", call(number).key().as_str());
        home.sql(&format!("UPDATE outbox.call SET due = 'epoch' {}", of(2))).await;
        home.sql(&format!("UPDATE outbox.call SET due = now() + interval '1 hour' {}", of(3))).await;
        if is_seen {
            home.sql("UPDATE outbox.clock SET time = now()").await;
        }
        // What was delivered stays, and what was tried is sent or held, however the clock was.
        let other = PostgresHome::again(&home);
        let is_held = async |number| {
            let entry = entry(other.outbox(), call(number).key()).await;
            entry.state == State::Waiting && entry.reason.is_some_and(|why| why.starts_with("held"))
        };
        let state = async |number| entry(other.outbox(), call(number).key()).await.state;
        let settled = async || is_held(2).await || matches!(state(2).await, State::Delivered | State::GivenUp);
        relay(other.outbox(), &well).run(until("it is sent or held", settled)).await;
        assert_ne!(state(2).await, State::GivenUp, "{jump}");
        assert_eq!(state(1).await, State::Delivered, "{jump}");
        // 30 hours later, the server may have forgotten the key.
        let later = first_tried_earlier("30 hours");
        home.sql(&format!("UPDATE outbox.call SET due = 'epoch' {}", of(3))).await;
        home.sql(&format!("{later} {}", of(3))).await;
        let over = async || is_held(3).await || state(3).await == State::GivenUp;
        relay(other.outbox(), &well).run(until("it is held, or given up", over)).await;
        assert!(!log.bodies().contains(&"charge 3".to_owned()), "{jump}");
    }
}

// Seeded fault: the database's time of the first try was compared with the wall clock's time of the second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_always_differ_hold_no_call_back() {
    for (jump, is_seen) in [3 * DAY, -3 * DAY, 8 * HOUR].into_iter().flat_map(|jump| [(jump, false), (jump, true)]) {
        let Some((server, home)) = with_a_clock("clocks that always differ").await else { return };
        if is_seen {
            // A relay whose clocks agree was there before.
            run_once(home.outbox()).await;
        }
        server.set_clock(jump);
        let (one, other) = (PostgresHome::again(&home), PostgresHome::again(&home));
        let (well, log) = server_of(200, &[], "");
        for number in 1..3 {
            one.outbox().put(&call(number)).await.unwrap();
        }
        lose(one.outbox(), 1..3).await;
        // By the same process, and by another one, which has another time of its own.
        home.sql(&format!(
            "UPDATE outbox.call SET due = due + interval '1 day' WHERE key = '{}'",
            call(2).key().as_str()
        ))
        .await;
        let give_up_after = Duration::from_secs(60 * 60);
        all_delivered(one.outbox(), 1..2, relay(one.outbox(), &well).give_up_after(give_up_after)).await;
        home.sql(&format!("UPDATE outbox.call SET due = 'epoch' WHERE key = '{}'", call(2).key().as_str())).await;
        all_delivered(other.outbox(), 2..3, relay(other.outbox(), &well).give_up_after(give_up_after)).await;
        assert_eq!(log.bodies(), ["charge 1", "charge 2"], "{jump}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_try_was_not_before_the_time_that_relays_had_seen() {
    let Some((server, home)) = with_a_clock("a first try while the database is behind").await else { return };
    run_once(home.outbox()).await;
    server.set_clock(-DAY);
    let fresh = PostgresHome::again(&home);
    fresh.outbox().put(&call(1)).await.unwrap();
    lose(fresh.outbox(), 1..2).await;
    server.set_clock(0);
    home.sql("UPDATE outbox.call SET due = 'epoch'").await;
    let other = PostgresHome::again(&home);
    let (well, _) = server_of(200, &[], "");
    all_delivered(other.outbox(), 1..2, relay(other.outbox(), &well)).await;
}

// Seeded fault: the lease of a relay whose wall clock was behind was over for all others when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_clock_is_behind_has_leases_that_last() {
    for behind in [120, HOUR, DAY] {
        let Some((server, home)) = with_a_clock("a relay whose clock is behind").await else { return };
        server.set_clock(behind);
        let fresh = PostgresHome::again(&home);
        fresh.outbox().put(&call(1)).await.unwrap();
        let (stuck, log) = answers(|_, _| std::future::pending::<Reply>());
        let run = tokio::spawn(relay(fresh.outbox(), &stuck).run(std::future::pending()));
        until("it is sent", async || !log.all().is_empty()).await;
        // By the database, which other relays agree with.
        let lasts = "SELECT due - statement_timestamp() > interval '1 minute' FROM SCHEMA.call";
        let row = home.another_client().await.query_one(&lasts.replace("SCHEMA", &home.schema), &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{behind}");
        run.abort();
    }
}

// Seeded fault: each relay wrote the end of a lease by a clock of its own, which could be over for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lasts_for_all_relays_and_has_an_end_however_the_database_s_clock_jumps() {
    for jump in [-5 * 60, 5 * 60, -14 * HOUR, 14 * HOUR, -40 * DAY, 40 * DAY] {
        let Some((server, home)) = with_a_clock("a lease while the database's clock jumps").await else { return };
        run_once(home.outbox()).await;
        let (stuck, log) = answers(|_, _| std::future::pending::<Reply>());
        let hang = async |outbox: &PostgresOutbox, number: usize| {
            outbox.put(&call(number as u32)).await.unwrap();
            let run = tokio::spawn(relay(outbox, &stuck).run(std::future::pending())).abort_handle();
            until("it is sent", async || log.bodies().contains(&format!("charge {number}"))).await;
            run
        };
        let mut runs = vec![hang(home.outbox(), 1).await];
        // For five minutes, no relay has noted the time.
        home.sql("UPDATE outbox.clock SET time = time - interval '5 minutes'").await;
        server.set_clock(jump);
        let other = PostgresHome::again(&home);
        runs.push(hang(other.outbox(), 2).await);
        runs.push(hang(home.outbox(), 3).await);
        for jump in [jump, 0] {
            server.set_clock(jump);
            for outbox in [home.outbox(), other.outbox(), PostgresHome::again(&home).outbox()] {
                run_once(outbox).await;
            }
            // None was lost by those, and none lasts for longer than a lease from now.
            let over = "SELECT count(*) FROM SCHEMA.call WHERE state = 'sending' AND tries = 1
                AND due < clock_timestamp() + interval '91 seconds'";
            let row = home.another_client().await.query_one(&over.replace("SCHEMA", &home.schema), &[]).await.unwrap();
            assert_eq!(
                (row.get::<_, i64>(0), log.bodies()),
                (3, ["charge 1", "charge 2", "charge 3"].map(String::from).to_vec()),
                "{jump}"
            );
        }
        for run in runs {
            run.abort();
        }
        // By each relay, a lease is over in the end.
        let earlier = |column| format!("{column} = {column} - interval '91 seconds'");
        let earlier = ["leased", "leased_wall", "due"].map(earlier).join(", ");
        home.sql(&format!("UPDATE outbox.call SET {earlier}")).await;
        let (well, _) = server_of(200, &[], "");
        all_delivered(other.outbox(), 1..4, relay(other.outbox(), &well)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_put_in_while_the_database_is_ahead_is_sent_at_once() {
    let Some((server, home)) = with_a_clock("a call put in while the database is ahead").await else { return };
    run_once(home.outbox()).await;
    server.set_clock(2 * DAY);
    for number in 1..3 {
        // Without an order, and with one.
        let call = if number == 1 { call(number) } else { call(number).in_order_of("customer").unwrap() };
        home.outbox().put(&call).await.unwrap();
    }
    // It looks for calls once, before it mends their times.
    let (well, log) = server_of(200, &[], "");
    relay(home.outbox(), &well).run(std::future::ready(())).await;
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_put_in_while_the_database_was_ahead_is_sent_once_it_is_right() {
    let Some(home) = PostgresHome::new("a call put in while the database was ahead").await else { return };
    let outbox = home.outbox();
    for number in 1..3 {
        outbox.put(&call(number)).await.unwrap();
    }
    // One was tried, and waits: its time stays.
    home.set(&entry(outbox, call(1).key()).await, State::Waiting, HOUR).await;
    home.sql("UPDATE outbox.call SET due = now() + interval '1 hour'").await;
    let (well, log) = server_of(200, &[], "");
    all_delivered(outbox, 2..3, relay(outbox, &well)).await;
    assert_eq!(log.bodies(), ["charge 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_two_clocks_are_ahead_together_deletes_nothing_early() {
    let Some((_server, home)) = with_a_clock("a machine whose clocks are ahead together").await else { return };
    let (well, _) = server_of(200, &[], "");
    home.outbox().put(&call(1)).await.unwrap();
    all_delivered(home.outbox(), 1..2, relay(home.outbox(), &well)).await;
    // To a process that begins eight days ahead, all that was written lies so much farther back.
    home.sql(
        "UPDATE outbox.call SET ended = ended - interval '8 days'; \
        UPDATE outbox.clock SET time = time - interval '8 days'",
    )
    .await;
    let other = PostgresHome::again(&home);
    other.outbox().put(&call(2)).await.unwrap();
    all_delivered(other.outbox(), 2..3, relay(other.outbox(), &well)).await;
    assert_eq!(entry(other.outbox(), call(1).key()).await.state, State::Delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_is_over_by_each_clock_is_over() {
    for ahead in [-120, 120] {
        let Some((server, home)) = with_a_clock("a time that is over by each clock").await else { return };
        let outbox = home.outbox();
        outbox.put(&call(1)).await.unwrap();
        lose(outbox, 1..2).await;
        home.sql(&first_tried_earlier("13 hours")).await;
        server.set_clock(ahead);
        let (well, log) = server_of(200, &[], "");
        let given_up = run_until(relay(outbox, &well), outbox, call(1).key(), State::GivenUp).await;
        assert!(log.all().is_empty());
        // After a retry, it is over by no clock.
        assert!(outbox.by("alice").apply(&given_up, Action::Retry).await.unwrap());
        lose(outbox, 1..2).await;
        run_until(relay(outbox, &well), outbox, call(1).key(), State::Delivered).await;
    }
}
