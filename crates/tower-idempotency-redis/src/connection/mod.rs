//! Connections to the primary.
//!
//! - `dial.rs`: a stream to a host, with TLS or without.
//! - `place.rs`: which host is the primary.
//! - `connect.rs`: one connection to it.
//! - `pool.rs`: the few connections that calls share.

pub(super) mod connect;
pub(super) mod dial;
pub(super) mod place;
pub(super) mod pool;
