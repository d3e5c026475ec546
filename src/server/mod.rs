//! The Tower layer.
//!
//! `docs/journey.md` follows one request through the files, and says what each is for.

// First, because rustdoc lists the methods of `IdempotencyLayer` in the order of the modules.
pub(crate) mod layer;

pub(crate) mod answer;
mod bodies;
mod committed;
pub(crate) mod context;
mod describe;
pub(crate) mod effect;
pub(crate) mod fingerprint;
mod future;
mod gate;
pub(crate) mod header;
pub mod health;
mod in_body;
mod key_from;
mod layer_state;
mod look;
mod members;
pub(crate) mod not_applied;
mod on_replay;
mod options;
mod pointer;
mod profile;
pub(crate) mod reject;
mod rejected;
mod request;
mod rpc;
mod service;
mod warnings;

#[cfg(feature = "axum")]
pub use answer::checked::Checked;
pub use answer::kept_headers::KeptHeaders;
pub use answer::marks::answer_panic;
pub use answer::meaning::Classify;
pub use bodies::body::{AnyBody, BodyMode, KeepBody, Passage, ReplayBody, SendBody};
pub use committed::Committed;
pub use describe::cors::CorsHeaders;
pub use effect::Effect;
pub use fingerprint::credential_lists::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};
pub use fingerprint::identify::{CustomBody, LeftOut};
pub use future::ResponseFuture;
pub use gate::scope::IntoScope;
pub use header::KeyForm;
pub use key_from::KeyFrom;
pub use on_replay::Replay;
pub use pointer::NotAPlace;
pub use profile::{Envelope, Profile};
pub use rpc::calls::RpcCalls;
pub use service::IdempotencyService;
pub use tower_idempotency_meaning::{Answer, BodyJudge, Rule, Says, WrongRule};
pub use warnings::WrongName;
