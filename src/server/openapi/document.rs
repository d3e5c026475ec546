//! Finds the operations of a document that a layer covers.

use http::Method;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};

use super::addition::{Addition, SPEAKEASY};
use super::parts::{self, PROBLEM};
use crate::server::layer::IdempotencyLayer;

/// Names the headers that Fern's clients send with operations that are marked so.
const FERN_HEADERS: &str = "x-fern-idempotency-headers";

/// Documentation for clients: the feature `utoipa`.
impl<St, M> IdempotencyLayer<St, M> {
    /// Adds what this layer does to an OpenAPI document: to all operations with a method that it covers.
    ///
    /// - The parameter of the key, required if [`require_key`](Self::require_key) is set and
    ///   [`key_from`](Self::key_from) is not.
    /// - A response for each status with which the layer rejects requests, with an example of each kind: 400, 408, 409,
    ///   413, 422, 500 and 503 by default. They are made by calling the function of
    ///   [`render_rejection`](Self::render_rejection), if there is one. The statuses of your own rejections, from
    ///   `scope`, are yours to document.
    /// - The headers of answers: the mark of a replay and the header of
    ///   [`outcome_header_name`](Self::outcome_header_name) on the responses that your handler gives, `Retry-After` and
    ///   `Link` on rejections.
    /// - The schema `IdempotencyProblem` among the components.
    /// - What generators of clients read: `x-fern-idempotent` and `x-fern-idempotency-headers` for Fern. Where a key is
    ///   required, also `x-speakeasy-retries` for Speakeasy: connection errors and 503 are tried again, for an hour or
    ///   half of the [`retention`](Self::retention) at most. Stainless reads its configuration instead.
    ///
    /// What the document says already stays: a response of the same status gets the rejections in addition, and one
    /// that is a reference to a component becomes a copy of it first. A parameter of the same name, an extension or a
    /// schema of the same name is kept. A reference to another document can't be added to.
    ///
    /// A document does not say what the function of [`covers`](Self::covers) does. If you have set one, use
    /// [`document_where`](Self::document_where).
    ///
    /// ```
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem, PathsBuilder};
    /// use utoipa::openapi::{OpenApi, OpenApiBuilder, ResponseBuilder};
    ///
    /// // As a rule, `#[derive(OpenApi)]` or utoipa-axum makes it.
    /// let charge = OperationBuilder::new().response("200", ResponseBuilder::new().description("The charge"));
    /// let charges = PathItem::new(HttpMethod::Post, charge);
    /// let mut api: OpenApi = OpenApiBuilder::new().paths(PathsBuilder::new().path("/charges", charges)).build();
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true);
    /// layer.document(&mut api);
    ///
    /// let charge = &serde_json::to_value(&api)?["paths"]["/charges"]["post"];
    /// assert_eq!(charge["parameters"][0]["name"], "Idempotency-Key");
    /// assert!(charge["responses"]["200"]["headers"].get("Idempotent-Replayed").is_some());
    /// assert!(charge["responses"]["409"]["headers"].get("Retry-After").is_some());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn document(&self, openapi: &mut OpenApi) {
        self.document_where(openapi, |_, _| true);
    }

    /// Adds what this layer does to the operations of an OpenAPI document for which `is_covered` returns true, of those
    /// with a method that the layer covers. The function is given the operation's method and its path as the document
    /// has it, such as `/charges/{id}`. Everything else is as for [`document`](Self::document).
    ///
    /// ```
    /// # use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// # let mut api = utoipa::openapi::OpenApi::default();
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).covers(|parts| parts.uri.path().starts_with("/v1/"));
    /// layer.document_where(&mut api, |_, path| path.starts_with("/v1/"));
    /// ```
    pub fn document_where(&self, openapi: &mut OpenApi, is_covered: impl Fn(&Method, &str) -> bool) {
        let options = &self.state().options;
        let may_retry = !openapi.extensions.as_ref().is_some_and(|extensions| extensions.contains_key(SPEAKEASY));
        let addition = Addition::of(options, self.state().engine.policy.retention, may_retry);
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
