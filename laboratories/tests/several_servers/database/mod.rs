//! The database that the servers share: a server of the test's own, which the test looks into, and breaks for controls.
//!
//! - `either.rs`: a database of either system, as the runs see it.
//! - `look.rs`: a look into its rows; `fault.rs`: what controls break.
//! - `postgres.rs`: a PostgreSQL server, which the test looks into and breaks with SQL.
//! - `redis.rs`: a Redis or Valkey server, which the test looks into with scripts; `meddler.rs` breaks it.

mod either;
mod fault;
mod look;
mod meddler;
mod postgres;
mod redis;

pub(crate) use either::{Database, System, over_each_database};
pub(crate) use fault::Fault;
