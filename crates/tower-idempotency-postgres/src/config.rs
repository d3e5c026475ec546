//! Settings from a file or the environment: the feature `config`.

use std::time::Duration;

use serde::Deserialize;
use tower_idempotency::config::setting;
use tower_idempotency::internals::settings;

use super::builder::PostgresBackendBuilder;
use super::error::PostgresError;

settings! {
    /// The options of a [`PostgresBackend`](crate::PostgresBackend), but for its URL and TLS. A field that is missing
    /// leaves the option as it is. See [`tower_idempotency::config`] for the forms of values and the other settings.
    ///
    /// ```
    /// use tower_idempotency::config::LayerConfig;
    /// use tower_idempotency_postgres::{PostgresConfig, SharedConfig};
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Settings {
    ///     #[serde(default)]
    ///     layer: LayerConfig,
    ///     #[serde(default)]
    ///     shared: SharedConfig,
    ///     #[serde(default)]
    ///     postgres: PostgresConfig,
    /// }
    ///
    /// let settings: Settings = serde_json::from_str(
    ///     r#"{ "shared": { "lease": "1m" }, "postgres": { "namespace": "payments", "connections": 12 } }"#,
    /// )?;
    /// # assert_eq!(settings.postgres.connections, Some(12));
    /// # assert!(settings.shared.lease.is_some());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(PartialEq, Eq)]
    PostgresConfig for PostgresBackendBuilder, PostgresError:
    [namespace: String, schema: String,]
    [behind_pooler,]
    connections: usize,
    statement_timeout: Duration,
    wait_for_connection: Duration,
    open_within: Duration,
    max_records: u64,
    max_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PostgresBackend;

    fn builder() -> PostgresBackendBuilder {
        PostgresBackend::builder("postgres://u@localhost/d".parse().unwrap())
    }

    fn applied(json: &str) -> Result<PostgresBackendBuilder, PostgresError> {
        let config: PostgresConfig = serde_json::from_str(json).unwrap();
        config.apply(builder())
    }

    #[test]
    fn each_setting_sets_its_option_and_no_other() {
        let set = applied(
            r#"{ "namespace": "n", "schema": "s", "connections": 12, "statement_timeout": "700ms", "behind_pooler": true,
                 "wait_for_connection": "800ms", "open_within": "1m", "max_records": 5, "max_bytes": 6 }"#,
        )
        .unwrap();
        assert_eq!((set.namespace.as_str(), set.schema.to_string().as_str()), ("n", "s"));
        assert!(set.pooler);
        assert_eq!((set.connections, set.max_records, set.max_bytes), (12, 5, 6));
        let times = [set.statement_timeout, set.wait_for_connection, set.open_within];
        assert_eq!(times, [700, 800, 60_000].map(Duration::from_millis));
        assert_eq!(applied(r#"{ "connections": 0 }"#).unwrap().connections, 1, "as the builder has it");
        let (default, untouched) = (builder(), applied("{}").unwrap());
        assert_eq!(format!("{default:?}"), format!("{untouched:?}"));
        assert_eq!((untouched.max_records, untouched.open_within), (default.max_records, default.open_within));
    }

    #[test]
    fn what_the_builder_refuses_is_refused_and_an_unknown_field_is_named() {
        assert!(matches!(applied(r#"{ "schema": "a\"b" }"#), Err(PostgresError::Option { .. })));
        let unknown = serde_json::from_str::<PostgresConfig>(r#"{ "conections": 1 }"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `conections`"), "{unknown}");
    }
}
