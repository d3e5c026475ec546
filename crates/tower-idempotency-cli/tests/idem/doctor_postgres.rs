//! `idem doctor` over PostgreSQL: good databases, and broken ones.

use testkit::postgres::{PostgresServer, own_server};
use testkit::skipped;
use tower_idempotency::store::Store as _;
use tower_idempotency_postgres::tokio_postgres::Client;

use crate::doctor_sled::{assert_ends, checks_of};
use crate::postgres::{client, served};
use crate::program::{idem, json};
use crate::service::{Service, id};

/// A database that a service has used, its URL, and a client.
async fn used(server: &PostgresServer) -> (String, Client) {
    let (url, store) = served(server).await;
    Service::over(store.clone()).send("/done", "k1", "paid").await;
    store.close().await.unwrap();
    (url, client(server).await)
}

/// The number of rows of each namespace.
async fn rows(client: &Client) -> Vec<(String, i64)> {
    let sql = "SELECT namespace, count(*) FROM idempotency.record GROUP BY 1 ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_database_is_found_good_and_stays_as_it_was() {
    let Some(server) = own_server("that a good database is found good", &[]) else { return };
    let (url, client) = used(&server).await;
    let before = rows(&client).await;
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 0, "one-copy");
    let checks = [
        "release", "connection", "schema", "rights", "rows", "set-up", "can lose", "syncs", "claim twice",
        "lost answer", "end of a run", "at once", "clock",
    ];
    assert_eq!(checks_of(&said), checks);
    assert!(!said.stdout.contains("BAD"), "{}", said.stdout);
    assert_eq!(json(0, &["doctor", &url])["result"], "one-copy");
    assert_eq!(rows(&client).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_a_standby_that_is_waited_for_is_found_better() {
    let Some(server) = own_server("that a standby counts", &[]) else { return };
    let (url, client) = used(&server).await;
    let standby = match PostgresServer::standby_of(server.address()) {
        Ok(standby) => standby,
        Err(obstacle) => return skipped("that a standby counts", &obstacle),
    };
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    assert_ends(&idem(&["doctor", &url]), 0, "good");
    // A standby that is named first takes no writes, and is passed over.
    let both = url.replace('@', &format!("@{},", standby.address()));
    let said = idem(&["doctor", &both]);
    assert_ends(&said, 0, "good");
    assert!(!said.stdout.contains("clean-up"), "{}", said.stdout);
    drop(standby);
}

/// The next test of such a database deletes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_test_that_are_left_are_said_to_be_and_deleted_later() {
    let Some(server) = own_server("that rows of a test are deleted", &[]) else { return };
    let (url, client) = used(&server).await;
    let before = rows(&client).await;
    client
        .batch_execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'they stay'; END $$;
             CREATE TRIGGER keep BEFORE DELETE ON idempotency.record
                 FOR EACH ROW WHEN (OLD.state = 'idem doctor'::bytea) EXECUTE FUNCTION keep()",
        )
        .await
        .unwrap();
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 0, "one-copy");
    let left = said.stdout.lines().find(|line| line.contains("clean-up")).unwrap_or_default();
    assert!(left.contains("the rows of the test were not deleted: ") && left.contains("they stay"), "{said:?}");
    assert_ne!(rows(&client).await, before);
    client.batch_execute("DROP TRIGGER keep ON idempotency.record").await.unwrap();
    assert!(!idem(&["doctor", &url]).stdout.contains("clean-up"));
    assert_eq!(rows(&client).await, before);
}

/// The table has no constraint that keeps such rows out, and a store reads none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_length_are_reported_by_their_ids() {
    let Some(server) = own_server("that rows of another length are reported", &[]) else { return };
    let (url, client) = used(&server).await;
    let long = format!("{}01", id("k1"));
    let insert = format!(
        "INSERT INTO idempotency.record (namespace, id, token, fence, kind, session, began, since, expires, state)
         SELECT namespace, '\\x{long}', gen_random_uuid(), fence, kind, session, began, since, expires, state
         FROM idempotency.record WHERE kind = 3"
    );
    let of_a_session = format!("UPDATE idempotency.record SET session = '\\x02' WHERE id = '\\x{}'", id("k1"));
    for (damage, of) in [(insert, long), (of_a_session, id("k1").to_string())] {
        client.batch_execute(&damage).await.unwrap();
        let said = idem(&["doctor", &url]);
        assert_ends(&said, 1, "damaged");
        assert!(
            said.stdout.contains(&format!("rows whose id or session has not 32 bytes: 1, such as payments {of}")),
            "{said:?}"
        );
        let said = idem(&["verify", &url]);
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(&format!("a row whose id or session has not 32 bytes: {of}")), "{said:?}");
        client.batch_execute("DELETE FROM idempotency.record WHERE octet_length(id) <> 32").await.unwrap();
    }
}

/// The claim is answered, and is gone once it is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_ignores_claims_is_found_out() {
    let Some(server) = own_server("that ignored claims are found out", &[]) else { return };
    let (url, client) = used(&server).await;
    client
        .batch_execute(
            "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 DELETE FROM idempotency.record r WHERE r.namespace = NEW.namespace AND r.id = NEW.id AND r.kind = 1;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER forget AFTER INSERT ON idempotency.record DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION forget()",
        )
        .await
        .unwrap();
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 1, "claim-ignored");
    assert!(said.stdout.contains("the second claim of the same key was granted too"), "{}", said.stdout);
}

/// The claim is there, and no reader sees it: as behind a load balancer that reads from a standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hides_claims_is_found_out() {
    let Some(server) = own_server("that hidden claims are found out", &[]) else { return };
    let (url, client) = used(&server).await;
    client
        .batch_execute(
            "ALTER TABLE idempotency.record RENAME TO hidden;
             CREATE VIEW idempotency.record AS
                 SELECT ctid, * FROM idempotency.hidden WHERE kind <> 1 OR state <> 'idem doctor'::bytea",
        )
        .await
        .unwrap();
    assert_ends(&idem(&["doctor", &url]), 1, "claim-ignored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_syncs_do_nothing_is_found_out() {
    let Some(server) = own_server("that syncs are found out", &["fsync=off"]) else { return };
    let (url, client) = used(&server).await;
    let said = idem(&["doctor", &url]);
    assert!(said.stdout.contains("fsync is off"), "{}", said.stdout);
    assert_ends(&said, 1, "not-durable");
    drop(client);
    let Some(server) = own_server("that an unlogged table is found out", &[]) else { return };
    let (url, client) = used(&server).await;
    client.batch_execute("ALTER TABLE idempotency.record SET UNLOGGED").await.unwrap();
    assert_ends(&idem(&["doctor", &url]), 1, "not-durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_a_right_is_found_out_with_the_grant_that_it_needs() {
    let Some(server) = own_server("that a missing right is found out", &[]) else { return };
    let (url, client) = used(&server).await;
    client
        .batch_execute(
            "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA idempotency TO app;
             GRANT SELECT ON idempotency.version TO app; GRANT SELECT, INSERT, DELETE ON idempotency.record TO app",
        )
        .await
        .unwrap();
    let app = url.replace("postgres@", "app@");
    let said = idem(&["doctor", &app]);
    assert_ends(&said, 1, "refused");
    assert!(said.stdout.contains("GRANT UPDATE ON idempotency.record TO app"), "{}", said.stdout);
    client.batch_execute("GRANT UPDATE ON idempotency.record TO app").await.unwrap();
    assert_ends(&idem(&["doctor", &app]), 0, "one-copy");
    // A policy that lets the role have the rows of its own namespace only: it serves, and not all can be tested.
    client
        .batch_execute(
            "ALTER TABLE idempotency.record ENABLE ROW LEVEL SECURITY;
             CREATE POLICY app ON idempotency.record TO app USING (namespace = 'payments')
                 WITH CHECK (namespace = 'payments')",
        )
        .await
        .unwrap();
    assert_ends(&idem(&["doctor", &app]), 0, "unclear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_schema_is_found_out() {
    let Some(server) = own_server("that an old schema is found out", &[]) else { return };
    assert_ends(&idem(&["doctor", &server.url()]), 1, "other-release");
    let (url, client) = used(&server).await;
    client.batch_execute("DELETE FROM idempotency.version; INSERT INTO idempotency.version VALUES (0)").await.unwrap();
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 1, "other-release");
    assert!(said.stdout.contains("migrate"), "{}", said.stdout);
    // One without the view serves.
    client.batch_execute("DROP VIEW idempotency.operation; UPDATE idempotency.version SET version = 1").await.unwrap();
    let said = idem(&["doctor", &url]);
    assert_ends(&said, 0, "one-copy");
    assert!(said.stdout.contains("the view for people is missing"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_found_out() {
    const PROMISE: &str = "that a wrong clock is found out";
    let server = match PostgresServer::with_a_clock(&[]) {
        Ok(server) => server,
        Err(obstacle) => return skipped(PROMISE, &obstacle),
    };
    let (url, _client) = used(&server).await;
    for (ahead, which) in [(3_600, "ahead of"), (-3_600, "behind")] {
        server.set_clock(ahead);
        let said = idem(&["doctor", &url]);
        assert_ends(&said, 1, "clock");
        let clock = said.stdout.lines().find(|line| line.contains("the database's clock is ")).unwrap_or_default();
        assert!(clock.ends_with(&format!("{which} this machine's")), "{said:?}");
        assert!(["is 1h ", "is 59m ", "is 1h 1s "].iter().any(|hour| clock.contains(hour)), "{said:?}");
    }
    server.set_clock(0);
    assert_ends(&idem(&["doctor", &url]), 0, "one-copy");
}

#[test]
fn a_database_that_is_away_is_not_tested() {
    let nowhere = testkit::dice::free_address();
    assert_ends(&idem(&["doctor", &format!("postgres://u@{nowhere}/d")]), 3, "not-tested");
}
