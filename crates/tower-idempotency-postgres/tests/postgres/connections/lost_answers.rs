//! Answers that don't come: it is unknown whether the write was done, until it is sent again.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tower_idempotency_shared::{Backend as _, BackendError, Clocks};

use crate::lab::{
    Lab, ask_for_a_standby, ask_for_no_standby, builder, claim, complete, id, is_done, lab, own_server, put, until,
    until_waiting,
};

#[tokio::test]
async fn a_put_whose_server_is_killed_is_uncertain_and_may_be_sent_again() {
    let Some(mut server) = own_server("a put whose server is killed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let before = lab.put(claim(id(1))).await.unwrap();
    let first = lab.backend.get(Clocks::default(), &[]).await.unwrap().server;
    // It takes its time.
    lab.sql(&format!(
        "CREATE FUNCTION idempotency.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN NEW; END'; \
         CREATE TRIGGER slow BEFORE INSERT ON idempotency.record FOR EACH ROW WHEN (NEW.id = '\\x{}') \
         EXECUTE FUNCTION idempotency.slow()",
        id(2)
    ))
    .await;
    let watch = crate::lab::client(&lab.url).await;
    let write = claim(id(2));
    let (answer, ()) = tokio::join!(lab.backend.put(Clocks::default(), std::slice::from_ref(&write)), async {
        until_waiting(&watch, "PgSleep").await;
        server.kill();
    });
    assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    // Now it is away.
    let away = lab.backend.get(Clocks::default(), &[id(1)]).await.unwrap_err();
    assert!(matches!(away, BackendError::Nothing(_)), "{away:?}");
    server.start_again();
    let watch = crate::lab::client(&lab.url).await;
    watch.batch_execute("DROP TRIGGER slow ON idempotency.record").await.unwrap();
    let answer = lab.backend.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap();
    assert!(is_done(answer.rows[0].as_ref(), &write));
    assert_ne!(answer.server, first, "it was started again");
    assert_eq!(lab.get(id(1)).await.unwrap(), before, "what was answered is there");
}

#[tokio::test]
async fn trap_98_a_commit_that_was_not_answered_is_found_by_sending_it_again() {
    let Some(mut server) = own_server("a commit that is not answered", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    ask_for_a_standby(&lab.client, &lab.url).await;
    let write = claim(id(1));
    let (answer, ()) = tokio::join!(lab.backend.put(Clocks::default(), std::slice::from_ref(&write)), async {
        until_waiting(&lab.client, "SyncRep").await;
        assert_eq!(lab.get(id(1)).await, None, "a write without an answer is not visible");
        server.kill();
    });
    assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    server.start_again();
    // A connection that was idle meanwhile may only now be found to have ended.
    until("an answer of the new server", async || lab.backend.get(Clocks::default(), &[]).await.is_ok()).await;
    // It is there now, although it was never answered, and the standby was never waited for.
    let found = lab.get(id(1)).await.unwrap();
    assert_eq!(found.token, write.token);
    let client = crate::lab::client(&lab.url).await;
    let (answer, ()) = tokio::join!(lab.backend.put(Clocks::default(), std::slice::from_ref(&write)), async {
        // The second send is a write, and waits as the first did. Once cancelled, the wait ends, and the server reports
        // the write as done.
        until_waiting(&client, "SyncRep").await;
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        client.batch_execute(cancel).await.unwrap();
    });
    assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    ask_for_no_standby(&client).await;
    let row = lab.put(write).await.unwrap();
    assert_eq!((row.token, row.fence, row.began), (found.token, found.fence, found.began));
}

/// The server's other processes end with it, and it recovers: writes without an answer are visible then.
#[tokio::test]
async fn a_server_that_has_lost_one_of_its_processes_is_another_one() {
    let Some(server) = own_server("a server that loses a process", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let before = lab.backend.get(Clocks::default(), &[]).await.unwrap().server;
    assert_eq!(lab.backend.put(Clocks::default(), &[claim(id(7))]).await.unwrap().server, before);
    assert_eq!(lab.backend.put(Clocks::default(), &[claim(id(8)), claim(id(9))]).await.unwrap().server, before);
    assert_eq!(lab.backend.list(Clocks::default(), &[], None, 1).await.unwrap().server, before);
    ask_for_a_standby(&lab.client, &lab.url).await;
    let mut seen = vec![before];
    for number in 1..3 {
        let write = claim(id(number));
        let client = crate::lab::client(&lab.url).await;
        let (answer, ()) = tokio::join!(lab.backend.put(Clocks::default(), std::slice::from_ref(&write)), async {
            until_waiting(&client, "SyncRep").await;
            let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            let process: i32 = client.query_one(waiting, &[]).await.unwrap().get(0);
            let killed = std::process::Command::new("kill").args(["-s", "KILL", &process.to_string()]).status();
            assert!(killed.unwrap().success());
        });
        assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
        // The server still answers until it has learned of the end, and doesn't answer until it has recovered.
        let mut shown = None;
        until("the write is visible", async || {
            shown =
                lab.backend.get(Clocks::default(), &[id(number)]).await.ok().filter(|answer| answer.rows[0].is_some());
            shown.is_some()
        })
        .await;
        let answer = shown.unwrap();
        assert_eq!(answer.rows[0].as_ref().unwrap().token, write.token, "no standby has it");
        assert!(!seen.contains(&answer.server), "what it shows has to be found durable anew");
        assert_eq!(lab.backend.get(Clocks::default(), &[]).await.unwrap().server, answer.server);
        seen.push(answer.server);
    }
}

#[tokio::test]
async fn nobody_waits_for_the_answer_of_a_call_that_was_dropped() {
    let Some(server) = own_server("calls that are dropped", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let one = builder(&lab.url, &lab.namespace).connections(1).open().await.unwrap();
    ask_for_a_standby(&lab.client, &lab.url).await;
    // Its answer never comes.
    let write = claim(id(1));
    {
        let put = pin!(one.put(Clocks::default(), std::slice::from_ref(&write)));
        let waiting = pin!(until_waiting(&lab.client, "SyncRep"));
        assert!(matches!(select(put, waiting).await, Either::Right(_)), "it is not answered");
    }
    let next = tokio::time::timeout(Duration::from_secs(60), one.get(Clocks::default(), &[id(2)])).await;
    assert_eq!(next.expect("it has a connection of its own").unwrap().rows, [None]);
    ask_for_no_standby(&lab.client).await;
    let row = put(&one, write.clone()).await;
    assert!(is_done(row.as_ref(), &write), "it is sent again");
}

// Seeded fault: a put takes its connection first, and keeps the last one from reads while it waits for its turn.
#[tokio::test]
async fn a_put_that_waits_for_its_turn_among_puts_holds_no_connection() {
    let Some(server) = own_server("puts that wait for their turn", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    // One of the two is for reads.
    let builder = builder(&lab.url, &lab.namespace).wait_for_connection(Duration::from_secs(60));
    let backend = builder.connections(2).open().await.unwrap();
    ask_for_a_standby(&lab.client, &lab.url).await;
    let writes = [claim(id(1)), claim(id(2))];
    let mut puts =
        pin!(join_all(writes.iter().map(|write| backend.put(Clocks::default(), std::slice::from_ref(write)))));
    let waiting = pin!(until_waiting(&lab.client, "SyncRep"));
    assert!(matches!(select(puts.as_mut(), waiting).await, Either::Right(_)), "neither is answered");
    assert_eq!(backend.gauges().connections, Some(1), "the other one waits without a connection");
    ask_for_no_standby(&lab.client).await;
    assert!(puts.await.into_iter().all(|put| put.is_ok()));
}

// A seeded fault: the place of a call that was dropped is free at once.
#[tokio::test]
async fn calls_that_nobody_waits_for_any_more_hold_a_bounded_number_of_connections() {
    let Some(server) = own_server("calls that are dropped while a standby is lost", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let builder = builder(&lab.url, &lab.namespace).wait_for_connection(Duration::from_secs(3));
    let backend = builder.connections(2).open().await.unwrap();
    ask_for_a_standby(&lab.client, &lab.url).await;
    let waiting = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        lab.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    let mut most = 0;
    let mut answer = Ok(());
    for number in 0..100 {
        let write = claim(id(number));
        // Its answer never comes.
        let put =
            tokio::time::timeout(Duration::from_secs(2), backend.put(Clocks::default(), std::slice::from_ref(&write)));
        answer = put.await.map_or(Ok(()), |answer| answer.map(drop));
        most = most.max(waiting().await);
        if answer.is_err() {
            break;
        }
    }
    assert!((1..=4).contains(&most), "{most}");
    assert!(matches!(answer, Err(BackendError::Crowded(_))), "{answer:?}");
    until("a connection for reading", async || backend.get(Clocks::default(), &[id(1)]).await.is_ok()).await;
    ask_for_no_standby(&lab.client).await;
    until("the end of their waiting", async || waiting().await == 0).await;
    until("an answer", async || backend.put(Clocks::default(), &[claim(id(10))]).await.is_ok()).await;
}

#[tokio::test]
async fn a_call_may_be_dropped_at_any_time() {
    let Some(lab) = lab("calls that are dropped at any time").await else { return };
    let row = lab.put(claim(id(1))).await.unwrap();
    for number in 2..40 {
        let write = claim(id(number));
        let put = lab.backend.put(Clocks::default(), std::slice::from_ref(&write));
        let _ = tokio::time::timeout(Duration::from_micros(50 * number), put).await;
        assert_eq!(lab.get(id(1)).await.as_ref(), Some(&row));
        assert!(is_done(lab.put(write.clone()).await.as_ref(), &write));
    }
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up_and_found_again() {
    let Some(server) = own_server("a server that is stopped", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let row = lab.put(claim(id(1))).await.unwrap();
    server.pause();
    let write = complete(id(1), row.token);
    let answer = tokio::time::timeout(
        Duration::from_millis(200),
        lab.backend.put(Clocks::default(), std::slice::from_ref(&write)),
    )
    .await;
    assert!(answer.is_err(), "the server does not answer");
    server.resume();
    // The row is busy while the server does the first write.
    until("the outcome", async || is_done(lab.put(write.clone()).await.as_ref(), &write)).await;
}
