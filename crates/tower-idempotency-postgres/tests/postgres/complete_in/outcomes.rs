//! The answers that clients get.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::StatusCode;
use tower_idempotency::OnInterrupted;
use tower_idempotency::store::CommitError;
use tower_idempotency_postgres::tokio_postgres::IsolationLevel;

use super::process::{CHARGE, Handler, Process, answer, charge, charges, handler, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_answer_is_the_first_one_and_that_of_every_retry_wherever_it_goes() {
    let Some((lab, one)) = start("effect and record in one transaction").await else { return };
    let other = Process::new(&lab).await;
    let handler = handler(charge);
    let all = join_all((0..6).map(|number| {
        let (process, handler) = (if number % 2 == 0 { one.clone() } else { other.clone() }, Arc::clone(&handler));
        async move { process.send("k", &handler).await }
    }));
    for (status, body, _) in all.await {
        assert_eq!((status, body.as_str()), (StatusCode::OK, "charged"));
    }
    assert_eq!(other.send("k", &handler).await, (StatusCode::OK, "charged".to_owned(), true));
    assert_eq!((one.runs() + other.runs(), charges(&lab, "k").await), (1, 1));
}

// A seeded fault: the record keeps the bound of its run, and expires then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_record_is_kept_for_the_retention_and_not_for_the_bound_of_its_run() {
    let Some((lab, process)) = start("how long a record in a transaction is kept").await else { return };
    assert_eq!(process.send("k", &handler(charge)).await.0, StatusCode::OK);
    let sql = "SELECT session IS NULL AND until IS NULL AND expires - since = interval '24 hours' \
               FROM idempotency.record WHERE namespace = $1 AND kind = 3";
    assert!(lab.client.query_one(sql, &[&lab.namespace]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_did_not_take_place_and_a_retry_runs() {
    let Some((lab, process)) = start("a transaction that is not committed").await else { return };
    let forgets = handler(|context, process| async move {
        let mut client = process.client.lock().await;
        let transaction = client.transaction().await.unwrap();
        transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
        let _ = process.store.complete_in(&context, &transaction, answer("charged")).await.unwrap();
        Ok("as if it had committed".to_owned())
    });
    let (status, body, _) = process.send("k", &forgets).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("was not committed"), "{body}");
    assert_eq!(charges(&lab, "k").await, 0);
    // Elsewhere, too.
    let other = Process::new(&lab).await;
    assert_eq!(other.send("k", &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), false));
    assert_eq!(charges(&lab, "k").await, 1);
    // The run may have done something else.
    let refusing = process.layer().on_interrupted(OnInterrupted::Refuse);
    let (status, body, _) = process.send_by(refusing.clone(), "other", &forgets).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
    let (status, body, _) = process.send_by(refusing, "other", &forgets).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_transaction_failed_may_commit_another_one() {
    let Some((lab, process)) = start("a second transaction").await else { return };
    let third = Arc::new(Mutex::new(None));
    let twice: Handler = Arc::new({
        let third = Arc::clone(&third);
        move |context, process| {
            let third = Arc::clone(&third);
            Box::pin(async move {
                let mut client = process.client.lock().await;
                for (level, attempt) in
                    [(IsolationLevel::Serializable, "first"), (IsolationLevel::RepeatableRead, "second")]
                {
                    let transaction = client.build_transaction().isolation_level(level).start().await.unwrap();
                    transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
                    let _ = process.store.complete_in(&context, &transaction, answer(attempt)).await.unwrap();
                    if attempt == "second" {
                        transaction.commit().await.unwrap();
                    }
                }
                // It is committed: a third one fails.
                let transaction = client.transaction().await.unwrap();
                transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
                let refused = process.store.complete_in(&context, &transaction, answer("third")).await;
                *third.lock().unwrap() = Some(refused);
                // The server rolls back, whatever is sent.
                let _ = transaction.commit().await;
                Ok(String::new())
            })
        }
    });
    assert_eq!(process.send("k", &twice).await, (StatusCode::OK, "second".to_owned(), false));
    let third = third.lock().unwrap().take().unwrap();
    assert!(matches!(third, Err(CommitError::Superseded)), "{third:?}");
    assert_eq!(charges(&lab, "k").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_would_be_answered_before_it_is_durable_becomes_one_that_is_not() {
    let Some((_lab, process)) = start("synchronous_commit").await else { return };
    let looks = handler(|context, process| async move {
        let mut client = process.client.lock().await;
        client.batch_execute("SET synchronous_commit = off").await.unwrap();
        let transaction = client.transaction().await.unwrap();
        let _ = process.store.complete_in(&context, &transaction, answer("charged")).await.unwrap();
        let row = transaction.query_one("SHOW synchronous_commit", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "on");
        transaction.commit().await.unwrap();
        Ok(String::new())
    });
    assert_eq!(process.send("k", &looks).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_completed_is_refused_and_the_handler_s_answer_counts() {
    let Some((lab, process)) = start("runs that can't be completed").await else { return };
    // Another store.
    let other = Process::new(&lab).await;
    let foreign: Handler = Arc::new(move |context, _| {
        let store = other.store.clone();
        Box::pin(async move { Ok(format!("{:?}", store.record_for(&context, answer("no")).unwrap_err())) })
    });
    assert_eq!(process.send("foreign", &foreign).await, (StatusCode::OK, "Foreign".to_owned(), false));
    // An answer that is too long.
    let long = handler(|context, process| async move {
        let error = process.store.record_for(&context, answer(&"x".repeat(100))).unwrap_err();
        Ok(error.to_string())
    });
    let (status, body, _) = process.send_by(process.layer().max_response_body(99), "long", &long).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("max_response_body"), "{body}");
    // A run that is over.
    let kept = Arc::new(Mutex::new(None));
    let keeps: Handler = Arc::new({
        let kept = Arc::clone(&kept);
        move |context, _| {
            *kept.lock().unwrap() = Some(context);
            Box::pin(async { Ok("done".to_owned()) })
        }
    });
    assert_eq!(process.send("over", &keeps).await.1, "done");
    let context = kept.lock().unwrap().take().unwrap();
    assert!(matches!(process.store.record_for(&context, answer("no")), Err(CommitError::Over)));
}
