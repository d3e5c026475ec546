//! The layer for reqwest, whose requests and answers are types of their own.

mod calls;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod service;
#[cfg(feature = "reqwest-retry")]
mod strategy;

#[cfg(feature = "reqwest-retry")]
pub use strategy::KeyedStrategy;
