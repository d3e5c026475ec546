//! Calls of JSON-RPC, such as calls of tools over MCP: the profiles `json-rpc` and `mcp`. And streams that are answers,
//! also those of other calls, under `max_stream`.
//!
//! - `calls.rs`: which requests are calls with keys.
//! - `reply.rs`: what an answer of the layer's own needs of the call: its `id`, and the form that its client takes.
//! - `events.rs`: the events of a stream.
//! - `stream.rs`: a stream that is an answer.
//! - `live.rs`: the body of such an answer while its run goes on.

pub(super) mod calls;
pub(super) mod events;
pub(super) mod live;
pub(super) mod reply;
pub(super) mod stream;
