//! Whether a database has the namespace that a command names: in a wrong one, every list would be empty.

use tower_idempotency_postgres::tokio_postgres::types::Type;
use tower_idempotency_postgres::tokio_postgres::{Client, Row};
use tower_idempotency_redis::RedisBackend;
use tower_idempotency_shared::{Backend as _, BackendError, Clocks};

use crate::address::DEFAULT_NAMESPACE;
use crate::failure::Failure;

/// The most namespaces that an error names.
const NAMED: usize = 20;

/// Fails if the namespace has no row. A service that runs has one for each server, and one for each operation. Call it
/// before the store is opened, which makes a row.
pub(crate) async fn check(client: &Client, schema: &str, named: Option<&str>) -> Result<(), Failure> {
    let namespace = named.unwrap_or(DEFAULT_NAMESPACE);
    let row = format!("SELECT FROM {schema}.record WHERE namespace = $1 LIMIT 1");
    if !client.query_typed(&row, &[(&namespace, Type::TEXT)]).await.map_err(Failure::of)?.is_empty() {
        return Ok(());
    }
    // From one namespace to the next, by the primary key. One more than are named shows that there are others.
    let names = format!(
        "WITH RECURSIVE n(name, number) AS (
             (SELECT namespace, 0 FROM {schema}.record ORDER BY namespace LIMIT 1)
             UNION ALL
             SELECT r.namespace, n.number + 1 FROM n CROSS JOIN LATERAL (
                 SELECT namespace FROM {schema}.record WHERE namespace > n.name ORDER BY namespace LIMIT 1) r
             WHERE n.number < {NAMED})
         SELECT name FROM n ORDER BY number"
    );
    let rows = client.query_typed(&names, &[]).await.map_err(Failure::of)?;
    let names: Result<Vec<_>, _> = rows.iter().map(|row: &Row| row.try_get(0)).collect();
    Err(Failure::Store(unused(named, &names.map_err(Failure::of)?)))
}

/// Fails if the namespace has no row, as [`check`] does. Redis has no list of namespaces.
pub(crate) async fn check_redis(backend: &RedisBackend, named: Option<&str>) -> Result<(), Failure> {
    let clocks = Clocks::default();
    let is_used = async {
        // The servers that run, all operations but disputed ones, and these.
        Ok::<_, BackendError>(
            !backend.sessions(clocks).await?.rows.is_empty()
                || !backend.scan(clocks, None, 1).await?.rows.is_empty()
                || !backend.list(clocks, &[], None, 1).await?.rows.is_empty(),
        )
    };
    match is_used.await.map_err(Failure::of)? {
        true => Ok(()),
        false => Err(Failure::Store(format!("{}; name the one of the services by ?namespace=NAME", no_row(named)))),
    }
}

/// Says that a namespace is not used.
fn no_row(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("no service has a row in the namespace {namespace:?} of this database"),
        None => {
            format!("the URL names no namespace, and no service has a row in {DEFAULT_NAMESPACE:?} of this database")
        }
    }
}

/// Says that a namespace is not used, and which ones are.
fn unused(namespace: Option<&str>, used: &[String]) -> String {
    let said = no_row(namespace);
    let named: Vec<_> = used.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
    let others = if used.len() > NAMED { ", and others" } else { "" };
    match named.as_slice() {
        [] => format!("{said}; it has no other namespace either"),
        named => format!("{said}; name one of these by ?namespace=NAME: {}{others}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespaces_are_named() {
        let used = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>();
        assert!(unused(Some("n"), &used(2)).ends_with(r#"by ?namespace=NAME: "n0", "n1""#));
        assert!(unused(Some("n"), &used(20)).ends_with(r#", "n19""#));
        assert!(unused(Some("n"), &used(21)).ends_with(r#""n19", and others"#));
        assert!(unused(None, &[]).ends_with("no other namespace either"));
        // A terminal obeys none of it.
        assert!(!unused(Some("\x1b[2J"), &["\x1b[2J".to_owned()]).contains('\x1b'));
    }
}
