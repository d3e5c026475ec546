//! Rows and writes as the database has them.
//!
//! - `write.rs`: writes as parameters.
//! - `adopted.rs`: rows as parameters.
//! - `row.rs`: rows out of answers.
//! - `types.rs`: tokens and times.

pub(super) mod adopted;
pub(super) mod row;
pub(super) mod types;
pub(super) mod write;
