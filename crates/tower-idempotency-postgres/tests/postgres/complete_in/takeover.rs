//! Transactions that come too late.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use testkit::Gate;
use tower_idempotency::OnInFlight;
use tower_idempotency_postgres::TransactionRecord;

use super::process::{CHARGE, Handler, Process, answer, charge, charges, handler, start};
use crate::lab::until;

/// A transaction that goes on though its handler is dropped, and whose record was prepared in time.
#[derive(Clone)]
struct Late {
    gate: Gate,
    /// The SQLSTATE with which it ended; "committed" if it was.
    end: Arc<Mutex<Option<String>>>,
}

impl Late {
    fn new() -> Self {
        Self { gate: Gate::default(), end: Arc::default() }
    }

    fn handler(&self) -> Handler {
        let late = self.clone();
        Arc::new(move |context, process: Process| {
            let late = late.clone();
            let going = tokio::spawn(async move {
                let (record, _committed) = process.store.record_for(&context, answer("late")).unwrap();
                let record = process.store.backend().query(&record).unwrap();
                let mut client = process.client.lock().await;
                let transaction = client.transaction().await.unwrap();
                transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
                late.gate.pass().await;
                let completed = transaction.execute(record.sql(), &[&record.bytes()]).await;
                // The server rolls back, whatever is sent.
                let committed = transaction.commit().await;
                let end = completed.and(committed.map(|()| 0));
                let code = end.err().map_or("committed".to_owned(), |error| error.code().unwrap().code().to_owned());
                *late.end.lock().unwrap() = Some(code);
            });
            Box::pin(async move {
                going.await.unwrap();
                Ok("over".to_owned())
            })
        })
    }

    /// Lets it go on, waits for its end, and returns it.
    async fn end(&self) -> String {
        self.gate.admit(1);
        until("the late transaction's end", async || self.end.lock().unwrap().is_some()).await;
        self.end.lock().unwrap().take().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_comes_after_a_takeover_fails_with_all_its_effects() {
    let Some((lab, slow)) = start("a transaction after a takeover").await else { return };
    let late = Late::new();
    let first = tokio::spawn({
        let (slow, waits) = (slow.clone(), late.handler());
        async move { slow.send("k", &waits).await }
    });
    until("the run", async || slow.runs() == 1).await;
    // Its process is taken for dead, as one whose lease is over.
    lab.sql(
        "UPDATE idempotency.record SET kind = 5, token = gen_random_uuid(), until = clock_timestamp() - interval '1 hour' WHERE namespace = '$' \
             AND id = (SELECT session FROM idempotency.record WHERE namespace = '$' AND kind = 1)",
    )
    .await;
    // The other process's run waits before its charge.
    let (other, gate) = (Process::new(&lab).await, Gate::default());
    let waits: Handler = Arc::new({
        let gate = gate.clone();
        move |context, process| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.pass().await;
                charge(context, process).await
            })
        }
    });
    let second = tokio::spawn({
        let (other, layer) = (other.clone(), other.layer().on_in_flight(OnInFlight::Reject));
        async move {
            loop {
                let (status, body, _) = other.send_by(layer.clone(), "k", &waits).await;
                if status == StatusCode::OK {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    until("a takeover", async || other.runs() == 1).await;
    assert_eq!(late.end().await, TransactionRecord::SUPERSEDED);
    gate.admit(1);
    assert_eq!(second.await.unwrap(), "charged");
    let (status, body, _) = first.await.unwrap();
    assert_ne!(status, StatusCode::OK, "{body}");
    assert_eq!(charges(&lab, "k").await, 1);
    assert_eq!(other.send("k", &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_outlives_its_run_fails_with_all_its_effects() {
    let Some((lab, process)) = start("a transaction that outlives its run").await else { return };
    let late = Late::new();
    // The run ends by this while its transaction goes on.
    let hasty = process.layer().max_run(Duration::from_millis(500));
    let (status, body, _) = process.send_by(hasty, "k", &late.handler()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    // It did not take place, and never will.
    assert_eq!(late.end().await, TransactionRecord::SUPERSEDED);
    let other = Process::new(&lab).await;
    assert_eq!(other.send("k", &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), false));
    assert_eq!(charges(&lab, "k").await, 1);
}
