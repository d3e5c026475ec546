//! The JSON API. `openapi.json` describes it.

mod change;
mod json;
mod read;
mod routes;
mod stats;

pub(crate) use routes::router;
