//! Tests a PostgreSQL database.

use tower_idempotency_postgres::PostgresError;
use tower_idempotency_postgres::tokio_postgres::types::Type;
use tower_idempotency_shared::Backend as _;

use super::database::{NAMESPACE, losses, test_claims};
use super::grade::Grade;
use super::report::Report;
use crate::address::Database;
use crate::arguments::StoreOptions;
use crate::failure::{Failure, with_causes};
use crate::open::{Connected, connect, prepared};

pub(super) async fn test(database: &Database, options: &StoreOptions, report: &mut Report) -> Result<(), Failure> {
    // As the service does: the version, the rights, and each kind of write in a transaction that is rolled back.
    let application = match prepared(database, None, options)?.open().await {
        Ok(application) => application,
        Err(error) => return not_opened(&error, report),
    };
    let connected = connect(database, options).await?;
    report.good("connection", "the database is reached, and takes writes")?;
    schema(&connected, report).await?;
    report.good("rights", "the role may do all that the store does in this namespace")?;
    rows(&connected, report).await?;
    let guarantee = application.guarantee().await.map_err(Failure::of)?;
    losses(&guarantee, grade, report)?;
    drop(application);
    let builder = prepared(database, Some(NAMESPACE), options)?;
    let opened = async { Ok::<_, PostgresError>((builder.clone().open().await?, builder.open().await?)) }.await;
    let claimed = test_claims(opened, report).await;
    // The rows of this test, and those of one that was killed.
    let delete = format!(
        "DELETE FROM {}.record WHERE namespace = $1 AND (began < now() - interval '1 hour' OR state = 'idem doctor'::bytea)",
        connected.schema
    );
    let deleted = connected.client.query_typed(&delete, &[(&NAMESPACE, Type::TEXT)]).await;
    claimed?;
    if let Err(error) = deleted {
        report.note("clean-up", format!("the rows of the test were not deleted: {}", with_causes(&error)))?;
    }
    Ok(())
}

fn not_opened(error: &PostgresError, report: &mut Report) -> Result<(), Failure> {
    let (check, grade) = match error {
        PostgresError::Schema { .. } => ("schema", Grade::OtherRelease),
        PostgresError::Refused { .. } => ("rights", Grade::Refused),
        _ => ("connection", Grade::NotTested),
    };
    report.found(check, grade, with_causes(error))
}

async fn schema(connected: &Connected, report: &mut Report) -> Result<(), Failure> {
    let Connected { client, schema } = connected;
    let found =
        format!("SELECT max(version)::integer, to_regclass('{schema}.operation') IS NOT NULL FROM {schema}.version");
    let row = client.query_typed_one(&found, &[]).await.map_err(Failure::of)?;
    let version = row.try_get::<_, Option<i32>>(0).map_err(Failure::of)?.unwrap_or(0);
    let has_view: bool = row.try_get(1).map_err(Failure::of)?;
    report.good("schema", format!("version {version} is there, which this release can use"))?;
    if !has_view {
        report.note("schema", "the view for people is missing; a migration adds it, and no service needs it")?;
    }
    Ok(())
}

/// Looks for rows that no store has written, of all namespaces that the role may see. The table has no constraint that
/// keeps them out.
async fn rows(connected: &Connected, report: &mut Report) -> Result<(), Failure> {
    let Connected { client, schema } = connected;
    let found = format!(
        "SELECT count(*), min(namespace || ' ' || encode(id, 'hex')) FROM {schema}.record
         WHERE octet_length(id) <> 32 OR octet_length(session) <> 32"
    );
    let counted = async {
        // A service's role ends statements soon, and this one reads the whole table.
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
        let row = client.query_typed_one(&found, &[]).await?;
        client.batch_execute("COMMIT").await.map(|()| row)
    };
    let row = counted.await.map_err(Failure::of)?;
    let count: i64 = row.try_get(0).map_err(Failure::of)?;
    match row.try_get::<_, Option<String>>(1).map_err(Failure::of)? {
        Some(first) => {
            let found = format!("rows whose id or session has not 32 bytes: {count}, such as {first}");
            report.found("rows", Grade::Damaged, found)
        }
        None => report.good("rows", "each id and each session has 32 bytes"),
    }
}

/// Judges a loss by its words, which `guarantee.rs` of tower-idempotency-postgres has. One that this release does not
/// know is taken for the worst.
fn grade(loss: &str) -> Grade {
    let of_the_last_copy = ["no standby is waited for", "synchronous_commit is remote_write"];
    match of_the_last_copy.iter().any(|known| loss.contains(known)) {
        true => Grade::OneCopy,
        false => Grade::NotDurable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_not_known_is_taken_for_the_worst() {
        assert_eq!(grade("Something else."), Grade::NotDurable);
        assert_eq!(grade("What …: no standby is waited for (synchronous_standby_names is empty)."), Grade::OneCopy);
    }
}
