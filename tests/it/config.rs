//! Settings from a file or the environment set the options of the builders, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::Deserialize;
use testkit::lab::Lab;
use testkit::lab::time::{DAY, HOUR, SECOND};
use testkit::log::Log;
use tower::Layer as _;
#[cfg(feature = "fjall")]
use tower_idempotency::config::FjallConfig;
use tower_idempotency::config::{LayerConfig, MemoryConfig, SledConfig};
use tower_idempotency::server::{KeptHeaders, KeyFrom, Profile};
use tower_idempotency::store::OpenError;
use tower_idempotency::{FingerprintBody, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Once, SledStore};
use tower_idempotency_meaning::BodyJudge;
use tracing::Level;

use crate::docs::options::options;

const TOML: &str = r#"
[layer]
profile = "acp"
discoverable = ["/charges"]
header_name = "x-key"
replay_header_name = "x-replayed"
outcome_header_name = "x-outcome"
methods = ["POST", "DELETE"]
require_key = true
strict_keys = true
key_from = "json:/params/key json:/params/order form:key"
classify = "graphql"
credential_headers = ["x-customer"]
credential_cookies = ["session"]
on_in_flight = "500ms"
on_interrupted = "rerun"
fingerprint_headers = ["x-tenant"]
fingerprint_body = "canonical-json without /id /params/time"
retention = "48h"
outcome_retention = "72h"
interrupted_retention = "60days"
max_run = "1m 30s"
max_runs = 7
max_request_body = 8
max_buffered = 9
max_response_body = 10
outcome_body_timeout = "11s"
max_stream = "12s"
max_stream_bytes = 13
kept_headers = { with = ["set-cookie"], without = ["x-secret"] }
fail_open = true
problem_base = "https://pay.example/problems#"
run_level = "info"
replay_level = "TRACE"
rejection_level = "warn"
"#;

/// All sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    layer: LayerConfig,
    memory: MemoryConfig,
    sled: SledConfig,
    #[cfg(feature = "fjall")]
    fjall: FjallConfig,
}

fn layer() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new())
}

/// The layer that these settings make, as its `Debug` output shows its options.
fn made(settings: Sections) -> String {
    format!("{:?}", settings.layer.apply(layer()))
}

#[test]
fn each_setting_of_a_layer_sets_its_option() {
    let name = HeaderName::from_static;
    let by_hand = layer()
        .profile(Profile::acp())
        .discoverable(["/charges"])
        .header_name(name("x-key"))
        .replay_header_name(name("x-replayed"))
        .outcome_header_name(name("x-outcome"))
        .methods([Method::POST, Method::DELETE])
        .require_key(true)
        .strict_keys(true)
        .key_from(KeyFrom::any_of([
            KeyFrom::json_pointer("/params/key").unwrap(),
            KeyFrom::json_pointer("/params/order").unwrap(),
            KeyFrom::form_field("key"),
        ]))
        .classify(BodyJudge::graphql())
        .credential_headers([name("x-customer")])
        .credential_cookies(["session"])
        .on_in_flight(OnInFlight::Wait(SECOND / 2))
        .on_interrupted(OnInterrupted::Rerun)
        .fingerprint_headers([name("x-tenant")])
        .fingerprint_body(FingerprintBody::json_without(["/id", "/params/time"]).unwrap())
        .retention(HOUR * 48)
        .outcome_retention(HOUR * 72)
        .interrupted_retention(DAY * 60)
        .max_run(SECOND * 90)
        .max_runs(7)
        .max_request_body(8)
        .max_buffered(9)
        .max_response_body(10)
        .outcome_body_timeout(SECOND * 11)
        .max_stream(SECOND * 12)
        .max_stream_bytes(13)
        .kept_headers(KeptHeaders::default().with([name("set-cookie")]).without([name("x-secret")]))
        .fail_open(true)
        .problem_base("https://pay.example/problems#")
        .run_level(Level::INFO)
        .replay_level(Level::TRACE)
        .rejection_level(Level::WARN);
    let settings: Sections = toml::from_str(TOML).unwrap();
    assert_eq!(made(settings.clone()), format!("{by_hand:?}"));
    assert_eq!(made(Sections::default()), format!("{:?}", layer()), "nothing is set");
    // The same in JSON, and each of them alone.
    let value: serde_json::Value = toml::from_str(TOML).unwrap();
    let json: Sections = serde_json::from_str(&value.to_string()).unwrap();
    assert_eq!(made(json), made(settings));
    for (field, value) in value["layer"].as_object().unwrap() {
        let one = serde_json::json!({ "layer": { field: value } });
        assert_ne!(made(serde_json::from_value(one).unwrap()), format!("{:?}", layer()), "{field} sets nothing");
    }
}

/// Those that are functions, or types.
const NOT_IN_A_FILE: [&str; 8] =
    ["covers", "scope", "label", "reconcile_with", "on_replay", "render_rejection", "wrap_run", "any_body"];

#[test]
fn each_option_of_a_layer_that_is_no_function_has_a_setting() {
    let error = serde_json::from_str::<LayerConfig>(r#"{ "nothing": 1 }"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `nothing`"), "{error}");
    let (_, expected) = error.split_once("expected one of ").unwrap();
    let settings: BTreeSet<_> = expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let in_a_file = |option: &String| !NOT_IN_A_FILE.contains(&option.as_str());
    assert_eq!(settings, options().into_iter().filter(in_a_file).collect());
    let value: serde_json::Value = toml::from_str(TOML).unwrap();
    let tried = value["layer"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(settings, tried, "the TOML has a value for each");
}

#[test]
fn each_profile_has_its_name_in_a_file() {
    let by_http = [Profile::draft(), Profile::stripe(), Profile::acp(), Profile::iceberg()];
    for profile in by_http.into_iter().chain([Profile::json_rpc(), Profile::mcp()]) {
        let json = format!(r#"{{ "layer": {{ "profile": "{}" }} }}"#, profile.name);
        let expected = format!("{:?}", layer().profile(profile));
        assert_eq!(made(serde_json::from_str(&json).unwrap()), expected, "{json}");
    }
}

#[test]
fn what_is_unknown_or_malformed_is_named() {
    for (json, part) in [
        (r#"{ "layr": {} }"#, "unknown field `layr`"),
        (r#"{ "layer": { "retentoin": "1h" } }"#, "unknown field `retentoin`"),
        (r#"{ "memory": { "max": 1 } }"#, "unknown field `max`"),
        (r#"{ "sled": { "path": "x" } }"#, "unknown field `path`"),
        #[cfg(feature = "fjall")]
        (r#"{ "fjall": { "path": "x" } }"#, "unknown field `path`"),
        (r#"{ "layer": { "kept_headers": { "all": true } } }"#, "unknown field `all`"),
        (r#"{ "layer": { "retention": "a day" } }"#, "\"a day\" is not a duration: write it as \"24h\""),
        (r#"{ "layer": { "retention": 24 } }"#, "invalid type: integer `24`, expected a duration: write it as \"24h\""),
        (r#"{ "layer": { "on_in_flight": "wait" } }"#, "\"wait\" is not \"reject\", or how long to wait"),
        (r#"{ "layer": { "profile": "paypal" } }"#, "\"paypal\" is not \"draft\", \"stripe\", \"acp\", \"iceberg\""),
        (r#"{ "layer": { "on_interrupted": "ask" } }"#, "\"ask\" is not \"refuse\" or \"rerun\""),
        (r#"{ "layer": { "methods": [1] } }"#, "invalid type: integer `1`, expected an HTTP method in capital letters"),
        (r#"{ "layer": { "methods": ["post"] } }"#, "\"post\" is not an HTTP method in capital letters"),
        (r#"{ "layer": { "header_name": "a b" } }"#, "\"a b\" is not the name of a header"),
        (r#"{ "layer": { "run_level": "3" } }"#, "\"3\" is not a level"),
        (r#"{ "layer": { "key_from": "/key" } }"#, "\"/key\" is not the place of a key, such as \"json:/params/key\""),
        (r#"{ "layer": { "key_from": "form: key" } }"#, "\"form: key\" is not the place of a key"),
        (r#"{ "layer": { "key_from": "form:key\t" } }"#, "is not the place of a key"),
        (r#"{ "layer": { "key_from": "json:/key form:" } }"#, "is not the place of a key"),
        (r#"{ "layer": { "key_from": "json:/key  form:key" } }"#, "is not the place of a key"),
        (r#"{ "layer": { "classify": "soap" } }"#, "\"soap\" is not \"json-rpc\", \"graphql\" or \"grpc\""),
        (r#"{ "layer": { "max_stream": 12 } }"#, "expected a duration"),
        (r#"{ "layer": { "key_from": "json:/params/key " } }"#, "\"json:/params/key \" is not the place of a key"),
        (
            r#"{ "layer": { "fingerprint_body": "canonical-json without id" } }"#,
            "is not \"bytes\" or \"canonical-json\"",
        ),
    ] {
        let error = serde_json::from_str::<Sections>(json).unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn each_way_to_compare_bodies_has_a_text() {
    let without = FingerprintBody::json_without(["/id"]).unwrap();
    for (text, body) in [
        ("bytes", FingerprintBody::Bytes),
        ("canonical-json", FingerprintBody::CanonicalJson),
        ("canonical-json without /id", without),
    ] {
        let settings: Sections =
            serde_json::from_value(serde_json::json!({ "layer": { "fingerprint_body": text } })).unwrap();
        assert_eq!(made(settings), format!("{:?}", layer().fingerprint_body(body)), "{text}");
    }
}

#[test]
fn a_file_and_the_environment_go_together_with_settings_of_the_application() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        listen: String,
        #[serde(default)]
        layer: LayerConfig,
        #[serde(default)]
        memory: MemoryConfig,
        #[serde(default)]
        sled: SledConfig,
    }
    let file = "listen = \"127.0.0.1:1\"\n[layer]\nretention = \"1h\"\nmax_runs = 3\n[memory]\nmax_bytes = 7\n";
    // The environment's variables are put over what the file says.
    let mut settings: toml::Table = file.parse().unwrap();
    settings["layer"]["retention"] = "2h".into();
    settings.insert("sled".to_owned(), toml::Table::from_iter([("max_records".to_owned(), 1_000.into())]).into());
    let Settings { listen, layer, memory, sled } = settings.clone().try_into().unwrap();
    assert_eq!((listen.as_str(), layer.retention, layer.max_runs), ("127.0.0.1:1", Some(HOUR * 2), Some(3)));
    assert_eq!((sled.max_records, memory.max_bytes), (Some(1_000), Some(7)));
    settings.insert("lyer".to_owned(), toml::Table::new().into());
    let error = settings.try_into::<Settings>().unwrap_err().to_string();
    assert!(error.contains("unknown field `lyer`"), "{error}");
    // What is wrong in the file is named with its line; and in the environment with its field.
    let error = toml::from_str::<Settings>(&file.replace("\"1h\"", "48")).unwrap_err().to_string();
    for part in ["line 3", "retention = 48", "expected a duration: write it as \"24h\""] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut settings: toml::Table = file.parse().unwrap();
    settings["layer"]["retention"] = 48.into();
    let error = settings.try_into::<Settings>().unwrap_err().to_string();
    assert!(error.contains("layer.retention"), "{error}");
}

#[tokio::test]
async fn the_settings_of_stores_are_those_of_their_builders() {
    let json = r#"{ "memory": { "max_records": 1 }, "sled": { "create": false } }"#;
    let config: Sections = serde_json::from_str(json).unwrap();
    let store = config.memory.apply(MemoryStore::builder()).build();
    let lab = Lab::counting(IdempotencyLayer::new(store));
    assert_eq!(lab.post("k", "a").await.status, 200);
    assert_eq!(lab.post("other", "a").await.problem(), "store-full");
    let directory = tempfile::tempdir().unwrap();
    let refused = config.sled.apply(SledStore::builder()).open(directory.path().join("s"));
    assert!(matches!(refused, Err(OpenError::NotFound { .. })), "{refused:?}");
    #[cfg(feature = "fjall")]
    {
        let config: Sections = serde_json::from_str(r#"{ "fjall": { "create": false } }"#).unwrap();
        let builder = config.fjall.apply(tower_idempotency::FjallStore::builder());
        let refused = builder.open(directory.path().join("f"));
        assert!(matches!(refused, Err(OpenError::NotFound { .. })), "{refused:?}");
    }
}

// Seeded faults, one for each line: what is switched off is not named; a warning is written at each service.
#[tokio::test]
async fn options_that_switch_the_protection_off_are_named_by_a_warning() {
    for (json, warning) in [
        (r#"{ "retention": "0s" }"#, Some("`retention` is shorter")),
        // As one writes `1m` by mistake.
        (r#"{ "retention": "1ms" }"#, Some("`retention` is shorter")),
        (r#"{ "retention": "1m" }"#, None),
        (r#"{ "retention": "1ms", "outcome_retention": "2ms" }"#, Some("`retention` is shorter")),
        (r#"{ "interrupted_retention": "1ms" }"#, Some("`interrupted_retention` is shorter")),
        (r#"{ "outcome_retention": "23h" }"#, Some("`outcome_retention` is shorter than `retention`")),
        (r#"{ "outcome_retention": "24h" }"#, None),
        (r#"{ "retention": "0s", "outcome_retention": "24h" }"#, None),
        (r#"{ "interrupted_retention": "0s" }"#, Some("`interrupted_retention` is shorter")),
        (r#"{ "max_runs": 0 }"#, Some("`max_runs` is zero")),
        (r#"{ "max_run": "0s" }"#, Some("`max_run` is zero")),
        (r#"{ "discoverable": ["/a", "orders"] }"#, Some("`discoverable` names a route")),
        (r#"{ "methods": [] }"#, Some("`methods` names no method")),
        (r#"{ "methods": ["GET", "OPTIONS"] }"#, Some("`methods` names no method")),
        (r#"{ "methods": ["*", "ANY"] }"#, Some("`methods` names no method")),
        (r#"{ "methods": ["POST|PATCH"] }"#, Some("`methods` names no method")),
        // This profile keeps records for a day at least.
        (r#"{ "retention": "0s", "interrupted_retention": "0s", "profile": "acp" }"#, None),
        (r#"{ "retention": "1h", "methods": ["DELETE"], "header_name": "x-request-id" }"#, None),
        ("{}", None),
    ] {
        let log = Log::begin(Level::WARN);
        let layer = serde_json::from_str::<LayerConfig>(json).unwrap().apply(layer());
        assert!(log.lines().is_empty(), "{json}: the options may still change");
        // A router has a service for each route.
        (0..3).for_each(|_| drop(layer.layer(())));
        let lines = log.lines();
        let is_named = lines.iter().filter(|line| warning.is_some_and(|warning| line.contains(warning))).count();
        assert_eq!((lines.len(), is_named), (warning.iter().len(), warning.iter().len()), "{json}: {lines:?}");
    }
    let log = Log::begin(Level::WARN);
    let consumer = Once::<_, ()>::new(MemoryStore::new()).retention(Duration::ZERO);
    assert!(log.lines().concat().contains("`retention` is shorter"), "{consumer:?}");
}

// Seeded faults, one for each line: a name is not compared with the list, or with the others.
#[test]
fn a_header_of_another_purpose_is_refused_before_a_service_is_put_behind_the_layer() {
    let taken = |json: &str| {
        let layer = serde_json::from_str::<LayerConfig>(json).unwrap().apply(layer());
        let checked = layer.check().map_err(|taken| (taken.option, taken.name));
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(layer.layer(())))).is_err();
        assert_eq!(panics, checked.is_err(), "{json}");
        checked.err()
    };
    for (option, names) in [
        (
            "header_name",
            &[
                "Host", "authorization", "idempotency-probe", "Content-Type", "x-api-key", "Referer", "cookie",
                "idempotency-mark", "location",
            ][..],
        ),
        (
            "replay_header_name",
            &[
                "Content-Length", "idempotency-effect", "idempotency-mark", "idempotency-probe", "Idempotency-Key",
                "Retry-After", "link", "set-cookie", "trailer", "Keep-Alive", "te", "grpc-status",
            ],
        ),
        (
            "outcome_header_name",
            &[
                "Idempotency-Effect", "idempotency-mark", "idempotent-replayed", "idempotency-key", "retry-after",
                "Date", "content-type", "Upgrade", "proxy-connection", "access-control-expose-headers",
            ],
        ),
    ] {
        for name in names {
            let found = taken(&format!(r#"{{ "{option}": "{name}" }}"#));
            assert_eq!(found, Some((option, name.to_lowercase())), "{option} {name}");
        }
    }
    for (json, option) in [
        (r#"{ "replay_header_name": "x-a", "outcome_header_name": "x-a" }"#, "outcome_header_name"),
        (r#"{ "header_name": "x-a", "outcome_header_name": "x-a" }"#, "outcome_header_name"),
        (r#"{ "header_name": "x-a", "replay_header_name": "x-a" }"#, "replay_header_name"),
        (r#"{ "profile": "stripe", "outcome_header_name": "stripe-should-retry" }"#, "outcome_header_name"),
        (r#"{ "profile": "stripe", "replay_header_name": "Stripe-Should-Retry" }"#, "replay_header_name"),
    ] {
        assert_eq!(taken(json).map(|(option, _)| option), Some(option), "{json}");
    }
    for name in ["sid ", " sid", "sid; csrf", "sid,csrf", "sid=", "Cookie: sid", ""] {
        let found = taken(&format!(r#"{{ "credential_cookies": ["ok", "{name}"] }}"#));
        assert_eq!(found, Some(("credential_cookies", name.to_owned())), "{name}");
    }
    for right in [
        "{}",
        r#"{ "credential_cookies": ["sid", "__Host-Session", "a.b_c!", "JSESSIONID"] }"#,
        r#"{ "credential_cookies": [] }"#,
        r#"{ "profile": "stripe" }"#,
        r#"{ "header_name": "x-key" }"#,
        r#"{ "header_name": "X-Request-Id" }"#,
        r#"{ "outcome_header_name": "stripe-should-retry" }"#,
        r#"{ "header_name": "x-a", "replay_header_name": "x-b", "outcome_header_name": "x-c" }"#,
        r#"{ "header_name": "x-a", "outcome_header_name": "idempotency-key" }"#,
    ] {
        assert_eq!(taken(right), None, "{right}");
    }
}

#[test]
fn a_section_says_whether_it_has_settings() {
    let json = r#"{ "sled": { "create": false } }"#;
    let config: Sections = serde_json::from_str(json).unwrap();
    assert_eq!([config.layer.is_set(), config.memory.is_set(), config.sled.is_set()], [false, false, true]);
    #[cfg(feature = "fjall")]
    for (json, is_set) in [(r#"{ "fjall": {} }"#, false), (r#"{ "fjall": { "create": false } }"#, true)] {
        let config: Sections = serde_json::from_str(json).unwrap();
        assert_eq!(config.fjall.is_set(), is_set, "{json}");
    }
}
