//! What the document says is what the layer does: each answer is documented, and what is documented was seen.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use testkit::Answer;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, Rejection, RejectionKind};

use super::documented;
use super::driven::{Driven, Seen};

/// The headers that HTTP itself says something of.
const NOT_DOCUMENTED: [&str; 3] = ["content-type", "content-length", "connection"];

/// What is documented of an operation, or was seen of it.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// A status, and a header that an answer with it has.
    headers: BTreeSet<(String, String)>,
    /// A status, and a kind of rejection.
    kinds: BTreeSet<(String, String)>,
    /// A status, and the media type of an answer with it.
    media_types: BTreeSet<(String, String)>,
    /// The members of problems.
    members: BTreeSet<String>,
}

/// All that a document says of its one operation.
fn said(document: &Value) -> Said {
    let mut said = Said::default();
    for (status, response) in document["paths"]["/charges"]["post"]["responses"].as_object().unwrap() {
        let headers = response["headers"].as_object().into_iter().flatten();
        said.headers.extend(headers.map(|(name, _)| (status.clone(), name.to_lowercase())));
        for (media_type, content) in response["content"].as_object().into_iter().flatten() {
            said.media_types.insert((status.clone(), media_type.clone()));
            let kinds = content["examples"].as_object().into_iter().flatten();
            said.kinds.extend(kinds.map(|(kind, _)| (status.clone(), kind.clone())));
            if content["schema"]["$ref"] == "#/components/schemas/IdempotencyProblem" {
                let members = document["components"]["schemas"]["IdempotencyProblem"]["properties"].as_object();
                said.members.extend(members.unwrap().keys().cloned());
            }
        }
    }
    said
}

/// All that was seen. What is documented of it has to hold.
fn seen(all: &[Seen], document: &Value) -> Said {
    let mut seen = Said::default();
    for Seen { rejection, answer } in all {
        let status = answer.status.as_str().to_owned();
        let response = &document["paths"]["/charges"]["post"]["responses"][&status];
        for (name, value) in &answer.headers {
            if !NOT_DOCUMENTED.contains(&name.as_str()) {
                seen.headers.insert((status.clone(), name.to_string()));
                let documented = response["headers"].as_object().into_iter().flatten();
                let schema = documented
                    .filter(|(own, _)| own.eq_ignore_ascii_case(name.as_str()))
                    .map(|(_, header)| &header["schema"]);
                let value: &str = value.to_str().unwrap();
                let value = value.parse::<u64>().map_or(json!(value), Value::from);
                schema.for_each(|schema| assert_fits(schema, &value));
            }
        }
        let media_type = answer.header("content-type").map(|value| value.split(';').next().unwrap().to_owned());
        let content = &response["content"][media_type.as_deref().unwrap_or_default()];
        seen.media_types.extend(media_type.map(|media_type| (status.clone(), media_type)));
        if let Some(rejection) = rejection {
            let kind = rejection.kind.slug();
            let description = response["description"].as_str().unwrap();
            assert!(description.contains(&format!("- `{kind}`: {}", rejection.title)), "{description}");
            seen.kinds.insert((status.clone(), kind.to_owned()));
            if content["schema"].is_object() {
                seen.members.extend(members(document, answer));
            }
        }
    }
    seen
}

/// The members of a problem. Those that the document has have to be as it says.
fn members(document: &Value, answer: &Answer) -> Vec<String> {
    let (problem, schema) = (answer.json(), &document["components"]["schemas"]["IdempotencyProblem"]);
    for required in schema["required"].as_array().unwrap() {
        assert!(problem.get(required.as_str().unwrap()).is_some(), "{required} is missing: {problem}");
    }
    for (name, documented) in schema["properties"].as_object().unwrap() {
        problem.get(name).into_iter().for_each(|member| assert_fits(documented, member));
    }
    problem.as_object().unwrap().keys().cloned().collect()
}

/// Asserts that a value is what a schema says, of the few things that these schemas say.
#[track_caller]
fn assert_fits(schema: &Value, value: &Value) {
    let is_of_type = match schema["type"].as_str().unwrap() {
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        _ => value.is_string(),
    };
    assert!(is_of_type, "{value}: {schema}");
    let bounds = [("minimum", 0), ("maximum", u64::MAX)].map(|(name, none)| schema[name].as_u64().unwrap_or(none));
    assert!(value.as_u64().is_none_or(|value| (bounds[0]..=bounds[1]).contains(&value)), "{value}: {schema}");
    assert!(schema["enum"].as_array().is_none_or(|all| all.contains(value)), "{value}: {schema}");
    if schema["pattern"] == "^[0-9a-f]{8}$" {
        let digits = value.as_str().unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    }
}

/// Compares what is documented with what was seen, which is returned. `own` are members of the application's own.
async fn compare(driven: &Driven, own: &[&str]) -> Said {
    let document = documented(&driven.over(MemoryStore::new()));
    let all = driven.all().await;
    let (said, mut seen) = (said(&document), seen(&all, &document));
    own.iter().for_each(|own| assert!(seen.members.remove(*own), "{own}"));
    assert_eq!(said.kinds, seen.kinds);
    assert_eq!(said.headers, seen.headers);
    assert_eq!(said.media_types, seen.media_types);
    assert_eq!(said.members, seen.members);
    seen
}

#[tokio::test(start_paused = true)]
async fn the_document_says_what_a_layer_without_options_does() {
    let driven = Driven { layer: IdempotencyLayer::new, header: "idempotency-key", is_quoted: false, limit: 1 << 20 };
    let seen = compare(&driven, &[]).await;
    let statuses: BTreeSet<_> = seen.kinds.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, BTreeSet::from(["400", "404", "408", "409", "413", "422", "500", "503"]));
    assert!(!seen.kinds.iter().any(|(_, kind)| kind == "key-missing"), "no key is required");
    assert_eq!(seen.members.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_document_follows_the_options_of_the_layer() {
    let layer = |store| {
        IdempotencyLayer::new(store)
            .header_name(HeaderName::from_static("x-request-key"))
            .replay_header_name(HeaderName::from_static("x-replayed"))
            .outcome_header_name(HeaderName::from_static("x-outcome"))
            .problem_base("https://pay.example/problems/")
            .require_key(true)
            .strict_keys(true)
            .max_request_body(8)
    };
    let seen = compare(&Driven { layer, header: "x-request-key", is_quoted: true, limit: 8 }, &[]).await;
    assert!(seen.kinds.contains(&("400".to_owned(), "key-missing".to_owned())));
    for header in ["x-replayed", "x-outcome"] {
        assert!(seen.headers.contains(&("200".to_owned(), header.to_owned())), "{header}");
    }
    assert!(seen.headers.contains(&("503".to_owned(), "x-outcome".to_owned())));
}

/// Another status for one kind, another media type for another one, and a problem with a member and a header besides.
fn render(rejection: &Rejection) -> Response<Bytes> {
    let mut response = match rejection.kind {
        RejectionKind::StoreFull => {
            // Without a status, it gets the rejection's.
            let response = Response::builder().header("content-type", "text/plain");
            response.body(Bytes::from_static(b"full")).unwrap()
        }
        RejectionKind::KeyMalformed => {
            let response =
                Response::builder().status(StatusCode::IM_A_TEAPOT).header("content-type", "application/json");
            response.body(Bytes::from_static(b"{\"code\":\"teapot\"}")).unwrap()
        }
        _ => {
            let mut problem = rejection.problem();
            problem["error"] = json!({ "code": rejection.kind.slug() });
            let mut response = rejection.render();
            *response.body_mut() = Bytes::from(problem.to_string());
            response
        }
    };
    if !rejection.retry_with_same_key {
        response.headers_mut().insert("x-own", "false".parse().unwrap());
    }
    response
}

#[tokio::test(start_paused = true)]
async fn the_document_says_how_the_application_renders_rejections() {
    let layer = |store| IdempotencyLayer::new(store).render_rejection(render);
    let seen =
        compare(&Driven { layer, header: "idempotency-key", is_quoted: false, limit: 1 << 20 }, &["error"]).await;
    let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert!(seen.kinds.contains(&pair("418", "key-malformed")) && seen.kinds.contains(&pair("503", "store-full")));
    assert!(seen.media_types.contains(&pair("503", "text/plain")));
    assert!(seen.headers.contains(&pair("422", "x-own")));
    assert_eq!(seen.members.len(), 8);
}

#[test]
fn the_examples_of_a_layer_with_a_reconciler_say_that_a_retry_finds_out() {
    let reconciler = || Reconciler::<Response<Full<Bytes>>>::new(|_| std::future::ready(Reconciled::StillUnknown));
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let layer = IdempotencyLayer::new(MemoryStore::new()).on_interrupted(policy).reconcile_with(reconciler());
        let document = documented(&layer);
        for status in ["409", "500"] {
            let content = &document["paths"]["/charges"]["post"]["responses"][status]["content"];
            let example = &content["application/problem+json"]["examples"]["outcome-unknown"]["value"];
            assert_eq!(example["retry_with_same_key"], true, "{policy:?} {example}");
            assert!(!example["detail"].as_str().unwrap().contains("run again"), "{policy:?} {example}");
        }
    }
}
