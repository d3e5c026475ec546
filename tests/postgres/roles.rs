//! Roles with settings of their own, and poolers.

use tower_idempotency::store::shared::{Backend as _, BackendError};

use super::lab::{Lab, ask_for_a_standby, builder, claim, complete, id, is_done, own_server, until_waiting};

/// A role whose settings no put may follow.
#[tokio::test]
async fn trap_104_a_role_s_settings_change_nothing_of_what_a_put_promises() {
    let Some(server) = own_server("that a role's settings change nothing", &["synchronous_commit=off"]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql(
        "CREATE ROLE odd LOGIN; ALTER ROLE odd SET synchronous_commit = off;
         ALTER ROLE odd SET default_transaction_isolation = 'repeatable read';
         GRANT USAGE ON SCHEMA idempotency TO odd; GRANT SELECT ON idempotency.version TO odd;
         GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency.record TO odd",
    )
    .await;
    let odd = builder(&lab.url.replace("postgres@", "odd@"), &lab.namespace).open().await.unwrap();
    let write = claim(id(1));
    let row = odd.put(std::slice::from_ref(&write)).await.unwrap().rows.pop().unwrap();
    assert!(is_done(row.as_ref(), &write));
    // A commit waits for standbys only where it is not off: so it is seen to be on.
    ask_for_a_standby(&lab.client, &lab.url).await;
    let outcome = complete(id(1), write.token);
    for writes in [vec![outcome.clone()], vec![outcome.clone(), claim(id(2))]] {
        let (answer, ()) = tokio::join!(odd.put(&writes), async {
            until_waiting(&lab.client, "SyncRep").await;
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            lab.sql(cancel).await;
        });
        assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    }
    assert_eq!(odd.delete_expired(10).await.unwrap(), 0);
}

/// As behind a pooler in transaction mode: nothing prepared, nothing set for the connection.
#[tokio::test]
async fn without_prepared_statements_all_is_the_same() {
    let Some(server) = own_server("that nothing has to be prepared", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let pooled = builder(&lab.url, &lab.namespace).behind_pooler().open().await.unwrap();
    let write = claim(id(1));
    let row = pooled.put(std::slice::from_ref(&write)).await.unwrap().rows.pop().unwrap();
    assert_eq!(row, lab.get(id(1)).await);
    let writes = [complete(id(1), write.token), claim(id(2))];
    let rows = pooled.put(&writes).await.unwrap().rows;
    assert!(is_done(rows[0].as_ref(), &writes[0]) && is_done(rows[1].as_ref(), &writes[1]));
    assert_eq!(pooled.get(&[id(1), id(2)]).await.unwrap().rows, rows);
    let prepared = lab.client.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap();
    assert_eq!(prepared.get::<_, i64>(0), 1, "this one's own");
    // What can't be set for the connection is refused aloud.
    lab.sql("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'").await;
    let strict = builder(&lab.url, &lab.namespace).behind_pooler().open().await.unwrap();
    let error = strict.put(&[claim(id(3))]).await.unwrap_err();
    assert!(matches!(error, BackendError::Nothing(_)) && error.to_string().contains("read committed"), "{error}");
}
