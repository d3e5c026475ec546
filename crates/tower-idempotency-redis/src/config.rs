//! Settings from a file or the environment: the feature `config`.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tower_idempotency::config::{Setting, setting};
use tower_idempotency::internals::settings;

use super::builder::RedisBackendBuilder;
use super::durability::Durability;
use super::error::RedisError;

settings! {
    /// The options of a [`RedisBackend`](crate::RedisBackend), but for its URL, its logins and TLS. A field that is
    /// missing leaves the option as it is. `durability` is `memory`, `aof`, `replicas:2` or `replicas:2:fsync`. See
    /// [`tower_idempotency::config`] for the forms of other values and the other settings.
    #[derive(PartialEq, Eq)]
    RedisConfig for RedisBackendBuilder, RedisError:
    [namespace: String, durability: Durability,]
    [accept_eviction, accept_unknown_settings,]
    connections: usize,
    response_timeout: Duration,
    wait_for_connection: Duration,
    wait_for_replicas: Duration,
    open_within: Duration,
}

impl Setting for Durability {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let form = "none of memory, aof, replicas:2 and replicas:2:fsync";
        Self::read(&text).ok_or_else(|| D::Error::custom(format_args!("the durability {text:?} is {form}")))
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
        let times = [set.response_timeout, set.connector.within, set.wait_for_replicas, set.open_within];
        assert_eq!(times, [700, 800, 900, 60_000].map(Duration::from_millis));
        let (default, untouched) = (RedisBackend::from_url("redis://localhost").unwrap(), applied("{}").unwrap());
        assert_eq!(format!("{default:?}"), format!("{untouched:?}"));
        assert_eq!((untouched.accepted, untouched.open_within), (default.accepted, default.open_within));
    }

    #[test]
    fn what_the_builder_refuses_is_refused_and_an_unknown_field_is_named() {
        assert!(matches!(applied(r#"{ "namespace": "a}" }"#), Err(RedisError::Option { .. })));
        for (json, said) in [
            (r#"{ "durability": "disk" }"#, "the durability \"disk\" is none of memory, aof"),
            (r#"{ "conections": 1 }"#, "unknown field `conections`"),
        ] {
            let refused = serde_json::from_str::<RedisConfig>(json).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
