//! Rows and writes as the script has them.
//!
//! - `row.rs`: rows out of answers, and rows to be adopted.
//! - `write.rs`: writes as arguments.
//! - `number.rs`: numbers as texts of one length.

pub(super) mod number;
pub(super) mod row;
pub(super) mod write;
