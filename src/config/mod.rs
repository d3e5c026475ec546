//! Settings from a file or the environment, as structs for `serde`: the feature `config`.
//!
//! Each field has the name of an option of a builder and sets it, so it means the same and is validated in the same
//! way. A field that is missing leaves the option as it is. An unknown field is an error that names it.
//!
//! Durations are texts, such as `"24h"` or `"1m 30s"`. Sizes and numbers are numbers. Names of headers, methods and
//! levels are texts.
//!
//! ```
//! use tower_idempotency::config::IdempotencyConfig;
//! use tower_idempotency::{IdempotencyLayer, MemoryStore};
//!
//! let config: IdempotencyConfig = serde_json::from_str(
//!     r#"{
//!         "layer": { "retention": "48h", "on_in_flight": "reject", "require_key": true },
//!         "memory": { "max_records": 1000 }
//!     }"#,
//! )?;
//! let store = config.memory.apply(MemoryStore::builder()).build();
//! let layer = config.layer.apply(IdempotencyLayer::new(store));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Options that are functions, such as `scope` and `label`, are set in code. The crates
//! `tower-idempotency-shared` and `tower-idempotency-postgres` have structs for their own options. Put all that you
//! need into one of yours:
//!
//! ```
//! use tower_idempotency::config::IdempotencyConfig;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     listen: std::net::SocketAddr,
//!     #[serde(flatten)]
//!     idempotency: IdempotencyConfig,
//! }
//! ```

mod from_text;
mod settings;

pub use from_text::{Setting, setting};
#[cfg(feature = "fjall")]
pub use settings::FjallConfig;
pub use settings::IdempotencyConfig;
#[cfg(feature = "server")]
pub use settings::LayerConfig;
#[cfg(feature = "memory")]
pub use settings::MemoryConfig;
#[cfg(feature = "sled")]
pub use settings::SledConfig;
