//! `idem doctor`: tests the store itself.

// - `run.rs`: the command. `grade.rs`: how it ends. `report.rs`: what it has found.
// - `postgres.rs`, `redis.rs`: a database; `database.rs`, `claims.rs`: what is tested alike in both.
// - `directory.rs`, `records.rs`: a directory.
// - `file_system.rs`, `syncs.rs`, `disk.rs`: the disk of a directory.

mod claims;
mod database;
mod directory;
mod disk;
mod file_system;
mod grade;
mod postgres;
mod records;
mod redis;
mod report;
mod run;
mod syncs;

pub(crate) use run::run;

#[cfg(test)]
mod tests;
