//! Rows past their expiry: kept for a while, so that fences never shrink.

use std::time::{Duration, SystemTime};

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend as _, Clocks, NewExpiry, Write};

use crate::lab::{Lab, claim, id, lab};

/// Lets a row have expired `seconds` seconds ago.
async fn expired_for(lab: &Lab, number: u64, seconds: u64) {
    lab.sql(&format!(
        "UPDATE idempotency.record SET expires = clock_timestamp() - interval '{seconds} s' \
         WHERE namespace = '$' AND id = '\\x{}'",
        id(number)
    ))
    .await;
}

async fn count(lab: &Lab) -> i64 {
    let sql = "SELECT count(*) FROM idempotency.record WHERE namespace = $1";
    lab.client.query_one(sql, &[&lab.namespace]).await.unwrap().get(0)
}

#[tokio::test]
async fn trap_96_only_rows_past_their_grace_are_deleted_and_at_most_so_many() {
    let Some(lab) = lab("what is deleted").await else { return };
    let writes: Vec<_> = (0..10).map(|number| claim(id(number))).collect();
    lab.backend.put(Clocks::default(), &writes).await.unwrap();
    for number in 0..5 {
        expired_for(&lab, number, 601).await;
    }
    expired_for(&lab, 5, 590).await;
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 3).await.unwrap(), 3);
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 100).await.unwrap(), 2);
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 100).await.unwrap(), 0);
    assert_eq!(count(&lab).await, 5, "those that live, and the one in its grace");
}

#[tokio::test]
async fn a_row_that_is_past_its_grace_by_the_database_s_clock_alone_is_kept() {
    let Some(lab) = lab("that rows are deleted by the earliest clock").await else { return };
    lab.put(claim(id(1))).await;
    expired_for(&lab, 1, 601).await;
    let an_hour_ago = SystemTime::UNIX_EPOCH.elapsed().unwrap() - Duration::from_secs(3_600);
    let earliest = Timestamp::from_millis(u64::try_from(an_hour_ago.as_millis()).unwrap());
    let clocks = Clocks { earliest, ..Clocks::default() };
    assert_eq!(lab.backend.delete_expired(clocks, 10).await.unwrap(), 0);
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_locked_row_is_not_waited_for() {
    let Some(lab) = lab("that deleting waits for no lock").await else { return };
    lab.put(claim(id(1))).await;
    expired_for(&lab, 1, 601).await;
    lab.sql("BEGIN; SELECT FROM idempotency.record WHERE namespace = '$' FOR KEY SHARE").await;
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 10).await.unwrap(), 0);
    lab.sql("COMMIT").await;
    assert_eq!(lab.backend.delete_expired(Clocks::default(), 10).await.unwrap(), 1);
}

#[tokio::test]
async fn another_namespace_s_rows_stay() {
    let Some(one) = lab("whose rows are deleted").await else { return };
    let other = Lab::new(&one.url).await;
    one.put(claim(id(1))).await;
    expired_for(&one, 1, 601).await;
    assert_eq!(other.backend.delete_expired(Clocks::default(), 10).await.unwrap(), 0);
    assert_eq!(count(&one).await, 1);
}

#[tokio::test]
async fn trap_96_fences_never_shrink_while_rows_expire_and_are_swept() {
    let Some(lab) = lab("that fences never shrink").await else { return };
    let mut last = None;
    for round in 0..200_u64 {
        // The row's fence is far ahead of the clock: only the row can know.
        let ahead = tower_idempotency::Fence(if round == 0 { 1 << 60 } else { 0 });
        let fence = tower_idempotency_shared::NewFence::Above(ahead);
        let write = Write { expires: NewExpiry::In(Duration::from_millis(1)), fence, ..claim(id(1)) };
        let row = lab.backend.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap().rows.pop().unwrap();
        if let Some(row) = row.filter(|row| row.token == write.token) {
            assert!(Some(row.fence) > last, "{round}");
            last = Some(row.fence);
        }
        lab.backend.delete_expired(Clocks::default(), 10).await.unwrap();
    }
    assert!(last > Some(tower_idempotency::Fence((1 << 60) + 10)), "it was claimed more often than once");
}

/// The statements of a block of the guide for operators.
fn statements(block: usize) -> Vec<String> {
    let page = include_str!("../../../../../docs/running/shared.md");
    let (_, by_hand) = page.split_once("### Rows of a namespace").unwrap();
    let rest = by_hand.split("```sql\n").nth(1 + block).unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let lines = block.lines().filter(|line| !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n").split(';').map(|sql| sql.trim().to_owned()).collect()
}

#[tokio::test]
async fn the_guide_s_statements_find_and_delete_what_a_namespace_has_left_that_nobody_sweeps() {
    let Some(lab) = lab("that the rows of an abandoned namespace can be deleted").await else { return };
    let writes: Vec<_> = (0..6).map(|number| claim(id(number))).collect();
    lab.backend.put(Clocks::default(), &writes).await.unwrap();
    for number in 0..4 {
        expired_for(&lab, number, 8 * 86_400 + 1).await;
    }
    // By a clock that is ahead, it would look expired.
    expired_for(&lab, 4, 7 * 86_400).await;
    let [find, delete, _] = &statements(0)[..] else { panic!("{:?}", statements(0)) };
    let found = lab.client.query(find, &[]).await.unwrap();
    let rows = found.iter().find(|row| row.get::<_, String>(0) == lab.namespace).unwrap();
    assert_eq!(rows.get::<_, i64>(1), 4);
    let delete = delete.replace("'old'", &format!("'{}'", lab.namespace)).replace("1000", "3");
    for deleted in [3, 1, 0] {
        assert_eq!(lab.client.query_one(&delete, &[]).await.unwrap().get::<_, i64>(0), deleted);
    }
    assert_eq!(count(&lab).await, 2, "the one that lives, and the one in its grace");
}

#[tokio::test]
async fn trap_111_the_guide_s_update_gives_records_of_a_clock_that_was_years_ahead_their_own_retention() {
    let Some(lab) = lab("that rows can be corrected which a database years ahead has stamped").await else { return };
    let writes: Vec<_> = (0..6).map(|number| claim(id(number))).collect();
    lab.backend.put(Clocks::default(), &writes).await.unwrap();
    // Completed, interrupted, running, a session, completed now; each kept for a day.
    for (number, kind, years) in [(0, 3, 4), (1, 2, 4), (2, 1, 4), (3, 6, 4), (4, 3, 0)] {
        lab.sql(&format!(
            "WITH t AS (SELECT clock_timestamp() + interval '{years} years' AS ahead) UPDATE idempotency.record SET \
             kind = {kind}, began = ahead, since = ahead, expires = ahead + interval '1 day' FROM t \
             WHERE namespace = '$' AND id = '\\x{}'",
            id(number)
        ))
        .await;
    }
    let [update, delete, _] = &statements(1)[..] else { panic!("{:?}", statements(1)) };
    let update = format!("{update} AND namespace = $1");
    assert_eq!(lab.client.execute(&update, &[&lab.namespace]).await.unwrap(), 2, "those that ended, years ahead");
    assert_eq!(lab.client.execute(&update, &[&lab.namespace]).await.unwrap(), 0, "it can be run again");
    let kept = "SELECT count(*) FROM idempotency.record WHERE namespace = $1 AND kind IN (2, 3) \
                AND greatest(began, since) <= clock_timestamp() AND expires BETWEEN \
                clock_timestamp() + interval '23 hours' AND clock_timestamp() + interval '25 hours'";
    assert_eq!(lab.client.query_one(kept, &[&lab.namespace]).await.unwrap().get::<_, i64>(0), 3);
    let delete = delete.replace("'old'", &format!("'{}'", lab.namespace));
    assert_eq!(lab.client.execute(&delete, &[]).await.unwrap(), 1, "the session");
}
