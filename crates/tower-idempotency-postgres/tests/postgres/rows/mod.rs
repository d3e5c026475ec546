//! The effects of a call on rows.

pub(crate) mod compare_and_set;
pub(crate) mod expiry;
pub(crate) mod forgotten;
pub(crate) mod full;
pub(crate) mod in_body;
pub(crate) mod limits;
pub(crate) mod listed;
pub(crate) mod locks;
