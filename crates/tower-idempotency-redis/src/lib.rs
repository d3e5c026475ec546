#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// RedisBackend compares and sets rows by a script. The protocol is not here: it is in tower-idempotency-shared, for
// every database alike.
//
// What is where; each uses only those that come after it:
// - `url.rs`: a store by its URL; `config.rs`: settings from a file.
// - `open.rs`: how a builder becomes a backend.
// - `backend.rs`: the calls; `changes.rs`: hears which rows were written.
// - `database.rs`: calls of the script, each behind its own barrier.
// - `builder.rs`: what can be chosen; `script.rs`, `lua/rows.lua`: the script and its keys.
// - `connection/`: the connections that calls share, and which host is the primary.
// - `guarantee.rs`: what the server can lose as it is set up; `durability.rs`: what a write has to reach.
// - `wire.rs`: writes as the arguments of the script, and rows out of its answers.
// - `error.rs`: what an error says of what was done.

mod backend;
mod builder;
mod changes;
#[cfg(feature = "config")]
mod config;
mod connection;
mod database;
mod durability;
mod error;
mod guarantee;
mod open;
mod script;
mod url;
mod wire;

/// A store whose records are in Redis or Valkey, for several processes.
pub type RedisStore = tower_idempotency_shared::SharedStore<RedisBackend>;

pub use backend::RedisBackend;
pub use builder::RedisBackendBuilder;
pub use durability::Durability;
pub use error::RedisError;
/// The TLS library, for its [`ClientConfig`](rustls::ClientConfig).
#[cfg(feature = "rustls")]
pub use rustls;
pub use url::connect;
#[cfg(feature = "config")]
pub use {config::RedisConfig, tower_idempotency_shared::SharedConfig, url::connect_with};
