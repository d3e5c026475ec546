//! Adds to what an application says about its operation, and takes nothing away.

use std::collections::BTreeMap;

use utoipa::openapi::content::Content;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{RefOr, Required};

use super::rejections::INTRODUCTION;

/// The most references from one to the next that are followed.
const MAX_STEPS: usize = 8;

/// Returns what a part of the document is, looking it up among the components of its `section` if it is a reference.
/// `None`: it is elsewhere.
pub(super) fn resolved<'a, T>(
    mut part: &'a RefOr<T>,
    section: &str,
    components: &'a BTreeMap<String, RefOr<T>>,
) -> Option<&'a T> {
    for _ in 0..MAX_STEPS {
        match part {
            RefOr::T(part) => return Some(part),
            RefOr::Ref(reference) => {
                let name = reference.ref_location.strip_prefix("#/components/")?.strip_prefix(section)?;
                part = components.get(name.strip_prefix('/')?)?;
            }
        }
    }
    None
}

/// Adds the key's parameter. One of the same name stays as it is, but is required if `ours` is. `of_path` are the
/// parameters of all operations of the path.
pub(super) fn parameter(
    own: &mut Vec<RefOr<Parameter>>,
    of_path: &[RefOr<Parameter>],
    components: &BTreeMap<String, RefOr<Parameter>>,
    ours: &Parameter,
) {
    let same = |part: &RefOr<Parameter>| {
        resolved(part, "parameters", components)
            .filter(|own| own.parameter_in == ParameterIn::Header && own.name.eq_ignore_ascii_case(&ours.name))
            .cloned()
    };
    let at = own.iter().position(|part| same(part).is_some());
    let found = at.map_or_else(|| of_path.iter().find_map(same), |at| same(&own[at]));
    let mut parameter = found.unwrap_or_else(|| ours.clone());
    if ours.required == Required::True {
        parameter.required = Required::True;
    }
    match at {
        Some(at) => own[at] = RefOr::T(parameter),
        // It goes before the path's own.
        None => own.push(RefOr::T(parameter)),
    }
}

/// Returns whether a response is a layer's alone, so that no handler gives it.
pub(super) fn is_rejection(response: &Response) -> bool {
    response.description.starts_with(INTRODUCTION)
}

/// Adds the description, the headers and the contents of `ours` to a response.
pub(super) fn response(own: &mut Response, ours: &Response) {
    if !own.description.contains(&ours.description) {
        if !own.description.is_empty() {
            own.description.push_str("\n\n");
        }
        own.description.push_str(&ours.description);
    }
    for (name, header) in &ours.headers {
        if !own.headers.keys().any(|own| own.eq_ignore_ascii_case(name)) {
            own.headers.insert(name.clone(), header.clone());
        }
    }
    for (media_type, theirs) in &ours.content {
        match (own.content.get_mut(media_type), theirs) {
            (None, _) => drop(own.content.insert(media_type.clone(), theirs.clone())),
            (Some(RefOr::T(own)), RefOr::T(ours)) => content(own, ours),
            // The application's own, which other responses may have, too.
            (Some(_), _) => {}
        }
    }
}

/// Adds the schema and the examples of `ours` to a content of the same media type.
fn content(own: &mut Content, ours: &Content) {
    own.schema = match (own.schema.take(), &ours.schema) {
        (Some(own), Some(ours)) => Some(either(own, ours)),
        // One of them may be anything.
        _ => None,
    };
    // A content has either one example or several.
    if own.example.is_none() {
        for (name, example) in &ours.examples {
            own.examples.entry(name.clone()).or_insert_with(|| example.clone());
        }
    }
}

/// Returns the schema of what is `own` or `ours`.
fn either(own: RefOr<Schema>, ours: &RefOr<Schema>) -> RefOr<Schema> {
    match own {
        own if own == *ours => own,
        RefOr::T(Schema::AnyOf(any)) if any.items.contains(ours) => RefOr::T(Schema::AnyOf(any)),
        own => AnyOfBuilder::new().item(own).item(ours.clone()).into(),
    }
}
