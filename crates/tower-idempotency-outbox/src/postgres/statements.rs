//! What is sent to the database, for the schema of an outbox: the statements of each step of a call, made once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::OutboxError;

/// What an outbox has in the schema `outbox`, in place of which the real name is written.
const SCHEMA: &str = include_str!("schema.sql");
/// Processes that migrate wait for each other by this lock. The number was drawn at random.
const LOCK: i64 = 0x53c1_0e7a_94d2_6b1f;

/// How many bytes of calls a lease takes, and one call more: a statement has to end in time.
const LEASED_BYTES: u32 = 4 << 20;

// A statement has `$1`, the process's wall clock, `$2`, its own time, and the database's clock.

/// The middle one of the three, so that none decides alone. Waits are by this time.
const MIDDLE: &str = "greatest(least($1, $2), least(greatest($1, $2), statement_timestamp()))";

/// The earliest of all, and of `$3`, the time that the relays have seen go by. What is over now is so by each clock.
const EARLIEST: &str = "least(statement_timestamp(), $1, $2, $3)";

/// An entry without its call and its answer, which may have 16 MiB.
const LISTED: &str = "call.position, call.state, call.destination, call.tries, call.first_try, call.due, \
    call.may_have_taken_place, call.reason, call.fence, call.stored";

/// What an entry has besides.
const CONTENT: &str = "call.request::text AS request, call.answer::text AS answer";

/// The statements of an outbox.
#[derive(Debug)]
pub(super) struct Statements {
    /// For the application's own client.
    pub(super) put: &'static str,
    pub(super) find: String,
    pub(super) list: String,
    pub(super) open_calls: String,
    pub(super) lease: String,
    pub(super) update: String,
    pub(super) delete: String,
    pub(super) soon: String,
    pub(super) time: String,
    pub(super) keep_time: String,
    pub(super) is_there: String,
    pub(super) lock: String,
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
        // Under SQL_ASCII, one text that is not UTF-8 would end each statement that reads it, and others next to it.
        // Under LATIN1 and the like, a result with other characters could not be written.
        let check_encoding = "DO $do$ BEGIN IF current_setting('server_encoding') <> 'UTF8' THEN
            RAISE EXCEPTION 'the encoding of the database is %, and an outbox needs UTF8',
                current_setting('server_encoding') USING HINT = 'Create the database with the encoding UTF8.';
            END IF; END $do$";
        // Some words, such as `order`, are names only in quotes.
        let schema = format!("\"{schema}\"");
        let call = format!("{schema}.call");
        let open = "state IN ('waiting', 'sending', 'given_up', 'damaged')";
        // A lease needs one clock in common, which is the database's, and not a right one. If that jumps ahead, the
        // wall clocks know that a lease goes on; a wrong one lets it go on for as long again at the most. What was
        // not tried yet is due at once. The first bound is for the index.
        let goes_on = "leased_wall <= $1 AND $1 < leased_wall + (due - leased)";
        let is_over = format!("due <= statement_timestamp() AND ({goes_on}) IS NOT TRUE");
        let due = format!(
            "state IN ('waiting', 'sending') AND due <= greatest({MIDDLE}, statement_timestamp())
                AND CASE state WHEN 'sending' THEN {is_over} ELSE tries = 0 OR due <= {MIDDLE} END"
        );
        // If two clocks agreed when the process began (`$10`), it has one time, which none of them decides alone. Else
        // each is compared with itself. A first try was not before the time that relays had seen by then.
        let of_each = |clock: &str| format!("(CASE WHEN $10 THEN {MIDDLE} ELSE {clock} END)");
        let (database, wall) = (of_each("statement_timestamp()"), of_each("$1"));
        let age = |now: &str, then: &str| format!("extract(epoch FROM {now} - {then})::float8");
        // `$6` are the destinations of which the relay has calls already, and `$7` how many; `$8` is how many it has at
        // the most.
        let taken = "coalesce((SELECT taken FROM busy WHERE busy.destination = call.destination), 0)";
        // `heads` goes from one partition key to the next, by its index, and no farther than it has to: the first open
        // call of each, from `$9` on. A call that was stored before and is committed later is not among them: its
        // transaction has overlapped that of the later one. `fitting` has the small ones first, so that large ones hold
        // none of them up, and the one that is due first, so that each has its turn. `places` goes from one
        // destination to the next. A fence is drawn at random, because a position and what counts from it come back
        // with a restored database.
        let lease = format!(
            "WITH RECURSIVE busy AS MATERIALIZED (
                SELECT * FROM unnest($6, $7) AS busy (destination, taken)
            ), heads AS (
                (SELECT partition_key, position, state, tries, leased, leased_wall, due, destination FROM {call}
                    WHERE partition_key > $9 AND {open} ORDER BY partition_key, position LIMIT 1)
                UNION ALL
                SELECT next.* FROM heads CROSS JOIN LATERAL (
                    SELECT partition_key, position, state, tries, leased, leased_wall, due, destination FROM {call} AS call
                    WHERE call.partition_key > heads.partition_key AND {open}
                    ORDER BY call.partition_key, call.position LIMIT 1) AS next
            ), ready AS MATERIALIZED (
                SELECT partition_key, position, due, destination FROM heads AS call
                WHERE {due} AND {taken} < $8 LIMIT $5
            ), places AS (
                (SELECT destination FROM {call} WHERE partition_key IS NULL AND state IN ('waiting', 'sending')
                    ORDER BY destination LIMIT 1)
                UNION ALL
                SELECT next.destination FROM places CROSS JOIN LATERAL (
                    SELECT destination FROM {call} AS call WHERE partition_key IS NULL
                    AND state IN ('waiting', 'sending') AND call.destination > places.destination
                    ORDER BY call.destination LIMIT 1) AS next
            ), either AS MATERIALIZED (
                (SELECT position, due, destination FROM ready)
                UNION ALL
                SELECT one.* FROM (SELECT destination FROM places AS call WHERE {taken} < $8) AS place
                CROSS JOIN LATERAL (
                    SELECT position, due, destination FROM {call} AS call
                    WHERE partition_key IS NULL AND call.destination = place.destination AND {due}
                    ORDER BY due, position LIMIT least($5, $8)) AS one
            ), found AS MATERIALIZED (
                SELECT position FROM (SELECT position, due, $8 - {taken} AS room,
                        row_number() OVER (PARTITION BY destination ORDER BY due, position) AS number
                    FROM either AS call) AS numbered
                WHERE number <= room ORDER BY due, position LIMIT $5
            ), fitting AS MATERIALIZED (
                SELECT position FROM (SELECT position, sum(size) OVER (ORDER BY size, position) AS bytes,
                        row_number() OVER (ORDER BY due, position) AS number
                    FROM {call} WHERE position IN (SELECT position FROM found)) AS measured
                WHERE bytes <= {LEASED_BYTES} OR number = 1
            ), locked AS MATERIALIZED (
                SELECT position, may_have_taken_place FROM {call}
                WHERE position IN (SELECT position FROM fitting) AND {due} FOR UPDATE SKIP LOCKED)
            UPDATE {call} AS call SET state = 'sending', fence = (random() * 4e18)::bigint, tries = tries + 1,
                first_try = coalesce(call.first_try, {database}), first_wall = coalesce(call.first_wall, {wall}),
                first_seen = coalesce(call.first_seen, $3), first_process = coalesce(call.first_process, $11),
                first_elapsed = coalesce(call.first_elapsed, $12),
                may_have_taken_place = true, leased = statement_timestamp(), leased_wall = $1,
                due = statement_timestamp() + make_interval(secs => $4)
            FROM locked WHERE call.position = locked.position
            RETURNING {LISTED}, {CONTENT}, locked.may_have_taken_place AS before,
                {by_database} AS by_database, {by_wall} AS by_wall, {by_seen} AS by_seen,
                CASE WHEN call.first_process = $11 THEN $12 - call.first_elapsed END AS by_process,
                (SELECT max(partition_key) FROM ready HAVING count(*) = $5) AS next",
            by_database = age(&database, "greatest(call.first_try, call.first_seen)"),
            by_wall = age(&wall, "greatest(call.first_wall, call.first_seen)"),
            by_seen = age("$3", "call.first_seen"),
        );
        let first_ones = ["first_try", "first_wall", "first_seen", "first_process", "first_elapsed"]
            .map(|column| format!("{column} = CASE WHEN $7 THEN NULL ELSE {column} END"));
        let first_ones = first_ones.join(", ");
        // It ends by a time that no clock is past, if it is not known which one is right.
        let late = format!("(CASE WHEN $12 THEN {MIDDLE} ELSE greatest(statement_timestamp(), $1) END)");
        Ok(Self {
            put: leaked(format!("SELECT {schema}.put($1)")),
            find: format!("SELECT {LISTED}, {CONTENT} FROM {call} AS call WHERE key = $1 OR position = $2"),
            list: format!(
                "SELECT {LISTED} FROM {call} AS call WHERE state = $1 AND position > $2 ORDER BY position LIMIT $3"
            ),
            open_calls: format!(
                "SELECT state, destination, count(*), extract(epoch FROM statement_timestamp() - min(stored))::float8
                    FROM {call} WHERE {open} GROUP BY state, destination ORDER BY state, destination"
            ),
            lease,
            update: format!(
                "UPDATE {call} SET state = $5, fence = fence + 1, due = {MIDDLE} + make_interval(secs => $6),
                    tries = CASE WHEN $7 THEN 0 WHEN $8 THEN tries - 1 ELSE tries END,
                    {first_ones},
                    may_have_taken_place = coalesce($9, may_have_taken_place), reason = $10,
                    answer = coalesce($11::text::jsonb, answer),
                    ended = CASE WHEN $5 IN ('delivered', 'refused') THEN {late} END
                WHERE position = $3 AND fence = $4 AND key = coalesce($13, key) RETURNING position"
            ),
            delete: format!(
                "DELETE FROM {call} WHERE position IN (SELECT position FROM {call}
                    WHERE ended < {EARLIEST} - make_interval(secs => $4) LIMIT $5 FOR UPDATE SKIP LOCKED)
                RETURNING position"
            ),
            // A lease that begins later than now is of a time before the database's clock was set back. Its relay may
            // have it still, and has all of its time again. A wait has got its time by clocks of which two were wrong.
            soon: format!(
                "WITH leases AS (UPDATE {call} SET due = clock_timestamp() + coalesce(due - leased, interval '0'),
                        leased = clock_timestamp()
                    WHERE state = 'sending' AND coalesce(leased, due - interval '2 days') > clock_timestamp())
                UPDATE {call} SET due = {MIDDLE} WHERE state = 'waiting'
                    AND (due > {MIDDLE} + interval '2 days' OR tries = 0 AND due > {MIDDLE})"
            ),
            time: format!("SELECT statement_timestamp(), (SELECT time FROM {schema}.clock)"),
            keep_time: format!(
                "INSERT INTO {schema}.clock AS clock (time) VALUES ({EARLIEST})
                ON CONFLICT (single) DO UPDATE SET time = greatest(clock.time, excluded.time)"
            ),
            is_there,
            lock: format!("SELECT pg_advisory_xact_lock({LOCK})"),
            make: format!("{check_encoding};\n{make_schema};\n\n{}", SCHEMA.replace("outbox.", &format!("{schema}."))),
        })
    }
}

/// Returns the text for as long as the process lives, because some clients take no other: each is leaked once, however
/// many outboxes are opened.
fn leaked(sql: String) -> &'static str {
    static LEAKED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = leaked.get(&*sql) {
        return known;
    }
    let sql: &'static str = sql.leak();
    leaked.insert(sql);
    sql
}

/// Returns `make` as text for another program, which may keep a note of it in the same transaction, by the search path
/// that it has; and the rights of a role that puts calls in and sends them.
pub(super) fn migration(schema: &str, role: Option<&str>) -> Result<String, OutboxError> {
    let Statements { make, .. } = Statements::new(schema)?;
    let grants = role.map(|role| {
        let role = role.replace('"', "\"\"");
        format!(
            "GRANT USAGE ON SCHEMA \"{schema}\" TO \"{role}\";
GRANT SELECT, INSERT, UPDATE, DELETE ON \"{schema}\".call TO \"{role}\";
GRANT SELECT, INSERT, UPDATE ON \"{schema}\".clock TO \"{role}\";
GRANT EXECUTE ON FUNCTION \"{schema}\".put(text) TO \"{role}\";
"
        )
    });
    Ok(format!(
        "-- Version 1 of the outbox {schema} of tower-idempotency, for one transaction.
DO $do$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({LOCK}); PERFORM pg_catalog.set_config(
  'tower_idempotency.search_path', pg_catalog.current_setting('search_path'), true); END $do$;
SET LOCAL search_path = pg_catalog, pg_temp;
{make}
DO $do$ BEGIN PERFORM pg_catalog.set_config(
  'search_path', pg_catalog.current_setting('tower_idempotency.search_path'), true); END $do$;
{}",
        grants.unwrap_or_default()
    ))
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

    // Seeded fault: each outbox leaked a text of its own.
    #[test]
    fn a_thousand_outboxes_in_a_schema_have_one_text_of_the_statement_that_puts_a_call_in() {
        let put = |schema| Statements::new(schema).unwrap().put;
        let first = put("payments_3");
        assert_eq!(first, "SELECT \"payments_3\".put($1)");
        assert!((0..1_000).all(|_| std::ptr::eq(put("payments_3"), first)));
        assert_ne!(put("payments_4"), first);
    }
}
