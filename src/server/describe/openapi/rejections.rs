//! The responses by which a layer rejects requests. They are made of the layer's own answers, so that they say what it
//! does, also where the application renders rejections.

use std::collections::BTreeMap;
use std::mem::discriminant;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::Value;
use utoipa::openapi::content::Content;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::response::Response as Documented;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Ref, RefOr};

use super::parts::{self, PROBLEM};
use super::samples;
use crate::server::options::Options;
use crate::server::reject::rejection::Rejection;
use crate::server::rejected;

/// The first line of what is said about a status. A response that begins with it is a layer's, and no handler's.
pub(super) const INTRODUCTION: &str = "Not answered by the operation itself, for one of these reasons:\n";

/// Returns the rejections of a layer with these options, by their status.
pub(super) fn responses(options: &Options) -> BTreeMap<String, Documented> {
    let mut responses = BTreeMap::new();
    for rejection in samples::rejections(options) {
        let answer = rejected::answer(options, rejection.clone(), false);
        let status = answer.status().as_str().to_owned();
        add(responses.entry(status).or_insert_with(|| Documented::new(INTRODUCTION)), options, &rejection, &answer);
    }
    responses
}

/// Adds the answer to a rejection to the response of its status.
fn add(response: &mut Documented, options: &Options, rejection: &Rejection, answer: &Response<Bytes>) {
    let reason = format!("\n- `{}`: {}", rejection.kind.slug(), rejection.title);
    if !response.description.contains(&reason) {
        response.description.push_str(&reason);
    }
    // The first two are not headers in the sense of OpenAPI, and the last one is the connection's.
    let names = answer.headers().keys().filter(|name| ![CONTENT_TYPE, CONTENT_LENGTH, CONNECTION].contains(name));
    let names = names.chain(options.profile.echo_key.then_some(&options.header_name));
    response.headers.extend(names.map(|name| (parts::written(name), parts::header(name, options).into())));

    let media_type = answer.headers().get(CONTENT_TYPE).map(HeaderValue::to_str);
    let (Some(Ok(media_type)), Some(body)) = (media_type, value(answer.body())) else { return };
    let schema = has_members_of(&body, rejection).then(|| Ref::from_schema_name(PROBLEM));
    let empty = || Content::new(schema.clone()).into();
    let content = response.content.entry(media_type.to_owned()).or_insert_with(empty);
    let RefOr::T(content) = content else { return };
    // The rejections of a status share its content. One whose example is no problem takes the schema from all of them:
    // what is said of the status has to hold for each.
    if schema.is_none() {
        content.schema = None::<RefOr<Schema>>;
    }
    let example = ExampleBuilder::new().summary(rejection.title).value(Some(body));
    content.examples.entry(rejection.kind.slug().to_owned()).or_insert_with(|| example.into());
}

/// Returns a body as an example: as JSON or as text, or `None` if it is neither.
fn value(body: &Bytes) -> Option<Value> {
    let text = || std::str::from_utf8(body).ok().filter(|text| !text.is_empty());
    serde_json::from_slice(body).ok().or_else(|| text().map(Value::from))
}

/// Returns whether a body has all members of the rejection's problem, of the same types, so that the problem's schema
/// describes it.
fn has_members_of(body: &Value, rejection: &Rejection) -> bool {
    let Value::Object(members) = rejection.problem() else { return false };
    members
        .iter()
        .all(|(name, member)| body.get(name).is_some_and(|of_body| discriminant(of_body) == discriminant(member)))
}
