// The README is the front page, and its links lead into these docs, as those of the pages of `guide` do;
// `docs/journey.md` leads through the files. The examples of the README need three features: without them they are
// shown, but not compiled.
#![doc = include_str!("guide/links.md")]
#![cfg_attr(any(not(doctest), all(feature = "axum", feature = "sled")), doc = include_str!("../README.md"))]
//!
//! All pages of the guide are in these docs, too: [`guide`](mod@guide).
#![cfg_attr(docsrs, feature(doc_cfg))]

// First, so that the page of the layer does not begin with the methods of `operations`.
#[cfg(feature = "server")]
pub mod server;

pub mod clock;
mod codec;
#[cfg(feature = "config")]
pub mod config;
mod digest;
pub mod engine;
pub mod failures;
mod fingerprint;
pub mod guide;
mod key;
#[cfg(idempotency_laboratory)]
pub mod laboratory;
#[cfg(not(idempotency_laboratory))]
mod laboratory;
#[cfg(feature = "metrics")]
pub mod metrics;
mod named;
pub mod observer;
pub mod operations;
mod panics;
#[cfg(feature = "server")]
pub mod problem;
mod record;
pub mod shutdown;
mod slots;
pub mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod timeouts;
mod until;

/// The version of sled whose trees [`SledStore`] hands out. It is the engine inside this process, and no client of a
/// database: an application that shares its trees needs exactly this version.
#[cfg(feature = "sled")]
pub use sled;

/// The version of fjall whose keyspaces [`FjallStore`] hands out, as with [`sled`](https://docs.rs/sled/0.34).
#[cfg(feature = "fjall")]
pub use fjall;

/// The internals that the packages of this repository need: the stores in crates of their own, the tests, the
/// laboratories, the model. So are the hidden methods of what has a public name, such as `Completable::run`. They
/// belong to no release: they change without notice. So a published crate that uses them names this crate's exact
/// version (`=`), and `.ci/separations` fails if one does not.
#[doc(hidden)]
pub mod internals {
    pub use crate::engine::commitment::{Commitment, PendingCommit};
    pub use crate::once_a_minute;
    pub use crate::panics::panic_message;
    pub use crate::record::*;
    #[cfg(feature = "server")]
    pub use crate::server::header::{HeaderError, read_key};
    #[cfg(feature = "config")]
    pub use crate::settings;
    pub use crate::slots::{End, Event, LogThrottle, Refusal, Slots};
    #[cfg(feature = "_cache")]
    pub use crate::store::cache::Cache;
    pub use crate::store::contract::{Records, Sealed};
    #[cfg(feature = "_embedded")]
    pub use crate::store::embedded::MAX_DEFAULT_FREE;
    pub use crate::store::listed::{ListedRecord, OutcomeStart};
    pub use crate::store::name::{is_marred, read_store_name, spoilt};
    pub use crate::store::page::{Cursor, List, Page};
    pub use crate::store::{in_words, with_causes};
    pub use crate::timeouts::pauses;

    /// Nothing was done, for a reason of the store's own.
    pub fn unavailable(reason: impl Into<String>) -> crate::store::StoreError {
        crate::store::StoreError::unavailable(reason)
    }

    /// The transition may have been done, for a reason of the store's own.
    pub fn uncertain(reason: impl Into<String>) -> crate::store::StoreError {
        crate::store::StoreError::uncertain(reason)
    }

    /// The fingerprint of a record whose own can't be read.
    #[must_use]
    pub fn unverifiable() -> crate::Fingerprint {
        crate::Fingerprint::unverifiable()
    }

    /// Returns the size of the future of an exchange, in bytes; 0 if the request is passed on.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn exchange_bytes<F, T, E>(answering: &crate::server::ResponseFuture<F, T, E>) -> usize {
        answering.size()
    }

    /// A change in JSON.
    #[cfg(feature = "server")]
    pub mod written {
        pub use crate::operations::written::*;
    }

    /// The bytes of records.
    pub mod codec {
        pub use crate::codec::{CHECKSUM_BYTES, CodecError, HEAD_BYTES, VERSION, checksum, open, seal};
    }
}

#[cfg(feature = "server")]
#[doc(inline)]
pub use server::{
    answer::marks::{Invalid, Keep, Release, Secret, Unsure},
    answer::meaning::Meaning,
    context::IdempotencyContext,
    fingerprint::identify::FingerprintBody,
    layer::layer::IdempotencyLayer,
    reject::rejection::{Rejection, RejectionKind},
};
#[cfg(feature = "fjall")]
#[doc(inline)]
pub use store::FjallStore;
#[cfg(feature = "memory")]
#[doc(inline)]
pub use store::MemoryStore;
#[cfg(feature = "sled")]
#[doc(inline)]
pub use store::SledStore;
#[doc(inline)]
pub use {
    engine::once::Once,
    engine::policy::{OnInFlight, OnInterrupted},
    fingerprint::{Fingerprint, FingerprintBuilder, Match, RequestPart},
    key::{EmptyScope, Key, KeyError, RecordId, RecordIdError, Scope},
    observer::Observer,
    record::Fence,
    shutdown::Shutdown,
    store::AnyStore,
};
