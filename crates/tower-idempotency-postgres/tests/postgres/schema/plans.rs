//! The plans of calls: a call reads its own rows, and no others, however the table grows.

use tower_idempotency_shared::{Backend as _, Clocks, Kind, Write};

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
    let numbers = "SELECT t.n_tup_ins + t.n_tup_upd, t.seq_tup_read, p.idx_blks_hit + p.idx_blks_read, e.idx_tup_read, o.idx_tup_read, \
        s.idx_tup_read FROM pg_stat_user_tables t, pg_statio_user_indexes p, pg_stat_user_indexes e, pg_stat_user_indexes o, \
        pg_stat_user_indexes s WHERE t.relname = 'record' AND p.indexrelname = 'record_pkey' \
        AND e.indexrelname = 'record_expires' AND o.indexrelname = 'record_open' AND s.indexrelname = 'record_session'";
    let read = async || {
        let row = client.query_one(numbers, &[]).await.unwrap();
        (0..6).map(|index| row.get(index)).collect::<Vec<i64>>()
    };
    until("the numbers", async || read().await[0] >= writes).await;
    let [_, sequentially, by_key, by_expiry, by_kind, of_sessions] = read().await[..] else { panic!("there are six") };
    assert_eq!([sequentially, by_expiry, by_kind], [0; 3]);
    // One session, a thousand times.
    assert_eq!(of_sessions, 1_000);
    // Pages of the key's index: 9 for a write, as far as rows are found by their key alone.
    assert!(by_key < 11 * writes, "{by_key} pages for {writes} writes");
}
