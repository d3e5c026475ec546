//! The parameter of the key says what the layer takes.

use serde_json::{Value, json};
use testkit::lab::Lab;
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

use super::documented;
use super::driven::Driven;

/// The one parameter of the operation.
fn parameter(driven: &Driven) -> Value {
    let document = documented(&driven.over(MemoryStore::new()));
    let parameters = &document["paths"]["/charges"]["post"]["parameters"];
    assert_eq!(parameters.as_array().unwrap().len(), 1, "{parameters}");
    parameters[0].clone()
}

/// Asserts that the layer takes the parameter's example, a key of the most and of the fewest characters, and none that
/// is longer or shorter; and a request without one only if the parameter says so.
async fn assert_takes_what_it_says(driven: &Driven) {
    let parameter = parameter(driven);
    assert_eq!(parameter["in"], "header");
    assert!(parameter["name"].as_str().unwrap().eq_ignore_ascii_case(driven.header), "{parameter}");
    let length = |name: &str| usize::try_from(parameter["schema"][name].as_u64().unwrap()).unwrap();
    let (shortest, longest) = (length("minLength"), length("maxLength"));
    let of_length = |length: usize| {
        let quotes = if driven.is_quoted { "\"" } else { "" };
        format!("{quotes}{}{quotes}", "k".repeat(length - 2 * quotes.len()))
    };
    let lab = Lab::counting(driven.over(MemoryStore::new()));
    for key in [parameter["example"].as_str().unwrap(), &of_length(shortest), &of_length(longest)] {
        assert_eq!(lab.send(driven.with_key(key, "a")).await.status, 200, "{key}");
    }
    for key in [of_length(shortest - 1), of_length(longest + 1)] {
        assert_eq!(lab.send(driven.with_key(&key, "a")).await.refusal(), (400, "key-malformed".to_owned()), "{key}");
    }
    let takes_none = lab.send(Driven::without_key("a")).await.status == 200;
    assert_eq!(parameter["required"], !takes_none);
}

#[tokio::test]
async fn the_parameter_says_which_keys_are_taken() {
    let driven = Driven { layer: IdempotencyLayer::new, header: "idempotency-key", is_quoted: false, limit: 1 };
    assert_takes_what_it_says(&driven).await;
}

#[tokio::test]
async fn the_parameter_says_that_a_key_is_required_and_quoted() {
    let layer = |store| {
        IdempotencyLayer::new(store).require_key(true).strict_keys(true).header_name("x-request-key".parse().unwrap())
    };
    let driven = Driven { layer, header: "x-request-key", is_quoted: true, limit: 1 };
    assert_takes_what_it_says(&driven).await;
    assert_eq!(parameter(&driven)["name"], "X-Request-Key");
}

#[tokio::test]
async fn the_parameter_says_that_a_key_is_a_uuid_of_version_7() {
    const FORM: &str = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}";
    let bare = |store| IdempotencyLayer::new(store).profile(Profile::iceberg());
    let bare = Driven { layer: bare, header: "idempotency-key", is_quoted: false, limit: 1 };
    let quoted = |store| IdempotencyLayer::new(store).profile(Profile::iceberg()).strict_keys(true);
    let quoted = Driven { layer: quoted, header: "idempotency-key", is_quoted: true, limit: 1 };
    for (driven, quote, length) in [(bare, "", json!(36)), (quoted, "\"", json!(38))] {
        let parameter = parameter(&driven);
        let schema = &parameter["schema"];
        assert_eq!((&schema["minLength"], &schema["maxLength"]), (&length, &length));
        assert_eq!(schema["pattern"], format!("^{quote}{FORM}{quote}$"));
        let lab = Lab::counting(driven.over(MemoryStore::new()));
        let example = parameter["example"].as_str().unwrap();
        assert_eq!(lab.send(driven.with_key(example, "a")).await.status, 200, "{example}");
    }
}
