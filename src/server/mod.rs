//! The Tower layer.
//!
//! `docs/journey.md` follows one request through the files, from `service.rs` to `layer_state.rs`. The modules that
//! it does not name:
//!
//! | module | what it is for |
//! |---|---|
//! | `layer.rs` | the Tower layer |
//! | `builder.rs` | the methods that set its options |
//! | `way.rs` | whether a request is passed on, rejected, or an exchange |
//! | `header.rs` | reads the header `Idempotency-Key` |
//! | `key_from.rs`, `pointer.rs` | a key in the body |
//! | `in_body.rs` | answers a request that may have one |
//! | `read.rs` | reads the body of a request |
//! | `future.rs` | the future that the service returns |
//! | `read_on.rs` | reads on the body of a rejected request, so that its connection stays usable |
//! | `visibility.rs` | the options that decide what operators see |
//! | `cors.rs` | the layer's headers that scripts of other origins need |
//! | `openapi/` | what the layer does, in an OpenAPI document |
//! | `origin.rs` | what a record keeps of where its operation came from |
//! | `profile.rs` | what clients of an API expect of its keys: statuses, codes, forms |
//! | `discovery.rs` | sets the profile, and tells clients what a retry can expect |
//! | `checked.rs` | marks what an extractor rejects as invalid |
//! | `scope.rs` | what a function that says whose a key is may return |
//! | `account.rs` | a scope of a request's credentials |
//! | `committed.rs` | what a handler returns that has committed its effect and its answer in one transaction |
//! | `effect.rs` | what an answer that is no outcome says about the operation |
//! | `on_replay.rs` | asks the application before a recorded answer is given again |
//! | `probe.rs`, `look.rs` | a request that asks what a retry would get, and that never runs; its answer |
//! | `not_applied.rs` | the statuses that say that nothing was done |
//! | `warnings.rs` | refuses names of headers, and warns of options that switch the protection off |
//! | `drain.rs` | drain, and the counts |
//! | `health.rs` | the probes `/livez` and `/readyz` |

// The page of a type has its methods in the order of the modules: first how to make a layer, then its options.
pub(crate) mod layer;

mod builder;

mod account;
pub(crate) mod answer;
mod bodies;
#[cfg(feature = "axum")]
mod checked;
mod committed;
pub(crate) mod context;
mod cors;
mod discovery;
mod drain;
pub(crate) mod effect;
pub(crate) mod fingerprint;
mod future;
pub(crate) mod header;
pub mod health;
mod in_body;
mod key_from;
mod layer_state;
mod look;
mod not_applied;
mod on_replay;
#[cfg(feature = "utoipa")]
mod openapi;
mod options;
mod origin;
mod pointer;
mod probe;
mod profile;
mod read;
mod read_on;
pub(crate) mod reject;
mod rejected;
mod request;
mod scope;
mod service;
mod visibility;
mod warnings;
mod way;

pub use answer::kept_headers::KeptHeaders;
pub use answer::marks::answer_panic;
pub use answer::meaning::Classify;
pub use bodies::body::{AnyBody, BodyMode, KeepBody, Passage, ReplayBody, SendBody};
#[cfg(feature = "axum")]
pub use checked::Checked;
pub use committed::Committed;
pub use cors::CorsHeaders;
pub use effect::Effect;
pub use fingerprint::credential_lists::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};
pub use fingerprint::identify::{CustomBody, LeftOut};
pub use future::ResponseFuture;
pub use header::KeyForm;
pub use key_from::KeyFrom;
pub use on_replay::Replay;
pub use pointer::NotAPlace;
pub use profile::{Envelope, Profile};
pub use scope::IntoScope;
pub use service::IdempotencyService;
pub use warnings::WrongName;
