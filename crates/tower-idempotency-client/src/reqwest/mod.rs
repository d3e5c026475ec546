//! The layer for reqwest, whose requests and answers are types of their own.

mod calls;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod service;
