//! Roles with settings of their own, names that others have made, and poolers.

use tower_idempotency_shared::{Backend as _, BackendError, Clocks, Kind, Write};

use crate::lab::{
    HOUR, Lab, ask_for_a_standby, builder, claim, complete, id, is_done, own_server, until, until_waiting,
};

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
    let row = odd.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap().rows.pop().unwrap();
    assert!(is_done(row.as_ref(), &write));
    // A commit waits for standbys only if the setting is not off. The wait shows that it is on.
    ask_for_a_standby(&lab.client, &lab.url).await;
    let outcome = complete(id(1), write.token);
    for writes in [vec![outcome.clone()], vec![outcome.clone(), claim(id(2))]] {
        let (answer, ()) = tokio::join!(odd.put(Clocks::default(), &writes), async {
            until_waiting(&lab.client, "SyncRep").await;
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            lab.sql(cancel).await;
        });
        assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    }
    assert_eq!(odd.delete_expired(Clocks::default(), 10).await.unwrap(), 0);
}

/// The server reports only by a warning that it did not wait. Behind a pooler, the role decides which warnings are
/// sent.
#[tokio::test]
async fn a_role_that_wants_no_warnings_hears_of_a_commit_without_its_standby() {
    let Some(server) = own_server("that a role without warnings hears of them", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("ALTER ROLE postgres SET client_min_messages = error").await;
    let quiet = builder(&lab.url, &lab.namespace).behind_pooler().open().await.unwrap();
    ask_for_a_standby(&lab.client, &lab.url).await;
    for writes in [vec![claim(id(1))], vec![claim(id(2)), claim(id(3))]] {
        let (answer, ()) = tokio::join!(quiet.put(Clocks::default(), &writes), async {
            until_waiting(&lab.client, "SyncRep").await;
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            lab.sql(cancel).await;
        });
        assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    }
}

/// Behind a pooler in transaction mode, no statement is prepared, and no setting is made for the connection.
#[tokio::test]
async fn without_prepared_statements_all_is_the_same() {
    let Some(server) = own_server("that nothing has to be prepared", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let pooled = builder(&lab.url, &lab.namespace).behind_pooler().open().await.unwrap();
    let write = claim(id(1));
    let row = pooled.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap().rows.pop().unwrap();
    assert_eq!(row, lab.get(id(1)).await);
    let writes = [complete(id(1), write.token), claim(id(2))];
    let rows = pooled.put(Clocks::default(), &writes).await.unwrap().rows;
    assert!(is_done(rows[0].as_ref(), &writes[0]) && is_done(rows[1].as_ref(), &writes[1]));
    assert_eq!(pooled.get(Clocks::default(), &[id(1), id(2)]).await.unwrap().rows, rows);
    let prepared = lab.client.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap();
    assert_eq!(prepared.get::<_, i64>(0), 1, "this one's own");
    // A setting that can't be made for the connection is refused with an error.
    lab.sql("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'").await;
    let strict = builder(&lab.url, &lab.namespace).behind_pooler().open().await.unwrap();
    let error = strict.put(Clocks::default(), &[claim(id(3))]).await.unwrap_err();
    assert!(matches!(error, BackendError::Nothing(_)) && error.to_string().contains("read committed"), "{error}");
}

/// Operators and functions that fit better than those of the database wherever one of those takes other types, or any.
/// Up to PostgreSQL 14, every user of a database may make them in its schema `public`, where they are found.
pub(super) const SHADOWS: &str = "
    CREATE SCHEMA shadows;
    DO $do$ DECLARE
        one text; other text; name text;
        types text[] := '{int2,int4,int8,float8,numeric,interval,timestamptz,text,bytea,uuid,bool,oid,regclass,bytea[],uuid[],text[]}';
    BEGIN
        FOREACH one IN ARRAY types LOOP
            FOREACH other IN ARRAY types LOOP
                EXECUTE format('CREATE FUNCTION shadows.shadow(%s, %s) RETURNS bool LANGUAGE plpgsql AS
                    $$BEGIN RAISE EXCEPTION $r$a shadow of %s, %s$r$; END$$', one, other, one, other);
                FOREACH name IN ARRAY '{=,<>,<,>,<=,>=,+,-,*}'::text[] LOOP
                    EXECUTE format('CREATE OPERATOR shadows.%s (leftarg = %s, rightarg = %s, function = shadows.shadow)',
                        name, one, other);
                END LOOP;
                EXECUTE format('CREATE FUNCTION shadows.array_position(%s, %s) RETURNS int LANGUAGE plpgsql AS
                    $$BEGIN RAISE EXCEPTION $r$a shadow of array_position$r$; END$$', one, other);
            END LOOP;
            FOREACH name IN ARRAY '{unnest,cardinality,array_agg,max,length}'::text[] LOOP
                EXECUTE format('CREATE FUNCTION shadows.%s(%s) RETURNS bool LANGUAGE plpgsql AS
                    $$BEGIN RAISE EXCEPTION $r$a shadow of %s$r$; END$$', name, one, name);
            END LOOP;
        END LOOP;
    END $do$;
    ALTER ROLE postgres SET search_path = shadows";

#[tokio::test]
async fn operators_and_functions_that_others_have_made_are_not_used() {
    let Some(server) = own_server("that operators of other roles are not used", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.client.batch_execute(SHADOWS).await.unwrap();
    for (first, pooled) in [(0_u64, false), (100, true)] {
        let builder = builder(&lab.url, &lab.namespace);
        let backend = if pooled { builder.behind_pooler() } else { builder }.open().await.unwrap();
        let number = |number| id(first + number);
        let put = async |writes: &[Write]| {
            let rows = backend.put(Clocks::default(), writes).await.unwrap().rows;
            assert!(writes.iter().zip(&rows).all(|(write, row)| is_done(row.as_ref(), write)), "{rows:?}");
            rows.into_iter().flatten().collect::<Vec<_>>()
        };
        let session = Write { kind: Kind::Session, ..claim(number(0)) };
        let owned = |n| Write { session: Some(number(0)), ..claim(number(n)) };
        put(&[session]).await;
        let one = put(&[owned(1)]).await.remove(0);
        assert!(one.fence.0 > 1 << 50 && one.expires == one.began.plus(HOUR) && one.session.is_some(), "{one:?}");
        let rows = put(&[owned(2), owned(3)]).await;
        assert!(rows.iter().all(|row| row.fence.0 > 1 << 50 && row.expires == row.began.plus(HOUR)), "{rows:?}");
        put(&[complete(one.id, one.token)]).await;
        put(&[complete(rows[0].id, rows[0].token), owned(4), Write { kind: Kind::Interrupted, ..owned(5) }]).await;
        assert_eq!(
            backend.get(Clocks::default(), &[number(3), number(9)]).await.unwrap().rows,
            [Some(rows[1].clone()), None]
        );
        assert!(
            backend.list(Clocks::default(), &[], None, 100).await.unwrap().rows.iter().any(|row| row.id == number(5))
        );
        assert_eq!(backend.delete_expired(Clocks::default(), 10).await.unwrap(), 0);
        backend.guarantee().await.unwrap();
        // If the ping arrives, notifications do.
        until("a ping", async || backend.guarantee().await.unwrap().setup.contains("notifications arrive")).await;
    }
}
