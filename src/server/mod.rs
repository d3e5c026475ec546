//! The Tower layer.
//!
//! `exchange.rs` tells one request's story from top to bottom. The files, in the order of a request's way:
//!
//! | file | what it is for |
//! |---|---|
//! | `layer.rs` | the Tower layer, and the methods that set its options |
//! | `options.rs` | the options' values and defaults |
//! | `shared.rs` | what all services of a layer share, and the answers that the layer gives by itself |
//! | `service.rs` | the Tower service: passes a request on, rejects it, or begins an exchange |
//! | `future.rs` | the future that the service returns |
//! | `exchange.rs` | one request with a key, from its head to its answer |
//! | `collect.rs` | reads a body, within bounds |
//! | `room.rs` | bounds the bytes of all request bodies that are being read |
//! | `read_on.rs` | reads on the body of a rejected request, so that its connection stays usable |
//! | `identify.rs` | makes the fingerprint, which says whether two requests are the same |
//! | `target.rs` | its part for host, path and query |
//! | `credentials.rs`, `credential_lists.rs` | its part for who asks |
//! | `media_type.rs` | its part for the content type |
//! | `multipart.rs` | its part for the body of a form |
//! | `canonical_json.rs` | its part for a body that is JSON |
//! | `context.rs` | what a handler can ask about its own run |
//! | `complete_in.rs`, `complete_in_trees.rs` | how a handler commits its effect and its answer in one transaction |
//! | `committed.rs` | what such a handler returns |
//! | `marks.rs` | what a handler can say of its own answer |
//! | `meaning.rs` | decides what an answer means for the key |
//! | `snapshot.rs` | turns an answer into the bytes of an outcome, and back |
//! | `kept_headers.rs` | says which headers of an answer are recorded |
//! | `body.rs` | the body types that go through the layer |
//! | `reasons.rs` | each reason to reject a request, and the text of the rejection |
//! | `rejection.rs` | what a rejection is, and how it reads as an answer |
//! | `scope.rs` | what a function that says whose a key is may return |
//! | `operations.rs` | what operators do with a layer |

mod body;
mod canonical_json;
mod collect;
#[cfg(any(feature = "sled", feature = "shared"))]
mod committed;
#[cfg(feature = "shared")]
mod complete_in;
#[cfg(feature = "sled")]
mod complete_in_trees;
pub(crate) mod context;
mod credential_lists;
mod credentials;
mod exchange;
mod future;
mod grpc;
pub(crate) mod identify;
mod kept_headers;
pub(crate) mod layer;
pub(crate) mod marks;
pub(crate) mod meaning;
mod media_type;
mod multipart;
mod operations;
mod options;
mod read_on;
mod reasons;
pub(crate) mod rejection;
mod room;
mod scope;
mod service;
mod shared;
mod snapshot;
mod target;

pub use body::{AnyBody, BodyMode, KeepBody, Passage, ReplayBody, SendBody};
#[cfg(any(feature = "sled", feature = "shared"))]
pub use committed::Committed;
pub use credential_lists::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};
pub use future::ResponseFuture;
pub use identify::CustomBody;
pub use kept_headers::KeptHeaders;
pub use marks::answer_panic;
pub use meaning::Classify;
pub use scope::IntoScope;
pub use service::IdempotencyService;
