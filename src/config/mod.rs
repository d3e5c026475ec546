//! Settings from a file or the environment, as structs for `serde`: the feature `config`.
//!
//! Each field has the name of an option of a builder and sets it, so it means the same and is validated in the same
//! way. A field that is missing leaves the option as it is. An unknown field is an error that names it.
//!
//! Durations are texts, such as `"24h"` or `"1m 30s"`. Sizes and numbers are numbers. Names of headers, methods and
//! levels are texts.
//!
//! Options that are functions, such as `scope` and `label`, are set in code. The crates
//! `tower-idempotency-shared` and `tower-idempotency-postgres` have structs for their own options. Put the sections
//! that you need into a struct of yours. **Don't use `serde(flatten)`**: errors behind it name neither field nor line.
//!
//! ```
//! use tower_idempotency::config::{LayerConfig, MemoryConfig};
//! use tower_idempotency::{IdempotencyLayer, MemoryStore};
//!
//! #[derive(Debug, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     listen: std::net::SocketAddr,
//!     #[serde(default)]
//!     layer: LayerConfig,
//!     #[serde(default)]
//!     memory: MemoryConfig,
//! }
//!
//! let file = "listen = \"127.0.0.1:3000\"\n[layer]\nretention = \"48h\"\n";
//! let settings: Settings = toml::from_str(file)?;
//! let store = settings.memory.apply(MemoryStore::builder()).build();
//! let layer = settings.layer.apply(IdempotencyLayer::new(store));
//!
//! let error = toml::from_str::<Settings>(&file.replace("\"48h\"", "48")).unwrap_err().to_string();
//! assert!(error.contains("at line 3") && error.contains("retention = 48"));
//! assert!(error.contains(r#"expected a duration: write it as "24h""#));
//! # Ok::<(), toml::de::Error>(())
//! ```

mod from_text;
mod settings;

pub use from_text::{Setting, setting};
#[cfg(feature = "fjall")]
pub use settings::FjallConfig;
#[cfg(feature = "server")]
pub use settings::LayerConfig;
#[cfg(feature = "memory")]
pub use settings::MemoryConfig;
#[cfg(feature = "sled")]
pub use settings::SledConfig;
