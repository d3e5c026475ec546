//! The parts that a layer adds to a document: the key's parameter, the headers of answers, the schema of a problem.

use http::HeaderName;
use http::header::{LINK, RETRY_AFTER};
use serde_json::Value;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required};

use crate::server::effect::Effect;
use crate::server::header::KeyForm;
use crate::server::options::Options;

/// The name of the problem's schema among the document's components.
pub(super) const PROBLEM: &str = "IdempotencyProblem";

/// A UUID of version 4.
const EXAMPLE: &str = "4d5a7f0e-6f0c-4b8e-9c8e-0f6b1d2a3c4e";

/// A UUID of version 7, and the form of one.
const EXAMPLE_V7: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
const UUID_V7: &str = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}";

/// Returns a header's name as people write it. The case does not count.
pub(super) fn written(name: &HeaderName) -> String {
    let capitalized = |part: &str| {
        let mut part = part.to_owned();
        if let Some(first) = part.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        part
    };
    name.as_str().split('-').map(capitalized).collect::<Vec<_>>().join("-")
}

/// Returns the parameter of the key, as the layer reads it.
pub(super) fn key(options: &Options) -> Parameter {
    const QUOTES: usize = 2;
    let quotes = if options.strict_keys { QUOTES } else { 0 };
    let key_form = options.profile.key_form;
    let (least, choice, example, pattern) = match key_form {
        KeyForm::Any => (1, "a value that is unique to the operation, such as a UUID (version 4)", EXAMPLE, None),
        KeyForm::UuidV7 => (key_form.max_bytes(), "a new UUID (version 7)", EXAMPLE_V7, Some(UUID_V7)),
    };
    let quoted = |text: &str| if options.strict_keys { format!("\"{text}\"") } else { text.to_owned() };
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(least + quotes))
        .max_length(Some(key_form.max_bytes() + quotes))
        .pattern(pattern.map(|pattern| format!("^{}$", quoted(pattern))));
    let form = if options.strict_keys { " The value is in double quotes." } else { "" };
    let description = format!(
        "Makes the request safe to repeat: once it is answered, each repetition gets the same answer, and nothing is \
         done again. Choose {choice}, save it before the first attempt, and send it with every attempt, together with \
         the same request.{form}"
    );
    // The body may have it instead.
    let needs_header = options.require_key && options.key_from.is_none();
    ParameterBuilder::new()
        .name(written(&options.header_name))
        .parameter_in(ParameterIn::Header)
        .required(if needs_header { Required::True } else { Required::False })
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(Value::String(quoted(example))))
        .build()
}

/// Returns what is known of a header of an answer.
pub(super) fn header(name: &HeaderName, options: &Options) -> Header {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let (description, schema) = if *name == options.recorder.replay_header_name {
        let description = "`true` on an answer that was recorded for an earlier request with the same key.";
        (Some(description), text().enum_values(Some(["true"])))
    } else if options.outcome_header_name.as_ref() == Some(name) {
        (Some("What became of the request: `ran`, `replayed`, or the kind of its rejection."), text())
    } else if *name == options.header_name {
        (Some("The key of the request."), text())
    } else if options.profile.retry_header.as_ref() == Some(name) {
        let description = "Whether the same request with the same key may get another answer.";
        (Some(description), text().enum_values(Some(["true", "false"])))
    } else if *name == Effect::HEADER {
        let description = "What the answer says about the operation: `none`, `pending`, `unknown` or `done`, and whether a \
            retry with the same key may get another answer (`;retry`, or `;retry=?0`).";
        (Some(description), text())
    } else if name == RETRY_AFTER {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        (Some("After how many seconds to send the request again, with the same key."), seconds)
    } else if name == LINK {
        (Some("The description of the problem (`rel=\"describedby\"`)."), text())
    } else {
        (None, text())
    };
    HeaderBuilder::new().description(description).schema(Some(schema)).build()
}

/// Returns the schema of a problem. Each layer has the same, because a document has one of this name.
pub(super) fn problem() -> RefOr<Schema> {
    const STATUS: [i32; 2] = [100, 599];
    let of = |kind, said: &str| ObjectBuilder::new().schema_type(kind).description(Some(said));
    let text = |said| of(Type::String, said);
    let status = |said| of(Type::Integer, said).minimum(Some(STATUS[0])).maximum(Some(STATUS[1]));
    let uri = text("The problem type. It ends in its kind, such as `in-flight`.");
    let may_retry = "`true` if the same request with the same key may get another answer later.";
    let id = text("The operation, if an operator can settle it: quote it when you ask.");
    ObjectBuilder::new()
        .description(Some("The reason why a request was rejected (RFC 9457)."))
        .property("type", uri.format(Some(SchemaFormat::Custom("uri-reference".to_owned()))))
        .property("title", text("The kind in a few words, which don't change."))
        .property("status", status("The answer's status."))
        .property("detail", text("What happened this time, and what to do."))
        .property("retry_with_same_key", of(Type::Boolean, may_retry))
        .property("original_status", status("`not-replayable`: the status of the answer that is not stored."))
        .property("record_id", id.pattern(Some("^[0-9a-f]{8}$")))
        .property("label", text("The name that the server has for the operation."))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .required("retry_with_same_key")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_people_write_it() {
        let written = |name: &'static str| written(&HeaderName::from_static(name));
        assert_eq!(
            ["idempotency-key", "x-request--key", "key-"].map(written),
            ["Idempotency-Key", "X-Request--Key", "Key-"]
        );
    }
}
