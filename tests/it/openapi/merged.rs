//! What an application says of its operations stays, and only those are added to that the layer covers.

use http::Method;
use serde_json::{Value, json};
use testkit::lab::layer;
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use utoipa::openapi::OpenApi;

use super::{api, charge, documented};

fn json_of(api: &OpenApi) -> Value {
    serde_json::to_value(api).unwrap()
}

/// The operation of this method, of a document that `layer` has added to.
fn added(layer: &IdempotencyLayer<MemoryStore>, operation: &Value, besides: Value) -> (Value, Value) {
    let mut api = api(&json!({ "/charges": { "post": operation } }), besides);
    layer.document(&mut api);
    let document = json_of(&api);
    (document["paths"]["/charges"]["post"].clone(), document)
}

#[test]
fn only_operations_that_the_layer_covers_are_documented() {
    let paths = json!({
        "/charges": { "get": charge(), "post": charge(), "patch": charge(), "put": charge(), "delete": charge() },
        "/charges/{id}": { "post": charge() },
    });
    let has_key = |document: &Value, method: &str, path: &str| {
        let operation = &document["paths"][path][method];
        let (key, marked) = (operation.get("parameters").is_some(), operation.get("x-fern-idempotent").is_some());
        assert_eq!(key, marked);
        assert_eq!(key, operation["responses"].get("409").is_some());
        key
    };
    let covered = |document: &Value| -> Vec<(&str, &str)> {
        let operations = ["get", "post", "patch", "put", "delete"].map(|method| (method, "/charges"));
        let all = operations.into_iter().chain([("post", "/charges/{id}")]);
        all.filter(|(method, path)| has_key(document, method, path)).collect()
    };
    let mut by_default = api(&paths, json!({}));
    layer().document(&mut by_default);
    let expected = [("post", "/charges"), ("patch", "/charges"), ("post", "/charges/{id}")];
    assert_eq!(covered(&json_of(&by_default)), expected);

    let mut chosen = api(&paths, json!({}));
    let layer = layer().methods([Method::PUT, Method::DELETE]);
    layer.document_where(&mut chosen, |method, path| *method == Method::DELETE && path == "/charges");
    assert_eq!(covered(&json_of(&chosen)), [("delete", "/charges")]);

    let before = api(&paths, json!({}));
    let mut none = before.clone();
    layer.document_where(&mut none, |_, _| false);
    assert!(none.paths == before.paths && none.extensions == before.extensions);
}

#[test]
fn a_document_that_is_added_to_twice_is_the_same() {
    let mut api = api(&json!({ "/charges": { "post": charge() } }), json!({}));
    let layer = layer().require_key(true);
    layer.document(&mut api);
    let once = api.clone();
    layer.document(&mut api);
    assert_eq!(json_of(&api), json_of(&once));
}

#[test]
fn a_response_of_the_application_s_own_keeps_what_it_says() {
    let own = json!({
        "responses": {
            "409": {
                "description": "Already refunded",
                "headers": { "retry-after": { "schema": { "type": "string" }, "description": "A date" } },
                "content": { "application/json": { "schema": { "type": "object" } } },
            },
            "422": {
                "description": "Declined",
                "content": { "application/problem+json": { "schema": { "type": "object", "title": "Declined" } } },
            },
            "default": { "description": "Anything" },
        }
    });
    let (operation, _) = added(&layer(), &own, json!({}));
    let (conflict, declined) = (&operation["responses"]["409"], &operation["responses"]["422"]);
    let description = conflict["description"].as_str().unwrap();
    assert!(description.starts_with("Already refunded\n\n") && description.contains("`in-flight`"), "{description}");
    assert_eq!(conflict["headers"]["retry-after"]["description"], "A date");
    assert_eq!(conflict["headers"].get("Retry-After"), None, "a header has one name");
    assert_eq!(conflict["content"]["application/json"], json!({ "schema": { "type": "object" } }));
    let reference = json!({ "$ref": "#/components/schemas/IdempotencyProblem" });
    assert_eq!(conflict["content"]["application/problem+json"]["schema"], reference);
    let either = &declined["content"]["application/problem+json"]["schema"]["anyOf"];
    assert_eq!((&either[0]["title"], &either[1]), (&json!("Declined"), &reference));
    // The handler gives them, and so they may be replayed.
    for response in [conflict, declined, &operation["responses"]["default"]] {
        assert!(response["headers"].get("Idempotent-Replayed").is_some(), "{response}");
    }
    assert_eq!(operation["responses"]["503"]["headers"].get("Idempotent-Replayed"), None, "the layer's alone");
}

#[test]
fn a_response_that_others_have_too_is_not_changed_for_them() {
    let own = json!({
        "responses": {
            "200": { "$ref": "#/components/responses/Charged" },
            "409": { "$ref": "#/components/responses/Conflict" },
            "503": { "$ref": "https://pay.example/api.json#/components/responses/Away" },
        }
    });
    let components = json!({ "components": { "responses": {
        "Charged": { "description": "Charged" },
        "Conflict": { "$ref": "#/components/responses/Other" },
        "Other": { "description": "Already refunded" },
    } } });
    let (operation, document) = added(&layer(), &own, components.clone());
    assert_eq!(document["components"]["responses"], components["components"]["responses"]);
    assert!(operation["responses"]["200"]["headers"].get("Idempotent-Replayed").is_some());
    assert!(operation["responses"]["409"]["description"].as_str().unwrap().starts_with("Already refunded\n\n"));
    assert_eq!(operation["responses"]["503"], own["responses"]["503"], "it is not in this document");
}

#[test]
fn a_parameter_of_the_application_s_own_stays_and_is_required_if_the_layer_requires_it() {
    let parameter = |required: bool| json!({ "name": "idempotency-key", "in": "header", "required": required, "description": "Ours" });
    let query = json!({ "name": "Idempotency-Key", "in": "query", "required": false });
    let inline = json!({ "parameters": [query, parameter(false)], "responses": {} });
    let (operation, _) = added(&layer(), &inline, json!({}));
    assert_eq!(operation["parameters"], json!([query, parameter(false)]));
    let (operation, _) = added(&layer().require_key(true), &inline, json!({}));
    assert_eq!(operation["parameters"], json!([query, parameter(true)]));

    let referred = json!({ "parameters": [{ "$ref": "#/components/parameters/Key" }], "responses": {} });
    let components = json!({ "components": { "parameters": { "Key": parameter(false) } } });
    let (operation, document) = added(&layer().require_key(true), &referred, components);
    assert_eq!(operation["parameters"], json!([parameter(true)]));
    assert_eq!(document["components"]["parameters"]["Key"], parameter(false));

    let mut of_path = api(&json!({ "/charges": { "parameters": [parameter(false)], "post": charge() } }), json!({}));
    layer().require_key(true).document(&mut of_path);
    let of_path = json_of(&of_path);
    assert_eq!(of_path["paths"]["/charges"]["post"]["parameters"], json!([parameter(true)]));
    assert_eq!(of_path["paths"]["/charges"]["parameters"], json!([parameter(false)]));
}

#[test]
fn generators_find_the_header_and_the_operations() {
    let document = documented(&layer());
    let headers = json!([{ "header": "Idempotency-Key", "name": "idempotency_key" }]);
    assert_eq!(document["x-fern-idempotency-headers"], headers);
    let operation = &document["paths"]["/charges"]["post"];
    assert_eq!(operation["x-fern-idempotent"], true);
    assert_eq!(operation.get("x-speakeasy-retries"), None, "without a key a retry would be a second effect");

    let retries = &documented(&layer().require_key(true))["paths"]["/charges"]["post"]["x-speakeasy-retries"];
    assert_eq!((&retries["statusCodes"], &retries["retryConnectionErrors"]), (&json!(["503"]), &json!(true)));
    assert_eq!(retries["backoff"]["maxElapsedTime"], 3_600_000);
    let short = layer().require_key(true).retention(std::time::Duration::from_secs(60));
    let short = &documented(&short)["paths"]["/charges"]["post"]["x-speakeasy-retries"];
    assert_eq!(short["backoff"]["maxElapsedTime"], 30_000, "a retry after the retention runs again");
}

#[test]
fn extensions_and_a_schema_of_the_application_s_own_stay() {
    let besides = json!({
        "x-fern-idempotency-headers": [{ "header": "idempotency-key", "name": "key" }],
        "x-speakeasy-retries": { "strategy": "none" },
        "components": { "schemas": { "IdempotencyProblem": { "type": "object", "title": "Ours" } } },
    });
    let mut own = charge();
    own["x-fern-idempotent"] = json!(false);
    let (operation, document) = added(&layer().require_key(true), &own, besides.clone());
    assert_eq!(document["x-fern-idempotency-headers"], besides["x-fern-idempotency-headers"]);
    assert_eq!(document["components"]["schemas"]["IdempotencyProblem"]["title"], "Ours");
    assert_eq!(operation["x-fern-idempotent"], false);
    assert_eq!(operation.get("x-speakeasy-retries"), None, "the document says it for all operations");

    let other = json!({ "x-fern-idempotency-headers": [{ "header": "X-Expires", "name": "expires" }] });
    let (_, document) = added(&layer(), &charge(), other);
    assert_eq!(document["x-fern-idempotency-headers"].as_array().unwrap().len(), 2);
}
