//! What a call does to rows.

pub(crate) mod compare_and_set;
pub(crate) mod expiry;
pub(crate) mod full;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod locks;
