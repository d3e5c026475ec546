//! The guide: how to use the layer, how to run it, and what to expect of it.
//!
//! - To begin: [`try_it`], [`answers`], [`layer_order`], [`options`], [`stacks`]
//! - To decide: [`promises`], [`policies`], [`exactly_once`], [`same_request`], [`unknown_answers`], [`handlers`]
//! - To run: [`operators`], [`security`], [`mod@sled`], [`mod@shared`], [`performance`]
//! - To trust: [`testing`], [`laboratories`], [`failures`](mod@crate::failures)
//!
//! The pages are the files under `docs/` of the repository.

// Each page has its links twice: at its end to files, for those who read it in the repository, and here, in front of
// it, to these docs. Of two definitions of a link the first one counts.
//
// A page is always part of these docs. Its examples are compiled only where the features are there that they need.

/// A payment server to try, with what can go wrong.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/try-it.md")]
pub mod try_it {}

/// Every situation of a request, and its answer.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/answers.md")]
pub mod answers {}

/// The order of layers: which go outside and which inside, with `ServiceBuilder` and with axum's `Router`.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/layer-order.md")]
pub mod layer_order {}

/// All options, their defaults, and the limits of the stores.
///
#[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/options.md")]
pub mod options {}

/// Plain Tower and hyper, gRPC with tonic, and message consumers.
///
#[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/stacks.md")]
pub mod stacks {}

/// The promises of the layer, and their limits.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/promises.md")]
pub mod promises {}

/// The retry of an interrupted run: a rejection, another run, or the application's answer.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "sled", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/policies.md")]
pub mod policies {}

/// Effect and record in one transaction: of sled, of PostgreSQL, or of a database of your own.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "sled")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/exactly-once.md")]
pub mod exactly_once {}

/// The parts of a request that are compared with the first one that had its key.
///
#[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/same-request.md")]
pub mod same_request {}

/// Answers of a handler that does not know whether it took effect.
///
#[cfg(any(not(doctest), feature = "axum"))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/unknown-answers.md")]
pub mod unknown_answers {}

/// The handler's side: what it can ask about its run, and say about its answer.
///
#[cfg(any(not(doctest), feature = "axum"))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/handlers.md")]
pub mod handlers {}

/// Starting, settling, shutting down; logs, counts and health.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "sled")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/operators.md")]
pub mod operators {}

/// Whose a key is, what a replay leaves out, and slow uploads.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "memory")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/security.md")]
pub mod security {}

/// The sled store: how it makes sled durable, your own trees in the same database, and what is on disk.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/sled.md")]
pub mod sled {}

/// Several servers over one PostgreSQL database, or over a database of your own.
///
#[cfg(any(not(doctest), feature = "server"))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/shared.md")]
pub mod shared {}

/// The costs of the layer, measured, and compared with other crates.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

/// Tests of what your handler does when a process crashes or a store fails.
///
#[cfg(any(not(doctest), all(feature = "axum", feature = "test-util")))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

/// The tests that look for a broken promise, and how to run them for longer.
///
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/laboratories.md")]
pub mod laboratories {}
