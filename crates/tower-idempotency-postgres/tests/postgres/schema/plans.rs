//! The plans of calls: a call reads its own rows, and no others, however the table grows.

use std::time::Duration;

use tower_idempotency_shared::{Backend as _, Clocks, Kind, NewExpiry, Write};

use crate::lab::{Lab, claim, client, complete, id, own_server, until};

/// The planner takes a new table for small, and keeps the plans that it makes then. This must have no effect.
#[tokio::test]
async fn rows_are_found_by_their_key_while_a_new_table_grows() {
    grows("that puts find their rows by their key", "").await;
}

// A seeded fault: rows past their expiry are found by an index that begins with the namespace.
#[tokio::test]
async fn rows_are_found_by_their_key_while_a_table_grows_that_was_almost_empty_for_a_while() {
    grows("that puts still find their rows by their key", "VACUUM ANALYZE idempotency.record").await;
}

async fn grows(what: &str, before: &str) {
    let Some(server) = own_server(what, &["autovacuum=off"]) else { return };
    let Lab { backend, url, .. } = Lab::new(&server.url()).await;
    let session = id(1 << 40);
    backend.put(Clocks::default(), &[Write { kind: Kind::Session, ..claim(session) }]).await.unwrap();
    client(&url).await.batch_execute(before).await.unwrap();
    let mut writes = 1_i64;
    for round in 0..500 {
        // One at a time, and eight together.
        for numbers in [round * 9..round * 9 + 1, round * 9 + 1..round * 9 + 9] {
            let ids: Vec<_> = numbers.map(id).collect();
            let owned = |id: &_| Write { session: Some(session), ..claim(*id) };
            let rows = backend.put(Clocks::default(), &ids.iter().map(owned).collect::<Vec<_>>()).await.unwrap().rows;
            let outcomes: Vec<_> = rows.iter().flatten().map(|row| complete(row.id, row.token)).collect();
            backend.put(Clocks::default(), &outcomes).await.unwrap();
            backend.get(Clocks::default(), &ids).await.unwrap();
            assert_eq!(backend.sessions(Clocks::default()).await.unwrap().rows.len(), 1);
            assert_eq!(backend.delete_expired(Clocks::default(), 10).await.unwrap(), 0);
            writes += 2 * i64::try_from(ids.len()).unwrap();
        }
    }
    // A server process publishes its statistics when it ends.
    drop(backend);
    let client = client(&url).await;
    let numbers = "SELECT t.n_tup_ins + t.n_tup_upd, t.seq_tup_read, p.idx_blks_hit + p.idx_blks_read, e.idx_tup_read, o.idx_tup_read \
        FROM pg_stat_user_tables t, pg_statio_user_indexes p, pg_stat_user_indexes e, pg_stat_user_indexes o \
        WHERE t.relname = 'record' AND p.indexrelname = 'record_pkey' \
        AND e.indexrelname = 'record_expires' AND o.indexrelname = 'record_open'";
    let read = async || {
        let row = client.query_one(numbers, &[]).await.unwrap();
        (0..5).map(|index| row.get(index)).collect::<Vec<i64>>()
    };
    until("the numbers", async || read().await[0] >= writes).await;
    let [_, sequentially, by_key, by_expiry, by_kind] = read().await[..] else { panic!("there are five") };
    // One session, a thousand times.
    assert_eq!([sequentially, by_expiry, by_kind], [0, 0, 1_000]);
    // Pages of the key's index: 9 for a write, as far as rows are found by their key alone.
    assert!(by_key < 11 * writes, "{by_key} pages for {writes} writes");
}

/// There may be millions of operations that wait for an operator, and of rows of a namespace that no process sweeps.
#[tokio::test]
async fn lists_and_sweeps_read_hardly_more_rows_than_they_answer_with() {
    let Some(server) = own_server("that lists and sweeps use an index", &["autovacuum=off"]) else { return };
    let lab = Lab::new(&server.url()).await;
    // Running, disputed, interrupted and completed ones; and expired ones of another namespace.
    lab.sql(
        "INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, expires, state) \
         SELECT '$', sha256(n::text::bytea), gen_random_uuid(), n, (ARRAY[1, 7, 2, 2, 2, 3])[1 + n % 6], t + n * interval '1 ms', t, \
             t + interval '1 day', ''::bytea \
         FROM generate_series(0, 11999) n, date_trunc('hour', now()) t \
         UNION ALL SELECT 'other', id, token, fence, kind, t, t, t - interval '1 day', '' \
         FROM (SELECT sha256(n::text::bytea), gen_random_uuid(), n, 3 FROM generate_series(0, 9999) n) o(id, token, fence, kind), \
             date_trunc('hour', now()) t; \
         ANALYZE idempotency.record",
    )
    .await;
    lab.put(Write { kind: Kind::Session, ..claim(id(1 << 40)) }).await;
    let expired = Write { expires: NewExpiry::In(Duration::from_millis(1)), ..claim(id(1 << 41)) };
    lab.put(expired).await;
    let sql = "UPDATE idempotency.record SET kind = 3, expires = expires - interval '1 hour' WHERE namespace = '$' AND id = '\\x";
    lab.sql(&format!("{sql}{}'", id(1 << 41))).await;

    let mut after = None;
    for first in [0, 12] {
        let rows = lab.backend.list(Clocks::default(), &[], after, 10).await.unwrap().rows;
        let fences: Vec<_> = rows.iter().map(|row| row.fence.0).collect();
        // Each sixth one is completed.
        assert_eq!(fences, (first..first + 12).filter(|fence| fence % 6 != 5).collect::<Vec<_>>());
        after = rows.last().map(|row| (row.began, row.id));
    }
    assert_eq!(lab.backend.sessions(Clocks::default()).await.unwrap().rows.len(), 1);
    for deleted in [1, 0] {
        assert_eq!(lab.backend.delete_expired(Clocks::default(), 10).await.unwrap(), deleted);
    }
    // A server process publishes its statistics when it ends.
    let Lab { backend, client, .. } = lab;
    drop(backend);
    let numbers = "SELECT e.idx_scan, e.idx_tup_read, o.idx_scan, o.idx_tup_read FROM pg_stat_user_indexes e, pg_stat_user_indexes o \
        WHERE e.indexrelname = 'record_expires' AND o.indexrelname = 'record_open'";
    let read = async || {
        let row = client.query_one(numbers, &[]).await.unwrap();
        [0, 1, 2, 3].map(|index| row.get::<_, i64>(index))
    };
    until("the numbers", async || {
        let [sweeps, _, lists, _] = read().await;
        sweeps >= 2 && lists >= 7
    })
    .await;
    let [_, by_expiry, _, by_kind] = read().await;
    // The deleted row is found again where it was; ten rows of each kind for a page, and the session.
    assert!(by_expiry <= 2 && by_kind <= 2 * 30 + 1, "{by_expiry} and {by_kind}");
}
