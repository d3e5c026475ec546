//! The rules.

pub(super) mod ends;
pub(super) mod rows;
