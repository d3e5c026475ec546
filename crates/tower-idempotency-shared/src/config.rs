//! Settings from a file or the environment: the feature `config`.

use std::time::Duration;

use serde::Deserialize;
use tower_idempotency::config::setting;
use tower_idempotency::internals::settings;

use super::builder::SharedStoreBuilder;

settings! {
    /// The options of a [`SharedStore`](crate::SharedStore). A field that is missing leaves the option as it is. See
    /// [`tower_idempotency::config`] for the forms of values and the other settings.
    SharedConfig for [] SharedStoreBuilder:
    lease: Duration,
    call_timeout: Duration,
    calls: usize,
    open_within: Duration,
    outcome_cache_bytes: u64,
    clocks_apart: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of a builder, without its clock.
    fn options(builder: SharedStoreBuilder) -> ([Duration; 4], usize, u64) {
        // A new option does not compile without a place here.
        let SharedStoreBuilder { lease, call_timeout, calls, open_within, outcome_cache_bytes, clock: _, clocks_apart } =
            builder;
        ([lease, call_timeout, open_within, clocks_apart], calls, outcome_cache_bytes)
    }

    fn applied(json: &str) -> ([Duration; 4], usize, u64) {
        let config: SharedConfig = serde_json::from_str(json).unwrap();
        options(config.apply(SharedStoreBuilder::default()))
    }

    #[test]
    fn each_setting_sets_its_option_and_no_other() {
        let set = applied(
            r#"{ "lease": "1m", "call_timeout": "3s", "calls": 5, "open_within": "7s", "outcome_cache_bytes": 9,
                 "clocks_apart": "1h" }"#,
        );
        assert_eq!(set, ([60, 3, 7, 3_600].map(Duration::from_secs), 5, 9));
        assert_eq!(applied("{}"), options(SharedStoreBuilder::default()));
    }

    #[test]
    fn an_unknown_field_is_named_and_a_section_says_whether_it_has_settings() {
        let unknown = serde_json::from_str::<SharedConfig>(r#"{ "ttl": "1h" }"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `ttl`"), "{unknown}");
        let is_set = |json| serde_json::from_str::<SharedConfig>(json).unwrap().is_set();
        assert_eq!([is_set(r#"{ "calls": 1 }"#), is_set("{}")], [true, false]);
    }
}
