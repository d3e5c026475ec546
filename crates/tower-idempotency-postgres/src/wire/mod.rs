//! Rows and writes as the database has them.
//!
//! - `write.rs`: writes as parameters, and rows that are written as they are.
//! - `row.rs`: rows out of answers.
//! - `types.rs`: tokens and times.

pub(super) mod row;
pub(super) mod types;
pub(super) mod write;
