//! Tests a PostgreSQL database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_idempotency::clock::Timestamp;
use tower_idempotency_postgres::tokio_postgres::types::Type;
use tower_idempotency_postgres::{PostgresBackend, PostgresError};
use tower_idempotency_shared::{Backend as _, Guarantee};

use super::claims::{self, Tested};
use super::report::Report;
use super::verdict::Verdict;
use crate::arguments::StoreOptions;
use crate::failure::{Failure, with_causes};
use crate::open::{Connected, connect, prepared};
use crate::place::Database;

/// The namespace of the test's rows, which no service has.
const NAMESPACE: &str = "idem-doctor";
/// A store logs an error from this difference of two clocks on, and does not open from the second one on.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

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
    let guarantee = application.guarantee().await.map_err(|error| Failure::of(&error))?;
    losses(&guarantee, report)?;
    drop(application);
    let claimed = claims(database, options, report).await;
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
    let (check, verdict) = match error {
        PostgresError::Schema { .. } => ("schema", Verdict::OtherRelease),
        PostgresError::Refused { .. } => ("rights", Verdict::Refused),
        _ => ("connection", Verdict::NotTested),
    };
    report.found(check, verdict, with_causes(error))
}

async fn schema(connected: &Connected, report: &mut Report) -> Result<(), Failure> {
    let Connected { client, schema } = connected;
    let found =
        format!("SELECT max(version)::integer, to_regclass('{schema}.operation') IS NOT NULL FROM {schema}.version");
    let row = client.query_typed_one(&found, &[]).await.map_err(|error| Failure::of(&error))?;
    let (version, has_view) =
        (row.try_get::<_, Option<i32>>(0).ok().flatten().unwrap_or(0), row.try_get(1).unwrap_or(false));
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
    let row = counted.await.map_err(|error| Failure::of(&error))?;
    match (row.try_get::<_, i64>(0).unwrap_or(0), row.try_get::<_, Option<String>>(1).ok().flatten()) {
        (count, Some(first)) => {
            let found = format!("rows whose id or session has not 32 bytes: {count}, such as {first}");
            report.found("rows", Verdict::Damaged, found)
        }
        _ => report.good("rows", "each id and each session has 32 bytes"),
    }
}

/// What can be lost with the database as it is set up.
fn losses(guarantee: &Guarantee, report: &mut Report) -> Result<(), Failure> {
    report.note("set-up", guarantee.setup.clone())?;
    for loss in &guarantee.loses {
        report.found("can lose", verdict(loss), loss.clone())?;
    }
    if guarantee.loses.is_empty() {
        report.good("can lose", "nothing that is known of")?;
    }
    report.note("syncs", "only its settings show whether the server syncs: what its disk does can't be seen from here")
}

/// Judges a loss. One that this release does not know is taken for the worst.
fn verdict(loss: &str) -> Verdict {
    let of_the_last_copy = ["no standby is waited for", "synchronous_commit is remote_write"];
    match of_the_last_copy.iter().any(|known| loss.contains(known)) {
        true => Verdict::OneCopy,
        false => Verdict::NotDurable,
    }
}

async fn claims(database: &Database, options: &StoreOptions, report: &mut Report) -> Result<(), Failure> {
    let (one, other) = match opened(database, options).await? {
        Ok(opened) => opened,
        Err(error) => {
            let why =
                format!("claims were not tried, because the namespace {NAMESPACE} is closed to this role: {error}");
            return report.unclear("claim twice", why);
        }
    };
    let asked = SystemTime::now();
    match claims::test(&one, &other).await {
        Tested::Kept(seen, now) => {
            for (check, found) in seen {
                report.good(check, found)?;
            }
            clock(asked, now, report)
        }
        Tested::Broken(check, fault) => report.found(check, Verdict::ClaimIgnored, fault),
        Tested::Failed(error) => {
            report.unclear("claim twice", format!("it could not be tried: {}", with_causes(&error)))
        }
    }
}

/// Opens the namespace of the test twice, as two servers do.
async fn opened(
    database: &Database,
    options: &StoreOptions,
) -> Result<Result<(PostgresBackend, PostgresBackend), PostgresError>, Failure> {
    let builder = prepared(database, Some(NAMESPACE), options)?;
    Ok(async { Ok((builder.clone().open().await?, builder.open().await?)) }.await)
}

/// Compares the database's clock with this machine's. The database's was read between the two times of this one.
fn clock(asked: SystemTime, theirs: Timestamp, report: &mut Report) -> Result<(), Failure> {
    let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (before, theirs, after) = (millis(asked), u128::from(theirs.as_millis()), millis(SystemTime::now()));
    let apart = if theirs < before { before - theirs } else { theirs.saturating_sub(after) };
    if apart <= CLOCKS_DIFFER.as_millis() {
        return report.good("clock", "the database's clock and this machine's agree");
    }
    let apart = humantime::format_duration(Duration::from_secs(u64::try_from(apart / 1_000).unwrap_or(u64::MAX)));
    let which = if theirs < before { "behind" } else { "ahead of" };
    report.found("clock", Verdict::Clock, format!("the database's clock is {apart} {which} this machine's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_not_known_is_taken_for_the_worst() {
        assert_eq!(verdict("Something else."), Verdict::NotDurable);
        assert_eq!(verdict("What …: no standby is waited for (synchronous_standby_names is empty)."), Verdict::OneCopy);
    }
}
