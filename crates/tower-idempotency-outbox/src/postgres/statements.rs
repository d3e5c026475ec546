//! What is sent to the database, for the schema of an outbox.

use crate::OutboxError;

const SCHEMA: &str = include_str!("schema.sql");
/// Processes that migrate wait for each other by this lock. The number was drawn at random.
const LOCK: i64 = 0x53c1_0e7a_94d2_6b1f;

const ENTRY: &str = "call.position, call.state, call.request::text, call.tries, call.first_try, call.due, \
    call.may_have_taken_place, call.reason, call.answer::text, call.fence";

/// The statements of an outbox.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) put: String,
    pub(super) find: String,
    pub(super) page: String,
    pub(super) lease: String,
    pub(super) update: String,
    pub(super) delete: String,
    pub(super) soon: String,
    pub(super) is_there: String,
    pub(super) begin: String,
    pub(super) make: String,
}

impl Statements {
    pub(super) fn new(schema: &str) -> Result<Self, OutboxError> {
        check(schema)?;
        // It is the last thing that is made. `to_regprocedure` may remember what was missing before another process has
        // made it.
        let is_there = format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace AS namespace
                JOIN pg_catalog.pg_proc AS proc ON proc.pronamespace = namespace.oid AND proc.proname = 'put'
                JOIN pg_catalog.pg_class AS class ON class.relnamespace = namespace.oid AND class.relname = 'call'
                WHERE namespace.nspname = '{schema}')"
        );
        // `IF NOT EXISTS` would ask for the right to make schemas where there is one already.
        let make_schema = format!(
            "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{schema}') THEN
                CREATE SCHEMA \"{schema}\"; END IF; END $do$"
        );
        // Some words, such as `order`, are names only in quotes.
        let schema = format!("\"{schema}\"");
        let call = format!("{schema}.call");
        let open = "state IN ('waiting', 'sending', 'given_up', 'damaged')";
        let due = "state IN ('waiting', 'sending') AND due <= statement_timestamp()";
        // `heads` goes from one partition key to the next, by its index, and no farther than it has to: the first open
        // call of each, from `$3` on. A call that was stored before and is committed later is not among them: its
        // transaction has overlapped that of the later one.
        let lease = format!(
            "WITH RECURSIVE heads AS (
                (SELECT partition_key, position, state, due FROM {call} WHERE partition_key > $3 AND {open}
                    ORDER BY partition_key, position LIMIT 1)
                UNION ALL
                SELECT next.* FROM heads CROSS JOIN LATERAL (
                    SELECT partition_key, position, state, due FROM {call} AS call
                    WHERE call.partition_key > heads.partition_key AND {open}
                    ORDER BY call.partition_key, call.position LIMIT 1) AS next
            ), ready AS MATERIALIZED (
                SELECT partition_key, position, due FROM heads WHERE {due} LIMIT $2
            ), found AS MATERIALIZED (
                SELECT position FROM (
                    (SELECT position, due FROM ready)
                    UNION ALL
                    (SELECT position, due FROM {call} WHERE partition_key IS NULL AND {due}
                        ORDER BY due, position LIMIT $2)) AS either
                ORDER BY due, position LIMIT $2
            ), locked AS MATERIALIZED (
                SELECT position, may_have_taken_place FROM {call}
                WHERE position IN (SELECT position FROM found) AND {due} FOR UPDATE SKIP LOCKED)
            UPDATE {call} AS call SET state = 'sending', fence = fence + 1, tries = tries + 1,
                first_try = coalesce(call.first_try, statement_timestamp()), may_have_taken_place = true,
                due = statement_timestamp() + make_interval(secs => $1)
            FROM locked WHERE call.position = locked.position
            RETURNING {ENTRY}, locked.may_have_taken_place,
                extract(epoch FROM statement_timestamp() - call.first_try)::float8,
                (SELECT max(partition_key) FROM ready HAVING count(*) = $2)"
        );
        let update = format!(
            "UPDATE {call} SET state = $3, fence = fence + 1, due = statement_timestamp() + make_interval(secs => $4),
                tries = CASE WHEN $5 THEN 0 ELSE tries END, first_try = CASE WHEN $5 THEN NULL ELSE first_try END,
                may_have_taken_place = coalesce($6, may_have_taken_place), reason = $7,
                answer = coalesce($8::text::jsonb, answer),
                ended = CASE WHEN $3 IN ('delivered', 'refused') THEN statement_timestamp() END
            WHERE position = $1 AND fence = $2 RETURNING position"
        );
        let soon = format!(
            "UPDATE {call} SET due = statement_timestamp()
            WHERE state IN ('waiting', 'sending') AND due > statement_timestamp() + interval '2 days'"
        );
        let delete = format!(
            "DELETE FROM {call} WHERE position IN (SELECT position FROM {call}
                WHERE ended < statement_timestamp() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING position"
        );
        let make = format!("{make_schema}; {}", SCHEMA.replace("outbox.", &format!("{schema}.")));
        let page = "state = $1 AND position > $2 ORDER BY position LIMIT $3";
        Ok(Self {
            put: format!("SELECT {schema}.put($1)"),
            find: format!("SELECT {ENTRY} FROM {call} AS call WHERE key = $1"),
            page: format!("SELECT {ENTRY} FROM {call} AS call WHERE {page}"),
            lease,
            update,
            delete,
            soon,
            is_there,
            begin: format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCK})"),
            make,
        })
    }
}

/// The schema's name is one that people need not quote, but for some words.
fn check(schema: &str) -> Result<(), OutboxError> {
    let letters = schema.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    match schema.as_bytes() {
        [] => Err(OutboxError::Name("empty")),
        [b'0'..=b'9', ..] => Err(OutboxError::Name("one that begins with a digit")),
        // The longest one that PostgreSQL takes without cutting it off.
        _ if schema.len() > 63 => Err(OutboxError::Name("longer than 63 bytes")),
        _ if schema.starts_with("pg_") => {
            Err(OutboxError::Name("one that belongs to the database: it begins with pg_"))
        }
        _ if !letters => {
            Err(OutboxError::Name("made of other characters than lower-case letters, digits and underscores"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_s_name_needs_no_quotes() {
        for name in ["", "1a", "pg_a", "a.b", "a\"", "Ä", "A", &"a".repeat(64)] {
            assert!(Statements::new(name).is_err(), "{name}");
        }
        let statements = Statements::new("payments_2").unwrap();
        assert!(!statements.make.contains("outbox."));
    }
}
