//! Rejections: when a request gets one, and how it reads.
//!
//! - `reasons.rs`: each reason to reject a request, and the text of the rejection.
//! - `rejection.rs`: what a rejection is, and how it reads as an answer.
//! - `grpc.rs`: how it reads to a gRPC client.

pub(super) mod grpc;
pub(super) mod reasons;
pub(crate) mod rejection;
