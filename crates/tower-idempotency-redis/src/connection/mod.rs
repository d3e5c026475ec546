//! Connections to the primary.
//!
//! - `connect.rs`: one connection to it, with TLS or without.
//! - `place.rs`: which host is the primary.
//! - `pool.rs`: the few connections that calls share.

pub(super) mod connect;
mod place;
pub(super) mod pool;
