//! What describes the API to clients.
//!
//! - `discovery.rs`: tells clients what a retry can expect.
//! - `cors.rs`: the layer's headers that scripts of other origins need.
//! - `openapi/`: what the layer does, in an OpenAPI document.

pub(super) mod cors;
mod discovery;
#[cfg(feature = "utoipa")]
pub(super) mod openapi;
