//! The layer in its stack: bodies and connections, other layers inside and outside, and the form of a refusal.

mod any_body;
mod body_types;
mod discovery;
mod fallbacks;
mod firefox;
mod iceberg;
mod layers;
mod problems;
mod profiles;
mod record_id;
mod refused_early;
mod service;
