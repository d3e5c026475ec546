//! The statements that are sent to the database: for each of the calls of `backend.rs` one, made once for a schema.

use tokio_postgres::types::{Kind, ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::schema::Schema;

/// The columns of every row that is read but its state.
const COLUMNS: &str = "r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires";

/// The state of a row that a put answers with. What was written is known, and what is large is read by itself: the
/// server cancels a put whose answer takes long on its way.
const ANSWERED: &str =
    "CASE WHEN r.token <> ALL($4) AND octet_length(r.state) <= 16384 THEN r.state ELSE ''::bytea END AS state";

/// The columns that a put answers with: those of its function, which is `r`.
const PUT: &str = "r.now, r.server, r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires, \
    ANSWERED, pg_last_wal_replay_lsn()";

// Each query for rows has the time before them, and when the server was started. After them it has where the server's
// last recovery ended: a server that has lost one of its processes recovers without being started again.

/// A query and the types of its parameters.
#[derive(Debug)]
pub(super) struct Query {
    sql: String,
    /// The types of `$1`, `$2` and so on, so that the server does not have to infer them.
    types: Vec<Type>,
}

/// The queries, for one schema.
#[derive(Debug)]
pub(super) struct Queries {
    /// Several writes by `put_1`, and one by `put_one_1`: both are functions of `schema.sql`.
    pub(super) put: Query,
    pub(super) put_one: Query,
    /// One write by a plain statement, which is tried before `put_one`: a claim with a new fence, and a change that
    /// keeps the fence.
    pub(super) insert: Query,
    pub(super) update: Query,
    /// The reads of the calls of the same names in `backend.rs`.
    pub(super) get: Query,
    pub(super) sessions: Query,
    pub(super) list: Query,
    pub(super) scan: Query,
    pub(super) delete_expired: Query,
    pub(super) adopt: Query,
    /// The settings for `Setup::read`, and the counts for `Counted::read`, in the order in which those read them.
    pub(super) setup: Query,
    pub(super) counted: Query,
    pub(super) notify: Query,
    /// For the application's own client, which needs no types.
    pub(super) record: &'static str,
}

/// The time, and the earlier of it and of the parameter of this number, by which rows are judged.
fn now(parameter: u8) -> String {
    format!(
        "c AS MATERIALIZED (
            SELECT t.now, least(t.now, ${parameter}) AS earliest
            FROM (SELECT date_trunc('milliseconds', clock_timestamp()) AS now) t)"
    )
}

type Values<'a> = [&'a (dyn ToSql + Sync)];

impl Query {
    /// Fills the named parts into a text, and has it name the tables and functions of `schema`.
    fn new(schema: &Schema, sql: &str, types: &[Type]) -> Self {
        // `put_1` has its tokens as an array, the others have one token.
        let answered = if types.contains(&Type::UUID_ARRAY) { ANSWERED } else { &ANSWERED.replace("ALL($4)", "$4") };
        // The order counts: the name COLUMNS is a part of PUT_COLUMNS, whose text has ANSWERED in it.
        let parts = [
            ("PUT_COLUMNS", PUT),
            ("COLUMNS", COLUMNS),
            ("ANSWERED", answered),
            ("MICROS", MICROS),
            ("IS_DURABLE", IS_DURABLE),
        ];
        let sql = parts.iter().fold(sql.to_owned(), |sql, (name, part)| sql.replace(name, part));
        Self { sql: schema.sql(&sql), types: types.to_vec() }
    }

    pub(super) async fn prepare(&self, client: &Client) -> Result<Statement, Error> {
        client.prepare_typed(&self.sql, &self.types).await
    }

    /// Asks, in one round trip: by the statement that was prepared, or without one.
    pub(super) async fn ask(
        &self,
        client: &Client,
        prepared: Option<&Statement>,
        parameters: &Values<'_>,
    ) -> Result<Vec<Row>, Error> {
        match prepared {
            Some(statement) => client.query(statement, parameters).await,
            None => {
                let typed: Vec<_> = parameters.iter().copied().zip(self.types.iter().cloned()).collect();
                client.query_typed(&self.sql, &typed).await
            }
        }
    }
}

// One write by a plain statement, which takes half of the server's time for `put_one_1`: a claim of an absent row, and
// a change of the row with a token. Without an answer, that function says why: the row was written while the statement
// ran, is locked, has expired, or has the write's own token already; or the connection's commits are answered before
// they are durable.
//
// The server compiles the expressions of a prepared statement each time: a function costs a thousand instructions
// before it is called, and a node of the plan thousands. `benches/instructions.rs` counts them.

/// Answers with the row that it has made, or with the one that is there. The parameters are those of
/// `Parameters::claim`.
const INSERT: &str = "
    WITH i AS (
        INSERT INTO idempotency.record AS r
            (namespace, id, token, fence, kind, session, until, began, since, expires, state)
        SELECT $1, $2, $3, greatest(MICROS, $4), $5, $6, greatest(c.now, $11) + $7, least(c.now, $10), c.now,
            greatest(c.now, $11) + $8, $9
        FROM (SELECT date_trunc('milliseconds', clock_timestamp()) AS now) c
        WHERE NOT EXISTS (SELECT FROM idempotency.record r WHERE r.namespace = $1 AND r.id = $2) AND IS_DURABLE
        ON CONFLICT (namespace, id) DO NOTHING
        RETURNING r.fence, r.until, r.began, r.since, r.expires)
    SELECT i.since AS now, pg_postmaster_start_time(), $2 AS id, $3 AS token, i.fence, $5 AS kind, $6 AS session, i.until,
        i.began, i.since, i.expires, ''::bytea AS state, pg_last_wal_replay_lsn()
    FROM i
    UNION ALL
    SELECT clock_timestamp(), pg_postmaster_start_time(), COLUMNS,
        CASE WHEN octet_length(r.state) <= 16384 THEN r.state ELSE ''::bytea END, pg_last_wal_replay_lsn()
    FROM idempotency.record r
    WHERE r.namespace = $1 AND r.id = $2 AND r.token <> $3
        AND (r.expires > least(clock_timestamp(), $10) AND IS_DURABLE) IS TRUE
    LIMIT 1";

/// Answers with the row if it has changed it, and keeps its fence and the time at which it began. The parameters are
/// those of `Parameters::outcome`.
///
/// The row is changed where it was found: of a row that another transaction writes between the snapshot and the lock,
/// the new version is not in the snapshot, and nothing is changed. `ONLY`: partitions have places in common.
const UPDATE: &str = "
    UPDATE ONLY idempotency.record r SET
        token = $4,
        kind = $5,
        session = $6,
        until = greatest(c.now, $12) + $7,
        since = CASE WHEN $8 THEN c.now ELSE r.since END,
        expires = coalesce(greatest(c.now, $12) + $9, r.expires),
        state = $10
    FROM (
        SELECT r.ctid, date_trunc('milliseconds', clock_timestamp()) AS now
        FROM ONLY idempotency.record r
        WHERE r.namespace = $1 AND r.id = $2 AND r.token = $3
            AND (r.expires > least(clock_timestamp(), $11) AND IS_DURABLE) IS TRUE
        FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE r.ctid = c.ctid
    RETURNING c.now, pg_postmaster_start_time(), COLUMNS, ''::bytea AS state, pg_last_wal_replay_lsn()";

/// A fence by the latest clock. (`extract` would make a number with a decimal point, which is slow.)
const MICROS: &str = "(date_part('epoch', greatest(clock_timestamp(), $11)) * 1000000::float8)::bigint";

/// True if a commit is answered when it is durable.
const IS_DURABLE: &str = "current_setting('synchronous_commit') NOT IN ('off', 'local')";

// As in `schema.sql`, ids come out of a materialized list, and `IS TRUE` keeps other indexes than the primary key's
// out. Operators and functions take exactly the types that they are given, or are named with their schema: so nothing
// that others have made is preferred to them.
/// Answers with the rows of the ids in their order, empty columns for an id without a row.
const GET: &str = "
    WITH NOW,
    w AS MATERIALIZED (SELECT $1::text AS namespace, w.* FROM pg_catalog.unnest($2::bytea[]) WITH ORDINALITY AS w(id, n))
    SELECT c.now, pg_postmaster_start_time(), COLUMNS, r.state, pg_last_wal_replay_lsn()
    FROM c
    LEFT JOIN w ON true
    LEFT JOIN idempotency.record r ON r.namespace = w.namespace AND r.id = w.id AND (r.expires > c.earliest) IS TRUE
    ORDER BY w.n";

// Only the index `record_open` fits a comparison of rows that begins with the kind.
/// Answers with the rows of all sessions of the namespace, or with the time alone.
const SESSIONS: &str = "
    WITH NOW
    SELECT c.now, pg_postmaster_start_time(), COLUMNS, r.state, pg_last_wal_replay_lsn()
    FROM c
    LEFT JOIN idempotency.record r ON r.kind = 6
        AND (r.kind, r.namespace) >= (6::smallint, $1) AND (r.kind, r.namespace) <= (6::smallint, $1)
        AND (r.expires > c.earliest) IS TRUE";

// The index `record_open` has the rows of each kind in their order, and the first rows of each kind are merged.
/// Answers with a page of rows that may need an operator: see `Backend::list`.
const LIST: &str = "
    WITH NOW
    SELECT c.now, pg_postmaster_start_time(), l.*, pg_last_wal_replay_lsn()
    FROM c
    LEFT JOIN LATERAL (
        SELECT COLUMNS,
            CASE WHEN r.kind = 7 AND octet_length(r.state) > 2048 THEN substring(r.state FROM 1 FOR 1024)
                ELSE r.state END AS state
        FROM (
            (SELECT r.* FROM idempotency.record r
            WHERE r.kind = 1 AND LISTED
                AND (r.session IS NULL OR r.session <> ALL ($5) OR r.until IS NULL OR r.until <= c.earliest)
            ORDER BY r.began, r.id LIMIT $4)
            UNION ALL
            (SELECT r.* FROM idempotency.record r WHERE r.kind = 2 AND LISTED ORDER BY r.began, r.id LIMIT $4)
            UNION ALL
            (SELECT r.* FROM idempotency.record r WHERE r.kind = 7 AND LISTED ORDER BY r.began, r.id LIMIT $4)
        ) r
        ORDER BY r.began, r.id LIMIT $4
    ) l ON true
    ORDER BY l.began, l.id";

/// The condition of the rows of a list but their kind.
const LISTED: &str = "r.namespace = $1 AND (r.began, r.id) > ($2, $3) AND (r.expires > c.earliest) IS TRUE";

/// Answers with a page of the rows of operations: see `Backend::scan`.
const SCAN: &str = "
    WITH NOW
    SELECT c.now, pg_postmaster_start_time(), l.*, pg_last_wal_replay_lsn()
    FROM c
    LEFT JOIN LATERAL (
        SELECT COLUMNS,
            CASE WHEN octet_length(r.state) > 2048 THEN substring(r.state FROM 1 FOR 1024) ELSE r.state END AS state
        FROM idempotency.record r
        WHERE r.namespace = $1 AND r.id > $2 AND (r.kind NOT IN (5, 6, 7)) IS TRUE AND (r.expires > c.earliest) IS TRUE
        ORDER BY r.id LIMIT $3
    ) l ON true
    ORDER BY l.id";

// A role may have commits that are answered before they are durable; an adoption never has.
/// Writes rows as they are, each if its id is absent, and answers with those that it has written, or with the time
/// alone.
const ADOPT: &str = "
    WITH NOW,
    s AS MATERIALIZED (
        SELECT set_config('synchronous_commit', CASE WHEN IS_DURABLE THEN current_setting('synchronous_commit')
            ELSE 'on' END, true) AS setting),
    i AS (
        INSERT INTO idempotency.record AS r
            (namespace, id, token, fence, kind, until, began, since, expires, state)
        SELECT $1, w.id, w.token, w.fence, w.kind, w.until, w.began, w.since, w.expires, w.state
        FROM s CROSS JOIN unnest($2::bytea[], $3::uuid[], $4::int8[], $5::int2[], $6::timestamptz[],
            $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::bytea[])
            AS w(id, token, fence, kind, until, began, since, expires, state)
        ORDER BY w.id
        ON CONFLICT (namespace, id) DO UPDATE SET
            token = EXCLUDED.token, fence = EXCLUDED.fence, kind = EXCLUDED.kind, session = NULL,
            until = EXCLUDED.until, began = EXCLUDED.began, since = EXCLUDED.since, expires = EXCLUDED.expires,
            state = EXCLUDED.state
            WHERE r.expires <= (SELECT c.earliest FROM c) AND r.fence < EXCLUDED.fence
        RETURNING r.*)
    SELECT c.now, pg_postmaster_start_time(), COLUMNS, ''::bytea AS state, pg_last_wal_replay_lsn()
    FROM c LEFT JOIN i r ON true";

/// The settings that decide what the server can lose, for `guarantee.rs`.
const SETUP: &str = "
    SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('fsync') = 'on',
        current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
        current_setting('synchronous_standby_names'),
        (SELECT c.relpersistence = 'u' FROM pg_catalog.pg_class c
            WHERE c.oid = to_regclass('idempotency.record')::oid)";

/// Of the table and of that of its long answers: rows that live and that are dead, rows when it was last looked
/// through, and whether it was since the database counts; then the size of all, and what the columns of a row take.
const COUNTED: &str = "
    SELECT pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid), c.reltuples::int8,
        coalesce(pg_stat_get_last_autovacuum_time(c.oid), pg_stat_get_last_vacuum_time(c.oid),
            pg_stat_get_last_autoanalyze_time(c.oid), pg_stat_get_last_analyze_time(c.oid)) IS NOT NULL,
        pg_stat_get_live_tuples(t.oid), pg_stat_get_dead_tuples(t.oid), t.reltuples::int8,
        coalesce(pg_stat_get_last_autovacuum_time(t.oid), pg_stat_get_last_vacuum_time(t.oid)) IS NOT NULL,
        pg_total_relation_size(c.oid::regclass),
        (SELECT pg_catalog.sum(s.avg_width) FROM pg_catalog.pg_stats s
            WHERE s.schemaname::text = $1 AND s.tablename::text = 'record'::text)
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
    WHERE c.oid = to_regclass('idempotency.record')::oid";

impl Queries {
    pub(super) fn new(schema: &Schema) -> Self {
        // The types of the parameters of `put_1` in `schema.sql`, in their order.
        let put = [
            Type::TEXT,
            Type::BYTEA_ARRAY,
            Type::UUID_ARRAY,
            Type::UUID_ARRAY,
            Type::INT8_ARRAY,
            Type::INT8_ARRAY,
            Type::INT2_ARRAY,
            Type::BYTEA_ARRAY,
            Type::INT8_ARRAY,
            Type::BOOL_ARRAY,
            Type::BOOL_ARRAY,
            Type::INT8_ARRAY,
            Type::BYTEA_ARRAY,
            Type::TIMESTAMPTZ,
            Type::TIMESTAMPTZ,
        ];
        // The same for `put_one_1`: one value in place of each array.
        let put_one = put.each_ref().map(|kind| match kind.kind() {
            Kind::Array(one) => one.clone(),
            _ => kind.clone(),
        });
        // Those of `Parameters::claim` and `Parameters::outcome`.
        let claim = [
            Type::TEXT,
            Type::BYTEA,
            Type::UUID,
            Type::INT8,
            Type::INT2,
            Type::BYTEA,
            Type::INTERVAL,
            Type::INTERVAL,
            Type::BYTEA,
            Type::TIMESTAMPTZ,
            Type::TIMESTAMPTZ,
        ];
        let outcome = [
            Type::TEXT,
            Type::BYTEA,
            Type::UUID,
            Type::UUID,
            Type::INT2,
            Type::BYTEA,
            Type::INTERVAL,
            Type::BOOL,
            Type::INTERVAL,
            Type::BYTEA,
            Type::TIMESTAMPTZ,
            Type::TIMESTAMPTZ,
        ];
        let all = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15";
        Self {
            put: Query::new(schema, &format!("SELECT PUT_COLUMNS FROM idempotency.put_1({all}) r"), &put),
            put_one: Query::new(schema, &format!("SELECT PUT_COLUMNS FROM idempotency.put_one_1({all}) r"), &put_one),
            insert: Query::new(schema, INSERT, &claim),
            update: Query::new(schema, UPDATE, &outcome),
            get: Query::new(schema, &GET.replace("NOW", &now(3)), &[Type::TEXT, Type::BYTEA_ARRAY, Type::TIMESTAMPTZ]),
            sessions: Query::new(schema, &SESSIONS.replace("NOW", &now(2)), &[Type::TEXT, Type::TIMESTAMPTZ]),
            list: Query::new(
                schema,
                &LIST.replace("NOW", &now(6)).replace("LISTED", LISTED),
                &[Type::TEXT, Type::TIMESTAMPTZ, Type::BYTEA, Type::INT8, Type::BYTEA_ARRAY, Type::TIMESTAMPTZ],
            ),
            scan: Query::new(
                schema,
                &SCAN.replace("NOW", &now(4)),
                &[Type::TEXT, Type::BYTEA, Type::INT8, Type::TIMESTAMPTZ],
            ),
            delete_expired: Query::new(
                schema,
                "SELECT idempotency.delete_expired_1($1, $2, $3, $4)",
                &[Type::TEXT, Type::INT8, Type::INT8, Type::TIMESTAMPTZ],
            ),
            adopt: Query::new(
                schema,
                &ADOPT.replace("NOW", &now(11)),
                &[
                    Type::TEXT,
                    Type::BYTEA_ARRAY,
                    Type::UUID_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT2_ARRAY,
                    Type::TIMESTAMPTZ_ARRAY,
                    Type::TIMESTAMPTZ_ARRAY,
                    Type::TIMESTAMPTZ_ARRAY,
                    Type::TIMESTAMPTZ_ARRAY,
                    Type::BYTEA_ARRAY,
                    Type::TIMESTAMPTZ,
                ],
            ),
            setup: Query::new(schema, SETUP, &[]),
            counted: Query::new(schema, COUNTED, &[Type::TEXT]),
            notify: Query::new(
                schema,
                "SELECT pg_notify(channel, payload) FROM unnest($1, $2) AS w(channel, payload)",
                &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
            ),
            record: schema.record(),
        }
    }
}
