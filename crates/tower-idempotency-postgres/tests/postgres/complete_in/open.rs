//! Transactions that are still open, or being committed, when their run is over.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use testkit::Gate;
use tower_idempotency::{IdempotencyContext, OnInFlight};

use super::process::{CHARGE, Handler, Process, TABLE, answer, charges, handler, start};
use crate::lab::{Lab, ask_for_a_standby, ask_for_no_standby, client, own_server, until};

/// Charges and completes, in a transaction that is left open.
async fn leave_open(context: &IdempotencyContext, process: &Process) {
    let client = process.client.lock().await;
    client.batch_execute("BEGIN").await.unwrap();
    client.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
    let (record, _committed) = process.store.record_for(context, answer("charged")).unwrap();
    let record = process.store.backend().query(&record).unwrap();
    client.execute(record.sql(), &[&record.bytes()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_answered_while_the_transaction_is_open() {
    let Some((lab, process)) = start("a transaction that is left open").await else { return };
    let other = Process::new(&lab).await;
    let opens = handler(|context, process| async move {
        leave_open(&context, &process).await;
        Ok("left open".to_owned())
    });
    let process_id =
        process.client.lock().await.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    for (key, end, expected) in [("commits", "COMMIT", 200), ("rolls-back", "ROLLBACK", 503)] {
        let runs = process.runs();
        let sent = tokio::spawn({
            let (process, opens) = (process.clone(), Arc::clone(&opens));
            async move { process.send(key, &opens).await }
        });
        until("the run", async || process.runs() > runs).await;
        let open = "SELECT count(*) > 0 FROM pg_stat_activity \
            WHERE pid = $1 AND state = 'idle in transaction' AND query LIKE '%record_run%'";
        until("the record", async || lab.client.query_one(open, &[&process_id]).await.unwrap().get(0)).await;
        // The row is locked, and a duplicate does not wait for the lock.
        let layer = other.layer().on_in_flight(OnInFlight::Reject);
        let (status, body, _) = other.send_by(layer, key, &opens).await;
        assert_eq!(status, StatusCode::CONFLICT, "{body}");
        assert!(body.contains("in-flight"), "{body}");
        assert!(!sent.is_finished(), "its end is not known yet");
        process.client.lock().await.batch_execute(end).await.unwrap();
        let (status, body, _) = sent.await.unwrap();
        assert_eq!(status.as_u16(), expected, "{body}");
        assert_eq!(charges(&lab, key).await, i64::from(expected == 200));
        assert_eq!(other.runs(), 0);
    }
}

// It stays open for longer than the store waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_leaves_its_client_in_doubt_until_it_ends() {
    let Some((lab, process)) = start("a transaction that stays open").await else { return };
    let opens = handler(|context, process| async move {
        leave_open(&context, &process).await;
        Ok("left open".to_owned())
    });
    for _ in 0..2 {
        // No retry gets another answer, and none runs.
        let (status, body, _) = process.send("k", &opens).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(body.contains("outcome-unknown"), "{body}");
    }
    assert_eq!(process.runs(), 1);
    process.client.lock().await.batch_execute("COMMIT").await.unwrap();
    until("the answer", async || process.send("k", &opens).await.0 == StatusCode::OK).await;
    let (_, body, replayed) = process.send("k", &opens).await;
    assert_eq!((body.as_str(), replayed, process.runs(), charges(&lab, "k").await), ("charged", true, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_for_its_standby_is_waited_for() {
    let Some(server) = own_server("a commit that waits for its standby", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    let process = Process::new(&lab).await;
    let gate = Gate::default();
    let gives_up: Handler = Arc::new({
        let gate = gate.clone();
        move |context, process: Process| {
            let gate = gate.clone();
            Box::pin(async move {
                leave_open(&context, &process).await;
                gate.pass().await;
                // It is committed, and not answered; the handler does not wait for it.
                let client = process.client.lock().await;
                let given_up = tokio::time::timeout(Duration::from_millis(300), client.batch_execute("COMMIT")).await;
                assert!(given_up.is_err(), "it waits for a standby");
                Ok("gave up".to_owned())
            })
        }
    });
    let sent = tokio::spawn({
        let (process, gives_up) = (process.clone(), Arc::clone(&gives_up));
        async move { process.send("k", &gives_up).await }
    });
    until("the run", async || process.runs() == 1).await;
    // The claim is there; the commit is not.
    ask_for_a_standby(&lab.client, &lab.url).await;
    gate.admit(1);
    let watch = client(&lab.url).await;
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    until("the commit", async || watch.query_one(waiting, &[]).await.unwrap().get(0)).await;
    until("the handler's end", async || process.client.try_lock().is_ok()).await;
    assert_eq!(charges(&lab, "k").await, 0, "the charge is not visible yet");
    ask_for_no_standby(&lab.client).await;
    let (status, body, _) = sent.await.unwrap();
    if status != StatusCode::OK {
        // It took so long that the client got `outcome-unknown`. A retry gets the answer.
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        until("the answer", async || process.send("k", &gives_up).await.0 == StatusCode::OK).await;
    }
    let (status, body, _) = process.send("k", &gives_up).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "charged"));
    assert_eq!((charges(&lab, "k").await, process.runs()), (1, 1));
}
