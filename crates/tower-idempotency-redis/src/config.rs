//! Settings from a file or the environment: the feature `config`.

use std::time::Duration;

use serde::Deserialize;
use tower_idempotency::config::setting;

use super::builder::RedisBackendBuilder;
use super::durability::Durability;
use super::error::RedisError;

/// The options of a [`RedisBackend`](crate::RedisBackend), but for its URL, its logins and TLS. A field that is missing
/// leaves the option as it is. See [`tower_idempotency::config`] for the forms of values and the other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The option `namespace` of the builder.
    pub namespace: Option<String>,
    /// The option `durability` of the builder: `memory`, `aof`, `replicas:2` or `replicas:2:fsync`.
    pub durability: Option<String>,
    /// The option `accept_eviction` of the builder, if it is `true`.
    pub accept_eviction: Option<bool>,
    /// The option `accept_unknown_settings` of the builder, if it is `true`.
    pub accept_unknown_settings: Option<bool>,
    /// The option `connections` of the builder.
    pub connections: Option<usize>,
    /// The option `response_timeout` of the builder.
    #[serde(deserialize_with = "setting")]
    pub response_timeout: Option<Duration>,
    /// The option `wait_for_connection` of the builder.
    #[serde(deserialize_with = "setting")]
    pub wait_for_connection: Option<Duration>,
    /// The option `wait_for_replicas` of the builder.
    #[serde(deserialize_with = "setting")]
    pub wait_for_replicas: Option<Duration>,
    /// The option `open_within` of the builder.
    #[serde(deserialize_with = "setting")]
    pub open_within: Option<Duration>,
}

impl RedisConfig {
    /// Sets the options that these settings have.
    ///
    /// # Errors
    /// [`RedisError::Option`] if the builder refuses the namespace or the durability.
    pub fn apply(self, mut builder: RedisBackendBuilder) -> Result<RedisBackendBuilder, RedisError> {
        if let Some(namespace) = self.namespace {
            builder = builder.namespace(namespace)?;
        }
        if let Some(durability) = self.durability {
            let reason = "none of memory, aof, replicas:2 and replicas:2:fsync";
            let unknown = RedisError::Option { option: "the durability", reason };
            builder = builder.durability(Durability::read(&durability).ok_or(unknown)?)?;
        }
        if self.accept_eviction == Some(true) {
            builder = builder.accept_eviction();
        }
        if self.accept_unknown_settings == Some(true) {
            builder = builder.accept_unknown_settings();
        }
        macro_rules! set {
            ($($option:ident)*) => {$(
                if let Some(value) = self.$option {
                    builder = builder.$option(value);
                }
            )*};
        }
        set!(connections response_timeout wait_for_connection wait_for_replicas open_within);
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedisBackend;
    use crate::guarantee::Accepted;

    fn applied(json: &str) -> Result<RedisBackendBuilder, RedisError> {
        let config: RedisConfig = serde_json::from_str(json).unwrap();
        config.apply(RedisBackend::from_url("redis://localhost").unwrap())
    }

    #[test]
    fn each_setting_sets_its_option_and_no_other() {
        let set = applied(
            r#"{ "namespace": "n", "durability": "replicas:2", "accept_eviction": true, "accept_unknown_settings": true,
                 "connections": 12, "response_timeout": "700ms", "wait_for_connection": "800ms",
                 "wait_for_replicas": "900ms", "open_within": "1m" }"#,
        )
        .unwrap();
        assert_eq!((set.namespace.as_str(), set.connections), ("n", 12));
        assert_eq!(set.durability, Durability::Replicas { count: 2, fsync: false });
        assert_eq!(set.accepted, Accepted { eviction: true, unknown: true });
        let times = [set.response_timeout, set.wait_for_connection, set.wait_for_replicas, set.open_within];
        assert_eq!(times, [700, 800, 900, 60_000].map(Duration::from_millis));
        let (default, untouched) = (RedisBackend::from_url("redis://localhost").unwrap(), applied("{}").unwrap());
        assert_eq!(format!("{default:?}"), format!("{untouched:?}"));
        assert_eq!((untouched.accepted, untouched.open_within), (default.accepted, default.open_within));
    }

    #[test]
    fn what_the_builder_refuses_is_refused_and_an_unknown_field_is_named() {
        for json in [r#"{ "durability": "disk" }"#, r#"{ "namespace": "a}" }"#] {
            assert!(matches!(applied(json), Err(RedisError::Option { .. })), "{json}");
        }
        let unknown = serde_json::from_str::<RedisConfig>(r#"{ "conections": 1 }"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `conections`"), "{unknown}");
    }
}
