//! The settings of the role that an outbox over PostgreSQL runs as, and that an application puts calls in with.

use testkit::postgres::own_server;
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::NoTls;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool};
use tower_idempotency_outbox::{Outbox as _, PostgresOutbox, State};

use crate::home::call;
use crate::server::{relay, run_until, server_of};

const SETTINGS: &[&str] = &[
    "standard_conforming_strings = off",
    "backslash_quote = off",
    "search_path = ''",
    "search_path = shadows, pg_catalog",
    "quote_all_identifiers = on",
    "bytea_output = escape",
    "TimeZone = 'Pacific/Apia'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = sql_standard",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "client_encoding = LATIN1",
    "client_min_messages = error",
    "extra_float_digits = -15",
    "plpgsql.variable_conflict = use_variable",
    "plpgsql.extra_errors = 'all'",
    "row_security = off",
    "session_replication_role = replica",
    "default_table_access_method = other",
    "synchronous_commit = off",
    "check_function_bodies = off",
    "array_nulls = off",
    "transform_null_equals = on",
    "lock_timeout = '1ms'",
];

/// What others may have made, and the application's search path prefers to the database's own: each of it fails.
const SHADOWS: &str = "
    CREATE SCHEMA shadows;
    CREATE FUNCTION shadows.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'a shadow of statement_timestamp'; END$$;
    CREATE FUNCTION shadows.shadow(jsonb, jsonb) RETURNS bool LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'a shadow of jsonb = jsonb'; END$$;
    CREATE FUNCTION shadows.shadow(jsonb, text) RETURNS text LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'a shadow of jsonb ->> text'; END$$;
    CREATE FUNCTION shadows.shadow(text, text) RETURNS bool LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'a shadow of text = text'; END$$;
    CREATE OPERATOR shadows.= (leftarg = jsonb, rightarg = jsonb, function = shadows.shadow);
    CREATE OPERATOR shadows.= (leftarg = text, rightarg = text, function = shadows.shadow);
    CREATE OPERATOR shadows.->> (leftarg = jsonb, rightarg = text, function = shadows.shadow)";

// Seeded faults: `put` and the statements of a relay by the role's search path; tables by its access method.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_of_the_role_changes_nothing_of_an_outbox() {
    let Some(server) = own_server("that a role's settings change nothing of an outbox", &[]) else { return };
    let pool = |url: &str| Pool::builder(Manager::new(url.parse().unwrap(), NoTls)).build().unwrap();
    let postgres = pool(&server.url()).get().await.unwrap();
    postgres.batch_execute(SHADOWS).await.unwrap();
    let roles = "CREATE ROLE odd LOGIN; GRANT CREATE ON DATABASE postgres TO odd; GRANT ALL ON SCHEMA shadows TO odd;
        CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler";
    postgres.batch_execute(roles).await.unwrap();
    for (number, setting) in SETTINGS.iter().enumerate() {
        postgres.batch_execute(&format!("ALTER ROLE odd RESET ALL; ALTER ROLE odd SET {setting}")).await.unwrap();
        let (pool, schema) = (pool(&server.url().replace("postgres@", "odd@")), format!("outbox_{number}"));
        let outbox = PostgresOutbox::new(pool.clone(), &schema).unwrap();
        outbox.migrate().await.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let heap = "SELECT bool_and(a.amname = 'heap') FROM pg_class c JOIN pg_am a ON a.oid = c.relam
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'";
        assert!(postgres.query_one(heap, &[&schema]).await.unwrap().get::<_, bool>(0), "{setting}");
        // Twice: the second time it is compared with what is there.
        for _ in 0..2 {
            let mut client = pool.get().await.unwrap();
            let transaction = client.transaction().await.unwrap();
            let put = outbox.put_in(&transaction, &call(1)).await;
            put.unwrap_or_else(|error| panic!("{setting}: {error}"));
            transaction.commit().await.unwrap();
        }
        let entries = outbox.list(State::Waiting, None, 9).await.unwrap_or_else(|error| panic!("{setting}: {error}"));
        assert_eq!(entries.len(), 1, "{setting}");
        outbox.open_calls().await.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let (client, _) = server_of(200, &[], "");
        run_until(relay(&outbox, &client), &outbox, call(1).key(), State::Delivered).await;
    }
}
