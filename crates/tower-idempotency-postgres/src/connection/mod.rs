//! Connections.
//!
//! - `connect.rs`: one connection.
//! - `pool.rs`: the few connections that calls share. `place.rs`: the permit of a call that has one.

pub(super) mod connect;
pub(super) mod place;
pub(super) mod pool;
