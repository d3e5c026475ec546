//! `idem migrations`.

use serde_json::json;
use tower_idempotency_outbox::PostgresOutbox;
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_postgres::tokio_postgres::Config;

use crate::arguments::{Migrations, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::screen::Screen;

pub(crate) fn run(options: &StoreOptions, wanted: &Migrations, screen: Screen) -> Result<Ended, Failure> {
    let role = wanted.role.as_deref();
    let mut migrations = match (&wanted.outbox, &options.schema) {
        (Some(outbox), _) => PostgresOutbox::migrations(outbox, role).map_err(Failure::usage)?,
        (None, None) => PostgresBackend::builder(Config::new()).migrations(role),
        (None, Some(schema)) => {
            PostgresBackend::builder(Config::new()).schema(schema).map_err(Failure::usage)?.migrations(role)
        }
    };
    migrations.retain(|(version, _)| *version > wanted.after);
    let text: Vec<_> = migrations.iter().map(|(_, sql)| sql.as_str()).collect();
    let listed: Vec<_> = migrations.iter().map(|(version, sql)| json!({ "version": version, "sql": sql })).collect();
    screen.answer(text.join("\n"), &json!(listed))?;
    Ok(Ended::Well)
}
