//! What a layer does, in an OpenAPI document: the feature `utoipa`.
//!
//! - `document.rs`: finds the operations in a document.
//! - `addition.rs`: what is added to each of them.
//! - `merge.rs`: adds to a response, or to the parameters, without losing what the application says.
//! - `rejections.rs`: the responses of rejections, made of the layer's own answers.
//! - `samples.rs`: the rejections that a layer can give.
//! - `parts.rs`: the parameter, the headers and the schema.

mod addition;
mod document;
mod merge;
mod parts;
mod rejections;
mod samples;

pub(in crate::server) use document::document;
