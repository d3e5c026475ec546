//! The Tower layer.
//!
//! One request's story stands in `exchange.rs`, top to bottom; every other file here is a step of it, or a role that
//! Tower asks for (`layer.rs`, `service.rs`, `future.rs`).

mod body;
mod buffered;
mod canonical_json;
mod collect;
#[cfg(feature = "sled")]
mod commit;
mod context;
mod exchange;
mod future;
mod identify;
mod kept;
mod layer;
mod marks;
mod meaning;
mod media_type;
mod multipart;
mod operations;
mod options;
mod read_on;
mod reasons;
mod rejection;
mod service;
mod shared;
mod snapshot;
mod target;

pub use body::{LayerBody, Passage, ReplayBody};
#[cfg(feature = "sled")]
pub use commit::Committed;
pub use context::IdempotencyContext;
pub use future::ResponseFuture;
pub use identify::{CustomBody, FingerprintBody};
pub use kept::KeptHeaders;
pub use layer::IdempotencyLayer;
pub use marks::{Keep, Release, Unknown, answer_panic};
pub use meaning::{Classify, Meaning};
pub use operations::Resolve;
pub use rejection::{Rejection, RejectionKind};
pub use service::IdempotencyService;
