//! wip
#![allow(missing_docs)]
mod clock;
#[cfg(feature = "sled")]
mod codec;
mod engine;
mod fingerprint;
mod key;
mod record;
mod slots;
mod store;
pub use clock::*;
pub use fingerprint::*;
pub use key::*;
pub use record::*;
pub use slots::{Slots, Refusal}; pub use engine::*;
pub use store::*;
