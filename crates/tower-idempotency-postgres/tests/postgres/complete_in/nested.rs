//! Savepoints and blocks with an EXCEPTION clause: an effect before them would outlive a record within them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use testkit::Dice;
use tower_idempotency::store::CommitError;
use tower_idempotency_postgres::TransactionRecord;
use tower_idempotency_postgres::tokio_postgres::{Client, Error};

use super::process::{CHARGE, Handler, Process, TABLE, answer, charge, charges, handler};
use crate::lab::{Lab, own_server};

/// The statements of a transaction: `CHARGE` and `RECORD` are those of this handler.
type Statements = &'static [&'static str];

const ACCEPTED: [(&str, Statements); 15] = [
    ("alone", &["BEGIN", "CHARGE", "RECORD", "COMMIT"]),
    ("after a savepoint was released", &["BEGIN", "SAVEPOINT s", "CHARGE", "RELEASE s", "RECORD", "COMMIT"]),
    (
        "after a savepoint was rolled back and released",
        &["BEGIN", "CHARGE", "SAVEPOINT s", "CHARGE", "ROLLBACK TO s", "RELEASE s", "RECORD", "COMMIT"],
    ),
    ("before a savepoint", &["BEGIN", "CHARGE", "RECORD", "SAVEPOINT s", "RELEASE s", "COMMIT"]),
    ("in a block without EXCEPTION", &["BEGIN", "CHARGE", "DO $$ BEGIN PERFORM RECORD_CALL; END $$", "COMMIT"]),
    (
        "after a block with EXCEPTION",
        &["BEGIN", "DO $$ BEGIN CHARGE; EXCEPTION WHEN others THEN RAISE; END $$", "RECORD", "COMMIT"],
    ),
    ("repeatable read", &["BEGIN ISOLATION LEVEL REPEATABLE READ", "CHARGE", "RECORD", "COMMIT"]),
    ("serializable", &["BEGIN ISOLATION LEVEL SERIALIZABLE", "CHARGE", "RECORD", "COMMIT"]),
    ("in two phases", &["BEGIN", "CHARGE", "RECORD", "PREPARE TRANSACTION 'a'", "COMMIT PREPARED 'a'"]),
    (
        "after a commit in a procedure",
        &["DO $$ BEGIN PERFORM 1 FROM charge FOR UPDATE; COMMIT; CHARGE; PERFORM RECORD_CALL; COMMIT; END $$"],
    ),
    ("with its row locked", &["BEGIN", "LOCK_ROW", "CHARGE", "RECORD", "COMMIT"]),
    (
        "with its row locked before a savepoint",
        &["BEGIN", "LOCK_ROW", "SAVEPOINT s", "CHARGE", "RELEASE s", "RECORD", "COMMIT"],
    ),
    ("chained", &["BEGIN", "SELECT FROM charge FOR UPDATE", "COMMIT AND CHAIN", "CHARGE", "RECORD", "COMMIT"]),
    ("with a large answer", &["BEGIN", "CHARGE", "RECORD", "COMMIT"]),
    ("as one message", &["BEGIN; CHARGE; RECORD; COMMIT"]),
];

/// Transactions whose record is within a savepoint or a block, with the names that sqlx and diesel give.
const REFUSED: [(&str, Statements); 7] = [
    ("in a savepoint", &["BEGIN", "CHARGE", "SAVEPOINT s", "RECORD"]),
    ("in sqlx's nested transaction", &["BEGIN", "CHARGE", "SAVEPOINT _sqlx_savepoint_1", "RECORD"]),
    ("in diesel's nested transaction", &["BEGIN", "CHARGE", "SAVEPOINT diesel_savepoint_1", "RECORD"]),
    (
        "in a savepoint that was rolled back to",
        &["BEGIN", "CHARGE", "SAVEPOINT s", "CHARGE", "ROLLBACK TO SAVEPOINT s", "RECORD"],
    ),
    (
        "in a savepoint after an inner one",
        &["BEGIN", "CHARGE", "SAVEPOINT s", "SAVEPOINT t", "CHARGE", "RELEASE t", "RECORD"],
    ),
    (
        "in a block with EXCEPTION",
        &["BEGIN", "CHARGE", "DO $$ BEGIN PERFORM RECORD_CALL; EXCEPTION WHEN division_by_zero THEN NULL; END $$"],
    ),
    ("with its row locked outside", &["BEGIN", "LOCK_ROW", "CHARGE", "SAVEPOINT s", "RECORD"]),
];

/// The first error's SQLSTATE ends the statements.
async fn run(client: &Client, statements: &[String]) -> Result<(), Error> {
    for statement in statements {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// A handler whose transaction consists of these statements. `after` is called with how they ended, and the client.
fn transaction_of(statements: Statements, body: String, ended: Arc<Mutex<Option<Result<(), String>>>>) -> Handler {
    Arc::new(move |context, process: Process| {
        let (ended, body) = (Arc::clone(&ended), body.clone());
        Box::pin(async move {
            let (record, committed) = process.store.record_for(&context, answer(&body)).unwrap();
            let record = process.store.backend().query(&record).unwrap();
            let bytes = record.bytes().iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            let query = record.sql().replace("$1", &format!("'\\x{bytes}'"));
            let call = query.trim_start_matches("SELECT ").to_owned();
            let charge = format!("INSERT INTO charge VALUES ('{}', '{}')", context.key().as_str(), process.namespace);
            let lock = format!(
                "SELECT FROM idempotency.record WHERE namespace = '{}' AND kind = 1 FOR UPDATE",
                process.namespace
            );
            let written = |statement: &&str| {
                let statement = statement.replace("RECORD_CALL", &call).replace("RECORD", &query);
                statement.replace("CHARGE", &charge).replace("LOCK_ROW", &lock)
            };
            let statements: Vec<_> = statements.iter().map(written).collect();
            let client = process.client.lock().await;
            let run = run(&client, &statements).await;
            if run.is_err() {
                client.batch_execute("ROLLBACK").await.unwrap();
            }
            *ended.lock().unwrap() = Some(run.map_err(|error| error.code().unwrap().code().to_owned()));
            drop(committed);
            Ok("not what was recorded".to_owned())
        })
    })
}

/// A server whose rows have triggers, one of which has an EXCEPTION block.
const TRIGGERS: &str = "
    CREATE TABLE IF NOT EXISTS seen (id bytea);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.seen VALUES (new.id); RETURN new; EXCEPTION WHEN division_by_zero THEN RETURN new; END $$;
    CREATE TRIGGER see_before BEFORE UPDATE ON idempotency.record FOR EACH ROW EXECUTE FUNCTION see();
    CREATE TRIGGER see_after AFTER UPDATE ON idempotency.record FOR EACH ROW EXECUTE FUNCTION see()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_in_the_outermost_transaction_is_written_wherever_savepoints_are_over() {
    let Some(server) = own_server("records and savepoints", &["max_prepared_transactions=5"]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    let process = Process::new(&lab).await;
    // A value that is kept outside of its row, and can't be compressed.
    let mut large = String::new();
    let mut dice = Dice::new(1);
    for _ in 0..10_000 {
        write!(large, "{:x}", dice.roll() >> 20).unwrap();
    }
    for triggers in [false, true] {
        if triggers {
            lab.client.batch_execute(TRIGGERS).await.unwrap();
        }
        for (case, statements) in ACCEPTED {
            let (key, ended) = (format!("{case} {triggers}").replace(' ', "-"), Arc::default());
            let body = if case.contains("large") { large.clone() } else { "charged".to_owned() };
            let handler = transaction_of(statements, body.clone(), Arc::clone(&ended));
            let (status, told, _) = process.send(&key, &handler).await;
            assert_eq!(ended.lock().unwrap().take(), Some(Ok(())), "{case}");
            assert_eq!((status, told == body), (StatusCode::OK, true), "{case}");
            assert_eq!(charges(&lab, &key).await, 1, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_within_a_savepoint_is_refused_and_the_operation_did_not_take_place() {
    let Some(server) = own_server("records in savepoints", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    let process = Process::new(&lab).await;
    for triggers in [false, true] {
        if triggers {
            lab.client.batch_execute(TRIGGERS).await.unwrap();
        }
        for (case, statements) in REFUSED {
            let (key, ended) = (format!("{case} {triggers}").replace([' ', '\''], "-"), Arc::default());
            let (status, told, _) =
                process.send(&key, &transaction_of(statements, "charged".to_owned(), Arc::clone(&ended))).await;
            let code = Some(Err(TransactionRecord::NESTED.to_owned()));
            assert_eq!(ended.lock().unwrap().take(), code, "{case}");
            assert_eq!((status, charges(&lab, &key).await), (StatusCode::SERVICE_UNAVAILABLE, 0), "{case}: {told}");
            assert_eq!(process.send(&key, &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), false));
            assert_eq!(charges(&lab, &key).await, 1, "{case}");
        }
    }
}

/// A program that goes on after a record that failed, as one that takes a nested transaction to try it. Without the
/// check, each of its attempts makes an effect once its operation is another's; with it, its first request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_keeps_the_record_in_a_nested_transaction_fails_at_its_first_request() {
    let Some(server) = own_server("a record in a nested transaction", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    let process = Process::new(&lab).await;
    let nests = handler(|context, process| async move {
        let mut client = process.client.lock().await;
        let mut transaction = client.transaction().await.unwrap();
        transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await.unwrap();
        let nested = transaction.transaction().await.unwrap();
        // An error rolls the nested transaction back, and the program would commit the charge.
        let completed = process.store.complete_in(&context, &nested, answer("charged")).await;
        nested.rollback().await.unwrap();
        match completed {
            Ok(_) => {
                transaction.commit().await.unwrap();
                Ok("a charge without its record".to_owned())
            }
            Err(CommitError::Nested) => Err("roll back all of it".to_owned()),
            Err(error) => panic!("{error:?}"),
        }
    });
    for attempt in 1..=3 {
        let (status, told, _) = process.send("k", &nests).await;
        assert_eq!((status, charges(&lab, "k").await), (StatusCode::SERVICE_UNAVAILABLE, 0), "{told}");
        assert_eq!(process.runs(), attempt);
    }
    assert_eq!(process.send("k", &handler(charge)).await.0, StatusCode::OK);
    assert_eq!(charges(&lab, "k").await, 1);
}
