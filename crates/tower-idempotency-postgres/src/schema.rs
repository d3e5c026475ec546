//! The table and its functions: in which schema, of which version, and how they get there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Client;
use tokio_postgres::error::Error;

use super::error::{PostgresError, is_forbidden, is_schema_missing};

/// The version that this release needs. A later one has all that an earlier one has: functions have their version in
/// their names.
pub(super) const NEEDED: i32 = 1;
/// The version that this release makes.
const LATEST: i32 = 2;

/// The statements that make version 1, and those that make version 2 of it: what people look at.
const SQL: &str = include_str!("schema.sql");
const VIEW: &str = include_str!("view.sql");
/// What is before and after a version that another program runs. In the same transaction that program may keep a note
/// of it, by the search path that it has.
const BEGIN: &str = "DO $do$ BEGIN PERFORM pg_catalog.set_config(
  'tower_idempotency.search_path', pg_catalog.current_setting('search_path'), true); END $do$;";
const END: &str = "DO $do$ BEGIN PERFORM pg_catalog.set_config(
  'search_path', pg_catalog.current_setting('tower_idempotency.search_path'), true); END $do$;";
/// The schema's name in that.
const DEFAULT: &str = "idempotency";
/// Processes that migrate wait for each other by this lock. The number was drawn at random.
const LOCK: i64 = 0x1d3a_7c05_92be_64f1;

/// The name of the schema in which the table is: lower-case letters, digits and underscores, so that it needs no
/// quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema(String);

impl Default for Schema {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Schema {
    pub(super) fn new(name: &str) -> Result<Self, PostgresError> {
        // 63 bytes is the longest name that PostgreSQL takes without cutting it off.
        let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let wrong = |reason| Err(PostgresError::Option { option: "the schema's name", reason });
        match name.as_bytes() {
            [] => wrong("empty"),
            [b'0'..=b'9', ..] => wrong("one that begins with a digit"),
            _ if name.len() > 63 => wrong("longer than 63 bytes"),
            _ if name.starts_with("pg_") => wrong("one that belongs to the database: it begins with pg_"),
            _ if !letters => wrong("made of other characters than lower-case letters, digits and underscores"),
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// Returns SQL for this schema, from SQL that names things of the default one.
    pub(super) fn sql(&self, sql: &str) -> String {
        sql.replace(&format!("{DEFAULT}."), &format!("{self}."))
    }

    /// Returns the query that writes the record of a run. It lives as long as the process, because some clients take no
    /// other: each text is leaked once, however many stores are opened.
    pub(super) fn record(&self) -> &'static str {
        static LEAKED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
        let sql = self.sql("SELECT idempotency.record_run_1($1)");
        let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaked.get(&*sql) {
            return known;
        }
        let sql: &'static str = sql.leak();
        leaked.insert(sql);
        sql
    }

    /// Returns each version as text that may run again, without the head of its file, which is for readers of that.
    pub(super) fn migrations(&self) -> Vec<(i32, String)> {
        let migration = |(sql, version): (&str, _)| {
            let sql = self.sql(sql.split_once("\n\n").map_or(sql, |(_, sql)| sql));
            let head = format!("-- Version {version} of the schema {self} of tower-idempotency, for one transaction.");
            // `IF NOT EXISTS` would ask for the right to make schemas where there is one already.
            let make = format!("IF pg_catalog.to_regnamespace('{self}') IS NULL THEN CREATE SCHEMA {self}; END IF;");
            let lock = format!("PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});");
            (version, format!("{head}\n{BEGIN}\nDO $do$ BEGIN {lock} {make} END $do$;\n\n{sql}\n{END}\n"))
        };
        [SQL, VIEW].into_iter().zip(1..).map(migration).collect()
    }

    /// The version that is there.
    pub(super) async fn version(&self, client: &Client) -> Result<Option<i32>, Error> {
        match client.query_typed_one(&self.sql("SELECT max(version) FROM idempotency.version"), &[]).await {
            Ok(row) => row.try_get(0),
            Err(error) if error.code().is_some_and(|code| is_schema_missing(code.code())) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An error unless what is there is of the version that is needed, or of a later one.
    pub(super) fn check(&self, found: Option<i32>) -> Result<(), PostgresError> {
        match found {
            Some(NEEDED..) => Ok(()),
            _ => Err(PostgresError::Schema { schema: self.to_string(), found, needed: NEEDED }),
        }
    }

    /// Makes what is missing, in one transaction, one process after the other. What only people need may stay missing,
    /// if the role may not make it: a service whose tables another role has made still starts.
    pub(super) async fn migrate(&self, client: &Client) -> Result<(), Error> {
        let found = self.version(client).await?;
        if found >= Some(LATEST) {
            return Ok(());
        }
        // A transaction that was begun and fails ends with its connection.
        match self.make(client).await {
            Err(error) if found >= Some(NEEDED) && is_forbidden(&error) => {
                tracing::info!(
                    target: "tower_idempotency",
                    %error,
                    "the view `operation` for people is not made: this role may not, and no store needs it"
                );
                Ok(())
            }
            made => made,
        }
    }

    async fn make(&self, client: &Client) -> Result<(), Error> {
        // Under another isolation, what is made while this waits would stay unseen.
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCK})");
        client.batch_execute(&begin).await?;
        // Another process may have done it meanwhile. A missing table must not abort the transaction.
        let there = format!("SELECT to_regclass('{self}.version') IS NOT NULL, to_regnamespace('{self}') IS NOT NULL");
        let row = client.query_typed_one(&there, &[]).await?;
        let (table, schema): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        let found = if table { self.version(client).await? } else { None };
        if found < Some(NEEDED) {
            // `IF NOT EXISTS` would ask for the right to make schemas where there is one already.
            if !schema {
                client.batch_execute(&format!("CREATE SCHEMA {self}")).await?;
            }
            client.batch_execute(&self.sql(SQL)).await?;
        }
        if found < Some(LATEST) {
            client.batch_execute(&self.sql(VIEW)).await?;
        }
        client.batch_execute("COMMIT").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_s_name_needs_no_quotes() {
        for name in ["", "1a", "pg_a", "a.b", "a\"", "Ä", "A", &"a".repeat(64)] {
            assert!(Schema::new(name).is_err(), "{name}");
        }
        assert!(Schema::new("payments_2").is_ok());
    }

    // Seeded fault: each store leaked a text of its own.
    #[test]
    fn a_thousand_stores_in_a_schema_have_one_text_of_the_query_for_a_record() {
        let record = |name| Schema::new(name).unwrap_or_default().record();
        let first = record("payments_3");
        assert_eq!(first, "SELECT payments_3.record_run_1($1)");
        assert!((0..1_000).all(|_| std::ptr::eq(record("payments_3"), first)));
        assert_ne!(record("payments_4"), first);
    }

    #[test]
    fn all_that_the_file_makes_is_in_the_schema_that_was_asked_for() {
        let other = Schema::new("other").unwrap_or_default();
        let sql = other.sql(SQL) + &other.sql(VIEW);
        assert!(!sql.contains("idempotency."));
        assert!(sql.contains("CREATE TABLE IF NOT EXISTS other.record"));
        assert!(sql.contains("VIEW other.operation"));
        assert_eq!(other.migrations().last().map(|(version, _)| *version), Some(LATEST));
    }

    // Seeded fault: `'\x00'::bytea`, which ended `migrate` for a role with `standard_conforming_strings` off.
    #[test]
    fn no_text_has_a_backslash_which_a_role_may_have_read_in_another_way() {
        assert!(!SQL.contains('\\') && !VIEW.contains('\\'));
    }
}
