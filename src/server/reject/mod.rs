//! Rejections: when a request gets one, and how it reads.
//!
//! - `reasons.rs`: each reason to reject a request, and the text of the rejection.
//! - `rejection.rs`: what a rejection is, and how it reads as an answer.
//! - `envelope.rs`: how it reads in the forms of Stripe's API, the Agentic Commerce Protocol, Apache Iceberg's catalog
//!   and
//!   JSON-RPC, whose `id` `rpc/reply.rs` sets.
//! - `grpc.rs`: how it reads to a gRPC client.

pub(super) mod envelope;
pub(super) mod grpc;
pub(super) mod reasons;
pub(crate) mod rejection;
