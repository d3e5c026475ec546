//! The rights of the role on the table: a right that is missing is found at opening, not by a handler's run.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::error::{NotConnected, is_forbidden, words};
use super::schema::Schema;
use super::wire::types::Uuid;
use tower_idempotency_shared::{Token, random};

/// The rights on the schema and on what is in it that the role has not: each with what it is a right on.
/// `record_run_1` is the application's.
const MISSING: &str = "
    SELECT current_user::text, w.may, w.kind, w.name
    FROM pg_catalog.pg_namespace n
    CROSS JOIN LATERAL (
        SELECT 'USAGE'::text, 'SCHEMA'::text, ''::text
        WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text)
        UNION ALL
        SELECT t.may, 'TABLE'::text, t.name
        FROM (VALUES ('version'::text, 'SELECT'::text), ('record'::text, 'SELECT'::text),
            ('record'::text, 'INSERT'::text), ('record'::text, 'UPDATE'::text), ('record'::text, 'DELETE'::text)) t(name, may)
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname::text = t.name
        WHERE NOT pg_catalog.has_table_privilege(c.oid, t.may)
        UNION ALL
        SELECT DISTINCT 'EXECUTE'::text, 'FUNCTION'::text, p.proname::text
        FROM pg_catalog.pg_proc p
        JOIN (VALUES ('fence_1'::text), ('put_1'::text), ('put_one_1'::text), ('delete_expired_1'::text)) f(name)
            ON p.proname::text = f.name
        WHERE p.pronamespace = n.oid AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE'::text)
    ) w(may, kind, name)
    WHERE n.nspname::text = $1";

/// A row that belongs to no operation, written and deleted again in a transaction that is rolled back. `$3` is its
/// token.
const TRIED: [(&str, &str); 4] = [
    (
        "INSERT",
        "INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, expires, state)
         SELECT $1, $2, $3, 0, 1::int2, t.now, t.now, t.now, ''::bytea FROM clock_timestamp() t(now) RETURNING token",
    ),
    (
        "SELECT",
        "SELECT token FROM idempotency.record
         WHERE namespace = $1 AND id = $2 AND token = $3 FOR NO KEY UPDATE",
    ),
    (
        "UPDATE",
        "UPDATE idempotency.record SET kind = 3::int2
         WHERE namespace = $1 AND id = $2 AND token = $3 RETURNING token",
    ),
    ("DELETE", "DELETE FROM idempotency.record WHERE namespace = $1 AND id = $2 AND token = $3 RETURNING token"),
];

/// Gives a role the rights of a service, those of `complete_in` included.
pub(super) fn grants(schema: &Schema, role: &str) -> String {
    // A bare `current_user` is another role.
    let role = in_quotes(role);
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role};\n\
         GRANT SELECT ON {schema}.version TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.record TO {role};\n\
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};\n"
    )
}

/// An error that names the rights that the role lacks, and how it gets them.
pub(super) async fn check(client: &Client, schema: &Schema) -> Result<(), NotConnected> {
    let rows = client.query_typed(MISSING, &[(&schema.to_string(), Type::TEXT)]).await?;
    let mut role = String::new();
    let (mut missing, mut grants) = (Vec::new(), Vec::new());
    for row in rows {
        let text = |index| row.try_get::<_, String>(index);
        role = quoted(&text(0)?);
        let (may, kind, name) = (text(1)?, text(2)?, text(3)?);
        // The three kinds are those of `MISSING`. `_` is a function.
        let (what, grant) = match kind.as_str() {
            "SCHEMA" => (format!("schema {schema}"), format!("SCHEMA {schema}")),
            "TABLE" => (format!("{schema}.{name}"), format!("{schema}.{name}")),
            _ => (format!("{schema}.{name}"), format!("ALL FUNCTIONS IN SCHEMA {schema}")),
        };
        missing.push(format!("{may} on {what}"));
        let grant = format!("GRANT {may} ON {grant} TO {role};");
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (missing, grants) = (missing.join(", "), grants.join(" "));
    Err(NotConnected::Rights(format!("the role {role} lacks the right to {missing}. Run: {grants}")))
}

/// Tries what the store will do. Row-level security, a rule or a trigger may keep a role with all rights from it, and
/// says so by an error or by doing nothing. The database may also have no letters for the namespace.
pub(super) async fn try_out(client: &Client, schema: &Schema, namespace: &str) -> Result<(), NotConnected> {
    // A random id, so that the row meets none of another process that opens the store.
    let (id, token): ([u8; 32], _) = (random(), Uuid(Token(random())));
    // A transaction that was begun and fails ends with its connection.
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    for (may, sql) in TRIED {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&namespace, Type::TEXT), (&id.as_slice(), Type::BYTEA), (&token, Type::UUID)];
        let done = client.query_typed(&schema.sql(sql), &parameters).await;
        let said = match done {
            Ok(rows) if rows.len() == 1 => continue,
            // A policy, a rule or a trigger has kept the statement from the row, without an error.
            Ok(_) => "nothing was done".to_owned(),
            Err(error) if is_forbidden(&error) => words(&error),
            Err(error) => return Err(error.into()),
        };
        return Err(NotConnected::Rights(format!(
            "the role may not {may} rows of the namespace in {schema}.record ({said}); does a policy of row-level \
             security, a rule or a trigger forbid it? The role needs a policy for ALL: CREATE POLICY store ON \
             {schema}.record TO … USING (true) WITH CHECK (true)"
        )));
    }
    client.batch_execute("ROLLBACK").await?;
    Ok(())
}

/// A role's name, as SQL has it.
fn quoted(role: &str) -> String {
    let is_plain = role.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && !role.starts_with(|first: char| first.is_ascii_digit());
    if is_plain { role.to_owned() } else { in_quotes(role) }
}

fn in_quotes(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_role_is_named_as_sql_has_it() {
        assert_eq!(quoted("app_1"), "app_1");
        assert_eq!(quoted("1a"), "\"1a\"");
        assert_eq!(quoted("my-\"app\""), "\"my-\"\"app\"\"\"");
    }
}
