//! `idem copy`.

// - `run.rs`: the command. `report.rs`: what it says at the end.
// - `sides.rs`: opens both stores. `namespace.rs`: the namespace of a database, and who uses it; `postgres.rs` and
//   `redis.rs`: its rows.
// - `records.rs`: copies the records. `compare.rs`: reads both stores again, and compares them.

mod compare;
mod namespace;
mod postgres;
mod records;
mod redis;
mod report;
mod run;
mod sides;

pub(crate) use run::run;

#[cfg(test)]
mod tests;
