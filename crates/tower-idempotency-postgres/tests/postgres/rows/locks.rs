//! Locks and transaction ids: the calls that wait for each other, and those that never wait.

use std::time::Duration;

use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_shared::{Backend as _, Clocks, Kind, Row, Write};

use crate::lab::{Lab, claim, client, complete, id, is_done, lab, own_server, put, put_all, until};

const CLAIM_ONE: &str = "SELECT (idempotency.put_one_1('$', '\\xID', NULL, 'TOKEN', NULL, 0, 1::smallint, NULL, 1, true, true, 1, '', 'infinity', 'epoch')).token";
const CLAIM: &str = "SELECT token FROM idempotency.put_1('$', ARRAY['\\xID'::bytea], ARRAY[NULL::uuid], ARRAY['TOKEN'::uuid], \
    ARRAY[NULL::bigint], ARRAY[0::bigint], ARRAY[1::smallint], ARRAY[NULL::bytea], ARRAY[1::bigint], ARRAY[true], ARRAY[true], \
    ARRAY[1::bigint], ARRAY[''::bytea], 'infinity', 'epoch')";

/// A replay costs no write.
#[tokio::test]
async fn a_write_that_is_not_done_takes_no_transaction_id() {
    let Some(lab) = lab("that a replay writes nothing").await else { return };
    lab.put(claim(id(1))).await;
    for claim in [CLAIM_ONE, CLAIM] {
        for (number, takes_one) in [(1, false), (2, true)] {
            let sql =
                claim.replace("ID", &id(number).to_string()).replace("TOKEN", "00000000-0000-0000-0000-000000000001");
            lab.sql("BEGIN").await;
            lab.sql(&sql).await;
            let row = lab.client.query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[]).await.unwrap();
            assert_eq!(row.get::<_, bool>(0), takes_one, "{sql}");
            lab.sql("ROLLBACK").await;
        }
    }
}

#[tokio::test]
async fn a_row_that_an_application_has_locked_is_busy_and_not_waited_for() {
    let Some(lab) = lab("that a locked row is busy").await else { return };
    let rows = [lab.put(claim(id(1))).await.unwrap(), lab.put(claim(id(2))).await.unwrap()];
    lab.sql("BEGIN; UPDATE idempotency.record SET state = 'x' WHERE namespace = '$'").await;
    let [one, two] = [complete(id(1), rows[0].token), complete(id(2), rows[1].token)];
    let busy = lab.put(one.clone()).await.unwrap();
    assert_eq!(busy, rows[0], "the row as it was, with the token that was expected");
    let answer = lab.backend.put(Clocks::default(), &[two.clone(), one.clone(), claim(id(3))]).await.unwrap();
    assert_eq!(answer.rows[..2], [Some(rows[1].clone()), Some(rows[0].clone())]);
    assert!(answer.rows[2].is_some(), "the write next to them is done");
    lab.sql("ROLLBACK").await;
    let answer = lab.backend.put(Clocks::default(), &[two.clone(), one.clone()]).await.unwrap();
    assert!(is_done(answer.rows[0].as_ref(), &two) && is_done(answer.rows[1].as_ref(), &one));
}

/// A transaction that records its outcome with its effects may take long, and so may a commit that waits for a standby.
#[tokio::test]
async fn a_claim_of_a_row_that_is_being_written_is_answered_by_the_row_as_it_was() {
    let Some(lab) = lab("that a duplicate waits for no transaction").await else { return };
    let row = lab.put(claim(id(1))).await.unwrap();
    lab.sql("BEGIN; UPDATE idempotency.record SET state = 'x' WHERE namespace = '$'").await;
    assert_eq!(lab.put(claim(id(1))).await.unwrap(), row);
    let other = claim(id(2));
    let answer = lab.backend.put(Clocks::default(), &[claim(id(1)), other.clone()]).await.unwrap();
    assert_eq!(answer.rows[0].as_ref(), Some(&row));
    assert!(is_done(answer.rows[1].as_ref(), &other), "the write next to it is done");
    lab.sql("ROLLBACK").await;
}

/// Both wait for a third one's row, having claimed what comes before it.
#[tokio::test]
async fn batches_lock_in_the_order_of_the_ids_whatever_the_order_of_the_writes() {
    let Some(server) = own_server("in which order puts lock", &["deadlock_timeout=10ms"]) else { return };
    let lab = Lab::new(&server.url()).await;
    let another = lab.another().await;
    lab.put(claim(id(0))).await.unwrap();
    let waiting = "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let watch = client(&lab.url).await;
    for round in 0..3 {
        let [low, middle, high] = [1, 2, 3].map(|number| id(10 * round + number));
        lab.sql(&format!(
            "BEGIN; INSERT INTO idempotency.record SELECT namespace, '\\x{middle}', token, fence, kind, session, until, began, \
             since, expires, state FROM idempotency.record WHERE namespace = '$' AND id = '\\x{}'",
            id(0)
        ))
        .await;
        let [up, down] = [[low, middle, high], [high, middle, low]].map(|ids| ids.map(claim));
        let (one, two, ()) =
            tokio::join!(lab.backend.put(Clocks::default(), &up), another.put(Clocks::default(), &down), async {
                // On a slow machine they may have given up already.
                let both = until("both wait", async || watch.query_one(waiting, &[]).await.unwrap().get(0));
                let _ = tokio::time::timeout(Duration::from_millis(800), both).await;
                lab.sql("ROLLBACK").await;
            });
        for answer in [one, two] {
            let said = answer.err().map(|error| error.to_string());
            assert!(said.as_ref().is_none_or(|said| said.contains("55P03")), "{said:?}");
        }
    }
}

#[tokio::test]
async fn batches_with_the_same_rows_in_opposite_order_never_deadlock() {
    // A deadlock is found long before a put gives up waiting.
    let Some(server) = own_server("that puts do not deadlock", &["deadlock_timeout=10ms"]) else { return };
    let lab = Lab::new(&server.url()).await;
    let another = lab.another().await;
    for round in 0..20 {
        let ids: Vec<_> = (0..64).map(|number| id(round * 64 + number)).collect();
        let claims: Vec<_> = ids.iter().copied().map(claim).collect();
        let reversed: Vec<_> = ids.iter().rev().copied().map(claim).collect();
        let (one, two) = tokio::join!(put_all(&lab.backend, &claims), put_all(&another, &reversed));
        for (index, claimed) in one.iter().enumerate() {
            let other = two[63 - index].as_ref();
            assert!(is_done(claimed.as_ref(), &claims[index]) != is_done(other, &reversed[63 - index]), "one has it");
        }
        let rows = lab.backend.get(Clocks::default(), &ids).await.unwrap().rows;
        let completes = |kind| rows.iter().flatten().map(move |row| Write { kind, ..complete(row.id, row.token) });
        let forward: Vec<_> = completes(Kind::Completed).collect();
        let backward: Vec<_> = completes(Kind::Consumed).rev().collect();
        tokio::join!(put_all(&lab.backend, &forward), put_all(&another, &backward));
        let now = lab.backend.get(Clocks::default(), &ids).await.unwrap().rows;
        for (index, row) in now.iter().enumerate() {
            let one = is_done(row.as_ref(), &forward[index]);
            assert!(one || is_done(row.as_ref(), &backward[63 - index]), "no row is locked for longer than a put");
        }
    }
}

/// Sends these writes of one row at once, by two processes in turns, and returns their answers. One of them is done.
async fn race(backends: [&PostgresBackend; 2], writes: &[Write]) -> Vec<Row> {
    let puts = writes.iter().enumerate().map(|(index, write)| put(backends[index % 2], write.clone()));
    let rows: Vec<_> = futures_util::future::join_all(puts).await.into_iter().map(Option::unwrap).collect();
    let done = rows.iter().zip(writes).filter(|(row, write)| row.token == write.token).count();
    assert_eq!(done, 1);
    rows
}

#[tokio::test]
async fn of_many_claims_at_once_one_is_done_and_all_are_answered() {
    let Some(lab) = lab("that one claim is granted").await else { return };
    let another = lab.another().await;
    for round in 0..10 {
        let writes: Vec<_> = (0..32).map(|_| claim(id(round))).collect();
        let rows = race([&lab.backend, &another], &writes).await;
        assert!(rows.iter().all(|row| row.token == rows[0].token), "and each is told who has it");
    }
}

/// A row that another write has locked, or has written in the meantime, is left alone.
#[tokio::test]
async fn of_many_outcomes_at_once_one_is_done_and_all_are_answered() {
    let Some(lab) = lab("that one outcome is recorded").await else { return };
    let another = lab.another().await;
    for round in 0..20 {
        let claimed = lab.put(claim(id(round))).await.unwrap();
        let writes: Vec<_> = (0..32).map(|_| complete(claimed.id, claimed.token)).collect();
        let rows = race([&lab.backend, &another], &writes).await;
        let now = lab.get(claimed.id).await.unwrap().token;
        assert!(rows.iter().all(|row| row.token == now || row.token == claimed.token), "the others are busy or late");
    }
}
