//! Finds the operations of a document that a layer covers, and has what the layer does added to them (`addition.rs`).
//! Adds the schema of a problem, and the key's header for Fern's clients, to the document itself.

use http::Method;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};

use super::addition::{Addition, SPEAKEASY};
use super::parts::{self, PROBLEM};
use crate::server::layer_state::LayerState;

/// Names the headers that Fern's clients send with operations that are marked so.
const FERN_HEADERS: &str = "x-fern-idempotency-headers";

/// Adds what a layer does to the operations of a document that it covers, for which `is_covered` returns true.
pub(crate) fn document<St>(layer: &LayerState<St>, openapi: &mut OpenApi, is_covered: impl Fn(&Method, &str) -> bool) {
    let options = &layer.options;
    let may_retry = !openapi.extensions.as_ref().is_some_and(|extensions| extensions.contains_key(SPEAKEASY));
    let addition = Addition::of(options, layer.engine.policy.retention, may_retry);
    let components = openapi.components.get_or_insert_default();
    let mut covers_any = false;
    for (path, item) in &mut openapi.paths.paths {
        let of_path = item.parameters.clone().unwrap_or_default();
        for (method, operation) in operations(item) {
            if options.covers_method(&method) && is_covered(&method, path) {
                addition.add_to(operation, &of_path, components);
                covers_any = true;
            }
        }
    }
    if covers_any {
        components.schemas.entry(PROBLEM.to_owned()).or_insert_with(parts::problem);
        name_header(openapi.extensions.get_or_insert_default(), &parts::written(&options.header_name));
    }
}

/// Returns the operations of a path whose methods a layer can cover.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { put, post, delete, patch, additional_operations, .. } = item;
    let named =
        [(Method::PUT, put), (Method::POST, post), (Method::DELETE, delete), (Method::PATCH, patch)].into_iter();
    let named = named.filter_map(|(method, operation)| Some((method, operation.as_mut()?)));
    let others = additional_operations.iter_mut();
    named.chain(others.filter_map(|(name, operation)| Some((Method::from_bytes(name.as_bytes()).ok()?, operation))))
}

/// Adds the key's header to those that Fern's clients send, unless the document has it.
fn name_header(extensions: &mut Extensions, header: &str) {
    let headers = extensions.entry(FERN_HEADERS.to_owned()).or_insert_with(|| json!([]));
    let is_named = |entry: &Value| entry["header"].as_str().is_some_and(|named| named.eq_ignore_ascii_case(header));
    if let Some(headers) = headers.as_array_mut().filter(|headers| !headers.iter().any(is_named)) {
        let name = header.to_ascii_lowercase().replace('-', "_");
        headers.push(json!({ "header": header, "name": name }));
    }
}
