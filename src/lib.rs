//! A Tower layer that makes retried requests safe: it reads `Idempotency-Key`, records what the first request with a key
//! was and what it was answered, and gives its retries that same answer instead of a second charge.
//!
//! Everything else, from the first two commands to the security notes, is in the README, which follows here after a
//! request's journey through the files.
//!
//! # A request's journey
//! 1. **`server/service.rs`** looks at the head alone. Not covered, or no key: the request passes untouched, and nothing
//!    is allocated. Malformed: refused. Otherwise the service that was polled ready is taken along into an exchange.
//! 2. **`server/exchange.rs`** tells the rest of the story, one step a line: `scope` says whose the key is, `collect.rs`
//!    reads the body within its limit, `identify.rs` makes the fingerprint, and the engine is asked.
//! 3. **`engine/exchange.rs`** looks at the slot, the store, and the slot again. A run under way is joined
//!    (`slots/wait.rs`), which request it is, is compared before anything else (`slots/phase.rs`).
//! 4. A new key takes the slot (`slots/map.rs`), and its run is spawned before the claim is sent: **`engine/run.rs`**.
//!    Under the slot the store is asked for the operation (`engine/claim.rs`), and where an earlier run was interrupted, the
//!    application may be (`engine/reconcile.rs`).
//! 5. **`store/`** decides each step by `record/next.rs`, the one function that says which state follows which. `SledStore` does it
//!    on one thread that writes, syncs, and only then answers (`store/embedded/writer.rs`).
//! 6. The handler runs, detached from the connection. What its answer means for the key is decided in
//!    `server/meaning.rs`; `server/snapshot.rs` turns it into bytes. Or the handler commits effect and answer by itself, in one
//!    transaction (`engine/commit.rs`, `store/embedded/together.rs`).
//! 7. **`engine/settle.rs`** records how it ended; `engine/run.rs` then tells those who wait, frees the slot, and answers.
//! 8. Back in `server/exchange.rs` the verdict becomes an answer: the handler's own, a replay, or a refusal
//!    (`server/refusal.rs`).
//!
//! # Modules
//! Imports go one way: values ([`key`], [`fingerprint`], [`record`], [`clock`]) → codec → slots → [`store`] →
//! [`engine`] → [`server`]. The engine knows no HTTP and builds without it.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `server` | yes | the Tower layer: [`IdempotencyLayer`], [`server`], [`problem`] |
//! | `axum` | yes | axum's body stays axum's; [`IdempotencyContext`] as an extractor; [`Keep`] and [`Release`] as response parts |
//! | `sled` | yes | [`SledStore`] |
//! | `memory` | yes | [`MemoryStore`] |
//! | `test-util` | no | [`test_util`]: a clock moved by hand, a store that fails on command |
//! | `full` | no | all of the above |
//!
#![cfg_attr(all(feature = "server", feature = "axum", feature = "sled", feature = "test-util"), doc = include_str!("../README.md"))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "server", feature = "sled", feature = "memory")),
    allow(dead_code, unused_imports, reason = "some values are there for one feature alone")
)]

pub mod clock;
#[cfg(feature = "sled")]
mod codec;
mod digest;
pub mod engine;
pub mod failures;
pub mod fingerprint;
pub mod guide;
#[cfg(feature = "server")]
pub mod header;
pub mod key;
#[cfg(idempotency_laboratory)]
pub mod laboratory;
#[cfg(not(idempotency_laboratory))]
mod laboratory;
#[cfg(feature = "server")]
pub mod problem;
pub mod record;
#[cfg(feature = "server")]
pub mod server;
mod slots;
pub mod store;
mod within;

/// For tests of your own handlers: time and faults on command. See [`guide::testing`].
#[cfg(feature = "test-util")]
pub mod test_util {
    #[doc(inline)]
    pub use crate::clock::ManualClock;
    pub use crate::store::test::{Stall, TestStore, Verb};
}

#[doc(inline)]
pub use engine::{OnInFlight, OnInterrupted, Once};
#[doc(inline)]
pub use fingerprint::Fingerprint;
#[doc(inline)]
pub use key::{Key, RecordId, Scope};
#[cfg(feature = "server")]
#[doc(inline)]
pub use server::{
    FingerprintBody, IdempotencyContext, IdempotencyLayer, Keep, Meaning, Rejection, RejectionKind, Release, Unknown,
};
#[doc(inline)]
pub use store::AnyStore;
#[cfg(feature = "memory")]
#[doc(inline)]
pub use store::MemoryStore;
#[cfg(feature = "sled")]
#[doc(inline)]
pub use store::SledStore;
